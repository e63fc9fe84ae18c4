"""Reads and writes FreeSurfer's triangle surfaces, and moves them between its own frame and the scanner's."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile
from napari_mri.core.grid import Grid
from napari_mri.io.surfaces import Surface

_MAGIC = b"\xff\xff\xfe"
_AGAIN = "Copy or export the file again."
_NOWHERE = (
    "The file does not tell which volume it belongs to, so its points may be shifted: "
    "give the volume that FreeSurfer made it from."
)


def is_freesurfer(head: bytes) -> bool:
    """Tell by the magic number of triangle files."""
    return head[:3] == _MAGIC and b"\n\n" in head


def read_freesurfer(content: bytes, name: str, volume: Grid | None = None) -> Surface:
    """Read a triangle surface such as `lh.white` or `rh.pial`.

    FreeSurfer counts from the middle of its volume ("tkr-RAS"). The lines at the end of the file
    tell that volume, and with it the way to the scanner's RAS; without them `volume` does.

    Parameters
    ----------
    content : bytes
    name : str
    volume : Grid, optional
        Of the volume the surface was made from (`orig.mgz`).

    Raises
    ------
    BrokenFile
    """
    start = content.find(b"\n\n", 3) + 2
    if start < 2 or start > 10_000 or start + 8 > len(content):
        raise BrokenFile(f"The header of {name} is damaged.", hint=_AGAIN)
    n_points, n_faces = (int(n) for n in np.frombuffer(content, ">i4", 2, start))
    end = start + 8 + n_points * 12 + n_faces * 12
    if n_points < 1 or n_faces < 1 or end > len(content):
        raise BrokenFile(
            f"{name} is cut off: {n_points} points and {n_faces} triangles were promised.", hint=_AGAIN
        )
    points = np.frombuffer(content, ">f4", n_points * 3, start + 8).reshape(-1, 3).astype(np.float64)
    faces = (
        np.frombuffer(content, ">i4", n_faces * 3, start + 8 + n_points * 12).reshape(-1, 3).astype(np.intp)
    )
    told = content[end : end + 10_000].decode("latin-1")
    shift = _to_scanner(told)
    if shift is None and volume is not None:
        shift = scanner_from_tkr(volume)
    if shift is None:
        return Surface(points, faces, name, warnings=(_NOWHERE,))
    return Surface(points @ shift[:3, :3].T + shift[:3, 3], faces, name)


def _to_scanner(told: str) -> NDArray[np.float64] | None:
    """Return tkr-RAS -> scanner RAS from the lines at the end of the file, if they are valid."""
    found: dict[str, list[float]] = {}
    for match in re.finditer(r"(?<![a-z])(valid|volume|voxelsize|[xyzc]ras)\s*=\s*([^\r\n]*)", told):
        numbers = re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", match[2])
        found[match[1]] = [float(number) for number in numbers[:3]]
    valid = found.get("valid", [0.0])[:1] == [1.0]
    keys = ("volume", "voxelsize", "xras", "yras", "zras", "cras")
    if not valid or any(len(found.get(key, ())) != 3 for key in keys):
        return None
    shape = tuple(int(side) for side in found["volume"])
    affine = np.eye(4)
    affine[:3, :3] = np.array([found["xras"], found["yras"], found["zras"]]).T * found["voxelsize"]
    affine[:3, 3] = np.array(found["cras"]) - affine[:3, :3] @ (np.array(shape) / 2)
    if min(shape) < 1 or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        return None
    return scanner_from_tkr(Grid((shape[0], shape[1], shape[2]), affine))


def scanner_from_tkr(grid: Grid) -> NDArray[np.float64]:
    """Return the (4, 4) way from FreeSurfer's frame of a volume to the scanner's RAS+, mm.

    In its own frame FreeSurfer takes every volume as coronal with its middle at 0, whatever the
    scanner said: array axes run to the left, down and to the front.
    """
    tkr = np.zeros((4, 4))
    steps = np.asarray(grid.spacing)
    tkr[:3, :3] = np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]) * steps
    tkr[:3, 3] = -tkr[:3, :3] @ (np.asarray(grid.shape) / 2)
    tkr[3, 3] = 1
    return np.asarray(grid.affine @ np.linalg.inv(tkr))


def freesurfer_bytes(surface: Surface) -> bytes:
    """Return a surface as FreeSurfer's triangle file whose own frame is the scanner's."""
    head = (
        _MAGIC
        + b"created by napari_mri\n\n"
        + np.array([len(surface.points), len(surface.faces)], ">i4").tobytes()
    )
    tail = np.array([2, 0, 20], ">i4").tobytes() + (
        b"valid = 1  # volume info valid\nfilename = none\nvolume = 256 256 256\n"
        b"voxelsize = 1.000000000000000e+00 1.000000000000000e+00 1.000000000000000e+00\n"
        b"xras   = -1.000000000000000e+00 0.000000000000000e+00 0.000000000000000e+00\n"
        b"yras   = 0.000000000000000e+00 0.000000000000000e+00 -1.000000000000000e+00\n"
        b"zras   = 0.000000000000000e+00 1.000000000000000e+00 0.000000000000000e+00\n"
        b"cras   = 0.000000000000000e+00 0.000000000000000e+00 0.000000000000000e+00\n"
    )
    return head + surface.points.astype(">f4").tobytes() + surface.faces.astype(">i4").tobytes() + tail
