"""Non-local PCA: the default denoiser of one volume; no weights, no training."""

from __future__ import annotations

from dataclasses import dataclass

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared
from napari_mri.models._nonlocal import denoised

CARD = Card(
    name="nlpca",
    task=DENOISE,
    title="Non-local PCA",
    says=(
        "Cleans places that look alike together, in axes of their own, twice. Needs no weights; works for every "
        "contrast; about half a minute for a whole head on two processor cores."
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


MODELS = (Model(CARD, Params, run),)
