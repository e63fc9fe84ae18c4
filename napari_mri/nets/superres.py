"""A 3-D residual net that tells what lies within thick slices, for any distance and thickness of the slices.

It works on the grid of the thick slices, which is small, and answers `PARTS` values a voxel: what the parts of a
slice, from its lower to its upper face, have more than the cubic spline says. Any finer grid is read from them.
No layer has a bias and the first one sees differences only: twice the brightness gives twice the answer and a
constant adds nothing. So the net needs no normalisation, and a tile gives what the whole scan would.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from napari_mri.nets.convolution import Conv3d
from napari_mri.nets.half import half_precision

PARTS = 8
"""Into how many parts a slice is told."""
FACTS = 5
"""Numbers that describe the slices (see `facts`)."""


def facts(distance: float, thickness: float, gaussian: bool) -> list[float]:
    """Return what the net is told of the slices, each about 0 to 1.5.

    Parameters
    ----------
    distance : float
        From slice to slice, in voxels of the plane.
    thickness : float
        In voxels of the plane.
    gaussian : bool
        Whether the profile is Gaussian, its full width at half maximum the thickness; else a box.
    """
    distance = max(distance, 1.0)
    return [
        float(torch.tensor(distance).log2()) / 3,
        1 / distance,
        thickness / 8,
        thickness / distance,
        float(gaussian),
    ]


class Differences(nn.Conv3d):
    """A 3 x 3 x 3 convolution whose kernels sum to zero; the border goes on outside."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__(ins, outs, 3, padding=1, padding_mode="replicate", bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, K, I, J) to (B, outs, K, I, J)."""
        # In half precision a kernel would not sum to zero, and brightness would leak in.
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True)
            wide = F.pad(x.float(), (1, 1, 1, 1, 1, 1), mode="replicate")
            # A GPU's convolution rounds float32 to 11 bits, and its product of matrices does not.
            return as_product(wide, kernel) if x.is_cuda else F.conv3d(wide, kernel)


def as_product(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return a 3 x 3 x 3 convolution as one product of matrices: (B, ins, K + 2, I + 2, J + 2) to (B, outs, K, I, J)."""
    around = x.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)  # (B, ins, K, I, J, 3, 3, 3)
    return torch.tensordot(around, kernel, dims=((1, 5, 6, 7), (1, 2, 3, 4))).movedim(-1, 1)


class Told(nn.Module):
    """Two convolutions, the channels between them weighed by what is known of the slices, added to the input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = Conv3d(width, width, 3, padding=1, bias=False)
        self.second = Conv3d(width, width, 3, padding=1, bias=False)
        self.weigh = nn.Linear(hidden, width)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """(B, width, K, i, j) and (B, hidden) to (B, width, K, i, j)."""
        weight = (1 + self.weigh(known))[:, :, None, None, None]
        return x + self.second(F.relu(self.first(x)) * weight)


class SliceNet(nn.Module):
    """What the parts of thick slices differ by from the cubic spline.

    Parameters
    ----------
    width : int
        Channels.
    depth : int
        Residual blocks.

    Notes
    -----
    The plane is folded: 2 x 2 voxels are one place with four channels. Its sides must be multiples of `multiple`.
    """

    multiple = 2

    def __init__(self, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.known = nn.Sequential(nn.Linear(FACTS, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.stem = Differences(4, width)
        self.blocks = nn.ModuleList([Told(width, 32) for _ in range(depth)])
        self.weigh = nn.Linear(32, width)
        self.head = Conv3d(width, 4 * PARTS, 3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, scan: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Tell the parts of every slice.

        Parameters
        ----------
        scan : torch.Tensor
            (B, 1, K, I, J), K the slices; any scale.
        told : torch.Tensor
            (B, `FACTS`), see `facts`.

        Returns
        -------
        torch.Tensor
            (B, `PARTS`, K, I, J): to be added to the spline, lowest part first.
        """
        known = self.known(told)
        x = F.pixel_unshuffle(scan.transpose(1, 2), 2).transpose(1, 2)  # (B, 4, K, I/2, J/2)
        x = self.stem(x.contiguous(memory_format=torch.channels_last_3d))
        for block in self.blocks:
            x = block(x, known)
        x = self.head(x * (1 + self.weigh(known))[:, :, None, None, None])
        return F.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2)


class Informed(nn.Module):
    """A `SliceNet` that knows its slices, in half precision on a GPU and where a processor is quick with it.

    Parameters
    ----------
    net : SliceNet
    told : list of float
        Of length `FACTS`.
    half : bool
        Whether this processor is quick in bfloat16.
    """

    def __init__(self, net: SliceNet, told: list[float], half: bool = False) -> None:
        super().__init__()
        self.net, self.told, self.half_is_quick = net, told, half

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        """(B, 1, K, I, J) to (B, `PARTS`, K, I, J)."""
        told = torch.tensor([self.told] * len(scan), device=scan.device)
        with half_precision(scan.device, self.half_is_quick):
            return self.net(scan, told).float()


def turned(stack: torch.Tensor, number: int) -> torch.Tensor:
    """Return variant 0 to 3 of (slices, i, j): as it is, all mirrored, i and j exchanged, both."""
    stack = stack.flip(0, 1, 2) if number % 2 else stack
    return stack.transpose(1, 2) if number >= 2 else stack


def turned_back(parts: torch.Tensor, number: int) -> torch.Tensor:
    """Undo `turned` on (parts, slices, i, j), lowest part first."""
    parts = parts.transpose(2, 3) if number >= 2 else parts
    return parts.flip(0, 1, 2, 3) if number % 2 else parts


def from_state(state: dict[str, torch.Tensor]) -> SliceNet:
    """Build the `SliceNet` a state dict belongs to: its width and depth are read from the tensors."""
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    net = SliceNet(int(state["stem.weight"].shape[0]), depth)
    net.load_state_dict(state)
    return net
