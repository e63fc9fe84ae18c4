"""Segment from six clicks on the outline: cheapest paths between opposite ends, then a random walker, re-seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadPrompt
from napari_mri.core.grid import Grid
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, knob
from napari_mri.core.prompts import Extremes, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.models._marks import inner_voxels, places_of, voxel_box
from napari_mri.models._walker import random_walk
from napari_mri.nets import geodesic

Array = NDArray[np.float32]
Bools = NDArray[np.bool_]

CARD = Card(
    name="extreme",
    task=SEGMENT,
    title="Six extreme points",
    says=(
        "Click the first and last point of a compact structure or lesion along three directions; needs no training "
        "and knows no anatomy. Further clicks correct it."
    ),
    wants=Wants(axes="RAS", min_slices=1),
    prompts=(Extremes, Point, Scribble),
    needs=("scipy",),
    cite="Stage 0 of SimPLe (weakly supervised segmentation from extreme points); Grady, IEEE TPAMI 2006",
    rank=-1,
)

MOST_VOXELS = 56**3
"""Of the working copy: a walk on more takes seconds."""
SURE, SURELY_NOT = 0.8, 0.1


@dataclass(frozen=True)
class Params:
    """Options of segmenting from extreme points."""

    rounds: int = knob(4, "How often the walk is repeated from its own surest voxels.", low=1, high=10)
    beta: float = knob(130.0, "How high a wall an edge is; higher follows edges more closely.", low=1.0, high=2000.0)


class Walking(Session):
    """The random walker on one scan (storage order RAS)."""

    def __init__(self, scan: Volume, p: Params, rt: Runtime) -> None:
        self.scan, self.p, self.rt = scan, p, rt

    def answer(self, prompts: Prompts) -> Labels:
        """Return the object (1) on the grid of the scan.

        Raises
        ------
        BadPrompt
            If there are no six extreme points.
        """
        given = prompts.of(Extremes)
        if not given:
            raise BadPrompt(
                "This method starts from six extreme points.",
                hint="Click both ends of the object along each of three directions.",
            )
        grid = self.scan.grid
        mask = np.zeros(grid.shape, dtype=np.uint8)
        others = [mark for mark in prompts if not isinstance(mark, Extremes)]
        for number, mark in enumerate(given):
            self.rt.report(number / len(given), "walking")
            ends = np.asarray(mark.points)
            low, high = voxel_box(ends, grid)
            room = np.maximum(3.0, 8.0 / np.asarray(grid.spacing))
            first = np.clip(np.floor(low - room), 0, np.asarray(grid.shape) - 1).astype(int)
            last = np.clip(np.ceil(high + room) + 1, first + 1, grid.shape).astype(int)
            part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            crop = grid.cropped(first, last)
            work = _work_grid(crop)
            image = fit.resampled(self.scan.data[part], crop, work)
            chance = self._walked(image, work, ends, others)
            mask[part] |= (fit.resampled(chance, work, crop) > 0.5).astype(np.uint8)
        return self.scan.with_labels(mask, {1: "object"})

    def _walked(self, image: Array, work: Grid, ends: NDArray[np.float64], others: list[Any]) -> Array:
        """Return the chance to be object on the working copy."""
        from scipy.ndimage import binary_dilation, gaussian_filter

        spread = float(np.percentile(image, 99.5) - np.percentile(image, 0.5)) or 1.0
        values = np.asarray(gaussian_filter(image, 0.5) / spread, dtype=np.float32)
        low, high = voxel_box(ends, work)
        index = np.indices(work.shape).reshape(3, -1).T
        beyond = np.maximum(low - index, index - high).max(axis=1).reshape(work.shape)
        outside = beyond >= 3
        if not outside.any():  # the object fills the scan: its rim is the only thing that can be outside
            outside = beyond >= beyond.max()
        inside = binary_dilation(_paths(values, work, ends)) & (beyond <= 0)
        inside[tuple(_nearest(ends.mean(axis=0)[None], work).T)] |= not inside.any()
        fixed_in, fixed_out = np.zeros_like(inside), np.zeros_like(inside)
        for mark in others:
            spots = tuple(inner_voxels(places_of(mark, min(work.spacing)), work).T)
            (fixed_in if mark.positive else fixed_out)[spots] = True
        chance = np.zeros(work.shape, dtype=np.float32)
        for _ in range(self.p.rounds):
            self.rt.report(0.5)
            inside, outside = (inside | fixed_in) & ~fixed_out, (outside | fixed_out) & ~fixed_in
            chance = random_walk(values, inside & ~outside, outside, work.spacing, self.p.beta)
            sure, not_sure = chance > SURE, (chance <= SURELY_NOT) | (beyond >= 3)
            if (sure == inside).all():
                break
            inside, outside = sure | inside, not_sure & ~sure
        return np.where(beyond <= 0.75, chance, 0).astype(np.float32)


def _paths(values: Array, work: Grid, ends: NDArray[np.float64]) -> Bools:
    """Mark the cheapest ways between the ends of each pair, where a gradient is expensive."""
    from scipy.ndimage import gaussian_gradient_magnitude

    steep = np.asarray(gaussian_gradient_magnitude(values, 1.0), dtype=np.float32)
    found = np.zeros(work.shape, dtype=bool)
    # The cost of a step is the mean slope of its ends, not their difference.
    costs = tuple(
        np.ascontiguousarray((np.moveaxis(steep, a, 0)[1:] + np.moveaxis(steep, a, 0)[:-1]) / 2 + np.float32(0.02))
        for a in range(3)
    )
    for start, stop in zip(_nearest(ends[0::2], work), _nearest(ends[1::2], work), strict=True):
        away = geodesic.distance((costs[0], costs[1], costs[2]), start[None], sweeps=4)
        at = tuple(int(v) for v in stop)
        for _ in range(sum(work.shape) * 2):
            found[at] = True
            if away[at] <= 0:
                break
            at = _downhill(away, at)
    return found


def _downhill(away: Array, at: tuple[int, ...]) -> tuple[int, ...]:
    """Return the neighbour (of six) that is nearest to the start."""
    best = at
    for axis in range(3):
        for step in (-1, 1):
            spot = list(at)
            spot[axis] += step
            if 0 <= spot[axis] < away.shape[axis] and away[tuple(spot)] < away[best]:
                best = tuple(spot)
    return best


def _nearest(places: NDArray[np.float64], grid: Grid) -> NDArray[np.intp]:
    voxels = np.rint(grid.to_voxels(places)).astype(np.intp)
    return np.clip(voxels, 0, np.asarray(grid.shape) - 1)


def _work_grid(crop: Grid) -> Grid:
    even = float(np.cbrt(np.prod(crop.size_mm) / MOST_VOXELS))
    spacing = np.maximum(crop.spacing, even)
    return crop if np.allclose(spacing, crop.spacing) else crop.respaced(spacing)


def open_session(scan: Volume, p: Any, rt: Runtime) -> Walking:
    """Open segmentation from extreme points on a 3D scan in storage order RAS."""
    return Walking(scan, p, rt)


MODELS = (Model(CARD, Params, open=open_session),)
