"""There and back: bring a scan to the spacing, intensity and size a net expects, and its answer home.

Nothing here turns axes by name: `tasks` hands a model its scan in the storage order it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.grid import Grid, turn_array
from napari_mri.core.volume import Volume
from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]
_FULL = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scale:
    """A straight line between scan intensities and those of a net: ``(value - offset) / factor``.

    Parameters
    ----------
    offset : float
        The intensity that becomes 0.
    factor : float
        The intensity step that becomes 1; never 0.
    """

    offset: float = 0.0
    factor: float = 1.0

    def there(self, data: NDArray[Any]) -> Array:
        """Return the data as the net sees it, float32."""
        return ((data.astype(np.float32) - np.float32(self.offset)) / np.float32(self.factor)).astype(np.float32)

    def unit(self, values: Any) -> Any:
        """Return float32 voxels, an array or a tensor, as `unit_scaled` does: cut to 0 and 1.5."""
        return ((values - self.offset) / self.factor).clip(0, 1.5)

    def home(self, data: NDArray[Any]) -> Array:
        """Undo `there`."""
        return (data.astype(np.float32) * np.float32(self.factor) + np.float32(self.offset)).astype(np.float32)


def robust_scale(data: NDArray[Any], low: float = 0.5, high: float = 99.5) -> Scale:
    """Return the scale that sends two percentiles of the finite voxels to 0 and 1.

    Parameters
    ----------
    data : ndarray
    low, high : float
        Percentiles. A constant image gets factor 1.
    """
    values = _sample(data)
    bottom, top = (float(v) for v in np.percentile(values, (low, high)))
    return Scale(bottom, top - bottom if top > bottom else 1.0)


def standard_scale(data: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> Scale:
    """Return the scale that gives mean 0 and standard deviation 1 within `mask` (default: everywhere)."""
    values = _sample(data if mask is None or not mask.any() else data[mask])
    spread = float(values.std())
    return Scale(float(values.mean()), spread if spread > 0 else 1.0)


def _sample(data: NDArray[Any], most: int = 2_000_000) -> NDArray[np.float64]:
    """Return finite values as float64, thinned by a fixed stride: percentiles need no more."""
    flat = data.reshape(-1)
    values = np.asarray(flat[:: max(1, flat.size // most)], dtype=np.float64)
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1)


def finite(data: NDArray[Any]) -> Array:
    """Return float32 voxels in which NaN and infinite ones are the smallest finite value."""
    out = np.asarray(data, dtype=np.float32)
    if data.dtype.kind in "biu":
        return out
    good = np.isfinite(out)
    if good.all():
        return out
    lowest = out[good].min() if good.any() else np.float32(0)
    return np.where(good, out, lowest).astype(np.float32)


def unit_scale(data: NDArray[Any]) -> Scale | None:
    """Return the scale of synthetic heads: the darkest is 0, the 99.5th percentile of what is not air 1; None for one value.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    """
    some = data.reshape(-1)[:: max(1, data.size // 100_000)]
    low = float(np.quantile(some, 0.001)) if some.size > 1000 else float(some.min())
    shown = some[some > low + 1e-3 * (float(some.max()) - low)]
    top = float(np.quantile(shown, 0.995)) if shown.size > 10 else float(data.max())
    return Scale(low, top - low) if top > low else None


def unit_scaled(data: Array, scale: Scale | None = None) -> Array:
    """Scale as synthetic heads are (`unit_scale`), 0 to 1.5; 0 where all is one value.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    scale : Scale, optional
        Of the whole, if this is a part of it.
    """
    scale = scale or unit_scale(data)
    return np.zeros_like(data) if scale is None else np.asarray(np.clip(scale.there(data), 0, 1.5), dtype=np.float32)


def resampled(
    data: NDArray[Any], source: Grid, target: Grid, *, order: int = 1, outside: float | None = None
) -> Array:
    """Interpolate voxels of one grid at the voxel centres of another.

    Where the target is coarser the data are averaged first, so that fine detail does not alias.

    Parameters
    ----------
    data : ndarray, `source.shape`
    source, target : Grid
        Any two, of any orientation and obliquity.
    order : int
        0 nearest (no averaging, for label numbers), 1 linear, 3 cubic.
    outside : float, optional
        Value beyond the source; by default its border is continued.

    Returns
    -------
    ndarray, `target.shape`, float32
    """
    turn, flips = source.turn_to(target.axes)
    turned = turn_array(data, turn, flips)
    # Whole numbers are averaged as they are: a float copy of all of them would take longer than that.
    values = turned if isinstance(turned, np.ndarray) and turned.dtype.kind in "iu" and order > 0 else finite(turned)
    grid = source.turned(target.axes)
    if order > 0:
        values, grid = _averaged(values, grid, target.spacing)
    if values.shape == target.shape and grid.same(target, 1e-6):
        return np.ascontiguousarray(values)
    step = np.linalg.inv(grid.affine) @ target.affine
    matrix, offset = step[:3, :3], step[:3, 3]
    mode, fill = ("nearest", 0.0) if outside is None else ("grid-constant", float(outside))
    straight = bool(np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-6)
    if straight and order == 1 and outside is None:
        return _lerped(values, np.diag(matrix), offset, target.shape)
    from scipy import ndimage

    result = ndimage.affine_transform(
        values,
        np.diag(matrix) if straight else matrix,
        offset,
        target.shape,
        order=order,
        mode=mode,
        cval=fill,
        prefilter=order > 1,
    )
    return np.asarray(result, dtype=np.float32)


def _lerped(
    values: Array, scale: NDArray[np.float64], offset: NDArray[np.float64], shape: tuple[int, int, int]
) -> Array:
    """Interpolate linearly axis by axis, the border continued: as scipy's transform, in a tenth of its time."""
    # Axes that shrink go first, so that the others have less to do; of those alike the first goes last, plane by plane.
    for axis in sorted(range(3), key=lambda a: (shape[a] / values.shape[a], -a)):
        count = values.shape[axis]
        place = np.clip(offset[axis] + scale[axis] * np.arange(shape[axis]), 0, count - 1)
        low = np.minimum(place.astype(np.intp), max(count - 2, 0))
        values = _between(values, axis, low, np.minimum(low + 1, count - 1), (place - low).astype(np.float32))
    return values


