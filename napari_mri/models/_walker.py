"""Random walker on a crop: the chance that a walk from a voxel meets the object's marks first, walls at edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_walk(
    image: NDArray[Any],
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    beta: float = 130.0,
) -> NDArray[np.float32]:
    """Solve the seeded random walker with conjugate gradients.

    Parameters
    ----------
    image : ndarray, (I, J, K)
        Scaled so that differences of 1 are the largest there are.
    inside, outside : ndarray of bool, (I, J, K)
        Marks; both must hold at least one voxel.
    spacing : 3 float
        mm; a step along a longer side weighs less.
    beta : float
        How high a wall an edge is.

    Returns
    -------
    ndarray, (I, J, K) float32
        Chance to belong to the object, 0 to 1.

    Notes
    -----
    Grady L. Random walks for image segmentation. IEEE TPAMI 2006;28:1768.
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg

    values = np.asarray(image, dtype=np.float64)
    number = np.arange(values.size).reshape(values.shape)
    mean = float(np.mean(spacing))
    heads, tails, weights = [], [], []
    for axis, step in enumerate(spacing):
        change = np.diff(values, axis=axis)
        weight = np.exp(-beta * change * change) * (mean / step) ** 2 + 1e-6
        heads.append(np.moveaxis(number, axis, 0)[:-1].ravel())
        tails.append(np.moveaxis(number, axis, 0)[1:].ravel())
        weights.append(np.moveaxis(weight, axis, 0).ravel())
    i, j, w = np.concatenate(heads), np.concatenate(tails), np.concatenate(weights)
    joined = sparse.coo_matrix((np.r_[w, w], (np.r_[i, j], np.r_[j, i])), shape=(values.size,) * 2).tocsr()
    degree = np.asarray(joined.sum(axis=1)).ravel()
    marked = (inside | outside).ravel()
    free = np.flatnonzero(~marked)
    chance = inside.ravel().astype(np.float64)
    if free.size:
        rows = joined[free]
        pulled = rows[:, np.flatnonzero(marked)] @ chance[marked]
        system = sparse.diags(degree[free]) - rows[:, free]
        guess = np.full(free.size, 0.5)
        found, _ = cg(system, pulled, x0=guess, rtol=1e-3, maxiter=300, M=sparse.diags(1 / degree[free]))
        chance[free] = np.clip(found, 0, 1)
    return chance.reshape(values.shape).astype(np.float32)
