"""Tools that combine labels with other labels, or with the grey values below them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.model import knob
from napari_mri.edit.tool import Job, OneLabel, holding, tool


@dataclass(frozen=True)
class Union_:
    """Options of `union`."""

    label: int = knob(0, "The value that what is added gets; 0 keeps the value it has.", low=0)
    other_label: int = knob(0, "Which of the second labels to add; 0 adds all.", low=0)
    over: bool = knob(False, "Whether to paint over labels that are already there.")


@tool("Union", "Add second labels to these; without second labels, merge one label into another.", Union_,
      takes=("other",))  # fmt: skip
def union(job: Job, params: Union_) -> NDArray[Any]:
    """Add the voxels of `other` (or of the labels themselves, to merge two labels)."""
    source = job.data if job.other is None else job.other
    if job.other is None and not (params.label and params.other_label):
        raise BadOption("Merging needs both labels.", hint="Give --label and --other-label, or second labels.")
    added = source == params.other_label if params.other_label else source != 0
    if job.other is not None and not params.over:
        added &= job.data == 0
    values = params.label or source[added]
    new = holding(job.data, int(np.max(values, initial=0)))
    new[added] = values
    return new


@dataclass(frozen=True)
class WithOther(OneLabel):
    """Options of `minus` and `intersect`."""

    other_label: int = knob(0, "Which of the second labels counts; 0 counts all.", low=0)


@tool("Minus", "Remove from a label what second labels cover.", WithOther, needs=("other",))
def minus(job: Job, params: WithOther) -> NDArray[Any]:
    """Set voxels of the label to 0 where `other` is."""
    return np.where(_chosen(job, params) & _covered(job, params), 0, job.data)


@tool("Intersect", "Keep of a label only what second labels cover.", WithOther, needs=("other",))
def intersect(job: Job, params: WithOther) -> NDArray[Any]:
    """Set voxels of the label to 0 where `other` is not."""
    return np.where(_chosen(job, params) & ~_covered(job, params), 0, job.data)


def _chosen(job: Job, params: WithOther) -> NDArray[np.bool_]:
    return np.asarray(job.data == params.label if params.label else job.data != 0)


def _covered(job: Job, params: WithOther) -> NDArray[np.bool_]:
    assert job.other is not None
    return np.asarray(job.other == params.other_label if params.other_label else job.other != 0)


@dataclass(frozen=True)
class ThresholdInside(OneLabel):
    """Options of `threshold_inside`."""

    low: float = knob(0.0, "Lowest grey value of the range.")
    high: float = knob(1e9, "Highest grey value of the range.")
    within: int = knob(-1, "Label for voxels in the range; -1 leaves them as they are.", low=-1)
    beyond: int = knob(0, "Label for voxels out of the range; -1 leaves them as they are.", low=-1)


@tool("Threshold inside", "Split or trim a label by the grey values of the scan.", ThresholdInside, needs=("scan",))
def threshold_inside(job: Job, params: ThresholdInside) -> NDArray[Any]:
    """Give the voxels of a label new values by whether the scan lies in [`low`, `high`] there.

    As set at first, voxels out of the range leave the label. NaN is out of every range.
    """
    assert job.scan is not None
    if params.low > params.high:
        raise BadOption(f"A range from {params.low:g} to {params.high:g} holds no grey value.")
    new = holding(job.data, max(params.within, params.beyond))
    region = job.data == params.label if params.label else job.data != 0
    bright = (job.scan >= params.low) & (job.scan <= params.high)
    if params.within >= 0:
        new[region & bright] = params.within
    if params.beyond >= 0:
        new[region & ~bright] = params.beyond
    return new
