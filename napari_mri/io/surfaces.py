"""Makes closed, smooth surfaces of labels, in patient millimetres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, MissingExtra, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.io.layered import segments_of

_PASS, _STOP = 0.5, -0.53  # Taubin's λ and μ


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh.

    Parameters
    ----------
    points : ndarray, (N, 3) float64
        Patient RAS+, mm.
    faces : ndarray, (M, 3) int
        Indices into `points`, counter-clockwise as seen from outside.
    name : str
    color : (r, g, b) in [0, 1], optional
    warnings : tuple of str

    Raises
    ------
    BrokenFile
        If a face points to a point that is not there, or a point is not finite.
    """

    points: NDArray[np.float64]
    faces: NDArray[np.intp]
    name: str = ""
    color: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(self.faces, dtype=np.intp).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise BrokenFile(f"The surface '{self.name}' has points that are nowhere (NaN or infinite).")
        if faces.size and (faces.min() < 0 or faces.max() >= len(points)):
            raise BrokenFile(
                f"The surface '{self.name}' is damaged: a triangle uses a point that is not there."
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "faces", faces)

    @property
    def volume_ml(self) -> float:
        """Enclosed volume, millilitres; negative where the triangles face inwards."""
        a, b, c = (self.points[self.faces[:, n]] for n in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6000.0)

    @property
    def closed(self) -> bool:
        """Whether every edge is shared by two triangles that run along it in opposite directions."""
        if not len(self.faces):
            return False
        edges = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        there = np.sort(edges[:, 0] * len(self.points) + edges[:, 1])
        back = np.sort(edges[:, 1] * len(self.points) + edges[:, 0])
        return bool(np.array_equal(there, back))


def surfaces_of(labels: Labels, *, smooth: int = 20) -> Iterator[Surface]:
    """Yield the surface of each label that occurs, smallest value first.

    Parameters
    ----------
    labels : Labels
        One map, or layers of overlapping segments.
    smooth : int
        Rounds of smoothing; 0 keeps the steps of the voxels.

    Raises
    ------
    UnsupportedImage
        If nothing is labelled, or the labels change over time.
    MissingExtra
        Without scikit-image.
    """
    some = False
    for value, mask in segments_of(labels):
        some = True
        surface = surface_of(mask, labels.grid, smooth=smooth)
        name = labels.names.get(value) or f"Label {value}"
        yield Surface(surface.points, surface.faces, name, labels.colors.get(value))
    if not some:
        raise UnsupportedImage("There is no label to make a surface of.")


def surface_of(mask: NDArray[np.bool_], grid: Grid, *, smooth: int = 20) -> Surface:
    """Return the closed surface around a mask.

    Marching cubes (Lewiner et al. 2003) on the mask, which is closed at the border of the volume;
    then Taubin's smoothing (1995), which takes away the steps and hardly any volume.

    Parameters
    ----------
    mask : ndarray of bool, (I, J, K)
    grid : Grid
    smooth : int
        Rounds of smoothing.

    Returns
    -------
    Surface
        Empty where the mask is.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtra("Surfaces need scikit-image.", hint="pip install scikit-image") from error
    where = [np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis))) for axis in range(3)]
    if not where[0].size:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.intp))
    low = np.array([hits[0] for hits in where])
    box = tuple(slice(hits[0], hits[-1] + 1) for hits in where)
    inside = np.pad(mask[box].astype(np.float32), 1)
    corners, faces, _, _ = marching_cubes(inside, 0.5, allow_degenerate=True)
    points = grid.to_patient(corners.astype(np.float64) - 1 + low)
    faces = faces.astype(np.intp)
    if smooth > 0:
        points = _smoothed(points, faces, smooth)
    surface = Surface(points, faces)
    # Which way round the triangles run depends on the storage order; outside must be outside.
    return Surface(points, faces[:, ::-1]) if surface.volume_ml < 0 else surface


def _smoothed(points: NDArray[np.float64], faces: NDArray[np.intp], rounds: int) -> NDArray[np.float64]:
    from scipy.sparse import coo_matrix, diags

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    count = len(points)
    links = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    links.data[:] = 1.0  # an edge of two triangles counts once
    degree = np.asarray(links.sum(axis=1)).ravel()
    mean = diags(1.0 / np.maximum(degree, 1)) @ links
    for _ in range(rounds):
        for share in (_PASS, _STOP):
            points = points + share * (mean @ points - points)
    return np.asarray(points)
