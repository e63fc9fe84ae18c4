"""Grow a region from clicks: geodesic distance or random walker on a crop, no weights and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, knob
from napari_mri.core.prompts import Box, Lasso, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.models._marks import Pointed, inner_voxels, sorted_out, voxel_box
from napari_mri.models._walker import random_walk
from napari_mri.nets import geodesic

Array = NDArray[np.float32]
Bools = NDArray[np.bool_]

CARD = Card(
    name="grow",
    task=SEGMENT,
    title="Grow a region",
    says=(
        "Spreads from the clicks over similar grey values and stops at edges; good for clearly bounded, even "
        "structures in any contrast. Clicks outside the object hold it back."
    ),
    wants=Wants(axes="RAS", min_slices=1),
    prompts=(Point, Box, Scribble, Lasso, Mask),
    needs=("scipy",),
    cite="Criminisi et al., ECCV 2008 (geodesic segmentation); Grady, IEEE TPAMI 2006 (random walker)",
    rank=0,
)

MOST_VOXELS = 110**3
"""Of the working copy; a larger crop is worked on at a coarser spacing."""


@dataclass(frozen=True)
class Params:
    """Options of region growing."""

    method: str = knob(
        "geodesic",
        "Geodesic is quick; the random walker is slower and bridges weak edges better.",
        choices=("geodesic", "walker"),
    )
    reach: float = knob(
        50.0, "The region never grows farther than this from the nearest mark.", low=2.0, high=300.0, unit="mm"
    )
    looseness: float = knob(
        1.0, "How far grey values may stray from those under the clicks; higher grows more.", low=0.1, high=10.0
    )


class Growing(Session):
    """Region growing on one scan (storage order RAS)."""

    def __init__(self, scan: Volume, p: Params, rt: Runtime) -> None:
        self.scan, self.p, self.rt = scan, p, rt

    def answer(self, prompts: Prompts) -> Labels:
        """Return the region (1 = object) on the grid of the scan."""
        from scipy.ndimage import gaussian_filter

        told = sorted_out(prompts, self.scan.grid)
        self.rt.report(0.1, "cutting out the surroundings")
        crop = self._crop(told)
        work = _work_grid(crop)
        start = np.rint(self.scan.grid.to_voxels(crop.to_patient((0, 0, 0)))).astype(int)
        part = tuple(slice(int(a), int(a + n)) for a, n in zip(start, crop.shape, strict=True))
        image = fit.resampled(self.scan.data[part], crop, work)
        image = np.asarray(gaussian_filter(image, 0.6), dtype=np.float32)
        self.rt.report(0.3, "growing")
        inside, outside = self._seeds(told, work, crop, part)
        soft = self._grown(image, inside, outside, work)
        self.rt.report(0.9, "bringing the mask home")
        mask = np.zeros(self.scan.grid.shape, dtype=np.uint8)
        mask[part] = fit.resampled(soft, work, crop) > 0
        return self.scan.with_labels(mask, {1: "object"})

    def _crop(self, told: Pointed) -> Grid:
        """Return the box of voxels that the region may reach."""
        grid = self.scan.grid
        low = np.full(3, np.inf)
        high = np.full(3, -np.inf)
        room = self.p.reach / np.asarray(grid.spacing)
        if len(told.inside):
            voxels = grid.to_voxels(told.inside)
            low, high = voxels.min(axis=0) - room, voxels.max(axis=0) + room
        if told.mask is not None and told.mask.any():
            at = np.argwhere(told.mask)
            low, high = np.minimum(low, at.min(axis=0) - room / 2), np.maximum(high, at.max(axis=0) + room / 2)
        boxes = [voxel_box(box, grid) for box in told.boxes]
        if boxes:
            # A box says where the object ends: a rim around it is enough to see what is not object.
            rim = np.maximum(2, 4 / np.asarray(grid.spacing))
            low = np.min([b[0] for b in boxes], axis=0) - rim
            high = np.max([b[1] for b in boxes], axis=0) + rim
        first = np.clip(np.floor(low), 0, np.asarray(grid.shape) - 1).astype(int)
        last = np.clip(np.ceil(high) + 1, first + 1, grid.shape).astype(int)
        return grid.cropped(first, last)

    def _seeds(self, told: Pointed, work: Grid, crop: Grid, part: tuple[slice, ...]) -> tuple[Bools, Bools]:
        """Mark voxels of the working copy that are surely object, and surely not."""
        from scipy.ndimage import distance_transform_edt

        inside, outside = np.zeros(work.shape, dtype=bool), np.zeros(work.shape, dtype=bool)
        if told.mask is not None and told.mask.any():
            share = fit.resampled(told.mask[part].astype(np.float32), crop, work, outside=0.0)
            depth = distance_transform_edt(share > 0.5)
            away = distance_transform_edt(share <= 0.5)
            inside |= depth > min(3.0, 0.5 * depth.max())
            outside |= away > 4.0
        if len(told.boxes):
            within = np.zeros(work.shape, dtype=bool)
            for box in told.boxes:
                low, high = voxel_box(box, work)
                first = np.clip(np.floor(low), 0, None).astype(int)
                last = np.clip(np.ceil(high) + 1, 0, work.shape).astype(int)
                within[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
                if not len(told.inside):  # the middle of what the scan has of the box
                    ends = np.clip([low, high], 0, np.asarray(work.shape) - 1)
                    inside[tuple(np.rint(ends.mean(axis=0)).astype(int))] = True
            outside |= ~within
        for places, where, other in ((told.inside, inside, outside), (told.outside, outside, inside)):
            at = tuple(inner_voxels(places, work).T)
            where[at] = True
            other[at] = False
        return inside, outside & ~inside

    def _grown(self, image: Array, inside: Bools, outside: Bools, work: Grid) -> Array:
        """Return a map that is positive in the object."""
        if not inside.any():
            self.rt.warn("No mark on the object is left: they lie outside the box or the scan, or under marks beside the object.")
            return np.full(image.shape, -1, dtype=np.float32)
        tone = self._tone(image, inside)
        mean = float(np.mean(work.spacing))
        i, j, k = (0.04 * float(s) / mean for s in work.spacing)
        costs = geodesic.edges(image, (i, j, k), 1.0 / (tone * self.p.looseness))
        near = geodesic.distance(costs, inside)
        limit = _limit(near, inside, float(np.prod(work.spacing)))
        if self.p.method == "walker":
            # A few marks alone let the walk run far: what is clearly near or far joins them.
            sure = inside | ((near < 0.3 * limit) & ~outside)
            sure_not = (outside | (near > max(2 * limit, float(near.min() + 1e-3)))) & ~inside
            if not sure_not.any():
                return np.ones(image.shape, dtype=np.float32)
            spread = float(np.ptp(image)) or 1.0
            return random_walk(image / spread, sure & ~sure_not, sure_not, work.spacing) - np.float32(0.5)
        # With marks on both sides the nearer one decides, within the natural limit.
        if not outside.any():
            return np.asarray(np.log((limit + 1e-3) / (near + 1e-3)), dtype=np.float32)
        far = geodesic.distance(costs, outside)
        return np.asarray(np.log((np.minimum(far, limit) + 1e-3) / (near + 1e-3)), dtype=np.float32)

    def _tone(self, image: Array, inside: Bools) -> float:
        """How much grey values vary about the marks: a step of this size costs as much as 25 flat voxels."""
        from scipy.ndimage import binary_dilation

        around = image[binary_dilation(inside, iterations=2)]
        low, high = (float(v) for v in np.percentile(image, (1, 99)))
        spread = max(high - low, 1e-30)
        own = float(np.percentile(around, 75) - np.percentile(around, 25)) if around.size else 0.0
        return float(np.clip(own, 0.03 * spread, 0.15 * spread))


def _work_grid(crop: Grid) -> Grid:
    """Return a grid of the crop with not too many voxels and not too unequal sides."""
    size = np.asarray(crop.size_mm)
    even = float(np.cbrt(np.prod(size) / MOST_VOXELS))
    spacing = np.maximum(crop.spacing, even)
    return crop if np.allclose(spacing, crop.spacing) else crop.respaced(spacing)


def _limit(near: Array, inside: Bools, voxel_mm3: float) -> float:
    """Find the distance at which the region grows most slowly: where it fills the object and meets its edge."""
    ordered = np.sort(near[~inside], axis=None)
    if not ordered.size:
        return 1.0
    volume = float(inside.sum()) + np.searchsorted(ordered, steps := np.geomspace(0.3, 30.0, 60))
    least = max(150.0 / voxel_mm3, 2.0 * float(inside.sum()))
    most = 0.5 * near.size
    growth = np.log(volume[6:] / volume[:-6])
    allowed = (volume[:-6] >= least) & (volume[:-6] <= most)
    if not allowed.any():
        return float(steps[int(np.argmin(np.abs(volume - np.clip(volume, least, most))))])
    growth[~allowed] = np.inf
    return float(steps[int(np.argmin(growth)) + 1])


def open_session(scan: Volume, p: Any, rt: Runtime) -> Growing:
    """Open region growing on a 3D scan in storage order RAS."""
    return Growing(scan, p, rt)


MODELS = (Model(CARD, Params, open=open_session),)
