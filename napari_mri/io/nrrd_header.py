"""Reads and writes the text header of NRRD files: fields, axes, frame, and where the voxels are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.io.lps import turned_affine

MAGIC = re.compile(rb"NRRD000[1-6]\s*$")
_MOST_BYTES = 8_000_000
_MOST_LINES = 200_000
_AGAIN = "Copy or download the file again."
_NAMES = {
    "b1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
TYPES = {name: ("i1" if kind == "b1" else kind) for kind, names in _NAMES.items() for name in names}
WRITTEN = {
    "i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int",
    "u4": "unsigned int", "i8": "long long int", "u8": "unsigned long long int", "f4": "float", "f8": "double",
}  # fmt: skip
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "scanner-xyz": (-1, -1, 1),
}  # fmt: skip
_NOT_GREY = {
    "rgb-color": "colours (RGB)", "rgba-color": "colours (RGBA)", "hsv-color": "colours (HSV)",
    "xyz-color": "colours", "complex": "complex numbers", "quaternion": "quaternions",
    "2d-matrix": "matrices", "3d-matrix": "matrices", "2d-symmetric-matrix": "tensors",
    "2d-masked-symmetric-matrix": "tensors", "3d-symmetric-matrix": "tensors",
    "3d-masked-symmetric-matrix": "tensors", "2d-masked-matrix": "matrices", "3d-masked-matrix": "matrices",
}  # fmt: skip
_LENGTHS = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 0.001,
    "µm": 0.001,
}


@dataclass(frozen=True)
class Header:
    """An NRRD header, understood.

    Parameters
    ----------
    sizes : tuple of int
        Fastest axis first, as in the file.
    dtype : numpy dtype
        With its byte order.
    extra : int or None
        Which axis of `sizes` is not spatial; None for a single volume.
    kind : str
        What that axis is, e.g. ``"list"``; empty where there is none.
    grid : Grid
    encoding : str
        As written, lower case.
    data_file : str
        Name of the file with the voxels; empty where they follow the header.
    byte_skip : int
    fields : mapping
        The standard fields, lower case.
    pairs : mapping
        The ``key:=value`` lines.
    warnings : tuple of str
    """

    sizes: tuple[int, ...]
    dtype: np.dtype[Any]
    extra: int | None
    kind: str
    grid: Grid
    encoding: str
    data_file: str
    byte_skip: int
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    warnings: tuple[str, ...]


def read_lines(file: BinaryIO, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Read header lines up to the empty one; the stream then stands at the first voxel.

    Returns
    -------
    fields, pairs : dict
        Standard fields (lower case), and ``key:=value`` pairs.

    Raises
    ------
    BrokenFile
    """
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    if not MAGIC.match(file.readline(64)):
        raise BrokenFile(f"{name} does not begin as an NRRD file does.", hint=_AGAIN)
    total = 0
    for _ in range(_MOST_LINES):
        line = file.readline(_MOST_BYTES)
        total += len(line)
        if total > _MOST_BYTES:
            break
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            return fields, pairs
        if text.startswith("#"):
            continue
        key, mark, value = text.partition(":=")
        if mark and ": " not in key:
            pairs[_unescaped(key)] = _unescaped(value)
            continue
        key, mark, value = text.partition(":")
        if not mark:
            raise BrokenFile(f"The header of {name} is damaged at '{text[:40]}'.", hint=_AGAIN)
        fields[_canonical(key)] = value.strip()
        if _canonical(key) == "datafile" and value.strip().upper().startswith("LIST"):
            raise UnsupportedImage(
                f"{name} spreads its voxels over several files.",
                hint="Save it as a single .nrrd in the program that wrote it.",
            )
    raise BrokenFile(f"The header of {name} has no end.", hint=_AGAIN)


def _canonical(key: str) -> str:
    key = key.strip().lower()
    return {"data file": "datafile", "byte skip": "byteskip", "line skip": "lineskip"}.get(key, key)


def _unescaped(text: str) -> str:
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def escaped(text: str) -> str:
    """Return text fit for a ``key:=value`` line."""
    return text.replace("\\", "\\\\").replace("\r", " ").replace("\n", "\\n")


