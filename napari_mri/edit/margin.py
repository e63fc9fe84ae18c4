"""The tool that grows or shrinks a label by a distance in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import knob
from napari_mri.edit.distance import distance_inside
from napari_mri.edit.tool import Job, OneLabel, tool


@dataclass(frozen=True)
class Margin(OneLabel):
    """Options of `margin`."""

    mm: float = knob(2.0, "How far the border moves: outwards above 0, inwards below 0.", low=-200, high=200, unit="mm")


@tool("Margin", "Grow or shrink a label by a distance in mm.", Margin)
def margin(job: Job, params: Margin) -> NDArray[Any]:
    """Grow (`mm` > 0) or shrink (`mm` < 0) a label by an exact Euclidean distance.

    A voxel joins when its centre lies within `mm` of the centre of a voxel of the label, and leaves
    when it lies within `-mm` of one outside. Growing takes background only, never another label;
    where two labels reach the same voxel the nearer one takes it. The edge of the scan is no border:
    a label cut off there is not shrunk from that side.
    """
    if params.mm >= 0:
        return _grown(job, params)
    new = job.data.copy()
    for value, box in job.targets(params.label, 1):
        mask = job.data[box] == value
        new[box][mask & (distance_inside(mask, job.grid.spacing) <= _reach(-params.mm))] = 0
    return new


def _grown(job: Job, params: Margin) -> NDArray[Any]:
    new = job.data.copy()
    nearest = np.full(job.data.shape, np.inf, np.float32)
    for value, box in job.targets(params.label, job.room(params.mm)):
        away = distance_inside(job.data[box] != value, job.grid.spacing)
        takes = (job.data[box] == 0) & (away <= _reach(params.mm)) & (away < nearest[box])
        nearest[box][takes] = away[takes]
        new[box][takes] = value
    return new


def _reach(mm: float) -> float:
    # float32 rounding must not decide whether a voxel exactly `mm` away belongs.
    return mm * (1 + 1e-6) + 1e-6
