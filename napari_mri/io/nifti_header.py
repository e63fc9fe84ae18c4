"""Turns a NIfTI header into our nouns and back: affine, units, frames, and what a rewrite keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.history import MARK, labels_from_json, labels_to_json
from napari_mri.io.nifti_fields import FIRST, SECOND, best_affine, blank, set_qform

TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
CODES = {np.dtype(kind): code for code, kind in TYPES.items()}
_TO_MM = {1: 1000.0, 3: 0.001}
_TIMES = {8: "s", 16: "ms", 24: "us"}
_SPECTRA = {32: "Hz", 40: "ppm", 48: "rad/s"}
_UNIT_CODES = {unit: code for code, unit in (*_TIMES.items(), *_SPECTRA.items())}
_KEPT = ("intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name", "descrip", "toffset")
_SHOWN = ("cal_max", "cal_min")
_FORMS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_SLICING = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
_ROWS = ("srow_x", "srow_y", "srow_z")
COMMENT = 6
ALIGNED = 2
"""Code of a form whose millimetres are those of another file."""
_MOST_NAMES = 2_000_000


@dataclass(frozen=True)
class Facts:
    """A header, understood.

    Parameters
    ----------
    shape : tuple of int
        3 or 4 sides.
    dtype : numpy dtype
        Of the stored values, with their byte order.
    offset : int
        Of the first voxel, bytes.
    slope, inter : float
        Value = stored × slope + inter; 1 and 0 where the header tells none.
    grid : Grid
    frames : Frames or None
    fields : mapping
        What a rewrite keeps.
    warnings : tuple of str
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    grid: Grid
    frames: Frames | None
    fields: Mapping[str, Any]
    warnings: tuple[str, ...]


