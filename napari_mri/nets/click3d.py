"""The promptable network: a folded 3-D U-Net that reads an image crop, what was pointed at, and the mask so far.

One set of weights works at every zoom: on the whole field of view at some millimetres a voxel and on a crop
around the object at its native spacing. What was clicked is told three ways: where (distance to the nearest
mark), how bright (likeness to the intensity under the marks) and how large a voxel is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from napari_mri.nets import geodesic
from napari_mri.nets.convolution import Conv3d
from napari_mri.nets.unet import Block, fold, unfold

FINE = 5
"""Channels at full resolution: image, mask so far, likeness to the marks, geodesic nearness, nearer than outside."""
COARSE = 10
"""Channels at half resolution: near and far inside, near and far outside, box, three flags, zoom, likeness outside."""
MENDED = FINE + 1
"""Channels at full resolution that a `Mender` is told: one more, what new marks have turned by rule."""
SURE = 0.98
"""A `Mender` takes nothing that is known for surer than this, 0 (not at all) to 1."""
TONES = 5
"""Intensities that stand for all marks of one sign."""


@dataclass(frozen=True)
class Pointed:
    """What was pointed at, in voxels of one crop.

    Parameters
    ----------
    inside, outside : (N, 3) float tensors
        Voxel coordinates of marks on the object and beside it; N may be 0.
    box : (2, 3) float tensor, optional
        Lowest and highest voxel of a box around the object.
    before : (I, J, K) float tensor, optional
        Probability so far, 0 to 1.
    """

    inside: torch.Tensor
    outside: torch.Tensor
    box: torch.Tensor | None = None
    before: torch.Tensor | None = None

TINY = 1e-30
"""Grey values may be as small as diffusion coefficients in m²/s: nothing that differs is too little."""


def standard(image: torch.Tensor) -> torch.Tensor:
    """Clip a crop (I, J, K) to its percentiles 0.5 and 99.7 and give it mean 0 and deviation 1."""
    flat = image.reshape(-1)
    some = flat[:: max(1, flat.numel() // 60_000)].float()
    count = some.numel()
    low, high = (some.kthvalue(1 + int(part * (count - 1))).values for part in (0.005, 0.997))
    if high - low < 0.05 * (some.max() - some.min()):  # nearly all is alike: what differs must not be clipped away
        low, high = some.min(), some.max()
    clipped = image.float().clamp(low, high)
    return (clipped - clipped.mean()) / clipped.std().clamp(min=TINY)


def tones(image: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Return up to `TONES` intensities (T,) found under the marks: means of 3 x 3 x 3 voxels, spread over their range."""
    if not len(marks):
        return image.new_zeros(0)
    top = torch.tensor(image.shape, device=image.device) - 1
    centre = marks.round().long().to(image.device)
    values = image.new_zeros(len(marks))
    steps = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    for step in steps:
        at = (centre + torch.tensor(step, device=image.device)).clamp(min=0).minimum(top)
        values = values + image[at[:, 0], at[:, 1], at[:, 2]]
    values = (values / len(steps)).sort().values
    if len(values) <= TONES:
        return values
    return values[torch.linspace(0, len(values) - 1, TONES).round().long()]


def likeness(image: torch.Tensor, marks: torch.Tensor, width: float = 0.3) -> torch.Tensor:
    """Return how like each voxel (I, J, K) is to the intensities under the marks, 0 to 1."""
    nearest = None
    for tone in tones(image, marks):
        away = (image - tone).abs_()
        nearest = away if nearest is None else torch.minimum(nearest, away)
    if nearest is None:
        return torch.zeros_like(image)
    return torch.exp(nearest.mul_(1 / width).square_().mul_(-0.5))


