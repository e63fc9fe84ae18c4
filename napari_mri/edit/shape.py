"""Tools that move the border of a label: smoothing that keeps the volume, and margins in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import knob
from napari_mri.edit.tool import Job, OneLabel, Region, tool

_SWEEPS = 60


@dataclass(frozen=True)
class Smooth(OneLabel):
    """Options of `smooth`."""

    mm: float = knob(1.5, "Width (standard deviation) of the smoothing.", low=0, high=50, unit="mm")


@dataclass(eq=False)
class _Soft:
    """One label blurred: how much of it there is around each voxel of its box."""

    value: int
    box: Region
    score: NDArray[np.float32]
    target: int
    handicap: float = 0.0


@tool("Smooth", "Smooth the border of a label and keep its volume.", Smooth)
def smooth(job: Job, params: Smooth) -> NDArray[Any]:
    """Smooth every label with a Gaussian of `mm` and keep each volume within 1 %.

    Each label's indicator is blurred (sigma in mm on the anisotropic grid); a voxel goes to the
    label that is strongest there after a handicap of its own, and the handicaps are found so that
    every label keeps its number of voxels. Labels that are not chosen keep their voxels.
    """
    if params.mm <= 0:
        return job.data.copy()
    movable = np.ones(job.data.shape, dtype=bool) if job.free is None else job.free.copy()
    if params.label:
        movable &= (job.data == 0) | (job.data == params.label)
    boxes = job.targets(params.label, job.room(4 * params.mm))
    softs = [_soften(job, value, box, params.mm, movable[box]) for value, box in boxes]
    for soft in softs:
        soft.target = int(np.count_nonzero((job.data[soft.box] == soft.value) & movable[soft.box]))
    softs = [soft for soft in softs if soft.target]
    claim = _claims(job, softs, movable)
    new = np.where(movable, 0, job.data)
    for number, soft in enumerate(softs):
        part, mine = new[soft.box], claim[soft.box] == number + 1
        part[mine] = soft.value
    return new


def _soften(job: Job, value: int, box: Region, mm: float, movable: NDArray[np.bool_]) -> _Soft:
    from scipy.ndimage import gaussian_filter

    sigma = [mm / s for s in job.grid.spacing]
    mask = job.data[box] == value
    # "nearest" continues the label beyond the edge of the scan, so it is not eaten away there.
    score = gaussian_filter((mask & movable).astype(np.float32), sigma, mode="nearest", truncate=4.0)
    if not movable.all():
        # What may not change says nothing: a border with it stays where it is, and needs no making up elsewhere.
        score /= np.maximum(gaussian_filter(movable.astype(np.float32), sigma, mode="nearest", truncate=4.0), 1e-3)
    # Where the blur is level the voxels that were in stay in; a slight slope breaks the ties of
    # symmetrical shapes, which would otherwise join or leave by the dozen.
    score += np.float32(1e-6) * mask
    for axis, slope in enumerate((1.0e-6, 1.7e-6, 2.3e-6)):
        side = np.linspace(0, slope, mask.shape[axis], dtype=np.float32)
        score += np.where(score > 0, side.reshape([-1 if n == axis else 1 for n in range(3)]), np.float32(0))
    return _Soft(value, box, score, int(np.count_nonzero(mask)))


def _claims(job: Job, softs: list[_Soft], movable: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give each movable voxel to a label (1, 2, … in the order of `softs`) or to nobody (0)."""
    empty = np.ones(job.data.shape, dtype=np.float32)
    for soft in softs:
        empty[soft.box] -= soft.score
    for _ in range(_SWEEPS if len(softs) > 1 else 1):
        worst = 0.0
        for soft in softs:
            worst = max(worst, _weigh(soft, softs, empty, movable))
        if worst < 0.002:
            break
    best = empty.copy()
    claim = np.zeros(job.data.shape, dtype=np.int32)
    for number, soft in enumerate(softs):
        strength = soft.score - np.float32(soft.handicap)
        wins = (strength > best[soft.box]) & movable[soft.box]
        best[soft.box][wins] = strength[wins]
        claim[soft.box][wins] = number + 1
    return claim


def _weigh(soft: _Soft, softs: list[_Soft], empty: NDArray[np.float32], movable: NDArray[np.bool_]) -> float:
    """Set the handicap with which a label wins its number of voxels; return the relative error before."""
    rival = empty[soft.box].copy()
    for other in softs:
        if other is not soft:
            here, there = _shared(soft.box, other.box)
            if here is not None:
                np.maximum(rival[here], other.score[there] - np.float32(other.handicap), out=rival[here])
    lead = (soft.score - rival)[movable[soft.box] & (soft.score > 0)]
    before = int(np.count_nonzero(lead > soft.handicap))
    if lead.size > soft.target:
        ends = np.partition(lead, (lead.size - soft.target - 1, lead.size - soft.target))
        soft.handicap = float(ends[lead.size - soft.target - 1] + ends[lead.size - soft.target]) / 2
    elif lead.size:
        soft.handicap = float(lead.min()) - 1.0
    return abs(before - soft.target) / soft.target


def _shared(a: Region, b: Region) -> tuple[Region, Region] | tuple[None, None]:
    """Return where two boxes overlap, as a region within each of them."""
    low = [max(x.start, y.start) for x, y in zip(a, b, strict=True)]
    high = [min(x.stop, y.stop) for x, y in zip(a, b, strict=True)]
    if any(start >= stop for start, stop in zip(low, high, strict=True)):
        return None, None
    here = tuple(slice(s - x.start, e - x.start) for s, e, x in zip(low, high, a, strict=True))
    there = tuple(slice(s - y.start, e - y.start) for s, e, y in zip(low, high, b, strict=True))
    return here, there  # type: ignore[return-value]
