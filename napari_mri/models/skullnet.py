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
from napari_mri.models._headnet import HEADNET, looks_at, names_of, network
from napari_mri.models._skull_device import on_device
from napari_mri.models._skull_outline import (
    around,
    covered,
    home,
    in_mm,
    judge,
    kept,
    main_part,
    moved,
    one_piece,
)
from napari_mri.models._skull_parts import STEP_MM, Looked, Params

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
    small = fit.unit_scaled(copy, scale)
    if scale is None:
        rt.warn("Every voxel has the same value, so there is nothing to strip.")
        return scan.with_labels(np.zeros(scan.grid.shape, dtype=np.uint8), {1: "brain"})
    looks = looks_at(network(rt), small, p.variants, rt)
    answers = np.stack([look.surfaces() for look in looks]) * np.float32(STEP_MM)
    rt.report(0.7, "bringing the mask home")
    channel = 0 if p.csf else 1
    near, spread = answers.mean(0)[channel], answers.std(0)[channel]
    judge(near, small, rt)
    near = one_piece(in_mm(near), p.border, rt)
    distance, mask = home(near, grid, scan.grid, p.border)
    if p.csf and p.tones and mask.any():
        rt.report(0.75, "looking at the brightness of tissues")
        box = around(near)
        ends = np.array([(span.start, span.stop) for span in box])
        looked = Looked(near[box], small[box], names_of(looks, box), grid.cropped(ends[:, 0], ends[:, 1]))
        del looks
        # All of it within the part of the scan that this box covers: beyond, nothing is near to the outline.
        there, part = covered(grid, ends - (0.0, 1.0), scan.grid)
        edge = moved(distance[there], looked, Volume(scan.data[there], part), scale)
        if p.border or rt.wants("distance"):
            distance[there], mask[there] = kept(edge, part, looked.grid, p.border)
        else:
            mask[there] = main_part(edge < 0)
    if rt.wants("distance"):
        rt.offer("distance", scan.with_data(distance))
    if p.variants > 1:
        rt.offer("uncertainty", scan.with_data(fit.resampled(spread, grid, scan.grid)))
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


MODELS = (Model(CARD, Params, run),)
