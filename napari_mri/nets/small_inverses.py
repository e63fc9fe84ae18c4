"""Inverses of stacks of small positive matrices, for processor cores and for GPUs."""

from __future__ import annotations

import torch

LEAF = 11
"""Matrices of this size are swept, one row after the other; larger ones are halved."""


def by_cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Invert (B, n, n) positive matrices by their Cholesky factors: the quickest way on processor cores."""
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def by_triangles(matrix: torch.Tensor) -> torch.Tensor:
    """Invert (B, n, n) positive matrices by their Cholesky factors, in calls that a GPU takes for a whole stack."""
    # The checks of `cholesky` would wait for the GPU, and `cholesky_inverse` goes through the stack one by one there.
    factor = torch.linalg.cholesky_ex(matrix, check_errors=False).L
    unit = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    half = torch.linalg.solve_triangular(factor, unit, upper=False)
    return half.transpose(1, 2) @ half


def by_blocks(matrix: torch.Tensor) -> torch.Tensor:
    """Invert (B, n, n) positive matrices by halves: nothing but products of whole stacks, which suits a GPU."""
    half = _inverse_factor(matrix)
    return half.transpose(1, 2) @ half


def _inverse_factor(matrix: torch.Tensor) -> torch.Tensor:
    """Return the inverses of the Cholesky factors of (B, n, n) positive matrices.

    The inverse of the first half itself would be cheaper to go on with, and loses twice as many digits.
    """
    n = matrix.shape[1]
    if n <= LEAF:
        return _swept(matrix)
    half = n // 2
    first = _inverse_factor(matrix[:, :half, :half])
    below = matrix[:, half:, :half] @ first.transpose(1, 2)
    rest = _inverse_factor(torch.baddbmm(matrix[:, half:, half:], below, below.transpose(1, 2), alpha=-1))
    out = torch.zeros_like(matrix)
    out[:, :half, :half] = first
    out[:, half:, :half] = rest @ below @ first.neg()
    out[:, half:, half:] = rest
    return out


def _swept(matrix: torch.Tensor) -> torch.Tensor:
    """Do what `_inverse_factor` does by Gauss's elimination beside a unit matrix, one row of the whole stack at a time."""
    n = matrix.shape[1]
    both = torch.cat([matrix, torch.eye(n, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)], 2)
    for k in range(n - 1):
        share = both[:, k + 1 :, k] / both[:, k, k, None]
        both[:, k + 1 :].addcmul_(share[:, :, None], both[:, k, None, :], value=-1)
    return both[:, :, n:] * both.diagonal(dim1=1, dim2=2).rsqrt()[:, :, None]
