"""Skull-strip by threshold and morphology: no weights, any contrast, seconds on any machine.

Works on a 2 mm copy: find the head, even out the coil's shading, keep what is brighter than a
fraction of the deep tissue, cut thin bridges to scalp and eyes by an opening, keep the largest piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import SKULLSTRIP, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

CARD = Card(
    name="threshold",
    task=SKULLSTRIP,
    title="Threshold and morphology",
    says=(
        "A classical method without training: good for a first mask on whole-head T1, T2 and FLAIR, "
        "expect to correct the skull base, temporal poles and orbits by hand."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    needs=("scipy",),
    cite="Classical threshold and opening, after Höhne & Hanson, J Comput Assist Tomogr 1992;16:285",
)

STEP_MM = 2.0
"""Spacing of the working copy: half a cortex, and a tenth of a second for each operation."""
SKIN_MM = 6.0
"""Scalp and outer table: no brain is nearer to the air."""
BELOW_TOP_MM = 180.0
"""From the vertex down to the foramen magnum, with room to spare."""
MOST_ML = 2100.0
"""No brain with its meninges is larger; a bigger piece has leaked through the skull base."""
LEAST_ML = 20.0
LOWEST_MM, LOWEST_ML = 165.0, 40.0
"""So far below the vertex there is no more than a little brain stem and cerebellum."""
_TRIES = ((1.0, 1.0), (1.0, 1.33), (1.15, 1.0), (1.15, 1.33), (1.0, 1.8))
"""Factors on level and cut, tried in turn until nothing has leaked."""


@dataclass(frozen=True)
class Params:
    """Options of the threshold skull-strip."""

    level: float = knob(
        0.5,
        "How bright tissue must be to count as brain, as a fraction of the deep brain's brightness; "
        "raise it if scalp or eyes are included, lower it if cortex is missing.",
        low=0.1,
        high=0.95,
    )
    cut: float = knob(
        6.0,
        "Bridges thinner than twice this radius are cut between brain and scalp, eyes or neck.",
        low=1.0,
        high=20.0,
        unit="mm",
    )
    close: float = knob(
        10.0, "Sulci and gaps up to twice this radius are closed over.", low=0.0, high=25.0, unit="mm"
    )
    border: float = knob(
        0.0, "Grow the final mask outward by this much, or shrink it if negative.", low=-15.0, high=15.0, unit="mm"
    )


def run(scan: Volume, p: Params, rt: Runtime) -> Labels:
    """Return the brain mask (1 = brain) of a 3D scan, on its grid.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order RAS.
    p : Params
    rt : Runtime
    """
    rt.report(0.0, "making a 2 mm copy")
    grid = scan.grid.respaced((STEP_MM,) * 3)
    small = fit.resampled(scan.data, scan.grid, grid)
    if small.size == 0 or float(small.max()) <= float(small.min()):
        rt.warn("Every voxel has the same value, so there is nothing to strip.")
        return scan.with_labels(np.zeros(scan.grid.shape, dtype=np.uint8), {1: "brain"})
    rt.report(0.2, "finding the head")
    small = small - min(0.0, float(np.percentile(small, 2)))  # air of a scan with mean 0 lies below it
    head = _head(small)
    depth = _depth(head)
    rt.report(0.4, "evening out the shading")
    below = _below_vertex(head)
    zone, even = _even(small, head, depth, below)
    rt.report(0.6, "cutting the brain free")
    brain = _brain(np.where(zone, even, 0), depth, below, p, rt)
    if brain.sum() * STEP_MM**3 > 0.85 * 1000 * max(head.sum() * STEP_MM**3 / 1000, LEAST_ML):
        rt.warn("Nearly all that is not air is in the mask: the scan may be stripped already.")
    rt.report(0.9, "bringing the mask home")
    mask = _home(brain, grid, scan.grid, p.border)
    rt.report(1.0, "done")
    return scan.with_labels(mask, {1: "brain"})


def _mm_inside(mask: Mask) -> NDArray[np.float64]:
    """Distance of each voxel of a mask to the nearest voxel outside it, mm."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(mask)) * STEP_MM


def _grown(mask: Mask, mm: float) -> Mask:
    return mask if mm <= 0 or not mask.any() else _mm_inside(~mask) <= mm


def _shrunk(mask: Mask, mm: float) -> Mask:
    return mask if mm <= 0 else _mm_inside(mask) > mm


def _closed(mask: Mask, mm: float) -> Mask:
    """Close gaps; room is added around so that a mask at the border is not eaten from there."""
    from scipy.ndimage import binary_fill_holes

    room = int(np.ceil(mm / STEP_MM)) + 1
    wide = _shrunk(_grown(np.pad(mask, room), mm), mm)
    inner = (slice(room, -room),) * 3
    return np.asarray(binary_fill_holes(wide[inner] | mask), dtype=bool)


