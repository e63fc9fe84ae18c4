"""Voxels halved along every axis by the project's own network, after the noise was taken out.

Noise is taken out by non-local PCA first, which beats what the network leaves out by itself. What the network
answers is then corrected by what the scan says beyond its noise, so a clean scan can be measured from the result and
a noisy one up to its noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Volume
from napari_mri.engine import weights as files
from napari_mri.engine.device import half_is_quick
from napari_mri.engine.runtime import part_of
from napari_mri.engine.tiles import Tiling, run_net
from napari_mri.measure.consistency import PROFILES
from napari_mri.measure.noise import Noise, brightness
from napari_mri.measure.removal import SIGMA_SAYS, noise_of
from napari_mri.models import _nonlocal
from napari_mri.models._superres import Wish, refined, tell_limits, way_to

if TYPE_CHECKING:
    from napari_mri.nets.isotropic import HalvingNet

Array = NDArray[np.float32]

WEIGHTS = Weights(
    file="isotropic.safetensors",
    sha256="dc176d3538a00fcb96e1d2c416cc86ca0309811b4d21a2a0aa52b0cd705b5759",
    licence="BSD-3-Clause",
    shipped=True,
    size=1015432,
)
SHARPER = replace(
    WEIGHTS, file="isotropic_sharper.safetensors", sha256="25d82f33b6fc683ab8f0948c72dd6f6ed6ed9fd03058cfda4b7ad34bc2204cac"
)

CARD = Card(
    name="isotropic_x2",
    task=SUPERRES,
    title="Halve voxels along all axes, trained network",
    says=(
        "Halves voxels that are about as long as wide, along all three axes, and takes out noise first; any "
        "contrast. Trained on synthetic heads only; unless you ask for the sharper twin, without a term that rewards "
        "invented texture."
    ),
    wants=Wants(axes="RAS", min_slices=3, frames=True),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS, SHARPER),
    cite="Our own; dense blocks as in Wang et al., ESRGAN 2018, and DISGAN, arXiv:2307.04321",
    rank=-1,
)

LONGEST = 120
"""Tiles are at most about this long, voxels of the scan: 2 GB of main memory."""
MARGIN = 14
RIM = 6
"""Voxels that the scan is continued by on all sides: the network is not quite right at a border."""
UNEQUAL = 1.5
"""Slices further apart than this, in voxels of the plane, are another model's work."""
NOISIEST = 6.0
"""Per cent of bright tissue: the model was tried with no stronger noise."""
TAKEN = 0.92
"""Of the noise found, how much is taken out before refining: a little grain costs less than texture does."""
UNEXPLAINED = 2.2
"""Mean square of what noise of variance 1 leaves: 2 where it is a magnitude's and there is no signal."""


