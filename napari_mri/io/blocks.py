"""Reads one block of voxels out of a file, plain or deflated, never taking memory the file cannot fill."""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, OutOfMemory
from napari_mri.io.unpack import GZIP, read_into

_CHUNK = 1 << 20
_MOST_SHRUNK = {"raw": 1, "deflate": 1040, "bzip2": 50_000}
_AGAIN = "Copy or download the file again."


def physical_memory() -> int:
    """Return the main memory of this machine, bytes; a cautious 8 GB where it will not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8_000_000_000


def check_promise(name: str, n_bytes: int, room: int, *, mapped: bool = False) -> None:
    """Refuse a header that promises more voxels than its file, or this machine, can hold.

    Parameters
    ----------
    name : str
        File name for the message.
    n_bytes : int
        What the header promises.
    room : int
        The most that the bytes in the file could unpack to.
    mapped : bool
        Whether they stay on the disk until they are looked at, so that memory is no bound.

    Raises
    ------
    BrokenFile, OutOfMemory
    """
    if n_bytes > room:
        raise BrokenFile(
            f"{name} lies about its size: the header promises {n_bytes / 1e6:,.1f} MB of voxels, "
            f"the file can hold {room / 1e6:,.1f} MB at most.",
            hint="The file is probably cut off; copy or download it again.",
        )
    if n_bytes > physical_memory() and not mapped:
        raise OutOfMemory(
            f"{name} unpacks to {n_bytes / 1e9:,.1f} GB; this machine has {physical_memory() / 1e9:,.1f} GB.",
            hint="Crop it or lower its resolution on a bigger machine first.",
        )


def read_block(
    path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], packing: str
) -> NDArray[Any]:
    """Read voxels that lie in a file fastest axis first.

    Parameters
    ----------
    path : Path
    offset : int
        Where the block begins, bytes.
    shape : tuple of int
        Fastest axis first.
    dtype : numpy dtype
        With its byte order.
    packing : str
        ``"raw"``, ``"deflate"`` (zlib or gzip, told apart by their first bytes) or ``"bzip2"``.

    Returns
    -------
    ndarray, Fortran-ordered, native byte order
        A memory map where the block is plain and of native byte order.

    Raises
    ------
    BrokenFile
        If the file is shorter than promised, or its packing is damaged.
    OutOfMemory
        If the block is larger than the main memory.
    """
    n_bytes = _product(shape) * dtype.itemsize
    left = os.path.getsize(path) - offset
    if offset < 0 or left < 0:
        raise BrokenFile(f"{path.name} is damaged: its voxels should begin after its end.", hint=_AGAIN)
    native = dtype.newbyteorder("=")
    mapped = packing == "raw" and dtype == native
    check_promise(path.name, n_bytes, left * _MOST_SHRUNK[packing], mapped=mapped)
    if packing == "raw":
        stored: NDArray[Any] = np.memmap(path, dtype, "r", offset, shape, order="F")
        return stored if dtype == native else np.asfortranarray(stored, dtype=native)
    buffer = np.empty(shape, dtype, order="F")
    with open(path, "rb") as file:
        file.seek(offset)
        if packing == "bzip2":
            _unpack_into(file, buffer, lambda _: bz2.BZ2Decompressor(), path.name)
        else:
            _unpack_into(file, buffer, _inflater, path.name)
    return buffer if dtype == native else buffer.byteswap(inplace=True).view(native)


def read_plain(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Read voxels, fastest axis first, from where an open stream stands (see `unpack.opened`)."""
    buffer = np.empty(shape, dtype, order="F")
    read_into(file, buffer, name)
    native = dtype.newbyteorder("=")
    return buffer if dtype == native else buffer.byteswap(inplace=True).view(native)


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:  # Python's whole numbers do not overflow, numpy's do
        total *= int(side)
    return total


def _inflater(start: bytes) -> Any:
    bits = 31 if start[:2] == GZIP else 15
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompressobj(bits)
    return isal_zlib.decompressobj(bits)


def _unpack_into(file: BinaryIO, buffer: NDArray[Any], make: Callable[[bytes], Any], name: str) -> None:
    """Fill `buffer` in memory order; several packed streams in a row count as one."""
    view = buffer.T.reshape(-1).view(np.uint8).data
    done, feed, unpacker = 0, b"", None
    try:
        while done < len(view):
            if unpacker is None or unpacker.eof:
                feed = (unpacker.unused_data if unpacker is not None else b"") or file.read(_CHUNK)
                if not feed:
                    break
                unpacker = make(feed)
            piece = unpacker.decompress(feed, min(_CHUNK * 8, len(view) - done))
            view[done : done + len(piece)] = piece
            done += len(piece)
            feed = _next(unpacker, file)
            if not piece and not feed and not unpacker.eof:
                break
        if unpacker is not None and not unpacker.eof:
            unpacker.decompress(feed, 64)  # reaching the end makes the decoder compare the checksum
    except Exception as error:
        if not _is_packing(error):
            raise
        raise BrokenFile(
            f"{name} is damaged: its compressed voxels cannot be unpacked.", hint=_AGAIN
        ) from error
    if done < len(view):
        raise BrokenFile(
            f"{name} is cut off: {done / 1e6:,.1f} of {len(view) / 1e6:,.1f} MB of voxels are there.",
            hint=_AGAIN,
        )


def _next(unpacker: Any, file: BinaryIO) -> bytes:
    """Return what the decoder should eat next: its own leftovers first."""
    if unpacker.eof:
        return b""
    left = getattr(unpacker, "unconsumed_tail", b"")
    if left or not getattr(unpacker, "needs_input", True):
        return bytes(left)
    return file.read(_CHUNK)


def _is_packing(error: Exception) -> bool:
    from_isal = type(error).__module__.partition(".")[0] in ("isal", "isal_zlib", "igzip_lib")
    broken = isinstance(error, zlib.error | EOFError | ValueError)
    return from_isal or broken or (isinstance(error, OSError) and error.errno is None)