def understood(fields: Mapping[str, str], pairs: Mapping[str, str], name: str) -> Header:
    """Make sense of header fields.

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    sizes = _sizes(fields, name)
    dtype = _dtype(fields, name)
    told: list[str] = []
    kinds = [k.lower() for k in fields.get("kinds", "").split()]
    kinds = kinds if len(kinds) == len(sizes) else [""] * len(sizes)
    vectors = _vectors(fields.get("space directions", ""), len(sizes), name)
    spatial = (
        [n for n, vector in enumerate(vectors) if vector is not None] if vectors else _guess(sizes, kinds)
    )
    others = [n for n in range(len(sizes)) if n not in spatial]
    for n in others:
        if kinds[n] in _NOT_GREY:
            raise UnsupportedImage(
                f"{name} holds {_NOT_GREY[kinds[n]]}, not grey values.",
                hint="Open the scan it was made from, or save one channel as grey values.",
            )
    if len(spatial) not in (2, 3) or len(others) > 1:
        sides = "×".join(map(str, sizes))
        raise UnsupportedImage(
            f"{name} has {len(spatial)} axes in space and {len(others)} others ({sides}); scans have three and at most one.",
            hint="Take one part out first.",
        )
    grid = _grid(fields, [sizes[n] for n in spatial], vectors, spatial, told, name)
    extra = others[0] if others else None
    skip = _whole(fields.get("byteskip", "0"), "byte skip", name)
    if _whole(fields.get("lineskip", "0"), "line skip", name) != 0:
        raise UnsupportedImage(
            f"{name} asks to skip lines before its voxels, which is not read.", hint="Save it again."
        )
    return Header(
        sizes, dtype, extra, "" if extra is None else kinds[extra], grid, fields.get("encoding", "").lower(),
        fields.get("datafile", ""), skip, dict(fields), dict(pairs), tuple(told),
    )  # fmt: skip


def _whole(text: str, what: str, name: str) -> int:
    try:
        return int(text.split()[0]) if len(text) < 30 else _fail(text)
    except (ValueError, IndexError) as error:
        raise BrokenFile(f"The header of {name} is damaged: {what} is '{text[:40]}'.", hint=_AGAIN) from error


def _fail(text: str) -> int:
    raise ValueError(text[:30])


def _sizes(fields: Mapping[str, str], name: str) -> tuple[int, ...]:
    n_axes = _whole(fields.get("dimension", ""), "dimension", name)
    sizes = tuple(_whole(word, "a size", name) for word in fields.get("sizes", "").split()[:20])
    if len(sizes) != n_axes or not sizes or min(sizes) < 1:
        raise BrokenFile(
            f"The header of {name} is damaged: {n_axes} axes but sizes '{fields.get('sizes', '')[:60]}'.",
            hint=_AGAIN,
        )
    return sizes


def _dtype(fields: Mapping[str, str], name: str) -> np.dtype[Any]:
    told = fields.get("type", "").lower()
    if told not in TYPES:
        raise UnsupportedImage(
            f"{name} holds values of type '{told[:40]}', which is not read.", hint="Save it as numbers."
        )
    kind = np.dtype(TYPES[told])
    endian = fields.get("endian", "little").lower()
    if endian not in ("little", "big"):
        raise BrokenFile(f"The header of {name} is damaged: endian is '{endian[:40]}'.", hint=_AGAIN)
    return kind.newbyteorder("<" if endian == "little" else ">")


def _guess(sizes: tuple[int, ...], kinds: list[str]) -> list[int]:
    """Return which axes are spatial where no directions are told."""
    domain = [n for n, kind in enumerate(kinds) if kind in ("domain", "space")]
    if len(domain) in (2, 3):
        return domain
    return list(range(len(sizes)))[: 3 if len(sizes) > 2 else 2]


def _vectors(text: str, n_axes: int, name: str) -> list[tuple[float, ...] | None]:
    if not text:
        return []
    words = re.findall(r"none|\([^()]*\)", text[:4000])
    if len(words) != n_axes:
        raise BrokenFile(
            f"The header of {name} is damaged: {len(words)} directions for {n_axes} axes.", hint=_AGAIN
        )
    found: list[tuple[float, ...] | None] = []
    for word in words:
        vector = None if word == "none" else _numbers(word, "a direction", name)
        # Some programs write (nan,nan,nan) for an axis that is not in space.
        found.append(None if vector is None or all(math.isnan(v) for v in vector) else vector)
    return found


def _numbers(word: str, what: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in word.strip("() \t").split(","))
    except ValueError as error:
        raise BrokenFile(f"The header of {name} is damaged: {what} is '{word[:60]}'.", hint=_AGAIN) from error


def _grid(
    fields: Mapping[str, str],
    sizes: list[int],
    vectors: list[tuple[float, ...] | None],
    spatial: list[int],
    told: list[str],
    name: str,
) -> Grid:
    space = fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    shape = (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1)
    if not vectors:
        told.append(
            "The file tells no geometry: left and right are a guess, and only the spacings can be trusted."
        )
        return Grid.plain(shape, _spacings(fields, spatial, told, name))
    if space not in _SPACES:
        told.append(
            "The file does not say which way its axes run (no space): read as left-posterior-superior."
        )
    signs = np.array(_SPACES.get(space, (-1, -1, 1)), dtype=float)
    columns = [vectors[n] or () for n in spatial]
    origin = _numbers(fields.get("space origin", "(0,0,0)"), "space origin", name)
    if any(len(column) != 3 for column in columns) or len(origin) != 3:
        raise GeometryProblem(
            f"{name} places its voxels in a space of other than three axes.",
            hint="Save it again with three directions of three numbers each.",
        )
    if len(columns) == 2:
        told.append("The image is a single slice; its thickness was taken as 1 mm.")
        normal = np.cross(np.asarray(columns[0]), np.asarray(columns[1]))
        columns.append(tuple((normal / (np.linalg.norm(normal) or 1.0)).tolist()))
    affine = np.eye(4)
    affine[:3, :3] = signs[:, None] * np.array(columns, dtype=float).T
    affine[:3, 3] = signs * origin
    affine[:3] = affine[:3] * _to_mm(fields, told) + 0.0
    return Grid(shape, affine)


def _spacings(fields: Mapping[str, str], spatial: list[int], told: list[str], name: str) -> list[float]:
    words = fields.get("spacings", "").split()
    steps = [_numbers(words[n], "a spacing", name)[0] if n < len(words) else 1.0 for n in spatial]
    steps = [abs(step) if math.isfinite(step) and step != 0 else 1.0 for step in steps]
    return steps + [1.0] * (3 - len(steps))


def _to_mm(fields: Mapping[str, str], told: list[str]) -> float:
    units = re.findall(r'"([^"]*)"', fields.get("space units", "")[:400])
    if len(units) < 3 or len(set(units[:3])) != 1:
        return 1.0
    factor = _LENGTHS.get(units[0].lower(), 1.0)
    if factor != 1.0:
        told.append(f"The header's lengths are in {units[0]}; they were multiplied by {factor:g}.")
    return factor


def lines_for(
    shape: tuple[int, ...], dtype: np.dtype[Any], grid: Grid, kind: str, encoding: str
) -> list[str]:
    """Return the standard header lines.

    Parameters
    ----------
    shape : tuple of int
        Fastest axis first; four sides where the first is not spatial.
    dtype : numpy dtype
    grid : Grid
    kind : str
        What the first of four axes is.
    encoding : str
    """
    affine: NDArray[np.float64] = turned_affine(grid.affine)
    vectors = [_vector(affine[:3, n]) for n in range(3)]
    many = len(shape) == 4
    lines = [
        "NRRD0005",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {WRITTEN[dtype.str[1:]]}",
        f"dimension: {len(shape)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, shape))}",
        f"space directions: {' '.join((['none'] if many else []) + vectors)}",
        f"kinds: {' '.join(([kind] if many else []) + ['domain'] * 3)}",
    ]
    if dtype.itemsize > 1:
        lines.append("endian: little")
    return [
        *lines,
        f"encoding: {encoding}",
        f"space origin: {_vector(affine[:3, 3])}",
        'space units: "mm" "mm" "mm"',
    ]


def _vector(numbers: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"
