"""What was pointed at in a volume, slice by slice: which plane, which points and boxes on which slice, how far to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Box, Lasso, Mark, Prompts, Slab
from napari_mri.models._marks import Pointed, voxel_box
from napari_mri.models._sam_slices import PLANES, Plane

FLAT = 0.6
"""What reaches no farther along a direction, voxels, was drawn in one plane."""
MOST_POINTS = 12
"""Points of a scribble that are told on one slice."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked on one slice, in pixels (x, y) of the picture.

    Parameters
    ----------
    points : ndarray, (N, 2)
    positive : ndarray of bool, (N,)
    box : ndarray, (4,) x1 y1 x2 y2, optional
        Around all that was boxed.
    before : ndarray, (1, T, T) logits of an earlier answer, optional
    boxes : tuple of ndarray, (4,)
        Each box, where there are several: parts of the object.
    """

    points: NDArray[Any]
    positive: NDArray[np.bool_]
    box: NDArray[Any] | None = None
    before: NDArray[Any] | None = None
    boxes: tuple[NDArray[Any], ...] = ()

    def parts(self) -> list[Asked]:
        """Return one question for each of several boxes: points on the object in another box are left to that one."""
        if len(self.boxes) < 2:
            return [self]
        held = np.array([((self.points >= b[:2]) & (self.points <= b[2:])).all(axis=1) for b in self.boxes])
        asked = []
        for box, own in zip(self.boxes, held, strict=True):
            kept = own | ~held.any(axis=0) | ~self.positive
            asked.append(Asked(self.points[kept], self.positive[kept], box))
        return asked


def plane_of(grid: Grid, prompts: Prompts, wish: str) -> Plane:
    """Return the plane to look at: the one wished for, that of what was drawn flat, or across the thickest spacing."""
    if wish != "auto":
        return Plane(grid, PLANES[wish])
    for mark in reversed(prompts.marks):
        normal = _normal(mark, FLAT * min(grid.spacing))
        if normal is not None:  # what was drawn in one plane tells the plane
            return Plane(grid, int(np.abs(normal @ grid.directions).argmax()))
    thick = int(np.argmax(grid.spacing))
    return Plane(grid, thick if grid.spacing[thick] > 1.2 * min(grid.spacing) else PLANES["axial"])


def _normal(mark: Mark, least: float) -> NDArray[np.float64] | None:
    """Return the direction (3,) along which a box or a lasso reaches less than `least` mm; None unless there is one."""
    if isinstance(mark, Box):
        axes, places = np.array(mark.axes), mark.corners().reshape(-1, 3)
    elif isinstance(mark, Lasso):
        places = np.array(mark.points)
        axes = np.linalg.svd(places - places.mean(axis=0))[2]
    else:
        return None
    flat = np.flatnonzero(np.ptp(places @ axes.T, axis=0) < least)
    return axes[flat[0]] if len(flat) == 1 else None


def by_slice(told: Pointed, plane: Plane) -> dict[int, Asked]:
    """Sort points and boxes by slice; a mask is left to the model."""
    grid, axis = plane.grid, plane.axis
    points: dict[int, list[tuple[NDArray[Any], bool]]] = {}
    for places, sign in ((told.inside, True), (told.outside, False)):
        voxels = grid.to_voxels(places).reshape(-1, 3)
        held = ((voxels >= -0.5) & (voxels <= np.asarray(grid.shape) - 0.5)).all(axis=1)
        for voxel in voxels[held]:
            number = int(np.clip(np.rint(voxel[axis]), 0, plane.count - 1))
            points.setdefault(number, []).append((plane.to_picture(voxel)[0], sign))
    boxes: dict[int, list[NDArray[Any]]] = {}
    for box in told.boxes:
        low, high = voxel_box(box, grid)
        number = int(np.clip(np.rint((low[axis] + high[axis]) / 2), 0, plane.count - 1))
        ends = plane.to_picture(np.stack([low, high]))
        boxes.setdefault(number, []).append(np.concatenate([ends.min(axis=0), ends.max(axis=0)]))
    asked = {}
    for number in sorted({*points, *boxes}):
        some = thinned(points.get(number, []))
        here = boxes.get(number, [])
        whole = np.concatenate([np.min(here, axis=0)[:2], np.max(here, axis=0)[2:]]) if here else None
        places, signs = np.array([p for p, _ in some]).reshape(-1, 2), np.array([s for _, s in some], bool)
        asked[number] = Asked(places, signs, whole, boxes=tuple(here))
    return asked


def span(told: Pointed, plane: Plane, slabs: tuple[Slab, ...]) -> tuple[int, int]:
    """Return the first and last slice the mask may be carried to."""
    first, last = plane.allowed(slabs)
    if not len(told.boxes):
        return first, last
    ends = [voxel_box(box, plane.grid) for box in told.boxes]
    low = min(float(e[0][plane.axis]) for e in ends)
    high = max(float(e[1][plane.axis]) for e in ends)
    spots = plane.grid.to_voxels(told.inside).reshape(-1, 3)[:, plane.axis]
    low, high = min([low, *spots]), max([high, *spots])
    return max(first, round(low)), min(last, round(high))


def thinned(points: list[tuple[NDArray[Any], bool]]) -> list[tuple[NDArray[Any], bool]]:
    """Keep at most `MOST_POINTS` of each sign, spread evenly."""
    kept = []
    for sign in (True, False):
        some = [point for point in points if point[1] is sign]
        if len(some) > MOST_POINTS:
            some = [some[i] for i in np.linspace(0, len(some) - 1, MOST_POINTS).round().astype(int)]
        kept += some
    return kept


def box_of(mask: NDArray[Any], room: float) -> NDArray[np.float64] | None:
    """Return x1 y1 x2 y2 of a picture's mask, widened by a share of its sides; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    wide, tall = (x2 - x1) * room, (y2 - y1) * room
    top = (mask.shape[1], mask.shape[0])
    return np.array([max(0, x1 - wide), max(0, y1 - tall), min(top[0], x2 + wide), min(top[1], y2 + tall)])
