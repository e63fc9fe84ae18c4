"""Thick slices to thin ones as this very scan teaches it: its fine planes, blurred like its slices, are the lesson.

Within a slice the scan is fine. Blurring and sampling these planes along one in-plane axis as the scanner did
across slices gives pairs of thick and fine; a small net learns the way back and is applied across the slices,
along both in-plane axes. The result is corrected until the measured slices could have come from it.

References
----------
Zhao et al., SMORE, IEEE Trans Med Imaging 2021;40:805. Remedios et al., arXiv:2209.02611 (slice profiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import MriError
from napari_mri.core.grid import Grid
from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.lesson import Plan
from napari_mri.measure.consistency import along_axes
from napari_mri.models._planes import MOST_VALUES, Pairs, Progress, lacking, learned, pairs_of, working_way
from napari_mri.models._superres import (
    SAME,
    Array,
    Way,
    Wish,
    refined,
    slice_axis,
    splines,
    tell_limits,
    way_of,
    way_to,
)

if TYPE_CHECKING:
    from napari_mri.nets.planes import PlaneNet

CARD = Card(
    name="self",
    task=SUPERRES,
    title="Learn from this scan's own planes",
    says=(
        "Trains a small network on this very scan, whose fine planes teach how its thick slices look between: any "
        "anatomy and contrast, no weights; takes minutes, and needs slices clearly thicker than the voxels within them."
    ),
    wants=Wants(axes="RAS", min_slices=3, frames=True),
    needs=("torch", "scipy"),
    cite="SMORE: Zhao et al., IEEE Trans Med Imaging 2021;40:805",
    rank=-1,
)

LEAST_FACTOR = 1.4
"""Slices less thick than this, in voxels within them, have nothing to learn from those."""


@dataclass(frozen=True)
class Params(Wish):
    """Options of the model that learns from the scan's own planes."""

    minutes: float = knob(
        2.0, "Longest time to learn; it ends earlier when nothing more is gained.", low=0.02, high=600.0, unit="min"
    )
    steps: int = knob(1200, "Most learning steps.", low=1, high=100_000)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return a scan, (I, J, K) or (I, J, K, C), on a finer grid; grid and by-products as of `cubic`.

    Of a series the middle frame is learned from. A stop while learning goes on with the best so far.

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
    rt.report(0.0, "making thick slices of the scan's own planes")
    way = way_of(scan.grid, p)
    tell_limits(scan, way, p, rt)
    axis = slice_axis(scan.grid)
    work = None if axis is None else working_way(scan.grid, axis, p)
    if axis is None or work is None or work.factors[axis] < LEAST_FACTOR:
        rt.warn("Slices hardly thicker than the voxels in them teach nothing: this is the cubic spline.")
        return refined(scan, way, lambda start, number: way.agreed(way.spline(start), start), rt)
    middle = scan.frame(scan.n_frames // 2)
    rows = _rows(work, middle.data, axis)
    scale = max(float(np.percentile(np.abs(rows), 99.5)), 1e-6)
    pairs = _pairs(rows, axis, work, p, _noise(middle), rt.seed)
    if not pairs:
        rt.warn("Too thick slices or too small a scan to learn from its own planes: this is the cubic spline.")
        return refined(scan, way, lambda start, number: way.agreed(way.spline(start), start), rt)
    net = learned(pairs, scale, Plan(minutes=p.minutes, steps=p.steps, every=25, patience=12), rt)
    onward = splines(work.fine, way.fine)

    def make(start: Array, number: int) -> Array:
        share = 0.13 / scan.n_frames
        tell = Progress(rt, 0.86 + share * number, 0.86 + share * (number + 1), "refining with what was learned")
        result = _refined(net, scan.frame(number).data, axis, work, scale, tell)
        return way.agreed(along_axes(result, onward), start)

    return refined(scan, way, make, rt)


def _rows(work: Way, data: NDArray[Any], axis: int) -> Array:
    """Return a frame at the working grid's spacing within its slices, and its own across them."""
    within = tuple(None if n == axis else matrix for n, matrix in enumerate(work.refine))
    return along_axes(work.start(data), within)


def _refined(net: PlaneNet, data: NDArray[Any], axis: int, work: Way, scale: float, tell: Progress) -> Array:
    start = work.start(data)
    base = work.agreed(work.spline(start), start)
    base += lacking(net, _rows(work, data, axis), axis, scale, tell)
    return work.agreed(base, start)


def _noise(scan: Volume) -> float:
    from napari_mri.measure.noise import estimate

    try:
        found = estimate(scan)
    except MriError:  # too small or constant to tell
        return 0.0
    return found.sigma if found.trusted else 0.0


def _pairs(rows: Array, axis: int, work: Way, p: Params, sigma: float, seed: int) -> list[Pairs]:
    """Make pairs along both axes within the slices, of as many slices as there is memory for."""
    thick, parts = work.middle.spacing[axis], round(work.factors[axis])
    narrow = thick / parts
    some = np.moveaxis(rows, axis, 2)
    steps = [s for n, s in enumerate(work.fine.spacing) if n != axis]
    body = np.flatnonzero(some.mean(axis=(0, 1)) > 0.3 * some.mean())  # slices of air teach nothing
    body = body if body.size else np.arange(some.shape[2])
    each = max(1, MOST_VALUES // some[..., 0].size)
    some = np.ascontiguousarray(some[..., body[:: max(1, -(-len(body) // each))]])
    made: list[Pairs] = []
    for number, step in enumerate(steps):
        lines = np.moveaxis(some, number, 0)
        if abs(narrow / step - 1) > SAME:  # a factor that is no whole number: the truth at a spacing that is
            way = way_to(Grid.plain(lines.shape, (step, 1, 1)), (narrow, 1, 1), Wish())
            lines = way.spline(way.start(lines))
        made += pairs_of(lines, (thick, steps[1 - number]), (parts, 1), p, seed, sigma)
    return made


MODELS = (Model(CARD, Params, run=run),)
