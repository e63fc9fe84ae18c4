"""The outline that `skullnet` finds, on a processor: stretched, in one piece, brought home, moved by brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.models._anatomy import INNER
from napari_mri.models._click3d_rounds import extent
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
    inner_structures,
    tell,
    tell_dropped,
)
from napari_mri.models._tones import nearest, probable, tones_of

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


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


def one_piece(near: Array, border: float, rt: Runtime) -> Array:
    """Push all but the largest piece out of the mask, and fill its holes."""
    from scipy.ndimage import binary_fill_holes, label

    mask = near < border
    pieces, count = label(mask)
    if count == 0:
        return near
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    main = pieces == int(sizes.argmax())
    tell_dropped(sorted(sizes.tolist(), reverse=True), rt)
    out = np.where(mask & ~main, np.maximum(near, border + STEP_MM), near)
    holes = binary_fill_holes(main) & ~main
    return np.where(holes, np.minimum(out, border - STEP_MM), out).astype(np.float32)


def judge(near: Array, small: Array, rt: Runtime) -> None:
    """Warn of a volume no brain has, and of a scan without a scalp."""
    inside, rim = near < 0, (near > RIM_MM[0]) & (near < RIM_MM[1])
    level = DARK * float(np.median(small[inside])) if inside.any() else 0.0
    tell(int(inside.sum()), float((small[rim] > level).mean()) if rim.any() else 1.0, rt)


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
    box, part = covered(grid, ends, scan)
    fine = fit.resampled(np.clip(near, -REACH_MM, REACH_MM), grid, part)
    distance[box] = fine
    mask = np.zeros(scan.shape, dtype=np.uint8)
    mask[box] = fine < border
    return distance, mask


def covered(grid: Grid, ends: NDArray[np.float64], scan: Grid) -> tuple[tuple[slice, ...], Grid]:
    """Return the box of a scan that holds voxels `ends` (3, 2), the first and the last, of another grid; and its grid."""
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    places = scan.to_voxels(grid.to_patient(corners))
    low = np.clip(np.floor(places.min(0)), 0, np.asarray(scan.shape) - 1).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, low + 1, scan.shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), scan.cropped(low, high)


def around(near: Array) -> tuple[slice, ...]:
    """Return the box of a copy that holds the brain and room to see beyond."""
    span = extent(near < ROOM_MM)
    assert span is not None, "there is a mask"
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))


def moved(distance: Array, looked: Looked, scan: Volume, scale: fit.Scale) -> Array:
    """Move an outline to where the brightness of what lies inside and outside of it has it.

    Parameters
    ----------
    distance : ndarray, (I, J, K)
        mm to the inner skull, negative inside, on the grid of the scan.
    looked : Looked
        Its maps are used up.
    scan : Volume
    scale : Scale
        From the scan's intensities to those of the copy.
    """
    from scipy.ndimage import gaussian_filter

    near, small, grid = looked.near, looked.small, looked.grid
    maps = probable(looked.maps)
    # What is named says what may stand there, the distance on which side of the outline.
    brain = 1 / (1 + np.exp(np.clip(near / UNSURE_MM, -30, 30)))
    maps += np.float32(LEAST)
    first, last = INNER.start, INNER.stop
    inner, outer = maps[first:last].sum(axis=0), maps[:first].sum(axis=0) + maps[last:].sum(axis=0)
    maps[first:last] *= brain / inner
    maps[:first] *= (1 - brain) / outer
    maps[last:] *= (1 - brain) / outer
    tones = tones_of(maps, small, STEP_MM, EVERY)
    if tones is None:
        return distance
    band = np.abs(distance) < BAND_MM
    span = extent(band)
    if span is None:
        return distance
    own = inner_structures()
    box = tuple(slice(a, b + 1) for a, b in zip(*span, strict=True))
    spots = np.nonzero(band[box])
    at = nearest(scan.grid.cropped(span[0], span[1] + 1), spots, grid)
    values = fit.unit_scaled(fit.finite(scan.data[box][spots]), scale)
    shift = np.zeros(distance[box].shape, dtype=np.float32)
    some = slice(None, None, max(1, len(at) // SOME_VOXELS))
    tones = tones.refitted(values[some], at[some])
    shift[spots] = np.clip(UNSURE_MM * tones.gain(values, at, own), -MOST_MM, MOST_MM)
    out = distance.copy()
    out[box] -= gaussian_filter(shift, SOFT_MM / np.asarray(scan.grid.spacing))
    return np.clip(out, -REACH_MM, REACH_MM)


def kept(edge: Array, scan: Grid, grid: Grid, border: float) -> tuple[Array, NDArray[np.uint8]]:
    """Return the distance to a moved outline, mm, and the mask within `border` of it, both (I, J, K) on the scan's grid.

    Parameters
    ----------
    edge : ndarray, (I, J, K)
        Below 0 inside the outline; no distance, since it was moved more at one place than at the next.
    scan, grid : Grid
        Of the scan, and of its copy, on which distances are measured.
    border : float
    """
    mask = main_part(edge < 0)
    soft = np.where(mask, np.minimum(edge, -EVEN_MM), np.maximum(edge, EVEN_MM)).clip(-STEP_MM, STEP_MM)
    near = _distances(fit.resampled(soft, scan, grid))
    distance, _ = home(near, grid, scan, border)
    distance = np.where(mask, np.minimum(distance, -EVEN_MM), np.maximum(distance, EVEN_MM)).astype(np.float32)
    return distance, mask if border == 0 else main_part(distance < border)


def _distances(soft: Array) -> Array:
    """Return the distance, mm, to where a field (I, J, K) of the copy is 0; negative where it is."""
    from scipy.ndimage import distance_transform_edt

    inside = soft < 0
    around = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5) * STEP_MM
    slope = np.sqrt(sum(part * part for part in np.gradient(soft, STEP_MM)))
    near = soft / np.maximum(slope, 0.5)
    return np.where(np.abs(around) <= STEP_MM, near.clip(-STEP_MM, STEP_MM), around).astype(np.float32)


def main_part(mask: Mask) -> NDArray[np.uint8]:
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
