"""How bright each structure is in this very scan: a map of what stands where, made sharper by it.

A network says where structures are likely, not how they look in this scan. Both follow from one another: the likely
places give each structure a histogram of brightness and the scan its shading, these give better places, and so on
(expectation and maximisation, as Wells et al., IEEE Trans Med Imaging 1996, and Ashburner and Friston, NeuroImage 2005,
did with an atlas in the network's place).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.engine.fit import blurring, lerping, spread
from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]
Ask = Callable[[NDArray[np.intp]], Array]

LIKELIEST = 5
"""So many structures may stand at a voxel: the likeliest before its brightness is looked at."""
CLEAR_AIR = 0.995
"""Voxels more surely air than this stay air."""
STEPS = 64
"""Bins of brightness."""
WIDTH = 1.5
"""Histograms are smoothed by so many bins."""
FEW = 50.0
"""Structures of not many more voxels than this take the histogram of all for a part of theirs."""
FLOOR = 0.01
"""Share of any histogram that is the same everywhere: one odd voxel proves nothing."""
TRUST = 1.5
"""Weight of brightness against place."""
ROUNDS, REFITS = 6, 2
RARE = 0.2
"""The network was taught to favour rare structures by a power of a half of how rare they are; so much of it is taken back."""
SHADE_MM = 25.0
"""How smooth the shading of a scan is."""
BRIGHT = 0.08
"""What is darker than this share of the brightest says nothing about the shading."""
MOST_SHADE = 1.5
"""Most that shading is taken for, either way, as a logarithm."""
RARELY = 0.004
"""What is less likely than this at a place is not there."""
SMALLEST = 0.02
"""Share of the scan's range below which logarithms are not taken."""
AT_ONCE = 16384
"""Voxels that a thread works on at a time."""


