"""From what was pointed at in patient mm to voxels of one grid, for every model that answers prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Mask, Point, Prompts, Scribble

Places = NDArray[np.float64]
NOWHERE: Places = np.zeros((0, 3))


@dataclass(frozen=True, eq=False)
class Pointed:
    """All prompts, sorted by what they say.

    Parameters
    ----------
    inside, outside : ndarray, (N, 3) patient mm
        Places on the object, and beside it.
    boxes : ndarray, (B, 2, 2, 2, 3) patient mm
        Corners of boxes around the object (parts of it, if several), first low, then high along each of their sides.
    mask : ndarray of bool, (I, J, K), or None
        A mask to make better, on the grid asked for.
    """

    inside: Places
    outside: Places
    boxes: Places
    mask: NDArray[np.bool_] | None = None

    def reach(self) -> tuple[Places, Places]:
        """Return the lowest and highest patient mm that anything on the object reaches."""
        parts = [self.inside, self.boxes.reshape(-1, 3)]
        every = np.concatenate([part for part in parts if len(part)] or [self.outside])
        return every.min(axis=0), every.max(axis=0)


def sorted_out(prompts: Prompts, grid: Grid, *, room: float = 0.0) -> Pointed:
    """Sort prompts by what they say about the object.

    Parameters
    ----------
    prompts : Prompts
    grid : Grid
        Of the scan the model was given; masks are turned to it, lassos filled at its spacing.
    room : float
        Extreme points lie on the outline: they are drawn this much, mm, towards their middle.
    """
    fine = float(min(grid.spacing))
    inside: list[Places] = []
    outside: list[Places] = []
    boxes: list[Places] = []
    mask: NDArray[np.bool_] | None = None
    for mark in prompts:
        if isinstance(mark, Box):
            boxes.append(_solid(mark).corners())
            continue
        if isinstance(mark, Mask):
            mask = on_grid(mark, grid) if mask is None else mask | on_grid(mark, grid)
            continue
        if isinstance(mark, Extremes):
            points = np.asarray(mark.points)
            boxes.append(_solid(Box.around(points, grid.upright.T)).corners())
            inside.append(_drawn_in(points, room))
            continue
        if isinstance(mark, Lasso):
            area, ring = _filled(np.asarray(mark.points), max(fine, 1.0))
            inside.append(area) if mark.positive else outside.append(area)
            if mark.positive:
                outside.append(ring)
            continue
        (inside if mark.positive else outside).append(places_of(mark, fine))
    return Pointed(
        np.concatenate([NOWHERE, *inside]),
        np.concatenate([NOWHERE, *outside]),
        np.stack(boxes) if boxes else np.zeros((0, 2, 2, 2, 3)),
        mask,
    )


def places_of(mark: Mark, step: float) -> Places:
    """Return the places (N, 3) patient mm of a point or of a scribble, sampled every `step` mm."""
    if isinstance(mark, Point):
        return np.array([mark.xyz])
    assert isinstance(mark, Scribble)
    corners = np.asarray(mark.points)
    parts = [corners[:1]]
    for start, stop in pairwise(corners):
        count = max(1, int(np.ceil(np.linalg.norm(stop - start) / step)))
        parts.append(start + (stop - start) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(parts)


def on_grid(mark: Mask, grid: Grid) -> NDArray[np.bool_]:
    """Return a mask prompt on the model's grid: the same voxels in another storage order; not to be written to."""
    return _turned(mark, grid.axes)


@lru_cache(maxsize=2)
def _turned(mark: Mask, axes: str) -> NDArray[np.bool_]:
    """Unpack a mask once, not at every click that refines it."""
    order, flips = mark.grid.turn_to(axes)
    turned = mark.voxels().transpose(order)
    found = np.ascontiguousarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)])
    found.setflags(write=False)
    return found


def voxel_box(corners: ArrayLike, grid: Grid) -> tuple[Places, Places]:
    """Return the lowest and highest voxel coordinates (3,) of corners (..., 3) patient mm on a grid."""
    voxels = grid.to_voxels(np.reshape(corners, (-1, 3)))
    return voxels.min(axis=0), voxels.max(axis=0)


def patient_ends(corners: Places) -> Places:
    """Return the lowest and highest patient mm (2, 3) of a round thing that fills a box of corners (2, 2, 2, 3)."""
    middle, first = corners.mean(axis=(0, 1, 2)), corners[0, 0, 0]
    sides = np.stack([corners[1, 0, 0], corners[0, 1, 0], corners[0, 0, 1]]) - first
    half = np.sqrt((sides**2).sum(axis=0)) / 2
    return np.stack([middle - half, middle + half])


def inner_voxels(places: Places, grid: Grid) -> NDArray[np.intp]:
    """Return the voxels (N, 3) that hold the places, without those outside the grid and without doubles."""
    voxels = np.rint(grid.to_voxels(places)).astype(np.intp).reshape(-1, 3)
    held = ((voxels >= 0) & (voxels < np.asarray(grid.shape))).all(axis=1)
    return np.unique(voxels[held], axis=0)


def _solid(box: Box) -> Box:
    """Give a box drawn in one plane a depth: that of its shorter side, to both sides together."""
    low, high = np.array(box.low), np.array(box.high)
    size = high - low
    flat = size < 1e-3
    if not flat.any() or flat.all():
        return box
    depth = np.where(flat, size[~flat].min() / 2, 0.0)
    return replace(box, low=tuple(low - depth), high=tuple(high + depth))


def _drawn_in(points: Places, room: float) -> Places:
    middle = points.mean(axis=0)
    away = points - middle
    length = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    return middle + away * np.maximum(1 - room / length, 0.2)


def _filled(line: Places, step: float) -> tuple[Places, Places]:
    """Return places inside a closed line (at least `step` mm from it where there is room) and just outside it."""
    middle = line.mean(axis=0)
    _, _, rows = np.linalg.svd(line - middle, full_matrices=True)
    flat = (line - middle) @ rows[:2].T
    low, high = flat.min(axis=0) - 3 * step, flat.max(axis=0) + 3 * step
    across = max(step, float((high - low).max()) / 60)
    u, v = np.meshgrid(np.arange(low[0], high[0], across), np.arange(low[1], high[1], across), indexing="ij")
    spots = np.stack([u.ravel(), v.ravel()], axis=1)
    within = _even_odd(spots, flat)
    ends = np.roll(flat, -1, axis=0)
    away = np.min([_to_segment(spots, a, b) for a, b in zip(flat, ends, strict=True)], axis=0)
    deep = within & (away >= across)
    area = spots[deep] if deep.any() else flat.mean(axis=0, keepdims=True)
    ring = spots[~within & (away >= across) & (away < 2.5 * across)]
    return middle + area @ rows[:2], middle + ring @ rows[:2]


def _even_odd(spots: NDArray[Any], line: NDArray[Any]) -> NDArray[np.bool_]:
    inside = np.zeros(len(spots), dtype=bool)
    for (x1, y1), (x2, y2) in zip(line, np.roll(line, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > spots[:, 1]) != (y2 > spots[:, 1])
        inside ^= crosses & (spots[:, 0] < (x2 - x1) * (spots[:, 1] - y1) / (y2 - y1) + x1)
    return inside


def _to_segment(spots: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    way = b - a
    t = np.clip((spots - a) @ way / max(float(way @ way), 1e-12), 0, 1)
    return np.asarray(np.linalg.norm(spots - a - t[:, None] * way, axis=1))
