"""What a user points at: points, boxes, scribbles, lassos, extreme points, masks and slices, in patient mm."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import BadPrompt
from napari_mri.core.grid import Grid

Xyz = tuple[float, float, float]
PATIENT: tuple[Xyz, Xyz, Xyz] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _number(value: Any) -> float:
    """Return a number as float; what only looks like one (``"1"``, ``True``) raises TypeError."""
    if isinstance(value, str | bytes | bool | np.bool_):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _whole(value: Any) -> int:
    if _number(value) != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _settle(mark: Any) -> None:
    """Hold as a bool whether a mark is positive; text such as ``"false"`` would count as true."""
    if not isinstance(mark.positive, bool | np.bool_):
        raise BadPrompt(f"Whether a {mark.kind} prompt is positive is told by true or false, not {mark.positive!r}.")
    object.__setattr__(mark, "positive", bool(mark.positive))


def _xyz(value: Any, what: str) -> Xyz:
    try:
        x, y, z = (_number(v) for v in value)
    except (TypeError, ValueError):
        raise BadPrompt(f"{what} needs three numbers (x, y, z in mm), not {value!r}.") from None
    if not all(abs(v) < 1e6 for v in (x, y, z)):  # also refuses NaN
        raise BadPrompt(f"{what} has a coordinate that is no length in mm: {value!r}.")
    return x, y, z


@dataclass(frozen=True)
class Point:
    """A click.

    Parameters
    ----------
    xyz : (3,) patient mm, RAS+
    positive : bool
        Whether the point lies in the object (True) or outside (False).
    """

    xyz: Xyz
    positive: bool = True
    kind: ClassVar[str] = "point"

    def __post_init__(self) -> None:
        object.__setattr__(self, "xyz", _xyz(self.xyz, "A point"))
        _settle(self)


@dataclass(frozen=True)
class Box:
    """A box around the object; flat along one axis for an in-plane box.

    Parameters
    ----------
    low, high : (3,) mm along `axes`, from the patient's origin
        Opposite corners; sorted on construction.
    axes : three of (3,)
        Unit vectors in patient RAS+ along its sides, at right angles; by default the patient's own axes.
    """

    low: Xyz
    high: Xyz
    positive: bool = True
    axes: tuple[Xyz, Xyz, Xyz] = PATIENT
    kind: ClassVar[str] = "box"

    def __post_init__(self) -> None:
        a, b = _xyz(self.low, "A box corner"), _xyz(self.high, "A box corner")
        object.__setattr__(self, "low", tuple(map(min, a, b)))
        object.__setattr__(self, "high", tuple(map(max, a, b)))
        axes = tuple(_xyz(axis, "A side of a box") for axis in self.axes)
        if len(axes) != 3 or not np.allclose(np.array(axes) @ np.array(axes).T, np.eye(3), atol=1e-6):
            raise BadPrompt(f"The sides of a box need three directions at right angles, of length 1, not {self.axes!r}.")
        object.__setattr__(self, "axes", axes)
        _settle(self)

    @classmethod
    def around(cls, places: ArrayLike, axes: ArrayLike = PATIENT) -> Box:
        """Return the box along some axes (rows, unit vectors) that places (N, 3) patient mm fill."""
        turn = np.asarray(axes, dtype=np.float64)
        along = np.asarray(places) @ turn.T
        return cls(tuple(along.min(axis=0)), tuple(along.max(axis=0)), axes=tuple(map(tuple, turn)))  # type: ignore[arg-type]

    def corners(self) -> NDArray[np.float64]:
        """Return its corners, (2, 2, 2, 3) patient mm: first low, then high along each of `axes`."""
        ends = np.stack(np.meshgrid(*zip(self.low, self.high, strict=True), indexing="ij"), axis=-1)
        return np.asarray(ends @ np.array(self.axes))


@dataclass(frozen=True)
class Scribble:
    """A drawn line.

    Parameters
    ----------
    points : sequence of (3,) patient mm, RAS+
        At least one; neighbours are joined by straight lines.
    positive : bool
    """

    points: tuple[Xyz, ...]
    positive: bool = True
    kind: ClassVar[str] = "scribble"

    def __post_init__(self) -> None:
        points = tuple(_xyz(p, "A scribble point") for p in self.points)
        if not points:
            raise BadPrompt(f"A {self.kind} needs at least one point.")
        object.__setattr__(self, "points", points)
        _settle(self)


@dataclass(frozen=True)
class Lasso(Scribble):
    """A closed line drawn around the object (or around what is not the object) in one plane."""

    kind: ClassVar[str] = "lasso"


@dataclass(frozen=True)
class Extremes(Scribble):
    """Six clicks on the outline of the object: its first and last point along each of three directions.

    Parameters
    ----------
    points : six of (3,) patient mm, RAS+
        Three pairs; the two of a pair follow each other, in any order of pairs.
    """

    kind: ClassVar[str] = "extremes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.points) != 6:
            raise BadPrompt(
                f"Extreme points come in three pairs: six points, not {len(self.points)}.",
                hint="Click both ends of the object along each of three directions.",
            )


@dataclass(frozen=True)
class Mask:
    """A mask the user has already, to be made better; make it with `Mask.of`.

    Parameters
    ----------
    shape : 3 int
    affine : 16 float
        Rows of the (4, 4) affine, RAS+ mm.
    packed : str
        The voxels in C order: bits, zlib, base64. Small, and it can stand in a sidecar.
    """

    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    packed: str
    positive: bool = True
    kind: ClassVar[str] = "mask"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(map(_whole, self.shape)))
        object.__setattr__(self, "affine", tuple(map(_number, self.affine)))
        if len(self.shape) != 3 or len(self.affine) != 16 or not isinstance(self.packed, str):
            raise BadPrompt("A mask prompt needs a shape of three, an affine of sixteen numbers and its packed voxels.")
        _settle(self)

    @classmethod
    def of(cls, voxels: ArrayLike, grid: Grid) -> Mask:
        """Return the prompt for a mask (I, J, K), true in the object, on a grid."""
        array = np.ascontiguousarray(np.asarray(voxels) != 0)
        if array.shape != grid.shape:
            raise BadPrompt(f"A mask of shape {array.shape} does not lie on a grid of shape {grid.shape}.")
        packed = base64.b64encode(zlib.compress(np.packbits(array).tobytes(), 6)).decode("ascii")
        return cls(grid.shape, tuple(grid.affine.reshape(-1).tolist()), packed)

    @property
    def grid(self) -> Grid:
        """Where the mask lies."""
        return Grid(self.shape, np.asarray(self.affine).reshape(4, 4))

    def voxels(self) -> NDArray[np.bool_]:
        """Return the mask, (I, J, K) bool.

        Raises
        ------
        BadPrompt
            If the packed voxels are damaged or of another size.
        """
        count = int(np.prod(self.shape))
        try:
            unpack = zlib.decompressobj()
            # A damaged or hostile record must not fill the memory: no more than the shape promises.
            raw = unpack.decompress(base64.b64decode(self.packed, validate=True), (count + 7) // 8 + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise BadPrompt(f"The voxels of a mask prompt are damaged: {error}.") from None
        if len(raw) != (count + 7) // 8:
            raise BadPrompt("The voxels of a mask prompt do not fill its shape.")
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).reshape(self.shape).astype(bool)


@dataclass(frozen=True)
class Slab:
    """A range of slices: the answer lies between two parallel planes, whatever else is pointed at.

    It points at nothing, and every model obeys it.

    Parameters
    ----------
    normal : (3,) direction in patient RAS+; made a unit vector on construction
    low, high : float
        mm along `normal` from the patient's origin; sorted on construction.
    """

    normal: Xyz
    low: float
    high: float
    positive: bool = False
    kind: ClassVar[str] = "slab"

    def __post_init__(self) -> None:
        x, y, z = _xyz(self.normal, "A range of slices")
        low, high, _ = _xyz((self.low, self.high, 0), "A range of slices")
        length = float(np.sqrt(x * x + y * y + z * z))
        if length < 1e-6:
            raise BadPrompt("A range of slices needs a direction.")
        if abs(length - 1) > 1e-9:  # a unit vector stays bit for bit, or JSON would not bring it back
            x, y, z = x / length, y / length, z / length
        object.__setattr__(self, "normal", (x, y, z))
        object.__setattr__(self, "low", min(low, high))
        object.__setattr__(self, "high", max(low, high))
        _settle(self)
        object.__setattr__(self, "positive", False)

    def holds(self, places: ArrayLike) -> NDArray[np.bool_]:
        """Tell which places (..., 3) patient mm lie in the range, ends included."""
        away = np.asarray(places, dtype=np.float64) @ np.asarray(self.normal)
        return np.asarray((away >= self.low - 1e-6) & (away <= self.high + 1e-6))


Mark = Point | Box | Scribble | Lasso | Extremes | Mask | Slab
KINDS: dict[str, type[Any]] = {
    "point": Point, "box": Box, "scribble": Scribble, "lasso": Lasso, "extremes": Extremes, "mask": Mask, "slab": Slab,
}  # fmt: skip


@dataclass(frozen=True)
class Prompts:
    """All that was pointed at so far, oldest first. Undo is a shorter tuple.

    Parameters
    ----------
    marks : tuple of Point, Box, Scribble, Lasso, Extremes, Mask or Slab
    """

    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        marks = tuple(self.marks) if isinstance(self.marks, Iterable) else (None,)
        if not all(isinstance(mark, Mark) for mark in marks):
            raise BadPrompt(
                "Prompts take a tuple of marks such as Point, Box and Scribble.", hint="Write Prompts((Point((x, y, z)),))."
            )
        object.__setattr__(self, "marks", marks)

    def plus(self, *marks: Mark) -> Prompts:
        """Return these prompts and more."""
        return Prompts((*self.marks, *marks))

    def undone(self, steps: int = 1) -> Prompts:
        """Return these prompts without the last `steps`."""
        return Prompts(self.marks[: max(0, len(self.marks) - steps)])

    def of(self, kind: type) -> tuple[Any, ...]:
        """Return the marks of exactly one kind."""
        return tuple(mark for mark in self.marks if type(mark) is kind)

    def pointing(self) -> Prompts:
        """Return the marks that point at something: all but the ranges of slices."""
        return Prompts(tuple(mark for mark in self.marks if not isinstance(mark, Slab)))

    def __len__(self) -> int:
        return len(self.marks)

    def __iter__(self) -> Iterator[Mark]:
        return iter(self.marks)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values, ready for `json.dumps`."""
        records: list[dict[str, Any]] = []
        for mark in self.marks:
            record: dict[str, Any] = {"kind": mark.kind, "positive": mark.positive}
            if isinstance(mark, Point):
                record["xyz"] = list(mark.xyz)
            elif isinstance(mark, Box):
                record["low"], record["high"] = list(mark.low), list(mark.high)
                if mark.axes != PATIENT:
                    record["axes"] = [list(axis) for axis in mark.axes]
            elif isinstance(mark, Mask):
                record |= {"shape": list(mark.shape), "affine": list(mark.affine), "packed": mark.packed}
            elif isinstance(mark, Slab):
                record |= {"normal": list(mark.normal), "low": mark.low, "high": mark.high}
            else:
                record["points"] = [list(p) for p in mark.points]
            records.append(record)
        return records

    @classmethod
    def from_json(cls, records: list[Mapping[str, Any]]) -> Prompts:
        """Rebuild prompts from `to_json`.

        Raises
        ------
        BadPrompt
            If a record is of an unknown kind or lacks its coordinates.
        """
        marks: list[Mark] = []
        for record in records:
            if not isinstance(record, Mapping):
                raise BadPrompt(f"A prompt must be a record of its kind and coordinates, not {record!r}.")
            facts = dict(record)
            kind = KINDS.get(str(facts.pop("kind", "")))
            if kind is None:
                raise BadPrompt(f"Unknown kind of prompt: {record.get('kind')!r}.")
            try:
                marks.append(kind(**facts))
            except (TypeError, ValueError, OverflowError):
                raise BadPrompt(f"A {record.get('kind')} prompt lacks its coordinates, or they make no sense: {facts}.") from None
        return cls(tuple(marks))
