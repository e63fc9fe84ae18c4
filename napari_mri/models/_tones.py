"""How bright each structure is in this very scan: a map of what stands where, made sharper by it.

A network says where structures are likely, not how they look in this scan. Both follow from one another: the likely
places give each structure a histogram of brightness and the scan its shading, these give better places, and so on
(expectation and maximisation, as Wells et al., IEEE Trans Med Imaging 1996, and Ashburner and Friston, NeuroImage 2005,
did with an atlas in the network's place).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid

Array = NDArray[np.float32]

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
        which, share, place = self._seen(values, at)
        mine = own[which]
        likely = share * self.looks[which, np.rint(place).astype(np.intp)]
        inside, outside = (likely * mine).sum(axis=0), (likely * ~mine).sum(axis=0)
        in_share, out_share = (share * mine).sum(axis=0), (share * ~mine).sum(axis=0)
        # Where only these may stand (or their other side, say), brightness tells nothing.
        both = (in_share > RARELY) & (out_share > RARELY)
        found = np.zeros(len(place), dtype=np.float32)
        found[both] = np.log(inside[both] * out_share[both] / (outside[both] * in_share[both]))
        return found * np.float32(TRUST)

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
    found = _fitted(maps, image, spacing)
    if found is None:
        return np.rint(maps * 255).astype(np.uint8), None
    tones, there, sure = found
    names = np.zeros((len(maps), image.size), dtype=np.uint8)
    names[0] = 255
    names[0, there] = 0
    names[tones.which.reshape(len(sure), -1)[:, there], there] = np.rint(sure * 255)
    return names.reshape(maps.shape), tones


def tones_of(maps: Array, image: Array, spacing: float, step: int = 1) -> Tones | None:
    """Return what `sharpened` does but for the sharper map; of every `step`-th voxel only, which is quicker."""
    found = _fitted(maps, image, spacing, step)
    return None if found is None else found[0]


def _fitted(
    maps: Array, image: Array, spacing: float, step: int = 1
) -> tuple[Tones, NDArray[np.intp], Array] | None:
    """Return what structures look like, the flat voxels that are not air, (V,), and how likely each is in every `step`-th."""
    count, shape = len(maps), image.shape
    flat = maps.reshape(count, -1)
    totals = flat.sum(axis=1, dtype=np.float64) + 200
    there = np.flatnonzero(flat[0] < CLEAR_AIR)
    values = np.asarray(image.reshape(-1)[there], dtype=np.float32)
    low = float(image.min())
    high = float(np.quantile(values[:: max(1, values.size // 200_000)], 0.999)) if values.size else low
    if not high > low:
        return None
    which, share = _likeliest(flat[:, there] * ((totals / totals.sum()) ** RARE).astype(np.float32)[:, None])
    shade = np.zeros(shape, dtype=np.float32)
    few_which, few_share, few_values, few = which[:, ::step], share[:, ::step], values[::step], there[::step]
    sure = few_share
    looks = np.zeros((count, STEPS), dtype=np.float32)
    for last in (*[False] * (ROUNDS - 1), True):
        place = _steps(few_values, shade.reshape(-1)[few], low, high)
        cell, upper = _cells(few_which, place)
        looks = _histograms(cell, sure, upper, count)
        sure = _sure(few_share, cell, upper, looks)
        if not last:
            shade = _shading(few_which, sure, looks, few_values, few, shape, low, high, spacing)
    full_which = np.zeros((len(which), flat.shape[1]), dtype=np.uint8)
    full_share = np.zeros(full_which.shape, dtype=np.float16)
    full_share[0] = 1
    full_which[:, there], full_share[:, there] = which, share
    shape_of = (-1, *shape)
    return Tones(full_which.reshape(shape_of), full_share.reshape(shape_of), looks, low, high, shade), there, sure


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
    from scipy.ndimage import gaussian_filter1d

    size = count * STEPS
    flat = cell.reshape(-1)
    found = np.bincount(flat, (sure * (1 - upper)).reshape(-1), size)
    found += np.bincount(flat + 1, (sure * upper).reshape(-1), size)[:size]
    found = gaussian_filter1d(found.reshape(count, STEPS), WIDTH, axis=1, mode="constant")
    every = found.sum(axis=0)
    mixed = (found + FEW * every / every.sum()) / (found.sum(axis=1, keepdims=True) + FEW)
    return np.asarray(mixed * (1 - FLOOR) + FLOOR / STEPS, dtype=np.float32)


def _shading(
    which: NDArray[np.uint8], sure: Array, looks: Array, values: Array, there: NDArray[np.intp], shape: tuple[int, ...],
    low: float, high: float, spacing: float,
) -> Array:  # fmt: skip
    """Return the logarithm of the shading (I, J, K): what is left of the brightness once structures are known."""
    from scipy.ndimage import gaussian_filter

    tones = np.linspace(low, high, STEPS, dtype=np.float32)
    mean = looks @ tones / looks.sum(axis=1)
    spread = np.sqrt((looks * (tones - mean[:, None]) ** 2).sum(axis=1) / looks.sum(axis=1))
    least = SMALLEST * high
    logs = np.log(np.maximum(mean, least))
    weight = (mean > BRIGHT * high) / ((spread / np.maximum(mean, least)) ** 2 + 0.01)
    weights = (sure * weight[which]).sum(axis=0)
    left = weights * np.log(np.maximum(values, least)) - (sure * (weight * logs)[which]).sum(axis=0)
    sums = []
    for part in (left, weights):
        full = np.zeros(shape, dtype=np.float32)
        full.reshape(-1)[there] = part
        sums.append(gaussian_filter(_quartered(full), SHADE_MM / spacing / 4, mode="nearest"))
    field = np.clip(sums[0] / (sums[1] + 1e-3), -MOST_SHADE, MOST_SHADE)
    return _stretched(field, shape)


def nearest(grid: Grid, spots: tuple[NDArray[np.intp], ...], coarse: Grid) -> NDArray[np.intp]:
    """Return the flat voxels of a coarse grid that lie nearest to those of a grid of parallel axes, an index of three."""
    i, j, k = (near[spot] for near, spot in zip(nearest_along(grid, coarse), spots, strict=True))
    return np.ravel_multi_index((i, j, k), coarse.shape)


def nearest_along(grid: Grid, coarse: Grid) -> list[NDArray[np.intp]]:
    """Return the voxel of a coarse grid nearest to each of a grid of parallel axes, along each axis."""
    offset, ratio = coarse.to_voxels(grid.to_patient((0, 0, 0))), np.divide(grid.spacing, coarse.spacing)
    return [
        np.clip(np.rint(o + r * np.arange(count)), 0, n - 1).astype(np.intp)
        for o, r, count, n in zip(offset, ratio, grid.shape, coarse.shape, strict=True)
    ]


def probable(logits: Array) -> Array:
    """Turn logits (N, I, J, K) into probabilities, in place."""
    for start in range(0, logits.shape[1], 8):  # a few slices at a time: all of them are hundreds of megabytes
        part = logits[:, start : start + 8]
        part -= part.max(axis=0)
        np.exp(part, out=part)
        part /= part.sum(axis=0)
    return logits


def _quartered(values: Array) -> Array:
    """Return means of 4 x 4 x 4 voxels; the border goes on."""
    full = np.pad(values, [(0, -n % 4) for n in values.shape], mode="edge")
    i, j, k = (n // 4 for n in full.shape)
    return np.asarray(full.reshape(i, 4, j, 4, k, 4).mean(axis=(1, 3, 5)))


def _stretched(values: Any, shape: tuple[int, ...]) -> Array:
    """Undo `_quartered` by linear interpolation."""
    out = np.asarray(values, dtype=np.float32)
    for axis, count in enumerate(shape):
        place = ((np.arange(count) + 0.5) / 4 - 0.5).clip(0, out.shape[axis] - 1)
        lower = np.minimum(place.astype(np.intp), max(out.shape[axis] - 2, 0))
        upper = np.minimum(lower + 1, out.shape[axis] - 1)
        part = (place - lower).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(lower, axis) * (1 - part) + out.take(upper, axis) * part
    return out
