"""The mid-sagittal plane of a head: where left and right mirror each other best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import GeometryProblem
from napari_mri.core.volume import Volume


@dataclass(frozen=True)
class Plane:
    """A plane in the patient.

    Parameters
    ----------
    normal : (3,) RAS+
        Direction across it; made a unit vector that points to the patient's right (x >= 0).
    offset : float, mm
        Points p of the plane have ``normal · p = offset``.
    """

    normal: tuple[float, float, float]
    offset: float

    def __post_init__(self) -> None:
        normal = np.asarray(self.normal, dtype=np.float64)
        length = np.linalg.norm(normal)
        if normal.shape != (3,) or not np.isfinite(length) or length <= 0:
            raise GeometryProblem(f"{self.normal} is no direction of a plane.")
        sign = -1.0 if normal[0] < 0 else 1.0
        x, y, z = (float(v) for v in sign * normal / length)
        object.__setattr__(self, "normal", (x, y, z))
        object.__setattr__(self, "offset", float(sign * self.offset / length))

    def side(self, patient: ArrayLike) -> NDArray[np.float64]:
        """Signed distance of points (..., 3) mm: above 0 on the patient's right."""
        return np.asarray(np.asarray(patient, dtype=np.float64) @ np.asarray(self.normal) - self.offset)

    def mirrored(self, patient: ArrayLike) -> NDArray[np.float64]:
        """Return the mirror images of points (..., 3) mm."""
        points = np.asarray(patient, dtype=np.float64)
        return np.asarray(points - 2 * self.side(points)[..., None] * np.asarray(self.normal))


def find_midplane(scan: Volume, *, coarse_mm: float = 5.0) -> Plane:
    """Find the plane near the sagittal one across which a head is most like its mirror image.

    The scan is averaged to blocks of about `coarse_mm`; offset and two tilts (up to 20°) are then
    searched with shrinking steps for the highest correlation between the head's blocks and the
    trilinear values at their mirror images.

    Parameters
    ----------
    scan : Volume, (I, J, K) or (I, J, K, C)
        Of a 4D scan the first frame is used.
    coarse_mm : float, mm

    Raises
    ------
    GeometryProblem
        If the scan holds a single grey value.
    """
    blocks, affine = _blocks(scan.frame(0), coarse_mm)
    spread = float(blocks.max() - blocks.min())
    if not spread > 0:
        raise GeometryProblem("The scan holds a single grey value, so it has no middle to find.")
    blocks = (blocks - blocks.min()) / spread
    index = np.stack(np.meshgrid(*map(np.arange, blocks.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    values = blocks.reshape(-1)
    head = values > 0.1 * np.percentile(values, 99)
    centre = points[head].mean(axis=0) if head.any() else points.mean(axis=0)
    inverse = np.linalg.inv(affine)

    def likeness(shift: float, turn: float, roll: float) -> float:
        plane = _plane(centre, shift, turn, roll)
        there = plane.mirrored(points[head]) @ inverse[:3, :3].T + inverse[:3, 3]
        image = _trilinear(blocks, there)
        ours, theirs = values[head] - values[head].mean(), image - image.mean()
        return float((ours * theirs).sum() / (np.linalg.norm(ours) * np.linalg.norm(theirs) + 1e-12))

    found = np.zeros(3)
    best = likeness(*found)
    for start in np.arange(-20.0, 21.0, 5.0):  # the head's mean may stand aside of its middle
        if (now := likeness(start, 0.0, 0.0)) > best:
            best, found = now, np.array([start, 0.0, 0.0])
    steps = np.array([4.0, 4.0, 4.0])  # mm, degrees, degrees
    while steps[0] > 0.1:
        tries = [found + sign * steps * axis for axis in np.eye(3) for sign in (1, -1)]
        scores = [likeness(*trial) if np.abs(trial[1:]).max() <= 20 else -1.0 for trial in tries]
        if max(scores) > best:
            best, found = max(scores), tries[int(np.argmax(scores))]
        else:
            steps = steps / 2
    return _plane(centre, *found)


def _plane(centre: NDArray[np.float64], shift: float, turn: float, roll: float) -> Plane:
    a, b = np.radians([turn, roll])
    normal = np.array([1.0, np.tan(a), np.tan(b)])
    normal /= np.linalg.norm(normal)
    return Plane((normal[0], normal[1], normal[2]), float(normal @ centre + shift))


def _blocks(scan: Volume, coarse_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average a scan over blocks; return them with their affine."""
    size = [max(1, min(n, round(coarse_mm / s))) for n, s in zip(scan.grid.shape, scan.spacing, strict=True)]
    whole = [n // b for n, b in zip(scan.grid.shape, size, strict=True)]
    data = scan.data[tuple(slice(0, n * b) for n, b in zip(whole, size, strict=True))]
    parts = np.nan_to_num(data.astype(np.float64)).reshape(whole[0], size[0], whole[1], size[1], whole[2], size[2])
    affine = scan.affine.copy()
    affine[:3, :3] = affine[:3, :3] * size
    affine[:3, 3] = scan.grid.to_patient((np.asarray(size) - 1) / 2)
    return parts.mean(axis=(1, 3, 5)), affine


def _trilinear(data: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample an array at fractional indices (N, 3); 0 outside."""
    padded = np.pad(data, 1)
    inside = np.clip(places + 1, 0, np.asarray(padded.shape) - 1.001)
    base = inside.astype(int)
    base = np.minimum(base, np.asarray(padded.shape) - 2)
    part = inside - base
    total = np.zeros(len(places))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        total += weight * padded[tuple((base + corner).T)]
    return total
