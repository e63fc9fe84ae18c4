"""Non-local PCA: cubes of a volume that look alike are cleaned together, in axes of their own.

Stage one gathers, for each reference cube, the most similar cubes nearby, and keeps the principal components
whose variance noise alone cannot reach. Stage two does it again, matched on the result of stage one, which also
tells how much signal each component holds: a Wiener filter. Last, a share of a rotation-invariant non-local
mean, led by that result, evens out what cubes leave at their borders.

Everything expects noise of unit standard deviation.

References
----------
Manjón, Coupé & Buades, Med Image Anal 2015;22:35 (non-local PCA, rotation-invariant second pass).
Zhang et al., Pattern Recognition 2010;43:1531 (two stages in local principal components).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import torch
from torch.nn import functional as F

SIDE = 4
"""Of a cube, voxels; reference cubes stand side by side."""
REACH = 3
"""How far around its place a cube is searched for, voxels along each axis."""
ALIKE = 60
"""Cubes cleaned together."""
EDGE = 1.3 * (1 + math.sqrt(SIDE**3 / ALIKE)) ** 2
"""Variance of a component from which on it is signal: 1.3 times the largest that unit noise gives (Marchenko-Pastur)."""
BATCH = 64
TILE = 9
"""Reference cubes along each axis of a tile: its cubes stay in the processor's cache."""
NEAR = 0.6
"""Difference, in standard deviations of the noise, at which the second pass counts a voxel much less."""
SHARE = 0.35
"""Of the second pass in the answer."""
Report = Callable[[float], None]


@dataclass(frozen=True)
class _Tile:
    """A box of the padded volume and the corners of its reference cubes, counted from the box."""

    box: tuple[slice, slice, slice]
    corners: torch.Tensor


def cleaned(image: torch.Tensor, floor: float | None = None, report: Report | None = None) -> torch.Tensor:
    """Return the volume without noise.

    Parameters
    ----------
    image : torch.Tensor, (I, J, K) float32
        Noise of unit standard deviation everywhere.
    floor : float, optional
        What pure background averages to. Cubes that dark are only averaged, which spares most of the time in air.
    report : callable, optional
        Told the progress, 0 to 1, between tiles; may raise to stop.
    """
    tell = report or (lambda _: None)
    threads = torch.get_num_threads()
    on_cpu = image.device.type == "cpu"
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)) if on_cpu else 1) as pool:
        try:
            # One tile a thread is quicker than many threads a tile.
            torch.set_num_threads(1 if on_cpu else threads)
            soft = _blurred(image)
            first = _stage(image, soft, None, floor, pool, lambda f: tell(0.5 * f))
            second = _stage(image, first, first, floor, pool, lambda f: tell(0.5 + 0.35 * f))
            even = _evened(image, second, floor, pool, lambda f: tell(0.85 + 0.15 * f))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)
    return second + SHARE * (even - second)


