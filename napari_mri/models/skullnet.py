"""Skull-strip any contrast by our own network, trained on synthetic heads only.

The network sees a 2 mm copy in RAS order and tells each voxel's signed distance to two surfaces: the inner
skull (brain with the CSF around it) and the brain itself. The mask is a threshold on that distance, brought
home as a distance and not as a mask, so its outline is smooth at any spacing. A second network tells which structures
may stand at the outline; how bright each is in this very scan then moves it by a millimetre or two (`_tones`).
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
from napari_mri.models._anatomy import INNER
from napari_mri.models._anatomy_net import ANATOMY, network
from napari_mri.models._click3d_rounds import extent
from napari_mri.models._tones import nearest, probable, sharpened

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
    weights=(WEIGHTS, ANATOMY),
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
BAND_MM, MOST_MM, SOFT_MM = 6.0, 3.0, 0.7
"""Brightness is looked at this near to the outline, moves it at most so far, and is smoothed by this."""
EVEN_MM = 0.01
"""What lies on an outline to the voxel counts as so far from it."""
ROOM_MM = 20.0
"""So much around the brain is looked at."""
UNSURE_MM = 1.0
"""How far the outline may be off before brightness is looked at: odds are the distance in these."""


@dataclass(frozen=True)
class Params:
    """Options of the skull-strip network."""

    csf: bool = knob(
        True, "Count the fluid around the brain, up to the inner skull, as brain; off, the mask follows the brain."
    )
    border: float = knob(
        0.0, "Grow the mask outward by this much, or shrink it if negative.", low=-10.0, high=10.0, unit="mm"
    )
    tones: bool = knob(
        True, "Move the inner skull's outline, by at most 3 mm, to where the brightness of tissues in this scan has it."
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
    copy = fit.resampled(scan.data, scan.grid, grid)
    scale = fit.unit_scale(copy)
    small = fit.unit_scaled(copy, scale)
    if scale is None:
        rt.warn("Every voxel has the same value, so there is nothing to strip.")
        return scan.with_labels(np.zeros(scan.grid.shape, dtype=np.uint8), {1: "brain"})
    answers = predict(small, p, rt)
    rt.report(0.7, "bringing the mask home")
    channel = 0 if p.csf else 1
    near, spread = answers.mean(0)[channel], answers.std(0)[channel]
    _judge(near, small, rt)
    near = _one_piece(in_mm(near), p.border, rt)
    distance, mask = home(near, grid, scan.grid, p.border)
    if p.csf and p.tones and mask.any():
        rt.report(0.75, "looking at the brightness of tissues")
        distance, mask = _kept(moved(distance, Looked(near, small, grid), scan, scale, rt), scan.grid, grid, p.border)
    rt.offer("distance", scan.with_data(distance))
    if p.variants > 1:
        rt.offer("uncertainty", scan.with_data(fit.resampled(spread, grid, scan.grid)))
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


@dataclass(frozen=True, eq=False)
class Looked:
    """The 2 mm copy, scaled, and the distance to the inner skull on it, mm."""

    near: Array
    small: Array
    grid: Grid


def moved(distance: Array, looked: Looked, scan: Volume, scale: fit.Scale, rt: Runtime) -> Array:
    """Move an outline to where the brightness of what lies inside and outside of it has it.

    Parameters
    ----------
    distance : ndarray, (I, J, K)
        mm to the inner skull, negative inside, on the grid of the scan.
    looked : Looked
    scan : Volume
    scale : Scale
        From the scan's intensities to those of the copy.
    rt : Runtime
    """
    from scipy.ndimage import gaussian_filter

    near, small, grid = _around(looked)
    full, inner = _padded(small, MULTIPLE, 0)
    maps = probable(network(rt)(full)[(slice(0, -1), *inner)])
    # What the second network says of structures, what the first says of the outline.
    brain = 1 / (1 + np.exp(np.clip(near / UNSURE_MM, -30, 30)))
    maps += np.float32(1e-4)
    own = np.zeros(256, dtype=bool)
    own[INNER] = True
    inner_skull = own[: len(maps)]
    for part, share in ((inner_skull, brain), (~inner_skull, 1 - brain)):
        maps[part] *= share / maps[part].sum(axis=0)
    _, tones = sharpened(maps, small, STEP_MM)
    if tones is None:
        return distance
    band = np.abs(distance) < BAND_MM
    span = extent(band)
    if span is None:
        return distance
    box = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
    spots = np.nonzero(band[box])
    at = nearest(scan.grid.cropped(span[0], span[1] + 1), spots, grid)
    values = fit.unit_scaled(fit.finite(scan.data[box][spots]), scale)
    shift = np.zeros(distance[box].shape, dtype=np.float32)
    shift[spots] = np.clip(UNSURE_MM * tones.gain(values, at, own), -MOST_MM, MOST_MM)
    out = distance.copy()
    out[box] -= gaussian_filter(shift, SOFT_MM / np.asarray(scan.grid.spacing))
    return np.clip(out, -REACH_MM, REACH_MM)


def _kept(edge: Array, scan: Grid, grid: Grid, border: float) -> tuple[Array, NDArray[np.uint8]]:
    """Return the distance to a moved outline, mm, and the mask within `border` of it, both (I, J, K) on the scan's grid.

    Parameters
    ----------
    edge : ndarray, (I, J, K)
        Below 0 inside the outline; no distance, since it was moved more at one place than at the next.
    scan, grid : Grid
        Of the scan, and of its copy, on which distances are measured.
    border : float
    """
    mask = _main_part(edge < 0)
    soft = np.where(mask, np.minimum(edge, -EVEN_MM), np.maximum(edge, EVEN_MM)).clip(-STEP_MM, STEP_MM)
    near = _distances(fit.resampled(soft, scan, grid))
    distance, _ = home(near, grid, scan, border)
    distance = np.where(mask, np.minimum(distance, -EVEN_MM), np.maximum(distance, EVEN_MM)).astype(np.float32)
    return distance, mask if border == 0 else _main_part(distance < border)


def _distances(soft: Array) -> Array:
    """Return the distance, mm, to where a field (I, J, K) of the copy is 0; negative where it is."""
    from scipy.ndimage import distance_transform_edt

    inside = soft < 0
    around = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5) * STEP_MM
    slope = np.sqrt(sum(part * part for part in np.gradient(soft, STEP_MM)))
    near = soft / np.maximum(slope, 0.5)
    return np.where(np.abs(around) <= STEP_MM, near.clip(-STEP_MM, STEP_MM), around).astype(np.float32)


def _around(looked: Looked) -> tuple[Array, Array, Grid]:
    """Return what was looked at in a box around the brain with room to see beyond."""
    span = extent(looked.near < ROOM_MM)
    assert span is not None, "there is a mask"
    part = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
    return looked.near[part], looked.small[part], looked.grid.cropped(span[0], span[1] + 1)


def _main_part(mask: Mask) -> NDArray[np.uint8]:
    """Return the largest piece of a mask, without holes."""
    from scipy.ndimage import binary_fill_holes, find_objects, label

    part = find_objects(mask.view(np.uint8))
    if not part:
        return mask.astype(np.uint8)
    pieces, count = label(mask[part[0]])
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    out = np.zeros(mask.shape, dtype=np.uint8)
    out[part[0]] = binary_fill_holes(pieces == int(sizes.argmax()) if count > 1 else mask[part[0]])
    return out


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
