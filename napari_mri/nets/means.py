"""Means around each voxel of a volume, axis by axis; the border's voxels go on beyond it."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def padded(image: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Repeat the border's voxels, so many times before and after along each axis of (I, J, K)."""
    return F.pad(image[None, None], (before, after) * 3, mode="replicate")[0, 0]


def averaged(image: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """Weighted sum over the cube around each voxel; an odd number of weights, those of 0 cost nothing."""
    out = padded(image, len(weights) // 2, len(weights) // 2)
    for axis in range(3):
        long = out.shape[axis] - len(weights) + 1
        first, *rest = ((out.narrow(axis, k, long), weight) for k, weight in enumerate(weights) if weight)
        out = first[0] * first[1]
        for part, weight in rest:
            out.add_(part, alpha=weight)
    return out


def mean(image: torch.Tensor, side: int) -> torch.Tensor:
    """Mean over the `side`-cube around each voxel."""
    return averaged(image, [1 / side] * side)


def mean_of_nine(image: torch.Tensor) -> torch.Tensor:
    """Mean over the cube of nine voxels a side around each voxel: the mean of means over three, three apart."""
    third = 1 / 3
    return averaged(mean(image, 3), [third, 0.0, 0.0, third, 0.0, 0.0, third])


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur by a Gaussian of two voxels' reach."""
    kernel = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-2, 3)]
    return averaged(image, [weight / sum(kernel) for weight in kernel])
