"""Where a grid stands on the screen: a frame in mm that all layers of a window share.

The rule
--------
A window has one *frame*: three right-angled directions in the patient, close to superior, anterior
and right. Its coordinates are millimetres along these directions, measured from the patient's
origin, so a frame is a rotation of patient space and keeps every distance.

* The first scan chooses the frame: the patient's own axes if it is straight, else the scan's.
* A grid whose axes run along the frame (each voxel centre within a quarter voxel of its true place)
  is shown voxel by voxel: a spacing and an offset in mm place it, with nothing rotated.
* Any other grid (other obliquity, sheared) is *tilted*: it is interpolated for the eye on a lattice
  along the frame that never steps over more than one of its voxels. The exact voxels stay aside.

numpy only (scipy when something is tilted), so that the rule can be tested without a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.grid import Grid, turn_array, way_back

QUARTER = 0.25
"""Largest offset, in voxels, at which a grid counts as lying along the frame."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The directions of the screen's axes in the patient.

    Parameters
    ----------
    axes : ndarray, (3, 3) float64
        Columns: unit vectors in patient RAS+ of world axis 0 (superior), 1 (anterior), 2 (right).
    """

    axes: NDArray[np.float64]

    @classmethod
    def of(cls, grid: Grid) -> Frame:
        """Return the frame that a scan on `grid` chooses when it is the first in the window."""
        if Placing(grid, STRAIGHT).exact:
            return STRAIGHT
        return cls(grid.turned("SAR").upright)

    def to_world(self, patient: ArrayLike) -> NDArray[np.float64]:
        """Turn patient points (..., 3) RAS+ mm into the window's (..., 3) mm."""
        return np.asarray(np.asarray(patient, dtype=np.float64) @ self.axes)

    def to_patient(self, world: ArrayLike) -> NDArray[np.float64]:
        """Turn the window's points (..., 3) mm into patient (..., 3) RAS+ mm."""
        return np.asarray(np.asarray(world, dtype=np.float64) @ self.axes.T)

    def same(self, other: Frame) -> bool:
        """Tell whether two frames have the same directions, to rounding."""
        return bool(np.abs(self.axes - other.axes).max() < 1e-9)


STRAIGHT = Frame(np.eye(3)[:, ::-1].copy())
"""The patient's own axes: world (z, y, x) is patient (x, y, z)."""


