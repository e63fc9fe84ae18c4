"""Clean a series by places that look alike: compared over all of its frames, cleaned one group of frames at a time.

Around each reference place the most similar places are gathered: similar in the few principal components of the whole
series that stand out of the noise, so that every frame helps to tell which places belong together. The values of one
group of frames (a shell, the b0 frames) at these places form a matrix, places by frames; what of it noise alone
could explain is taken out. Components are kept whole or dropped, never lessened: shrinking them would pull
every direction towards the mean of the places and lower the anisotropy. Few frames are joined by small cubes of voxels.

Everything expects noise of unit standard deviation.

References
----------
Veraart et al., NeuroImage 2016;142:394 (Marchenko-Pastur law for patches of a series).
Chen et al., MICCAI 2016 (XQ-NLM: alike places of diffusion series are sought in space and in directions).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import torch
from torch.nn import functional as F

REACH = 5
"""How far around its place alike places are searched for, in the smallest voxel side."""
ALIKE = 150
"""Places cleaned together."""
LONG = 64
"""Numbers in the vector of a place: few frames take a cube of voxels as long as this allows."""
MOST_FRAMES = 128
"""Longer groups are cut into parts of at most this many frames."""
SEEN = 16
"""Most components of the series by which places are compared."""
MARGIN = 1.1
"""A component is signal from this multiple of the largest variance that unit noise gives (Marchenko-Pastur)."""
SLAB = 6
BATCH = 128
Size = tuple[int, int, int]
Report = Callable[[float], None]


@dataclass(frozen=True)
class Layout:
    """How a series is walked through.

    Parameters
    ----------
    reach : (int, int, int)
        Voxels along each axis.
    step : (int, int, int)
        Between reference places.
    """

    reach: Size
    step: Size

    @classmethod
    def of(cls, shape: Sequence[int], spacing: Sequence[float]) -> Layout:
        """Thick slices are searched less far and one by one."""
        ratio = [min(spacing) / s for s in spacing]
        reach = [min(n - 1, max(1, round(REACH * r))) for n, r in zip(shape, ratio, strict=True)]
        step = [2 if n > 3 and r > 0.5 else 1 for n, r in zip(shape, ratio, strict=True)]
        return cls((reach[0], reach[1], reach[2]), (step[0], step[1], step[2]))

    def cube(self, frames: int, shape: Sequence[int]) -> Size:
        """Sides of the cubes that groups of so many frames are joined by."""
        wide = [s > 1 and n > 3 for s, n in zip(self.step, shape, strict=True)]
        side = int((LONG / frames) ** (1 / max(1, sum(wide))) + 1e-9)
        sides = [max(1, min(4, side)) if w else 1 for w in wide]
        return sides[0], sides[1], sides[2]


def cleaned(
    series: torch.Tensor,
    guide: torch.Tensor,
    groups: list[list[int]],
    layout: Layout,
    air: torch.Tensor | None = None,
    report: Report | None = None,
) -> torch.Tensor:
    """Return the series without noise.

    Parameters
    ----------
    series : torch.Tensor, (I, J, K, C) float32
        Noise of unit standard deviation everywhere.
    guide : torch.Tensor, (I, J, K, C)
        By which places are compared: the series, or an earlier result.
    groups : list of lists of int
        Frames that are cleaned together; each frame stands in at most one. Others are returned as they are.
    layout : Layout
    air : torch.Tensor, (I, J, K) bool, optional
        Places of pure background, which are only averaged.
    report : callable, optional
        Told the progress, 0 to 1; may raise to stop.
    """
    shape = _size(series.shape)
    seen = components(guide, air)
    out = series.clone()
    by_cube: dict[Size, list[list[int]]] = {}
    for group in groups:
        parts = math.ceil(len(group) / MOST_FRAMES)
        for part in (group[n::parts] for n in range(parts)):
            by_cube.setdefault(layout.cube(len(part), shape), []).append(part)
    threads = torch.get_num_threads()
    on_cpu = series.device.type == "cpu"
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)) if on_cpu else 1) as pool:
        try:
            torch.set_num_threads(1 if on_cpu else threads)
            for n, (cube, parts_) in enumerate(by_cube.items()):

                def tell(fraction: float, n: int = n) -> None:
                    if report is not None:
                        report((n + fraction) / len(by_cube))

                _Walk(series, seen, cube, parts_, layout, air).into(out, pool, tell)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)
    return out


def components(guide: torch.Tensor, air: torch.Tensor | None = None) -> torch.Tensor:
    """(I, J, K, r): the principal components of a series that stand out of unit noise, at least one, at most `SEEN`."""
    flat = guide.reshape(-1, guide.shape[-1])
    body = flat if air is None or bool(air.all()) else flat[~air.reshape(-1)]
    middle = body.mean(0)
    rest = body - middle
    variances, axes = torch.linalg.eigh(rest.T @ rest / len(body))
    edge = MARGIN * (1 + math.sqrt(guide.shape[-1] / len(body))) ** 2
    count = min(max(1, int((variances > edge).sum())), SEEN)
    return ((flat - middle) @ axes[:, -count:]).reshape(*guide.shape[:3], count)


def background(series: torch.Tensor, groups: list[list[int]], floor: float) -> torch.Tensor:
    """(I, J, K) bool: places that are no brighter than the noise floor in any group of frames."""
    brightest = torch.stack([_box_mean(series[..., group].mean(-1), 3) for group in groups]).amax(0)
    return brightest < floor + 0.5


def _box_mean(image: torch.Tensor, side: int) -> torch.Tensor:
    wide = F.pad(image[None, None], (side // 2,) * 6, mode="replicate")
    return F.avg_pool3d(wide, side, 1)[0, 0]


def _size(numbers: Sequence[int]) -> Size:
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def _cubes(field: torch.Tensor, cube: Size) -> torch.Tensor:
    """(places, cells * channels): the cube at every place of (I, J, K, channels)."""
    inner = [n - c + 1 for n, c in zip(field.shape, cube, strict=False)]
    cells = [
        field[tuple(slice(o, o + n) for o, n in zip(offset, inner, strict=True))]
        for offset in product(*map(range, cube))
    ]
    return torch.stack(cells, 3).reshape(math.prod(inner), -1)


class _Walk:
    """All groups of frames that are joined by cubes of one shape."""

    def __init__(
        self,
        series: torch.Tensor,
        seen: torch.Tensor,
        cube: Size,
        groups: list[list[int]],
        layout: Layout,
        air: torch.Tensor | None,
    ) -> None:
        self.shape, self.cube, self.groups = _size(series.shape), cube, groups
        self.reach, self.step = layout.reach, layout.step
        self.places = _size([n - c + 1 for n, c in zip(self.shape, cube, strict=True)])
        self.seen = _cubes(seen, cube)
        self.vectors = [_cubes(series[..., group], cube) for group in groups]
        self.device, self.series, self.air = series.device, series, air
        longest = max(v.shape[1] for v in self.vectors)
        # At a corner of the series only this many places are within reach.
        within = math.prod(min(n, r + 1) for n, r in zip(self.places, self.reach, strict=True))
        self.count = min(max(ALIKE, 2 * longest), within)
        spans = [torch.arange(-r, r + 1, device=self.device) for r in self.reach]
        self.around = torch.cartesian_prod(*spans)

    def into(self, out: torch.Tensor, pool: ThreadPoolExecutor, tell: Report) -> None:
        """Write the cleaned frames into `out`."""
        totals = [torch.zeros_like(self.series[..., group]) for group in self.groups]
        weights = [torch.zeros(self.shape, device=self.device) for _ in self.groups]
        self._add(self._references(), totals, weights, pool, lambda f: tell(0.9 * f))
        left = weights[0] == 0 if self.air is None else (weights[0] == 0) & ~self.air
        # A place that is like none of the references is a reference itself.
        rest = left.nonzero().clamp(max=torch.tensor(self.places, device=self.device) - 1)
        self._add(rest, totals, weights, pool, lambda f: tell(0.9 + 0.1 * f))
        for group, total, weight in zip(self.groups, totals, weights, strict=True):
            made = total / weight.clamp(min=1e-9)[..., None]
            if self.air is not None:
                plain = torch.stack([_box_mean(self.series[..., n], 5) for n in group], -1)
                made = torch.where((weight > 0)[..., None], made, plain)
            out[..., group] = made

    def _references(self) -> torch.Tensor:
        """(R, 3) places, a step apart, the last along each axis included; none in the air."""
        along = [
            torch.tensor(sorted({*range(0, n, s), n - 1}), device=self.device)
            for n, s in zip(self.places, self.step, strict=True)
        ]
        all_of_them = torch.cartesian_prod(*along)
        if self.air is None:
            return all_of_them
        return all_of_them[~self.air[all_of_them[:, 0], all_of_them[:, 1], all_of_them[:, 2]]]

    def _add(
        self,
        references: torch.Tensor,
        totals: list[torch.Tensor],
        weights: list[torch.Tensor],
        pool: ThreadPoolExecutor,
        tell: Report,
    ) -> None:
        slabs = list(self._slabs(references))
        for n, (first, last, sums) in enumerate(pool.map(self._slab, slabs)):
            for total, weight, (part, share) in zip(totals, weights, sums, strict=True):
                total[first:last] += part
                weight[first:last] += share
            tell((n + 1) / len(slabs))

    def _slabs(self, references: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, self.shape[0], SLAB):
            part = references[(references[:, 0] >= start) & (references[:, 0] < start + SLAB)]
            if len(part):
                yield part

    def _slab(self, references: torch.Tensor) -> tuple[int, int, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Return first and last (excluded) plane touched, and sums and weights of each group of frames there."""
        first = max(0, int(references[:, 0].min()) - self.reach[0])
        last = min(self.shape[0], int(references[:, 0].max()) + self.reach[0] + self.cube[0])
        plane = self.shape[1] * self.shape[2]
        sums = [
            (
                torch.zeros((last - first) * plane, len(group), device=self.device),
                torch.zeros((last - first) * plane, device=self.device),
            )
            for group in self.groups
        ]
        for own in references.split(BATCH):
            alike, voxels = self._alike(own)
            for vectors, group, (total, weight) in zip(self.vectors, self.groups, sums, strict=True):
                clean, trust = _without_noise(vectors[alike])
                clean = clean.reshape(*alike.shape, -1, len(group)) * trust[:, None, None, None]
                for cell, offset in enumerate(product(*map(range, self.cube))):
                    step = (offset[0] * self.shape[1] + offset[1]) * self.shape[2] + offset[2] - first * plane
                    target = (voxels + step).reshape(-1)
                    total.index_add_(0, target, clean[:, :, cell].reshape(-1, len(group)))
                    weight.index_add_(0, target, trust[:, None].expand_as(alike).reshape(-1))
        rows = (last - first, *self.shape[1:])
        return first, last, [(total.reshape(*rows, -1), weight.reshape(rows)) for total, weight in sums]

    def _alike(self, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, count) the most similar places to each of (B, 3), as numbers of places and of their first voxels."""
        there = own[:, None] + self.around
        most = torch.tensor(self.places, device=self.device) - 1
        inside = ((there >= 0) & (there <= most)).all(-1)
        there = torch.minimum(there.clamp(min=0), most)
        number = (there[..., 0] * self.places[1] + there[..., 1]) * self.places[2] + there[..., 2]
        mine = (own[:, 0] * self.places[1] + own[:, 1]) * self.places[2] + own[:, 2]
        far = (self.seen[number] - self.seen[mine][:, None]).square_().sum(-1)
        near = far.masked_fill_(~inside, math.inf).topk(self.count, largest=False).indices
        at = there.gather(1, near[..., None].expand(-1, -1, 3))
        voxel = (at[..., 0] * self.shape[1] + at[..., 1]) * self.shape[2] + at[..., 2]
        return number.gather(1, near), voxel


def _without_noise(group: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project (B, places, n) on the components that stand out of unit noise; return it and how far it can be trusted."""
    middle = group.mean(1, keepdim=True)
    rest = group - middle
    count, length = group.shape[1:]
    variances, axes = torch.linalg.eigh(rest.transpose(1, 2) @ rest / count)
    keep = variances > MARGIN * (1 + math.sqrt(length / count)) ** 2
    kept = axes * keep[:, None]
    # Groups that need fewer components are less noisy and count more.
    return (rest @ kept) @ kept.transpose(1, 2) + middle, 1 / (1 + keep.sum(1).to(group.dtype))
