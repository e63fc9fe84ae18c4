"""Classical denoisers of 4D series by dipy: MP-PCA and Patch2Self, with the noise floor taken away afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells

MPPCA = Card(
    name="mppca",
    task=DENOISE,
    title="MP-PCA",
    says=(
        "Takes the noise components out of patches of a series by the law of Marchenko and Pastur, and maps the noise. "
        "For diffusion and functional series of about 30 frames or more."
    ),
    wants=Wants(axes="", min_slices=1, frames=True, min_frames=8),
    needs=("dipy", "scipy"),
    cite="Veraart et al., NeuroImage 2016;142:394; dipy (BSD-3-Clause)",
    rank=1,
)

PATCH2SELF = Card(
    name="patch2self",
    task=DENOISE,
    title="Patch2Self",
    says="Predicts each diffusion-weighted frame linearly from all others. For diffusion series with b-values.",
    wants=Wants(axes="", min_slices=1, frames=True, min_frames=10),
    needs=("dipy", "scipy", "sklearn"),
    cite="Fadnavis et al., NeurIPS 2020; dipy (BSD-3-Clause)",
    rank=0,
)

FLOOR_SAYS = "Take the noise floor of magnitude images away afterwards, so that weak signal is not overestimated."


@dataclass(frozen=True)
class PatchParams:
    """Options of MP-PCA."""

    radius: int = knob(2, "Half the side of the patches.", low=1, high=5, unit="voxels")
    floor: bool = knob(True, FLOOR_SAYS)


@dataclass(frozen=True)
class SelfParams:
    """Options of Patch2Self."""

    floor: bool = knob(True, FLOOR_SAYS)
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)


def run_mppca(scan: Volume, p: PatchParams, rt: Runtime) -> Volume:
    """Return the denoised series; offers the residual and the map of sigma.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
    p : PatchParams
    rt : Runtime
    """
    from dipy.denoise.localpca import mppca

    data = _series(scan)
    # A short axis (few slices) is reflected so that a patch fits.
    room = [(p.radius, p.radius) if n < 2 * p.radius + 1 else (0, 0) for n in data.shape[:3]]
    wide = np.pad(data, [*room, (0, 0)], mode="symmetric")
    rt.report(0.05, "patches")
    answer, sigma = mppca(wide, patch_radius=p.radius, return_sigma=True, suppress_warning=True)
    inner = tuple(slice(low, low + n) for (low, _), n in zip(room, data.shape[:3], strict=True))
    clean, level = np.asarray(answer[inner], np.float32), np.asarray(sigma[inner], np.float32)
    rt.offer("noise level", scan.with_data(level))
    if p.floor and float(data.min()) >= 0:
        clean = rician.unbiased(clean, level[..., None])
    rt.report(0.95, "comparing")
    return shared.handed_over(scan, clean, level, rt)


def run_patch2self(scan: Volume, p: SelfParams, rt: Runtime) -> Volume:
    """Return the denoised series; offers the residual.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
        With b-values.
    p : SelfParams
    rt : Runtime

    Raises
    ------
    UnsupportedImage
        If the series has no b-values.
    """
    from dipy.denoise.patch2self import patch2self

    data = _series(scan)
    bvals = () if scan.frames is None else scan.frames.bvals
    if len(bvals) != scan.n_frames:
        raise UnsupportedImage(
            "Patch2Self needs the b-value of every frame.", hint="Put the .bval and .bvec files beside the scan."
        )
    sigma, is_rician = shells.series_noise(scan, p.sigma, "auto", rt)
    rt.report(0.1, "predicting frames")
    before = np.random.get_state()
    np.random.seed(rt.seed)  # dipy draws its sketches from numpy's common generator
    try:
        clean = np.asarray(patch2self(data, np.asarray(bvals, dtype=float), b0_threshold=shells.B0), dtype=np.float32)
    finally:
        np.random.set_state(before)
    if p.floor and is_rician and sigma > 0:
        clean = rician.unbiased(clean, sigma)
    rt.report(0.95, "comparing")
    return shared.handed_over(scan, clean, sigma, rt)


def _series(scan: Volume) -> np.ndarray:
    if scan.data.ndim != 4:
        raise UnsupportedImage("This model needs a series of frames.", hint="Use the model nlm for a single volume.")
    return np.asarray(scan.data, dtype=np.float32)


MODELS = (Model(MPPCA, PatchParams, run_mppca), Model(PATCH2SELF, SelfParams, run_patch2self))
