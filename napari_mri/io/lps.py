"""Turns DICOM's and ITK's frame (x to the patient's left, y to the back) into ours (RAS+), and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SIGNS = np.array((-1.0, -1.0, 1.0))


def turned_affine(affine: ArrayLike) -> NDArray[np.float64]:
    """Return a (4, 4) voxel-to-patient affine in the other frame: LPS+ to RAS+, or RAS+ to LPS+."""
    turned = np.diag((-1.0, -1.0, 1.0, 1.0)) @ np.asarray(affine, dtype=np.float64)
    # No negative zeros: they would make a header that reads "-0" where nothing is negative.
    return np.asarray(turned + 0.0, dtype=np.float64)


def turned_points(points: ArrayLike) -> NDArray[np.float64]:
    """Return points or directions (..., 3) in the other frame; its own inverse."""
    return np.asarray(np.asarray(points, dtype=np.float64) * _SIGNS + 0.0, dtype=np.float64)
