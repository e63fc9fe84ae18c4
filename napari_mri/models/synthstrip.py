"""Skull-strip by SynthStrip, with the official weights file where the user has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.model import SKULLSTRIP, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.engine import weights as files

WEIGHTS = Weights(
    "synthstrip.1.pt",
    sha256="37417f802196186441aae3e7f385d94f8a98c64a88acaeaa2723af995c653e33",
    licence="FreeSurfer Software License",
    size=30851709,
)
CARD = Card(
    name="synthstrip",
    task=SKULLSTRIP,
    title="SynthStrip",
    says=(
        "Strips any contrast; half a minute on a CPU. Needs the official synthstrip.1.pt in the weights folder; "
        "its licence is that of FreeSurfer."
    ),
    wants=Wants(axes="LIA", min_slices=3),
    needs=("torch", "scipy"),
    weights=(WEIGHTS,),
    licence="FreeSurfer Software License (weights)",
    cite="Hoopes et al., SynthStrip: skull-stripping for any brain image, NeuroImage 2022",
)
LEAST, MOST, MULTIPLE = 192, 320, 64
FAR = 100.0
"""Distance outside the network's field, mm."""


@dataclass(frozen=True)
class Params:
    """Options of SynthStrip."""

    border: float = knob(
        1.0, "The mask ends this far outside the brain's surface; learned up to 4 mm.", low=-5.0, high=4.0, unit="mm"
    )


def field_of(scan: Grid, data: NDArray[Any]) -> Grid:
    """Return the net's grid: 1 mm, around what is not background, sides a multiple of 64 in 192..320."""
    grid = scan.respaced((1.0, 1.0, 1.0))
    scale = np.asarray(scan.spacing)
    low, high = [], []
    for axis in range(3):
        rows = np.flatnonzero((data > data.min()).any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (rows[0], rows[-1] + 1) if rows.size else (0, data.shape[axis])
        begin, end = int(np.floor(first * scale[axis])), int(np.ceil(last * scale[axis]))
        side = int(np.clip(-(-(end - begin) // MULTIPLE) * MULTIPLE, LEAST, MOST))
        begin -= (side - (end - begin)) // 2
        low.append(begin)
        high.append(begin + side)
    return grid.cropped(low, high)


def run(scan: Volume, p: Params, rt: Runtime) -> Labels:
    """Return the brain mask (1 = brain) of a 3D scan, on its grid; offers the distance.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order LIA.
    p : Params
    rt : Runtime
    """
    import torch
    from scipy.ndimage import binary_fill_holes, label

    rt.report(0.0, "making a 1 mm copy")
    net = rt.keep("synthstrip", lambda: _load(rt))
    grid = field_of(scan.grid, scan.data)
    lowest = float(scan.data.min())
    # Nearest, not linear: that is what the network's authors feed it.
    image = fit.resampled(scan.data, scan.grid, grid, order=0, outside=lowest) - lowest
    top = float(np.percentile(image, 99))
    image = np.clip(image / top, 0, 1).astype(np.float32) if top > 0 else image
    rt.report(0.1, "running the network")
    with torch.inference_mode():
        near = net(torch.from_numpy(image)[None, None].to(rt.device))[0, 0].float().cpu().numpy()
    rt.report(0.9, "bringing the mask home")
    distance = fit.resampled(near, grid, scan.grid, outside=FAR)
    pieces, count = label(distance < p.border)
    mask = np.zeros(scan.grid.shape, dtype=np.uint8)
    if count:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        mask = binary_fill_holes(pieces == sizes.argmax()).astype(np.uint8)
    rt.offer("distance", scan.with_data(distance))
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


def _load(rt: Runtime) -> Any:
    from napari_mri.nets.synthstrip import SynthStrip

    found = files.load(rt.weights(WEIGHTS))
    state = found.get("model_state_dict", found)
    net = SynthStrip()
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise WeightsProblem(f"{WEIGHTS.file} holds another network than SynthStrip's.") from error
    return net.to(rt.device).eval()


MODELS = (Model(CARD, Params, run),)
