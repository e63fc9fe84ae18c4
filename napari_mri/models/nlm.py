"""Non-local means by dipy: the classical denoiser of one volume; no weights, no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared

CARD = Card(
    name="nlm",
    task=DENOISE,
    title="Non-local means",
    says="Averages places that look alike within the same volume. Classical, predictable, a few seconds.",
    wants=Wants(axes="RAS", min_slices=3),
    needs=("dipy", "scipy"),
    cite="Coupé et al., IEEE TMI 2008;27:425; dipy (BSD-3-Clause)",
    rank=5,
)


@dataclass(frozen=True)
class Params:
    """Options of non-local means."""

    strength: float = knob(
        1.0, "How strong the noise is taken to be, as a multiple of what was found.", low=0.0, high=3.0
    )
    reach: int = knob(3, "How far away a place that looks alike is searched for.", low=1, high=11, unit="voxels")
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised scan; offers the residual and the noise level.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    p : Params
    rt : Runtime
    """
    from dipy.denoise.nlmeans import nlmeans

    rt.report(0.0, "measuring the noise")
    data = np.asarray(scan.data, dtype=np.float32)
    if not float(data.max()) > float(data.min()):
        rt.warn("Every voxel has the same value, so there is no noise to remove.")
        return scan.with_data(data)
    found = shared.noise_of(scan, p.sigma, p.kind, rt)
    sigma = found.sigma * p.strength
    if sigma <= 0:
        return shared.left_alone(scan, data, p.strength, rt)
    rt.report(0.1, "averaging what looks alike")
    # dipy leaves a rim without neighbours unfiltered, and reads double precision only.
    room = min(p.reach + 2, min(data.shape) - 1)
    wide = np.pad(data, room, mode="reflect").astype(np.float64)
    is_rician = found.kind == "rician"
    lowest = 0.0 if is_rician else float(wide.min())
    answer = nlmeans(wide - lowest, sigma, patch_radius=1, block_radius=p.reach, rician=is_rician, method="classic")
    inner = tuple(slice(room, room + n) for n in data.shape)
    rt.report(0.95, "comparing")
    return shared.handed_over(scan, answer[inner] + lowest, sigma, rt)


MODELS = (Model(CARD, Params, run),)
