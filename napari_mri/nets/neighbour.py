"""A small 3-D net that guesses one frame of a series from its neighbours among the frames."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Neighbours(nn.Module):
    """Weighted mean of the neighbours, corrected by convolutions.

    Parameters
    ----------
    frames : int
        Number of neighbours, the nearest first.
    width : int
    layers : int
        Hidden 3 x 3 x 3 layers.
    """

    def __init__(self, frames: int, width: int = 24, layers: int = 3) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(frames))
        self.stem = nn.Conv3d(frames + 1, width, 3, padding=1)
        self.hidden = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1) for _ in range(layers))
        self.head = nn.Conv3d(width, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, near: torch.Tensor) -> torch.Tensor:
        """(B, frames, I, J, K) neighbours to (B, 1, I, J, K), a guess of the frame between them."""
        share = torch.softmax(self.mean, 0)[None, :, None, None, None]
        mean = (near * share).sum(1, keepdim=True)
        x = F.leaky_relu(self.stem(torch.cat([near - mean, mean], 1)), 0.1)
        for layer in self.hidden:
            x = x + F.leaky_relu(layer(x), 0.1)
        return mean + self.head(x)
