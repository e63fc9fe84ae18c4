"""`Tones` on a graphics processor: the same sums, on tensors that stay there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.models._tones import (
    BRIGHT,
    CLEAR_AIR,
    FEW,
    FLOOR,
    LIKELIEST,
    MOST_SHADE,
    RARE,
    RARELY,
    REFITS,
    ROUNDS,
    SHADE_MM,
    SMALLEST,
    STEPS,
    TRUST,
    WIDTH,
    Tones,
    nearest_along,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class DeviceTones:
    """`Tones` whose maps lie on a graphics processor: `which` (M, I * J * K) uint8, `share` likewise, float16 or float32."""

    which: Tensor
    share: Tensor
    looks: Tensor
    low: float
    high: float
    shade: Tensor

    @classmethod
    def of(cls, tones: Tones, device: str) -> DeviceTones:
        """Return tones brought to a device."""
        import torch

        parts = (tones.which, tones.share, tones.looks, tones.shade)
        which, share, looks, shade = (torch.from_numpy(part).to(device) for part in parts)
        return cls(which.flatten(1), share.flatten(1), looks, tones.low, tones.high, shade)

    def gain(self, values: Tensor, at: Tensor, own: Tensor) -> Tensor:
        """As `Tones.gain`: (V,), from brightness and flat voxels (V,), and which structures are in question, (256,)."""
        import torch

        which, share = self.which[:, at].long(), self.share[:, at].float()
        place = _steps_on(values, self.shade.reshape(-1)[at], self.low, self.high)
        mine = own[which]
        likely = share * self.looks[which, place.round().long()]
        inside, in_share = (torch.where(mine, part, 0.0).sum(dim=0) for part in (likely, share))
        outside, out_share = (torch.where(mine, 0.0, part).sum(dim=0) for part in (likely, share))
        both = (in_share > RARELY) & (out_share > RARELY)
        odds = torch.where(both, inside * out_share, 1.0) / torch.where(both, outside * in_share, 1.0)
        return odds.log() * TRUST

    def marked(self, number: int, values: Tensor, at: Tensor, weight: float) -> DeviceTones:
        """As `Tones.marked`, from brightness and flat voxels (V,)."""
        import torch

        from napari_mri.engine.fit import blurring

        place = _steps_on(values, self.shade.reshape(-1)[at], self.low, self.high)
        smooth = torch.from_numpy(blurring(STEPS, WIDTH, "constant")).to(place.device)
        here = smooth[:, place.round().long()].sum(dim=1)
        looks = self.looks.clone()
        looks[number] += weight * (here / here.sum() * (1 - FLOOR) + FLOOR / STEPS - looks[number])
        return replace(self, looks=looks)

    def refitted(self, values: Tensor, at: Tensor) -> DeviceTones:
        """As `Tones.refitted`, from brightness and flat voxels (V,)."""
        which, share = self.which[:, at].long(), self.share[:, at].float()
        place = _steps_on(values, self.shade.reshape(-1)[at], self.low, self.high)
        lower = place.long()
        cell, upper, looks = which * STEPS + lower, place - lower, self.looks
        for _ in range(REFITS):
            looks = _histograms_on(cell, _sure_on(share, cell, upper, looks), upper, len(looks))
        return replace(self, looks=looks)


def nearest_on(grid: Grid, spots: tuple[Tensor, ...], coarse: Grid) -> Tensor:
    """As `nearest`, of an index of three tensors."""
    import torch

    at = torch.zeros_like(spots[0])
    strides = (coarse.shape[1] * coarse.shape[2], coarse.shape[2], 1)
    for near, stride, spot in zip(nearest_along(grid, coarse), strides, spots, strict=True):
        at += torch.from_numpy(near * stride).to(at.device)[spot]
    return at


def tones_on(maps: Tensor, image: Tensor, spacing: float, step: int = 1) -> DeviceTones | None:
    """Return what structures look like where they are likely, (N, I, J, K), learned from every `step`-th voxel along each axis.

    As `sharpened` and `tones_at`, on a graphics processor; what may stand there is told of all voxels.
    """
    import torch

    count, shape = len(maps), image.shape
    flat = maps.reshape(count, -1)
    some = torch.arange(image.numel(), device=image.device).reshape(shape)[::step, ::step, ::step].reshape(-1)
    totals = flat[:, some].sum(dim=1) * step**3 + 200
    few = some[flat[0, some] < CLEAR_AIR]
    values = image.reshape(-1)[few]
    if not len(values):
        return None
    low, high = torch.stack([image.min(), values[:: max(1, len(values) // 200_000)].quantile(0.999)]).tolist()
    if not high > low:
        return None
    there = torch.nonzero(flat[0] < CLEAR_AIR)[:, 0]
    which, share = _likeliest_on(flat[:, there] * ((totals / totals.sum()) ** RARE)[:, None])
    full_which = torch.zeros((len(which), flat.shape[1]), dtype=torch.uint8, device=image.device)
    full_share = torch.zeros(full_which.shape, device=image.device)
    full_share[0] = 1
    full_which[:, there], full_share[:, there] = which.to(torch.uint8), share
    shade = torch.zeros(tuple(shape), device=image.device)
    few_which, few_share = full_which[:, few].long(), full_share[:, few]
    sure = few_share
    looks = torch.empty(0)
    for last in (*[False] * (ROUNDS - 1), True):
        place = _steps_on(values, shade.reshape(-1)[few], low, high)
        lower = place.long()
        cell, upper = few_which * STEPS + lower, place - lower
        looks = _histograms_on(cell, sure, upper, count)
        sure = _sure_on(few_share, cell, upper, looks)
        if not last:
            left, weights = _left_on(few_which, sure, looks, values, (low, high))
            shade = _shading_on(left, weights, few, tuple(shape), spacing)
    return DeviceTones(full_which, full_share, looks, low, high, shade)


def _steps_on(values: Tensor, shade: Tensor, low: float, high: float) -> Tensor:
    return ((values * (-shade).exp() - low) * ((STEPS - 1) / (high - low))).clamp(0, STEPS - 1.001)


def _sure_on(share: Tensor, cell: Tensor, upper: Tensor, looks: Tensor) -> Tensor:
    logs = looks.log().reshape(-1)
    fit = logs[cell] * (1 - upper) + logs[cell + 1] * upper
    sure = share * ((fit - fit.amax(dim=0)) * TRUST).exp()
    return sure / sure.sum(dim=0).clamp(min=1e-12)


def _likeliest_on(maps: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    which, share = [], []
    for _ in range(min(LIKELIEST, len(maps))):
        most = maps.max(dim=0)
        share.append(most.values)
        which.append(most.indices)
        maps.scatter_(0, most.indices[None], -1.0)
    found = torch.stack(share) + 1e-5
    return torch.stack(which), found / found.sum(dim=0)


def _histograms_on(cell: Tensor, sure: Tensor, upper: Tensor, count: int) -> Tensor:
    import torch

    from napari_mri.engine.fit import blurring

    found = torch.zeros(count * STEPS + 1, device=sure.device)
    found.scatter_add_(0, cell.reshape(-1), (sure * (1 - upper)).reshape(-1))
    found.scatter_add_(0, cell.reshape(-1) + 1, (sure * upper).reshape(-1))
    smooth = torch.from_numpy(blurring(STEPS, WIDTH, "constant")).to(sure.device)
    found = found[:-1].reshape(count, STEPS) @ smooth.T
    every = found.sum(dim=0)
    mixed = (found + FEW * every / every.sum()) / (found.sum(dim=1, keepdim=True) + FEW)
    return mixed * (1 - FLOOR) + FLOOR / STEPS


def _left_on(
    which: Tensor, sure: Tensor, looks: Tensor, values: Tensor, ends: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return what is left of the brightness once structures are known, weighed, and the weights, (V,) each."""
    import torch

    low, high = ends
    tones = torch.linspace(low, high, STEPS, device=looks.device)
    mean = looks @ tones / looks.sum(dim=1)
    spread = ((looks * (tones - mean[:, None]) ** 2).sum(dim=1) / looks.sum(dim=1)).sqrt()
    least = SMALLEST * high
    logs = mean.clamp(min=least).log()
    weight = (mean > BRIGHT * high) / ((spread / mean.clamp(min=least)) ** 2 + 0.01)
    weights = (sure * weight[which]).sum(dim=0)
    return weights * values.clamp(min=least).log() - (sure * (weight * logs)[which]).sum(dim=0), weights


def _shading_on(left: Tensor, weights: Tensor, there: Tensor, shape: tuple[int, ...], spacing: float) -> Tensor:
    import torch

    from napari_mri.engine.fit import blurring, lerping
    from napari_mri.nets.voxels import spread

    quarters = [np.add.reduceat(np.eye(4 * -(-n // 4), n, dtype=np.float32), range(0, n, 4)) / 4 for n in shape]
    for quarter, n in zip(quarters, shape, strict=True):
        quarter[-1, -1] += np.float32((-n % 4) / 4)  # the border goes on
    there_to = [blurring(len(q), SHADE_MM / spacing / 4, "nearest") @ q for q in quarters]
    home = [lerping((np.arange(n) + 0.5) / 4 - 0.5, len(q)) for n, q in zip(shape, quarters, strict=True)]
    sums = []
    for part in (left, weights):
        full = torch.zeros(shape, device=part.device)
        full.reshape(-1)[there] = part
        sums.append(spread(full, there_to))
    return spread((sums[0] / (sums[1] + 1e-3)).clamp(-MOST_SHADE, MOST_SHADE), home)
