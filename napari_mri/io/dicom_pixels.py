"""Reads the pixels of a stack straight into one array, several files at a time."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, FileProblem, MissingExtra, OutOfMemory, UnsupportedImage
from napari_mri.io.decoding import pages
from napari_mri.io.dicom_bytes import BIG, PLAIN, UNDEFINED, cut_off
from napari_mri.io.dicom_header import File, Frame
from napari_mri.io.dicom_series import Stack

_WORKERS = min(4, os.cpu_count() or 1)
_LITTLE = 32_000_000
"""Bytes of plain pixels that one thread reads as quickly as several."""
_DECODING = (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError, KeyError, IndexError, EOFError)
Slot = tuple[Frame, int, int]


def why_not(file: File) -> str:
    """Return why the pixels of a file are not a grey-value image; empty where they are."""
    tag = file.elements.pixels_tag
    if not tag or not file.rows or not file.columns:
        return "It has no pixel data."
    if file.samples != 1 or file.colour.startswith(("RGB", "YBR", "PALETTE")):
        return "It holds colours (RGB), not grey values."
    if tag == 0x7FE00010 and file.bits not in (8, 16, 32):
        return f"It stores {file.bits} bits a pixel, which is not read."
    return ""


def stored_type(file: File) -> np.dtype[Any]:
    """Return the native type of the stored values."""
    if file.elements.pixels_tag == 0x7FE00008:
        return np.dtype(np.float32)
    if file.elements.pixels_tag == 0x7FE00009:
        return np.dtype(np.float64)
    return np.dtype(f"{'i' if file.signed else 'u'}{file.bits // 8}")


def read_stack(stack: Stack) -> NDArray[Any]:
    """Return the values of a stack, (columns, rows, slices) or (columns, rows, slices, frames).

    Parameters
    ----------
    stack : Stack

    Raises
    ------
    BrokenFile, UnsupportedImage, MissingExtra, FileProblem
    """
    first = stack.volumes[0][0]
    jobs: dict[int, list[Slot]] = {}
    files: dict[int, File] = {}
    for t, volume in enumerate(stack.volumes):
        for k, frame in enumerate(volume):
            jobs.setdefault(id(frame.file), []).append((frame, t, k))
            files[id(frame.file)] = frame.file
    for file in files.values():
        reason = why_not(file)
        if reason:
            raise UnsupportedImage(f"{file.path.name} cannot be shown. {reason}", hint="Choose another series.")
        _check_length(file)
    dtype = np.result_type(*{stored_type(file) for file in files.values()})
    shape = (len(stack.volumes), len(stack.volumes[0]), first.rows, first.columns)
    try:
        out = np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise OutOfMemory(f"{np.prod(shape, dtype=float):.2g} voxels do not fit into memory.") from error
    keys = list(jobs)

    def fill(share: int) -> None:
        for key in keys[share::n_shares]:
            _fill(files[key], jobs[key], out)

    # A task for each file would cost as much as reading it, and threads as much as reading a little.
    small = out.nbytes <= _LITTLE and all(file.elements.syntax in PLAIN for file in files.values())
    n_shares = 1 if small else min(4 * _WORKERS, len(keys))
    if n_shares == 1:
        fill(0)
    else:
        with ThreadPoolExecutor(min(_WORKERS, n_shares)) as pool:
            for _ in pool.map(fill, range(n_shares)):
                pass
    values = _scaled(stack, out)
    turned = values.transpose(3, 2, 1, 0)
    return turned[..., 0] if shape[0] == 1 else turned


def _check_length(file: File) -> None:
    """Refuse a file whose pixels are fewer than its header promises, before memory is taken."""
    if file.elements.syntax not in PLAIN or file.elements.pixels_length == UNDEFINED:
        return
    needed = file.rows * file.columns * file.n_frames * stored_type(file).itemsize
    there = file.elements.size - file.elements.pixels_at
    if there < needed:
        raise BrokenFile(
            f"{file.path.name} is cut off: {max(there, 0) / 1e6:.2f} of {needed / 1e6:.2f} MB of pixels are there.",
            hint="Copy or export it again.",
        )


def _fill(file: File, slots: list[Slot], out: NDArray[Any]) -> None:
    """Put every wanted slice of one file in its place."""
    if file.elements.syntax not in PLAIN or file.elements.pixels_length == UNDEFINED:
        _decode(file, slots, out)
        return
    dtype = stored_type(file)
    size = file.rows * file.columns * dtype.itemsize
    whole = file.elements.whole
    handle = os.open(file.place, os.O_RDONLY | getattr(os, "O_BINARY", 0)) if whole is None else -1
    try:
        page: NDArray[Any] | None = None
        page_number = -1
        for frame, t, k in slots:
            target = out[t, k]
            start = file.elements.pixels_at + frame.number * size
            straight = frame.tile is None and dtype == out.dtype
            if straight and whole is None:
                _read_exactly(handle, target, start, file.place)
            elif straight and whole is not None:
                target[...] = np.frombuffer(whole, dtype, target.size, start).reshape(target.shape)
            else:
                if page is None or page_number != frame.number:
                    page, page_number = np.empty((file.rows, file.columns), dtype), frame.number
                    if whole is None:
                        _read_exactly(handle, page, start, file.place)
                    else:
                        page[...] = np.frombuffer(whole, dtype, page.size, start).reshape(page.shape)
                target[...] = page if frame.tile is None else _tile(page, frame)
            _tidy(file, target)
    finally:
        if handle >= 0:
            os.close(handle)


def _tile(page: NDArray[Any], frame: Frame) -> NDArray[Any]:
    down, across = frame.tile or (0, 0)
    return page[down : down + frame.rows, across : across + frame.columns]


def _read_exactly(handle: int, target: NDArray[Any], start: int, place: str) -> None:
    view = target.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            got = os.preadv(handle, [view[done:]], start + done)
        else:  # Windows and old macOS
            os.lseek(handle, start + done, os.SEEK_SET)
            piece = os.read(handle, len(view) - done)
            got = len(piece)
            view[done : done + got] = piece
        if not got:
            raise cut_off(os.path.basename(place))
        done += got


def _tidy(file: File, values: NDArray[Any]) -> None:
    """Swap big-endian bytes, and clear bits above the stored ones, where old scanners kept overlays."""
    if file.elements.syntax == BIG and values.dtype.itemsize > 1:
        values.byteswap(inplace=True)
    spare = values.dtype.itemsize * 8 - file.stored
    if values.dtype.kind not in "iu" or not 0 < spare < values.dtype.itemsize * 8:
        return
    if values.dtype.kind == "u":
        if values.max() >> file.stored:
            values &= values.dtype.type((1 << file.stored) - 1)
    else:
        values <<= spare
        values >>= spare


def _decode(file: File, slots: list[Slot], out: NDArray[Any]) -> None:
    """Let pydicom and its plugins decode compressed frames."""
    wanted = sorted({frame.number for frame, _, _ in slots})
    size = (file.n_frames, file.rows, file.columns, file.bits)
    try:
        found = dict(zip(wanted, pages(file.path, file.elements, size, wanted), strict=True))
    except _DECODING as error:
        raise _undecoded(file, error) from error
    except (OSError, struct.error) as error:
        raise FileProblem(f"Cannot read {file.path.name}: {error}.") from error
    for frame, t, k in slots:
        page = found[frame.number]
        if page.shape != (file.rows, file.columns):
            raise BrokenFile(f"{file.path.name} unpacks to {page.shape}, not to {(file.rows, file.columns)}.")
        out[t, k] = page if frame.tile is None else _tile(page, frame)


def _undecoded(file: File, error: Exception) -> FileProblem | MissingExtra:
    from pydicom.uid import UID

    name = UID(file.elements.syntax).name
    if "dependenc" in str(error) or isinstance(error, NotImplementedError):
        return MissingExtra(
            f"{file.path.name} is compressed ({name}), and no decoder for that is installed.",
            hint="Install them with: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pylibjpeg-rle",
        )
    return BrokenFile(
        f"{file.path.name} is compressed ({name}) and cannot be unpacked: it is damaged.",
        hint="Copy or export it again.",
    )


def _scaled(stack: Stack, stored: NDArray[Any]) -> NDArray[Any]:
    """Apply slope and intercept; whole numbers scaled by whole numbers stay whole."""
    scales = [[(frame.slope, frame.inter) for frame in volume] for volume in stack.volumes]
    different = {scale for row in scales for scale in row}
    if different == {(1.0, 0.0)}:
        return stored
    kind = _scaled_type(stored, different)
    out = stored if kind == stored.dtype else np.empty(stored.shape, kind)
    for t, row in enumerate(scales):
        for k, (slope, inter) in enumerate(row):
            if kind.kind == "f":
                out[t, k] = stored[t, k] * np.float64(slope) + inter
            else:
                out[t, k] = stored[t, k].astype(np.int64) * int(slope) + int(inter)
    return out


def _scaled_type(stored: NDArray[Any], scales: set[tuple[float, float]]) -> np.dtype[Any]:
    whole = all(slope == int(slope) and inter == int(inter) for slope, inter in scales)
    if whole and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        low, high = int(stored.min()), int(stored.max())
        ends = [value * int(slope) + int(inter) for slope, inter in scales for value in (low, high)]
        for kind in (stored.dtype, np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int32)):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                return kind
    return np.dtype(np.float64 if stored.dtype.itemsize > 4 or stored.dtype.str[1:] in ("i4", "u4") else np.float32)
