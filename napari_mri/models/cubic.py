"""Thick slices to thin ones by cubic B-spline, corrected until the scan can be measured from the result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure.consistency import (
    PROFILES,
    Consistency,
    Matrix,
    Slicing,
    along_axes,
    compared,
    filled_spectrum,
    slicing,
)

Array = NDArray[np.float32]

CARD = Card(
    name="cubic",
    task=SUPERRES,
    title="Cubic B-spline, consistent with the scan",
    says=(
        "Interpolates to the wished spacing and corrects the result until it agrees with the measured slices; "
        "any contrast, no training, no detail that the scan does not hold."
    ),
    wants=Wants(axes="RAS", min_slices=3, frames=True),
    needs=("scipy",),
    cite="Unser, IEEE Signal Process Mag 1999;16(6):22; back-projection after Irani & Peleg, CVGIP 1991;53:231",
)

MOST_FACTOR = 8.0
"""Between slices further apart than this there is nothing left to connect."""
MOST_VOXELS = 1.5e9
"""6 GB of float32 a volume: beyond it a wish for a spacing is more likely a slip."""
INTERPOLATED = 0.8
"""An axis with signal up to less than this share of its highest frequency was interpolated before."""
_SAME = 1e-3


@dataclass(frozen=True)
class Params:
    """Options of the cubic B-spline."""

    spacing: float = knob(
        0.0, "Wished spacing along all axes; 0 takes the finest spacing of the scan.", low=0.0, high=20.0, unit="mm"
    )
    thickness: float = knob(
        0.0,
        "Slice thickness of the scan, if it is not the distance between slices; 0 takes that distance.",
        low=0.0,
        high=40.0,
        unit="mm",
    )
    profile: str = knob("box", "Sensitivity across a slice: even (box) or Gaussian.", choices=PROFILES)
    consistent: bool = knob(True, "Correct the result until it agrees with the measured slices; off for plain cubic.")


@dataclass(frozen=True, eq=False)
class _Way:
    """From a scan to its finer grid: average where it is finer than wished, then refine, then correct."""

    average: Slicing | None
    middle: Grid
    fine: Grid
    refine: tuple[Matrix | None, ...]
    measure: Slicing

    def gone(self, data: NDArray[np.generic], consistent: bool) -> tuple[Array, Array, Array]:
        """Return the scan on the middle grid, the result, and the result sampled back to the middle grid."""
        start = np.asarray(data, dtype=np.float32) if self.average is None else self.average.sampled(data)
        result = along_axes(start, self.refine)
        if consistent:
            result = self.measure.corrected(result, start)
        if start.min() >= 0:  # a magnitude has no undershoot
            np.maximum(result, 0, out=result)
            if consistent:
                result = self.measure.scaled(result, start)
        return start, result, self.measure.sampled(result)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return a scan, (I, J, K) or (I, J, K, C), on a finer grid; frames and intensities as in the scan.

    The new grid has the first outer corner of the old one and, where the spacing divides the field of
    view, all eight. Offers ``"residual"``: scan minus re-sampled result, on the scan's grid (averaged to the
    wished spacing along axes that were finer).

    Parameters
    ----------
    scan : Volume
    p : Params
    rt : Runtime

    Raises
    ------
    BadOption
        If the result would be too large.
    """
    way = _way(scan.grid, p)
    _tell_limits(scan, way, p, rt)
    results: list[Array] = []
    judged: list[Consistency] = []
    for number in range(scan.n_frames):
        rt.report(0.05 + 0.9 * number / scan.n_frames, "interpolating and comparing with the scan")
        start, result, sampled = way.gone(scan.frame(number).data, p.consistent)
        results.append(result)
        judged.append(compared(Volume(start, way.middle), sampled))
    worst = max(judged, key=lambda one: one.percent)
    rt.warn(f"Data consistency{' of the worst frame' if len(judged) > 1 else ''}: {worst}.")
    residual = [one.residual.data for one in judged]
    rt.offer("residual", replace(scan, data=_joined(residual, scan), grid=way.middle))
    return replace(scan, data=_joined(results, scan), grid=way.fine)


