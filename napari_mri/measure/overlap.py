"""How well two sets of labels agree: Dice, and the distance between their surfaces in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels

NAN = float("nan")
DEFINITIONS = {
    "dice": "2 |A and B| / (|A| + |B|) of voxels; 1 if both are empty.",
    "surface": "Surface = voxels of a mask with a face neighbour outside it (the edge of the scan counts as "
    "outside); distances run between voxel centres, in mm.",
    "hd95": "Larger of the two directed 95th percentiles of surface distances.",
    "mean_distance": "Mean over all surface voxels of both masks of the distance to the other surface.",
    "surface_dice": "Share of all surface voxels of both masks within the tolerance of the other surface.",
}
"""What the figures mean, for reports."""


@dataclass(frozen=True)
class Overlap:
    """Two masks of one label compared.

    Parameters
    ----------
    label : int
        0 where everything that is not background was compared.
    name : str
    voxels, against_voxels : int
    ml, against_ml : float
    difference_ml : float
        `ml` - `against_ml`.
    dice, jaccard : float
    hd, hd95, mean_distance : float, mm
        NaN if one of the masks is empty; 0 if both are.
    surface_dice : float
        At `tolerance_mm`.
    tolerance_mm : float
    """

    label: int
    name: str
    voxels: int
    against_voxels: int
    ml: float
    against_ml: float
    difference_ml: float
    dice: float
    jaccard: float
    hd: float
    hd95: float
    mean_distance: float
    surface_dice: float
    tolerance_mm: float


def compare(labels: Labels, against: Labels, *, tolerance_mm: float = 1.0) -> tuple[Overlap, ...]:
    """Compare labels with others on the same grid, label by label, and all together first.

    Parameters
    ----------
    labels, against : Labels, (I, J, K)
        Of 4D labels the first frame is compared.
    tolerance_mm : float

    Returns
    -------
    tuple of Overlap
        First label 0 (anything that is not background), then each value that occurs in either; if
        there is just one value, only the first line.

    Raises
    ------
    GridMismatch
        If they lie on different grids.
    """
    if not labels.grid.same(against.grid):
        raise GridMismatch(
            "The two masks lie on different grids, so their voxels cannot be compared.", hint="Resample one first."
        )
    a, b = np.asarray(labels.frame(0).data), np.asarray(against.frame(0).data)
    names = {**against.names, **labels.names}
    values = [int(v) for v in np.union1d(np.unique(a), np.unique(b)) if v != 0]
    rows = [_row(0, "all labels", a != 0, b != 0, labels.grid, tolerance_mm)]
    if len(values) > 1:
        rows += [_row(v, names.get(v, ""), a == v, b == v, labels.grid, tolerance_mm) for v in values]
    return tuple(rows)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two bool arrays of one shape; 1 if both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(a & b)) / total


def surface_distances(a: NDArray[np.bool_], b: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.float64], ...]:
    """Return the distance in mm of each surface voxel of `a` to the surface of `b`, and the other way.

    Exact on anisotropic, oblique and sheared grids: distances are taken between patient positions.

    Parameters
    ----------
    a, b : ndarray of bool, (I, J, K)
        Each with at least one True voxel.
    grid : Grid
    """
    from scipy.spatial import cKDTree

    ours, theirs = grid.to_patient(np.argwhere(surface(a))), grid.to_patient(np.argwhere(surface(b)))
    return cKDTree(theirs).query(ours)[0], cKDTree(ours).query(theirs)[0]


def hausdorff(a: NDArray[np.bool_], b: NDArray[np.bool_], grid: Grid, percent: float = 100.0) -> float:
    """Return the (percentile) Hausdorff distance of two masks' surfaces in mm; NaN if one is empty, 0 if both."""
    if not a.any() or not b.any():
        return 0.0 if not a.any() and not b.any() else NAN
    return max(float(np.percentile(away, percent)) for away in surface_distances(a, b, grid))


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a mask with a face neighbour outside it; beyond the array is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        moved = np.moveaxis(inner, axis, 0)
        whole = np.moveaxis(mask, axis, 0)
        moved[1:] &= whole[:-1]
        moved[:-1] &= whole[1:]
        moved[[0, -1]] = False
    return np.asarray(mask & ~inner)


def _row(label: int, name: str, a: NDArray[np.bool_], b: NDArray[np.bool_], grid: Grid, tolerance: float) -> Overlap:
    n_a, n_b = int(np.count_nonzero(a)), int(np.count_nonzero(b))
    score = dice(a, b)
    hd = hd95 = mean = NAN
    near = 0.0
    if n_a and n_b:
        there, back = surface_distances(a, b, grid)
        both = np.concatenate([there, back])
        hd, mean, near = float(both.max()), float(both.mean()), float((both <= tolerance * (1 + 1e-9)).mean())
        hd95 = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    elif not n_a and not n_b:
        hd = hd95 = mean = 0.0
        near = 1.0
    ml = grid.voxel_ml
    return Overlap(
        label,
        name,
        n_a,
        n_b,
        n_a * ml,
        n_b * ml,
        (n_a - n_b) * ml,
        score,
        score / (2 - score),
        hd,
        hd95,
        mean,
        near,
        tolerance,
    )
