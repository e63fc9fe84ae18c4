"""Paint shapes given by formula onto a grid: exact labels, and signal with soft edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid

Array = NDArray[np.float32]
Point3 = tuple[float, float, float]


@dataclass(frozen=True)
class Where:
    """Patient coordinates, RAS+ mm, of a box of voxels; the three arrays broadcast to its shape."""

    x: Array
    y: Array
    z: Array

    def mirrored(self) -> Where:
        """Fold the left half onto the right: one formula draws both sides."""
        return Where(np.abs(self.x), self.y, self.z)


def places(grid: Grid, box: tuple[slice, ...]) -> Where:
    """Return where the voxels of a box stand.

    Terms that are zero are left out, so on an aligned grid x, y and z stay one-dimensional and
    formulas of one coordinate cost next to nothing.
    """
    steps = [np.arange(part.start, part.stop, dtype=np.float64) for part in box]
    shaped = [steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]]
    axes = []
    for row in grid.affine[:3]:
        total = np.full((1, 1, 1), row[3])
        for factor, step in zip(row[:3], shaped, strict=True):
            if factor != 0:
                total = total + factor * step
        axes.append(total.astype(np.float32))
    return Where(axes[0], axes[1], axes[2])


def ellipsoid(at: Where, centre: Point3, radii: Point3) -> Array:
    """Signed distance to an ellipsoid, mm (first order: exact at the surface, negative inside)."""
    parts = [(axis - np.float32(c)) for axis, c in zip((at.x, at.y, at.z), centre, strict=True)]
    near = far = np.float32(0)
    for part, r in zip(parts, radii, strict=True):
        near = near + (part / np.float32(r)) ** 2
        far = far + (part / np.float32(r * r)) ** 2
    near = np.sqrt(near)
    return np.asarray(near * (near - 1) / np.maximum(np.sqrt(far), np.float32(1e-6)), dtype=np.float32)


def tube(at: Where, ends: tuple[Point3, Point3], radii: tuple[float, float]) -> Array:
    """Signed distance to a straight tube with round ends and a radius at each end, mm."""
    start, stop = np.asarray(ends[0]), np.asarray(ends[1])
    along = stop - start
    length2 = float(along @ along)
    parts = [(axis - np.float32(c)) for axis, c in zip((at.x, at.y, at.z), start, strict=True)]
    t = sum(part * np.float32(a / length2) for part, a in zip(parts, along, strict=True) if a)
    t = np.clip(t, 0, 1)
    away = sum((part - t * np.float32(a)) ** 2 for part, a in zip(parts, along, strict=True))
    return np.asarray(np.sqrt(away) - (radii[0] + t * np.float32(radii[1] - radii[0])), dtype=np.float32)


def path(at: Where, points: Sequence[Point3], radii: Sequence[float], soft: float = 2.0) -> Array:
    """Signed distance to a bent tube through several points, mm."""
    total: Array | None = None
    for n in range(len(points) - 1):
        piece = tube(at, (points[n], points[n + 1]), (radii[n], radii[n + 1]))
        total = piece if total is None else union(total, piece, soft)
    assert total is not None, "a path needs two points"
    return total


def union(a: Array, b: Array, soft: float = 0.0) -> Array:
    """Signed distance to both together; `soft` mm rounds the valley between them."""
    if soft <= 0:
        return np.minimum(a, b)
    valley = np.maximum(np.float32(soft) - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - valley * valley * np.float32(0.25 / soft), dtype=np.float32)


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves in random directions: texture, shading and folds from a few numbers.

    Parameters
    ----------
    vectors : ndarray, (N, 3)
        Wave vectors, rad/mm.
    phases : ndarray, (N,)
    """

    vectors: NDArray[np.float64]
    phases: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, count: int, length: float, spread: float = 0.15) -> Waves:
        """Draw waves of about one wavelength, mm, in all directions."""
        way = rng.normal(size=(count, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        size = 2 * np.pi / (length * (1 + spread * rng.uniform(-1, 1, size=(count, 1))))
        return cls(way * size, rng.uniform(0, 2 * np.pi, size=count))

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """Return the field, about standard normal; the arrays broadcast."""
        total: Array | np.float32 = np.float32(0)
        for (a, b, c), phase in zip(self.vectors.astype(np.float32), self.phases.astype(np.float32), strict=True):
            if z.size * 4 < np.broadcast(x, y, z).size:  # an aligned grid: one cosine a line, not one a voxel
                flat, up = a * x + b * y + phase, c * z
                total = total + np.cos(flat) * np.cos(up)
                total -= np.sin(flat) * np.sin(up)
            else:
                total = total + np.cos(a * x + b * y + (c * z + phase))
        return np.asarray(total * np.float32(np.sqrt(2 / len(self.phases))), dtype=np.float32)

    def with_slope(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Return the field and the length of its gradient (1/mm)."""
        total = np.zeros(x.shape, dtype=np.float32)
        slope = [np.zeros(x.shape, dtype=np.float32) for _ in range(3)]
        for vector, phase in zip(self.vectors.astype(np.float32), self.phases.astype(np.float32), strict=True):
            angle = vector[0] * x + vector[1] * y + (vector[2] * z + phase)
            total += np.cos(angle)
            sine = np.sin(angle)
            for part, component in zip(slope, vector, strict=True):
                part -= component * sine
        size = np.float32(np.sqrt(2 / len(self.phases)))
        length = np.sqrt(slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2)
        return total * size, length * size


class Canvas:
    """Labels and signal on a grid, painted from the outside in.

    Parameters
    ----------
    grid : Grid
    signal : dict of str to float
        Signal of each tissue; 0 is air.
    numbers : dict of str to int
        Label of each part.
    """

    def __init__(self, grid: Grid, signal: dict[str, float], numbers: dict[str, int]) -> None:
        self.grid = grid
        self.signal = signal
        self.numbers = numbers
        self.labels = np.zeros(grid.shape, dtype=np.uint8)
        self.image = np.zeros(grid.shape, dtype=np.float32)
        self.edge = np.float32(max(0.8, float(np.cbrt(grid.voxel_ml * 1000))))
        """Width over which one tissue fades into the next, mm: partial volume."""

    def box(self, low: Point3, high: Point3) -> tuple[slice, ...] | None:
        """Return the voxels that cover a patient box, or None where it lies outside the grid."""
        ends = np.array([[a, b, c] for a in (low[0], high[0]) for b in (low[1], high[1]) for c in (low[2], high[2])])
        voxels = self.grid.to_voxels(ends)
        first = np.clip(np.floor(voxels.min(axis=0)).astype(int) - 1, 0, self.grid.shape)
        last = np.clip(np.ceil(voxels.max(axis=0)).astype(int) + 2, 0, self.grid.shape)
        if (last <= first).any():
            return None
        return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))

    def paint(self, box: tuple[slice, ...], part: str, tissue: str, distance: Array) -> None:
        """Lay a shape over what is there.

        Parameters
        ----------
        box : 3 slices
        part : str
            Key of `numbers`.
        tissue : str
            Key of `signal`.
        distance : ndarray
            Signed distance to the shape's surface, mm, negative inside; broadcasts to the box.
        """
        shape = self.image[box].shape
        cover = np.clip(np.float32(0.5) - distance / self.edge, 0, 1)
        image = self.image[box]
        image += cover * (np.float32(self.signal[tissue]) - image)
        self.labels[box][np.broadcast_to(distance < 0, shape)] = self.numbers[part]
