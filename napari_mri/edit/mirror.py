"""The tool that carries labels to the other side of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.midplane import Plane, find_midplane
from napari_mri.core.model import knob
from napari_mri.core.volume import Volume
from napari_mri.edit.tool import Job, OneLabel, holding, tool, widened


@dataclass(frozen=True)
class Mirror(OneLabel):
    """Options of `mirror`."""

    plane: str = knob(
        "estimate",
        "Where the mirror stands: found in the scan, at the middle of the box, or at a given x.",
        choices=("estimate", "middle", "at"),
    )
    at_mm: float = knob(0.0, "Patient x of the mirror (right is positive) if it stands 'at' a place.", unit="mm")
    to: int = knob(0, "The value of the mirrored voxels; 0 keeps the label's own.", low=0)
    keep: bool = knob(True, "Whether the original stays.")


@tool("Mirror", "Copy a label to the other side of the head.", Mirror, takes=("scan",))
def mirror(job: Job, params: Mirror) -> NDArray[Any]:
    """Reflect a label across the mid-sagittal plane, onto the background of the other side.

    Each voxel takes the label found at the mirror image of its centre (nearest voxel), so no
    gaps open on oblique or anisotropic grids.
    """
    plane = _plane(job, params)
    new = holding(job.data, params.to)
    sources = list(job.targets(params.label, 0))
    if not params.keep:
        for value, box in sources:
            new[box][job.data[box] == value] = 0
    for value, box in sources:
        target = _image_box(job, plane, box)
        if target is None:
            continue
        index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in target), indexing="ij"), axis=-1)
        there = np.rint(job.grid.to_voxels(plane.mirrored(job.grid.to_patient(index)))).astype(int)
        within = ((there >= 0) & (there < job.grid.shape)).all(axis=-1)
        there[~within] = 0
        hit = within & (job.data[tuple(np.moveaxis(there, -1, 0))] == value)
        part = new[target]
        part[hit & (part == 0)] = params.to or value
    return new


def _plane(job: Job, params: Mirror) -> Plane:
    if params.plane == "at":
        return Plane((1.0, 0.0, 0.0), params.at_mm)
    if params.plane == "middle":
        return Plane((1.0, 0.0, 0.0), float(job.grid.centre[0]))
    if job.scan is None:
        raise BadOption("Finding the middle of the head needs the scan.", hint="Give the scan, or --plane middle.")
    return find_midplane(Volume(job.scan, job.grid))


def _image_box(job: Job, plane: Plane, box: tuple[slice, slice, slice]) -> tuple[slice, slice, slice] | None:
    """Return the box in the array that the mirror image of a box falls into; None if outside."""
    ends = np.array([[s.start, s.stop - 1] for s in box])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    image = job.grid.to_voxels(plane.mirrored(job.grid.to_patient(corners)))
    low, high = np.floor(image.min(axis=0)).astype(int), np.ceil(image.max(axis=0)).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, job.grid.shape)
    if (low >= high).any():
        return None
    return widened((slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), 1, job.grid.shape)
