"""The sums of `measure.consistency` on tensors of any device: sampling as the scanner does, and its inverse.

In full float32: a correction in fewer digits would no longer give the scan back.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Lines = tuple[torch.Tensor | None, ...]
"""For each axis a (new, old) matrix of float32; None leaves the axis as it is."""


def lines_on(device: str, matrices: tuple[NDArray[np.float64] | None, ...]) -> Lines:
    """Bring one matrix an axis to a device, in float32."""
    return tuple(None if m is None else torch.from_numpy(m.astype(np.float32)).to(device) for m in matrices)


def along_axes(data: torch.Tensor, matrices: Lines) -> torch.Tensor:
    """Apply one matrix along each axis of (I, J, K); see `measure.consistency.along_axes`."""
    # The axes that shrink first: the others then have less to do.
    order = sorted(range(3), key=lambda a: 1.0 if (m := matrices[a]) is None else m.shape[0] / m.shape[1])
    for axis in order:
        matrix = matrices[axis]
        if matrix is not None:
            first = data.movedim(axis, 0)
            lines = matrix @ first.reshape(len(first), -1)
            data = lines.reshape(-1, *first.shape[1:]).movedim(0, axis)
    return data


def corrected(data: torch.Tensor, measured: torch.Tensor, sample: Lines, spread: Lines) -> torch.Tensor:
    """Return the fine voxels nearest to the given ones that the scan could have been measured from.

    Parameters
    ----------
    data : torch.Tensor
        Fine voxels, (I, J, K).
    measured : torch.Tensor
        The scan, (i, j, k).
    sample, spread : Lines
        From fine voxels to the scan; a difference in the scan back to fine voxels (`Slicing.spread`).
    """
    return data + along_axes(measured - along_axes(data, sample), spread)


def scaled(data: torch.Tensor, measured: torch.Tensor, sample: Lines, rounds: int = 4) -> torch.Tensor:
    """Return fine voxels brought nearer to the scan by factors; see `measure.consistency.Slicing.scaled`.

    Parameters
    ----------
    data, measured : torch.Tensor
        Fine voxels and the scan, nowhere negative.
    sample : Lines
        From fine voxels to the scan.
    rounds : int
        At most.
    """
    back = tuple(None if m is None else m.T for m in sample)
    share = along_axes(torch.ones_like(measured), back)
    peak = measured.max()
    for _ in range(rounds):
        sampled = along_axes(data, sample)
        if bool((measured - sampled).abs().max() <= 1e-4 * peak):
            break
        data = data * factors(measured, sampled, back, share)
    return data


def factors(measured: torch.Tensor, sampled: torch.Tensor, back: Lines, share: torch.Tensor) -> torch.Tensor:
    """Return what each fine voxel is multiplied by in one round of `scaled`; 1 where the scan sees nothing of it."""
    tiny = 1e-6 * measured.max().clamp_min(1e-12)
    there = along_axes((measured + tiny) / (sampled + tiny), back)
    seen = share > 1e-3 * share.max()
    return torch.where(seen, there / share, torch.ones_like(share))