def _largest(mask: Mask) -> Mask:
    from scipy.ndimage import label

    pieces, count = label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _head(small: Array) -> Mask:
    """Find everything that is not air, with its air-filled holes, as one piece."""
    from scipy.ndimage import binary_fill_holes, median_filter

    low, high = np.percentile(small, (2, 98))
    if not high > low:
        low, high = float(small.min()), float(small.max())
    head = _closed(_largest(median_filter(small, 3) > low + 0.1 * (high - low)), 8.0)
    # Sinuses and ears are open in 3D yet closed in most slices of some direction.
    for axis in range(3):
        for number in range(head.shape[axis]):
            place = [slice(None)] * 3
            place[axis] = slice(number, number + 1)
            flat = head[tuple(place)].squeeze(axis)
            head[tuple(place)] = np.expand_dims(binary_fill_holes(flat), axis)
    return head


def _depth(head: Mask) -> NDArray[np.float64]:
    """Distance below the skin, mm. The border of the field of view cuts the head and is no skin."""
    return _mm_inside(np.pad(head, 1, mode="edge"))[1:-1, 1:-1, 1:-1]


def _below_vertex(head: Mask) -> NDArray[np.float64]:
    """Distance of each slice below the top of the head, (1, 1, K) mm."""
    rows = np.flatnonzero(head.any(axis=(0, 1)))
    top = rows[-1] if rows.size else head.shape[2] - 1
    below: NDArray[np.float64] = (top - np.arange(head.shape[2], dtype=np.float64)) * STEP_MM
    return below[None, None, :]


def _even(
    small: Array, head: Mask, depth: NDArray[np.float64], below: NDArray[np.float64]
) -> tuple[Mask, Array]:
    """Divide out slow shading and the deep brain's brightness.

    Returns
    -------
    zone : ndarray of bool
        Where brain can be: below the skin, and not below the skull.
    even : ndarray
        Intensities in which the deep tissue is 1.
    """
    from scipy.ndimage import gaussian_filter

    zone = head & (depth > min(SKIN_MM, 0.2 * depth.max())) & (below < BELOW_TOP_MM)
    core = zone & (depth > min(35.0, 0.6 * depth[zone].max(initial=0.0))) & (below < 0.66 * BELOW_TOP_MM)
    core = core if core.any() else head
    middle = float(np.median(small[core])) or 1.0
    tissue = (zone & (small > 0.4 * middle) & (small < 1.8 * middle)).astype(np.float32)
    sigma = 20.0 / STEP_MM
    weight = gaussian_filter(tissue, sigma, truncate=2.5)
    shade = gaussian_filter(small * tissue, sigma, truncate=2.5) / np.maximum(weight, 1e-3)
    shade = np.maximum(shade, max(0.3 * float(np.median(shade[core])), 1e-30))
    return zone, (small / shade).astype(np.float32)


def _brain(
    even: Array, depth: NDArray[np.float64], below: NDArray[np.float64], p: Params, rt: Runtime
) -> Mask:
    """Cut the brain out of the bright tissue, harder as long as what is found has leaked out of the skull."""
    ml = STEP_MM**3 / 1000
    best, least = np.zeros(even.shape, dtype=bool), np.inf
    for attempt, (raised, wider) in enumerate(_TRIES):
        rt.report(0.6 + 0.3 * attempt / len(_TRIES), "cutting the brain free")
        candidate = even > p.level * raised
        room = _mm_inside(candidate)
        seed = _central(room > min(p.cut * wider, 0.7 * room.max()), depth)
        brain = _closed(candidate & _grown(seed, p.cut * wider), p.close)
        leaked = max(brain.sum() * ml - MOST_ML, 0.0)
        leaked += max((brain & (below > LOWEST_MM)).sum() * ml - LOWEST_ML, 0.0)
        if leaked < least and (brain.sum() * ml > LEAST_ML or not best.any()):
            best, least = brain, leaked
        if leaked == 0:
            break
    if least > 0:
        rt.warn("The mask holds tissue outside the skull. Try a higher cut or level.")
    if best.sum() * ml < LEAST_ML:
        rt.warn("The mask is smaller than any brain: the method did not find one. Try a lower level.")
    return best


def _central(mask: Mask, depth: NDArray[np.float64]) -> Mask:
    """Return the piece with most depth below the skin: large, and in the middle of the head."""
    from scipy.ndimage import label

    pieces, count = label(mask)
    if count < 2:
        return mask
    weight = np.bincount(pieces.ravel(), weights=depth.ravel())
    weight[0] = 0
    return np.asarray(pieces == weight.argmax())


def _home(brain: Mask, grid: Grid, scan: Grid, border: float) -> NDArray[Any]:
    """Cut the signed distance at zero on the scan's grid: a smooth outline at any spacing."""
    if not brain.any():
        return np.zeros(scan.shape, dtype=np.uint8)
    inside = np.pad(brain, 1, mode="edge")
    signed = (_mm_inside(inside) - _mm_inside(~inside) if not inside.all() else _mm_inside(inside))[1:-1, 1:-1, 1:-1]
    # Voxel centres lie half a step inside the outline on one side and half a step outside on the other.
    signed = np.clip(signed, -40.0, 40.0)
    return (fit.resampled(signed, grid, scan) > -border).astype(np.uint8)


MODELS = (Model(CARD, Params, run),)
