"""Thick slices to thin ones by cubic B-spline, corrected until the scan can be measured from the result."""

from __future__ import annotations

from dataclasses import dataclass

from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.models._superres import Array, Wish, refined, tell_limits, way_of

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


@dataclass(frozen=True)
class Params(Wish):
    """Options of the cubic B-spline."""

    consistent: bool = knob(True, "Correct the result until it agrees with the measured slices; off for plain cubic.")


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
    way = way_of(scan.grid, p)
    tell_limits(scan, way, p, rt)

    def make(start: Array, number: int) -> Array:
        rt.report(0.05 + 0.9 * number / scan.n_frames, "interpolating and comparing with the scan")
        return way.agreed(way.spline(start), start, p.consistent)

    return refined(scan, way, make, rt)


MODELS = (Model(CARD, Params, run=run),)
