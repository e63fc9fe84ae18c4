"""The shapes between two painted slices: which piece becomes which, and how it gets there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.edit.distance import distance_inside, signed_distance

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Slice:
    """One painted slice of one label.

    Parameters
    ----------
    number : int
    mask : ndarray of bool, (H, W)
    """

    number: int
    mask: Mask


@dataclass(frozen=True, eq=False)
class _Strand:
    """A piece that goes from one slice to the other; None where it begins or ends between them."""

    low: Mask | None
    high: Mask | None


def between(low: Slice, high: Slice, spacing: tuple[float, float]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield for each slice number between two painted slices how deep each pixel lies in the label.

    Parameters
    ----------
    low, high : Slice
        ``low.number < high.number``; masks of one shape, each with at least one pixel.
    spacing : 2 float, mm
        Between pixel centres along the axes of the masks.

    Yields
    ------
    number : int
    depth : ndarray of float32, (H, W)
        mm, above 0 inside the label.
    """
    # A rim of background, so that every piece has an outside.
    a, b = np.pad(low.mask, 1), np.pad(high.mask, 1)
    strands = [_Blend(strand, spacing) for strand in _strands(a, b, spacing)]
    for number in range(low.number + 1, high.number):
        t = (number - low.number) / (high.number - low.number)
        depth = np.full(a.shape, -np.inf, np.float32)
        for strand in strands:
            np.maximum(depth, strand.at(t), out=depth)
        yield number, depth[1:-1, 1:-1]


class _Blend:
    """A strand ready to be cut at any height between its two ends.

    Blended is ``d · (2 r − d)`` of the signed distance d and its peak r: for a disc that is radius²
    minus distance² from the centre, so a ball between its slices comes out round where a blend of
    plain distances gives a cone. For shapes of one thickness the two agree.
    """

    def __init__(self, strand: _Strand, spacing: tuple[float, float]) -> None:
        self._low, self._low_peak = _bulge(strand.low, spacing)
        self._high, self._high_peak = _bulge(strand.high, spacing)
        if strand.low is not None and strand.high is not None:
            self._move = _centre(strand.high) - _centre(strand.low)

    def at(self, t: float) -> NDArray[np.float32]:
        """Depth, about mm, at the fraction `t` of the way from the low slice to the high one."""
        if self._low is None or self._high is None:
            t, end, peak = (
                (t, self._low, self._low_peak) if self._low is not None else (1 - t, self._high, self._high_peak)
            )
            assert end is not None
            # As if the far slice lacked as much as this piece is thick: it ends half-way.
            return np.asarray(((1 - t) * end - np.float32(t * peak**2)) / (2 * peak), dtype=np.float32)
        low = _moved(self._low, t * self._move)
        high = _moved(self._high, (t - 1) * self._move)
        scale = 2 * ((1 - t) * self._low_peak + t * self._high_peak)
        return np.asarray(((1 - t) * low + t * high) / scale, dtype=np.float32)


def _bulge(mask: Mask | None, spacing: tuple[float, float]) -> tuple[NDArray[np.float32] | None, float]:
    if mask is None:
        return None, 0.0
    distance = signed_distance(mask, spacing)
    peak = float(distance.max())
    return np.asarray(distance * (2 * peak - distance), dtype=np.float32), peak


def _moved(image: NDArray[np.float32], by: NDArray[np.float64]) -> NDArray[np.float32]:
    from scipy.ndimage import shift

    if np.abs(by).max() < 1e-3:
        return image
    return np.asarray(shift(image, by, order=1, mode="nearest", prefilter=False), dtype=np.float32)


def _centre(mask: Mask) -> NDArray[np.float64]:
    return np.asarray([places.mean() for places in np.nonzero(mask)])


