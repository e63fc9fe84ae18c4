"""Look at any part of a scan at any spacing, quickly and as often as needed: a pyramid of averaged copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.grid import Grid
from napari_mri.engine import fit
from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]


class Pyramid:
    """A scan at its own spacing and at twice, four, … times its finest one.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    grid : Grid
    device : str
        Where the copies are kept and looked at: arrays on ``"cpu"``, else tensors there.
    """

    def __init__(self, data: NDArray[Any], grid: Grid, device: str = "cpu") -> None:
        self.levels: list[tuple[Any, Grid]] = [(fit.finite(data), grid)]
        if device != "cpu":
            from napari_mri.nets.voxels import uploaded

            self.levels = [(uploaded(self.levels[0][0], device), grid)]
        finest = min(grid.spacing)
        for power in range(1, 5):
            values, last = self.levels[-1]
            blocks = [
                2 if s * 1.5 <= finest * 2**power and n >= 8 else 1
                for s, n in zip(last.spacing, last.shape, strict=True)
            ]
            if max(blocks) == 1:
                continue
            self.levels.append(_halved(values, last, blocks))

    def view(self, target: Grid) -> Any:
        """Return the scan on a grid whose axes are those of the scan, (I, J, K) float32; borders go on outside."""
        # The coarsest copy that is still finer than what is asked for: neither aliased nor blurred twice.
        values, grid = self.levels[0]
        for array, place in self.levels[1:]:
            if float(np.prod(place.spacing)) <= 1.3 * float(np.prod(target.spacing)):
                values, grid = array, place
        return straight(values, grid, target)


def _halved(values: Any, grid: Grid, blocks: list[int]) -> tuple[Any, Grid]:
    for axis, block in enumerate(blocks):
        if block == 2:
            even = values.shape[axis] // 2 * 2
            first, second = (tuple([slice(None)] * axis + [slice(n, even, 2)]) for n in (0, 1))
            values = (values[first] + values[second]) * 0.5
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_patient((np.asarray(blocks) - 1) / 2)
    affine[:3, :3] = grid.affine[:3, :3] * blocks
    values = np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values.contiguous()
    return values, Grid((values.shape[0], values.shape[1], values.shape[2]), affine)


def crop_grid(scan: Grid, low: ArrayLike, high: ArrayLike, multiple: int, most: int, finest: float) -> Grid:
    """Return an even-sided grid along the scan's axes that covers a box.

    Parameters
    ----------
    scan : Grid
    low, high : (3,) voxel coordinates in `scan`
    multiple : int
        Sides are multiples of it.
    most : int
        Longest side, voxels.
    finest : float
        Smallest spacing, mm.
    """
    step = np.asarray(scan.spacing)
    start, stop = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    size = np.maximum((stop - start) * step, 1.0)
    spacing = max(finest, float(size.max()) / (most - 1))
    shape = (np.ceil((size / spacing + 1) / multiple) * multiple).astype(int)
    shape = np.minimum(np.maximum(shape, 2 * multiple), most)
    corner = (start + stop) / 2 - (shape - 1) / 2 * spacing / step
    # Voxels of the crop are voxels of the scan where they are as large: nothing is blurred between.
    corner = np.where(np.isclose(spacing, step, rtol=1e-3), np.rint(corner), corner)
    affine = scan.affine.copy()
    affine[:3, :3] = scan.directions * spacing
    affine[:3, 3] = scan.to_patient(corner)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


ALIGNED = 1e-4
"""Of a voxel: what lies no farther than this from the middles of voxels lies on them."""
SLICES, SMALL = 8, 200_000
"""Interpolated at a time; and voxels below which no threads are begun for that."""


def carried(values: Any, source: Grid, target: Grid) -> Any:
    """Interpolate a map of one crop on another whose axes are parallel, (I, J, K) float32; 0 outside."""
    return straight(values, source, target, zero_outside=True)


def straight(values: Any, source: Grid, target: Grid, zero_outside: bool = False) -> Any:
    """Interpolate linearly between grids of parallel axes, one axis after the other.

    Parameters
    ----------
    values : ndarray or Tensor, `source.shape`
        What is returned is the same.
    source, target : Grid
        Axes of the same directions, of any spacing.
    zero_outside : bool
        0 beyond the outer voxel edges of the source; otherwise its border goes on.
    """
    ratio = np.asarray(target.spacing) / np.asarray(source.spacing)
    offset = source.to_voxels(target.to_patient((0, 0, 0)))
    if not isinstance(values, np.ndarray):
        from napari_mri.nets.voxels import spread

        places = [o + r * np.arange(n) for o, r, n in zip(offset, ratio, target.shape, strict=True)]
        ways = [fit.lerping(p, n, zero_outside=zero_outside) for p, n in zip(places, values.shape, strict=True)]
        return spread(values, ways)
    out = np.asarray(values, dtype=np.float32)
    whole = _whole_steps(ratio, offset, target.shape)
    if whole is not None:
        return _cut(out, whole, target.shape, zero_outside)
    ways, needed = [], []
    for o, r, n, count in zip(offset, ratio, target.shape, out.shape, strict=True):
        place = o + r * np.arange(n)
        held = np.clip(place, 0, count - 1)
        low = np.minimum(held.astype(np.intp), max(count - 2, 0))
        part = (held - low).astype(np.float32)
        weight = 1 - part
        if zero_outside:
            there = (place >= -0.5) & (place <= count - 0.5)
            part, weight = part * there, weight * there
        high, first = np.minimum(low + 1, count - 1), int(low.min())
        needed.append(slice(first, int(high.max()) + 1))
        ways.append(((low - first, high - first), (weight, part)))
    # Axes that lose voxels first: the later ones then have less to do.
    order = np.argsort([t / s for t, s in zip(target.shape, values.shape, strict=True)])
    out = out[tuple(needed)]
    for axis in order:
        out = _between(out, int(axis), *ways[axis])
    return out


def _whole_steps(
    ratio: NDArray[np.float64], offset: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.intp] | None:
    """Return the source's voxel (3,) at the target's first one, if all of the target's voxels are voxels of the source."""
    first = np.rint(offset)
    last = (np.asarray(shape) - 1) * (ratio - 1)
    if np.abs(offset - first).max() > ALIGNED or np.abs(offset - first + last).max() > ALIGNED:
        return None
    return first.astype(np.intp)


