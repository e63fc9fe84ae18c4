"""What is taken out of a scan: the noise found first, the residual handed over, structure in it noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Volume
from napari_mri.measure import noise as measure
from napari_mri.measure.noise import Noise

Array = NDArray[np.float32]

KINDS = ("auto", "rician", "gaussian")
SIGMA_SAYS = "Standard deviation of the noise in the scan's own units; 0 measures it in the scan."
KIND_SAYS = (
    "Rician for magnitude images (their noise floor is taken away as well), Gaussian where the scan has negative "
    "values or a floor that must stay; auto looks."
)
FLOOR_SAYS = "Take the noise floor of magnitude images away afterwards, so that weak signal is not overestimated."
VARYING_SAYS = (
    "Whether the noise level is followed over the field of view (parallel imaging, surface coils) or taken as one number."
)
VARYING = ("auto", "yes", "no")
STRAY = 0.01
"""Share of voxels below zero that interpolation may have left in a magnitude."""
ENOUGH_TISSUE = 500
"""Voxels of tissue by which a residual can be judged, at least."""
ENOUGH = 500_000
"""Voxels from which on no more of them make the ratio below surer."""
STRUCTURE = 1.5
"""Residual at edges over residual in flat tissue, from which on structure is leaving with the noise."""


def noise_of(scan: Volume, sigma: float, kind: str, rt: Runtime) -> Noise:
    """Measure the noise, or take the user's word for it; the user is told either way.

    Parameters
    ----------
    scan : Volume
        3D, or a series, whose first frame is measured.
    sigma : float
        0 to measure.
    kind : str
        One of `KINDS`.
    rt : Runtime

    Raises
    ------
    BadOption
        If the noise is called Rician where more than `STRAY` of the voxels lie below zero: a magnitude has no such.
    """
    first = np.asarray(scan.frame(0).data)
    if kind == "rician":
        below = float(np.count_nonzero(first < 0)) / first.size
        if below > STRAY:
            raise BadOption(
                f"The noise cannot be Rician: {100 * below:.0f} % of the voxels lie below zero, and a magnitude has none there.",
                hint="Leave the kind at auto, or choose Gaussian.",
            )
    if sigma > 0:
        kind = kind if kind != "auto" else "rician" if first.min() >= 0 else "gaussian"
        percent = 100 * sigma / max(measure.brightness(first), 1e-12)
        return Noise(sigma, percent, kind, "the user", np.nan, np.nan, True)
    found = measure.estimate(scan, rt.device)
    kind = found.kind if kind == "auto" else kind
    if not found.trusted:
        rt.warn("The noise estimate may be wrong. " + " ".join(found.notes))
    rt.report(0.02, f"σ = {found.sigma:.4g} ({found.percent:.1f} % of bright tissue)")
    return Noise(found.sigma, found.percent, kind, found.how, found.background, found.detail, found.trusted, found.notes)


def noise_map(scan: Volume, found: Noise, varying: str) -> Array:
    """Return sigma at every voxel: one number, or a map where it varies.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    found : Noise
    varying : str
        ``"auto"``, ``"yes"`` or ``"no"``.
    """
    flat = np.full(scan.grid.shape, found.sigma, dtype=np.float32)
    if varying == "no" or found.sigma <= 0 or found.how == "the user" or min(scan.grid.shape) < 8:
        return flat
    # Anatomy looks like extra noise in the tissue; only a clear excess is taken for a varying level.
    excess = np.isfinite(found.background) and found.detail > 1.35 * found.background and found.percent > 1.0
    if varying == "auto" and not excess:
        return flat
    return measure.sigma_map(scan, found)


class Wish(Protocol):
    """The options that denoisers of one volume with a noise level at every voxel have in common."""

    @property
    def strength(self) -> float:
        """Multiple of the noise found."""

    @property
    def sigma(self) -> float:
        """0 to measure."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def varying(self) -> str:
        """One of `VARYING`."""


