"""Learn coarse planes to fine ones: pairs made from fine planes, a net trained on them, its use on a volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.engine.lesson import Plan, learn
from napari_mri.models._superres import Array, Way, Wish, way_to

if TYPE_CHECKING:
    import torch

    from napari_mri.nets.planes import PlaneNet

MOST_VALUES = 8_000_000
"""Fine voxels that are learned from: each stands in up to six pairs of three arrays, 600 MB of float32."""
_LONG = 16
"""Slices of a training piece."""
_WIDE = 48
"""Voxels of a training piece along the other axis."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Coarse planes, their interpolation, and the truth.

    Parameters
    ----------
    coarse : ndarray, (N, S, W)
    start, truth : ndarray, (N, S * parts[0], W * parts[1])
    parts : (int, int)
    """

    coarse: Array
    start: Array
    truth: Array
    parts: tuple[int, int]


def parts_of(spacing: float, wished: float, least: int = 1) -> int:
    """Return into how many voxels one is split: the whole number nearest to the wished factor."""
    return max(least, round(spacing / wished))


def pairs_of(
    fine: Array, spacing: tuple[float, float], parts: tuple[int, int], wish: Wish, seed: int, sigma: float = 0.0
) -> list[Pairs]:
    """Blur and sample fine planes along their rows, their columns or both, as the scanner does.

    Parameters
    ----------
    fine : ndarray, (I, J, K)
        Planes lie along the first two axes.
    spacing : (float, float)
        Of the coarse planes to be made, mm; the fine ones have `parts` voxels in each of theirs.
    parts : (int, int)
        1 leaves an axis as it is.
    wish : Wish
        With the thickness (0: the spacing) along the first axis, and the profile.
    seed : int
    sigma : float
        Noise of the scan; averaging takes it out of what is made, so it is put back.

    Returns
    -------
    list of Pairs
        One for each of a few places at which the first coarse voxel may begin; none if the volume is too small.
    """
    narrow = (spacing[0] / parts[0], spacing[1] / parts[1], spacing[0] / parts[0])
    made = []
    for offset in sorted({0, max(parts) // 3, 2 * max(parts) // 3}):
        start = [min(offset, n - 1) for n in parts]
        part = fine[start[0] :, start[1] :]
        counts = [n // k for n, k in zip(part.shape, parts, strict=False)]
        if min(counts) < 3:
            continue
        part = np.ascontiguousarray(part[: counts[0] * parts[0], : counts[1] * parts[1]])
        coarse = Grid.plain(part.shape, narrow).respaced((*spacing, narrow[2]))
        way = way_to(coarse, narrow, replace(wish, spacing=0.0))
        rows = way.measure.sampled(part)
        if sigma > 0:
            left = np.prod([1.0 if m is None else float(np.mean((m**2).sum(axis=1))) for m in way.measure.matrices])
            noise = np.random.default_rng(seed + offset).standard_normal(rows.shape, dtype=np.float32)
            rows = rows + np.float32(sigma * max(0.0, 1 - float(left)) ** 0.5) * noise
        begun = way.agreed(way.spline(rows), rows)
        made.append(Pairs(*(np.ascontiguousarray(x.transpose(2, 0, 1)) for x in (rows, begun, part)), parts))
    return made


class Lesson:
    """Draw pieces of pairs, and judge a net on fixed ones.

    Parameters
    ----------
    pairs : list of Pairs
    scale : float
        What counts as 1.
    device : str
    seed : int
    """

    def __init__(self, pairs: list[Pairs], scale: float, device: str, seed: int) -> None:
        self.pairs, self.scale, self.device = pairs, np.float32(scale), device
        self.rng = np.random.default_rng(seed)
        self.floor = 0.5 * float(np.mean([pair.coarse[::3, ::2, ::4].mean() for pair in pairs])) / scale
        self.sizes = np.array([pair.coarse.size for pair in pairs], dtype=np.float64)
        self.long = min(_LONG, *(pair.coarse.shape[1] for pair in pairs))
        self.wide = min(_WIDE, *(pair.coarse.shape[2] for pair in pairs))
        self.exam = [self.draw(16) for _ in range(4)]
        self.unit = max(float(np.mean([float((lack**2).mean()) for _, lack in self.exam])), 1e-12)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (count, 1, S, W) coarse pieces, and what their interpolation lacks, at the finer rate."""
        import torch

        rows, lacks = [], []
        which = self.rng.choice(len(self.pairs), size=count, p=self.sizes / self.sizes.sum())
        for number in which:
            pair = self.pairs[number]
            for _ in range(6):  # pieces of plain background teach nothing
                plane, a, b = (int(self.rng.integers(n)) for n in self._room(pair))
                piece = pair.coarse[plane, a : a + self.long, b : b + self.wide] / self.scale
                if piece.mean() >= self.floor:
                    break
            box = (plane, _times(a, self.long, pair.parts[0]), _times(b, self.wide, pair.parts[1]))
            lack = (pair.truth[box] - pair.start[box]) / self.scale
            for turned in (0, 1):
                if self.rng.random() < 0.5:
                    piece, lack = np.flip(piece, turned), np.flip(lack, turned)
            rows.append(np.ascontiguousarray(piece))
            lacks.append(np.ascontiguousarray(lack))
        x, y = (torch.from_numpy(np.stack(all_)[:, None]).to(self.device) for all_ in (rows, lacks))
        return x, y

    def _room(self, pair: Pairs) -> tuple[int, int, int]:
        planes, long, wide = pair.coarse.shape
        return planes, long - self.long + 1, wide - self.wide + 1

    def error(self, net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error; the interpolation alone has about 1."""
        return ((net(x) - y) ** 2).mean() / self.unit

    def judge(self, net: torch.nn.Module) -> float:
        """Return the share of the interpolation's squared error that is left."""
        return float(np.mean([float(self.error(net, x, y)) for x, y in self.exam]))


def _times(at: int, count: int, parts: int) -> slice:
    return slice(at * parts, (at + count) * parts)


def learned(pairs: list[Pairs], scale: float, plan: Plan, rt: Runtime) -> PlaneNet:
    """Train a net on pairs.

    Parameters
    ----------
    pairs : list of Pairs
    scale : float
        What counts as 1.
    plan : Plan
    rt : Runtime
    """
    from napari_mri.nets.planes import PlaneNet

    lesson = Lesson(pairs, scale, rt.device, rt.seed)
    net = rt.drawn(lambda: PlaneNet(pairs[0].parts)).to(rt.device)
    best = learn(net, lambda n: lesson.error(n, *lesson.draw(12)), lesson.judge, plan, rt)
    assert isinstance(best, PlaneNet)
    return best


def lacking_planes(net: PlaneNet, planes: Array, scale: float, tell: Progress) -> Array:
    """Return what a net adds to the interpolation of coarse planes.

    Parameters
    ----------
    net : PlaneNet
    planes : ndarray, (N, S, W)
    scale : float
        As in training.
    tell : Progress

    Returns
    -------
    ndarray, (N, S * parts[0], W * parts[1])
    """
    import torch

    device = next(net.parameters()).device
    a, b = net.parts
    told = np.empty((len(planes), planes.shape[1] * a, planes.shape[2] * b), np.float32)
    for chunk in _chunks(planes.shape):
        tell.step(chunk.start / len(planes))
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(planes[chunk], dtype=np.float32) / np.float32(scale))
            told[chunk] = net(x[:, None].to(device))[:, 0].float().cpu().numpy()
    return told * np.float32(scale)


