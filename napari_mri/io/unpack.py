"""Reads plain and gzipped files alike, straight into the array that will hold the voxels."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile

GZIP = b"\x1f\x8b"
HEAD = 1024
_CHUNK = 1 << 24
_MOST_PACKED = 1040  # deflate cannot shrink anything by more than 1032 times


def is_gzipped(path: Path) -> bool:
    """Tell by its first two bytes whether a file is gzipped."""
    with open(path, "rb") as file:
        return file.read(2) == GZIP


def open_gzip(path: Path) -> BinaryIO:
    """Open a gzipped file for reading, by the fast decoder where it is installed."""
    try:
        from isal import igzip
    except ImportError:
        import gzip

        return cast(BinaryIO, gzip.open(path, "rb"))
    return cast(BinaryIO, igzip.open(path, "rb"))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading its content, unpacked where it is gzipped.

    Raises
    ------
    BrokenFile
        If the packed stream is cut off or damaged.
    """
    file = open_gzip(path) if is_gzipped(path) else open(path, "rb")  # noqa: SIM115 - closed below
    try:
        yield file
    except (EOFError, zlib.error) as error:
        raise _cut_off(path) from error
    except OSError as error:
        if error.errno is not None:  # a real disk error; the gzip classes raise theirs without a number
            raise
        raise _cut_off(path) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("isal", "igzip_lib", "isal_zlib"):
            raise
        raise _cut_off(path) from error
    finally:
        file.close()


def _cut_off(path: Path) -> BrokenFile:
    return BrokenFile(
        f"{path.name} is damaged: its compressed data end too early or do not fit their checksum.",
        hint="Copy or download the file again.",
    )


def head_of(path: Path) -> bytes:
    """Return the first 1024 bytes of the content, fewer if the file is short or its packing broken."""
    try:
        with opened(path) as file:
            return file.read(HEAD)
    except BrokenFile:
        return b""


def check_room(path: Path, packed: bool, offset: int, n_bytes: int) -> None:
    """Refuse a header that promises more than its file can hold, before memory is taken for it.

    Parameters
    ----------
    path : Path
        The file that holds the voxels.
    packed : bool
        Whether it is gzipped.
    offset, n_bytes : int
        Where the voxels begin in the unpacked content, and how many bytes they should be.

    Raises
    ------
    BrokenFile
    """
    size = os.path.getsize(path)
    room = size * _MOST_PACKED if packed else size
    if offset < 0 or offset + n_bytes > room:
        raise BrokenFile(
            f"{path.name} lies about its size: the header promises {n_bytes / 1e6:,.1f} MB of voxels, "
            f"the file has {size / 1e6:,.1f} MB{' packed' if packed else ''}.",
            hint="The file is probably cut off; copy or download it again.",
        )


def read_into(file: BinaryIO, buffer: NDArray[Any], name: str) -> None:
    """Fill a contiguous array from an open file.

    Parameters
    ----------
    file : binary file
        Stands at the first voxel.
    buffer : ndarray, C- or F-contiguous
        Filled in memory order.
    name : str
        File name for the message.

    Raises
    ------
    BrokenFile
        If the file ends before the array is full.
    """
    flat = buffer.T if buffer.flags.f_contiguous else buffer
    view = flat.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        # A gzip file makes bytes of all that is asked for before it copies them, so ask for little.
        got = file.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not got:
            raise BrokenFile(
                f"{name} is cut off: {done / 1e6:,.1f} of {len(view) / 1e6:,.1f} MB of voxels are there.",
                hint="Copy or download the file again.",
            )
        done += got
