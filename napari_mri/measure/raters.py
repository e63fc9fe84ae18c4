"""How far two raters agree: on the voxels of one case, and on the figures of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels
from napari_mri.measure.overlap import Overlap, compare

DEFINITIONS = {
    "kappa": "Cohen's kappa over the voxels of the box around both raters' labels, widened by one voxel.",
    "limits": "Bland-Altman: mean difference ± 1.96 standard deviations (n - 1) of the differences.",
    "icc": "ICC(2,1): two-way random, absolute agreement, single rater.",
}


@dataclass(frozen=True)
class TwoRaters:
    """One label as two raters drew it.

    Parameters
    ----------
    overlap : Overlap
    kappa : float
        NaN where both leave the box to one class.
    """

    overlap: Overlap
    kappa: float


@dataclass(frozen=True)
class Agreement:
    """Figures of many cases by two raters (see `DEFINITIONS`).

    Parameters
    ----------
    cases : int
    bias : float
        Mean of first - second.
    low, high : float
        Limits of agreement.
    icc : float
        NaN if the figures do not vary.
    """

    cases: int
    bias: float
    low: float
    high: float
    icc: float


def two_raters(first: Labels, second: Labels, *, tolerance_mm: float = 1.0) -> tuple[TwoRaters, ...]:
    """Compare two raters' labels of one case, all labels together first, then one by one.

    Raises
    ------
    GridMismatch
        If they lie on different grids.
    """
    rows = []
    a, b = np.asarray(first.frame(0).data), np.asarray(second.frame(0).data)
    for overlap in compare(first, second, tolerance_mm=tolerance_mm):
        ours, theirs = (v == overlap.label if overlap.label else v != 0 for v in (a, b))
        rows.append(TwoRaters(overlap, _kappa(ours, theirs)))
    return tuple(rows)


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """Compare one figure (a volume, say) of many cases by two raters.

    Parameters
    ----------
    first, second : sequence of float
        The same cases in the same order, at least two.

    Raises
    ------
    BadOption
        If there are fewer than two cases, or not as many of one as of the other.
    """
    table = np.array([first, second], dtype=np.float64).T if len(first) == len(second) else np.zeros((0, 2))
    n = len(table)
    if n < 2:
        raise BadOption("Agreement needs the same two or more cases of both raters.")
    difference = table[:, 0] - table[:, 1]
    bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    rows, columns, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    between_cases = 2 * ((rows - grand) ** 2).sum() / (n - 1)
    between_raters = n * ((columns - grand) ** 2).sum()
    error = ((table - rows[:, None] - columns[None] + grand) ** 2).sum() / (n - 1)
    below = between_cases + error + 2 * (between_raters - error) / n
    icc = float((between_cases - error) / below) if below > 0 else float("nan")
    return Agreement(n, bias, bias - spread, bias + spread, icc)


def _kappa(a: np.ndarray, b: np.ndarray) -> float:
    either = a | b
    if not either.any():
        return float("nan")
    box = []
    for axis in range(either.ndim):
        hit = np.flatnonzero(either.any(axis=tuple(n for n in range(either.ndim) if n != axis)))
        box.append(slice(max(0, int(hit[0]) - 1), int(hit[-1]) + 2))
    a, b = a[tuple(box)], b[tuple(box)]
    same = float((a == b).mean())
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return (same - chance) / (1 - chance) if chance < 1 else float("nan")