def _strands(a: Mask, b: Mask, spacing: tuple[float, float]) -> list[_Strand]:
    """Pair the pieces of two slices."""
    from scipy.ndimage import label

    pieces_a, n_a = label(a, np.ones((3, 3)))
    pieces_b, n_b = label(b, np.ones((3, 3)))
    shared = np.zeros((n_a + 1, n_b + 1), dtype=np.int64)
    np.add.at(shared, (pieces_a.ravel(), pieces_b.ravel()), 1)
    links = _pruned(shared[1:, 1:], np.bincount(pieces_a.ravel())[1:], np.bincount(pieces_b.ravel())[1:])
    links |= _near(links, pieces_a, pieces_b, spacing)
    strands: list[_Strand] = []
    for group_a, group_b in _groups(links):
        part_a, part_b = np.isin(pieces_a, [n + 1 for n in group_a]), np.isin(pieces_b, [n + 1 for n in group_b])
        if not group_a or not group_b:
            strands.append(_Strand(part_a if group_a else None, part_b if group_b else None))
        elif len(group_a) == 1 and len(group_b) > 1:
            shares = _shares(part_a, [pieces_b == n + 1 for n in group_b], spacing)
            strands += [_Strand(share, branch) for share, branch in shares]
        elif len(group_b) == 1 and len(group_a) > 1:
            shares = _shares(part_b, [pieces_a == n + 1 for n in group_a], spacing)
            strands += [_Strand(branch, share) for share, branch in shares]
        else:
            strands.append(_Strand(part_a, part_b))
    return strands


def _pruned(shared: NDArray[np.int64], sizes_a: NDArray[np.int64], sizes_b: NDArray[np.int64]) -> Mask:
    """Link pieces that overlap, but for a slight overlap where both have a better partner."""
    links = shared > 0
    slight = shared < 0.1 * np.minimum.outer(sizes_a, sizes_b)
    strong = links & ~slight
    better = strong.any(axis=1, keepdims=True) & strong.any(axis=0, keepdims=True)
    return np.asarray(links & ~(slight & better))


def _near(links: Mask, pieces_a: NDArray[np.int32], pieces_b: NDArray[np.int32], spacing: tuple[float, float]) -> Mask:
    """Link pieces that overlap nobody with each other, if each is the other's nearest and not far."""
    near = np.zeros_like(links)
    lone_a, lone_b = np.flatnonzero(~links.any(axis=1)), np.flatnonzero(~links.any(axis=0))
    if not lone_a.size or not lone_b.size:
        return near
    step = np.asarray(spacing)
    centres = [
        [_centre(pieces == n + 1) * step for n in lone] for pieces, lone in ((pieces_a, lone_a), (pieces_b, lone_b))
    ]
    radii = [
        np.sqrt([np.count_nonzero(pieces == n + 1) * step.prod() / np.pi for n in lone])
        for pieces, lone in ((pieces_a, lone_a), (pieces_b, lone_b))
    ]
    apart = np.linalg.norm(np.asarray(centres[0])[:, None] - np.asarray(centres[1])[None], axis=-1)
    mutual = (apart == apart.min(axis=1, keepdims=True)) & (apart == apart.min(axis=0, keepdims=True))
    near[np.ix_(lone_a, lone_b)] = mutual & (apart <= 2 * np.add.outer(radii[0], radii[1]))
    return near


def _groups(links: Mask) -> list[tuple[list[int], list[int]]]:
    """Split the pieces into sets that are linked with one another."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_a, n_b = links.shape
    rows, columns = np.nonzero(links)
    graph = coo_matrix((np.ones(rows.size), (rows, columns + n_a)), shape=(n_a + n_b, n_a + n_b))
    count, group = connected_components(graph, directed=False)
    return [
        ([n for n in range(n_a) if group[n] == g], [n for n in range(n_b) if group[n_a + n] == g]) for g in range(count)
    ]


def _shares(one: Mask, branches: list[Mask], spacing: tuple[float, float]) -> list[tuple[Mask, Mask]]:
    """Share out one piece among the branches it splits into: each pixel to the nearest branch."""
    away = np.stack([distance_inside(~branch, spacing) for branch in branches])
    # Pixels as far from two branches belong to both, so that no crack opens between the shares.
    nearest = away <= away.min(axis=0) + np.float32(min(spacing))
    return [(share, branch) for near, branch in zip(nearest, branches, strict=True) if (share := one & near).any()]