def understood(raw: bytes, name: str) -> Facts:
    """Read the first 348 (NIfTI-1) or 540 (NIfTI-2) bytes.

    Orientation follows nibabel: the sform where its code is set, else the qform, else the spacings
    alone, which is told.

    Parameters
    ----------
    raw : bytes
    name : str
        File name for messages.

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    header = parsed(raw)
    if not 0 <= float(header["vox_offset"]) < 2**62:
        raise BrokenFile(f"The header of {name} is damaged: it does not tell where the voxels begin.")
    shape = _shape(header, name)
    dtype = _dtype(header, name)
    told: list[str] = []
    affine, to_mm = _affine(header, name, told)
    slope, inter = _scaling(header, told)
    if shape[2] == 1:
        told.append("The image is a single slice, so it has no depth: models that need a volume will not fit it.")
    fields: dict[str, Any] = {"version": 2 if len(raw) >= 540 and header["sizeof_hdr"] == 540 else 1}
    for key in ("qform_code", "sform_code", "xyzt_units"):
        fields[key] = int(header[key])
    for key in (*_KEPT, *_SHOWN):
        fields[key] = _text(header[key]) if header[key].dtype.kind == "S" else header[key].item()
    if to_mm == 1.0:
        # The exact numbers go back into a rewrite of the same grid, so that nothing drifts by a rounding.
        fields["placed"] = tuple(affine.ravel().tolist())
        fields["pixdim"] = tuple(header["pixdim"][:4].tolist())
        fields["forms"] = tuple(header[key].item() for key in _FORMS)
        fields["slicing"] = tuple(header[key].item() for key in _SLICING)
        fields["rows"] = tuple(tuple(header[key].tolist()) for key in _ROWS)
    return Facts(
        shape, dtype, int(header["vox_offset"]), slope, inter, Grid((shape[0], shape[1], shape[2]), affine),
        _frames(header, shape), fields, tuple(told),
    )  # fmt: skip


def parsed(raw: bytes) -> NDArray[Any]:
    """Return the header as a numpy record, in native byte order or swapped."""
    kind = SECOND if raw[4:8] in (b"n+2\0", b"ni2\0") else FIRST
    record = np.frombuffer(raw, dtype=kind, count=1)[0]
    if record["sizeof_hdr"] not in (348, 540):
        record = np.frombuffer(raw, dtype=kind.newbyteorder(), count=1)[0]
    return record  # type: ignore[no-any-return]


def _shape(header: Any, name: str) -> tuple[int, ...]:
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise BrokenFile(f"The header of {name} is damaged: it tells of {n_axes} axes.", hint="Get the file again.")
    sides = [int(n) for n in header["dim"][1 : n_axes + 1]]
    if min(sides) < 1:
        raise BrokenFile(
            f"{name} holds no voxels: its header tells the shape {'×'.join(map(str, sides))}.",
            hint="The file may be empty or cut off.",
        )
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    sides += [1] * (3 - len(sides))
    if len(sides) > 4:
        raise UnsupportedImage(
            f"{name} has {len(sides)} axes ({'×'.join(map(str, sides))}); scans of three or four axes open.",
            hint="Take one part out first, e.g. with nibabel's slicer. Vector and tensor fields are not scans.",
        )
    return tuple(sides)


def _dtype(header: Any, name: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in TYPES:
        order = ">" if header.dtype["dim"].base.str.startswith(">") else "<"
        return np.dtype(order + TYPES[code])
    if code in (32, 1792, 2048):
        raise UnsupportedImage(
            f"{name} holds complex numbers, which cannot be shown or segmented as they are.",
            hint="Save its magnitude (numpy.abs) and open that.",
        )
    if code in (128, 2304):
        raise UnsupportedImage(
            f"{name} holds colours (RGB), not grey values.",
            hint="Open the scan that the colour map was made from, or save one channel as grey values.",
        )
    raise UnsupportedImage(
        f"{name} stores its voxels in a way that is not read (NIfTI datatype {code}).",
        hint="Save it again as integers or float32.",
    )


def _affine(header: Any, name: str, told: list[str]) -> tuple[NDArray[np.float64], float]:
    """Return the affine in mm, and the factor it was multiplied by to get there."""
    pixdim = np.asarray(header["pixdim"][1:4], dtype=float)
    if int(header["sform_code"]) <= 0 and not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        steps = ", ".join(f"{v:g}" for v in pixdim)
        if int(header["qform_code"]) > 0 or not np.isfinite(pixdim).all() or (pixdim[: header["dim"][0]] < 0).any():
            raise GeometryProblem(
                f"{name} tells spacings of {steps} mm: a spacing must be more than zero.",
                hint="Repair the header, or convert the scan from its DICOM files again.",
            )
    try:
        affine = best_affine(header)
    except ValueError as error:
        raise GeometryProblem(
            f"The orientation in the header of {name} makes no sense.",
            hint="Repair its qform, or convert the scan from its DICOM files again.",
        ) from error
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        told.append(
            "The file tells no geometry (neither qform nor sform is set): left and right are a guess, "
            "and only the spacings can be trusted."
        )
    to_mm = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if to_mm > 1 and np.linalg.norm(affine[:3, :3], axis=0).max() > 0.1:
        told.append("The header says metres, but voxels of that size make no sense; read as millimetres.")
        to_mm = 1.0
    if to_mm != 1.0:
        told.append(f"The header's lengths are not in millimetres; they were multiplied by {to_mm:g}.")
        affine[:3] *= to_mm
    return affine, to_mm


def _scaling(header: Any, told: list[str]) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(inter):
        told.append("The header's scaling has an offset that is not a number; it was taken as 0.")
        inter = 0.0
    return slope, inter


def _frames(header: Any, shape: tuple[int, ...]) -> Frames | None:
    if len(shape) < 4:
        return None
    unit = int(header["xyzt_units"]) & 56
    step = float(header["pixdim"][4])
    step = step if np.isfinite(step) and step > 0 else 0.0
    if unit in _TIMES:
        return Frames("time", step, _TIMES[unit])
    return Frames("channel", step, _SPECTRA.get(unit, ""))


def _text(value: Any) -> str:
    return bytes(value).split(b"\0")[0].decode("latin-1")


def made(volume: Volume, dtype: np.dtype[Any]) -> tuple[bytes, bytes]:
    """Return header and extension for `volume`, little-endian.

    Parameters
    ----------
    volume : Volume
    dtype : numpy dtype
        Of the voxels as they will be written.

    Returns
    -------
    header : bytes
        348 or 540, its voxel offset set.
    extension : bytes
        What stands between the header and the voxels.
    """
    fields = dict(volume.origin.fields) if volume.origin.format == "nifti" else {}
    second = fields.get("version") == 2 or max(volume.data.shape) > 32767
    header = blank(second, volume.data.shape)
    header["datatype"] = CODES[dtype.newbyteorder("=")]
    header["bitpix"] = dtype.itemsize * 8
    _place(header, volume, fields)
    _tell_frames(header, volume.frames, fields)
    statistic = isinstance(volume, Labels) and 2 <= int(fields.get("intent_code", 0)) <= 24
    for key in _KEPT if not statistic else ("descrip", "toffset"):
        if key in fields:
            value = fields[key]
            header[key] = value.encode("latin-1", "replace") if isinstance(value, str) else value
    if not isinstance(volume, Labels) and not volume.history:
        for key in _SHOWN:
            header[key] = fields.get(key, 0.0)
    extension = _extension(volume)
    header["vox_offset"] = (540 if second else 348) + len(extension)
    return header.tobytes(), extension


def _place(header: Any, volume: Volume, fields: Mapping[str, Any]) -> None:
    """Write both forms, the old numbers where the grid is still the one that was read."""
    qform, sform = int(fields.get("qform_code", 1)), int(fields.get("sform_code", 1))
    affine = volume.affine
    same = fields.get("placed") == tuple(affine.ravel().tolist())
    if same:
        header["pixdim"][:4] = fields["pixdim"]
        for key, value in zip(_FORMS, fields["forms"], strict=True):
            header[key] = value
        for key, value in zip(_SLICING, fields["slicing"], strict=True):
            header[key] = value
        for key, row in zip(_ROWS, fields["rows"], strict=True):
            header[key] = row
        header["qform_code"], header["sform_code"] = qform, sform
        return
    if qform <= 0 and sform <= 0:  # aligned to another scan, whose own place nobody knows
        qform = sform = ALIGNED
    if qform > 0 and sform > 0:  # the grid was read from the sform: this is the space it is in
        qform = sform
    # A qform cannot hold shear: the nearest rotation is kept there, and the sform tells the truth.
    set_qform(header, affine)
    # A qform alone is stored as a quaternion of float32; the sform keeps the millimetres closer.
    for key, row in zip(_ROWS, affine[:3], strict=True):
        header[key] = row
    header["qform_code"], header["sform_code"] = max(qform, 0), sform if sform > 0 else max(qform, 1)


def _tell_frames(header: Any, frames: Frames | None, fields: Mapping[str, Any]) -> None:
    before = int(fields.get("xyzt_units", 10))
    space = 0 if before & 7 == 0 else 2
    if header["dim"][0] < 4 or frames is None:
        time = before & 56 if header["dim"][0] < 4 else 0
        header["xyzt_units"] = space | time
        return
    code = _UNIT_CODES.get(frames.unit, 0)
    header["xyzt_units"] = space | code
    header["pixdim"][4] = frames.step if frames.step > 0 else 1.0


def _extension(volume: Volume) -> bytes:
    """Four zero bytes, or names and colours of labels as a comment in JSON."""
    if not isinstance(volume, Labels) or not (volume.names or volume.colors):
        return bytes(4)
    text = json.dumps({MARK: {"labels": labels_to_json(volume.names, volume.colors)}}).encode()
    size = -(-(len(text) + 8) // 16) * 16
    return bytes((1, 0, 0, 0)) + np.array([size, COMMENT], "<i4").tobytes() + text.ljust(size - 8, b"\0")


def names_in(extensions: bytes, big: bool) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]] | None:
    """Return names and colours that our own comment among the header extensions tells, else None.

    Parameters
    ----------
    extensions : bytes
        From the four flag bytes after the header up to the voxels.
    big : bool
        Whether the file is big-endian.
    """
    if len(extensions) < 12 or extensions[0] == 0:
        return None
    at = 4
    while at + 8 <= len(extensions):
        size, code = (int(n) for n in np.frombuffer(extensions, ">i4" if big else "<i4", 2, at))
        if size < 8 or at + size > len(extensions):
            return None
        if code == COMMENT and size <= _MOST_NAMES:
            try:
                record = json.loads(extensions[at + 8 : at + size].rstrip(b"\0"))
                return labels_from_json(record[MARK]["labels"])
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
        at += size
    return None


def with_gradients(frames: Frames | None, bvals: tuple[float, ...], bvecs: Any) -> Frames:
    """Return `frames` as diffusion frames."""
    return replace(frames or Frames(), kind="diffusion", bvals=bvals, bvecs=tuple(bvecs))
