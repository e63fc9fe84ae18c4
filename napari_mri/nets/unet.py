"""A small residual 3-D U-Net that works on blocks of voxels, quick on a CPU.

The image is folded first: each 2 x 2 x 2 block becomes eight channels, and the answer is unfolded the same
way. A distance map is smooth, so the full grid need never be convolved, which is where a plain U-Net
spends most of its time.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from napari_mri.nets.convolution import Conv3d


def fold(x: torch.Tensor, block: int = 2) -> torch.Tensor:
    """(B, C, I, J, K) to (B, C * block^3, I / block, J / block, K / block)."""
    b, c, i, j, k = x.shape
    x = x.reshape(b, c, i // block, block, j // block, block, k // block, block)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * block**3, i // block, j // block, k // block)


def unfold(x: torch.Tensor, block: int = 2) -> torch.Tensor:
    """Undo `fold`."""
    b, c, i, j, k = x.shape
    x = x.reshape(b, c // block**3, block, block, block, i, j, k)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // block**3, i * block, j * block, k * block)


class Block(nn.Module):
    """Convolution, group norm, LeakyReLU; adds its input when the width does not change."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv3d(ins, outs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(max(1, outs // 8), outs)
        self.adds = stride == 1 and ins == outs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, I, J, K) to (B, outs, I / stride, J / stride, K / stride)."""
        y = F.leaky_relu(self.norm(self.conv(x)), 0.1)
        return x + y if self.adds else y


class FoldedUNet(nn.Module):
    """Residual U-Net on folded voxels: its trunk, and a first answer that `nets.anatomy.HeadNet` adds others to.

    Parameters
    ----------
    ins, outs : int
        Channels of the image and of the answer.
    widths : tuple of int
        Channels per level, finest first; every level halves the grid.
    depths : tuple of int
        Blocks per level on the way down; each level has one more on the way up.

    Notes
    -----
    Sides of the input must be multiples of `multiple`.
    """

    def __init__(
        self,
        ins: int = 1,
        outs: int = 2,
        widths: tuple[int, ...] = (32, 64, 112, 128),
        depths: tuple[int, ...] = (1, 1, 2, 2),
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = Block(8 * ins, widths[0])
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.widen = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(nn.Sequential(*[Block(width, width) for _ in range(depths[level])]))
            if level + 1 < len(widths):
                self.shrink.append(Block(width, widths[level + 1], stride=2))
                self.widen.append(Conv3d(widths[level + 1], width, 1))
                self.up.append(Block(width, width))
        self.head = Conv3d(widths[0], 8 * outs, 3, padding=1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, I, J, K) to (B, widths[0], I / 2, J / 2, K / 2)."""
        x = self.stem(fold(x).contiguous(memory_format=torch.channels_last_3d))
        skips = []
        for level, down in enumerate(self.down):
            x = down(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.shrink))):
            x = self.widen[level](x)
            x = self.up[level](F.interpolate(x, scale_factor=2.0, mode="nearest") + skips[level])
        return x