def _between(values: Array, axis: int, low: NDArray[np.intp], high: NDArray[np.intp], part: Array) -> Array:
    """Return what lies between voxels `low` and `high` of an axis, `part` of the way from one to the other, (T,) each."""
    out = np.empty([len(low) if a == axis else n for a, n in enumerate(values.shape)], dtype=np.float32)
    way = part.reshape(-1, 1) if axis == 1 else part

    def take(n: int) -> None:
        if axis == 0:
            below, above, share = values[low[n]], values[high[n]], part[n]
        else:
            below, above, share = values[n].take(low, axis - 1), values[n].take(high, axis - 1), way
        np.subtract(above, below, out=out[n])
        out[n] *= share
        out[n] += below

    with own_threads() as threads:
        each(take, range(len(out)), threads)
    return out


def _averaged(values: NDArray[Any], grid: Grid, spacing: tuple[float, float, float]) -> tuple[Array, Grid]:
    """Average whole blocks of voxels, then blur, until nothing finer than `spacing` is left."""
    block, sigma, coarser = _blocks(grid, spacing)
    if block.max() > 1:
        values, grid = _means(values, block), coarser
    else:
        values = np.asarray(values, dtype=np.float32)
    if sigma.max() > 0.1:
        from scipy.ndimage import gaussian_filter

        values = gaussian_filter(values, sigma)
    return values, grid


