"""Where voxels stand: a shape and an affine, in patient millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import GeometryProblem

_PAIRS = (("L", "R"), ("P", "A"), ("I", "S"))
_AXIS_OF = {letter: axis for axis, pair in enumerate(_PAIRS) for letter in pair}
_SIGN_OF = {letter: sign for pair in _PAIRS for letter, sign in zip(pair, (-1, 1), strict=True)}


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels placed in the patient.

    Parameters
    ----------
    shape : tuple of 3 int
        Number of voxels along the array axes (I, J, K), each at least 1.
    affine : array_like, (4, 4)
        Voxel centre (i, j, k, 1) -> patient (x, y, z, 1), RAS+, mm. Held as read-only float64.

    Raises
    ------
    GeometryProblem
        If the shape is not three positive integers, or the affine is not a finite, invertible
        (4, 4) matrix with last row (0, 0, 0, 1).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryProblem(
                f"A grid needs three sides of at least one voxel, not {tuple(self.shape)}.",
                hint="The file may be empty or cut off.",
            )
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GeometryProblem("The affine is not a (4, 4) matrix with last row 0 0 0 1.")
        if not np.isfinite(affine).all():
            raise GeometryProblem(
                "The affine holds NaN or infinite numbers, so nobody can tell where the voxels are.",
                hint="Repair the header, or convert the scan from its DICOM files again.",
            )
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
            raise GeometryProblem(
                "The affine squeezes the volume flat: a spacing is zero or two axes are parallel.",
                hint="Repair the header, or convert the scan from its DICOM files again.",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def plain(cls, shape: ArrayLike, spacing: ArrayLike = (1.0, 1.0, 1.0)) -> Grid:
        """Return an axis-aligned RAS+ grid whose first voxel centre is at 0 mm.

        Parameters
        ----------
        shape : 3 int
        spacing : 3 float, mm
        """
        affine = np.diag([*np.asarray(spacing, dtype=float), 1.0])
        i, j, k = (int(n) for n in np.asarray(shape))
        return cls((i, j, k), affine)

    def __repr__(self) -> str:
        size = "×".join(str(n) for n in self.shape)
        step = "×".join(f"{s:.4g}" for s in self.spacing)
        oblique = f", oblique {self.obliquity:.1f}°" if self.obliquity > 0.05 else ""
        return f"Grid({size} voxels @ {step} mm, {self.axes}{oblique})"

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis, mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """(3, 3), columns: unit vector of each array axis in patient RAS+."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing), dtype=np.float64)

    @cached_property
    def upright(self) -> NDArray[np.float64]:
        """(3, 3), columns: the right-angled directions nearest to `directions`."""
        u, _, vt = np.linalg.svd(self.directions)
        return np.asarray(u @ vt)

    @cached_property
    def axes(self) -> str:
        """Three letters: where each array axis points, e.g. ``"RAS"`` or ``"LIA"``.

        The letters are the signed permutation that fits the (orthonormalised) directions best;
        on a tie the earlier patient axis wins, so each letter pair appears exactly once.
        """
        fit = self.upright
        letters = [""] * 3
        left = np.abs(fit).copy()
        for _ in range(3):
            patient, array = np.unravel_index(np.argmax(left), (3, 3))
            letters[array] = _PAIRS[patient][1 if fit[patient, array] > 0 else 0]
            left[patient, :] = -1
            left[:, array] = -1
        return "".join(letters)

    @cached_property
    def obliquity(self) -> float:
        """Largest angle between an array axis and its nearest patient axis, degrees."""
        rows = [_AXIS_OF[letter] for letter in self.axes]
        cosines = np.abs(self.directions[rows, range(3)])
        return float(np.degrees(np.arccos(np.clip(cosines.min(), -1.0, 1.0))))

    @cached_property
    def sheared(self) -> bool:
        """Whether the array axes are not at right angles (gantry tilt), beyond 0.05°."""
        gram = self.directions.T @ self.directions
        return bool(np.abs(gram - np.eye(3)).max() > np.sin(np.radians(0.05)))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Outer size of the box along the array axes, mm."""
        i, j, k = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return i, j, k

    @property
    def centre(self) -> NDArray[np.float64]:
        """(3,) patient position of the middle of the box, mm."""
        return self.to_patient((np.asarray(self.shape) - 1) / 2.0)

    def corners(self) -> NDArray[np.float64]:
        """Return the eight outer corners of the box, (8, 3) patient mm (voxel edges, not centres)."""
        low, high = np.full(3, -0.5), np.asarray(self.shape) - 0.5
        choice = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        return self.to_patient(np.where(choice, high, low))

    def to_patient(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Turn voxel indices into patient millimetres.

        Parameters
        ----------
        voxels : array_like, (..., 3)
            Indices along (I, J, K); fractions allowed.

        Returns
        -------
        ndarray, (..., 3) float64, RAS+ mm
        """
        points = np.asarray(voxels, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_voxels(self, patient: ArrayLike) -> NDArray[np.float64]:
        """Turn patient millimetres into (fractional) voxel indices.

        Parameters
        ----------
        patient : array_like, (..., 3), RAS+ mm

        Returns
        -------
        ndarray, (..., 3) float64, along (I, J, K)
        """
        points = np.asarray(patient, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(points @ self._inverse.T, dtype=np.float64)

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.affine[:3, :3]), dtype=np.float64)

    def holds(self, patient: ArrayLike) -> bool:
        """Tell whether a patient point (3,) mm lies inside the box, voxel edges included."""
        voxel = self.to_voxels(patient)
        return bool((voxel >= -0.5).all() and (voxel <= np.asarray(self.shape) - 0.5).all())

    def same(self, other: Grid, tolerance: float = 0.01) -> bool:
        """Tell whether two grids have one shape and voxel centres within `tolerance` mm."""
        if self.shape != other.shape:
            return False
        box = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        ends = box * (np.asarray(self.shape) - 1)
        # A scale error shows nowhere in a one-voxel axis, so the voxel step is compared as well.
        steps = np.linalg.norm(self.affine[:3, :3] - other.affine[:3, :3], axis=0)
        apart = np.linalg.norm(self.to_patient(ends) - other.to_patient(ends), axis=1)
        return bool(max(apart.max(), steps.max()) <= tolerance)

    def turn_to(self, axes: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """Find which axes to swap and flip to reach an orientation.

        Parameters
        ----------
        axes : str
            Three letters, one of each pair L/R, P/A, I/S, e.g. ``"RAS"``.

        Returns
        -------
        order : 3 int
            ``order[n]`` is the present axis that becomes axis n.
        flips : 3 bool
            Whether axis n, after the swap, is reversed.

        Raises
        ------
        GeometryProblem
            If `axes` is not such a triple.
        """
        wanted = axes.upper()
        if len(wanted) != 3 or sorted(_AXIS_OF.get(letter, -1) for letter in wanted) != [0, 1, 2]:
            raise GeometryProblem(f"'{axes}' is not an orientation.", hint="Use letters such as RAS or LPS.")
        have = self.axes
        place = {_AXIS_OF[letter]: n for n, letter in enumerate(have)}
        order = [place[_AXIS_OF[letter]] for letter in wanted]
        flips = [have[n] != letter for n, letter in zip(order, wanted, strict=True)]
        return (order[0], order[1], order[2]), (flips[0], flips[1], flips[2])

    def turned(self, axes: str) -> Grid:
        """Return the same voxels in another storage order (see `turn_to`)."""
        return self.reordered(*self.turn_to(axes))

    def reordered(self, order: tuple[int, ...], flips: tuple[bool, ...]) -> Grid:
        """Return the same voxels with axes swapped, then flipped, as `turn_to` tells."""
        shape = [self.shape[n] for n in order]
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
            turn[old, new] = -1 if flip else 1
            if flip:
                turn[old, 3] = self.shape[old] - 1
        return Grid((shape[0], shape[1], shape[2]), self.affine @ turn)

    def cropped(self, low: ArrayLike, high: ArrayLike) -> Grid:
        """Return the part from voxel `low` (3,) up to but not including `high` (3,).

        Indices may reach outside, which pads.
        """
        start, stop = np.asarray(low, dtype=int), np.asarray(high, dtype=int)
        affine = self.affine.copy()
        affine[:3, 3] = self.to_patient(start)
        i, j, k = (int(n) for n in stop - start)
        return Grid((i, j, k), affine)

    def respaced(self, spacing: ArrayLike) -> Grid:
        """Return a grid of another spacing whose box has the same first outer corner.

        The number of voxels is rounded so that the box covers the old one; when the division is
        exact the eight outer corners stay where they were.

        Parameters
        ----------
        spacing : 3 float, mm along the present array axes
        """
        step = np.asarray(spacing, dtype=np.float64)
        if step.shape != (3,) or not np.isfinite(step).all() or step.min() <= 0:
            raise GeometryProblem(f"Spacing must be three positive lengths in mm, not {spacing!r}.")
        size = np.asarray(self.size_mm)
        shape = np.maximum(1, np.ceil(size / step - 1e-4)).astype(int)
        affine = self.affine.copy()
        affine[:3, :3] = self.directions * step
        affine[:3, 3] = self.to_patient(np.full(3, -0.5)) + self.directions @ (step / 2)
        i, j, k = (int(n) for n in shape)
        return Grid((i, j, k), affine)

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "affine": self.affine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "shape", state["shape"])
        affine = np.array(state["affine"])
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)


def turn_array(data: NDArray[Any], order: tuple[int, ...], flips: tuple[bool, ...]) -> NDArray[Any]:
    """Swap and flip the first three axes of an array as `Grid.turn_to` says; a view, no copy.

    Parameters
    ----------
    data : ndarray, (I, J, K) or (I, J, K, C)
    order, flips : as returned by `Grid.turn_to`
    """
    rest = tuple(range(3, data.ndim))
    turned = data.transpose(*order, *rest)
    return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def way_back(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the `order` and `flips` that undo the given ones, exactly, whatever the letters say."""
    i, j, k = (order.index(n) for n in range(3))
    return (i, j, k), (flips[i], flips[j], flips[k])
