"""Geodesic distance on a grid of voxels: how far from the marks, counting both millimetres and change of grey value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
FAR = np.float32(1e6)
"""Distance where there is no mark at all."""


def edges(image: NDArray[Any], steps: tuple[float, float, float], contrast: float = 1.0) -> tuple[Array, Array, Array]:
    """Return what it costs to step between neighbours along each axis.

    Parameters
    ----------
    image : ndarray, (I, J, K)
    steps : 3 float
        Cost of one voxel step where the image is flat.
    contrast : float
        Cost of a change of 1 in the image.

    Returns
    -------
    tuple of 3 ndarray
        (I-1, J, K), (J-1, I, K) and (K-1, I, J), float32: the axis walked along comes first.
    """
    values = np.asarray(image, dtype=np.float32)
    found = []
    for axis, step in enumerate(steps):
        first = np.ascontiguousarray(np.moveaxis(values, axis, 0))
        cost = np.abs(np.diff(first, axis=0))
        cost *= np.float32(contrast)
        cost += np.float32(step)
        found.append(cost)
    return found[0], found[1], found[2]


def distance(costs: tuple[Array, Array, Array], seeds: NDArray[Any], sweeps: int = 3) -> Array:
    """Return the cheapest way from each voxel to the nearest seed.

    The distance is relaxed by scans back and forth along each axis, whole planes at a time; three
    rounds reach all but the most winding ways.

    Parameters
    ----------
    costs : as `edges` gives them
    seeds : ndarray of int, (N, 3), or of bool, (I, J, K)
        Voxels at distance 0.
    sweeps : int
        Rounds of scans.

    Returns
    -------
    ndarray, (I, J, K) float32; `FAR` everywhere if there is no seed
    """
    shape = (costs[0].shape[0] + 1, costs[0].shape[1], costs[0].shape[2])
    away = np.full(shape, FAR, dtype=np.float32)
    if seeds.dtype == np.bool_:
        away[seeds] = 0
    elif len(seeds):
        away[tuple(np.asarray(seeds, dtype=np.intp).T)] = 0
    if not (away == 0).any():
        return away
    for round_ in range(sweeps):
        before = away.copy() if round_ else None
        for axis, cost in enumerate(costs):
            first = np.ascontiguousarray(np.moveaxis(away, axis, 0))
            _scan(first, cost)
            away = np.ascontiguousarray(np.moveaxis(first, 0, axis))
        if before is not None and float((before - away).max()) < 1e-3:
            break
    return away


def _scan(first: Array, cost: Array) -> None:
    """Relax forth and back along the first axis, in place."""
    way = np.empty_like(first[0])
    count = first.shape[0]
    for n in range(1, count):
        np.add(first[n - 1], cost[n - 1], out=way)
        np.minimum(first[n], way, out=first[n])
    for n in range(count - 2, -1, -1):
        np.add(first[n + 1], cost[n], out=way)
        np.minimum(first[n], way, out=first[n])
