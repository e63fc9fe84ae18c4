"""Makes equal steps of slices that are spaced unequally: only where somebody asked for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GeometryProblem
from napari_mri.io.dicom_pixels import read_stack
from napari_mri.io.dicom_place import normal_of
from napari_mri.io.dicom_series import Stack

_ASIDE = 0.1  # of a pixel: how far slices may stand off one line
_MOST_MADE = 4  # times the slices that are there


def resampled(stack: Stack) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """Return the values of a stack on equal steps along its own line of slices.

    Between two slices the values are mixed by their distances (linear). The step is the usual one of
    the series, made to fit from the first slice to the last. Slices that stand where the new ones do
    keep their values.

    Parameters
    ----------
    stack : Stack
        Of one slice a place, in order.

    Returns
    -------
    data : ndarray of float32, (columns, rows, slices) or (columns, rows, slices, frames)
    affine : (4, 4), RAS+ mm
    told : str
        What was done, in one sentence.

    Raises
    ------
    GeometryProblem
        If the slices do not stand on one line, or so far apart that most would be made up.
    """
    first = stack.volumes[0]
    points = np.array([frame.position for frame in first], dtype=np.float64)
    heights = points @ normal_of(first[0])
    heights -= heights[0]
    span = heights[-1]
    if len(first) < 2 or span <= 0:
        raise GeometryProblem("There are too few slices to resample.", hint="Open its regular parts.")
    line = (points[-1] - points[0]) / span
    aside = np.linalg.norm(points - points[0] - heights[:, None] * line, axis=1).max()
    pixel = min(first[0].pixel or (1.0, 1.0))
    if aside > _ASIDE * pixel:
        raise GeometryProblem(
            f"The slices are shifted sideways by up to {aside:.2f} mm; that is not resampled.",
            hint="Open its regular parts: choose one by name.",
        )
    gaps = np.diff(heights)
    count = max(1, round(span / float(np.median(gaps)))) + 1
    if count > _MOST_MADE * len(first):
        raise GeometryProblem(
            f"Of {count} slices only {len(first)} are there; the others would be made up.",
            hint="Open its regular parts: choose one by name.",
        )
    wanted = np.linspace(0.0, span, count)
    above = np.clip(np.searchsorted(heights, wanted, "left"), 1, len(heights) - 1)
    share = (wanted - heights[above - 1]) / np.maximum(gaps[above - 1], 1e-9)
    values = read_stack(stack)
    out = np.empty((*values.shape[:2], count, *values.shape[3:]), np.float32, order="F")
    for n, (high, part) in enumerate(zip(above, share, strict=True)):
        out[:, :, n] = (1 - part) * values[:, :, high - 1].astype(np.float32) + part * values[:, :, high]
    affine = stack.affine.copy()
    affine[:3, 2] *= (len(first) - 1) / (count - 1) if count > 1 else 1.0
    told = (
        f"{len(first)} slices, {gaps.min():.2f} to {gaps.max():.2f} mm apart, were resampled to {count} slices "
        f"every {span / (count - 1):.3f} mm, as was asked; values between slices are mixed."
    )
    return out, affine, told
