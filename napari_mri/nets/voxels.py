"""Voxel maps on any processor that torch runs on: what scipy does with arrays, done where the map already lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def uploaded(data: NDArray[Any], device: str) -> torch.Tensor:
    """Return an array (I, J, K) of any number type as float32 on a device, moved there as it lies in memory.

    A scan in another storage order is a view of the file's; turning it is quick on the device, and slow before.
    """
    flips = [axis for axis, step in enumerate(data.strides) if step < 0]
    plain = np.flip(data, flips)
    order = np.argsort([-abs(step) for step in plain.strides], kind="stable")
    plain = np.ascontiguousarray(plain.transpose(order))
    if plain.dtype not in (np.uint8, np.int16, np.int32, np.float32) or not plain.flags.writeable:
        plain = plain.astype(np.float32)
    values = torch.from_numpy(plain).to(device).float()
    return values.permute(*np.argsort(order).tolist()).flip(flips).contiguous()


def spread(values: torch.Tensor, matrices: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    """Apply one matrix (T, S) to each axis: any interpolation, average or blur along the axes, or several in a row.

    Parameters
    ----------
    values : Tensor, (S, S', S'')
    matrices : sequence of 3 ndarray

    Returns
    -------
    Tensor, (T, T', T'')
    """
    for matrix in matrices:
        # Only the planes that count; each step takes the first axis and puts it last.
        used = np.flatnonzero(matrix.any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        part = torch.from_numpy(np.ascontiguousarray(matrix[:, low:high])).to(values.device)
        values = torch.tensordot(values[low:high], part, dims=([0], [1]))
    return values.contiguous()


def extent(mask: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the first and last voxel (3,) of a mask (I, J, K) along each axis, or None if it is empty."""
    plane = mask.any(dim=2)
    lines = torch.cat([plane.any(dim=1), plane.any(dim=0), mask.any(dim=0).any(dim=0)]).cpu().numpy()
    parts = np.split(lines, np.cumsum(mask.shape)[:2])
    if not parts[0].any():
        return None
    ends = [np.flatnonzero(part)[[0, -1]] for part in parts]
    return np.array([e[0] for e in ends]), np.array([e[1] for e in ends])


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a mask; voxels that share a face are of one.

    Parameters
    ----------
    mask : Tensor of bool, (I, J, K)
    run : Tensor of int32, (I, J, K)
        To which run of voxels along the last axis each voxel of the mask belongs.
    first : Tensor of int64, (R,)
        The first run of the piece that each run belongs to: the number of the piece.
    sizes : Tensor of int64, (R,)
        Voxels of each piece by its number; 0 where none has that number.
    """

    mask: torch.Tensor
    run: torch.Tensor
    first: torch.Tensor
    sizes: torch.Tensor

    def at(self, part: tuple[slice, ...]) -> torch.Tensor:
        """Return the numbers of the pieces (V,) of those voxels of a part that are in the mask."""
        return self.first[self.run[part][self.mask[part]].long()]

    def chosen(self, keep: torch.Tensor) -> torch.Tensor:
        """Return the mask (I, J, K) of the pieces whose numbers are kept, (R,) bool."""
        if not len(keep):
            return self.mask
        return self.mask & keep[self.first].index_select(0, self.run.reshape(-1)).reshape(self.mask.shape)


def pieces(mask: torch.Tensor) -> Pieces:
    """Find the pieces of a mask (I, J, K).

    Every run points to one before it in its piece, and those to others, until all point to the first (FastSV,
    Zhang et al., 2020).
    """
    if mask.device.type == "mps":  # which lacks some of this
        found = pieces(mask.cpu())
        return Pieces(*(part.to(mask.device) for part in (mask, found.run, found.first, found.sizes)))
    begins, ends = mask.clone(), mask.clone()
    begins[..., 1:] &= ~mask[..., :-1]
    ends[..., :-1] &= ~mask[..., 1:]
    run = (begins.reshape(-1).cumsum(0, dtype=torch.int32) - 1).clamp(min=0).reshape(mask.shape)
    lengths = torch.nonzero(ends.reshape(-1))[:, 0] - torch.nonzero(begins.reshape(-1))[:, 0] + 1
    sides = [_neighbours(mask, run, axis) for axis in (0, 1)]
    one, other = (torch.cat([side[n] for side in sides]) for n in (0, 1))
    first = torch.arange(len(lengths), device=mask.device)
    while True:
        above = first[first]
        least = above.scatter_reduce(0, one, above[other], "amin").scatter_reduce(0, other, above[one], "amin")
        following = first.scatter_reduce(0, first, least, "amin").minimum(least)
        following = following[following]
        if torch.equal(following, first):
            return Pieces(mask, run, first, torch.zeros_like(first).scatter_add_(0, first, lengths))
        first = following


def _neighbours(mask: torch.Tensor, run: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the runs (E,) that lie beside one another along an axis, each pair once."""
    size = mask.shape[axis] - 1
    low, high = (slice(None),) * axis + (slice(0, size),), (slice(None),) * axis + (slice(1, None),)
    both = mask[low] & mask[high]
    begins = both.clone()
    begins[..., 1:] &= ~both[..., :-1]
    return run[low][begins].long(), run[high][begins].long()


def largest(mask: torch.Tensor) -> torch.Tensor:
    """Return the largest piece of a mask (I, J, K), without holes."""
    span = extent(mask)
    if span is None:
        return mask
    part = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
    found = pieces(mask[part])
    numbers = torch.arange(len(found.sizes), device=mask.device)
    main = found.chosen(numbers == found.sizes.argmax())
    outside = pieces(torch.nn.functional.pad((~main).to(torch.uint8), (1,) * 6, value=1).bool())
    whole = torch.zeros_like(mask)
    # What is outside begins with the first voxel of the rim.
    whole[part] = ~outside.chosen(torch.arange(len(outside.sizes), device=mask.device) == 0)[1:-1, 1:-1, 1:-1]
    return whole


def away(mask: torch.Tensor, most: int) -> torch.Tensor:
    """Return how far each voxel is from a mask (I, J, K), in voxels: right below `most + 1`, and no less beyond."""
    far = float((most + 1) ** 2)
    square = torch.where(mask, 0.0, far)
    for axis in range(3):
        best = square.clone()
        for step in range(1, min(most, mask.shape[axis] - 1) + 1):
            size = mask.shape[axis] - step
            for to, source in ((step, 0), (0, step)):
                part = best.narrow(axis, to, size)
                part.copy_(torch.minimum(part, square.narrow(axis, source, size) + float(step * step)))
        square = best
    return square.sqrt()
