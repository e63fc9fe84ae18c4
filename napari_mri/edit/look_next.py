"""Where to look next: slices ordered by how much two answers disagree, or how unsure a model was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.distance import distance_inside
from napari_mri.edit.tool import PLANES, stack_axis, widened


@dataclass(frozen=True)
class Spot:
    """One slice worth a look.

    Parameters
    ----------
    number : int
        Of the slice, counted from 0 as stored.
    at : (3,) patient mm, RAS+
        Middle of what is in doubt there: where to put the crosshair.
    score : float
        Millilitres in doubt, each weighed by how deep in mm it reaches (or by the uncertainty).
    voxels : int
        Voxels in doubt.
    """

    number: int
    at: tuple[float, float, float]
    score: float
    voxels: int


def look_next(
    labels: Labels,
    *,
    other: Labels | None = None,
    uncertainty: Volume | None = None,
    plane: str = "axial",
    apart_mm: float = 8.0,
) -> tuple[Spot, ...]:
    """Order the slices of a plane by doubt, most first; slices without any are left out.

    Parameters
    ----------
    labels : Labels, (I, J, K)
    other : Labels, optional
        A second rater's or model's labels. A voxel is in doubt where the two differ; it weighs by
        its distance in mm to where the two agree, so a missed piece counts for more than a border one
        voxel off.
    uncertainty : Volume, optional
        A model's uncertainty, 0 and up (a variance or an entropy), or a probability of the object
        from 0 to 1 if it is named so in its title; a probability p counts as 4 p (1 - p), and in
        full where the mask says the opposite.
    plane : str
        ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    apart_mm : float
        Slices nearer than this to one listed already come after all the others: the next look is at
        another place.

    Raises
    ------
    BadOption
        If neither or both of `other` and `uncertainty` are given, or the plane is unknown.
    GridMismatch
        If they lie on another grid.
    """
    if (other is None) == (uncertainty is None):
        raise BadOption("Doubt needs either second labels or an uncertainty map.", hint="Choose one of them.")
    if plane not in PLANES:
        raise BadOption(f"'{plane}' is no plane.", hint=f"Planes: {', '.join(PLANES)}.")
    given = other if other is not None else uncertainty
    assert given is not None
    if not given.grid.same(labels.grid):
        raise GridMismatch("The two to compare lie on different grids.", hint="Resample one first.")
    data = labels.frame(0).data
    weight = _unsure(data, given.frame(0)) if other is None else _differ(data, given.frame(0).data, labels.spacing)
    axis = stack_axis(labels.grid, plane)
    spots = _spots(labels, np.moveaxis(weight, axis, 0), axis)
    return _spread(spots, apart_mm / labels.spacing[axis])


def _differ(a: NDArray[Any], b: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return for each voxel where two label maps differ how far it is from where they agree, mm."""
    weight = np.zeros(a.shape, np.float32)
    places = np.nonzero(a != b)
    if places[0].size:
        i, j, k = (slice(int(place.min()), int(place.max()) + 1) for place in places)
        box = widened((i, j, k), 1, a.shape)
        apart = a[box] != b[box]
        away = distance_inside(apart, spacing)
        weight[box] = np.where(np.isinf(away), np.float32(max(spacing)), away)
    return weight


def _unsure(data: NDArray[Any], uncertainty: Volume) -> NDArray[np.float32]:
    values = np.nan_to_num(uncertainty.data.astype(np.float32))
    if "probab" in uncertainty.title.lower():
        p = np.clip(values, 0, 1)
        opposite = (data > 0) != (p > 0.5)
        return np.where(opposite, 1.0, 4 * p * (1 - p)).astype(np.float32)
    return np.maximum(values, 0)


def _spots(labels: Labels, weight: NDArray[np.float32], axis: int) -> list[Spot]:
    """Make a spot of each slice (first axis of `weight`) that has any doubt."""
    spots = []
    for number, sheet in enumerate(weight):
        score = float(sheet.sum(dtype=np.float64)) * labels.grid.voxel_ml
        if score <= 0:
            continue
        places = np.nonzero(sheet)
        middle = [float(np.average(place, weights=sheet[places])) for place in places]
        middle.insert(axis, float(number))
        x, y, z = (float(v) for v in labels.grid.to_patient(middle))
        spots.append(Spot(number, (x, y, z), score, int(places[0].size)))
    return sorted(spots, key=lambda spot: -spot.score)


def _spread(spots: list[Spot], apart: float) -> tuple[Spot, ...]:
    first: list[Spot] = []
    later: list[Spot] = []
    for spot in spots:
        near = any(abs(spot.number - chosen.number) < apart for chosen in first)
        (later if near else first).append(spot)
    return (*first, *later)
