"""A small 3-D net that corrects one cleaned volume, seeing the noisy one beside it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

FAINT = 1.5
"""Signal above the noise floor, in deviations of the noise, below which stabilised noise is not Gaussian."""


class Corrected(nn.Module):
    """The cleaned volume, and what convolutions find to be missing from it or left in it.

    Parameters
    ----------
    width : int
    layers : int
        Hidden 3 x 3 x 3 layers, each added to what came before.
    floor : float, optional
        What pure background averages to; nothing is corrected that is hardly above it.

    Notes
    -----
    Before any training the answer is the cleaned volume itself.
    """

    def __init__(self, width: int = 24, layers: int = 3, floor: float | None = None) -> None:
        super().__init__()
        self.floor = floor
        self.stem = nn.Conv3d(3, width, 3, padding=1)
        self.hidden = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1) for _ in range(layers))
        self.head = nn.Conv3d(width, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """(B, 2, I, J, K) noisy and cleaned, noise of unit variance, to (B, 1, I, J, K)."""
        noisy, clean = pair[:, :1], pair[:, 1:]
        around = F.avg_pool3d(clean, 5, 1, 2, count_include_pad=False)
        x = F.leaky_relu(self.stem(torch.cat([noisy - clean, clean - around, 0.05 * around], 1)), 0.1)
        for layer in self.hidden:
            x = x + F.leaky_relu(layer(x), 0.1)
        return clean + self.share(clean) * self.head(x)

    def share(self, clean: torch.Tensor) -> torch.Tensor:
        """Return how much each voxel may be corrected, 0 to 1: not at all where noise is not Gaussian."""
        if self.floor is None:
            return torch.ones_like(clean)
        return ((clean - self.floor - FAINT) / FAINT).clamp(0, 1)
