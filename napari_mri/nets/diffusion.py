"""A 2-D U-Net that knows the noise level of its input, and the schedule it is trained and sampled with.

After SR3 (Saharia et al., 2021) as used by DDM² and Di-Fusion: residual blocks with group norm and Swish, a
sinusoidal embedding of the noise level added in every block, self-attention at the coarsest level.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def schedule(steps: int = 1000, calm: int = 300, low: float = 5e-5, high: float = 1e-2) -> torch.Tensor:
    """Cumulative products of 1 - beta, (steps + 1,) float64, the first 1: beta is `low` for `calm` steps, then rises."""
    beta = torch.full((steps,), low, dtype=torch.float64)
    beta[calm:] = torch.linspace(low, high, steps - calm, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])


class Block(nn.Module):
    """Residual block told the noise level."""

    def __init__(self, ins: int, outs: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(min(8, ins), ins), nn.SiLU(), nn.Conv2d(ins, outs, 3, padding=1))
        self.told = nn.Linear(told, outs)
        self.second = nn.Sequential(nn.GroupNorm(min(8, outs), outs), nn.SiLU(), nn.Conv2d(outs, outs, 3, padding=1))
        self.skip = nn.Conv2d(ins, outs, 1) if ins != outs else nn.Identity()

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(B, ins, I, J) and (B, told) to (B, outs, I, J)."""
        y = self.first(x) + self.told(level)[:, :, None, None]
        return self.skip(x) + self.second(y)


class Attention(nn.Module):
    """Self-attention over the pixels of a small map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(8, width), width)
        self.all = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, I, J) to the same."""
        q, k, v = self.all(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.out(mixed)


class LevelUNet(nn.Module):
    """U-Net from a noisy slice and sqrt of its cumulative alpha to a clean slice.

    Parameters
    ----------
    widths : tuple of int
        Channels per level, finest first.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        told = 4 * widths[0]
        self.told = nn.Sequential(nn.Linear(widths[0], told), nn.SiLU(), nn.Linear(told, told))
        self.multiple = 2 ** (len(widths) - 1)
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        before = widths[0]
        for width in widths:
            self.down.append(nn.ModuleList([Block(before, width, told), Block(width, width, told)]))
            before = width
        self.middle = nn.ModuleList([Block(before, before, told), Block(before, before, told)])
        self.look = Attention(before)
        for width in reversed(widths):
            self.up.append(nn.ModuleList([Block(before + width, width, told), Block(width, width, told)]))
            before = width
        self.head = nn.Sequential(nn.GroupNorm(min(8, before), before), nn.SiLU(), nn.Conv2d(before, 1, 3, padding=1))
        self.width = widths[0]

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J), sides multiples of `multiple`, and (B,) in 0..1, to (B, 1, I, J)."""
        half = self.width // 2
        rate = torch.exp(-math.log(1e4) * torch.arange(half, device=x.device) / half)
        wave = 5000 * (1 - level.float())[:, None] * rate
        told = self.told(torch.cat([wave.sin(), wave.cos()], 1))
        y, skips = self.stem(x), []
        for depth, (first, second) in enumerate(self.down):
            y = second(first(F.avg_pool2d(y, 2) if depth else y, told), told)
            skips.append(y)
        y = self.middle[1](self.look(self.middle[0](y, told)), told)
        for depth, (first, second) in enumerate(self.up):
            y = F.interpolate(y, scale_factor=2.0, mode="nearest") if depth else y
            y = second(first(torch.cat([y, skips[-1 - depth]], 1), told), told)
        return torch.as_tensor(self.head(y))