@dataclass(frozen=True, eq=False)
class Tones:
    """What may stand at each voxel, and how bright each structure is.

    Parameters
    ----------
    which : ndarray, (M, I, J, K) uint8
        Structures, the likeliest first.
    share : ndarray, (M, I, J, K) float16
        How likely each is, before the brightness is looked at.
    looks : ndarray, (N, STEPS)
        Probability of each brightness in each structure.
    low, high : float
        The darkest and the brightest bin.
    shade : ndarray, (I, J, K)
        Logarithm of the scan's shading.
    """

    which: NDArray[np.uint8]
    share: NDArray[np.float16]
    looks: Array
    low: float
    high: float
    shade: Array

    def _seen(self, values: Array, at: NDArray[np.intp]) -> tuple[NDArray[np.uint8], Array, Array]:
        """Return what may stand at voxels `at` (V,) of the flat map, how likely, (M, V), and brightness there in bins, (V,)."""
        which, share = (part.reshape(len(part), -1)[:, at] for part in (self.which, self.share))
        return which, share.astype(np.float32), _steps(values, self.shade.reshape(-1)[at], self.low, self.high)

    def gain(self, values: Array, at: NDArray[np.intp], own: NDArray[np.bool_]) -> Array:
        """Return what brightness adds to the log odds of some structures, (V,).

        Parameters
        ----------
        values, at : ndarray, (V,)
            Brightness, and the nearest voxels of the flat map.
        own : ndarray of bool, (256,)
            Which structures are the ones in question.
        """
        place = _steps(values, self.shade.reshape(-1).take(at), self.low, self.high)
        step, looks = np.rint(place).astype(np.int32), self.looks.reshape(-1)
        in_share, out_share, inside, outside = np.zeros((4, len(step)), dtype=np.float32)
        for which, share in zip(self.which, self.share, strict=True):
            structure, likely = which.reshape(-1).take(at), share.reshape(-1).take(at).astype(np.float32)
            mine, seen = own.take(structure), likely * looks.take(structure * np.int32(STEPS) + step)
            for weight, ours, others in ((likely, in_share, out_share), (seen, inside, outside)):
                part = weight * mine
                ours += part
                others += weight - part
        # Where only these may stand (or their other side, say), brightness tells nothing.
        both = (in_share > RARELY) & (out_share > RARELY)
        found = np.zeros(len(step), dtype=np.float32)
        found[both] = np.log(inside[both] * out_share[both] / (outside[both] * in_share[both]))
        return found * np.float32(TRUST)

    def doubtful(self, own: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return at which voxels of the flat map `gain` is not 0, whatever the brightness; (I * J * K,)."""
        which, share = (part.reshape(len(part), -1) for part in (self.which, self.share))
        in_share, out_share = _parted(share.astype(np.float32), own[which])
        return (in_share > RARELY) & (out_share > RARELY)

    def marked(self, number: int, values: Array, at: NDArray[np.intp], weight: float) -> Tones:
        """Return the same, a structure's histogram mixed with that of some voxels which are known to be of it.

        Parameters
        ----------
        number : int
        values, at : ndarray, (V,)
            Brightness, and the nearest voxels of the flat map.
        weight : float
            Of these voxels, 0 to 1.
        """
        place = _steps(values, self.shade.reshape(-1)[at], self.low, self.high)
        here = blurring(STEPS, WIDTH, "constant") @ np.bincount(np.rint(place).astype(np.intp), minlength=STEPS)
        looks = self.looks.copy()
        looks[number] += weight * (here / here.sum() * (1 - FLOOR) + FLOOR / STEPS - looks[number])
        return replace(self, looks=looks)

    def refitted(self, values: Array, at: NDArray[np.intp]) -> Tones:
        """Return the histograms of a finer grid, where noise is stronger and edges are sharper, from some of its voxels.

        Parameters
        ----------
        values, at : ndarray, (V,)
            Brightness, and the nearest voxels of the flat map.
        """
        which, share, place = self._seen(values, at)
        cell, upper = _cells(which, place)
        looks = self.looks
        for _ in range(REFITS):
            looks = _histograms(cell, _sure(share, cell, upper, looks), upper, len(looks))
        return replace(self, looks=looks)


def _parted(likely: Array, mine: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return the sums (V,) of what is mine and of what is not, of (M, V)."""
    inside = likely * mine
    return inside.sum(axis=0), (likely - inside).sum(axis=0)


def _steps(values: Array, shade: Array, low: float, high: float) -> Array:
    """Return brightness in bins, without the shading."""
    found: Array = ((values * np.exp(-shade) - low) * np.float32((STEPS - 1) / (high - low))).clip(0, STEPS - 1.001)
    return found


def sharpened(maps: Array, image: Array, spacing: float) -> tuple[NDArray[np.uint8], Tones | None]:
    """Make a map of structures sharper by the brightness of each in one scan.

    Parameters
    ----------
    maps : ndarray, (N, I, J, K)
        How likely each structure is at each voxel; the first is air. It is used up.
    image : ndarray, (I, J, K)
    spacing : float
        Of the voxels, mm.

    Returns
    -------
    ndarray, (N, I, J, K) uint8
        Probabilities in steps of 1/255.
    Tones or None
        None where there is nothing but air.
    """
    flat = maps.reshape(len(maps), -1)
    every = np.arange(image.size)
    found = _fitted([flat[:, part] for part in _parts(image.size)], image, every, spacing)
    if found is None:
        return np.rint(maps * 255).astype(np.uint8), None
    there, which, share = found.there, found.which, found.share
    names = np.zeros(flat.shape, dtype=np.uint8)
    names[0] = 255
    names[0, there] = 0
    names[which, there] = np.rint(found.sure * 255)
    full_which = np.zeros((len(which), image.size), dtype=np.uint8)
    full_share = np.zeros(full_which.shape, dtype=np.float16)
    full_share[0] = 1
    full_which[:, there], full_share[:, there] = which, share
    shape_of = (-1, *image.shape)
    tones = Tones(full_which.reshape(shape_of), full_share.reshape(shape_of), found.looks, found.low, found.high, found.shade)
    return names.reshape(maps.shape), tones


def tones_at(ask: Ask, image: Array, spacing: float, step: int, wanted: NDArray[np.intp]) -> Tones | None:
    """Return what structures look like, learned from every `step`-th voxel along each axis, and what may stand at some.

    Parameters
    ----------
    ask : callable
        How likely each structure is at flat voxels (V,): (N, V), to be used up. Asked from several threads.
    image : ndarray, (I, J, K)
    spacing : float
        Of the voxels, mm.
    step : int
    wanted : ndarray, (W,)
        Flat voxels.

    Returns
    -------
    Tones or None
        Its maps are those of the wanted voxels only, (M, W) and (W,); None where there is nothing but air.
    """
    some = np.arange(image.size).reshape(image.shape)[::step, ::step, ::step].reshape(-1)
    found = _fitted(_each(lambda part: ask(some[part]), _parts(len(some))), image, some, spacing, step)
    if found is None:
        return None

    def likeliest_at(part: slice) -> tuple[NDArray[np.uint8], Array]:
        maps = ask(wanted[part])
        air = maps[0] >= CLEAR_AIR
        which, share = _likeliest(maps * found.rarity[:, None])
        which[:, air], share[:, air] = 0, 0
        share[0, air] = 1
        return which, share

    which, share = _joined(_each(likeliest_at, _parts(len(wanted))))
    return Tones(which, share, found.looks, found.low, found.high, found.shade.reshape(-1)[wanted])


def _parts(count: int) -> list[slice]:
    """Cut so many voxels into parts for threads."""
    return [slice(start, start + AT_ONCE) for start in range(0, max(1, count), AT_ONCE)]


def _each(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Return what some work makes of each item, several threads at once."""
    with own_threads() as threads:
        return each(work, items, threads)


def _joined(found: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Join the answers of parts, arrays (…, V) each."""
    return tuple(np.concatenate(answers, axis=-1) for answers in zip(*found, strict=True))


@dataclass(frozen=True, eq=False)
class _Fit:
    """What structures look like, as learned from some voxels of an image (I, J, K).

    Parameters
    ----------
    looks, low, high, shade
        As of `Tones`.
    rarity : ndarray, (N,)
        What the likelihood of each structure is multiplied by.
    there : ndarray, (V,)
        The flat voxels it was learned from that are not air.
    which, share, sure : ndarray, (M, V)
        What may stand there, how likely before, and after the brightness is looked at.
    """

    looks: Array
    low: float
    high: float
    shade: Array
    rarity: Array
    there: NDArray[np.intp]
    which: NDArray[np.uint8]
    share: Array
    sure: Array


def _fitted(maps: list[Array], image: Array, at: NDArray[np.intp], spacing: float, step: int = 1) -> _Fit | None:
    """Learn what structures look like.

    Parameters
    ----------
    maps : list of ndarray, (N, V') each
        Where they are likely, in parts.
    image : ndarray, (I, J, K)
    at : ndarray, (V,)
        The flat voxels that the parts are of, one after the other.
    spacing : float
        Of the image, mm.
    step : int
        They are every so many-th voxel along each axis.
    """
    totals = sum(part.sum(axis=1, dtype=np.float64) for part in maps) * step**3 + 200
    rarity = ((totals / totals.sum()) ** RARE).astype(np.float32)
    open_ = [np.flatnonzero(part[0] < CLEAR_AIR) for part in maps]
    there = at[np.concatenate([part + n * AT_ONCE for n, part in enumerate(open_)])]
    values = np.asarray(image.reshape(-1)[there], dtype=np.float32)
    low = float(image.min())
    high = float(np.quantile(values[:: max(1, values.size // 200_000)], 0.999)) if values.size else low
    if not high > low:
        return None
    pairs = list(zip(maps, open_, strict=True))
    which, share = _joined(_each(lambda pair: _likeliest(pair[0][:, pair[1]] * rarity[:, None]), pairs))
    field = _Shading(there, image.shape, spacing)
    shade = np.zeros(there.shape, dtype=np.float32)
    sure, looks = share, np.zeros((len(rarity), STEPS), dtype=np.float32)
    with own_threads():
        for last in (*[False] * (ROUNDS - 1), True):
            cell, upper = _cells(which, _steps(values, shade, low, high))
            looks = _histograms(cell, sure, upper, len(rarity))
            sure = _sure(share, cell, upper, looks)
            if not last:
                left, weights = _left(which, sure, looks, values, (low, high))
                coarse = field.of(left, weights)
                shade = field.there(coarse)
    return _Fit(looks, low, high, field.full(coarse), rarity, there, which, share, sure)


def _cells(which: NDArray[np.uint8], place: Array) -> tuple[NDArray[np.int32], Array]:
    """Return the flat histogram cells (M, V) below each voxel's brightness, and how far each is from them."""
    lower = place.astype(np.int32)
    return which.astype(np.int32) * STEPS + lower, place - lower


def _sure(share: Array, cell: NDArray[np.int32], upper: Array, looks: Array) -> Array:
    """Return how likely each structure is by place and brightness, (M, V)."""
    logs = np.log(looks).reshape(-1)
    fit = logs[cell] * (1 - upper) + logs[cell + 1] * upper
    fit -= fit.max(axis=0)
    fit *= np.float32(TRUST)
    sure = share * np.exp(fit, out=fit)
    sure /= np.maximum(sure.sum(axis=0), np.float32(1e-12))
    return np.asarray(sure)


def _likeliest(maps: Array) -> tuple[NDArray[np.uint8], Array]:
    """Return the likeliest structures of each voxel, and how likely they are among themselves, (M, V) each."""
    most = min(LIKELIEST, len(maps))
    which = np.empty((most, maps.shape[1]), dtype=np.uint8)
    share = np.empty(which.shape, dtype=np.float32)
    every = np.arange(maps.shape[1])
    for n in range(most):
        which[n] = maps.argmax(axis=0)
        share[n] = maps[which[n], every]
        maps[which[n], every] = -1
    share += np.float32(1e-5)
    share /= share.sum(axis=0)
    return which, share


def _histograms(cell: NDArray[np.int32], sure: Array, upper: Array, count: int) -> Array:
    """Return the probability of each brightness in each structure, (N, STEPS)."""
    size = count * STEPS
    flat = cell.reshape(-1)
    above = sure * upper
    found = np.bincount(flat, (sure - above).reshape(-1), size)
    found[1:] += np.bincount(flat, above.reshape(-1), size)[:-1]
    found = found.reshape(count, STEPS) @ blurring(STEPS, WIDTH, "constant").T
    every = found.sum(axis=0)
    mixed = (found + FEW * every / every.sum()) / (found.sum(axis=1, keepdims=True) + FEW)
    return np.asarray(mixed * (1 - FLOOR) + FLOOR / STEPS, dtype=np.float32)


def _left(
    which: NDArray[np.uint8], sure: Array, looks: Array, values: Array, ends: tuple[float, float]
) -> tuple[Array, Array]:
    """Return what is left of the brightness once structures are known, weighed, and the weights, (V,) each."""
    low, high = ends
    tones = np.linspace(low, high, STEPS, dtype=np.float32)
    mean = looks @ tones / looks.sum(axis=1)
    spread = np.sqrt((looks * (tones - mean[:, None]) ** 2).sum(axis=1) / looks.sum(axis=1))
    least = SMALLEST * high
    logs = np.log(np.maximum(mean, least))
    weight = (mean > BRIGHT * high) / ((spread / np.maximum(mean, least)) ** 2 + 0.01)
    weights = (sure * weight[which]).sum(axis=0)
    return weights * np.log(np.maximum(values, least)) - (sure * (weight * logs)[which]).sum(axis=0), weights


class _Shading:
    """The logarithm of the shading of an image (I, J, K), from what is left of the brightness at some voxels.

    Parameters
    ----------
    at : ndarray, (V,)
        Flat voxels.
    shape : tuple of 3 int
    spacing : float
        Of the voxels, mm.
    """

    def __init__(self, at: NDArray[np.intp], shape: tuple[int, ...], spacing: float) -> None:
        self._at, self._shape = at, shape
        self._coarse = tuple(-(-n // 4) for n in shape)
        spots = np.unravel_index(at, shape)
        self._cell = np.ravel_multi_index(tuple(spot // 4 for spot in spots), self._coarse)
        # The border goes on to the end of its cell of four voxels.
        self._weight = np.ones(len(at), dtype=np.float32)
        for spot, n in zip(spots, shape, strict=True):
            self._weight[spot == n - 1] *= 1 + -n % 4
        self._blur = [blurring(n, SHADE_MM / spacing / 4, "nearest") for n in self._coarse]
        self._home = [lerping((np.arange(n) + 0.5) / 4 - 0.5, c) for n, c in zip(shape, self._coarse, strict=True)]

    def of(self, left: Array, weights: Array) -> Array:
        """Return the shading on cells of four voxels a side."""
        sums = []
        for part in (left, weights):
            total = np.bincount(self._cell, part * self._weight, int(np.prod(self._coarse))) / 64
            sums.append(spread(total.reshape(self._coarse).astype(np.float32), self._blur))
        return np.clip(sums[0] / (sums[1] + 1e-3), -MOST_SHADE, MOST_SHADE)

    def full(self, coarse: Array) -> Array:
        """Return it at every voxel, (I, J, K)."""
        return spread(coarse, self._home)

    def there(self, coarse: Array) -> Array:
        """Return it at the voxels it came from, (V,)."""
        return self.full(coarse).reshape(-1)[self._at]


def nearest(grid: Grid, spots: tuple[NDArray[np.intp], ...], coarse: Grid) -> NDArray[np.intp]:
    """Return the flat voxels of a coarse grid that lie nearest to those of a grid of parallel axes, an index of three."""
    i, j, k = (near[spot] for near, spot in zip(nearest_along(grid, coarse), spots, strict=True))
    return np.ravel_multi_index((i, j, k), coarse.shape)


def nearest_to_all(grid: Grid, coarse: Grid) -> NDArray[np.int32]:
    """Return the flat voxel of a coarse grid that lies nearest to each voxel (I, J, K) of a grid of parallel axes."""
    i, j, k = (near.astype(np.int32) for near in nearest_along(grid, coarse))
    return (i[:, None, None] * coarse.shape[1] + j[:, None]) * coarse.shape[2] + k


def nearest_along(grid: Grid, coarse: Grid) -> list[NDArray[np.intp]]:
    """Return the voxel of a coarse grid nearest to each of a grid of parallel axes, along each axis."""
    offset, ratio = coarse.to_voxels(grid.to_patient((0, 0, 0))), np.divide(grid.spacing, coarse.spacing)
    return [
        np.clip(np.rint(o + r * np.arange(count)), 0, n - 1).astype(np.intp)
        for o, r, count, n in zip(offset, ratio, grid.shape, coarse.shape, strict=True)
    ]


def probable(logits: Array) -> Array:
    """Turn logits (N, I, …) into probabilities, in place."""
    many = max(1, AT_ONCE // int(np.prod(logits.shape[2:])))
    for start in range(0, logits.shape[1], many):  # a few slices at a time: all of them are hundreds of megabytes
        part = logits[:, start : start + many]
        part -= part.max(axis=0)
        np.exp(part, out=part)
        part /= part.sum(axis=0)
    return logits