def lacking(net: PlaneNet, slices: Array, axis: int, scale: float, tell: Progress) -> Array:
    """Return what a net adds to the interpolation of thick slices, mean of the planes along both other axes.

    Parameters
    ----------
    net : PlaneNet
    slices : ndarray, (I, J, K)
        Thick along `axis`, fine along the others.
    axis : int
    scale : float
        As in training.
    tell : Progress

    Returns
    -------
    ndarray
        `net.parts[0]` times as long along `axis`.
    """
    stack = np.moveaxis(slices, axis, 0)
    first = lacking_planes(net, stack.transpose(2, 0, 1), scale, replace(tell, high=(tell.low + tell.high) / 2))
    second = lacking_planes(net, stack.transpose(1, 0, 2), scale, replace(tell, low=(tell.low + tell.high) / 2))
    return np.moveaxis((first.transpose(1, 2, 0) + second.transpose(1, 0, 2)) / 2, 0, axis)


def _chunks(shape: tuple[int, ...], most: int = 1 << 19) -> Iterator[slice]:
    size = max(1, most // (shape[1] * shape[2]))
    return (slice(at, min(at + size, shape[0])) for at in range(0, shape[0], size))


@dataclass(frozen=True)
class Progress:
    """A part of a run's progress.

    Parameters
    ----------
    rt : Runtime
    low, high : float
    text : str
    """

    rt: Runtime
    low: float
    high: float
    text: str

    def step(self, share: float) -> None:
        """Tell 0 to 1 of this part."""
        self.rt.report(self.low + (self.high - self.low) * share, self.text)


def working_way(grid: Grid, axis: int, wish: Wish) -> Way:
    """Return the way to a grid on which each slice is a whole number of voxels, and that is as fine as the scan.

    Parameters
    ----------
    grid : Grid
        Of the scan.
    axis : int
        Of its slices.
    wish : Wish
    """
    own = np.asarray(grid.spacing)
    in_plane = min(s for n, s in enumerate(own) if n != axis)
    step = max(wish.spacing or in_plane, in_plane)
    steps = np.full(3, step)
    steps[axis] = own[axis] / parts_of(own[axis], step, 2)
    return way_to(grid, steps, wish)
