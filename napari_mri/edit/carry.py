"""Carry labels to another grid and back without drift: by the signed distance to each label's border."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels
from napari_mri.edit.distance import signed_distance

Box = tuple[slice, ...]

_FAR = 1e4
"""mm, stands for "nowhere near": finite, so that it can be interpolated."""


def carried(labels: Labels, grid: Grid) -> Labels:
    """Return labels on another grid, with borders as smooth as that grid allows.

    Each voxel takes the label (or the background) whose interpolated signed distance is deepest there.
    Beyond the box of the labels there is background. Names, colours and the integer type stay.

    Parameters
    ----------
    labels : Labels, (I, J, K) or (I, J, K, C)
    grid : Grid
        Of any spacing, storage order and obliquity.

    Returns
    -------
    Labels
        On `grid`, with one more line of history; the same object if the grid is the same.
    """
    if labels.grid.same(grid, 1e-6):
        return labels
    frames = [_carried(np.asarray(labels.frame(n).data), labels.grid, grid) for n in range(labels.n_frames)]
    data = frames[0] if labels.data.ndim == 3 else np.stack(frames, axis=-1)
    return replace(labels, data=data, grid=grid).after(Step("carried to another grid"))


def _carried(data: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    from scipy.ndimage import find_objects

    new = np.zeros(target.shape, dtype=data.dtype)
    if not data.any():
        return new
    values, small = np.unique(data, return_inverse=True)
    small = small.reshape(data.shape) + (0 if values[0] == 0 else 1)
    values = values if values[0] == 0 else np.concatenate([[0], values])
    # The background competes as one more label, so that where three labels meet no hole opens.
    depth = np.full(target.shape, np.float32(_FAR))
    boxes = find_objects(small)
    whole = tuple(slice(min(b[a].start for b in boxes if b), max(b[a].stop for b in boxes if b)) for a in range(3))
    part, inside = _depth(small > 0, whole, source, target)
    depth[part] = np.where(inside > -_FAR, -inside, _FAR)
    for number, box in enumerate(boxes, start=1):
        if box is None or values[number] == 0:
            continue
        part, inside = _depth(small == number, box, source, target)
        deeper = inside > depth[part]
        depth[part][deeper] = inside[deeper]
        new[part][deeper] = values[number]
    _keep_middles(new, data, source, target)
    return new


def _keep_middles(new: NDArray[Any], data: NDArray[Any], source: Grid, target: Grid) -> None:
    """Where the middle of a coarser voxel lies within a finer one, give both one label, whichever way it goes.

    In thick slices the nearest border mostly lies within the slice, so that the interpolated distance alone
    would round off the first and last slice of a structure, and again on the way back.
    """
    step = np.linalg.inv(target.affine) @ source.affine
    turn = np.abs(step[:3, :3])
    if ((turn > 1e-4).sum(axis=0) != 1).any():
        return  # tilted grids share no middles
    where = []
    for axis in range(3):
        along = int(np.argmax(turn[axis]))
        place = (np.arange(target.shape[axis]) - step[axis, 3]) / step[axis, along]
        nearest = np.rint(place).astype(int)
        apart = np.abs(place - nearest)
        if turn[axis, along] >= 1:
            hit = apart * turn[axis, along] <= 0.5 + 1e-4
        else:
            hit = apart < 0.5 - 1e-3  # a middle between two finer voxels is left to the distance
        hit &= (nearest >= 0) & (nearest < source.shape[along])
        where.append((along, np.flatnonzero(hit), nearest[hit]))
    middle = data.transpose([along for along, _, _ in where])[np.ix_(*(index for _, _, index in where))]
    new[np.ix_(*(hit for _, hit, _ in where))] = middle


def _depth(mask: NDArray[np.bool_], box: Box, source: Grid, target: Grid) -> tuple[Box, NDArray[np.float32]]:
    """Return where in the target a mask may lie, and how deep (mm) each voxel there lies in it."""
    from scipy.ndimage import affine_transform

    low = np.array([max(b.start - 2, 0) for b in box])
    high = np.array([min(b.stop + 2, n) for b, n in zip(box, mask.shape, strict=True)])
    piece = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if piece.all():
        distance = np.full(piece.shape, np.float32(_FAR / 2))
    else:
        distance = signed_distance(piece, source.spacing)
    crop = source.cropped(low, high)
    reach = target.to_voxels(crop.corners())
    first = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, target.shape)
    last = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 1, first, target.shape)
    part = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    shape = tuple(int(n) for n in last - first)
    if min(shape) == 0:
        return part, np.zeros(shape, np.float32)
    step = np.linalg.inv(crop.affine) @ target.cropped(first, last).affine
    inside = affine_transform(distance, step[:3, :3], step[:3, 3], shape, order=1, mode="nearest", output=np.float32)
    index = np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True)
    for axis in range(3):  # beyond the crop's outer voxel edges its border must not go on
        place = step[axis, 3] + sum(step[axis, n] * index[n] for n in range(3))
        inside[np.broadcast_to((place < -0.5 - 1e-6) | (place > piece.shape[axis] - 0.5 + 1e-6), shape)] = -_FAR
    return part, inside
