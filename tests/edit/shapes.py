"""Shapes by formula on odd, anisotropic, flipped and oblique grids, for the tests of the tools."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels


def _oblique() -> Grid:
    a, b = 0.3, -0.2
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x @ np.diag([1.1, 0.9, 2.3])
    affine[:3, 3] = (-20, 11, 5)
    return Grid((41, 53, 27), affine)


def _permuted() -> Grid:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -2.0, 1.3, -0.8, 1
    affine[:3, 3] = (3, 40, 60)
    return Grid((29, 37, 55), affine)


GRIDS = {
    "plain": Grid.plain((41, 47, 43)),
    "anisotropic": Grid.plain((43, 51, 21), (1.0, 0.8, 3.0)),
    "flipped": Grid((45, 39, 31), np.array([[-1.0, 0, 0, 50], [0, -1.2, 0, 9], [0, 0, 1.5, 0], [0, 0, 0, 1]])),
    "permuted": _permuted(),
    "oblique": _oblique(),
}


def distance_to_centre(grid: Grid, offset: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.float64]:
    """(I, J, K) mm from the middle of the grid, moved by a patient offset in mm."""
    points = grid.to_patient(np.indices(grid.shape).transpose(1, 2, 3, 0))
    return np.linalg.norm(points - (grid.centre + np.asarray(offset)), axis=-1)


def ball(grid: Grid, mm: float, offset: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.bool_]:
    """Return a ball as bools."""
    return distance_to_centre(grid, offset) <= mm


def labels_of(grid: Grid, *masks: NDArray[np.bool_]) -> Labels:
    """Label 1, 2, … from masks; the later paints over the earlier."""
    data = np.zeros(grid.shape, np.uint8)
    for value, mask in enumerate(masks, start=1):
        data[mask] = value
    return Labels(data, grid)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