def distance(shape: tuple[int, ...], marks: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    """Return the distance, in voxels of the full crop, of each half-resolution voxel to the nearest mark; None if none."""
    if not len(marks):
        return None
    if len(marks) > 96:  # a long scribble: its neighbours say the same
        marks = marks[torch.linspace(0, len(marks) - 1, 96).round().long()]
    axes = [torch.arange(n // 2, device=device, dtype=torch.float32) * 2 + 0.5 for n in shape]
    best = None
    for x, y, z in marks.float().to(device):
        square = ((axes[0] - x) ** 2)[:, None, None] + ((axes[1] - y) ** 2)[:, None] + (axes[2] - z) ** 2
        best = square if best is None else torch.minimum(best, square)
    assert best is not None
    return best.sqrt_()


def ways(image: torch.Tensor, told: Pointed) -> tuple[torch.Tensor, torch.Tensor]:
    """Return geodesic nearness to the marks inside (0 to 1), and how much nearer they are than those outside (-1 to 1)."""
    if not len(told.inside):
        return torch.zeros_like(image), torch.zeros_like(image)
    array = image.cpu().numpy()
    costs = geodesic.edges(array, (0.06, 0.06, 0.06))
    top = np.asarray(array.shape) - 1
    found = []
    for marks in (told.inside, told.outside):
        seeds = np.clip(np.rint(marks.cpu().numpy()).astype(int), 0, top)
        found.append(geodesic.distance(costs, seeds, sweeps=2) if len(seeds) else None)
    inside, outside = found
    assert inside is not None
    near = np.exp(-inside / 1.5)
    nearer = np.zeros_like(near) if outside is None else (outside - inside) / (outside + inside + 0.05)
    return torch.from_numpy(near).to(image.device), torch.from_numpy(nearer).to(image.device)


def encode(image: torch.Tensor, told: Pointed, spacing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a crop and its marks into the network's inputs.

    Parameters
    ----------
    image : (I, J, K) float tensor
        As `standard` gives it; even sides.
    told : Pointed
    spacing : float
        Geometric mean of the voxel sides, mm.

    Returns
    -------
    fine : (FINE, I, J, K)
    coarse : (COARSE, I / 2, J / 2, K / 2)
    """
    shape, device = tuple(image.shape), image.device
    before = told.before if told.before is not None else torch.zeros_like(image)
    near, nearer = ways(image, told)
    fine = torch.stack([image, before * 2 - float(told.before is not None), likeness(image, told.inside), near, nearer])
    coarse = torch.zeros((COARSE, *(n // 2 for n in shape)), device=device)
    for first, marks in ((0, told.inside), (2, told.outside)):
        away = distance(shape, marks, device)
        if away is not None:
            coarse[first] = torch.exp(-0.5 * (away / 2.0) ** 2)
            coarse[first + 1] = torch.exp(-away / 16.0)
    if told.box is not None:
        low = (told.box[0] / 2).round().long().clamp(min=0).tolist()
        high = (told.box[1] / 2).round().long().tolist()
        coarse[4, low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1] = 1
    coarse[5] = float(told.box is not None)
    coarse[6] = float(told.before is not None)
    coarse[7] = min(len(told.inside) + len(told.outside), 10) / 10
    coarse[8] = math.log2(spacing) / 2
    if len(told.outside):
        coarse[9] = F.avg_pool3d(likeness(image, told.outside)[None], 2)[0]
    return fine, coarse


class Click3D(nn.Module):
    """Promptable U-Net on folded voxels.

    Parameters
    ----------
    widths : tuple of int
        Channels per level, finest (half resolution) first.
    depths : tuple of int
        Residual blocks per level on the way down; one more per level on the way up.
    fine : int
        Channels at full resolution.

    Notes
    -----
    Sides of the input must be multiples of `multiple`.
    """

    def __init__(
        self, widths: tuple[int, ...] = (24, 48, 96, 128), depths: tuple[int, ...] = (1, 2, 2, 2), fine: int = FINE
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = Conv3d(8 * fine + COARSE, widths[0], 1)
        self.down = nn.ModuleList(
            nn.Sequential(*[Block(width, width) for _ in range(depth)])
            for width, depth in zip(widths, depths, strict=True)
        )
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(Block(fine, deep, stride=2) for fine, deep in pairs)
        self.widen = nn.ModuleList(Conv3d(deep, fine, 1) for fine, deep in pairs)
        self.up = nn.ModuleList(Block(fine, fine) for fine, _ in pairs)
        self.head = Conv3d(widths[0], 8, 3, padding=1)
        # Before any training the answer is the geodesic one around the marks: the net learns to better it.
        self.prior = Conv3d(fine, 1, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.prior.weight.zero_()
            self.prior.weight[0, :FINE, 0, 0, 0] = torch.tensor([0.0, 2.0, 0.5, 5.0, 2.0])
            self.prior.bias.fill_(-2.0)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, FINE, I, J, K) and (B, COARSE, I/2, J/2, K/2) to logits (B, 1, I, J, K)."""
        return self.answer(fine, self.features(fine, coarse)[-1])

    def features(self, fine: torch.Tensor, coarse: torch.Tensor) -> list[torch.Tensor]:
        """Return what every level of the way up holds, coarsest first: (B, width, I', J', K') each."""
        x = torch.cat([fold(fine), coarse], dim=1).contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(x)
        skips = []
        for level, down in enumerate(self.down):
            x = down(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        held = [x]
        for level in reversed(range(len(self.shrink))):
            x = F.interpolate(self.widen[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](x + skips[level])
            held.append(x)
        return held

    def answer(self, fine: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Turn the finest features into logits (B, 1, I, J, K)."""
        return unfold(self.head(x)) + self.prior(fine)


class Mender(Click3D):
    """Changes an answer: what it tells is added to the log odds of what is known, nothing before any training.

    Parameters
    ----------
    widths, depths : tuple of int
        As of `Click3D`.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96), depths: tuple[int, ...] = (1, 2, 2)) -> None:
        super().__init__(widths, depths, MENDED)
        with torch.no_grad():
            self.prior.weight.zero_()
            self.prior.bias.zero_()

    def answer(self, fine: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Turn the finest features into logits (B, 1, I, J, K)."""
        return super().answer(fine, x) + 2 * torch.atanh(SURE * fine[:, 1:2])


Kind = TypeVar("Kind", Click3D, Mender)


def from_state(state: dict[str, torch.Tensor], kind: type[Kind] = Click3D) -> Kind:  # type: ignore[assignment]
    """Build the network of a kind that a state dict belongs to: its widths and depths are read from the tensors.

    Raises
    ------
    KeyError, RuntimeError
        The tensors are not those of this network.
    """
    levels = 1 + sum(name.startswith("widen.") and name.endswith(".weight") for name in state)
    widths = [int(state["stem.weight"].shape[0])]
    widths += [int(state[f"shrink.{level}.conv.weight"].shape[0]) for level in range(levels - 1)]
    depths = [
        sum(name.startswith(f"down.{n}.") and name.endswith(".conv.weight") for name in state) for n in range(levels)
    ]
    net = kind(tuple(widths), tuple(depths))
    net.load_state_dict(state)
    return net
