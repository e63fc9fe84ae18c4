"""MP-PCA of 4D series by dipy, with the noise floor taken away afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.measure import removal as shared
from napari_mri.measure import rician

CARD = Card(
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


@dataclass(frozen=True)
class Params:
    """Options of MP-PCA."""

    radius: int = knob(2, "Half the side of the patches.", low=1, high=5, unit="voxels")
    floor: bool = knob(True, shared.FLOOR_SAYS)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised series; offers the residual and the map of sigma.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
    p : Params
    rt : Runtime
    """
    from dipy.denoise.localpca import mppca

    data = np.asarray(scan.data, dtype=np.float32)
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


MODELS = (Model(CARD, Params, run),)