def _joined(frames: list[Array], scan: Volume) -> Array:
    return frames[0] if scan.data.ndim == 3 else np.stack(frames, axis=-1)


def _way(grid: Grid, p: Params) -> _Way:
    own = np.asarray(grid.spacing)
    wish = np.full(3, p.spacing or own.min())
    wish = np.where(np.abs(wish / own - 1) < _SAME, own, wish)
    if np.prod(np.asarray(grid.size_mm) / wish) > MOST_VOXELS:
        raise BadOption(
            f"A spacing of {wish.min():.3g} mm makes too many voxels of this scan.", hint="Wish for a coarser spacing."
        )
    middle = grid.respaced(np.maximum(own, wish)) if (wish > own).any() else grid
    fine = middle.respaced(wish) if (wish < own).any() else middle
    widths = np.asarray(middle.spacing)
    if p.thickness > 0 and _slice_axis(grid) is not None:
        axis = int(np.argmax(own))
        widths[axis] = max(p.thickness, widths[axis]) if wish[axis] > own[axis] else p.thickness
    # Along an axis that is not refined the thickness cannot be undone, so it is not asked about either.
    widths = np.where(wish < own, widths, middle.spacing)
    return _Way(
        slicing(middle, grid) if middle is not grid else None,
        middle,
        fine,
        tuple(_spline(middle, fine, axis) for axis in range(3)),
        slicing(middle, fine, widths, p.profile),
    )


def _slice_axis(grid: Grid) -> int | None:
    """Return the axis of the thick slices; None for a scan of equal spacings."""
    step = grid.spacing
    return int(np.argmax(step)) if max(step) > min(step) * 1.01 else None


def _spline(middle: Grid, fine: Grid, axis: int) -> Matrix | None:
    """Return the (fine, middle) matrix of cubic B-spline interpolation along an axis; borders go on outside."""
    from scipy.ndimage import map_coordinates

    count, wanted = middle.shape[axis], fine.shape[axis]
    if abs(middle.spacing[axis] / fine.spacing[axis] - 1) < _SAME:
        return None
    ratio = fine.spacing[axis] / middle.spacing[axis]
    place = np.clip((np.arange(wanted) + 0.5) * ratio - 0.5, 0, count - 1)
    # Interpolating unit vectors gives the matrix; along the second axis the points lie on the samples.
    points = np.meshgrid(place, np.arange(count), indexing="ij")
    matrix: Matrix = map_coordinates(np.eye(count), points, order=3, mode="mirror")
    return matrix


def _tell_limits(scan: Volume, way: _Way, p: Params, rt: Runtime) -> None:
    """Say what the scan cannot hold."""
    own, wish = np.asarray(scan.spacing), np.asarray(way.fine.spacing)
    factor = own / wish
    axis = int(np.argmax(factor))
    if factor.max() < 1 + _SAME:
        rt.warn(f"Nothing to refine: the scan's spacing is {own.min():.3g} mm already.")
    if factor.max() > MOST_FACTOR:
        rt.warn(
            f"Factor {factor.max():.1f}: slices {own[axis]:.3g} mm apart do not hold what {wish[axis]:.3g} mm would show."
        )
    if (factor < 1 - _SAME).any():
        rt.warn(f"The scan is finer than {wish.max():.3g} mm along some axes and was averaged there.")
    if 0 < p.thickness < own[axis] * 0.98 and axis == _slice_axis(scan.grid):
        rt.warn(f"{own[axis] - p.thickness:.3g} mm between slices were not measured: they are guessed from both sides.")
    filled = filled_spectrum(scan.frame(scan.n_frames // 2).data)
    # Only the axes that are refined: a detail that is not there cannot be sharpened.
    empty = [(share, n) for n, share in enumerate(filled) if share < INTERPOLATED and factor[n] > 1 + _SAME]
    if empty:
        share, n = min(empty)
        rt.warn(
            f"The scan seems interpolated already: along its {own[n]:.3g} mm axis nothing is finer than "
            f"about {own[n] / share:.2g} mm."
        )


MODELS = (Model(CARD, Params, run=run),)
