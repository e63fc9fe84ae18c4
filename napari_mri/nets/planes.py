"""A small net on planes of coarse rows and columns: from each coarse pixel to several finer ones."""

from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Leaky: within a minute of learning, units that fall silent do not come back.
        return x + self.second(nn.functional.leaky_relu(self.first(x), 0.1))


class PlaneNet(nn.Module):
    """What the interpolation of a coarse plane lacks of the finer one.

    It works at the coarse rate and gives the finer rows and columns of a pixel at the end: as many times cheaper
    than a net on the finer plane, and each of these knows where in its coarse pixel it stands. Without biases:
    twice as bright a plane lacks twice as much, so that no scale of intensities has to be agreed on.

    Parameters
    ----------
    parts : (int, int)
        Finer rows a row, and finer columns a column: (4, 1) for slices four times as thick as voxels are wide.
    width : int
        Features.
    blocks : int
        Residual blocks of two convolutions.
    """

    def __init__(self, parts: tuple[int, int], width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.parts = parts
        self.head = nn.Conv2d(1, width, 3, padding=1, padding_mode="replicate", bias=False)
        self.trunk = nn.Sequential(*[_Block(width) for _ in range(blocks)])
        self.tail = nn.Conv2d(width, parts[0] * parts[1], 3, padding=1, bias=False)
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the finer plane minus its interpolation.

        Parameters
        ----------
        x : torch.Tensor, (B, 1, S, W)
            Intensities of about 0 to 1.

        Returns
        -------
        torch.Tensor, (B, 1, S * parts[0], W * parts[1])
        """
        rows = self.tail(nn.functional.leaky_relu(self.trunk(self.head(x)), 0.1))
        (batch, _, slices, wide), (a, b) = rows.shape, self.parts
        return rows.reshape(batch, a, b, slices, wide).permute(0, 3, 1, 4, 2).reshape(batch, 1, slices * a, wide * b)
