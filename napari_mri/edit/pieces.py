"""Tools that count connected pieces: the largest one, small islands, holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import knob
from napari_mri.edit.tool import Job, OneLabel, tool

TOUCH = {"faces": 1, "edges": 2, "corners": 3}
"""Which neighbours belong to one piece: 6, 18 or 26 of them."""


@dataclass(frozen=True)
class LargestPiece(OneLabel):
    """Options of `largest_piece`."""

    touch: str = knob("faces", "What joins two voxels into one piece.", choices=tuple(TOUCH))


@tool("Largest piece", "Keep the largest connected piece of a label and remove the rest.", LargestPiece)
def largest_piece(job: Job, params: LargestPiece) -> NDArray[Any]:
    """Keep the largest connected piece of each label; of equal ones the first in storage order."""
    new = job.data.copy()
    for value, box in job.targets(params.label, 0):
        pieces, sizes = find_pieces(new[box] == value, params.touch)
        if sizes.size > 1:
            new[box][(pieces > 0) & (pieces != sizes.argmax() + 1)] = 0
    return new


@dataclass(frozen=True)
class DropIslands(OneLabel):
    """Options of `drop_islands`."""

    below_ml: float = knob(0.1, "Pieces smaller than this volume are removed.", low=0, unit="ml")
    touch: str = knob("faces", "What joins two voxels into one piece.", choices=tuple(TOUCH))


@tool("Remove islands", "Remove the pieces of a label that are smaller than a volume.", DropIslands)
def drop_islands(job: Job, params: DropIslands) -> NDArray[Any]:
    """Remove pieces whose volume (voxels × voxel volume) is below `below_ml`."""
    new = job.data.copy()
    for value, box in job.targets(params.label, 0):
        pieces, sizes = find_pieces(new[box] == value, params.touch)
        # A relative hair's breadth, so that a piece of exactly the limit is kept whatever the rounding.
        small = sizes * job.grid.voxel_ml < params.below_ml * (1 - 1e-9)
        if small.any():
            new[box][np.concatenate([[False], small])[pieces]] = 0
    return new


@dataclass(frozen=True)
class FillHoles(OneLabel):
    """Options of `fill_holes`."""

    plane: str = knob(
        "3D",
        "3D fills holes closed on all sides; a plane fills what is closed in each of its slices.",
        choices=("3D", "axial", "coronal", "sagittal"),
    )
    up_to_ml: float = knob(0.0, "Leave holes larger than this; 0 fills all.", low=0, unit="ml")


@tool("Fill holes", "Fill background that a label closes in, in 3D or slice by slice.", FillHoles)
def fill_holes(job: Job, params: FillHoles) -> NDArray[Any]:
    """Fill background closed in by a label. What reaches the edge of the scan is no hole.

    Other labels inside a hole stay as they are. A leak through a corner does not open a hole:
    background is joined by faces only.
    """
    axis = None if params.plane == "3D" else job.axis(params.plane)
    limit = params.up_to_ml if params.up_to_ml > 0 else np.inf
    new = job.data.copy()
    for value, box in job.targets(params.label, 1):
        part = new[box]
        part[find_holes(part == value, axis, limit / job.grid.voxel_ml) & (part == 0)] = value
    return new


def find_holes(mask: NDArray[np.bool_], axis: int | None = None, up_to: float = np.inf) -> NDArray[np.bool_]:
    """Return the holes of a mask as a bool array.

    Parameters
    ----------
    mask : ndarray of bool, (I, J, K)
    axis : int, optional
        Look for holes in each slice across this axis; None looks in 3D.
    up_to : float
        Largest hole, voxels.
    """
    from scipy.ndimage import generate_binary_structure, label

    neighbours = generate_binary_structure(3, 1)
    if axis is not None:
        neighbours[tuple(0 if n == axis else slice(None) for n in range(3))] = False
        neighbours[tuple(2 if n == axis else slice(None) for n in range(3))] = False
    spaces, count = label(~mask, neighbours)
    closed = np.ones(count + 1, dtype=bool)
    closed[0] = False
    for side in range(3):
        if side != axis:
            closed[spaces.take(0, side).ravel()] = False
            closed[spaces.take(-1, side).ravel()] = False
    if np.isfinite(up_to):
        closed &= np.bincount(spaces.ravel(), minlength=count + 1) <= up_to * (1 + 1e-9)
    return np.asarray(closed[spaces])


def find_pieces(mask: NDArray[np.bool_], touch: str = "faces") -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find and number the connected pieces of a mask.

    Parameters
    ----------
    mask : ndarray of bool, (I, J, K)
    touch : str
        A key of `TOUCH`.

    Returns
    -------
    pieces : ndarray of int32, (I, J, K)
        0 outside, 1, 2, … in the pieces.
    sizes : ndarray of int, (number of pieces,)
        Voxels of piece 1, 2, …
    """
    from scipy.ndimage import generate_binary_structure, label

    pieces, count = label(mask, generate_binary_structure(3, TOUCH[touch]))
    return pieces, np.bincount(pieces.ravel(), minlength=count + 1)[1:]