def _means(values: NDArray[Any], block: NDArray[np.int_]) -> Array:
    """Return means of blocks of voxels; the border goes on where the last one is not whole."""
    # In the order in which they lie in memory, whatever that is.
    order = np.argsort([-abs(step) for step in values.strides], kind="stable")
    source, (a, b, c) = values.transpose(order), block[order]
    out = np.empty([-(-n // size) for n, size in zip(values.shape, block, strict=True)], dtype=np.float32)
    target, last = out.transpose(order), source.shape[0] - 1
    spare = [(0, int(-n % size)) for n, size in zip(source.shape[1:], (b, c), strict=True)]

    def take(n: int) -> None:
        plane = source[n * a].astype(np.float32)
        for other in range(n * a + 1, (n + 1) * a):
            plane += source[min(other, last)]
        if spare != [(0, 0), (0, 0)]:
            plane = np.pad(plane, spare, mode="edge")
        lines = plane.reshape(-1, b, plane.shape[1]).sum(axis=1)
        total = lines[:, ::c].copy()
        for other in range(1, c):
            total += lines[:, other::c]
        target[n] = total / np.float32(a * b * c)

    with own_threads() as threads:
        each(take, range(len(target)), threads)
    return out


def spread(values: Array, matrices: Sequence[Array]) -> Array:
    """Apply one matrix (T, S) to each axis: any interpolation, average or blur along the axes, or several in a row.

    Parameters
    ----------
    values : ndarray, (S, S', S'')
    matrices : sequence of 3 ndarray

    Returns
    -------
    ndarray, (T, T', T'')
    """
    with own_threads():
        for matrix in matrices:  # each step takes the first axis and puts it last
            values = np.tensordot(values, matrix, axes=(0, 1))
    return values


def along(source: Grid, target: Grid) -> tuple[Array, Array, Array] | None:
    """Return what `resampled` does, linearly and with the border continued, as one matrix (T, S) an axis.

    Parameters
    ----------
    source, target : Grid

    Returns
    -------
    tuple of 3 ndarray, or None where the axes of both are not the same ones
    """
    block, sigma, grid = _blocks(source, target.spacing)
    step = np.linalg.inv(grid.affine) @ target.affine
    matrix, offset = step[:3, :3], step[:3, 3]
    if source.axes != target.axes or np.abs(matrix - np.diag(np.diag(matrix))).max() >= 1e-6:
        return None
    found = []
    for axis in range(3):
        size, count, b = source.shape[axis], grid.shape[axis], int(block[axis])
        mean = np.zeros((count, size), dtype=np.float32)
        np.add.at(mean, (np.repeat(np.arange(count), b), np.minimum(np.arange(count * b), size - 1)), np.float32(1 / b))
        if sigma.max() > 0.1:
            mean = blurring(count, float(sigma[axis]), "reflect") @ mean
        found.append(lerping(offset[axis] + matrix[axis, axis] * np.arange(target.shape[axis]), count) @ mean)
    return found[0], found[1], found[2]


def lerping(place: NDArray[np.float64], count: int, *, zero_outside: bool = False) -> Array:
    """Return the matrix (T, count) that interpolates linearly at places (T,) on an axis; its ends go on, or 0 beyond."""
    held = np.clip(place, 0, count - 1)
    low = np.minimum(held.astype(np.intp), max(count - 2, 0))
    part = (held - low).astype(np.float32)
    there = ((place >= -0.5) & (place <= count - 0.5)) if zero_outside else np.ones(len(place), dtype=bool)
    rows, found = np.arange(len(place)), np.zeros((len(place), count), dtype=np.float32)
    found[rows, low] = (1 - part) * there
    found[rows, np.minimum(low + 1, count - 1)] += part * there
    return found


@lru_cache(maxsize=64)
def blurring(count: int, sigma: float, mode: str) -> Array:
    """Return the matrix (count, count) of a Gaussian along an axis: what it makes of each single voxel; not to be changed.

    Parameters
    ----------
    count : int
    sigma : float
        Voxels. It is cut off at four of them.
    mode : str
        What lies beyond the border: "reflect", "nearest" or "constant" (zeros), as scipy has them.
    """
    if sigma <= 1e-6:
        return np.eye(count, dtype=np.float32)
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    places = np.arange(count)[:, None] + steps
    if mode == "reflect":
        places = np.minimum(places % (2 * count), 2 * count - 1 - places % (2 * count))
    there = (places >= 0) & (places < count) | (mode != "constant")
    found = np.zeros((count, count))
    np.add.at(found, (np.arange(count)[:, None], np.clip(places, 0, count - 1)), weights * there)
    return found.astype(np.float32)


def _blocks(grid: Grid, spacing: tuple[float, float, float]) -> tuple[NDArray[np.int_], NDArray[np.float64], Grid]:
    """Return the blocks (3,) that `_averaged` takes means of, how far it blurs (3,) then, voxels, and the grid of them."""
    ratio = np.asarray(spacing) / np.asarray(grid.spacing)
    block = np.maximum(1, np.floor(ratio + 1e-3)).astype(int)
    sigma = 0.42 * np.sqrt(np.maximum((ratio / block) ** 2 - 1.0, 0.0))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_patient((block - 1) / 2.0)
    affine[:3, :3] = grid.affine[:3, :3] * block
    i, j, k = (int(-(-n // b)) for n, b in zip(grid.shape, block, strict=True))
    return block, sigma, Grid((i, j, k), affine)


def mask_resampled(mask: NDArray[Any], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Bring a mask to another grid with a smooth outline: linear interpolation, cut at one half.

    Parameters
    ----------
    mask : ndarray of bool (or of probabilities in 0 to 1), `source.shape`

    Returns
    -------
    ndarray of bool, `target.shape`; False beyond the source
    """
    if mask.dtype == np.bool_ and source.same(target, 1e-6):
        return mask
    return resampled(mask, source, target, order=1, outside=0.0) >= 0.5


def labels_resampled(labels: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """Bring label numbers to another grid by their nearest voxel; dtype kept, 0 outside."""
    return resampled(labels, source, target, order=0, outside=0.0).astype(labels.dtype)


def padded(data: NDArray[Any], multiple: ArrayLike, mode: str = "edge") -> tuple[NDArray[Any], _FULL]:
    """Pad the last three axes on both sides until each is a multiple of something.

    Parameters
    ----------
    data : ndarray, (..., I, J, K)
    multiple : int or 3 int
    mode : str
        As `numpy.pad`.

    Returns
    -------
    padded : ndarray
    inner : 3 slices
        Where the data lie in it, for the last three axes.
    """
    unit = np.broadcast_to(np.asarray(multiple, dtype=int), (3,))
    sides = [(int(-n % m) // 2, int(-n % m) - int(-n % m) // 2) for n, m in zip(data.shape[-3:], unit, strict=True)]
    inner = tuple(slice(before, before + n) for (before, _), n in zip(sides, data.shape[-3:], strict=True))
    place = (inner[0], inner[1], inner[2])
    if not any(after for _, after in sides):
        return data, place
    return np.pad(data, [(0, 0)] * (data.ndim - 3) + sides, mode=mode), place  # type: ignore[call-overload]


@dataclass(frozen=True)
class Plan:
    """What a net expects of the array it is fed.

    Parameters
    ----------
    spacing : 3 float, optional
        mm along the array axes; the scan's own where None.
    multiple : int
        Each side must be a multiple of it.
    intensity : str
        ``"robust"`` (percentiles 0.5 and 99.5 to 0 and 1), ``"standard"`` (mean 0, deviation 1) or
        ``"raw"``.
    """

    spacing: tuple[float, float, float] | None = None
    multiple: int = 1
    intensity: str = "robust"


@dataclass(frozen=True)
class Trip:
    """The way from a scan to a net and home again, as `there` went it.

    Parameters
    ----------
    scan : Grid
        Where the answer must come home to.
    net : Grid
        The grid of the padded array fed to the net: prompts go there by `net.to_voxels`.
    inner : 3 slices
        The part of that array that is scan and not padding.
    scale : Scale
    """

    scan: Grid
    net: Grid
    inner: _FULL
    scale: Scale

    def _bare(self) -> Grid:
        low = [part.start for part in self.inner]
        return self.net.cropped(low, [part.stop for part in self.inner])

    def image_home(self, data: NDArray[Any], order: int = 3) -> Array:
        """Bring grey values (I, J, K) of the net's grid home, in intensities of the scan."""
        return self.scale.home(resampled(data[self.inner], self._bare(), self.scan, order=order))

    def mask_home(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Bring a mask or probabilities (I, J, K) in 0 to 1 home; cut at one half."""
        return mask_resampled(data[self.inner], self._bare(), self.scan)

    def map_home(self, data: NDArray[Any]) -> Array:
        """Bring a map (I, J, K) that is no intensity (distance, probability) home, linearly."""
        return resampled(data[self.inner], self._bare(), self.scan)

    def labels_home(self, data: NDArray[Any]) -> NDArray[Any]:
        """Bring label numbers (I, J, K) home."""
        return labels_resampled(data[self.inner], self._bare(), self.scan)


def there(scan: Volume, plan: Plan) -> tuple[Array, Trip]:
    """Bring a 3D scan to a net.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    plan : Plan

    Returns
    -------
    data : ndarray, (I', J', K') float32
    trip : Trip
        Brings answers home.
    """
    grid = scan.grid if plan.spacing is None else scan.grid.respaced(plan.spacing)
    data = finite(scan.data) if plan.spacing is None else resampled(scan.data, scan.grid, grid)
    scales: dict[str, Callable[[NDArray[Any]], Scale]] = {"robust": robust_scale, "standard": standard_scale, "raw": lambda _: Scale()}
    scale = scales[plan.intensity](data)
    full, inner = padded(scale.there(data), plan.multiple)
    low = np.asarray([-part.start for part in inner])
    return full, Trip(scan.grid, grid.cropped(low, low + np.asarray(full.shape)), inner, scale)
