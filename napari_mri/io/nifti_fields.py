"""The fields of NIfTI headers as the standards lay them out, and the affine that they tell (nifti.nimh.nih.gov).

nibabel would do the same, and the tests compare with it; but its import takes a second, as long as stripping a head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _table(words: str) -> np.dtype[Any]:
    """Return a record of ``name:type`` or ``name:type*count`` words, little-endian."""
    fields: list[Any] = []
    for word in words.split():
        name, kind = word.split(":")
        kind, _, count = kind.partition("*")
        fields.append((name, "<" + kind, (int(count),)) if count else (name, kind if kind[0] == "S" else "<" + kind))
    return np.dtype(fields)


FIRST = _table(
    """sizeof_hdr:i4 data_type:S10 db_name:S18 extents:i4 session_error:i2 regular:S1 dim_info:u1 dim:i2*8
    intent_p1:f4 intent_p2:f4 intent_p3:f4 intent_code:i2 datatype:i2 bitpix:i2 slice_start:i2 pixdim:f4*8 vox_offset:f4
    scl_slope:f4 scl_inter:f4 slice_end:i2 slice_code:u1 xyzt_units:u1 cal_max:f4 cal_min:f4 slice_duration:f4
    toffset:f4 glmax:i4 glmin:i4 descrip:S80 aux_file:S24 qform_code:i2 sform_code:i2 quatern_b:f4 quatern_c:f4
    quatern_d:f4 qoffset_x:f4 qoffset_y:f4 qoffset_z:f4 srow_x:f4*4 srow_y:f4*4 srow_z:f4*4 intent_name:S16 magic:S4"""
)
SECOND = _table(
    """sizeof_hdr:i4 magic:S4 eol_check:i1*4 datatype:i2 bitpix:i2 dim:i8*8 intent_p1:f8 intent_p2:f8 intent_p3:f8
    pixdim:f8*8 vox_offset:i8 scl_slope:f8 scl_inter:f8 cal_max:f8 cal_min:f8 slice_duration:f8 toffset:f8
    slice_start:i8 slice_end:i8 descrip:S80 aux_file:S24 qform_code:i4 sform_code:i4 quatern_b:f8 quatern_c:f8
    quatern_d:f8 qoffset_x:f8 qoffset_y:f8 qoffset_z:f8 srow_x:f8*4 srow_y:f8*4 srow_z:f8*4 slice_code:i4
    xyzt_units:i4 intent_code:i4 intent_name:S16 dim_info:u1 unused_str:S15"""
)


def blank(second: bool, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a header, () `FIRST` or `SECOND`, of a grid of 1 mm voxels; its type and offset are left at 0.

    Parameters
    ----------
    second : bool
        NIfTI-2, whose sides may be longer than 32767.
    shape : tuple of int
        Up to seven sides.
    """
    header = np.zeros((), SECOND if second else FIRST)
    header["sizeof_hdr"] = header.dtype.itemsize
    header["magic"] = b"n+2" if second else b"n+1"
    if second:
        header["eol_check"] = (13, 10, 26, 10)
    header["dim"] = (len(shape), *shape, *([1] * (7 - len(shape))))
    header["pixdim"] = 1.0
    header["scl_slope"] = 1.0
    return header


def set_qform(header: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write spacings, offset and the nearest rotation of an affine (4, 4); what shears is lost, as a qform must.

    Parameters
    ----------
    header : numpy record
        Of `FIRST` or `SECOND`; changed.
    affine : ndarray, (4, 4)
        Voxel to mm.
    """
    steps = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    turn = affine[:3, :3] / steps
    mirrored = np.linalg.det(turn) <= 0
    if mirrored:
        turn[:, 2] *= -1
    left, _, right = np.linalg.svd(turn)
    header["pixdim"][0] = -1.0 if mirrored else 1.0
    header["pixdim"][1:4] = steps
    for axis, part in zip("bcd", _stored(_quaternion(left @ right), header["quatern_b"].dtype), strict=True):
        header[f"quatern_{axis}"] = part
    for axis, value in zip("xyz", affine[:3, 3], strict=True):
        header[f"qoffset_{axis}"] = value


def _quaternion(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit quaternion (4,) of a rotation (3, 3), its first part not negative.

    It is the longest axis of a symmetric form of the rotation, so rounding does no harm (Bar-Itzhack, J Guid Control
    Dyn 2000).
    """
    form = np.zeros((4, 4))
    form[0, 0] = np.trace(turn)
    form[1:, 1:] = turn + turn.T - np.eye(3) * np.trace(turn)
    form[0, 1:] = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
    form[1:, 0] = form[0, 1:]
    longest = np.linalg.eigh(form)[1][:, -1]
    return np.asarray(-longest if longest[0] < 0 else longest)


def _stored(turn: NDArray[np.float64], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return the last three parts of a unit quaternion in the precision of the file, never longer than one together.

    Readers refuse a quaternion that rounding made longer, which happens at half a turn.
    """
    parts = turn[1:].astype(kind)
    longest = int(np.abs(parts).argmax())
    while float(1.0 - np.dot(parts, parts)) < 0:
        parts[longest] = np.nextafter(parts[longest], kind.type(0))
    return parts


def best_affine(header: Any) -> NDArray[np.float64]:
    """Return the affine: the sform where its code is set, else the qform, else the spacings about the middle.

    Parameters
    ----------
    header : numpy record
        Of `FIRST` or `SECOND`.

    Raises
    ------
    ValueError
        If the quaternion or a spacing of the qform makes no sense.
    """
    affine = np.eye(4)
    if int(header["sform_code"]) > 0:
        affine[:3] = [header[f"srow_{axis}"] for axis in "xyz"]
        return affine
    steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if int(header["qform_code"]) > 0:
        if (steps < 0).any():
            raise ValueError("a spacing is negative")
        affine[:3, :3] = _rotation(header) * steps
        if float(header["pixdim"][0]) == -1.0:
            affine[:3, 2] *= -1
        affine[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
        return affine
    n_axes = min(3, int(header["dim"][0]))
    sides = np.ones(3)
    sides[:n_axes] = header["dim"][1 : n_axes + 1]
    steps = np.where(np.arange(3) < n_axes, steps, 1.0)
    affine[:3, :3] = np.diag(steps * (-1, 1, 1))  # Analyze's custom: the first axis runs to the left
    affine[:3, 3] = -affine[:3, :3] @ ((sides - 1) / 2)
    return affine


def _rotation(header: Any) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of a unit quaternion of which three parts are stored."""
    parts = np.array([header[f"quatern_{axis}"] for axis in "bcd"])
    b, c, d = (float(part) for part in parts)
    rest = float(1.0 - np.dot(parts, parts))  # in the precision they are stored in, as nibabel takes it
    rounding = 3 * float(np.finfo(parts.dtype).eps)
    if not rest >= -rounding:
        raise ValueError("the quaternion is longer than one")
    a = np.sqrt(rest) if rest >= rounding else 0.0  # half a turn: what is left is only rounding
    s = 2.0 / (a * a + b * b + c * c + d * d)
    return np.array(
        [
            [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
            [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
            [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
        ]
    )
