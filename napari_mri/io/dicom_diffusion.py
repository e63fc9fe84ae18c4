"""Finds b-values and gradient directions where each maker keeps them, and turns them to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mri.io.dicom_bytes import Elements
from napari_mri.io.dicom_header import Frame, Xyz, binary, either, number, numbers, text

_NO_VECTOR = 0.01


def tell_diffusion(frame: Frame, elements: Elements) -> None:
    """Fill in b-value and direction of a frame from the standard tags, or else the maker's own.

    Parameters
    ----------
    frame : Frame
        Changed in place.
    elements : Elements
        Of the file.
    """
    bval: tuple[float, ...] = either(elements, 0x00189087)
    bvec: tuple[float, ...] = either(elements, 0x00189089)
    maker = frame.file.maker
    if not bval and text(elements, 0x00190010) == "SIEMENS MR HEADER":
        bval, bvec = numbers(elements, 0x0019100C), either(elements, 0x0019100E)
    elif maker.startswith("GE") and text(elements, 0x00430010) in ("GEMS_PARM_01", ""):
        value = number(elements, 0x00431039)
        if math.isfinite(value):
            # Newer software adds 1e9 as a mark to what it stores.
            bval = (value % 100000 if value >= 10000 else value,)
            bvec = tuple(number(elements, tag, 0.0) for tag in (0x001910BB, 0x001910BC, 0x001910BD))
            if math.hypot(*bvec) > _NO_VECTOR:
                _gems(frame, bval[0], (bvec[0], bvec[1], bvec[2]), text(elements, 0x00181312))
                return
            bvec = ()
    elif maker.startswith("PHILIPS"):
        bval = bval or either(elements, 0x20011003)
        if not bvec:
            parts = [either(elements, tag) for tag in (0x200510B0, 0x200510B1, 0x200510B2)]
            bvec = tuple(part[0] for part in parts if part)
    elif text(elements, 0x00650010).startswith("Image Private"):  # United Imaging, along the image's axes
        bval, bvec = binary(elements, 0x00651009, "d"), binary(elements, 0x00651037, "d")
        frame.in_image = True
    set_gradient(frame, bval, bvec)


def set_gradient(frame: Frame, bval: Sequence[float], bvec: Sequence[float]) -> None:
    """Write a b-value and a direction, scaled to length one, into a frame."""
    if not bval or not math.isfinite(bval[0]) or bval[0] < 0:
        return
    frame.bval = float(bval[0])
    if len(bvec) != 3 or not all(map(math.isfinite, bvec)):
        return
    length = math.hypot(*bvec)
    if length > _NO_VECTOR and frame.bval > 0:
        frame.bvec = (bvec[0] / length, bvec[1] / length, bvec[2] / length)


def _gems(frame: Frame, bval: float, bvec: Xyz, phase: str) -> None:
    """GE tells directions along frequency, phase and slice encoding (X, Y, Z of its logical frame).

    Which of these is a row depends on the phase-encoding direction, and their signs on the plane.
    A vector shorter than one means a smaller b-value: the gradients were scaled down.
    """
    length = math.hypot(*bvec)
    if length < 0.97:
        bval *= length * length
    frame.bval = bval
    x, y, z = (part / length for part in bvec)
    normal = np.abs(np.cross(frame.turn[:3], frame.turn[3:])) if frame.turn else np.array((0.0, 0.0, 1.0))
    plane = int(np.argmax(normal))
    x, y, z = ((x, -y, -z), (-x, -y, z), (-x, y, z))[plane]
    if phase.upper().startswith("ROW"):
        x, y = -y, x
    frame.bvec, frame.in_image = (x, -y, z), True


def in_frame(frames: Sequence[Frame], affine: NDArray[np.float64]) -> tuple[Xyz, ...]:
    """Return the directions in the image's own frame as FSL wants them, one a frame.

    Parameters
    ----------
    frames : sequence of Frame
        One of each volume.
    affine : (4, 4) RAS+
        Of the volume, array axes (column, row, slice).

    Returns
    -------
    tuple of (3,)
        Zero where a frame has no direction. The first part changes sign where the affine's
        determinant is positive, which is FSL's rule.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    mirror = -1.0 if np.linalg.det(axes) > 0 else 1.0
    out: list[Xyz] = []
    for frame in frames:
        if frame.bvec is None:
            out.append((0.0, 0.0, 0.0))
            continue
        vector = np.asarray(frame.bvec)
        if not frame.in_image:
            vector = axes.T @ (vector * (-1.0, -1.0, 1.0))
            vector = vector / max(float(np.linalg.norm(vector)), _NO_VECTOR)
        elif frame.turn is not None:
            # Slices are stacked along the normal or against it; the direction's third part follows.
            normal = np.cross(frame.turn[:3], frame.turn[3:]) * (-1.0, -1.0, 1.0)
            vector = vector * (1.0, 1.0, 1.0 if float(normal @ axes[:, 2]) > 0 else -1.0)
        out.append((float(vector[0]) * mirror + 0.0, float(vector[1]) + 0.0, float(vector[2]) + 0.0))
    return tuple(out)
