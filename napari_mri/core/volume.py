"""What stands in the voxels: grey values (`Volume`) or named integers (`Labels`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import BadOption, GeometryProblem, GridMismatch
from napari_mri.core.grid import Grid, turn_array
from napari_mri.core.history import Step

Some = TypeVar("Some", bound="Volume")


@dataclass(frozen=True)
class Frames:
    """What the fourth axis means.

    Parameters
    ----------
    kind : str
        ``"time"``, ``"diffusion"``, ``"echo"`` or ``"channel"``.
    step : float
        Distance between frames in `unit`; 0 where there is none.
    unit : str
        ``"s"``, ``"ms"``, ``"Hz"``, ``"ppm"``, … or empty.
    bvals : tuple of float
        b-values, s/mm², one a frame; empty where there are none.
    bvecs : tuple of (float, float, float)
        Gradient directions in the image's frame (FSL's convention), one a frame.
    times : tuple of float
        Time of each frame in `unit` where they are not evenly spaced.
    """

    kind: str = "channel"
    step: float = 0.0
    unit: str = ""
    bvals: tuple[float, ...] = ()
    bvecs: tuple[tuple[float, float, float], ...] = ()
    times: tuple[float, ...] = ()

    def reordered(
        self, order: tuple[int, ...], flips: tuple[bool, ...], mirror: float = 1.0, new_mirror: float = 1.0
    ) -> Frames:
        """Return these frames with the gradient directions along swapped and flipped axes.

        Parameters
        ----------
        order, flips
            As `Grid.turn_to` tells.
        mirror, new_mirror : float
            FSL's sign of the first axis (-1 where the determinant of the affine is positive), before
            and after.
        """
        if not self.bvecs:
            return self
        along = np.asarray(self.bvecs, dtype=np.float64) * (mirror, 1.0, 1.0)
        signs = np.where(flips, -1.0, 1.0) * (new_mirror, 1.0, 1.0)
        turned = along[:, list(order)] * signs + 0.0
        return replace(self, bvecs=tuple((float(x), float(y), float(z)) for x, y, z in turned))


def _mirror(grid: Grid) -> float:
    return -1.0 if np.linalg.det(grid.affine[:3, :3]) > 0 else 1.0


@dataclass(frozen=True)
class Origin:
    """Where a volume came from: what a writer needs to give back what the reader found.

    Parameters
    ----------
    title : str
        What a person knows it by: a file stem, or series number and description.
    format : str
        ``"nifti"``, ``"dicom"``, …; empty for a volume made in memory.
    path : str
        The file or folder it was read from; empty for a volume made in memory. Never written out.
    fields : mapping
        Header facts that a writer of the same format keeps (codes, units, intent …). No patient data.
    warnings : tuple of str
        Sentences to show when the volume is opened, e.g. "The file tells no geometry".
    """

    title: str = ""
    format: str = ""
    path: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, (self.title, self.format, self.path, dict(self.fields), self.warnings)


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """Grey values on a grid.

    Parameters
    ----------
    data : ndarray, (I, J, K) or (I, J, K, C)
        Array order as nibabel's: the first three axes are those of `grid`. May be a memory map.
        Not copied: treat it as read-only, and use `with_data` for a changed copy.
    grid : Grid
    history : tuple of Step
        Oldest first.
    frames : Frames, optional
        Meaning of the fourth axis.
    origin : Origin

    Raises
    ------
    GridMismatch
        If the array does not fit the grid.
    """

    data: NDArray[Any] = field(repr=False)
    grid: Grid
    history: tuple[Step, ...] = ()
    frames: Frames | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4) or self.data.shape[:3] != self.grid.shape:
            raise GridMismatch(
                f"An array of shape {self.data.shape} does not lie on a grid of shape {self.grid.shape}.",
                hint="The first three axes of the array must be those of the grid.",
            )
        if self.data.ndim == 4 and self.data.shape[3] < 1:
            raise GeometryProblem("The volume has a fourth axis without a single frame.")

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) float64: voxel (i, j, k, 1) -> patient (x, y, z, 1), RAS+ mm."""
        return self.grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (I, J, K), mm."""
        return self.grid.spacing

    @property
    def n_frames(self) -> int:
        """Number of frames; 1 for a 3D volume."""
        return int(self.data.shape[3]) if self.data.ndim == 4 else 1

    @property
    def title(self) -> str:
        """What a person knows it by."""
        return self.origin.title

    def __repr__(self) -> str:
        frames = f" × {self.n_frames} frames" if self.data.ndim == 4 else ""
        kind = type(self).__name__
        name = f"'{self.title}', " if self.title else ""
        size = self.data.nbytes / 1e6
        return f"{kind}({name}{self.grid}{frames}, {self.data.dtype}, {size:.1f} MB)"

    def with_data(self: Some, data: ArrayLike) -> Some:
        """Return a volume of other voxels on the same place: how an answer keeps its geometry.

        Parameters
        ----------
        data : array_like, (I, J, K) or (I, J, K, C)
            Must fit the grid.

        Raises
        ------
        GridMismatch
        """
        array = np.asarray(data)
        frames = self.frames if array.ndim == 4 and array.shape[3:] == self.data.shape[3:] else None
        return replace(self, data=array, frames=frames)

    def with_labels(self, data: ArrayLike, names: Mapping[int, str] | None = None) -> Labels:
        """Return labels on this volume's place.

        Parameters
        ----------
        data : array_like of integers or bools, (I, J, K) or (I, J, K, C)
        names : mapping of int to str, optional
        """
        array = np.asarray(data)
        frames = self.frames if array.ndim == 4 and array.shape[3:] == self.data.shape[3:] else None
        return Labels(array, self.grid, self.history, frames, self.origin, dict(names or {}))

    def frame(self: Some, number: int) -> Some:
        """Return one frame of a 4D volume as a 3D volume (a view); the volume itself if it is 3D."""
        if self.data.ndim == 3:
            return self
        return replace(self, data=self.data[..., number], frames=None)

    def after(self: Some, step: Step) -> Some:
        """Return the same volume with one more line of history."""
        return replace(self, history=(*self.history, step))

    def titled(self: Some, title: str) -> Some:
        """Return the same volume under another name."""
        return replace(self, origin=replace(self.origin, title=title))

    def turned(self: Some, axes: str) -> Some:
        """Return the same voxels in another storage order, e.g. ``"RAS"``; a view, no copy."""
        return self.reordered(*self.grid.turn_to(axes))

    def reordered(self: Some, order: tuple[int, ...], flips: tuple[bool, ...]) -> Some:
        """Return the same voxels with axes swapped, then flipped, as `Grid.turn_to` tells; a view."""
        grid = self.grid.reordered(order, flips)
        frames = self.frames and self.frames.reordered(order, flips, _mirror(self.grid), _mirror(grid))
        return replace(self, data=turn_array(self.data, order, flips), grid=grid, frames=frames)

    def fingerprint(self) -> str:
        """Return the sha256 of voxels, their type and the grid (C order), in hex."""
        little = self.data.dtype.newbyteorder("<")
        sha = hashlib.sha256()
        sha.update(f"{little.str}{self.data.shape}".encode())
        sha.update(np.ascontiguousarray(self.grid.affine, dtype="<f8").tobytes())
        for slab in self.data:
            sha.update(np.ascontiguousarray(slab, dtype=little).data)
        return sha.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Labels(Volume):
    """Integers that have names, on a grid.

    Parameters
    ----------
    data : ndarray of integers or bools, (I, J, K) or (I, J, K, C)
        0 is background. Bools are held as uint8.
    grid, history, frames, origin
        As in `Volume`.
    names : mapping of int to str
        Name of each label value.
    colors : mapping of int to (r, g, b) floats in [0, 1]
        Colour of a label value, where one is known.

    Raises
    ------
    GeometryProblem
        If the array holds fractions: a label map must be made of whole numbers.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.dtype == np.bool_:
            object.__setattr__(self, "data", self.data.view(np.uint8))
        elif self.data.dtype.kind not in "iu":
            raise GeometryProblem(
                f"Labels must be whole numbers, not {self.data.dtype}.",
                hint="Round the array first if it holds only whole numbers.",
            )
        object.__setattr__(self, "names", MappingProxyType(dict(self.names)))
        object.__setattr__(self, "colors", MappingProxyType(dict(self.colors)))

    @property
    def values(self) -> tuple[int, ...]:
        """The label values that occur, without 0."""
        return tuple(int(v) for v in np.unique(self.data) if v != 0)

    def volume_ml(self, value: int | str | None = None) -> float:
        """Return the volume of one label, or of all that is not 0, in millilitres.

        Parameters
        ----------
        value : int or str, optional
            The label's value, or its name.

        Raises
        ------
        BadOption
            If no label has that name.
        """
        if isinstance(value, str):
            called = [number for number, name in self.names.items() if name == value]
            if not called:
                known = ", ".join(f"'{name}'" for name in self.names.values()) or "none"
                raise BadOption(f"No label is called '{value}'.", hint=f"Names of these labels: {known}.")
            count = np.count_nonzero(np.isin(self.data, called))
        else:
            count = np.count_nonzero(self.data if value is None else self.data == value)
        return int(count) * self.grid.voxel_ml

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.data, self.grid, self.history, self.frames, self.origin)
        return Labels, (*parts, dict(self.names), dict(self.colors))


def check_volume(given: Any, who: str) -> None:
    """Refuse what is no volume, and tell how one is made of it; `who` needs it."""
    if isinstance(given, Volume):
        return
    hint = "Load it first: mri.load(path)."
    if isinstance(given, np.ndarray):
        hint = "Put it on a scan's voxels: scan.with_data(array), or mri.Volume(array, grid)."
    raise BadOption(f"{who} needs a Volume, not {type(given).__name__}.", hint=hint)
