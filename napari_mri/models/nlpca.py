"""Non-local PCA: the default denoiser of one volume; no weights, no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared
from napari_mri.measure import rician

CARD = Card(
    name="nlpca",
    task=DENOISE,
    title="Non-local PCA",
    says=(
        "Cleans places that look alike together, in axes of their own, twice. Needs no weights; works for every "
        "contrast; a minute or two for a whole head on a processor."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    needs=("torch", "scipy"),
    cite="After Manjón, Coupé & Buades, Med Image Anal 2015;22:35 and Zhang et al., Pattern Recognition 2010;43:1531",
    rank=20,
)

@dataclass(frozen=True)
class Params:
    """Options of non-local PCA."""

    strength: float = knob(
        1.0, "How strong the noise is taken to be, as a multiple of what was found.", low=0.0, high=3.0
    )
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)
    varying: str = knob("auto", shared.VARYING_SAYS, choices=shared.VARYING)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised scan; offers the residual and the noise level.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order RAS.
    p : Params
    rt : Runtime
    """
    return shared.taken_out(scan, p, rt, denoised)


def denoised(data: NDArray[np.float32], sigma: NDArray[np.float32], is_rician: bool, rt: Runtime) -> NDArray[np.float32]:
    """Clean a volume whose noise is known.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    sigma : ndarray, (I, J, K)
        Noise level, same units, above 0.
    is_rician : bool
        Whether `data` are magnitudes; the answer then is the noise-free signal.
    rt : Runtime
    """
    import torch

    from napari_mri.nets.nonlocal_pca import cleaned

    even = rician.stabilised(np.maximum(data, 0), sigma) if is_rician else data / sigma
    floor = rician.stable_floor() if is_rician else None
    image = torch.from_numpy(np.ascontiguousarray(even, dtype=np.float32)).to(rt.device)
    clean = cleaned(image, floor, lambda f: rt.report(0.05 + 0.9 * f, "cleaning what looks alike")).cpu().numpy()
    if is_rician:
        return rician.back_from_stabilised(rician.settled(clean), sigma)
    return np.asarray(clean * sigma, dtype=np.float32)


MODELS = (Model(CARD, Params, run),)
