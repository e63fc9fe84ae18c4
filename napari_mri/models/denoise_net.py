"""Denoise one volume with the project's own network: seconds, any contrast and spacing, noise level told to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Volume
from napari_mri.engine import weights as files
from napari_mri.engine.tiles import Tiling, run_net
from napari_mri.measure import removal as shared
from napari_mri.measure.noise import brightness

if TYPE_CHECKING:
    from napari_mri.nets.denoiser import Denoiser

Array = NDArray[np.float32]

WEIGHTS = Weights(
    file="denoiser.safetensors",
    sha256="ba9f8c32d95d48e34fd03212cef9d041e7c21201518da762ffa31dd2e4c171b8",
    licence="BSD-3-Clause",
    shipped=True,
)

CARD = Card(
    name="net3d",
    task=DENOISE,
    title="Trained 3D network",
    says=(
        "Our own network, told the noise level, for any single volume; by far the quickest. Trained on synthetic images "
        "only, it removes about as much noise as non-local means and less than non-local PCA: for a quick look."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS,),
    cite="Our own; noise map as in Zhang et al., FFDNet, IEEE TIP 2018;27:4608",
    # Below 0 until its figures in docs/denoise.md pass those of non-local PCA: never a default before that.
    rank=-1,
)

LONGEST = 176
"""Tiles are at most about this long, voxels: 3 GB of main memory."""
MARGIN = 16
BLOCK = 4
"""Voxels along each axis whose mean is looked at for the darkest parts."""


@dataclass(frozen=True)
class Params:
    """Options of the network denoiser."""

    strength: float = knob(
        1.0,
        "How strong the network is told the noise is, as a multiple of what was found: below 1 keeps more fine "
        "detail and more noise, above 1 smooths more.",
        low=0.0,
        high=3.0,
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


def denoised(data: Array, sigma: Array, rician: bool, rt: Runtime) -> Array:
    """Run the network.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    sigma : ndarray, (I, J, K)
        Noise level the network is told, same units.
    rician : bool
        Whether `data` are magnitudes; the answer then is the noise-free signal, not negative.
    rt : Runtime

    Returns
    -------
    ndarray, (I, J, K) float32
    """
    from napari_mri.nets.denoiser import Told

    net = rt.keep("denoiser", lambda: load_net(rt))
    low = np.float32(0) if rician else ground(data, sigma)
    unit = np.float32(brightness(data - low))
    pair = np.stack([(data - low) / unit, sigma / unit])
    # Reflected beyond the border, so that the rim of a scan (and a thin one) has neighbours to learn from.
    sides = [beyond(n, net.multiple) for n in data.shape]
    full = np.pad(pair, [(0, 0), *sides], mode="symmetric")
    tiling = cut(full.shape[1:], net.multiple)
    answer = run_net(Told(net, rician), full, tiling, rt).mean[0]
    inner = tuple(slice(before, before + n) for (before, _), n in zip(sides, data.shape, strict=True))
    clean = answer[inner] * unit + low
    return np.asarray(np.maximum(clean, 0) if rician else clean, dtype=np.float32)


def ground(data: Array, sigma: Array) -> np.float32:
    """Return the level of the darkest parts where that lies below zero by more than noise, as in a scan of mean 0; else 0.

    What the network has learned begins with air at 0.
    """
    from scipy.ndimage import uniform_filter

    if float(data.min()) >= 0:
        return np.float32(0)
    blocks = uniform_filter(data, BLOCK)[::BLOCK, ::BLOCK, ::BLOCK]
    low = np.float32(np.percentile(blocks, 1))
    return low if low < -float(np.median(sigma)) else np.float32(0)


def beyond(n: int, multiple: int) -> tuple[int, int]:
    """How much to reflect on both sides: to a multiple, at least two voxels where the scan allows it."""
    least = n + 2 * min(2, n)
    total = -(-least // multiple) * multiple - n
    return total // 2, total - total // 2


def cut(shape: tuple[int, ...], multiple: int) -> Tiling:
    """Return the fewest tiles no longer than `LONGEST` along each axis, overlapping by `MARGIN` voxels."""
    sides, share = [], 0.0
    for n in shape:
        count = -(-max(n - MARGIN, 1) // (LONGEST - MARGIN))
        side = n if count == 1 else -(-((n - MARGIN) // count + MARGIN) // multiple) * multiple
        sides.append(side)
        share = max(share, 0.0 if count == 1 else (MARGIN - multiple) / side)
    return Tiling((sides[0], sides[1], sides[2]), overlap=share, gaussian=True, multiple=multiple)


def load_net(rt: Runtime) -> Denoiser:
    """Build the network the weights were made for, and fill them in."""
    import torch

    from napari_mri.nets.denoiser import from_state

    state = {name: tensor.float() for name, tensor in files.load(rt.weights(WEIGHTS)).items()}
    net: Denoiser = from_state(state).to(rt.device).to(memory_format=torch.channels_last_3d).eval()
    return net


MODELS = (Model(CARD, Params, run),)
