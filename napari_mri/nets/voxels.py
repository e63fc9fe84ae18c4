"""Voxel maps on any processor that torch runs on: what scipy does with arrays, done where the map already lies."""

from __future__ import annotations

from collections.abc import Sequence
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


def pieces(mask: torch.Tensor) -> torch.Tensor:
    """Return the pieces of a mask by number; voxels that share a face are of one piece.

    Every voxel points to one before it in its piece, and those to others, until all point to the first (FastSV,
    Zhang et al., 2020).

    Parameters
    ----------
    mask : Tensor of bool, (I, J, K)

    Returns
    -------
    Tensor of int64, (I, J, K)
        The flat index of the first voxel of the piece; the number of all voxels outside of the mask.
    """
    if mask.device.type == "mps":  # which lacks some of this
        return pieces(mask.cpu()).to(mask.device)
    count = mask.numel()
    number = torch.arange(count, device=mask.device).reshape(mask.shape)
    # Runs along the last axis first: they leave little to be found.
    begins = mask.clone()
    begins[..., 1:] &= ~mask[..., :-1]
    first = torch.where(begins, number, 0).cummax(dim=-1).values
    last = torch.full((1,), count, device=mask.device)
    parent = torch.cat([torch.where(mask, first, count).reshape(-1), last])
    while True:
        above = parent[parent]
        seen = above[:-1].reshape(mask.shape)
        least = seen.clone()
        for axis in range(3):
            size = mask.shape[axis] - 1
            for to, source in ((1, 0), (0, 1)):
                part = least.narrow(axis, to, size)
                part.copy_(torch.minimum(part, seen.narrow(axis, source, size)))
        least = torch.cat([torch.where(mask, least, count).reshape(-1), last])
        following = parent.scatter_reduce(0, parent, least, "amin").minimum(least).minimum(above)
        following = following[following]
        if torch.equal(following, parent):
            return parent[:-1].reshape(mask.shape)
        parent = following


def sizes(found: torch.Tensor) -> torch.Tensor:
    """Return the voxels of each piece that `pieces` found, (V,), by their numbers."""
    flat = found.reshape(-1)
    counts = torch.zeros(len(flat) + 1, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))[:-1]


def largest(mask: torch.Tensor) -> torch.Tensor:
    """Return the largest piece of a mask (I, J, K), without holes."""
    span = extent(mask)
    if span is None:
        return mask
    part = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
    found = pieces(mask[part])
    main = found == sizes(found).argmax()
    around = torch.nn.functional.pad((~main).to(torch.uint8), (1,) * 6, value=1).bool()
    whole = torch.zeros_like(mask)
    # What is outside begins with the first voxel of the rim.
    whole[part] = (pieces(around) != 0)[1:-1, 1:-1, 1:-1]
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
