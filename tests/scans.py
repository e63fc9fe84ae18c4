"""Small scans made by formula, on grids that catch swapped and flipped axes: odd sizes, unequal spacings."""

from __future__ import annotations

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return a (3, 3) rotation by angles in degrees about the patient's axes."""
    a, b, c = np.radians([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def grid_of(shape, spacing, axes: str = "RAS", tilt=(0.0, 0.0, 0.0), centre=(4.0, -7.0, 11.0)) -> Grid:
    """Return a grid of a storage order and tilt whose box has its middle at `centre` mm."""
    signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    directions = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row, sign = signs[letter]
        directions[row, column] = sign
    affine = np.eye(4)
    affine[:3, :3] = _rotation(*tilt) @ directions * np.asarray(spacing, float)
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(tuple(shape), affine)


GRIDS: dict[str, Grid] = {
    "plain": grid_of((31, 35, 29), (4.0, 4.0, 4.0)),
    "flipped": grid_of((31, 35, 29), (4.0, 4.0, 4.0), "LPS"),
    "permuted": grid_of((29, 31, 35), (4.0, 4.0, 4.0), "SRP"),
    "oblique": grid_of((31, 35, 29), (4.0, 4.0, 4.0), "RAS", (12.0, -7.0, 18.0)),
    "anisotropic": grid_of((47, 51, 17), (2.7, 2.7, 7.5), "LAS", (6.0, 0.0, -4.0)),
}
"""One scan's box (about 120 mm) in five ways of storing it."""


def blob(grid: Grid, centre=(4.0, -7.0, 11.0), radii=(38.0, 45.0, 34.0)) -> np.ndarray:
    """Return a bool array: an ellipsoid in patient mm, whatever the storage order."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    offset = (grid.to_patient(index) - np.asarray(centre)) / np.asarray(radii)
    return (offset**2).sum(-1) <= 1


def head(grid: Grid, dtype=np.float32, seed: int = 0) -> Volume:
    """Return a toy head: bright brain, dark skull, bright scalp, noise. Unequal along all axes."""
    rng = np.random.default_rng(seed)
    scalp = blob(grid, (4, -7, 11), (52, 60, 50))
    skull = blob(grid, (4, -7, 11), (47, 55, 45))
    brain = blob(grid, (4, -7, 11), (40, 47, 37))
    eye = blob(grid, (25, 40, 0), (8, 8, 8))
    data = np.zeros(grid.shape)
    data[scalp] = 700
    data[skull] = 60
    data[brain] = 480
    data[eye] = 300
    data += rng.normal(0, 12, grid.shape)
    data = np.clip(data, 0, None)
    return Volume(data.round().astype(dtype) if np.dtype(dtype).kind in "iu" else data.astype(dtype), grid)


def marker(grid: Grid, value: int = 1) -> Labels:
    """Return labels whose one corner voxel differs, so that every flip and swap shows."""
    data = np.zeros(grid.shape, np.uint8)
    data[1:4, 2:4, 3] = value
    data[0, 0, 0] = value + 1
    return Labels(data, grid, names={value: "block", value + 1: "corner"})


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return 2|A∩B| / (|A|+|B|) of two masks."""
    a, b = a > 0, b > 0
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total