def _cut(values: Array, first: NDArray[np.intp], shape: tuple[int, ...], zero_outside: bool) -> Array:
    """Return a copy of the part of a shape from voxel `first` (3,) on; beyond the border 0, or the border goes on."""
    part, lacking = overlap(values.shape, first, first + shape, 0 if zero_outside else 1)
    return np.pad(values[part], lacking) if zero_outside else np.pad(values[part], lacking, mode="edge")


def overlap(
    count: tuple[int, ...], start: NDArray[np.intp], stop: NDArray[np.intp], least: int = 0
) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """Return which voxels of an array lie from `start` (3,) up to but not including `stop`, and how many lack on each side.

    Parameters
    ----------
    count : tuple of int
        Shape of the array.
    start, stop : ndarray, (3,)
    least : int
        So many voxels are taken at least, the nearest ones.
    """
    shape = np.asarray(count)
    low, high = np.clip(start, 0, shape - least), np.clip(stop, least, shape)
    before = np.clip(low - start, 0, stop - start - (high - low))
    after = stop - start - (high - low) - before
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return part, [(int(a), int(b)) for a, b in zip(before, after, strict=True)]


def _between(values: Array, axis: int, planes: tuple[Any, Any], weights: tuple[Array, Array]) -> Array:
    """Return weighted sums of two planes each along an axis, some slices at a time: they then stay in the cache."""
    (low, high), (near, far) = planes, weights
    shape = list(values.shape)
    shape[axis] = len(low)
    out = np.empty(shape, dtype=np.float32)
    wide = [-1 if a == axis else 1 for a in range(3)]

    def take(start: int) -> None:
        some = slice(start, start + SLICES)
        if axis == 0:
            out[some] = values[low[some]] * near[some, None, None] + values[high[some]] * far[some, None, None]
        else:
            part = values[some]
            out[some] = part.take(low, axis) * near.reshape(wide) + part.take(high, axis) * far.reshape(wide)

    if out.size < SMALL:
        for start in range(0, shape[0], SLICES):
            take(start)
    else:
        with own_threads() as threads:
            each(take, range(0, shape[0], SLICES), threads)
    return out
