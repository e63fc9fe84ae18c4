"""Reads and writes MetaImage: `.mha`, and `.mhd` with its voxels in a file of the same folder."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Origin, Volume
from napari_mri.io.blocks import read_block
from napari_mri.io.formats import Format
from napari_mri.io.inside import beside
from napari_mri.io.lps import turned_affine

ENDINGS = (".mha",)
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i8", "MET_ULONG": "u8", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_WRITTEN = {
    "i1": "MET_CHAR", "u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "i4": "MET_INT", "u4": "MET_UINT",
    "i8": "MET_LONG_LONG", "u8": "MET_ULONG_LONG", "f4": "MET_FLOAT", "f8": "MET_DOUBLE",
}  # fmt: skip
_LINE = re.compile(rb"\s*(ObjectType|NDims|Comment|CompressedData|BinaryData|DimSize|ElementType)\s*=", re.I)
_MOST_LINES, _MOST_BYTES = 1000, 200_000
_AGAIN = "Copy or download the file again."


def mine(path: Path, head: bytes) -> bool:
    """Tell by the first line of the header, which names a field of MetaImage, and by its axes."""
    return bool(_LINE.match(head)) and re.search(rb"^\s*NDims\s*=", head, re.I | re.M) is not None


def read(path: Path) -> tuple[Volume, ...]:
    """Read a MetaImage.

    Parameters
    ----------
    path : Path
        A `.mha`, or the header of a `.mhd` pair.

    Returns
    -------
    tuple of one Volume

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem, FileProblem
    """
    fields, at = _header(path)
    told: list[str] = []
    sizes, channels, dtype = _layout(fields, path.name)
    grid, step = _grid(fields, sizes, told, path.name)
    order = (channels, *sizes) if channels > 1 else sizes
    target = fields.get("elementdatafile", "")
    place, start = (path, at) if target.upper() == "LOCAL" else (_other(path, target), 0)
    packed = _yes(fields.get("compresseddata", "false"))
    start += _header_size(fields, place, start, order, dtype, packed)
    data: NDArray[Any] = read_block(place, start, order, dtype, "deflate" if packed else "raw")
    if channels > 1:
        data = np.moveaxis(data, 0, -1)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    data = data.reshape(*data.shape, *([1] * (3 - data.ndim)), order="F") if data.ndim < 3 else data
    frames = None
    if data.ndim == 4:
        frames = Frames("channel") if channels > 1 else Frames("time", step, "")
    stem = path.name[:-4] if path.name.lower().endswith((".mha", ".mhd")) else path.name
    return (Volume(data, grid, (), frames, Origin(stem, "metaimage", str(path), {}, tuple(told))),)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields, lower case, and where the header ends: `ElementDataFile` is its last line."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        for _ in range(_MOST_LINES):
            line = file.readline(_MOST_BYTES)
            key, mark, value = line.decode("latin-1").partition("=")
            if not mark:
                break
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                return fields, file.tell()
    raise BrokenFile(
        f"The header of {path.name} has no end: it does not tell where the voxels are.", hint=_AGAIN
    )


def _other(path: Path, target: str) -> Path:
    if target.upper().split(" ")[0] == "LIST" or "%" in target:
        raise UnsupportedImage(
            f"{path.name} spreads its voxels over one file a slice.",
            hint="Save it as a single .mha in the program that wrote it.",
        )
    return beside(path, target)


def _yes(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def _numbers(fields: Mapping[str, str], names: tuple[str, ...], count: int, name: str) -> list[float] | None:
    """Return the numbers of the first field of `names` that is there."""
    for key in names:
        if key in fields:
            try:
                numbers = [float(word) for word in fields[key].split()[: count + 1]]
            except ValueError:
                numbers = []
            if len(numbers) != count:
                raise BrokenFile(
                    f"The header of {name} is damaged: {key} is '{fields[key][:60]}'.", hint=_AGAIN
                )
            return numbers
    return None


def _layout(fields: Mapping[str, str], name: str) -> tuple[tuple[int, ...], int, np.dtype[Any]]:
    if "elementtype" not in fields or "dimsize" not in fields:
        raise BrokenFile(
            f"The header of {name} is damaged: it does not tell the size or type of the image.", hint=_AGAIN
        )
    try:
        n_axes, channels = int(fields.get("ndims", "3")), int(fields.get("elementnumberofchannels", "1"))
        sizes = tuple(int(word) for word in fields["dimsize"].split()[:10])
    except ValueError as error:
        raise BrokenFile(f"The header of {name} is damaged: its size makes no sense.", hint=_AGAIN) from error
    if n_axes != len(sizes) or not sizes or min(*sizes, channels) < 1:
        raise BrokenFile(
            f"The header of {name} is damaged: {n_axes} axes, size '{fields['dimsize'][:60]}'.", hint=_AGAIN
        )
    if not 2 <= n_axes <= 4 or (channels > 1 and n_axes == 4):
        raise UnsupportedImage(
            f"{name} has {n_axes} axes of {channels} channels; scans have three or four.",
            hint="Take one part out.",
        )
    told = fields["elementtype"].upper().removesuffix("_ARRAY")
    if told not in TYPES:
        raise UnsupportedImage(
            f"{name} holds values of type '{told[:40]}', which is not read.", hint="Save it as numbers."
        )
    if channels in (3, 4) and TYPES[told] == "u1":
        raise UnsupportedImage(
            f"{name} holds colours (RGB), not grey values.", hint="Save one channel as grey values."
        )
    if not _yes(fields.get("binarydata", "true")):
        raise UnsupportedImage(
            f"{name} writes its voxels out as text, which is not read.", hint="Save it as binary."
        )
    big = _yes(fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")))
    return sizes, channels, np.dtype(TYPES[told]).newbyteorder(">" if big else "<")


def _grid(
    fields: Mapping[str, str], sizes: tuple[int, ...], told: list[str], name: str
) -> tuple[Grid, float]:
    """Return the grid, and the step of the fourth axis. ITK's frame is LPS, whatever AnatomicalOrientation says."""
    n = len(sizes)
    steps = _numbers(fields, ("elementspacing", "elementsize"), n, name) or [1.0] * n
    turn = _numbers(fields, ("transformmatrix", "rotation", "orientation"), n * n, name)
    origin = _numbers(fields, ("offset", "position", "origin"), n, name)
    if turn is None and origin is None:
        told.append(
            "The file tells no geometry: left and right are a guess, and only the spacings can be trusted."
        )
    if not all(math.isfinite(step) and step != 0 for step in steps[:3]):
        words = ", ".join(f"{step:g}" for step in steps)
        raise GeometryProblem(
            f"{name} tells spacings of {words} mm: a spacing must be more than zero.",
            hint="Repair the header.",
        )
    matrix = np.eye(3)
    if turn is not None:
        side = min(n, 3)
        matrix[:side, :side] = np.array(turn).reshape(n, n)[:side, :side].T
    elif origin is None:
        matrix = np.diag([-1.0, -1.0, 1.0])
    step3, origin3 = [*steps[:3], 1.0][:3], [*(origin or [0.0] * n)[:3], 0.0][:3]
    affine = np.eye(4)
    affine[:3, :3] = matrix * step3
    affine[:3, 3] = origin3
    shape = (*sizes[:3], 1)[:3]
    last = steps[3] if n == 4 and math.isfinite(steps[3]) and steps[3] > 0 else 0.0
    return Grid((shape[0], shape[1], shape[2]), turned_affine(affine)), last