@dataclass(frozen=True, eq=False)
class Placing:
    """How one grid stands in one frame.

    Parameters
    ----------
    grid : Grid
        The exact grid.
    frame : Frame
    """

    grid: Grid
    frame: Frame

    @cached_property
    def _in_world(self) -> Grid:
        """The grid with world axes (superior, anterior, right) in the place of the patient's."""
        to_world = np.eye(4)
        to_world[:3, :3] = self.frame.axes.T
        affine = to_world @ self.grid.affine
        return Grid(self.grid.shape, affine)

    @cached_property
    def _turn(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        return self._in_world.turn_to("RAS")

    @cached_property
    def _straightened(self) -> Grid:
        """The turned grid with its axes bent onto the frame's, about its centre (world mm)."""
        turned = self._in_world.turned("RAS")
        middle = (np.asarray(turned.shape) - 1) / 2
        affine = np.diag([*turned.spacing, 1.0])
        affine[:3, 3] = turned.to_patient(middle) - middle * turned.spacing
        return Grid(turned.shape, affine)

    @cached_property
    def exact(self) -> bool:
        """Whether the voxels themselves are shown, each within a quarter voxel of its true place."""
        turned, bent = self._in_world.turned("RAS"), self._straightened
        ends = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        ends = ends * (np.asarray(turned.shape) - 1)
        away = np.linalg.norm(turned.to_patient(ends) - bent.to_patient(ends), axis=1)
        # One-voxel axes have no far end that could betray a tilt, so the directions are asked too.
        tilt = np.linalg.norm(turned.directions - np.eye(3), axis=0).max()
        return bool(away.max() <= QUARTER * min(turned.spacing) and tilt <= QUARTER)

    @cached_property
    def _lattice(self) -> Grid:
        """What is shown, in world mm: along the frame, first voxel lowest on every axis."""
        if self.exact:
            return self._straightened
        box = self._in_world.corners()
        low, high = box.min(axis=0), box.max(axis=0)
        # Travel along a world axis until one voxel of the grid has been crossed, along any of its axes.
        crossed = np.abs(np.linalg.inv(self._in_world.affine[:3, :3])).max(axis=0)
        step = 1.0 / crossed
        shape = np.maximum(1, np.ceil((high - low) / step - 1e-6)).astype(int)
        affine = np.diag([*step, 1.0])
        affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * step
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels shown along (superior, anterior, right)."""
        return self._lattice.shape

    @property
    def scale(self) -> NDArray[np.float64]:
        """(3,) mm between shown voxels along the world axes, always positive."""
        return np.asarray(self._lattice.spacing)

    @property
    def translate(self) -> NDArray[np.float64]:
        """(3,) world position of the first shown voxel's centre, mm."""
        return np.asarray(self._lattice.affine[:3, 3])

    @cached_property
    def shown(self) -> Grid:
        """The shown lattice as a grid in the patient, array axes (superior, anterior, right)."""
        to_patient = np.eye(4)
        to_patient[:3, :3] = self.frame.axes
        return Grid(self.shape, to_patient @ self._lattice.affine)

    def fits(self, shape: tuple[int, ...], scale: ArrayLike, translate: ArrayLike) -> bool:
        """Tell whether a lattice of the window is this one, to a hundredth of a voxel."""
        if tuple(shape) != self.shape:
            return False
        step = np.asarray(scale, dtype=float) - self.scale
        ends = np.asarray(translate, dtype=float) - self.translate
        far = ends + step * (np.asarray(shape) - 1)
        return bool(np.abs([step, ends, far]).max() <= 0.01 * self.scale.min())

    def forth(self, data: NDArray[Any], *, labels: bool = False) -> NDArray[Any]:
        """Return what the window shows of voxels on the grid.

        Parameters
        ----------
        data : ndarray, (I, J, K) or (I, J, K, C)
        labels : bool
            Whether the values are names, which must not be mixed.

        Returns
        -------
        ndarray, (S, A, R) or (C, S, A, R)
            A view unless the grid is tilted.
        """
        if data.ndim == 4:
            if self.exact:
                return np.moveaxis(turn_array(data, *self._turn), 3, 0)
            return np.stack([self.forth(data[..., n], labels=labels) for n in range(data.shape[3])])
        if self.exact:
            return turn_array(data, *self._turn)
        step, start = _from_to(self.shown, self.grid)
        from scipy.ndimage import affine_transform

        outside = 0 if labels else data.min()
        return np.asarray(
            affine_transform(data, step, start, self.shape, order=0 if labels else 1, mode="constant", cval=outside)
        )

    def home(self, shown: NDArray[Any], original: NDArray[Any] | None = None) -> NDArray[Any]:
        """Bring labels that were changed in the window back onto the grid.

        Parameters
        ----------
        shown : ndarray of integers, (S, A, R) or (C, S, A, R)
        original : ndarray, (I, J, K) or (I, J, K, C), optional
            The labels before; where the grid is tilted, voxels whose picture did not change keep
            these values. Default all background.

        Returns
        -------
        ndarray, (I, J, K) or (I, J, K, C)
            Bit for bit what was drawn, unless the grid is tilted: then each exact voxel takes the
            shown voxel nearest to its centre.
        """
        if self.exact:
            return turn_array(shown if shown.ndim == 3 else np.moveaxis(shown, 0, 3), *way_back(*self._turn))
        if shown.ndim == 4:
            before = [None if original is None else original[..., n] for n in range(len(shown))]
            return np.stack([self.home(part, old) for part, old in zip(shown, before, strict=True)], axis=3)
        from scipy.ndimage import affine_transform

        old = np.zeros(self.grid.shape, shown.dtype) if original is None else original.astype(shown.dtype)
        changed = (shown != self.forth(old, labels=True)).astype(np.uint8)
        if not changed.any():
            return old
        step, start = _from_to(self.grid, self.shown)
        there = affine_transform(changed, step, start, self.grid.shape, order=0, mode="nearest")
        drawn = affine_transform(shown, step, start, self.grid.shape, order=0, mode="nearest")
        return np.where(there > 0, drawn, old)


def _from_to(source: Grid, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (3, 3) and (3,) that turn voxel indices of one grid into those of another."""
    matrix = np.linalg.inv(target.affine) @ source.affine
    return matrix[:3, :3], matrix[:3, 3]
