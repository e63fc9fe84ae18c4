"""A 3-D residual U-Net that predicts the noise of a scan from the scan and a map of the noise level.

The net sees the scan in units of its noise: detail against the local mean, softly limited so that strong edges do
not drown the rest, and the local signal-to-noise ratio. What it takes away is held within a few standard
deviations. So noise looks the same to it at every level, twice the brightness with twice the noise gives twice the
answer, and where there is no noise nothing changes. There is no normalisation layer: a tile gives what the whole
volume would. The scan is folded first (2 x 2 x 2 voxels become channels), which is where the speed comes from.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from napari_mri.nets.convolution import Conv3d
from napari_mri.nets.unet import fold, unfold

MOST = 5.0
"""No noise sample is taken to be larger than this many standard deviations."""
EDGE = 15.0
"""Detail stronger than this many standard deviations is an edge, however strong it is."""


class Residual(nn.Module):
    """Two convolutions whose result is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv3d(width, width, 3, padding=1, bias=False)
        self.second = Conv3d(width, width, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, I, J, K) to the same."""
        return x + self.second(F.relu(self.first(x)))


class Trunk(nn.Module):
    """A residual U-Net without normalisation, on folded voxels: what the nets against noise have in common.

    Parameters
    ----------
    ins : int
        Channels of the folded input.
    widths : tuple of int
        Channels per level, finest (two voxels) first; every level halves the grid.
    depths : tuple of int
        Residual blocks per level, on the way down and again on the way up (once at the coarsest).

    Notes
    -----
    Sides must be multiples of `multiple`. The last layer begins at zero.
    """

    def __init__(self, ins: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths, self.depths = tuple(widths), tuple(depths)
        self.multiple = 2 ** len(widths)
        self.stem = Conv3d(ins, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.widen, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(nn.Sequential(*[Residual(width) for _ in range(depths[level])]))
            if level + 1 < len(widths):
                self.shrink.append(Conv3d(width, widths[level + 1], 2, stride=2, bias=False))
                self.widen.append(Conv3d(widths[level + 1], width, 1, bias=False))
                self.up.append(nn.Sequential(*[Residual(width) for _ in range(depths[level])]))
        self.head = Conv3d(widths[0], 8, 3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, I/2, J/2, K/2) to (B, 1, I, J, K)."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last_3d))
        skips = []
        for depth, down in enumerate(self.down):
            x = down(x)
            if depth < len(self.shrink):
                skips.append(x)
                x = self.shrink[depth](x)
        for depth in reversed(range(len(self.shrink))):
            wide = F.interpolate(self.widen[depth](x), scale_factor=2.0, mode="nearest")
            x = self.up[depth](wide + skips[depth])
        return unfold(self.head(x))


class Denoiser(Trunk):
    """Noise-level-aware denoiser.

    Parameters
    ----------
    widths, depths : tuple of int
        See `Trunk`.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), depths: tuple[int, ...] = (1, 1, 2)) -> None:
        super().__init__(11, widths, depths)

    def forward(self, scan: torch.Tensor, sigma: torch.Tensor, rician: torch.Tensor) -> torch.Tensor:
        """Denoise.

        Parameters
        ----------
        scan : torch.Tensor
            (B, 1, I, J, K), scaled so that bright tissue is about 1.
        sigma : torch.Tensor
            (B, 1, I, J, K), standard deviation of the noise in each (complex) channel, in the scan's scale.
        rician : torch.Tensor
            (B, 1, 1, 1, 1): 1 where the scan is a magnitude, 0 where its noise is Gaussian.

        Returns
        -------
        torch.Tensor
            (B, 1, I, J, K), the noise-free signal.
        """
        level = F.avg_pool3d(sigma, 2).clamp(min=1e-6)
        mean = F.interpolate(F.avg_pool3d(scan, 8), scale_factor=4.0, mode="trilinear")
        detail = (fold(scan) - mean) / level
        detail = detail / torch.sqrt(1 + (detail / EDGE) ** 2)
        ratio = (mean / level).clamp(min=0)
        weak = 2 / (1 + ratio)
        x = torch.cat([detail, 0.5 * torch.log1p(ratio), weak, weak * rician], 1)
        noise = self.trunk(x).to(scan.dtype)
        return scan - MOST * sigma * torch.tanh(noise / MOST)


class Told(nn.Module):
    """A `Denoiser` that takes scan and noise map as two channels, in half precision on a GPU.

    Parameters
    ----------
    net : Denoiser
    rician : bool
    """

    def __init__(self, net: Denoiser, rician: bool) -> None:
        super().__init__()
        self.net, self.rician = net, float(rician)

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """(B, 2, I, J, K) scan and sigma to (B, 1, I, J, K)."""
        kind = torch.full((len(pair), 1, 1, 1, 1), self.rician, device=pair.device)
        half = torch.bfloat16 if pair.device.type == "cuda" else None
        with torch.autocast(pair.device.type, half, enabled=half is not None):
            return self.net(pair[:, :1], pair[:, 1:], kind)


def from_state(state: dict[str, torch.Tensor]) -> Denoiser:
    """Build the `Denoiser` a state dict belongs to: its widths and depths are read from the tensors."""
    net = Denoiser(*sizes(state))
    net.load_state_dict(state)
    return net


def sizes(state: dict[str, torch.Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths and depths of the `Trunk` a state dict belongs to."""
    levels = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("down."))
    widths = [int(state["stem.weight"].shape[0])]
    widths += [int(state[f"shrink.{level}.weight"].shape[0]) for level in range(levels - 1)]
    depths = [
        1 + max(int(name.split(".")[2]) for name in state if name.startswith(f"down.{level}."))
        for level in range(levels)
    ]
    return tuple(widths), tuple(depths)
