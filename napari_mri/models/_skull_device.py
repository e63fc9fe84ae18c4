"""All of `skullnet` on a graphics processor: the scan goes there once, the mask and the distance come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.models._headnet import looks_at, names_of, network_on
from napari_mri.models._skull_parts import (
    BAND_MM,
    DARK,
    EVEN_MM,
    EVERY,
    LEAST,
    MOST_MM,
    REACH_MM,
    RIM_MM,
    ROOM_MM,
    SOFT_MM,
    SOME_VOXELS,
    STEP_MM,
    UNSURE_MM,
    Looked,
    Params,
    inner_structures,
    roomy,
    tell,
    tell_dropped,
)
from napari_mri.models._tones_device import nearest_on, tones_on

if TYPE_CHECKING:
    from torch import Tensor


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
        small = scale.unit(copy)
        looks = looks_at(network_on(rt), small, p.variants, rt)
        answers = torch.stack([look.surfaces() for look in looks]) * STEP_MM
        rt.report(0.5, "bringing the mask home")
        near, spread = (part[0 if p.csf else 1] for part in (answers.mean(dim=0), answers.std(dim=0, correction=0)))
        judge_on(near, small, rt)
        near, sizes = outline.one_piece(outline.stretched(near, STEP_MM), p.border, STEP_MM)
        tell_dropped(sizes, rt)
        box = roomy(voxels.extent(near < max(p.border, 0)), tuple(near.shape), ROOM_MM)
        close = torch.full_like(near, REACH_MM)
        if box is not None:
            close[box] = near[box].clamp(-REACH_MM, REACH_MM)
        distance = voxels.spread(close, back)
        mask = distance < p.border
        if p.csf and p.tones and box is not None:
            rt.report(0.6, "looking at the brightness of tissues")
            ends = np.array([(span.start, span.stop) for span in box])
            looked = Looked(near[box], small[box], grid.cropped(ends[:, 0], ends[:, 1]))
            maps = names_of(looks, box).softmax(dim=0)
            del looks
            edge = moved_on(distance, looked, maps, (image, scan.grid, scale))
            del maps
            mask = voxels.largest(edge < 0)
            if p.border or rt.wants("distance"):
                rt.report(0.8, "measuring how far it is to the outline")
                edge = torch.where(mask, edge.clamp(max=-EVEN_MM), edge.clamp(min=EVEN_MM)).clamp(-STEP_MM, STEP_MM)
                near = outline.measured(voxels.spread(edge, there), STEP_MM, REACH_MM)
                distance = voxels.spread(near.clamp(-REACH_MM, REACH_MM), back)
                distance = torch.where(mask, distance.clamp(max=-EVEN_MM), distance.clamp(min=EVEN_MM))
            mask = mask if p.border == 0 else voxels.largest(distance < p.border)
        rt.report(0.9, "bringing the mask home")
        if rt.wants("distance"):
            rt.offer("distance", scan.with_data(distance.cpu().numpy()))
        if p.variants > 1:
            rt.offer("uncertainty", scan.with_data(voxels.spread(spread, back).cpu().numpy()))
        rt.report(1.0, "done")
        return scan.with_labels(mask.to(torch.uint8).cpu().numpy(), {1: "brain"})


def moved_on(distance: Tensor, looked: Looked, maps: Tensor, seen: tuple[Tensor, Grid, fit.Scale]) -> Tensor:
    """As `moved`, of tensors.

    Parameters
    ----------
    distance : Tensor, (I, J, K)
    looked : Looked
    maps : Tensor, (N, I', J', K')
        How likely each structure is in the box that is looked at; used up.
    seen : tuple
        The scan, its grid, and the scale from its intensities to those of the copy.
    """
    import torch

    from napari_mri.nets import voxels

    image, grid, scale = seen
    near, small = looked.near, looked.small
    maps += LEAST
    brain = torch.sigmoid(-(near / UNSURE_MM).clamp(-30, 30))
    own = torch.from_numpy(inner_structures()).to(near.device)
    inner_skull = own[: len(maps)]
    for part, share in ((inner_skull, brain), (~inner_skull, 1 - brain)):
        maps[part] *= share / maps[part].sum(dim=0)
    tones = tones_on(maps, small, STEP_MM, EVERY)
    del maps
    band = distance.abs() < BAND_MM
    span = voxels.extent(band)
    if tones is None or span is None:
        return distance
    box = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
    spots = torch.nonzero(band[box], as_tuple=True)
    at = nearest_on(grid.cropped(span[0], span[1] + 1), spots, looked.grid)
    values = scale.unit(image[box][spots])
    some = slice(None, None, max(1, len(at) // SOME_VOXELS))
    tones = tones.refitted(values[some], at[some])
    shift = torch.zeros_like(distance[box])
    shift[spots] = (UNSURE_MM * tones.gain(values, at, own)).clamp(-MOST_MM, MOST_MM)
    blur = [fit.blurring(n, SOFT_MM / s, "reflect") for n, s in zip(shift.shape, grid.spacing, strict=True)]
    distance[box] -= voxels.spread(shift, blur)
    return distance.clamp(-REACH_MM, REACH_MM)


def judge_on(near: Tensor, small: Tensor, rt: Runtime) -> None:
    """As `judge`, of tensors."""
    inside, rim = near < 0, (near > RIM_MM[0]) & (near < RIM_MM[1])
    count, around = int(inside.sum()), int(rim.sum())
    level = DARK * float(small[inside].median()) if count else 0.0
    tell(count, int(((small > level) & rim).sum()) / around if around else 1.0, rt)