def taken_out(scan: Volume, p: Wish, rt: Runtime, method: Callable[[Array, Array, bool, Runtime], Array]) -> Volume:
    """Measure the noise, let a method clean the volume, and hand the result over.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    p : Wish
    rt : Runtime
    method : callable
        ``method(data, sigma, is_rician, rt)``, data and sigma (I, J, K) float32; not called where there is no noise.
    """
    rt.report(0.0, "measuring the noise")
    data = np.asarray(scan.data, dtype=np.float32)
    if not float(data.max()) > float(data.min()):
        rt.warn("Every voxel has the same value, so there is no noise to remove.")
        return scan.with_data(data)
    found = noise_of(scan, p.sigma, p.kind, rt)
    level = noise_map(scan, found, p.varying) * np.float32(p.strength)
    if not level.any():
        return left_alone(scan, data, p.strength, rt)
    return handed_over(scan, method(data, level, found.kind == "rician", rt), level, rt)


def left_alone(scan: Volume, data: NDArray[Any], strength: float, rt: Runtime) -> Volume:
    """Hand a scan over as it was, and say so unless that was wished (`strength` 0)."""
    if strength > 0:
        rt.warn("No noise was found, so nothing was changed.")
    return handed_over(scan, data, 0.0, rt)


def handed_over(scan: Volume, answer: NDArray[Any], sigma: Array | float, rt: Runtime) -> Volume:
    """Return the result; offer what was removed and the noise level; warn if structure left with the noise.

    Parameters
    ----------
    scan : Volume
        As given to the model.
    answer : ndarray, `scan.data.shape`
    sigma : ndarray, (I, J, K), or float
    rt : Runtime
    """
    before = np.asarray(scan.data, dtype=np.float32)
    result = np.asarray(answer, dtype=np.float32)
    residual = before - result
    rt.offer("residual", scan.with_data(residual))
    level = np.broadcast_to(np.asarray(sigma, dtype=np.float32), scan.grid.shape)
    rt.offer("noise level", scan.with_data(np.array(level)))
    number = 0 if residual.ndim == 3 else residual.shape[3] // 2
    sight = residual if residual.ndim == 3 else residual[..., number]
    clean = result if result.ndim == 3 else result[..., number]
    ratio = structure(sight, clean, level)
    if ratio == float("inf"):
        rt.warn("All that was there has gone with the noise. Is sigma too high? Look at the residual, and lower the strength.")
    elif ratio > STRUCTURE:
        rt.warn(
            f"Structure leaves with the noise: what was removed is {ratio:.1f} times stronger at edges than in flat "
            "tissue. Look at the residual, and lower the strength."
        )
    return scan.with_data(result)


def structure(residual: Array, clean: Array, sigma: Array) -> float:
    """Return how much stronger a residual is at edges than in flat tissue; about 1 for pure noise.

    Parameters
    ----------
    residual, clean, sigma : ndarray, (I, J, K)
        What was removed, the result, and the noise level.

    Returns
    -------
    float
        Ratio of the root mean squares (of residual / sigma), 0 where there is too little to judge; infinite where all
        that there was has gone.
    """
    if min(clean.shape) < 3 or not np.any(residual):
        return 0.0
    middle, thick = clean.shape[0] // 2, min(24, max(4, ENOUGH // (2 * clean[0].size)))
    part = slice(max(0, middle - thick), middle + thick)
    image, left, level = clean[part], residual[part], np.maximum(sigma[part], 1e-12)
    tissue = image > 0.25 * measure.brightness(image)
    if np.count_nonzero(tissue) < ENOUGH_TISSUE:
        before = image + left
        there = np.count_nonzero(before > 0.25 * measure.brightness(before))
        return float("inf") if there >= ENOUGH_TISSUE and before.max() > before.min() else 0.0
    slope = measure.slope(image, 1.0)[tissue]
    energy = ((left / level) ** 2)[tissue]
    flat, edge = slope <= np.percentile(slope, 40), slope >= np.percentile(slope, 92)
    calm = float(np.sqrt(energy[flat].mean()))
    return float(np.sqrt(energy[edge].mean())) / calm if calm > 1e-6 else 0.0
