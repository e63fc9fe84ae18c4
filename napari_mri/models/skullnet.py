"""Skull-strip any contrast by our own network, trained on synthetic heads only.

The network sees a 2 mm copy in RAS order and tells each voxel's signed distance to two surfaces: the inner
skull (brain with the CSF around it) and the brain itself. The mask is a threshold on that distance, brought
home as a distance and not as a mask, so its outline is smooth at any spacing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import SKULLSTRIP, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.engine import weights as files

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

WEIGHTS = Weights(
    "skullnet.safetensors",
    sha256="ab176a6d853ec452f3d09905b95a6ecc7b1a5ca9b0c59b782e85c5c5086b16ae",
    licence="BSD-3-Clause",
    shipped=True,
    size=3208328,
)
CARD = Card(
    name="skullnet",
    task=SKULLSTRIP,
    title="Skull-strip network",
    says=(
        "Strips T1, T2, FLAIR, PD, diffusion and other contrasts at any resolution, in seconds on a CPU. "
        "Trained on synthetic heads only; look at the skull base and at large lesions that reach the skull."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    needs=("safetensors", "scipy"),
    weights=(WEIGHTS,),
    cite="Generator after Hoopes et al., NeuroImage 2022 (SynthStrip) and Billot et al., Med Image Anal 2023 (SynthSeg)",
    rank=100,
)
STEP_MM = 2.0
"""Spacing of the network's copy; the one it was trained on last."""
MULTIPLE = 16
"""Sides that the network can halve four times."""
REACH_MM = 12.0
"""Distances are right up to here, and clipped beyond."""
LIKELY_ML = (700.0, 2200.0)


@dataclass(frozen=True)
class Params:
    """Options of the skull-strip network."""

    csf: bool = knob(
        True, "Count the fluid around the brain, up to the inner skull, as brain; off, the mask follows the brain."
    )
    border: float = knob(
        0.0, "Grow the mask outward by this much, or shrink it if negative.", low=-10.0, high=10.0, unit="mm"
    )
    variants: int = knob(
        1,
        "Mirrored and shifted copies to average; 2 or 4 take longer and also tell where they disagree.",
        choices=(1, 2, 4),
    )


def run(scan: Volume, p: Params, rt: Runtime) -> Labels:
    """Return the brain mask (1 = brain) of a 3D scan, on its grid; offers the distance and the uncertainty.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order RAS.
    p : Params
    rt : Runtime
    """
    rt.report(0.0, "making a 2 mm copy")
    grid = scan.grid.respaced((STEP_MM,) * 3)
    small = fit.unit_scaled(fit.resampled(scan.data, scan.grid, grid))
    if not small.any():
        rt.warn("Every voxel has the same value, so there is nothing to strip.")
        return scan.with_labels(np.zeros(scan.grid.shape, dtype=np.uint8), {1: "brain"})
    answers = predict(small, p, rt)
    rt.report(0.7, "bringing the mask home")
    channel = 0 if p.csf else 1
    near, spread = answers.mean(0)[channel], answers.std(0)[channel]
    _judge(near, small, rt)
    near = _one_piece(in_mm(near), p.border, rt)
    distance, mask = home(near, grid, scan.grid, p.border)
    rt.offer("distance", scan.with_data(distance))
    if p.variants > 1:
        rt.offer("uncertainty", scan.with_data(fit.resampled(spread, grid, scan.grid)))
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


def predict(small: Array, p: Params, rt: Runtime) -> Array:
    """Run the network on one to four variants of the copy.

    Returns
    -------
    ndarray, (variants, 2, I, J, K) float32
        Signed distances in mm, negative inside: to the inner skull, to the brain.
    """
    quick = rt.device != "cpu" or "torch" in sys.modules
    net = rt.keep(f"skullnet {quick}", lambda: by_torch(rt) if quick else by_numpy(rt))
    answers = []
    for number in range(p.variants):
        rt.report(0.1 + 0.6 * number / p.variants, "running the network")
        # Odd variants are mirrored left to right; the later two are shifted by half a block of voxels.
        mirrored, moved = number % 2 == 1, number // 2
        image = small[::-1] if mirrored else small
        full, inner = _padded(image, MULTIPLE, moved)
        answer = net(full)[(slice(None), *inner)] * np.float32(STEP_MM)
        answers.append(answer[:, ::-1] if mirrored else answer)
    return np.stack(answers)


def by_torch(rt: Runtime) -> Callable[[Array], Array]:
    """Return the network with the shipped weights on the run's device: (I, J, K) to (2, I, J, K) voxels."""
    import torch

    from napari_mri.nets.unet import FoldedUNet

    net = FoldedUNet()
    net.load_state_dict({name: tensor.float() for name, tensor in files.load(rt.weights(WEIGHTS)).items()})
    net = net.to(rt.device).to(memory_format=torch.channels_last_3d).eval()

    def ask(image: Array) -> Array:
        with torch.inference_mode(), torch.autocast(rt.device, torch.float16, enabled=rt.device == "cuda"):
            answer = net(torch.from_numpy(np.ascontiguousarray(image))[None, None].to(rt.device))
        return np.asarray(answer.float()[0].cpu().numpy())

    return ask


