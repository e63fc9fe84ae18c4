"""A mask to be made better: what it says on a crop, and how far marks may change it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.models._click3d_rounds import extent, share

Array = NDArray[np.float32]

REFINED_MM = 8.0
"""A mask to be made better changes so far around a click."""
AROUND = 16
"""Voxels around a mask that are looked at with it."""
OUTLINE_MM, DOUBTED = 1.5, 0.4
"""The outline of a mask to be made better may be off by about so much; and how likely a voxel beside it is the object's at most."""


@dataclass(frozen=True, eq=False)
class Belief:
    """What a mask to be made better says.

    Parameters
    ----------
    given : ndarray of bool
        The mask, on the grid of the scan.
    look : Grid
        The crop it is made better in.
    likely : ndarray, `look.shape`
        How likely it is right.
    part, target : slices and Grid
        The part of the scan that the crop shows.
    there : ndarray of bool, `target.shape`
        What of the mask comes back from the crop if nothing changes it.
    """

    given: NDArray[np.bool_]
    look: Grid
    likely: Array
    part: tuple[slice, ...]
    target: Grid
    there: NDArray[np.bool_]


def believed(mask: NDArray[np.bool_], grid: Grid, look: Grid) -> Array:
    """Return how likely a mask to be made better is right on a crop, 0 to 1: surer away from its outline, above 0.5 in it."""
    from scipy.ndimage import gaussian_filter

    span = extent(mask)
    assert span is not None, "an empty mask is refused"
    low, high = np.maximum(span[0] - AROUND, 0), np.minimum(span[1] + 1 + AROUND, mask.shape)
    covered = share(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], grid.cropped(low, high), look)
    smooth = gaussian_filter(covered, OUTLINE_MM / np.asarray(look.spacing))
    return np.where(covered > 0.5, np.maximum(smooth, 1 - DOUBTED), np.minimum(smooth, DOUBTED)).astype(np.float32)


def near(places: NDArray[np.float64], look: Grid) -> Array:
    """Return 1 at places (P, 3) patient mm on a crop (I, J, K), less the farther away."""
    most = np.zeros(look.shape, dtype=np.float32)
    for spot in look.to_voxels(places[:: max(1, len(places) // 16)]):
        away = [((np.arange(n) - s) * mm) ** 2 for n, s, mm in zip(look.shape, spot, look.spacing, strict=True)]
        i, j, k = (np.exp(-0.5 * line / REFINED_MM**2).astype(np.float32) for line in away)
        np.maximum(most, i[:, None, None] * j[:, None] * k, out=most)
    return most
