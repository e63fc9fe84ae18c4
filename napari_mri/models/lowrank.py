"""Temporal low rank for cine, perfusion and other dynamic series: few time courses explain each neighbourhood.

Every block of voxels is written as a matrix (voxels x frames); singular values that noise alone would reach are
taken out and the others lessened, by the optimal shrinkage for a known noise level. Blocks overlap and are averaged.

References
----------
Gavish & Donoho, IEEE Trans Inf Theory 2017;63:2137 (optimal shrinkage, Frobenius norm).
Trzasko & Manduca, ISMRM 2011:4371 (locally low-rank series).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells

Array = NDArray[np.float32]

CARD = Card(
    name="lowrank",
    task=DENOISE,
    title="Temporal low rank",
    says=(
        "For cine, perfusion and functional series: keeps the few time courses that explain each neighbourhood. "
        "Very brief events (a bolus of one frame) may be smoothed: look at the residual over time."
    ),
    wants=Wants(axes="", min_slices=1, frames=True, min_frames=5),
    needs=("scipy",),
    cite="Gavish & Donoho, IEEE Trans Inf Theory 2017;63:2137",
    rank=1,
)


@dataclass(frozen=True)
class Params:
    """Options of the temporal low-rank denoiser."""

    block: int = knob(7, "Side of the neighbourhoods in plane.", low=3, high=15, unit="voxels")
    strength: float = knob(1.0, "How strong the noise is taken to be, as a multiple of what was found.", low=0.0, high=3.0)
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised series; offers the residual.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
    p : Params
    rt : Runtime
    """
    if scan.data.ndim != 4:
        raise UnsupportedImage("This model needs a series of frames.", hint="Use the model nlpca for a single volume.")
    rt.report(0.0, "measuring the noise")
    sigma, is_rician = shells.series_noise(scan, p.sigma, p.kind, rt)
    data = np.asarray(scan.data, dtype=np.float32)
    level = sigma * p.strength
    if level <= 0:
        return shared.left_alone(scan, data, p.strength, rt)
    even = rician.stabilised(data, level) if is_rician else data / np.float32(level)
    clean = lowered(even, p.block, rt)
    answer = rician.back_from_stabilised(clean, level) if is_rician else clean * np.float32(level)
    return shared.handed_over(scan, answer, level, rt)


def lowered(even: Array, block: int, rt: Runtime) -> Array:
    """Shrink the singular values of overlapping blocks of a series with unit Gaussian noise.

    Parameters
    ----------
    even : ndarray, (I, J, K, C)
    block : int
        Side along axes that are long enough; thin axes are taken a few at a time.
    rt : Runtime

    Returns
    -------
    ndarray, (I, J, K, C) float32
    """
    shape = even.shape[:3]
    size = [min(block, n) if n >= block else min(3, n) for n in shape]
    step = [max(1, s // 2) for s in size]
    starts = [sorted({*range(0, n - s + 1, t), n - s}) for n, s, t in zip(shape, size, step, strict=True)]
    total = np.zeros(even.shape, dtype=np.float32)
    weight = np.zeros((*shape, 1), dtype=np.float32)
    number = len(starts[0])
    for done, first in enumerate(starts[0]):
        rt.report(0.1 + 0.85 * done / number, "neighbourhoods")
        for second, third in product(starts[1], starts[2]):
            box = tuple(slice(a, a + s) for a, s in zip((first, second, third), size, strict=True))
            part = even[box]
            clean, rank = shrunk(part.reshape(-1, part.shape[-1]))
            # Blocks that need fewer components are less noisy and count more.
            trust = np.float32(1 / (1 + rank))
            total[box] += trust * clean.reshape(part.shape)
            weight[box] += trust
    return np.asarray(total / weight, dtype=np.float32)


def shrunk(matrix: Array) -> tuple[Array, int]:
    """Return the matrix with its singular values optimally shrunk for unit noise, and the rank that is left.

    Parameters
    ----------
    matrix : ndarray, (M, N)
        Rows voxels, columns frames; the mean of each row's time course over the block is kept.
    """
    mean = matrix.mean(axis=0, keepdims=True)
    m, n = matrix.shape
    u, s, vt = np.linalg.svd(matrix - mean, full_matrices=False)
    longer, ratio = max(m, n), min(m, n) / max(m, n)
    y = s / np.sqrt(longer)
    edge = 1 + np.sqrt(ratio)
    inside = np.maximum((y**2 - ratio - 1) ** 2 - 4 * ratio, 0)
    new = np.where(y > edge, np.sqrt(inside) / np.maximum(y, 1e-12), 0.0) * np.sqrt(longer)
    rank = int(np.count_nonzero(new))
    return np.asarray((u[:, :rank] * new[:rank]) @ vt[:rank] + mean, dtype=np.float32), rank


MODELS = (Model(CARD, Params, run),)
