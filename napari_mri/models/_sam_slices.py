"""From a volume to the pictures SAM sees and back: planes, one window a volume, square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Slab

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Array axis the slices follow each other along, in storage order RAS."""


@dataclass(frozen=True)
class Window:
    """Grey values that become black and white, for the whole volume."""

    low: float
    high: float

    def to_bytes(self, data: NDArray[Any]) -> NDArray[np.uint8]:
        """Return values 0 to 255."""
        scaled = (np.asarray(data, dtype=np.float32) - self.low) * np.float32(255 / (self.high - self.low))
        return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)


def window_of(data: NDArray[Any]) -> Window:
    """Return percentiles 0.5 and 99.5 of what is not air."""
    flat = np.asarray(data.reshape(-1)[:: max(1, data.size // 1_000_000)], dtype=np.float64)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return Window(0.0, 1.0)
    low, high = (float(v) for v in np.percentile(flat, (1, 99.5)))
    shown = flat[flat > low + 0.05 * (high - low)]
    if shown.size > 10:
        darkest, brightest = (float(v) for v in np.percentile(shown, (0.5, 99.5)))
        # Where all that is not air is alike, air is the only thing to tell it from.
        if brightest - darkest > 0.05 * (high - low):
            low, high = darkest, brightest
    return Window(low, high if high > low else low + 1.0)


@dataclass(frozen=True)
class Plane:
    """Slices of a grid (storage order RAS) across one axis, upright: rows run downwards in the patient.

    Parameters
    ----------
    grid : Grid
    axis : int
        The slices follow each other along it.
    """

    grid: Grid
    axis: int

    @property
    def across(self) -> tuple[int, int]:
        """Array axes of (rows, columns); rows run against theirs."""
        rest = [a for a in range(3) if a != self.axis]
        return rest[1], rest[0]

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.grid.shape[self.axis]

    def allowed(self, slabs: tuple[Slab, ...]) -> tuple[int, int]:
        """Return the first and last slice that ranges of slices leave; a range along another axis leaves all."""
        held = np.ones(self.count, dtype=bool)
        middle = (np.asarray(self.grid.shape) - 1) / 2
        places = np.repeat(middle[None], self.count, axis=0)
        places[:, self.axis] = np.arange(self.count)
        places = self.grid.to_patient(places)
        for slab in slabs:
            if abs(float(self.grid.directions[:, self.axis] @ np.asarray(slab.normal))) > 0.7:
                held &= slab.holds(places)
        left = np.flatnonzero(held)
        return (int(left[0]), int(left[-1])) if left.size else (0, -1)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the picture, with square pixels."""
        pixel = self.pixel
        rows, columns = (max(1, round(self.grid.shape[a] * self.grid.spacing[a] / pixel)) for a in self.across)
        return rows, columns

    @property
    def pixel(self) -> float:
        """Side of a picture's pixel, mm: the finer of the two spacings."""
        return min(self.grid.spacing[a] for a in self.across)

    def picture(self, data: NDArray[Any], number: int, window: Window) -> NDArray[np.uint8]:
        """Return slice `number` as SAM sees it, (rows, columns, 3) uint8."""
        from scipy.ndimage import zoom

        flat = self._flat(data, number).astype(np.float32)
        if flat.shape != self.size:
            ratio = [want / have for want, have in zip(self.size, flat.shape, strict=True)]
            flat = zoom(flat, ratio, order=1, mode="nearest", grid_mode=True)
        return np.repeat(window.to_bytes(flat)[..., None], 3, axis=2)

    def _flat(self, data: NDArray[Any], number: int) -> NDArray[Any]:
        piece = np.take(data, number, axis=self.axis)  # the two other axes in their order: columns, rows
        return piece.T[::-1]

    def to_picture(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """Return (x, y) pixels, (N, 2), of voxel coordinates (N, 3)."""
        row_axis, column_axis = self.across
        rows, columns = self.size
        points = np.asarray(voxels, dtype=np.float64).reshape(-1, 3)
        x = (points[:, column_axis] + 0.5) * columns / self.grid.shape[column_axis] - 0.5
        y = (self.grid.shape[row_axis] - 0.5 - points[:, row_axis]) * rows / self.grid.shape[row_axis] - 0.5
        return np.stack([x, y], axis=1)

    def home(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Bring a picture's mask (rows, columns) to the slice's two array axes, by nearest neighbour."""
        row_axis, column_axis = self.across
        places = []
        for axis, count in ((row_axis, picture.shape[0]), (column_axis, picture.shape[1])):
            n = self.grid.shape[axis]
            places.append(np.clip(np.floor((np.arange(n) + 0.5) * count / n), 0, count - 1).astype(np.intp))
        flat = picture[places[0][:, None], places[1][None, :]]
        return flat[::-1].T

    def away(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Bring a slice's mask (two array axes) to the picture, by nearest neighbour."""
        flat = mask.T[::-1]
        rows, columns = self.size
        i = np.clip(np.floor((np.arange(rows) + 0.5) * flat.shape[0] / rows), 0, flat.shape[0] - 1).astype(np.intp)
        j = np.clip(np.floor((np.arange(columns) + 0.5) * flat.shape[1] / columns), 0, flat.shape[1] - 1)
        return flat[i[:, None], j.astype(np.intp)[None, :]]
