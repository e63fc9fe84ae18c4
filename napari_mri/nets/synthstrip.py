"""SynthStrip's network, so that the official file can be loaded.

Architecture after Hoopes et al., "SynthStrip: skull-stripping for any brain image", NeuroImage 2022.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

ENCODER = (16, 32, 64, 64, 64, 64, 64)
DECODER = (64, 64, 64, 64, 64, 32)
LAST = (16, 16)


class _Conv(nn.Module):
    """A 3 x 3 x 3 convolution with bias, and LeakyReLU unless it is the last."""

    def __init__(self, ins: int, outs: int, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(ins, outs, 3, padding=1)
        self.active = active

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, I, J, K) to (B, outs, I, J, K)."""
        x = self.conv(x)
        return F.leaky_relu(x, 0.2) if self.active else x


class SynthStrip(nn.Module):
    """U-Net of seven levels without norms; sides must be multiples of 64."""

    multiple = 64

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        ins, skips = 1, []
        for width in ENCODER[:-1]:
            self.encoder.append(nn.ModuleList([_Conv(ins, width), _Conv(width, width)]))
            skips.append(width)
            ins = width
        for width in DECODER:
            self.decoder.append(nn.ModuleList([_Conv(ins, width), _Conv(width, width)]))
            ins = width + skips.pop()
        widths = (*LAST, 1)
        self.remaining = nn.ModuleList()
        for number, width in enumerate(widths):
            self.remaining.append(_Conv(ins, width, active=number + 1 < len(widths)))
            ins = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) in 0..1, LIA order at 1 mm, to (B, 1, I, J, K) signed distance in mm."""
        skips = []
        for level in self.encoder:
            for conv in level:
                x = conv(x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        for level in self.decoder:
            for conv in level:
                x = conv(x)
            x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], dim=1)
        for conv in self.remaining:
            x = conv(x)
        return x