def by_numpy(rt: Runtime) -> Callable[[Array], Array]:
    """Return the same for a processor and a process that torch is not loaded in: its import alone takes longer."""
    from napari_mri.nets.unet_numpy import FoldedUNet

    return FoldedUNet(files.load_arrays(rt.weights(WEIGHTS)))


def in_mm(near: Array) -> Array:
    """Stretch distances so that they grow by 1 mm per mm; the surface itself stays where it is.

    A regression that is unsure tells too short a distance on both sides. Its own slope, averaged over a
    centimetre, says by how much.

    Parameters
    ----------
    near : ndarray, (I, J, K)
        mm, negative inside, on the network's grid.
    """
    from scipy.ndimage import uniform_filter

    if min(near.shape) < 2:
        return near
    slope = np.zeros(near.shape, dtype=np.float32)
    for part in np.gradient(near, STEP_MM):
        slope += part * part
    return (near / np.clip(uniform_filter(np.sqrt(slope), 5), 0.5, 1.5)).astype(np.float32)


def _padded(image: Array, multiple: int, moved: int) -> tuple[Array, tuple[slice, slice, slice]]:
    """Pad with background at the far end of each axis, and `moved` voxels at the near end."""
    sides = [(moved, -(n + moved) % multiple) for n in image.shape]
    inner = tuple(slice(moved, moved + n) for n in image.shape)
    return np.pad(image, sides), (inner[0], inner[1], inner[2])


def _one_piece(near: Array, border: float, rt: Runtime) -> Array:
    """Push all but the largest piece out of the mask, and fill its holes."""
    from scipy.ndimage import binary_fill_holes, label

    mask = near < border
    pieces, count = label(mask)
    if count == 0:
        return near
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    main = pieces == int(sizes.argmax())
    ml = STEP_MM**3 / 1000
    others = sorted((float(s) * ml for s in np.delete(sizes, sizes.argmax())), reverse=True)
    if others and others[0] > max(20.0, 0.05 * sizes.max() * ml):
        rt.warn(f"The mask fell into several pieces; one of {others[0]:.0f} ml was dropped. Look at the result.")
    out = np.where(mask & ~main, np.maximum(near, border + STEP_MM), near)
    holes = binary_fill_holes(main) & ~main
    return np.where(holes, np.minimum(out, border - STEP_MM), out).astype(np.float32)


def _judge(near: Array, small: Array, rt: Runtime) -> None:
    """Warn of a volume no brain has, and of a scan without a scalp."""
    inside = near < 0
    ml = float(inside.sum()) * STEP_MM**3 / 1000
    if inside.any() and not LIKELY_ML[0] <= ml <= LIKELY_ML[1]:
        rt.warn(
            f"The mask holds {ml:.0f} ml; adult brains have {LIKELY_ML[0]:.0f} to {LIKELY_ML[1]:.0f} ml. "
            "It may be a child or a part of the head, or the result may be wrong."
        )
    rim = (near > 4.0) & (near < 20.0)
    level = 0.1 * float(np.median(small[inside])) if inside.any() else 0.0
    if inside.any() and rim.any() and float((small[rim] > level).mean()) < 0.08:
        rt.warn("There is hardly anything around the brain: the scan may be stripped already.")


def home(near: Array, grid: Grid, scan: Grid, border: float) -> tuple[Array, NDArray[Any]]:
    """Bring the distance to the scan's grid and cut it.

    Parameters
    ----------
    near : ndarray, `grid.shape`
        mm, negative inside.
    grid, scan : Grid
        Of the copy and of the scan.
    border : float
        mm.

    Returns
    -------
    distance : ndarray, `scan.shape`, float32
        Clipped at +-`REACH_MM`.
    mask : ndarray, `scan.shape`, uint8
    """
    distance = np.full(scan.shape, REACH_MM, dtype=np.float32)
    # Only the box around the brain is interpolated: elsewhere the distance is beyond the clip anyway.
    close = np.nonzero(near < REACH_MM)
    if not close[0].size:
        return distance, np.zeros(scan.shape, dtype=np.uint8)
    ends = np.array([[axis.min() - 1, axis.max() + 1] for axis in close], dtype=float)
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    places = scan.to_voxels(grid.to_patient(corners))
    low = np.clip(np.floor(places.min(0)), 0, np.asarray(scan.shape) - 1).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, low + 1, scan.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    fine = fit.resampled(np.clip(near, -REACH_MM, REACH_MM), grid, scan.cropped(low, high))
    distance[box] = fine
    return distance, (distance < border).astype(np.uint8)


MODELS = (Model(CARD, Params, run),)
