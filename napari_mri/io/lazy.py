"""Arrays that are read when they are looked at: for scans larger than memory, at several resolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from napari_mri.core.errors import OutOfMemory
from napari_mri.io.blocks import physical_memory

Read = Callable[[tuple[slice, ...]], NDArray[Any]]
BIG_BYTES = 500_000_000
"""A volume above this is not read as a whole unless somebody needs all of it."""
MOST_SIDE = 2048
"""Graphics cards refuse longer sides in 3D."""
_SAMPLE_BYTES = 24_000_000


@dataclass(frozen=True, eq=False)
class LazyArray(NDArrayOperatorsMixin):
    """Looks like an ndarray; slices and turns cost nothing, values are read by ``np.asarray``.

    What it has no lazy answer for (sums, fancy indices, arithmetic) reads the whole.

    Parameters
    ----------
    read : callable
        ``read(slices) -> ndarray``, one slice an axis of the source, steps positive.
    kind : numpy dtype
        Of the values.
    ranges : tuple of range
        What is taken of each axis of the source.
    axes : tuple of int
        Which axis of the source each of ours is; one that is missing here has a range of one.
    levels : tuple of LazyArray
        The same field coarser and coarser.
    """

    read: Read
    kind: np.dtype[Any]
    ranges: tuple[range, ...]
    axes: tuple[int, ...]
    levels: tuple[LazyArray, ...] = field(default=())

    @classmethod
    def of(cls, read: Read, dtype: DTypeLike, shape: Sequence[int]) -> LazyArray:
        """Make one of a whole source."""
        return cls(read, np.dtype(dtype), tuple(range(int(n)) for n in shape), tuple(range(len(shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(len(self.ranges[axis]) for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.kind

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=object)) if self.axes else 1

    @property
    def nbytes(self) -> int:
        """Memory that all values would take."""
        return self.size * self.kind.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray({'×'.join(map(str, self.shape))}, {self.kind}, {1 + len(self.levels)} resolutions)"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self.nbytes > physical_memory():
            raise OutOfMemory(
                f"All of this scan would take {self.nbytes / 1e9:,.1f} GB; this machine has "
                f"{physical_memory() / 1e9:,.1f} GB.",
                hint="Crop it or lower its resolution first; looking at it works as it is.",
            )
        if not self.size:
            return np.empty(self.shape, dtype or self.kind)
        slices, flips = [], []
        for one in self.ranges:
            low, high = min(one[0], one[-1]), max(one[0], one[-1])
            slices.append(slice(low, high + 1, abs(one.step)))
            flips.append(slice(None, None, -1 if one.step < 0 else 1))
        block = np.asarray(self.read(tuple(slices)))[tuple(flips)]
        dropped = tuple(n for n in range(len(self.ranges)) if n not in self.axes)
        left = [n for n in range(len(self.ranges)) if n in self.axes]
        turned = block.squeeze(axis=dropped).transpose([left.index(axis) for axis in self.axes])
        return np.asarray(turned, dtype=dtype or self.kind)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        read = [np.asarray(one) if isinstance(one, LazyArray) else one for one in inputs]
        return getattr(ufunc, method)(*read, **options)

    def __getitem__(self, key: Any) -> Any:
        parts = list(key) if isinstance(key, tuple) else [key]
        if not all(isinstance(part, int | np.integer | slice | EllipsisType) for part in parts):
            return np.asarray(self)[key]
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        if len(parts) > self.ndim:
            raise IndexError(f"{len(parts)} indices for {self.ndim} axes")
        ranges, axes = list(self.ranges), []
        for axis, part in zip(self.axes, parts, strict=True):
            if isinstance(part, slice):
                ranges[axis] = ranges[axis][part]
                axes.append(axis)
            else:
                one = ranges[axis][int(part)]
                ranges[axis] = range(one, one + 1)
        whole = all(part in (slice(None), slice(None, None, 1), slice(None, None, -1)) for part in parts)
        levels = tuple(level[tuple(parts)] for level in self.levels) if whole else ()
        found = LazyArray(self.read, self.kind, tuple(ranges), tuple(axes), levels)
        return found if axes else np.asarray(found)[()]

    def transpose(self, *order: Any) -> LazyArray:
        """Return it with axes swapped, as ndarray's."""
        flat = order[0] if len(order) == 1 and not isinstance(order[0], int | np.integer) else order
        chosen = [int(n) % self.ndim for n in flat] if flat else list(range(self.ndim))[::-1]
        levels = tuple(level.transpose(*chosen) for level in self.levels)
        return LazyArray(self.read, self.kind, self.ranges, tuple(self.axes[n] for n in chosen), levels)

    @property
    def T(self) -> LazyArray:
        """Return it with axes in reverse."""
        return self.transpose()

    def astype(self, dtype: DTypeLike, **_: Any) -> NDArray[Any]:
        """Read everything as another type."""
        return np.asarray(self, dtype=dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


def lazily(array: LazyArray) -> NDArray[Any]:
    """Tell the type checker that a lazy array stands where an ndarray is expected."""
    return cast("NDArray[Any]", array)


def is_lazy(data: Any) -> bool:
    """Tell whether values are read from disk when they are looked at (lazy arrays and memory maps)."""
    return isinstance(data, LazyArray | np.memmap)


def sample_of(data: NDArray[Any], side: int = 64) -> NDArray[Any]:
    """Return some values of a volume, spread over it, reading little of one that lies on disk.

    Parameters
    ----------
    data : array, (I, J, K) or (I, J, K, C)
    side : int
        About as many values along each axis.
    """
    if not is_lazy(data) or data.nbytes < _SAMPLE_BYTES:
        return np.asarray(data[tuple(slice(None, None, max(1, n // side)) for n in data.shape)])
    if isinstance(data, LazyArray) and data.levels:
        data = lazily(data.levels[-1])
    if data.ndim == 4:
        data = data[..., data.shape[3] // 2]
    # A page of the disk is read whole for a single value, so only some planes are touched at all.
    planes = max(1, int(8 * _SAMPLE_BYTES / 24e6))
    step = max(1, data.shape[2] // planes)
    spread = tuple(slice(None, None, max(1, n // side)) for n in data.shape[:2])
    source: Any = data
    return np.stack([np.asarray(source[(*spread, k)]) for k in range(step // 2, data.shape[2], step)], axis=-1)


def pyramid(data: NDArray[Any]) -> list[NDArray[Any]]:
    """Return an array on disk at several resolutions, finest first; a list of one where it is small.

    Parameters
    ----------
    data : array, (…, I, J, K)
        The last three axes are halved; coarser levels of memory maps are every second voxel, which
        cost nothing until they are looked at.
    """
    frame = int(np.prod(data.shape[-3:], dtype=object)) * data.dtype.itemsize
    if not is_lazy(data) or (frame < BIG_BYTES and max(data.shape[-3:]) <= MOST_SIDE):
        return [data]
    if isinstance(data, LazyArray) and data.levels:
        return [data, *(lazily(level) for level in data.levels)]
    levels, step = [data], 1
    while max(levels[-1].shape[-3:]) > 256:
        step *= 2
        cuts = tuple(slice(step // 2 if n > step else 0, None, step) for n in data.shape[-3:])
        source: Any = data
        levels.append(source[(..., *cuts)])
    return levels