def _header_size(
    fields: Mapping[str, str],
    place: Path,
    start: int,
    order: tuple[int, ...],
    dtype: np.dtype[Any],
    packed: bool,
) -> int:
    """Return how many bytes to skip: ``HeaderSize``, where -1 means that the voxels end the file."""
    try:
        size = int(fields.get("headersize", "0"))
    except ValueError:
        size = -2
    if size == -1 and not packed:
        return max(0, place.stat().st_size - start - int(np.prod(order, dtype=object)) * dtype.itemsize)
    if size < 0:
        raise BrokenFile(
            f"The header of {place.name} is damaged: its HeaderSize makes no sense.", hint=_AGAIN
        )
    return size


def write(volume: Volume, path: Path) -> None:
    """Write a compressed `.mha`.

    Parameters
    ----------
    volume : Volume
        A fourth axis is kept, without what it means.
    path : Path
        Ends in ``.mha``.

    Raises
    ------
    UnsupportedImage
        If the values are complex or not numbers.
    """
    from napari_mri.io.nifti import stored_type

    dtype = stored_type(volume).newbyteorder("<")
    data = volume.data
    body = _deflated(data, dtype)
    n = data.ndim
    affine = turned_affine(volume.grid.affine)
    steps = np.asarray(volume.spacing)
    matrix = np.eye(n)
    matrix[:3, :3] = (affine[:3, :3] / steps).T
    origin = [*affine[:3, 3].tolist(), 0.0][:n]
    step = volume.frames.step if volume.frames is not None and volume.frames.step > 0 else 1.0
    lines = [
        "ObjectType = Image",
        f"NDims = {n}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(body)}",
        f"TransformMatrix = {_words(matrix.ravel())}",
        f"Offset = {_words(origin)}",
        f"CenterOfRotation = {_words([0.0] * n)}",
        f"ElementSpacing = {_words([*steps.tolist(), step][:n])}",
        f"DimSize = {' '.join(map(str, data.shape))}",
        f"ElementType = {_WRITTEN[dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    with open(path, "wb") as file:
        file.write(("\n".join(lines) + "\n").encode())
        file.write(body)


def _words(numbers: Any) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def _deflated(data: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    packer = _packer()
    pieces = []
    for at in range(data.shape[-1]):
        pieces.append(packer.compress(np.asarray(data[..., at]).astype(dtype, copy=False).tobytes(order="F")))
    return b"".join([*pieces, packer.flush()])


def _packer() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(4)
    return isal_zlib.compressobj(3)


FORMATS = (
    Format("metaimage", "MetaImage", ENDINGS, mine, read, write, holds=frozenset({"volume", "labels", "4d"})),
)
