"""Reads and writes FreeSurfer's MGH and MGZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.io.blocks import check_promise, read_plain
from napari_mri.io.formats import Format
from napari_mri.io.unpack import is_gzipped, opened

ENDINGS = (".mgz", ".mgh.gz", ".mgh")
_HEADER = np.dtype(
    [
        ("version", ">i4"), ("dims", ">i4", 4), ("type", ">i4"), ("dof", ">i4"), ("good_ras", ">i2"),
        ("delta", ">f4", 3), ("cosines", ">f4", (3, 3)), ("centre", ">f4", 3),
    ]
)  # fmt: skip
_START = 284
_TYPES = {0: "u1", 1: "i4", 3: "f4", 4: "i2", 10: "u2"}
_CODES = {"u1": 0, "i4": 1, "f4": 3, "i2": 4}
_AGAIN = "Copy or download the file again."


def mine(path: Path, head: bytes) -> bool:
    """Tell by version, axes and type, which are the first numbers; the name has no say."""
    if len(head) < _HEADER.itemsize:
        return False
    header = np.frombuffer(head, _HEADER, 1)[0]
    sides = header["dims"]
    plausible = int(header["type"]) in range(0, 12) and int(sides.min()) >= 1 and int(sides.max()) < 2**24
    return int(header["version"]) == 1 and plausible and int(header["good_ras"]) in (-1, 0, 1)


def read(path: Path) -> tuple[Volume, ...]:
    """Read an MGH or MGZ file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of one Volume

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    packed = is_gzipped(path)
    with opened(path) as file:
        raw = file.read(_START)
        if len(raw) < _START:
            raise BrokenFile(f"The header of {path.name} is cut off.", hint=_AGAIN)
        header = np.frombuffer(raw, _HEADER, 1)[0]
        if int(header["type"]) not in _TYPES:
            raise UnsupportedImage(
                f"{path.name} holds values of type {int(header['type'])}, which is not read."
            )
        sides = tuple(int(n) for n in header["dims"])
        if min(sides) < 1:
            raise BrokenFile(f"The header of {path.name} is damaged: its shape is {sides}.", hint=_AGAIN)
        told: list[str] = []
        grid = _grid(header, sides, told, path.name)
        dtype = np.dtype(">" + _TYPES[int(header["type"])])
        n_bytes = int(np.prod(sides, dtype=object)) * dtype.itemsize
        check_promise(path.name, n_bytes, path.stat().st_size * (1040 if packed else 1))
        shape = sides if sides[3] > 1 else sides[:3]
        data = read_plain(file, shape, dtype, path.name)
        footer = file.read(20)
        while file.read(1 << 20):  # to the end, where the decoder compares the checksum
            pass
    step = float(np.frombuffer(footer[:4], ">f4")[0]) if len(footer) >= 4 else 0.0
    frames = None
    if len(shape) == 4:
        frames = Frames("time", step, "ms") if np.isfinite(step) and step > 0 else Frames("channel")
    stem = (
        next((path.name[: -len(e)] for e in ENDINGS if path.name.lower().endswith(e)), path.name) or path.name
    )
    kept = {"footer": tuple(np.frombuffer(footer, ">f4").tolist())} if len(footer) == 20 else {}
    return (Volume(data, grid, (), frames, Origin(stem, "mgh", str(path), kept, tuple(told))),)


def _grid(header: Any, sides: tuple[int, ...], told: list[str], name: str) -> Grid:
    """Return the grid: the header tells the patient position of the voxel at half the shape."""
    shape = (sides[0], sides[1], sides[2])
    if int(header["good_ras"]) != 1:
        told.append(
            "The file tells no geometry; FreeSurfer's default was taken: 1 mm, coronal, centred at 0."
        )
        delta, cosines, centre = np.ones(3), np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]]), np.zeros(3)
    else:
        delta = header["delta"].astype(np.float64)
        cosines, centre = header["cosines"].astype(np.float64), header["centre"].astype(np.float64)
    if not (np.isfinite(delta).all() and delta.min() > 0):
        raise GeometryProblem(
            f"{name} tells spacings of {delta.tolist()} mm: a spacing must be more than zero."
        )
    affine = np.eye(4)
    affine[:3, :3] = cosines.T * delta  # each row of the header is the direction of one axis
    affine[:3, 3] = centre - affine[:3, :3] @ (np.asarray(shape) / 2)
    return Grid(shape, affine)


def write(volume: Volume, path: Path) -> None:
    """Write MGH, gzipped where the name ends in `.mgz`.

    The format knows uint8, int16, int32 and float32: other whole numbers take the smallest of them
    that holds every value, other fractions are rounded to float32.

    Parameters
    ----------
    volume : Volume
    path : Path

    Raises
    ------
    UnsupportedImage
        If whole numbers need more than 32 bits, or the values are complex.
    """
    dtype = _written_type(volume)
    header = np.zeros((), _HEADER)
    header["version"], header["good_ras"] = 1, 1
    header["dims"] = (*volume.grid.shape, volume.n_frames)
    header["type"] = _CODES[dtype.str[1:]]
    header["delta"] = volume.spacing
    header["cosines"] = volume.grid.directions.T
    header["centre"] = volume.grid.to_patient(np.asarray(volume.grid.shape) / 2)
    start = header.tobytes().ljust(_START, b"\0")
    end = np.array(_footer(volume), ">f4").tobytes()
    with open(path, "wb") as disk:
        if path.name.lower().endswith(".mgh"):
            _pour(disk, start, volume.data, dtype, end)
            return
        from napari_mri.io.nifti import _packer

        with _packer(disk) as packed:
            _pour(packed, start, volume.data, dtype, end)


def _footer(volume: Volume) -> list[float]:
    """Return TR, flip angle, TE, TI (ms) and field of view, those that are known."""
    kept = volume.origin.fields.get("footer") if volume.origin.format == "mgh" else None
    footer = list(kept) if kept else [0.0] * 5
    frames = volume.frames
    if frames is not None and frames.kind == "time" and frames.unit in ("s", "ms") and frames.step > 0:
        footer[0] = frames.step * (1000.0 if frames.unit == "s" else 1.0)
    return footer


def _written_type(volume: Volume) -> np.dtype[Any]:
    kind = volume.data.dtype
    if kind.kind == "f":
        return np.dtype(">f4")
    if kind.kind not in "iub":
        raise UnsupportedImage(f"Values of type {kind} cannot be saved as MGH.", hint="Save the magnitude.")
    if kind.str[1:] in _CODES and not isinstance(volume, Labels):
        return kind.newbyteorder(">")
    low, high = int(volume.data.min()), int(volume.data.max())
    for name in ("u1", "i2", "i4"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(">" + name)
    raise UnsupportedImage(
        f"MGH holds whole numbers of 32 bits, not {low} to {high}.", hint="Save as .nii.gz."
    )


def _pour(file: Any, start: bytes, data: NDArray[Any], dtype: np.dtype[Any], end: bytes) -> None:
    file.write(start)
    for at in range(data.shape[-1]):
        file.write(np.asarray(data[..., at]).astype(dtype, copy=False).tobytes(order="F"))
    file.write(end)


FORMATS = (
    Format("mgh", "FreeSurfer MGH", ENDINGS, mine, read, write, holds=frozenset({"volume", "labels", "4d"})),
)