@dataclass(frozen=True)
class Params:
    """Options of the halving network."""

    strength: float = knob(
        1.0, "How much of the noise found is to be taken out, as a multiple; 0 keeps it.", low=0.0, high=2.0
    )
    sigma: float = knob(0.0, SIGMA_SAYS, low=0.0, high=1e9)
    profile: str = knob("box", "Sensitivity across a voxel: even (box) or Gaussian.", choices=PROFILES)
    consistent: bool = knob(True, "Correct the result by all that the scan says beyond its noise.")
    sharper: bool = knob(
        False, "Sharper, may invent texture: the twin trained to look real (a GAN). For looking at, not for measuring."
    )


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return a scan, (I, J, K) or (I, J, K, C), with twice as many voxels along each axis; by-products as of `cubic`.

    All eight outer corners stay. Offers ``"residual"``: scan minus re-sampled result, on the scan's grid; it holds
    the noise that was taken out.

    Parameters
    ----------
    scan : Volume
    p : Params
    rt : Runtime

    Raises
    ------
    BadOption
        If the result would be too large.
    """
    wish = Wish(profile=p.profile)
    way = way_to(scan.grid, np.asarray(scan.spacing) / 2, wish)
    tell_limits(scan, way, wish, rt)
    _tell_shape(scan, rt)
    rt.report(0.0, "measuring the noise")
    found = _noise(scan, p, rt)
    level = found.sigma * p.strength if found is not None else 0.0
    chosen = SHARPER if p.sharper else WEIGHTS
    if p.sharper:
        rt.warn("The sharper network was trained to look real: fine texture may be invented. Do not measure in it.")
    net = rt.keep(f"isotropic_x2 {chosen.file}", lambda: load_net(rt, chosen))

    def make(start: Array, number: int) -> Array:
        low, share = 0.03 + 0.95 * number / scan.n_frames, 0.95 / scan.n_frames
        seen = start
        if found is not None and level > 0:
            seen = explained(start, level, found.kind == "rician", part_of(rt, low, low + 0.5 * share))
            low, share = low + 0.5 * share, 0.5 * share
        rt.report(low, "interpolating")
        result = way.spline(seen) + lacking(seen, 0.0, net, part_of(rt, low, low + share))
        return way.agreed(result, seen, consistent=p.consistent)

    result = refined(scan, way, make, rt)
    if found is not None and level > 0:
        rt.warn(
            f"Noise of {found.percent * p.strength:.1f} % of bright tissue was taken out and is a part of that figure: "
            "look in the residual for anatomy that went with it."
        )
    return result


def _tell_shape(scan: Volume, rt: Runtime) -> None:
    """Say when the slices are thick: this network knows cubes."""
    step = scan.spacing
    if max(step) > UNEQUAL * min(step):
        rt.warn(
            f"Slices {max(step):.3g} mm apart and voxels of {min(step):.3g} mm within them: this network was trained on "
            "cubes. Make the scan isotropic by through_plane first, or instead."
        )


def _noise(scan: Volume, p: Params, rt: Runtime) -> Noise | None:
    """Return the noise; None where it is to stay, or is not sure to be noise."""
    first = np.asarray(scan.frame(0).data)
    if p.strength <= 0 or first.size < 512 or not float(first.max()) > float(first.min()):
        return None
    found = noise_of(scan, p.sigma, "auto", rt)
    if not found.trusted:  # texture taken for noise costs more than noise that stays
        rt.warn("So no noise was taken out: tell its level (sigma) if there is some.")
        return None
    if found.percent * p.strength > NOISIEST:
        rt.warn(
            f"Noise of {found.percent:.1f} % is more than this model was tried with (0 to 6 %): look closely."
        )
    return found


def lacking(start: Array, level: float, net: HalvingNet, rt: Any) -> Array:
    """Return what the cubic spline lacks (or has too much, where it is noise), as the network tells it.

    Parameters
    ----------
    start : ndarray, (I, J, K)
    level : float
        Standard deviation of the noise, in the units of the scan.
    net : HalvingNet
    rt : Runtime

    Returns
    -------
    ndarray, (2 I, 2 J, 2 K), float32
    """
    from napari_mri.nets.isotropic import Halved

    unit = np.float32(brightness(np.abs(start)))
    full = np.pad(start / unit, RIM, mode="edge")
    pair = np.stack([full, np.full_like(full, level / unit)])
    parts = run_net(Halved(net, half_is_quick(rt.device)), pair, cut(full.shape), rt).mean
    i, j, k = start.shape
    parts = parts[:, RIM : RIM + i, RIM : RIM + j, RIM : RIM + k].reshape(2, 2, 2, i, j, k)
    return np.asarray(parts.transpose(3, 0, 4, 1, 5, 2).reshape(2 * i, 2 * j, 2 * k) * unit, dtype=np.float32)


def explained(start: Array, level: float, is_rician: bool, rt: Any) -> Array:
    """Return a scan without its noise, and with all that noise of this level does not explain.

    Where the difference to the scan, around a voxel, is no larger than the noise leaves, nothing is put back.

    Parameters
    ----------
    start : ndarray, (I, J, K)
    level : float
        Standard deviation of the noise, in the units of the scan, above 0.
    is_rician : bool
        Whether the scan is a magnitude.
    rt : Runtime
    """
    from scipy.ndimage import uniform_filter

    clean = _nonlocal.denoised(np.asarray(start, np.float32), np.full(start.shape, TAKEN * level, np.float32), is_rician, rt)
    gap = start - clean
    power = uniform_filter(gap**2, 5)
    gap *= np.maximum(0, 1 - UNEXPLAINED * level**2 / np.maximum(power, 1e-30))
    return np.asarray(clean + gap, dtype=np.float32)


def cut(shape: tuple[int, ...]) -> Tiling:
    """Return the fewest tiles no longer than `LONGEST` along each axis, overlapping by `MARGIN` voxels."""
    sides, share = [], 0.0
    for n in shape:
        count = max(1, -(-(n - MARGIN) // (LONGEST - MARGIN)))
        side = n if count == 1 else -(-(n - MARGIN) // count) + MARGIN
        sides.append(side)
        share = max(share, 0.0 if count == 1 else (MARGIN - 1) / side)
    return Tiling((sides[0], sides[1], sides[2]), overlap=share, gaussian=True, multiple=1, least=24)


def load_net(rt: Runtime, chosen: Weights | None = None) -> HalvingNet:
    """Build the network that weights (those trained with L1 alone, by default) were made for, and fill them in."""
    import torch

    from napari_mri.nets.isotropic import from_state

    state = {name: tensor.float() for name, tensor in files.load(rt.weights(chosen or WEIGHTS)).items()}
    net: HalvingNet = from_state(state).to(rt.device).to(memory_format=torch.channels_last_3d).eval()
    return net


MODELS = (Model(CARD, Params, run=run),)
