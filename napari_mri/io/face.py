"""Makes a face unrecognisable: blurs the skin at the front of a head, and leaves the brain as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch, UnsupportedImage
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels, Volume

_DEPTH, _REACH = 22.0, 14.0  # mm below and above the skin that is blurred
_SMALLEST_BRAIN = 200.0  # ml


def blur_face(scan: Volume, brain: Labels, *, margin: float = 6.0, blur: float = 9.0) -> Volume:
    """Blur the surface of the face, everywhere but in the brain and a margin around it.

    The skin is where the head meets the air; blurred are the voxels within 22 mm below and 14 mm
    above it that lie in front of the middle of the brain and below its upper third. The face can
    then no longer be drawn from the volume. Ears and the back of the head stay.

    Parameters
    ----------
    scan : Volume
        Of a whole head.
    brain : Labels
        A brain mask on the scan's grid; everything that is not 0 counts.
    margin : float, mm
        Kept unchanged around the brain.
    blur : float, mm
        Standard deviation of the blur.

    Returns
    -------
    Volume
        Same type and grid; brain and margin bit for bit the same.

    Raises
    ------
    GridMismatch
        If the mask lies on another grid.
    UnsupportedImage
        If the mask is too small for a brain, or the head has no air around it in front.
    """
    from scipy import ndimage

    if not scan.grid.same(brain.grid):
        raise GridMismatch(
            "The brain mask does not lie on the grid of the scan.", hint="Strip this very scan."
        )
    inside = brain.data != 0
    inside = inside.any(axis=3) if inside.ndim == 4 else inside
    if np.count_nonzero(inside) * scan.grid.voxel_ml < _SMALLEST_BRAIN:
        raise UnsupportedImage(
            "The mask is too small for a brain, so the face cannot be placed.", hint="Check the mask."
        )
    spacing = scan.grid.spacing
    first = np.asarray(scan.data if scan.data.ndim == 3 else scan.data[..., 0], dtype=np.float32)
    head = _head(first, inside)
    skin_out: NDArray[Any] = ndimage.distance_transform_edt(~head, sampling=spacing)
    skin_in: NDArray[Any] = ndimage.distance_transform_edt(head, sampling=spacing)
    from_brain: NDArray[Any] = ndimage.distance_transform_edt(~inside, sampling=spacing)
    region = (
        np.where(head, skin_in <= _DEPTH, skin_out <= _REACH)
        & (from_brain > margin)
        & _in_front(scan, inside)
    )
    if not (region & head).any():
        raise UnsupportedImage(
            "There is no skin in front of this brain.", hint="The scan may be stripped already."
        )
    kinds = [
        _blurred(scan.data[..., n] if scan.data.ndim == 4 else scan.data, region, spacing, blur)
        for n in range(scan.n_frames)
    ]
    data = np.stack(kinds, axis=-1) if scan.data.ndim == 4 else kinds[0]
    facts = {"blur_mm": blur, "margin_mm": margin, "voxels": int(region.sum())}
    return scan.with_data(data).after(Step("face blurred", facts=facts))


def _head(data: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the head without the air around it, cavities filled."""
    from scipy import ndimage

    within = data[inside & np.isfinite(data)]
    level = 0.25 * float(np.median(within)) if within.size else 0.0
    bright = ndimage.binary_opening(np.nan_to_num(data) > level, iterations=1) | inside
    pieces, count = ndimage.label(bright)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        bright = pieces == int(sizes.argmax())
    closed = ndimage.binary_closing(np.pad(bright, 4), iterations=3)[4:-4, 4:-4, 4:-4]
    filled = ndimage.binary_fill_holes(closed)
    return np.asarray(filled, dtype=np.bool_)


def _in_front(scan: Volume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels in front of the brain's middle and below its upper third, in patient mm."""
    voxels = np.argwhere(inside)
    patient = scan.grid.to_patient(voxels[:: max(1, len(voxels) // 50_000)])
    middle = float(np.median(patient[:, 1]))
    low, high = np.percentile(patient[:, 2], (1, 99))
    top = float(low + 0.67 * (high - low))
    matrix = scan.grid.affine
    index = np.ogrid[tuple(slice(0, side) for side in scan.grid.shape)]
    y = sum(matrix[1, axis] * index[axis] for axis in range(3)) + matrix[1, 3]
    z = sum(matrix[2, axis] * index[axis] for axis in range(3)) + matrix[2, 3]
    return np.asarray((y > middle) & (z < top))


def _blurred(
    data: NDArray[Any], region: NDArray[np.bool_], spacing: tuple[float, float, float], blur: float
) -> NDArray[Any]:
    from scipy import ndimage

    values = np.nan_to_num(np.asarray(data, dtype=np.float32))
    smooth = ndimage.gaussian_filter(values, [blur / step for step in spacing], mode="nearest")
    if data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        smooth = np.clip(np.round(smooth), limits.min, limits.max)
    out = np.array(data)
    out[region] = smooth[region].astype(data.dtype)
    return out
