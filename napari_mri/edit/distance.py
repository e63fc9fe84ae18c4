"""Exact distances in mm on anisotropic grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distance_inside(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Return how far each True voxel's centre is from the nearest False voxel's centre.

    Parameters
    ----------
    mask : ndarray of bool, (I, J) or (I, J, K)
    spacing : float for each axis, mm

    Returns
    -------
    ndarray of float32
        mm; 0 where `mask` is False, infinite everywhere if nothing is False. What lies beyond the
        edge of the array does not count.
    """
    from scipy.ndimage import distance_transform_edt

    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    distance: NDArray[Any] = distance_transform_edt(mask, sampling=spacing)
    return distance.astype(np.float32)


def signed_distance(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Return the distance to the border in mm: positive inside, negative outside.

    Parameters
    ----------
    mask : ndarray of bool, (I, J) or (I, J, K)
        With at least one True and one False voxel.
    spacing : float for each axis, mm
    """
    # Both distances run between voxel centres, so half a voxel each brings them to the border itself.
    half = np.float32(min(spacing) / 2)
    inside, outside = distance_inside(mask, spacing), distance_inside(~mask, spacing)
    return np.where(mask, inside - half, half - outside).astype(np.float32)
