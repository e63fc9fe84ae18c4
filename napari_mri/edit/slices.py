"""Tools that carry a label from painted slices to others: interpolate between them, copy to the next."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.model import knob
from napari_mri.edit.between import Slice, between
from napari_mri.edit.tool import PLANES, Job, OneLabel, tool


@dataclass(frozen=True)
class InterpolateSlices(OneLabel):
    """Options of `interpolate_slices`."""

    plane: str = knob("axial", "The plane the slices were painted in.", choices=tuple(PLANES))
    up_to_mm: float = knob(
        0.0, "Widest gap to fill, from painted slice to painted slice; 0 fills all.", low=0, unit="mm"
    )
    over: bool = knob(False, "Whether to paint over other labels that are already there.")


@tool("Interpolate slices", "Fill the slices between painted ones.", InterpolateSlices)
def interpolate_slices(job: Job, params: InterpolateSlices) -> NDArray[Any]:
    """Fill the empty slices between painted ones from the shapes on both sides.

    Each label by itself: the pieces of two neighbouring painted slices are paired by overlap or
    nearness, and each pair is blended by its signed distances in mm while its centre moves in a
    straight line. A piece that becomes several is shared out among them; a piece without a partner
    tapers off half-way. Painted slices are never changed, and nothing is added beyond the first and
    last of them. Where two labels claim a voxel, the one that reaches deeper takes it.

    After Raya & Udupa, "Shape-based interpolation of multidimensional objects", 1990, and the
    pairing of pieces in Albu, Beugeling & Laurendeau, "A morphology-based approach for interslice
    interpolation", 2008.
    """
    axis = job.axis(params.plane)
    data = np.moveaxis(job.data, axis, 0)
    free = data == 0 if not params.over else np.ones(data.shape, dtype=bool)
    if job.free is not None:
        free &= np.moveaxis(job.free, axis, 0)
    step = job.grid.spacing[axis]
    spacing = tuple(s for n, s in enumerate(job.grid.spacing) if n != axis)
    widest = params.up_to_mm / step * (1 + 1e-6) if params.up_to_mm else np.inf
    new = data.copy()
    depth = np.zeros(data.shape, np.float32)
    for value, box in job.targets(params.label, 0):
        span, rows, columns = (box[n] for n in (axis, *(n for n in range(3) if n != axis)))
        part = data[:, rows, columns] == value
        painted = [n for n in range(span.start, span.stop) if part[n].any()]
        for low, high in itertools.pairwise(painted):
            if not 1 < high - low <= widest:
                continue
            for number, score in between(Slice(low, part[low]), Slice(high, part[high]), (spacing[0], spacing[1])):
                place = (number, rows, columns)
                takes = (score > depth[place]) & free[place]
                depth[place][takes] = score[takes]
                new[place][takes] = value
    return np.moveaxis(new, 0, axis)


@dataclass(frozen=True)
class CopySlice(OneLabel):
    """Options of `copy_slice`."""

    plane: str = knob("axial", "The plane of the slice.", choices=tuple(PLANES))
    number: int = knob(0, "The slice to copy, counted from 0 as stored in the file.", low=0, unit="slice")
    by: int = knob(1, "Where to: 1 is the next slice, -1 the one before; 3 copies to all of the next three.",
                   unit="slices")  # fmt: skip
    replace: bool = knob(False, "Whether the label's old voxels in those slices are removed first.")


@tool("Copy slice", "Copy a label from one slice to the next or the one before.", CopySlice)
def copy_slice(job: Job, params: CopySlice) -> NDArray[Any]:
    """Copy a label onto the background of neighbouring slices; other labels there stay."""
    axis = job.axis(params.plane)
    new = np.moveaxis(job.data.copy(), axis, 0)
    if params.number >= len(new):
        raise BadOption(f"There is no {params.plane} slice {params.number}.", hint=f"The last is {len(new) - 1}.")
    step = 1 if params.by > 0 else -1
    source = new[params.number].copy()
    copied = source == params.label if params.label else source != 0
    for number in range(params.number + step, params.number + params.by + step, step):
        if not 0 <= number < len(new):
            break
        target = new[number]
        if params.replace:
            target[target == params.label if params.label else target != 0] = 0
        takes = copied & (target == 0)
        target[takes] = source[takes]
    return np.moveaxis(new, 0, axis)
