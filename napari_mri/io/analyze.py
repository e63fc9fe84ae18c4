"""Reads Analyze 7.5 pairs (`.hdr` and `.img` without NIfTI's magic word)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Origin, Volume
from napari_mri.io.blocks import check_promise, read_block, read_plain
from napari_mri.io.formats import Format
from napari_mri.io.unpack import is_gzipped, opened

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 130: "i1", 132: "u2", 136: "u4"}
_AGAIN = "Copy or download the file again."
_GUESS = (
    "Analyze files tell no orientation: left and right are a guess (first axis to the left, as SPM writes them), "
    "and only the spacings can be trusted."
)


def mine(path: Path, head: bytes) -> bool:
    """Tell by the size word of the header; `.img` is known by the `.hdr` beside it."""
    if _is_header(head):
        return True
    if not path.name.lower().endswith((".img", ".img.gz")):
        return False
    header = _partner(path, ".hdr")
    if header is None:
        return False
    with opened(header) as file:
        return _is_header(file.read(348))


def _is_header(head: bytes) -> bool:
    if len(head) < 348 or head[344:348] in (b"n+1\0", b"ni1\0"):
        return False
    size = head[:4]
    return 348 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))


def _partner(path: Path, ending: str) -> Path | None:
    name = path.name.removesuffix(".gz")
    for candidate in (name[:-4] + ending, name[:-4] + ending + ".gz"):
        if path.with_name(candidate).is_file():
            return path.with_name(candidate)
    return None


def read(path: Path) -> tuple[Volume, ...]:
    """Read an Analyze pair, given either of its files.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of one Volume
        With a warning: the format does not tell left from right.

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    named_image = path.name.lower().removesuffix(".gz").endswith(".img")
    header_path = (_partner(path, ".hdr") if named_image else path) or path
    with opened(header_path) as file:
        raw = file.read(348)
    if len(raw) < 348:
        raise BrokenFile(f"The header of {path.name} is cut off.", hint=_AGAIN)
    voxels_path = path if named_image else _partner(path, ".img")
    if voxels_path is None:
        raise BrokenFile(
            f"{path.name} is the header of a pair, but its .img is not there.", hint="Copy both files."
        )
    order = "<" if int.from_bytes(raw[:4], "little") == 348 else ">"
    shape, dtype = _layout(raw, order, path.name)
    told = [_GUESS]
    grid, step = _grid(raw, order, shape, told, path.name)
    start = float(np.frombuffer(raw, order + "f4", 1, 108)[0])
    if not (np.isfinite(start) and 0 <= start < 2**40):
        raise BrokenFile(
            f"The header of {path.name} is damaged: it does not tell where the voxels begin.", hint=_AGAIN
        )
    data = _scaled(_voxels(voxels_path, int(start), shape, dtype), raw, order)
    frames = None
    if data.ndim == 4:
        frames = Frames("time", step, "s") if step > 0 else Frames("channel")
    stem = header_path.name.removesuffix(".gz")[:-4] or path.name
    return (Volume(data, grid, (), frames, Origin(stem, "analyze", str(path), {}, tuple(told))),)


def _layout(raw: bytes, order: str, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    dim = [int(n) for n in np.frombuffer(raw, order + "i2", 8, 40)]
    sides = dim[1 : 1 + max(0, min(dim[0], 7))]
    while len(sides) > 3 and sides[-1] <= 1:
        sides.pop()
    sides += [1] * (3 - len(sides))
    if dim[0] < 1 or min(sides) < 1:
        raise BrokenFile(f"The header of {name} is damaged: its shape is {sides}.", hint=_AGAIN)
    if len(sides) > 4:
        raise UnsupportedImage(
            f"{name} has {len(sides)} axes; scans have three or four.", hint="Take one part out."
        )
    code = int(np.frombuffer(raw, order + "i2", 1, 70)[0])
    if code not in _TYPES:
        what = {32: "complex numbers", 128: "colours (RGB)", 1: "single bits"}.get(
            code, f"values of type {code}"
        )
        raise UnsupportedImage(f"{name} holds {what}, which are not read.", hint="Save it as grey values.")
    return tuple(sides), np.dtype(order + _TYPES[code])


def _grid(raw: bytes, order: str, shape: tuple[int, ...], told: list[str], name: str) -> tuple[Grid, float]:
    """Return the grid as SPM understands it: its origin field where set, else the middle of the box at 0."""
    pixdim = np.frombuffer(raw, order + "f4", 8, 76).astype(np.float64)
    steps = np.abs(pixdim[1:4])
    if not np.isfinite(steps).all():
        raise GeometryProblem(f"{name} tells spacings that are not numbers.", hint="Repair the header.")
    if not steps.all():
        told.append("A spacing of zero in the header was taken as 1 mm.")
        steps = np.where(steps == 0, 1.0, steps)
    origin = np.frombuffer(raw, order + "i2", 3, 253).astype(np.float64) - 1
    side = np.asarray(shape[:3], dtype=np.float64)
    if not ((origin > -side).all() and (origin < 2 * side).all() and (origin != -1).any()):
        origin = (side - 1) / 2
    affine = np.diag([-steps[0], steps[1], steps[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ origin
    step = float(pixdim[4])
    return Grid((shape[0], shape[1], shape[2]), affine), step if np.isfinite(step) and step > 0 else 0.0


def _voxels(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not is_gzipped(path):
        return read_block(path, start, shape, dtype, "raw")
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    check_promise(path.name, start + n_bytes, path.stat().st_size * 1040)
    with opened(path) as file:
        while start > 0:
            skipped = len(file.read(min(start, 1 << 20)))
            if not skipped:
                break
            start -= skipped
        return read_plain(file, shape, dtype, path.name)


def _scaled(data: NDArray[Any], raw: bytes, order: str) -> NDArray[Any]:
    """Apply SPM's scale factor (`funused1`), where one is told."""
    factor = float(np.frombuffer(raw, order + "f4", 1, 112)[0])
    if factor in (0.0, 1.0) or not np.isfinite(factor):
        return data
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(data * np.float32(factor), dtype=np.float32, order="F")


FORMATS = (Format("analyze", "Analyze 7.5", (".hdr", ".img"), mine, read),)
