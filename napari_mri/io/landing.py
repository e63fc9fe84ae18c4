"""Puts labels onto the voxels of a scan where both share one lattice, and says why where they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume

_APART = 0.05  # of a voxel: what headers round away
Some = TypeVar("Some", bound=Volume)


def landed(labels: Labels, scan: Volume) -> Labels:
    """Return the labels on the very grid of a scan, voxel for voxel.

    Sparse frames, cropped boxes and other storage orders fit, since no voxel is made up; anything
    that would need resampling is refused.

    Parameters
    ----------
    labels : Labels
    scan : Volume

    Returns
    -------
    Labels
        With the scan's grid; what of the scan they do not cover is 0.

    Raises
    ------
    GridMismatch
        If the voxel centres of the two do not coincide, or labels would be lost outside the scan.
    """
    return landed_on(labels, scan.grid, scan.title)


def onto(path: Path, scan: Volume) -> Volume:
    """Open what was made for a scan and put it on the scan's voxels: a mask, contours, a NumPy array.

    Parameters
    ----------
    path : Path
        Labels of any format, an RTSTRUCT, or a ``.npy`` of the scan's shape.
    scan : Volume

    Raises
    ------
    GridMismatch, UnsupportedImage
        If it does not lie on the scan's voxels; the message tells why.
    """
    from napari_mri.io import rawdata, rtstruct
    from napari_mri.io.files import load_labels
    from napari_mri.io.unpack import head_of

    head = head_of(path) if path.is_file() else b""
    if head.startswith(b"\x93NUMPY"):
        return rawdata.on_scan(path, scan)
    if head and rtstruct.mine(path, head):
        return rtstruct.read_onto(path, scan)
    return landed(load_labels(path), scan)


def landed_on(labels: Some, grid: Grid, title: str) -> Some:
    """Return labels (or fractions) on a grid of the same lattice; `title` names it in messages.

    Raises
    ------
    GridMismatch
        As `landed`.
    """
    if labels.grid.same(grid):
        return replace(labels, grid=grid)
    data = moved(labels.data, labels.grid, grid)
    if data is None:
        raise GridMismatch(
            f"'{labels.title}' does not lie on the voxels of '{title}': {why_apart(labels.grid, grid)}.",
            hint="Open both to see them together in mm, or resample the labels to the scan.",
        )
    lost = int(np.count_nonzero(labels.data)) - int(np.count_nonzero(data))
    if lost > 0:
        raise GridMismatch(
            f"{lost:,} labelled voxels of '{labels.title}' lie outside '{title}'.",
            hint="The labels may belong to another scan: open both to see them together in mm.",
        )
    return replace(labels, data=data, grid=grid)


def why_apart(one: Grid, other: Grid) -> str:
    """Return in words what keeps two grids from sharing their voxel centres."""
    step = sorted(one.spacing), sorted(other.spacing)
    if np.abs(np.subtract(*step)).max() > 1e-3 * max(step[0]):
        sizes = ["×".join(f"{s:.3g}" for s in grid.spacing) for grid in (one, other)]
        return f"its voxels are {sizes[0]} mm, those of the scan {sizes[1]} mm"
    cosines = np.abs(one.directions.T @ other.directions)
    angle = float(np.degrees(np.arccos(np.clip(cosines.max(axis=0).min(), -1, 1))))
    if angle > 0.05:
        return f"it is turned by {angle:.1f}° against the scan"
    return "its voxel centres fall between those of the scan"


def moved(data: NDArray[Any], start: Grid, target: Grid) -> NDArray[Any] | None:
    """Return an array on another grid of the same lattice, zeros where it does not reach.

    Parameters
    ----------
    data : ndarray, (I, J, K) or (I, J, K, C)
        On `start`.
    start, target : Grid

    Returns
    -------
    ndarray or None
        None if the voxel centres of the two grids do not coincide.
    """
    step = np.linalg.inv(target.affine) @ start.affine
    turn, shift = step[:3, :3], step[:3, 3]
    reach = np.asarray(start.shape, dtype=float)
    if (
        np.abs((turn - np.round(turn)) * reach).max() > _APART
        or np.abs(shift - np.round(shift)).max() > _APART
    ):
        return None
    whole, offset = np.round(turn).astype(int), np.round(shift).astype(int)
    if not (np.abs(whole).sum(axis=0) == 1).all() or not (np.abs(whole).sum(axis=1) == 1).all():
        return None
    order = [int(np.flatnonzero(whole[row])[0]) for row in range(3)]
    rest = tuple(range(3, data.ndim))
    turned = data.transpose(*order, *rest)
    into, out_of = [], []
    for axis in range(3):
        sign, first = whole[axis, order[axis]], int(offset[axis])
        if sign < 0:
            turned = np.flip(turned, axis)
            first -= turned.shape[axis] - 1
        low, high = max(0, first), min(target.shape[axis], first + turned.shape[axis])
        if low >= high:
            return np.zeros((*target.shape, *data.shape[3:]), data.dtype)
        into.append(slice(low, high))
        out_of.append(slice(low - first, high - first))
    found = np.zeros((*target.shape, *data.shape[3:]), data.dtype, order="F")
    found[tuple(into)] = turned[tuple(out_of)]
    return found
