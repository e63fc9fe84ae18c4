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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import SKULLSTRIP, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.engine import weights as files
from napari_mri.engine.tiles import memory_ended
from napari_mri.models._anatomy import INNER
from napari_mri.models._anatomy_net import ANATOMY, network, network_on
from napari_mri.models._click3d_rounds import extent
from napari_mri.models._tones import nearest, nearest_along, probable, sharpened, sharpened_on

if TYPE_CHECKING:
    from torch import Tensor

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
RIM_MM, DARK = (4.0, 20.0), 0.1
"""Where the scalp is, from the inner skull; and what share of the brain's brightness it is never below."""
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
    if rt.device != "cpu":
        try:
            found = on_device(scan, p, rt)
        except (RuntimeError, MemoryError) as error:
            if not memory_ended(error):
                raise
            found = None  # the two networks alone need less
        if found is not None:
            return found
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


def on_device(scan: Volume, p: Params, rt: Runtime) -> Labels | None:
    """Do as `run` does, but all of it where the networks are; None if that is not possible.

    The scan goes there once; the mask and the distance come back.
    """
    import torch

    from napari_mri.engine import outline
    from napari_mri.nets import voxels

    grid = scan.grid.respaced((STEP_MM,) * 3)
    there, back = fit.along(scan.grid, grid), fit.along(grid, scan.grid)
    if there is None or back is None:
        return None
    with torch.inference_mode():
        image = voxels.uploaded(scan.data, rt.device)
        copy = voxels.spread(image, there)
        scale = fit.unit_scale(copy.reshape(-1)[:: max(1, copy.numel() // 100_000)].cpu().numpy())
        if scale is None:
            return None
        small = _unit(copy, scale)
        answers = predict_on(small, p, rt)
        rt.report(0.5, "bringing the mask home")
        near, spread = (part[0 if p.csf else 1] for part in (answers.mean(dim=0), answers.std(dim=0, correction=0)))
        _judge_on(near, small, rt)
        near, sizes = outline.one_piece(outline.stretched(near, STEP_MM), p.border, STEP_MM)
        _tell_dropped(sizes, rt)
        distance = voxels.spread(near.clamp(-REACH_MM, REACH_MM), back)
        mask = distance < p.border
        span = voxels.extent(near < ROOM_MM) if p.csf and p.tones and bool(mask.any()) else None
        if span is not None:
            rt.report(0.6, "looking at the brightness of tissues")
            box = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
            looked = Looked(near[box], small[box], grid.cropped(span[0], span[1] + 1))
            edge = moved_on(distance, looked, (image, scan.grid, scale), rt)
            rt.report(0.8, "measuring how far it is to the outline")
            mask = voxels.largest(edge < 0)
            edge = torch.where(mask, edge.clamp(max=-EVEN_MM), edge.clamp(min=EVEN_MM)).clamp(-STEP_MM, STEP_MM)
            near = outline.measured(voxels.spread(edge, there), STEP_MM, REACH_MM)
            distance = voxels.spread(near.clamp(-REACH_MM, REACH_MM), back)
            distance = torch.where(mask, distance.clamp(max=-EVEN_MM), distance.clamp(min=EVEN_MM))
            mask = mask if p.border == 0 else voxels.largest(distance < p.border)
        rt.report(0.9, "bringing the mask home")
        rt.offer("distance", scan.with_data(distance.cpu().numpy()))
        if p.variants > 1:
            rt.offer("uncertainty", scan.with_data(voxels.spread(spread, back).cpu().numpy()))
        rt.report(1.0, "done")
        return scan.with_labels(mask.to(torch.uint8).cpu().numpy(), {1: "brain"})


def moved_on(distance: Tensor, looked: Looked, seen: tuple[Tensor, Grid, fit.Scale], rt: Runtime) -> Tensor:
    """As `moved`, of tensors; `seen` is the scan, its grid, and the scale from its intensities to those of the copy."""
    import torch

    from napari_mri.nets import voxels

    image, grid, scale = seen
    near, small = looked.near, looked.small
    inner = tuple(slice(0, n) for n in small.shape)
    maps = network_on(rt)(_padded_on(small, 0))[(slice(0, -1), *inner)].softmax(dim=0) + 1e-4
    brain = torch.sigmoid(-(near / UNSURE_MM).clamp(-30, 30))
    own = torch.zeros(256, dtype=torch.bool, device=near.device)
    own[INNER.start : INNER.stop] = True
    inner_skull = own[: len(maps)]
    for part, share in ((inner_skull, brain), (~inner_skull, 1 - brain)):
        maps[part] *= share / maps[part].sum(dim=0)
    tones = sharpened_on(maps, small, STEP_MM)
    del maps
    band = distance.abs() < BAND_MM
    span = voxels.extent(band)
    if tones is None or span is None:
        return distance
    box = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
    places = nearest_along(grid.cropped(span[0], span[1] + 1), looked.grid)
    strides = (looked.grid.shape[1] * looked.grid.shape[2], looked.grid.shape[2], 1)
    spots = torch.nonzero(band[box], as_tuple=True)
    at = torch.zeros_like(spots[0])
    for place, stride, spot in zip(places, strides, spots, strict=True):
        at += (torch.from_numpy(place).to(at.device) * stride)[spot]
    shift = torch.zeros_like(distance[box])
    shift[spots] = (UNSURE_MM * tones.gain(_unit(image[box][spots], scale), at, own)).clamp(-MOST_MM, MOST_MM)
    blur = [fit.blurring(n, SOFT_MM / s, "reflect") for n, s in zip(shift.shape, grid.spacing, strict=True)]
    distance[box] -= voxels.spread(shift, blur)
    return distance.clamp(-REACH_MM, REACH_MM)


def _unit(values: Tensor, scale: fit.Scale) -> Tensor:
    return ((values - scale.offset) / scale.factor).clamp(0, 1.5)


@dataclass(frozen=True, eq=False)
class Looked:
    """The 2 mm copy, scaled, and the distance to the inner skull on it, mm."""

    near: Any
    small: Any
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


def predict_on(small: Tensor, p: Params, rt: Runtime) -> Tensor:
    """As `predict`, from a tensor to a tensor on the run's device, (variants, 2, I, J, K) mm."""
    import torch

    net = rt.keep("skullnet on the device", lambda: loaded(rt))
    answers = []
    for number in range(p.variants):
        rt.report(0.1 + 0.4 * number / p.variants, "running the network")
        mirrored, moved = number % 2 == 1, number // 2
        image = small.flip(0) if mirrored else small
        answer = net(_padded_on(image, moved)) * STEP_MM
        answer = answer[(slice(None), *(slice(moved, moved + n) for n in small.shape))]
        answers.append(answer.flip(1) if mirrored else answer)
    return torch.stack(answers)


def by_torch(rt: Runtime) -> Callable[[Array], Array]:
    """Return the network with the shipped weights on the run's device: (I, J, K) to (2, I, J, K) voxels."""
    import torch

    net = loaded(rt)

    def ask(image: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(np.ascontiguousarray(image)).to(rt.device)).cpu().numpy())

    return ask


def loaded(rt: Runtime) -> Callable[[Tensor], Tensor]:
    """Return the same from tensor to tensor."""
    import torch

    from napari_mri.nets.unet import FoldedUNet

    net = FoldedUNet()
    net.load_state_dict({name: tensor.float() for name, tensor in files.load(rt.weights(WEIGHTS)).items()})
    net = net.to(rt.device).to(memory_format=torch.channels_last_3d).eval()

    def ask(image: Tensor) -> Tensor:
        with torch.autocast(rt.device, torch.float16, enabled=rt.device == "cuda"):
            return net(image[None, None])[0].float()

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


def _padded_on(image: Tensor, moved: int) -> Tensor:
    from torch.nn.functional import pad

    return pad(image, [side for n in reversed(image.shape) for side in (moved, -(n + moved) % MULTIPLE)])


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
    _tell_dropped(sorted(sizes.tolist(), reverse=True), rt)
    out = np.where(mask & ~main, np.maximum(near, border + STEP_MM), near)
    holes = binary_fill_holes(main) & ~main
    return np.where(holes, np.minimum(out, border - STEP_MM), out).astype(np.float32)


def _tell_dropped(sizes: list[int], rt: Runtime) -> None:
    """Warn of a large piece that was dropped, given the voxels of pieces of the copy, the largest first."""
    kept, dropped = (number * STEP_MM**3 / 1000 for number in sizes[:2])
    if dropped > max(20.0, 0.05 * kept):
        rt.warn(f"The mask fell into several pieces; one of {dropped:.0f} ml was dropped. Look at the result.")


def _judge(near: Array, small: Array, rt: Runtime) -> None:
    """Warn of a volume no brain has, and of a scan without a scalp."""
    inside, rim = near < 0, (near > RIM_MM[0]) & (near < RIM_MM[1])
    level = DARK * float(np.median(small[inside])) if inside.any() else 0.0
    _tell(int(inside.sum()), float((small[rim] > level).mean()) if rim.any() else 1.0, rt)


def _judge_on(near: Tensor, small: Tensor, rt: Runtime) -> None:
    """As `_judge`, of tensors."""
    inside, rim = near < 0, (near > RIM_MM[0]) & (near < RIM_MM[1])
    count, around = int(inside.sum()), int(rim.sum())
    level = DARK * float(small[inside].median()) if count else 0.0
    _tell(count, int(((small > level) & rim).sum()) / around if around else 1.0, rt)


def _tell(inside: int, bright: float, rt: Runtime) -> None:
    """Warn, given the voxels of the mask on the copy and the share of what lies around it that is not dark."""
    ml = inside * STEP_MM**3 / 1000
    if inside and not LIKELY_ML[0] <= ml <= LIKELY_ML[1]:
        rt.warn(
            f"The mask holds {ml:.0f} ml; adult brains have {LIKELY_ML[0]:.0f} to {LIKELY_ML[1]:.0f} ml. "
            "It may be a child or a part of the head, or the result may be wrong."
        )
    if inside and bright < 0.08:
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