def _blurred(image: torch.Tensor, sigma: float = 0.7) -> torch.Tensor:
    """Blur a little, so that cubes are matched by what they show and less by their noise."""
    kernel = torch.exp(-(torch.arange(-2.0, 3.0, device=image.device) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    out = _padded(image, 2, 2)[None, None]
    for shape in ((5, 1, 1), (1, 5, 1), (1, 1, 5)):
        out = F.conv3d(out, kernel.reshape(1, 1, *shape))
    return out[0, 0]


def _padded(image: torch.Tensor, before: int, after: int) -> torch.Tensor:
    return F.pad(image[None, None], (before, after) * 3, mode="replicate")[0, 0]


def _mean(image: torch.Tensor, side: int) -> torch.Tensor:
    """Mean over the `side`-cube around each voxel."""
    return F.avg_pool3d(_padded(image, side // 2, side // 2)[None, None], side, 1)[0, 0]


def _offsets(reach: int) -> torch.Tensor:
    """(n, 3) steps to every voxel at most `reach` away along each axis."""
    span = torch.arange(-reach, reach + 1)
    return torch.cartesian_prod(span, span, span)


def _tiles(shape: tuple[int, ...]) -> Iterator[_Tile]:
    """Cut a volume of this shape, padded by `REACH` before and `REACH + SIDE` behind."""
    along = []
    for n in shape:
        starts = list(range(0, max(1, n - SIDE + 1), SIDE))
        if starts[-1] < n - SIDE:
            starts.append(n - SIDE)
        along.append([starts[a : a + TILE] for a in range(0, len(starts), TILE)])
    for part in product(*along):
        box = [slice(starts[0], starts[-1] + SIDE + 2 * REACH) for starts in part]
        corners = torch.cartesian_prod(*[torch.tensor(starts) - starts[0] + REACH for starts in part])
        yield _Tile((box[0], box[1], box[2]), corners)


def _stage(
    image: torch.Tensor,
    guide: torch.Tensor,
    pilot: torch.Tensor | None,
    floor: float | None,
    pool: ThreadPoolExecutor,
    report: Report,
) -> torch.Tensor:
    """Clean groups of cubes that are alike in `guide`; by thresholds, or by a Wiener filter led by `pilot`."""
    noisy, led = _padded(image, REACH, REACH + SIDE), _padded(guide, REACH, REACH + SIDE)
    total, weight = torch.zeros_like(noisy), torch.zeros_like(noisy)
    tiles = list(_tiles(tuple(image.shape)))

    def work(tile: _Tile) -> tuple[torch.Tensor, torch.Tensor]:
        return _tile(noisy[tile.box], led[tile.box], tile.corners, pilot is not None, floor)

    for n, (tile, (part, share)) in enumerate(zip(tiles, pool.map(work, tiles), strict=True)):
        total[tile.box] += part
        weight[tile.box] += share
        report((n + 1) / len(tiles))
    inner = tuple(slice(REACH, REACH + n) for n in image.shape)
    made = total[inner] / weight[inner].clamp(min=1e-9)
    if floor is None:
        return made
    return torch.where(weight[inner] > 0, made, _mean(image, 5).clamp(max=floor + 1))


def _tile(
    noisy: torch.Tensor, led: torch.Tensor, corners: torch.Tensor, wiener: bool, floor: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the cleaned cubes of one tile, and of their weights, both of the tile's shape."""
    cubes, places = _cubes(noisy), [n - SIDE + 1 for n in noisy.shape]
    guides = _cubes(led)
    device = noisy.device
    stride = torch.tensor([places[1] * places[2], places[2], 1])
    step = torch.tensor([noisy.shape[1] * noisy.shape[2], noisy.shape[2], 1])
    around = (_offsets(REACH) * stride).sum(1).to(device)
    at = (torch.cartesian_prod(*[torch.arange(n) for n in places]) * step).sum(1).to(device)
    inside = (torch.cartesian_prod(*[torch.arange(SIDE)] * 3) * step).sum(1).to(device)
    lengths = guides.square().sum(1)
    total = torch.zeros(noisy.numel(), device=device)
    weight = torch.zeros_like(total)
    references = (corners * stride).sum(1).to(device)
    if floor is not None:
        references = references[guides[references].mean(1) > floor + 0.5]
    for own in references.split(BATCH):
        near = own[:, None] + around
        far = lengths[near] - 2 * (guides[near] @ guides[own][:, :, None])[..., 0]
        alike = near.gather(1, far.topk(min(ALIKE, far.shape[1]), largest=False).indices)
        group = cubes[alike]
        middle = group.mean(1, keepdim=True)
        keep = _wiener(guides[alike]) if wiener else _thresholded(group - middle)
        clean = (group - middle) @ keep + middle
        # Groups that need fewer components are less noisy and count more.
        trust = 1 / (1 + keep.diagonal(dim1=1, dim2=2).sum(1))
        target = (at[alike][..., None] + inside).reshape(-1)
        total.index_add_(0, target, (clean * trust[:, None, None]).reshape(-1))
        weight.index_add_(0, target, trust[:, None, None].expand_as(clean).reshape(-1))
    return total.reshape(noisy.shape), weight.reshape(noisy.shape)


def _cubes(volume: torch.Tensor) -> torch.Tensor:
    """(places, SIDE**3): every cube of a tile."""
    view = volume.contiguous().unfold(0, SIDE, 1).unfold(1, SIDE, 1).unfold(2, SIDE, 1)
    return view.reshape(-1, SIDE**3)


def _thresholded(group: torch.Tensor) -> torch.Tensor:
    """(B, n, n) projection on the components of (B, alike, n) centred cubes that stand out of unit noise."""
    variances, axes = torch.linalg.eigh(group.transpose(1, 2) @ group / group.shape[1])
    return (axes * (variances > EDGE)[:, None]) @ axes.transpose(1, 2)


def _wiener(pilot: torch.Tensor) -> torch.Tensor:
    """(B, n, n) filter C (C + 1)^-1, C being the covariance of (B, alike, n) cubes of the pilot."""
    pilot = pilot - pilot.mean(1, keepdim=True)
    size = pilot.shape[2]
    eye = torch.eye(size, device=pilot.device)
    return eye - torch.linalg.inv(pilot.transpose(1, 2) @ pilot / pilot.shape[1] + eye)


def _evened(
    image: torch.Tensor, led: torch.Tensor, floor: float | None, pool: ThreadPoolExecutor, report: Report
) -> torch.Tensor:
    """Average voxels whose guide, and whose guide's local mean, are alike: non-local means by single voxels."""
    flat = _mean(led, 3)
    wide = [_padded(part, REACH, REACH) for part in (image, led, flat)]
    out = led.clone()
    size = SIDE * TILE
    boxes = [
        tuple(slice(a, min(a + size, n)) for a, n in zip(corner, image.shape, strict=True))
        for corner in product(*[range(0, n, size) for n in image.shape])
    ]

    def work(box: tuple[slice, ...]) -> None:
        own, own_flat = led[box], flat[box]
        if floor is not None and float(own.max()) < floor + 0.5:
            return
        total, weight = torch.zeros_like(own), torch.zeros_like(own)
        for step in _offsets(REACH).tolist():
            there = tuple(slice(b.start + REACH + s, b.stop + REACH + s) for b, s in zip(box, step, strict=True))
            noisy, guide, mean = (part[there] for part in wide)
            gap = (guide - own).square_().add_((mean - own_flat).square_(), alpha=1.5)
            gap = gap.mul_(-0.5 / NEAR**2).exp_()
            total.addcmul_(gap, noisy)
            weight += gap
        out[box] = total / weight

    for n, _ in enumerate(pool.map(work, boxes)):
        report((n + 1) / len(boxes))
    return out
