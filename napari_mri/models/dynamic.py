"""A coarse series to finer frames as a static scan of the same patient teaches it.

The static scan is blurred and sampled to the series' resolution, a small net learns the way back, and is applied
to every frame. It learns how fine and coarse go together, not what stands where: nothing is copied from the static
scan into a frame, so what moves stays where the frame has it. One intensity scale serves the whole series, and
each frame is corrected until the measured one could have come from it.

References
----------
Sarasaen, Chatterjee et al., Fine-tuning deep learning model parameters for improved super-resolution of dynamic
MRI with prior-knowledge, Artif Intell Med 2021;121:102196. (Its recursion over frames, DDoS-UNet, is not used.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mri.core.errors import GeometryProblem
from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.lesson import Plan
from napari_mri.measure.consistency import along_axes
from napari_mri.models._planes import MOST_VALUES, Progress, lacking_planes, learned, pairs_of, parts_of
from napari_mri.models._superres import Array, Way, Wish, refined, splines, tell_limits, way_to

CARD = Card(
    name="dynamic",
    task=SUPERRES,
    title="Series, taught by a static scan",
    says=(
        "Refines each frame of a coarse series by a small network trained on a finer static scan of the same patient "
        "(give it as the further scan); no weights, frames keep their order, intensities and b-values."
    ),
    wants=Wants(axes="RAS", min_slices=3, frames=True, others=1, least_others=1),
    needs=("torch", "scipy"),
    cite="Sarasaen et al., Artif Intell Med 2021;121:102196",
    rank=-2,
)


@dataclass(frozen=True)
class Params(Wish):
    """Options of the model that a static scan teaches."""

    minutes: float = knob(
        2.0, "Longest time to learn; it ends earlier when nothing more is gained.", low=0.02, high=600.0, unit="min"
    )
    steps: int = knob(1200, "Most learning steps.", low=1, high=100_000)


def run(scan: Volume, p: Params, rt: Runtime, others: tuple[Volume, ...] = ()) -> Volume:
    """Return a series, (I, J, K, C), or one frame of it, on a finer grid; grid and by-products as of `cubic`.

    Parameters
    ----------
    scan : Volume
    p : Params
        A spacing of 0 takes that of the static scan, along each axis its own.
    rt : Runtime
    others : tuple of one Volume, (I, J, K)
        The static scan, finer than the series. It need not be in register.

    Raises
    ------
    GeometryProblem
        If the static scan is too coarse or too small to learn from.
    BadOption
        If the result would be too large.
    """
    rt.report(0.0, "making coarse planes of the static scan")
    prior = others[0]
    steps = np.full(3, p.spacing) if p.spacing else np.minimum(scan.spacing, prior.spacing)
    way = way_to(scan.grid, steps, p)
    tell_limits(scan, way, p, rt)
    parts = [parts_of(own, step) for own, step in zip(scan.spacing, steps, strict=True)]
    if max(parts) == 1:
        rt.warn("The series is as fine as the static scan, so nothing was learned: this is the cubic spline.")
        return refined(scan, way, lambda start, number: way.agreed(way.spline(start), start), rt)
    first, second = sorted(sorted(range(3), key=lambda n: -parts[n])[:2])
    work = way_to(scan.grid, [own / k for own, k in zip(scan.spacing, parts, strict=True)], p)
    truth = _taught(prior, work, first, second)
    spacing = (scan.spacing[first], scan.spacing[second])
    pairs = pairs_of(truth, spacing, (parts[first], parts[second]), Wish(profile=p.profile), rt.seed)
    if not pairs:
        raise GeometryProblem(
            "The static scan is too small to learn from at the series' resolution.", hint="Use self or cubic instead."
        )
    plan = Plan(minutes=p.minutes, steps=p.steps, every=25, patience=12)
    net = learned(pairs, _top(truth), plan, rt)
    scale, onward = _top(scan.data), splines(work.fine, way.fine)

    def make(start: Array, number: int) -> Array:
        share = 0.13 / scan.n_frames
        tell = Progress(rt, 0.86 + share * number, 0.86 + share * (number + 1), f"refining frame {number + 1}")
        coarse = work.start(scan.frame(number).data)
        result = work.agreed(work.spline(coarse), coarse)
        # The third axis is refined by the spline alone; planes along the two others are what was learned.
        within = tuple(None if n in (first, second) else matrix for n, matrix in enumerate(work.refine))
        third = 3 - first - second
        order = (third, first, second)
        told = lacking_planes(net, along_axes(coarse, within).transpose(order), scale, tell)
        result += told.transpose(np.argsort(order))
        return way.agreed(along_axes(work.agreed(result, coarse), onward), start)

    return refined(scan, way, make, rt)


def _top(data: np.ndarray) -> float:
    some = np.asarray(data).ravel()[:: max(1, data.size // 2_000_000)]
    return max(float(np.percentile(np.abs(some), 99.5)), 1e-6)


def _taught(prior: Volume, work: Way, first: int, second: int) -> Array:
    """Return planes of the static scan at the spacing the frames are to have, (I, J, N); as many as memory allows."""
    steps = np.array(prior.spacing)
    steps[[first, second]] = np.asarray(work.fine.spacing)[[first, second]]
    way = way_to(prior.grid, steps, Wish())
    if max(way.factors) > 1.5:
        raise GeometryProblem(
            "The static scan is coarser than the spacing that is wished for.", hint="Wish for a coarser spacing."
        )
    fine = way.spline(way.start(prior.data)).transpose(first, second, 3 - first - second)
    body = np.flatnonzero(fine.mean(axis=(0, 1)) > 0.3 * fine.mean())
    body = body if body.size else np.arange(fine.shape[2])
    each = max(1, MOST_VALUES // fine[..., 0].size)
    return np.ascontiguousarray(fine[..., body[:: max(1, -(-len(body) // each))]])


MODELS = (Model(CARD, Params, run=run),)
