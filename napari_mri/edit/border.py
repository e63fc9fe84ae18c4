"""Tools that find where a border belongs: between touching pieces, or at an edge in the scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import knob
from napari_mri.edit.distance import distance_inside
from napari_mri.edit.pieces import find_pieces
from napari_mri.edit.tool import Job, OneLabel, holding, tool


@dataclass(frozen=True)
class SplitTouching(OneLabel):
    """Options of `split_touching`."""

    neck_mm: float = knob(4.0, "Cut where the bridge between two pieces is thinner than this.", low=0, unit="mm")


@tool("Split touching pieces", "Cut a label at its thin bridges; each piece gets a label of its own.", SplitTouching)
def split_touching(job: Job, params: SplitTouching) -> NDArray[Any]:
    """Cut each label where it is thinner than `neck_mm`.

    The cores left by taking `neck_mm` / 2 off the border grow back inside the label, deepest voxels
    first. The largest piece keeps its value, the others get the next free ones. A part too thin to
    have a core stays with the piece it hangs on, or keeps its value if it hangs on none.
    """
    new = job.data
    free = int(job.data.max(initial=0)) + 1
    for value, box in job.targets(params.label, 1):
        mask = job.data[box] == value
        depth = distance_inside(mask, job.grid.spacing)
        cores, sizes = find_pieces(depth > params.neck_mm / 2, "corners")
        if sizes.size < 2:
            continue
        pieces = flood(_levels(-np.minimum(depth, depth[np.isfinite(depth)].max(initial=0))), cores, mask)
        order = np.argsort(-np.bincount(pieces.ravel(), minlength=sizes.size + 1)[1:], kind="stable")
        new = holding(new, free + sizes.size - 2)
        for number in order[1:]:
            new[box][pieces == number + 1] = free
            free += 1
    return new if new is not job.data else job.data.copy()


@dataclass(frozen=True)
class SnapToEdge(OneLabel):
    """Options of `snap_to_edge`."""

    reach_mm: float = knob(2.0, "How far the border may move.", low=0, high=30, unit="mm")
    blur_mm: float = knob(0.5, "Width of the blur before edges are sought; more for noisy scans.", low=0, unit="mm")


@tool("Snap to edge", "Move the border of a label to the nearest edge in the scan.", SnapToEdge, needs=("scan",))
def snap_to_edge(job: Job, params: SnapToEdge) -> NDArray[Any]:
    """Let inside and outside meet at the strongest step of grey value within `reach_mm` of the border.

    What lies deeper than the reach stays in, what lies farther out stays out; the band between is
    flooded from both sides over the gradient's magnitude. Edges nearer to the old border weigh more.
    Other labels are not touched. A part thinner than twice the reach keeps its middle.
    """
    from scipy.ndimage import gaussian_gradient_magnitude

    assert job.scan is not None
    new = job.data.copy()
    for value, box in job.targets(params.label, job.room(2 * params.reach_mm)):
        mask = new[box] == value
        inner, outer = distance_inside(mask, job.grid.spacing), distance_inside(~mask, job.grid.spacing)
        band = (np.where(mask, inner, outer) <= params.reach_mm) & (mask | (new[box] == 0))
        if not band.any():
            continue
        core = mask & (~band | (inner >= _crest(inner)))
        sigma = [max(params.blur_mm / s, 0.3) for s in job.grid.spacing]
        steps = gaussian_gradient_magnitude(np.nan_to_num(job.scan[box].astype(np.float32)), sigma)
        # A voxel next to the border is one spacing from the other side; that one counts as on it.
        away = np.maximum(np.where(mask, inner, outer) - min(job.grid.spacing), 0)
        edge = steps * np.exp(-((away / max(params.reach_mm, 1e-6)) ** 2) / 2)
        seeds = np.where(core, 1, np.where(band, 0, 2)).astype(np.int32)
        sides = flood(_levels(edge), seeds, np.ones(mask.shape, dtype=bool))
        part = new[box]
        part[mask & (sides == 2)] = 0
        part[(sides == 1) & (part == 0)] = value
    return new


def _crest(inner: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the deepest value around each voxel: where the depth equals it, the voxel is the middle of its part."""
    from scipy.ndimage import maximum_filter

    return np.asarray(maximum_filter(inner, size=5), dtype=np.float32)


def _levels(cost: NDArray[Any]) -> NDArray[np.uint8]:
    """Spread costs over the levels that the flood rises by; the top 0.1 % share a level."""
    low, high = float(cost.min()), float(np.percentile(cost, 99.9))
    scaled = (cost - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def flood(height: NDArray[np.uint8], seeds: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Grow numbered seeds over a landscape as the water rises; where two waters meet is the border.

    Parameters
    ----------
    height : ndarray of uint8, (I, J, K)
    seeds : ndarray of int, (I, J, K)
        1, 2, … in the seeds, 0 elsewhere.
    mask : ndarray of bool, (I, J, K)
        The flood stays inside; parts of it that no seed reaches stay 0.

    Returns
    -------
    ndarray of int32, (I, J, K)
    """
    water = np.pad(np.where(mask, seeds, -1), 1, constant_values=-1).astype(np.int32)
    flat, ground = water.ravel(), np.pad(height, 1).ravel()
    steps = [sign * stride // water.itemsize for stride in water.strides for sign in (1, -1)]
    waiting, owners = _shore(flat, np.flatnonzero(flat > 0), steps)
    for level in range(256):
        under = ground[waiting] <= level
        front, fresh = waiting[under], owners[under]
        waiting, owners = waiting[~under], owners[~under]
        while front.size:
            dry = flat[front] == 0
            front, fresh = front[dry], fresh[dry]
            flat[front[::-1]] = fresh[::-1]  # of several claims the first stands
            shore, owner = _shore(flat, np.unique(front), steps)
            high = ground[shore] > level
            waiting, owners = np.concatenate([waiting, shore[high]]), np.concatenate([owners, owner[high]])
            front, fresh = shore[~high], owner[~high]
    result = water[1:-1, 1:-1, 1:-1]
    return np.where(result > 0, result, 0).astype(np.int32)


def _shore(
    flat: NDArray[np.int32], wet: NDArray[np.int64], steps: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the dry places next to wet ones, and whose water would take each."""
    near = np.concatenate([wet + step for step in steps])
    owner = np.tile(flat[wet], len(steps))
    dry = flat[near] == 0
    return near[dry], owner[dry]
