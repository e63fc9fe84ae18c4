"""Non-local PCA: cubes of a volume that look alike are cleaned together, in axes of their own.

Stage one gathers, for each reference cube, the most similar cubes nearby, and keeps the principal components
whose variance noise alone cannot reach; a matrix polynomial with a steep step does it, which is quicker than to
decompose. Stage two does it again with cubes that straddle the borders of the first ones, matched on the result
of stage one, which also tells how much signal each component holds: a Wiener filter. Where there is much noise it
is done twice. Last, a share of a rotation-invariant non-local mean, led by that result, evens out what cubes leave
at their borders.

Everything expects noise of unit standard deviation.

References
----------
Manjón, Coupé & Buades, Med Image Anal 2015;22:35 (non-local PCA, rotation-invariant second pass).
Zhang et al., Pattern Recognition 2010;43:1531 (two stages in local principal components).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import torch
from torch.nn import functional as F

from napari_mri.nets.means import blurred, mean, padded
from napari_mri.nets.small_inverses import by_blocks, by_cholesky

SIDE = 4
"""Of a cube, voxels; reference cubes stand side by side."""
REACH = 4
"""How far around its place a cube is searched for, voxels along each axis."""
ALIKE = 44
"""Cubes cleaned together."""
EDGE = 1.48 * (1 + math.sqrt(SIDE**3 / ALIKE)) ** 2
"""Variance at which a component counts half: 1.48 times the largest that unit noise gives (Marchenko-Pastur)."""
STEEPER = 2
"""How often the step around `EDGE` is made steeper."""
PRECISE = 4e-6
"""Share of a matrix's trace below which single precision knows nothing of it."""
WINDOW = (0.5, 1.0, 1.0, 0.5)
"""What a cube's voxels count along each axis: least at its border."""
NOISY = 16.0
"""Where the brightest hundredth is fewer standard deviations of the noise bright, there is a third stage."""
BATCH = 32
"""Groups a processor core works on at once; a GPU takes `CROWD`."""
CROWD = 12_288
TILE = 9
"""Reference cubes along each axis of a tile: its cubes stay in the processor's cache."""
BLOCK = 4
"""Side of the blocks that the second pass works on or leaves out, voxels."""
PLACE_BYTES, GROUP_BYTES = 1600, 330_000
"""Memory that one place of a tile and one group of a batch take while they are worked on."""
NEAR = 0.9
"""Difference, in standard deviations of the noise, at which the second pass counts a voxel much less."""
SHARE = 0.22
"""Of the second pass in the answer."""
Report = Callable[[float], None]
Invert = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Tile:
    """A box of the padded volume and the corners of its reference cubes, counted from the box."""

    box: tuple[slice, slice, slice]
    corners: torch.Tensor


@dataclass(frozen=True)
class Cut:
    """How the work is cut to suit a processor.

    Parameters
    ----------
    cubes, blocks : (int, int, int)
        Most reference cubes along each axis of a tile; most `BLOCK`s along each axis of a box of the second pass.
    batch : int
        Groups of cubes worked on at once.
    inverse : callable
        Inverts a stack of small positive matrices.
    """

    cubes: tuple[int, ...]
    blocks: tuple[int, ...]
    batch: int
    inverse: Invert


