"""Patch2Self: each frame of a diffusion series predicted linearly from the others; noise cannot be predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import part_of
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells

Array = NDArray[np.float32]

CARD = Card(
    name="patch2self",
    task=DENOISE,
    title="Patch2Self",
    says="Predicts each diffusion-weighted frame linearly from all others. For diffusion series with b-values.",
    wants=Wants(axes="", min_slices=1, frames=True, min_frames=10),
    needs=("scipy",),
    cite="Fadnavis et al., NeurIPS 2020",
    rank=0,
)

RIDGE = 1e-10
"""Added to correlations, so that frames that are copies of one another can be told apart."""
AT_ONCE = 65_536
"""Voxels that are worked on at a time."""


@dataclass(frozen=True)
class Params:
    """Options of Patch2Self."""

    floor: bool = knob(True, shared.FLOOR_SAYS)
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised series; offers the residual.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
        With b-values. Frames without diffusion weighting are predicted from one another, and the others likewise.
    p : Params
    rt : Runtime

    Raises
    ------
    UnsupportedImage
        If the series has no b-values.
    """
    bvals = () if scan.frames is None else scan.frames.bvals
    if len(bvals) != scan.n_frames:
        raise UnsupportedImage(
            "Patch2Self needs the b-value of every frame.", hint="Put the .bval and .bvec files beside the scan."
        )
    sigma, is_rician = shells.series_noise(scan, p.sigma, "auto", rt)
    weighted = np.asarray(bvals, dtype=float) > shells.B0
    clean = np.array(scan.data, dtype=np.float32)
    both = [np.flatnonzero(weighted == which).tolist() for which in (False, True)]
    groups = [group for group in both if len(group) > 1]
    shells.tell_left(scan, groups, rt)
    for number, group in enumerate(groups):
        part = part_of(rt, 0.1 + 0.8 * number / len(groups), 0.1 + 0.8 * (number + 1) / len(groups))
        found = predicted(clean[..., group], part)
        clean[..., group] = rician.unbiased(found, sigma) if p.floor and is_rician and sigma > 0 else found
    rt.report(0.95, "comparing")
    return shared.handed_over(scan, clean, sigma, rt)


def predicted(data: Array, rt: Runtime) -> Array:
    """Predict each frame from all the others by least squares over all voxels (Patch2Self with patches of one voxel).

    With the frames' precision matrix P (the inverse of their covariance) the coefficients of all regressions are known
    at once: frame c takes - P[j, c] / P[c, c] of frame j.

    Parameters
    ----------
    data : ndarray, (I, J, K, C)
        Two frames or more.
    rt : Runtime

    Returns
    -------
    ndarray, (I, J, K, C) float32
    """
    frames = data.shape[-1]
    flat = np.ascontiguousarray(data).reshape(-1, frames)
    mean = flat.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((frames, frames))
    for part, share in _parts(len(flat)):
        rt.report(0.5 * share, "comparing frames")
        off = flat[part] - mean
        covariance += off.T @ off
    spread = np.sqrt(np.diag(covariance))
    spread[spread == 0] = 1.0  # a frame of one value: its mean is what is predicted
    precision = np.linalg.inv(covariance / np.outer(spread, spread) + RIDGE * np.eye(frames))
    taken = -precision / np.diag(precision) * spread / spread[:, None]
    np.fill_diagonal(taken, 0.0)
    found = np.empty_like(flat)
    for part, share in _parts(len(flat)):
        rt.report(0.5 + 0.5 * share, "predicting frames")
        found[part] = (flat[part] - mean) @ taken + mean
    return found.reshape(data.shape)


def _parts(count: int) -> Iterator[tuple[slice, float]]:
    for start in range(0, count, AT_ONCE):
        yield slice(start, start + AT_ONCE), start / count


MODELS = (Model(CARD, Params, run),)
