"""Skull-strip by MindGrab, with the weights file the user brings (MIT, 0.6 MB)."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.model import SKULLSTRIP, Card, Model, NoParams, Runtime, Wants, Weights
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.engine import weights as files

WEIGHTS = Weights(
    "mindgrab.safetensors",
    sha256="232dd9b4a0c26f074bb1a6b72f872c9ce5df80e622ce348a52a95d6892dfda5d",
    licence="MIT",
    size=587436,
)
CARD = Card(
    name="mindgrab",
    task=SKULLSTRIP,
    title="MindGrab",
    says=(
        "Strips any contrast, up to the inner skull; about a minute and 4 GB of memory on a CPU. "
        "Put mindgrab.safetensors into the weights folder to use it."
    ),
    wants=Wants(axes="LIA", min_slices=3),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS,),
    licence="MIT",
    cite="Fani et al., MindGrab for BrainChop, 2025 (arXiv:2506.11860)",
)
SIDE = 256
"""The net normalises over its whole field, so it must see the 256 mm cube it was trained on."""


def conformed(scan: Grid) -> Grid:
    """Return the cube of 256 voxels of 1 mm around the middle of a scan, along the scan's own axes."""
    grid = scan.respaced((1.0, 1.0, 1.0))
    low = np.asarray([(n - SIDE) // 2 for n in grid.shape])
    return grid.cropped(low, low + SIDE)


def run(scan: Volume, p: Any, rt: Runtime) -> Labels:
    """Return the brain mask (1 = brain) of a 3D scan, on its grid.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order LIA.
    p : NoParams
    rt : Runtime
    """
    import torch
    from scipy.ndimage import binary_fill_holes, label

    rt.report(0.0, "making a 1 mm cube")
    cube = conformed(scan.grid)
    lowest = float(np.nanmin(scan.data))
    data = fit.resampled(scan.data, scan.grid, cube, outside=lowest)
    low, high = np.quantile(data[::3, ::3, ::3], (0.02, 0.98))
    image = np.clip((data - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    rt.report(0.1, "running the network")
    net = rt.keep("mindgrab", lambda: _load(rt))
    with torch.inference_mode():
        logits = net(torch.from_numpy(image)[None, None].to(rt.device))[0].cpu().numpy()
    rt.report(0.9, "bringing the mask home")
    score = 1 / (1 + np.exp(np.clip(logits[0] - logits[1], -30, 30)))
    pieces, count = label(score > 0.5)
    if count:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept = binary_fill_holes(pieces == sizes.argmax())
        score = np.where(kept, np.maximum(score, 0.51), np.minimum(score, 0.49))
    mask = fit.mask_resampled(score.astype(np.float32), cube, scan.grid)
    rt.report(1.0, "done")
    return scan.with_labels(mask.astype(np.uint8), {1: "brain"})


def _load(rt: Runtime) -> Any:
    from napari_mri.nets.mindgrab import MindGrab

    net = MindGrab()
    net.load_state_dict(files.load(rt.weights(WEIGHTS)))
    return net.to(rt.device).eval()


MODELS = (Model(CARD, NoParams, run),)
