"""One continuous function of the place in the patient for several contrasts: Fourier features, a trunk, a head each."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn


class FourierField(nn.Module):
    """Intensities at points.

    Parameters
    ----------
    contrasts : int
        Heads.
    scale : float
        Standard deviation of the random frequencies, for coordinates from -1 to 1. Beyond what the slices
        resolve the field invents waves; far below it, the field is blurred.
    width : int
        Of the trunk.
    depth : int
        Its hidden layers.
    waves : int
        Random frequencies; sine and cosine of each go in.
    seed : int
    """

    waves: torch.Tensor

    def __init__(
        self, contrasts: int, scale: float, *, width: int = 128, depth: int = 3, waves: int = 96, seed: int = 0
    ) -> None:
        super().__init__()
        gen = torch.Generator().manual_seed(seed)
        # A part of the state, for weights without their frequencies say nothing.
        self.register_buffer("waves", torch.randn(3, waves, generator=gen) * (2 * math.pi * scale))
        sizes = [2 * waves, *[width] * depth]
        self.trunk = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, 1)) for _ in range(contrasts)
        )

    def shared(self, places: torch.Tensor) -> torch.Tensor:
        """Return the trunk's features of places (N, 3), -1 to 1."""
        with torch.autocast(places.device.type, enabled=False):  # phases need all their digits
            phase = places.float() @ self.waves
            x = torch.cat([phase.sin(), phase.cos()], dim=1)
        for layer in self.trunk:
            x = torch.relu(layer(x))
        return x

    def forward(self, places: torch.Tensor, contrast: int) -> torch.Tensor:
        """Return the intensity of one contrast at places (N, 3), -1 to 1; (N,)."""
        return self.heads[contrast](self.shared(places))[:, 0]
