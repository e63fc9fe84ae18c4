"""The outline that `skullnet` finds, on a processor: stretched, in one piece, brought home, moved by brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.engine.pieces import filled, largest
from napari_mri.models._anatomy import INNER
from napari_mri.models._click3d_rounds import extent
from napari_mri.models._headnet import Look, names_of
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
    SLOPES,
    SOFT_MM,
    SOME_VOXELS,
    STEP_MM,
    UNSURE_MM,
    Looked,
    inner_structures,
    roomy,
    tell,
    tell_dropped,
)
from napari_mri.models._tones import Ask, nearest_along, probable, tones_at
from napari_mri.nets.blas import each, own_threads
from napari_mri.nets.unet_numpy import HeadNet

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def in_mm(near: Array) -> Array:
    """Stretch distances so that they grow by 1 mm per mm; the surface itself stays where it is.

    A regression that is unsure tells too short a distance on both sides. Its own slope, averaged over a
    centimetre, says by how much. What is far beyond `ROOM_MM` stays as it is.

    Parameters
    ----------
    near : ndarray, (I, J, K)
        mm, negative inside, on the network's grid.
    """
    span = extent(near < SLOPES[1] * ROOM_MM)
    if min(near.shape) < 2 or span is None:
        return near
    # As far around as the slope is averaged, and one more that the slope itself needs.
    box = tuple(slice(max(0, a - 3), b + 4) for a, b in zip(*span, strict=True))
    part = near[box]
    slope = np.zeros(part.shape, dtype=np.float32)
    for along in np.gradient(part, STEP_MM):
        slope += along * along
    out = near.copy()
    out[box] = part / np.clip(_averaged(np.sqrt(slope)), *SLOPES)
    return out


def _averaged(values: Array) -> Array:
    """Return means of 5 x 5 x 5 voxels, mirrored at the border."""
    for axis, count in enumerate(values.shape):
        wide = np.pad(values, [(2, 2) if a == axis else (0, 0) for a in range(3)], mode="symmetric")
        rows = np.moveaxis(wide, axis, 0)
        total = rows[:count] + rows[4:]
        for n in (1, 2, 3):
            total += rows[n : n + count]
        values = np.moveaxis(total, 0, axis) / np.float32(5)
    return values


def one_piece(near: Array, border: float, rt: Runtime) -> Array:
    """Push all but the largest piece out of the mask, and fill its holes."""
    mask = near < border
    main, sizes = largest(mask)
    if not sizes:
        return near
    tell_dropped([*sizes, 0], rt)
    out = near.copy()
    others, holes = mask & ~main, filled(main) & ~main
    out[others] = np.maximum(near[others], border + STEP_MM)
    out[holes] = np.minimum(near[holes], border - STEP_MM)
    return out


def judge(near: Array, small: Array, rt: Runtime) -> None:
    """Warn of a volume no brain has, and of a scan without a scalp."""
    inside, rim = near < 0, (near > RIM_MM[0]) & (near < RIM_MM[1])
    level = DARK * float(np.median(small[inside])) if inside.any() else 0.0
    tell(int(inside.sum()), float((small[rim] > level).mean()) if rim.any() else 1.0, rt)


def covered(grid: Grid, ends: NDArray[np.float64], scan: Grid) -> tuple[tuple[slice, ...], Grid]:
    """Return the box of a scan that holds voxels `ends` (3, 2), the first and the last, of another grid; and its grid."""
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    places = scan.to_voxels(grid.to_patient(corners))
    low = np.clip(np.floor(places.min(0)), 0, np.asarray(scan.shape) - 1).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, low + 1, scan.shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), scan.cropped(low, high)


def around(near: Array, border: float, room: float) -> tuple[slice, ...] | None:
    """Return the box of a copy that holds the brain and some mm beyond, or None where there is no brain."""
    return roomy(extent(near < max(border, 0)), near.shape, room)


def naming(looks: list[Look], box: tuple[slice, ...]) -> Ask:
    """Return what tells how likely each structure is at flat voxels (V,) of a box of the copy, (N, V)."""
    shape = tuple(part.stop - part.start for part in box)
    if not all(isinstance(look.network, HeadNet) for look in looks):
        maps = names_of(looks, box).reshape(-1, int(np.prod(shape)))
        return lambda at: probable(maps[:, at])
    asks = [look.network.naming(look.features) for look in looks]
    start = np.array([[part.start] for part in box])

    def ask(at: NDArray[np.intp]) -> Array:
        i, j, k = np.stack(np.unravel_index(at, shape)) + start
        found = [
            one(np.stack([look.shape[0] - 1 - i if look.mirrored else i, j, k]) + look.moved)[:-1]
            for look, one in zip(looks, asks, strict=True)
        ]
        return probable(found[0] if len(found) == 1 else np.mean(found, axis=0))

    return ask


def moved(distance: Array, looked: Looked, ask: Ask, scan: Volume, scale: fit.Scale) -> Array:
    """Move an outline to where the brightness of what lies inside and outside of it has it.

    Parameters
    ----------
    distance : ndarray, (I, J, K)
        mm to the inner skull, negative inside, on the grid of the scan; written over.
    looked : Looked
    ask : callable
        How likely each structure is at flat voxels (V,) of the box that is looked at: (N, V).
    scan : Volume
    scale : Scale
        From the scan's intensities to those of the copy.
    """
    grid = looked.grid
    spots, at = _band(distance, scan.grid, grid)
    wanted = np.zeros(int(np.prod(grid.shape)), dtype=bool)
    for part in at:
        wanted[part] = True
    if not wanted.any():
        return distance
    tones = tones_at(_beside(ask, looked.near), looked.small, STEP_MM, EVERY, np.flatnonzero(wanted))
    if tones is None:
        return distance
    own = inner_structures()
    numbers = np.cumsum(wanted) - 1
    doubtful = tones.doubtful(own)
    data = np.ascontiguousarray(scan.data)

    def seen(n: int, some: Any) -> tuple[Array, NDArray[np.intp]]:
        """Return brightness at some spots of a slab, as in the copy, and the numbers of what is wanted there."""
        return scale.unit(fit.finite(data[n].reshape(-1)[spots[n][some]])), numbers[at[n][some]]

    counts = np.cumsum([0, *map(len, spots)])
    step = max(1, int(counts[-1]) // SOME_VOXELS)
    few = [seen(n, slice(int(-counts[n] % step), None, step)) for n in range(len(spots))]
    tones = tones.refitted(*(np.concatenate(parts) for parts in zip(*few, strict=True)))
    blur = [fit.blurring(n, SOFT_MM / s, "reflect") for n, s in zip(distance.shape, scan.grid.spacing, strict=True)]
    shift = np.zeros(distance.shape, dtype=np.float32)

    def push(n: int) -> None:
        some = np.flatnonzero(doubtful[numbers[at[n]]])
        if some.size:
            plane = np.zeros(distance.shape[1:], dtype=np.float32)
            gain = tones.gain(*seen(n, some), own)
            plane.reshape(-1)[spots[n][some]] = np.clip(UNSURE_MM * gain, -MOST_MM, MOST_MM)
            shift[n] = blur[1] @ plane @ blur[2].T

    def settle(n: int) -> None:
        beside = np.flatnonzero(blur[0][n])
        distance[n] -= np.tensordot(blur[0][n, beside], shift[beside[0] : beside[-1] + 1], axes=1)

    with own_threads() as threads:
        each(push, range(len(distance)), threads)
        each(settle, range(len(distance)), threads)
    return distance.clip(-REACH_MM, REACH_MM, out=distance)


def _band(distance: Array, scan: Grid, grid: Grid) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """Return where each slab of a scan is near to the outline, flat, and the flat voxels of the copy that are nearest there."""
    first, second, third = nearest_along(scan, grid)
    plane = (second[:, None] * grid.shape[2] + third).reshape(-1)
    spots, at = [], []
    for slab, row in zip(distance, first, strict=True):
        spots.append(np.flatnonzero(np.abs(slab.reshape(-1)) < BAND_MM))
        at.append(plane[spots[-1]] + row * (grid.shape[1] * grid.shape[2]))
    return spots, at


def _beside(ask: Ask, near: Array) -> Ask:
    """Return how likely each structure is once the distance says on which side of the outline a voxel lies."""
    first, last = INNER.start, INNER.stop

    def told(at: NDArray[np.intp]) -> Array:
        maps = ask(at)
        maps += np.float32(LEAST)
        brain = 1 / (1 + np.exp(np.clip(near.reshape(-1)[at] / np.float32(UNSURE_MM), -30, 30)))
        inner, outer = maps[first:last].sum(axis=0), maps[:first].sum(axis=0) + maps[last:].sum(axis=0)
        maps[first:last] *= brain / inner
        maps[:first] *= (1 - brain) / outer
        maps[last:] *= (1 - brain) / outer
        return maps

    return told


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
    distance = fit.resampled(near.clip(-REACH_MM, REACH_MM), grid, scan)
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
    return filled(largest(mask)[0]).view(np.uint8)
