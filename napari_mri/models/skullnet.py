"""Skull-strip any contrast by our own network, trained on synthetic heads only.

The network sees a 2 mm copy in RAS order and tells each voxel's signed distance to two surfaces: the inner
skull (brain with the CSF around it) and the brain itself. The mask is a threshold on that distance, brought
home as a distance and not as a mask, so its outline is smooth at any spacing. The same look tells which structures
may stand at the outline; how bright each is in this very scan then moves it by a millimetre or two (`_tones`).
"""

from __future__ import annotations

import numpy as np

from napari_mri.core.model import SKULLSTRIP, Card, Model, Runtime, Wants
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.engine.tiles import memory_ended
from napari_mri.models._headnet import HEADNET, looks_at, network
from napari_mri.models._skull_device import on_device
from napari_mri.models._skull_outline import (
    around,
    covered,
    in_mm,
    judge,
    kept,
    main_part,
    moved,
    naming,
    one_piece,
)
from napari_mri.models._skull_parts import BAND_MM, REACH_MM, ROOM_MM, STEP_MM, Looked, Params

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
    weights=(HEADNET,),
    cite="Generator after Hoopes et al., NeuroImage 2022 (SynthStrip) and Billot et al., Med Image Anal 2023 (SynthSeg)",
    rank=100,
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
            found = None  # the network alone needs less
        if found is not None:
            return found
    grid = scan.grid.respaced((STEP_MM,) * 3)
    copy = fit.resampled(scan.data, scan.grid, grid)
    scale = fit.unit_scale(copy)
    if scale is None:
        rt.warn("Every voxel has the same value, so there is nothing to strip.")
        return scan.with_labels(np.zeros(scan.grid.shape, dtype=np.uint8), {1: "brain"})
    small = fit.unit_scaled(copy, scale)
    looks = looks_at(network(rt), small, p.variants, rt)
    answers = np.stack([look.surfaces()[0 if p.csf else 1] for look in looks]) * np.float32(STEP_MM)
    rt.report(0.7, "bringing the mask home")
    near = answers.mean(axis=0)
    judge(near, small, rt)
    near = one_piece(in_mm(near), p.border, rt)
    wants_distance = rt.wants("distance")
    distance = np.full(scan.grid.shape if wants_distance else 0, REACH_MM, dtype=np.float32)
    mask = np.zeros(scan.grid.shape, dtype=np.uint8)
    # Only a box around the brain is looked at: elsewhere the distance is beyond the clip, or the outline far away.
    box = around(near, p.border, ROOM_MM)
    close = box if p.border or wants_distance else around(near, p.border, BAND_MM + STEP_MM)
    if box is not None and close is not None:
        there, part = covered(grid, np.array([(span.start, span.stop - 1.0) for span in close]), scan.grid)
        ends = np.array([(span.start, span.stop) for span in box])
        looked = Looked(near[box], small[box], grid.cropped(ends[:, 0], ends[:, 1]))
        edge = fit.resampled(looked.near.clip(-REACH_MM, REACH_MM), looked.grid, part)
        within = (edge < p.border).view(np.uint8)
        if p.csf and p.tones:
            rt.report(0.75, "looking at the brightness of tissues")
            edge = moved(edge, looked, naming(looks, box), Volume(scan.data[there], part), scale)
            if p.border or wants_distance:
                edge, within = kept(edge, part, looked.grid, p.border)
            else:
                within = main_part(edge < 0)
        mask[there] = within
        if wants_distance:
            distance[there] = edge
    if wants_distance:
        rt.offer("distance", scan.with_data(distance))
    if p.variants > 1:
        rt.offer("uncertainty", scan.with_data(fit.resampled(answers.std(axis=0), grid, scan.grid)))
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


MODELS = (Model(CARD, Params, run),)
