"""A change of voxels in as few bytes as it takes: where, what was there, and what is there now."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile

Box = tuple[slice, ...]
_CONSTANT, _PLAIN, _PALETTE, _BITS, _RUNS = range(5)
_SQUEEZED = 0x80
_PART = struct.Struct("<BI")
_COUNTS = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))


def pack(box: Box, before: NDArray[Any], after: NDArray[Any]) -> tuple[bytes, int]:
    """Pack the difference of two arrays.

    Parameters
    ----------
    box : tuple of slice
        Where the two arrays lie in the whole.
    before, after : ndarray of int, same shape and type, any number of axes

    Returns
    -------
    packed : bytes
        Empty if nothing changed.
    count : int
        Number of changed voxels.
    """
    changed = before != after
    inner = _bounds(changed)
    if inner is None:
        return b"", 0
    changed, before, after = changed[inner], before[inner], after[inner]
    low = [whole.start + part.start for whole, part in zip(box, inner, strict=True)]
    high = [start + n for start, n in zip(low, changed.shape, strict=True)]
    old, new = before[changed], after[changed]
    head = struct.pack(f"<{2 * len(low)}I", *low, *high)
    return b"".join((head, _pack_mask(changed), _pack_values(old), _pack_values(new))), int(old.size)


def region_of(packed: bytes, ndim: int) -> Box:
    """Return the box that a packed difference changes."""
    ends = struct.unpack_from(f"<{2 * ndim}I", packed)
    return tuple(slice(low, high) for low, high in zip(ends[:ndim], ends[ndim:], strict=True))


def count_of(packed: bytes, ndim: int) -> int:
    """Return how many voxels a packed difference changes."""
    coding, content, _ = _read_part(packed, 8 * ndim)
    if coding == _CONSTANT:
        return int(np.prod([side.stop - side.start for side in region_of(packed, ndim)]))
    if coding == _BITS:
        return int(np.count_nonzero(np.unpackbits(np.frombuffer(content, np.uint8))))
    count, gap_type, length_type = struct.unpack_from("<IBB", content)
    at = 6 + count * _COUNTS[gap_type].itemsize
    return int(np.frombuffer(content, _COUNTS[length_type], count, at).sum(dtype=np.int64))


def tally(packed: bytes, ndim: int, dtype: np.dtype[Any]) -> dict[int, int]:
    """Return how many voxels each value gained by a packed difference; below 0 for a loss, 0 left out."""
    count = count_of(packed, ndim)
    _, _, place = _read_part(packed, 8 * ndim)
    old, place = _unpack_values(packed, place, dtype)
    new, _ = _unpack_values(packed, place, dtype)
    found: dict[int, int] = {}
    for values, sign in ((old, -1), (new, 1)):
        if values.size == 1:
            found[int(values[0])] = found.get(int(values[0]), 0) + sign * count
            continue
        if values.dtype.itemsize <= 2 and values.min() >= 0:
            often = np.bincount(values)
            kinds = np.flatnonzero(often)
            often = often[kinds]
        else:
            kinds, often = np.unique(values, return_counts=True)
        for value, number in zip(kinds.tolist(), often.tolist(), strict=True):
            found[value] = found.get(value, 0) + sign * number
    return {value: number for value, number in found.items() if number}


def apply(
    packed: bytes, array: NDArray[Any], *, backwards: bool = False, dtype: np.dtype[Any] | None = None
) -> Box:
    """Make a packed change in an array, or unmake it; return the box that was touched.

    Parameters
    ----------
    packed : bytes
        From `pack`.
    array : ndarray of int
        Changed in place; of the shape and type the log was made for.
    backwards : bool
        Put back what was there before.
    dtype : dtype, optional
        Of the labels when the step was packed, if the array has a wider type by now.

    Raises
    ------
    BrokenFile
        If the bytes are not a packed difference of such an array.
    """
    box = region_of(packed, array.ndim)
    if any(side.stop > n for side, n in zip(box, array.shape, strict=True)):
        raise BrokenFile("A step of the edit log lies outside the labels it is replayed on.")
    view = array[box]
    place = 8 * array.ndim
    changed, place = _unpack_mask(packed, place, view.shape)
    kind = array.dtype if dtype is None else dtype
    old, place = _unpack_values(packed, place, kind)
    values = old if backwards else _unpack_values(packed, place, kind)[0]
    if values.size == 1:
        np.copyto(view, values[0], where=changed)
    else:
        view[changed] = values
    return box


def _bounds(changed: NDArray[np.bool_]) -> Box | None:
    box: list[slice] = []
    for axis in range(changed.ndim):
        others = tuple(n for n in range(changed.ndim) if n != axis)
        hit = np.flatnonzero(changed.any(axis=others))
        if not hit.size:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


def _part(coding: int, content: bytes) -> bytes:
    """Frame a part; squeeze it where that pays (a sample decides for large ones)."""
    if len(content) > 48:
        sample = content[: 1 << 15]
        if len(content) <= len(sample) or len(zlib.compress(sample, 1)) < 0.9 * len(sample):
            squeezed = zlib.compress(content, 1)
            if len(squeezed) < len(content):
                coding, content = coding | _SQUEEZED, squeezed
    return _PART.pack(coding, len(content)) + content


def _read_part(packed: bytes, place: int) -> tuple[int, bytes, int]:
    try:
        coding, length = _PART.unpack_from(packed, place)
        place += _PART.size
        content = packed[place : place + length]
        if len(content) != length:
            raise BrokenFile("A step of the edit log is cut off.")
        if coding & _SQUEEZED:
            content = zlib.decompress(content)
    except (struct.error, zlib.error) as error:
        raise BrokenFile(f"A step of the edit log cannot be read: {error}.") from error
    return coding & ~_SQUEEZED, content, place + length


def _pack_mask(changed: NDArray[np.bool_]) -> bytes:
    flat = changed.ravel()
    if flat.all():
        return _part(_CONSTANT, b"")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0] if flat[0] else [], edges, [flat.size] if flat[-1] else []]).astype(np.int64)
    starts, stops = ends[0::2], ends[1::2]
    gaps, lengths = starts - np.concatenate([[0], stops[:-1]]), stops - starts
    gap_type, length_type = _smallest(gaps), _smallest(lengths)
    if starts.size * (gap_type.itemsize + length_type.itemsize) < flat.size // 8:
        head = struct.pack("<IBB", starts.size, _COUNTS.index(gap_type), _COUNTS.index(length_type))
        return _part(_RUNS, head + gaps.astype(gap_type).tobytes() + lengths.astype(length_type).tobytes())
    return _part(_BITS, np.packbits(flat).tobytes())


def _unpack_mask(packed: bytes, place: int, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], int]:
    coding, content, place = _read_part(packed, place)
    size = int(np.prod(shape))
    if coding == _CONSTANT:
        return np.ones(shape, dtype=bool), place
    if coding == _BITS:
        return np.unpackbits(np.frombuffer(content, np.uint8), count=size).view(bool).reshape(shape), place
    count, gap_type, length_type = struct.unpack_from("<IBB", content)
    gaps = np.frombuffer(content, _COUNTS[gap_type], count, 6)
    lengths = np.frombuffer(content, _COUNTS[length_type], count, 6 + gaps.nbytes)
    steps = np.empty(2 * count + 1, np.int64)
    steps[0:-1:2], steps[1::2] = gaps, lengths
    steps[-1] = size - steps[:-1].sum()
    kind = np.zeros(steps.size, dtype=bool)
    kind[1::2] = True
    return np.repeat(kind, steps).reshape(shape), place


def _smallest(counts: NDArray[np.int64]) -> np.dtype[Any]:
    top = int(counts.max(initial=0))
    return _COUNTS[0] if top < 256 else _COUNTS[1] if top < 65536 else _COUNTS[2]


def _pack_values(values: NDArray[Any]) -> bytes:
    low, high = values.min(), values.max()
    little = values.dtype.newbyteorder("<")
    if low == high:
        return _part(_CONSTANT, values[:1].astype(little).tobytes())
    if int(high) - int(low) < 65536:
        offsets = (values.astype(np.int64) - int(low)) if values.dtype.itemsize > 2 else values - low
        there = np.flatnonzero(np.bincount(offsets))
        if there.size <= 16:
            palette = np.zeros(int(high) - int(low) + 1, np.uint8)
            palette[there] = np.arange(there.size)
            bits = 1 if there.size <= 2 else 2 if there.size <= 4 else 4
            known = (there + int(low)).astype(little).tobytes()
            head = struct.pack("<IBB", values.size, bits, there.size) + known
            return _part(_PALETTE, head + _squash(palette[offsets], bits))
    return _part(_PLAIN, values.astype(little).tobytes())


def _unpack_values(packed: bytes, place: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """Return the values, one for all if they are equal, and where the next part begins."""
    coding, content, place = _read_part(packed, place)
    little = dtype.newbyteorder("<")
    if coding != _PALETTE:
        return np.frombuffer(content, little), place
    size, bits, count = struct.unpack_from("<IBB", content)
    palette = np.frombuffer(content, little, count, 6)
    index = _unsquash(np.frombuffer(content, np.uint8, offset=6 + palette.nbytes), bits, size)
    return palette[index], place


def _squash(index: NDArray[np.uint8], bits: int) -> bytes:
    """Put 8 // bits numbers into each byte, the first in the highest bits."""
    if bits == 1:
        return np.packbits(index).tobytes()
    each = 8 // bits
    rows = np.pad(index, (0, -index.size % each)).reshape(-1, each)
    packed = np.zeros(len(rows), np.uint8)
    for column in range(each):
        packed |= rows[:, column] << np.uint8(8 - bits * (column + 1))
    return packed.tobytes()


def _unsquash(packed: NDArray[np.uint8], bits: int, size: int) -> NDArray[np.uint8]:
    if bits == 1:
        return np.unpackbits(packed, count=size)
    each = 8 // bits
    rows = np.empty((packed.size, each), np.uint8)
    for column in range(each):
        rows[:, column] = (packed >> np.uint8(8 - bits * (column + 1))) & np.uint8(2**bits - 1)
    return rows.ravel()[:size]
