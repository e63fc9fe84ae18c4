"""A residual-in-residual dense net that tells what lies within voxels halved along every axis, and leaves noise out.

It works on the grid of the scan and answers eight values a voxel, one for each of its halves: what they differ by
from the cubic spline. The level of the noise goes in as a channel of its own and no layer has a bias, so twice the
brightness with twice the noise gives twice the answer: no normalisation is needed, and a tile gives what the whole
scan would.

References
----------
Wang et al., ESRGAN, ECCV workshops 2018 (residual-in-residual dense blocks). Wang et al., DISGAN, arXiv:2307.04321,
and Vassileva et al., three-player GAN, arXiv:2303.13900 (isotropic refining of MR volumes). Shi et al., CVPR 2016
(answers folded into channels).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from napari_mri.nets.convolution import Conv3d
from napari_mri.nets.half import half_precision

SLOPE = 0.2


class Dense(nn.Module):
    """Convolutions that each see all that those before them found; the last one's answer is added to the input."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.grow = nn.ModuleList([Conv3d(width + n * growth, growth, 3, padding=1, bias=False) for n in range(layers)])
        self.fuse = Conv3d(width + layers * growth, width, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, I, J, K) to the same."""
        seen = x
        for conv in self.grow:
            seen = torch.cat([seen, F.leaky_relu(conv(seen), SLOPE)], 1)
        return x + self.fuse(seen)


class Group(nn.Module):
    """Dense blocks in a row, whose sum is added to the input: the residual around residuals."""

    def __init__(self, width: int, growth: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Dense(width, growth, layers) for _ in range(blocks)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, I, J, K) to the same."""
        y = x
        for block in self.blocks:
            y = block(y)
        return x + y


class HalvingNet(nn.Module):
    """What the eight halves of every voxel differ by from the cubic spline.

    Parameters
    ----------
    width, growth : int
        Channels that are carried along, and that every convolution of a dense block adds.
    layers : int
        Convolutions of a dense block before the one that fuses them.
    blocks, groups : int
        Dense blocks of a group, and groups.
    """

    def __init__(self, width: int = 32, growth: int = 32, layers: int = 2, blocks: int = 3, groups: int = 1) -> None:
        super().__init__()
        self.size = (width, growth, layers, blocks, groups)
        self.stem = Conv3d(3, width, 3, padding=1, bias=False)
        self.groups = nn.ModuleList([Group(width, growth, layers, blocks) for _ in range(groups)])
        self.head = Conv3d(width, 8, 3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, scan: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Tell the halves of every voxel.

        Parameters
        ----------
        scan : torch.Tensor
            (B, 1, I, J, K), any scale.
        sigma : torch.Tensor
            (B, 1, 1, 1, 1) or (B, 1, I, J, K): standard deviation of the noise in each complex channel, in the
            scale of the scan; 0 keeps all.

        Returns
        -------
        torch.Tensor
            (B, 8, I, J, K), to be added to the spline's halves; `unfold` lays them out on the finer grid.
        """
        mean = scan
        for axis in range(3):
            size, pad = [1, 1, 1], [0, 0, 0]
            size[axis], pad[axis] = 5, 2
            mean = F.avg_pool3d(mean, size, 1, pad, count_include_pad=False)
        x = torch.cat([scan - mean, 0.2 * mean, 2 * sigma.expand_as(scan)], 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last_3d))
        for group in self.groups:
            x = group(x)
        return self.head(x)


class Halved(nn.Module):
    """A `HalvingNet` that takes scan and noise as two channels, in half precision on a GPU and where a processor is quick with it.

    Parameters
    ----------
    net : HalvingNet
    half : bool
        Whether this processor is quick in bfloat16.
    """

    def __init__(self, net: HalvingNet, half: bool = False) -> None:
        super().__init__()
        self.net, self.half_is_quick = net, half

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """(B, 2, I, J, K) to (B, 8, I, J, K)."""
        with half_precision(pair.device, self.half_is_quick):
            return self.net(pair[:, :1], pair[:, 1:]).float()


def from_state(state: dict[str, torch.Tensor]) -> HalvingNet:
    """Build the `HalvingNet` a state dict belongs to: its size is read from the names and shapes of the tensors."""

    def most(prefix: str) -> int:
        return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix))

    growth, width = state["groups.0.blocks.0.grow.0.weight"].shape[:2]
    layers, blocks = most("groups.0.blocks.0.grow."), most("groups.0.blocks.")
    net = HalvingNet(int(width), int(growth), layers, blocks, most("groups."))
    net.load_state_dict(state)
    return net