# Long rows are quicker in the second pass, as long as all fits the processor's cache.
FOR_CORES = Cut((TILE, TILE, TILE), (TILE // 2, TILE, 2 * TILE), BATCH, by_cholesky)


def for_gpu(shape: tuple[int, ...], room: int) -> Cut:
    """Few large pieces, so that a GPU is never idle: slabs of whole layers, as thick as the memory allows.

    Parameters
    ----------
    shape : tuple of int
        Of the volume.
    room : int
        Bytes that may be taken, beside some copies of the volume.
    """
    batch = max(64, min(CROWD, room // 4 // GROUP_BYTES))
    thick = (room // 2 // PLACE_BYTES // (shape[1] * shape[2]) - 2 * REACH) // SIDE
    sides = (max(1, thick), max(shape), max(shape))
    return Cut(sides, sides, batch, by_blocks)


def cleaned(
    image: torch.Tensor,
    floor: float | None = None,
    report: Report | None = None,
    cut: Cut = FOR_CORES,
    guide: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the volume without noise.

    Parameters
    ----------
    image : torch.Tensor, (I, J, K) float32
        Noise of unit standard deviation everywhere.
    floor : float, optional
        What pure background averages to. Cubes that dark are only averaged, which spares most of the time in air.
    report : callable, optional
        Told the progress, 0 to 1, between tiles; may raise to stop.
    cut : Cut
        How large the pieces are; the result is the same to rounding.
    guide : torch.Tensor, (I, J, K), optional
        A cleaner image of the same, in place of what stage one would make.
    """
    tell = report or (lambda _: None)
    threads = torch.get_num_threads()
    on_cpu = image.device.type == "cpu"
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)) if on_cpu else 1) as pool:
        try:
            # One tile a thread is quicker than many threads a tile.
            torch.set_num_threads(1 if on_cpu else threads)
            air = None if floor is None else mean(image, 5).clamp_(max=floor + 1)
            bare = -math.inf if floor is None else floor + 0.5
            made = guide
            if made is None:
                soft = blurred(image, 0.6)  # so that cubes are matched by what they show and less by their noise
                made = _stage(image, soft, False, air, bare, pool, cut, lambda f: tell(0.4 * f))
            again = 2 if _brightest(image) < NOISY else 1
            for n in range(again):
                made = _stage(image, made, True, air, bare, pool, cut, lambda f, n=n: tell(0.4 + 0.45 * (n + f) / again))
            even = _evened(image, made, bare, pool, cut, lambda f: tell(0.85 + 0.15 * f))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)
    return made + SHARE * (even - made)


def _brightest(image: torch.Tensor) -> float:
    """Return what a hundredth of the voxels is brighter than; of a large volume every few voxels are asked."""
    values = image.reshape(-1)
    values = values[:: max(1, len(values) // 1_000_000)].cpu()
    return float(values.kthvalue(max(1, round(0.99 * len(values)))).values)


def _offsets(reach: int) -> torch.Tensor:
    """(n, 3) steps to every voxel in a ball that reaches `reach` along each axis."""
    span = torch.arange(-reach, reach + 1)
    steps = torch.cartesian_prod(span, span, span)
    return steps[steps.square().sum(1) <= (reach + 0.5) ** 2]


def _starts(n: int, first: int) -> torch.Tensor:
    """Tell where cubes begin along an axis of n voxels, side by side from `first` on, the ends being covered as well."""
    starts = sorted({0, *range(first, max(1, n - SIDE + 1), SIDE)})
    return torch.tensor(starts if starts[-1] >= n - SIDE else [*starts, n - SIDE])


def _bright(led: torch.Tensor, starts: list[torch.Tensor], bare: float) -> torch.Tensor:
    """Tell which reference cubes' mean is over `bare`: (I, J, K) bool, on the CPU, by `starts` along each axis."""
    for axis, along in enumerate(starts):
        at = along.to(led.device) + REACH
        led = torch.stack([led.index_select(axis, at + k) for k in range(SIDE)]).sum(0)
    return (led > bare * SIDE**3).cpu()


def _tiles(shape: tuple[int, ...], sides: tuple[int, ...], wanted: torch.Tensor) -> list[tuple[slice, ...]]:
    """Cut a grid of this shape into boxes of at most these sides, each as tight as it can be around what is wanted."""
    boxes = []
    for corner in product(*[range(0, n, side) for n, side in zip(shape, sides, strict=True)]):
        within = wanted[tuple(slice(a, a + side) for a, side in zip(corner, sides, strict=True))].nonzero()
        if len(within):
            low, high = within.amin(0).tolist(), within.amax(0).tolist()
            boxes.append(tuple(slice(a + b, a + c + 1) for a, b, c in zip(corner, low, high, strict=True)))
    return boxes


def _tile_at(starts: list[torch.Tensor], bright: torch.Tensor, part: tuple[slice, ...]) -> _Tile:
    """Return the tile of the bright ones among some reference cubes; the volume is padded by `REACH` before."""
    along = [begin[piece] for begin, piece in zip(starts, part, strict=True)]
    i, j, k = (slice(int(begin[0]), int(begin[-1]) + SIDE + 2 * REACH) for begin in along)
    corners = torch.cartesian_prod(*[begin - begin[0] + REACH for begin in along]).reshape(-1, 3)
    return _Tile((i, j, k), corners[bright[part].reshape(-1)])


def _stage(
    image: torch.Tensor,
    guide: torch.Tensor,
    wiener: bool,
    air: torch.Tensor | None,
    bare: float,
    pool: ThreadPoolExecutor,
    cut: Cut,
    report: Report,
) -> torch.Tensor:
    """Clean groups of cubes that are alike in `guide`; by thresholds, or by a Wiener filter led by the same.

    Cubes whose mean is not over `bare` are left out; `air` takes their place.
    """
    noisy, led = padded(image, REACH, REACH + SIDE), padded(guide, REACH, REACH + SIDE)
    total, weight = torch.zeros_like(noisy), torch.zeros_like(noisy)
    # The second stage's cubes straddle the borders of the first one's.
    starts = [_starts(n, SIDE // 2 if wiener else 0) for n in image.shape]
    # Found at once and kept on the CPU: a GPU would have to be waited for at each question.
    bright = _bright(led, starts, bare)
    tiles = [_tile_at(starts, bright, part) for part in _tiles(tuple(bright.shape), cut.cubes, bright)]

    def work(tile: _Tile) -> tuple[torch.Tensor, torch.Tensor]:
        return _tile(noisy[tile.box], led[tile.box], tile.corners, wiener, cut)

    for n, (tile, (part, share)) in enumerate(zip(tiles, pool.map(work, tiles), strict=True)):
        total[tile.box] += part
        weight[tile.box] += share
        report((n + 1) / len(tiles))
    inner = tuple(slice(REACH, REACH + n) for n in image.shape)
    made = total[inner] / weight[inner].clamp(min=1e-9)
    return made if air is None else torch.where(weight[inner] > 0, made, air)


def _tile(
    noisy: torch.Tensor, led: torch.Tensor, corners: torch.Tensor, wiener: bool, cut: Cut
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the cleaned cubes of one tile, and of their weights, both of the tile's shape."""
    places = [n - SIDE + 1 for n in noisy.shape]
    stride = torch.tensor([places[1] * places[2], places[2], 1])
    references = (corners * stride).sum(1).to(noisy.device)
    cubes, guides = _cubes(noisy), _cubes(led)
    around = (_offsets(REACH) * stride).sum(1).to(noisy.device)
    lengths = torch.linalg.vector_norm(guides, dim=1).square_()
    total, weight = torch.zeros_like(cubes), torch.zeros(len(cubes), device=noisy.device)
    for own in references.split(cut.batch):
        near = own[:, None] + around
        far = lengths[near] - 2 * (_rows(guides, near) * guides[own][:, None]).sum(2)
        far[:, len(around) // 2] = -math.inf  # itself, also where all cubes are alike: every voxel is covered
        alike = near.gather(1, far.topk(min(ALIKE, far.shape[1]), largest=False, sorted=False).indices)
        group = _rows(cubes, alike)
        middle = group.mean(1, keepdim=True)
        group -= middle
        if wiener:
            pilot = _rows(guides, alike)
            there = pilot.mean(1, keepdim=True)
            clean, components = _wiener(group, pilot - there, cut.inverse)
            middle = (middle + there) / 2
        else:
            clean, components = _thresholded(group, cut.inverse)
        # Groups that need fewer components are less noisy and count more.
        trust = (1 / (1 + components))[:, None, None]
        total.index_add_(0, alike.reshape(-1), clean.add_(middle).mul_(trust).flatten(0, 1))
        weight.index_add_(0, alike.reshape(-1), trust[..., 0].expand(alike.shape).reshape(-1))
    return _laid(total.reshape(*places, SIDE, SIDE, SIDE)), _laid(weight.reshape(places))


def _rows(cubes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, n, SIDE**3): the cubes at (B, n) places."""
    return cubes.index_select(0, places.reshape(-1)).reshape(*places.shape, -1)


def _cubes(volume: torch.Tensor) -> torch.Tensor:
    """(places, SIDE**3): every cube of a tile."""
    # Axis by axis: the last copy, which is the large one, then moves runs instead of single voxels.
    view = volume.unfold(2, SIDE, 1).contiguous()
    view = view.unfold(1, SIDE, 1).transpose(3, 4).contiguous()
    return view.unfold(0, SIDE, 1).permute(0, 1, 2, 5, 3, 4).reshape(-1, SIDE**3)


def _laid(cubes: torch.Tensor) -> torch.Tensor:
    """Lay cubes where they belong and sum them, their voxels counted as `WINDOW` says.

    Parameters
    ----------
    cubes : torch.Tensor
        (I, J, K, SIDE, SIDE, SIDE), by the places of their corners; or (I, J, K), all voxels of a cube being alike.

    Returns
    -------
    torch.Tensor, (I + SIDE - 1, J + SIDE - 1, K + SIDE - 1)
    """
    for axis in range(3):
        parts = cubes.unbind(3) if cubes.ndim > 3 else (cubes,) * SIDE
        shape = list(parts[0].shape)
        shape[axis] += SIDE - 1
        out = cubes.new_zeros(shape)
        for k, (part, share) in enumerate(zip(parts, WINDOW, strict=True)):
            out.narrow(axis, k, part.shape[axis]).add_(part, alpha=share)
        cubes = out
    return cubes


def _thresholded(group: torch.Tensor, invert: Invert) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the components of (B, alike, n) centred cubes that stand out of unit noise.

    Returns
    -------
    clean : torch.Tensor, (B, alike, n)
    components : torch.Tensor, (B,)
        How many were kept.
    """
    inverse, edge = _inverse(group @ group.transpose(1, 2), EDGE * group.shape[1], invert)
    keep = torch.eye(group.shape[1], device=group.device) - edge * inverse
    for _ in range(STEEPER):
        square = keep @ keep
        keep = torch.baddbmm(square, square, keep, beta=3, alpha=-2)
    return keep @ group, _trace(keep)


def _inverse(matrix: torch.Tensor, more: float, invert: Invert) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert (B, n, n) positive matrices after `more` was added on their diagonals; return what was added, (B, 1, 1), too.

    At least `PRECISE` of the trace is added, which matters where signal is thousands of times stronger than noise.
    """
    least = (PRECISE * _trace(matrix)).clamp(min=more)[:, None, None]
    return invert(matrix + least * torch.eye(matrix.shape[1], device=matrix.device)), least


def _trace(matrix: torch.Tensor) -> torch.Tensor:
    """Return the sums of the diagonals, (B,), of (B, n, n)."""
    return matrix.diagonal(dim1=1, dim2=2).sum(1)


def _wiener(group: torch.Tensor, pilot: torch.Tensor, invert: Invert) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter (B, alike, n) centred cubes by C (C + 1)^-1, C being the covariance of the same centred cubes of the pilot.

    Returns what `_thresholded` does.
    """
    # C (C + 1)^-1 = P' (P P' + alike)^-1 P, whose inverse has the size of the group.
    alike = pilot.shape[1]
    inverse, added = _inverse(pilot @ pilot.transpose(1, 2), alike, invert)
    clean = group @ pilot.transpose(1, 2) @ inverse @ pilot
    return clean, alike - added[:, 0, 0] * _trace(inverse)


def _evened(
    image: torch.Tensor, led: torch.Tensor, bare: float, pool: ThreadPoolExecutor, cut: Cut, report: Report
) -> torch.Tensor:
    """Average voxels whose guide, and whose guide's local mean, are alike: non-local means by single voxels."""
    # So scaled, squared differences sum to what is taken from 1 below; the local mean counts one and a half times.
    scale = math.sqrt(0.125) / NEAR
    wide = [padded(part, REACH, REACH) for part in (image, led * scale, mean(led, 3) * (scale * math.sqrt(1.5)))]
    out = led.clone()
    wanted = F.max_pool3d(led[None, None], BLOCK, ceil_mode=True)[0, 0].cpu() >= bare
    boxes = [
        tuple(slice(a.start * BLOCK, min(a.stop * BLOCK, n)) for a, n in zip(box, image.shape, strict=True))
        for box in _tiles(tuple(wanted.shape), cut.blocks, wanted)
    ]
    one = torch.ones((), device=image.device)

    def work(box: tuple[slice, ...]) -> None:
        own, own_flat = (part[tuple(slice(b.start + REACH, b.stop + REACH) for b in box)] for part in wide[1:])
        total, weight, gap = torch.zeros_like(own), torch.zeros_like(own), torch.empty_like(own)
        for step in _offsets(REACH).tolist():
            there = tuple(slice(b.start + REACH + s, b.stop + REACH + s) for b, s in zip(box, step, strict=True))
            noisy, guide, around = (part[there] for part in wide)
            torch.sub(guide, own, out=gap)
            share = torch.addcmul(one, gap, gap, value=-1)
            torch.sub(around, own_flat, out=gap)
            # (1 - x / 4)^4 is near enough to exp(-x) and much quicker.
            share.addcmul_(gap, gap, value=-1).clamp_(min=0).square_().square_()
            total.addcmul_(share, noisy)
            weight += share
        out[box] = total / weight

    for n, _ in enumerate(pool.map(work, boxes)):
        report((n + 1) / len(boxes))
    return out
