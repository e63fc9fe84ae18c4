"""Reads and writes surfaces: STL, OBJ, PLY, GIFTI and FreeSurfer's own, in patient RAS+ mm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, FileProblem, UnsupportedImage
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.atomic import atomic_path
from napari_mri.io.colors import bytes_of, some_color
from napari_mri.io.formats import Format
from napari_mri.io.freesurfer_surface import freesurfer_bytes, is_freesurfer, read_freesurfer
from napari_mri.io.gifti import gifti_bytes, is_gifti, read_gifti
from napari_mri.io.lps import turned_points
from napari_mri.io.surfaces import Surface, surfaces_of

ENDINGS = (".surf.gii", ".gii", ".stl", ".obj", ".ply", ".white", ".pial")
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_MOST_BYTES = 2_000_000_000
_AGAIN = "Copy or export the file again."
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "float64": "f8",
}  # fmt: skip


def is_surface(path: Path, head: bytes) -> bool:
    """Tell by content (and for STL and OBJ, which have no magic word, also by name) whether a file is a surface."""
    name = path.name.lower()
    if head[:4] in (b"ply\n", b"ply\r") or is_gifti(head) or is_freesurfer(head):
        return True
    if name.endswith(".stl"):
        return len(head) >= 84 or head.lstrip().startswith(b"solid")
    return name.endswith(".obj") and re.search(rb"^(v|#|o|g|mtllib) ", head, re.M) is not None


def read_surface(path: Path | str) -> Surface:
    """Read a surface file.

    Parameters
    ----------
    path : Path
        STL, OBJ, PLY (of triangles), GIFTI or FreeSurfer's. Coordinates are taken as RAS+ unless the
        file says ``SPACE=LPS``; FreeSurfer's are moved from their own centre to the scanner's.

    Raises
    ------
    BrokenFile, UnsupportedImage, FileProblem
    """
    place = Path(path)
    try:
        if place.stat().st_size > _MOST_BYTES:
            raise UnsupportedImage(f"{place.name} is larger than 2 GB, which is too much for one surface.")
        content = place.read_bytes()
    except OSError as error:
        raise FileProblem(f"Cannot read {place}: {error.strerror or error}.") from error
    name = re.sub(r"(\.surf)?\.\w+$", "", place.name) or place.name
    if is_gifti(content[:1024]):
        return read_gifti(content, name)
    if is_freesurfer(content[:1024]):
        return read_freesurfer(content, place.name)
    if content[:3] == b"ply":
        points, faces = _read_ply(content, place.name)
    elif place.name.lower().endswith(".stl"):
        points, faces = _read_stl(content, place.name)
    elif place.name.lower().endswith(".obj"):
        points, faces = _read_obj(content, place.name)
    else:
        raise UnsupportedImage(
            f"{place.name} is not a surface of a known kind.", hint="STL, OBJ, PLY, GIFTI, FreeSurfer."
        )
    points = turned_points(points) if b"SPACE=LPS" in content[:4096] else points
    return Surface(points, faces, name)


def write_surface(surfaces: Surface | Sequence[Surface], path: Path | str) -> Path:
    """Write one or several surfaces into one file, chosen by its ending.

    Parameters
    ----------
    surfaces : Surface or sequence of Surface
        OBJ keeps them apart by name, PLY by colour; in the others they become one.
    path : Path
        Ends in ``.stl``, ``.obj``, ``.ply``, ``.gii``, ``.white`` or ``.pial``.

    Raises
    ------
    FileProblem
    """
    place = Path(path)
    many = [surfaces] if isinstance(surfaces, Surface) else list(surfaces)
    with atomic_path(place) as part:
        part.write_bytes(_writer(place)(many))
    return place


def _writer(path: Path) -> Callable[[Sequence[Surface]], bytes]:
    ending = path.suffix.lower()
    if ending not in _WRITERS:
        raise FileProblem(
            f"Cannot tell the kind of surface by '{path.name}'.", hint=f"Use one of {', '.join(_WRITERS)}."
        )
    return _WRITERS[ending]


def joined(surfaces: Iterable[Surface]) -> Surface:
    """Return several surfaces as one; they stay apart, none is cut."""
    many = list(surfaces)
    starts = np.cumsum([0, *(len(one.points) for one in many)])
    points = np.concatenate([one.points for one in many]) if many else np.zeros((0, 3))
    faces = (
        np.concatenate([one.faces + at for one, at in zip(many, starts, strict=False)])
        if many
        else np.zeros((0, 3))
    )
    return Surface(points, faces.astype(np.intp), " ".join(one.name for one in many)[:200])


def _write_stl(surfaces: Sequence[Surface]) -> bytes:
    whole = joined(surfaces)
    rows = np.zeros(len(whole.faces), _STL)
    corners = whole.points[whole.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    rows["normal"], rows["corners"] = normals / np.where(lengths == 0, 1, lengths), corners
    head = b"napari_mri surface, patient mm, SPACE=RAS".ljust(80)
    return head + np.uint32(len(rows)).tobytes() + rows.tobytes()


def _write_obj(surfaces: Sequence[Surface]) -> bytes:
    lines = ["# napari_mri surface, patient mm, SPACE=RAS"]
    start = 1
    for one in surfaces:
        lines.append(f"o {re.sub(r'[^0-9A-Za-z_.-]+', '_', one.name) or 'surface'}")
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in one.points]
        lines += [f"f {a} {b} {c}" for a, b, c in one.faces + start]
        start += len(one.points)
    return ("\n".join(lines) + "\n").encode()


def _write_ply(surfaces: Sequence[Surface]) -> bytes:
    whole = joined(surfaces)
    head = [
        "ply", "format binary_little_endian 1.0", "comment napari_mri surface, patient mm, SPACE=RAS",
        f"element vertex {len(whole.points)}", *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {part}" for part in ("red", "green", "blue")),
        f"element face {len(whole.faces)}", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    corners = np.zeros(len(whole.points), np.dtype([("at", "<f4", 3), ("color", "u1", 3)]))
    corners["at"] = whole.points
    colors = [bytes_of(one.color or some_color(n)) for n, one in enumerate(surfaces, 1)]
    corners["color"] = np.repeat(
        np.array(colors, np.uint8).reshape(-1, 3), [len(one.points) for one in surfaces], axis=0
    )
    faces = np.zeros(len(whole.faces), np.dtype([("count", "u1"), ("points", "<i4", 3)]))
    faces["count"], faces["points"] = 3, whole.faces
    return ("\n".join(head) + "\n").encode() + corners.tobytes() + faces.tobytes()


_WRITERS: dict[str, Callable[[Sequence[Surface]], bytes]] = {
    ".stl": _write_stl,
    ".obj": _write_obj,
    ".ply": _write_ply,
    ".gii": lambda many: gifti_bytes(joined(many)),
    ".white": lambda many: freesurfer_bytes(joined(many)),
    ".pial": lambda many: freesurfer_bytes(joined(many)),
}


def _read_stl(content: bytes, name: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    count = int.from_bytes(content[80:84], "little")
    if len(content) >= 84 and 84 + count * _STL.itemsize == len(content):
        corners = np.frombuffer(content, _STL, count, 84)["corners"].astype(np.float64).reshape(-1, 3)
    else:
        number = rb"([-+0-9.eEnaif]+)"
        found = re.findall(rb"^\s*vertex\s+" + rb"\s+".join([number] * 3), content, re.M)
        corners = _floats(found, name)
    if not len(corners) or len(corners) % 3:
        raise BrokenFile(f"{name} is damaged or no STL: its triangles are not complete.", hint=_AGAIN)
    points, index = np.unique(corners, axis=0, return_inverse=True)
    return points, np.asarray(index).reshape(-1, 3).astype(np.intp)


def _read_obj(content: bytes, name: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    points, faces = [], []
    for line in content.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == b"v":
            points.append(words[1:4])
        elif len(words) >= 4 and words[0] == b"f":
            try:
                corners = [int(word.split(b"/")[0]) for word in words[1:]]
            except ValueError as error:
                raise BrokenFile(f"{name} is damaged: a face is not made of numbers.", hint=_AGAIN) from error
            corners = [n - 1 if n > 0 else len(points) + n for n in corners]
            faces += [(corners[0], corners[n], corners[n + 1]) for n in range(1, len(corners) - 1)]
    if not points or not faces or max(map(max, faces)) >= 2**31:
        raise BrokenFile(f"{name} holds no surface.", hint=_AGAIN)
    return _floats(points, name), np.array(faces, dtype=np.intp)


def _floats(words: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.array([[float(word) for word in row] for row in words], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise BrokenFile(f"{name} is damaged: a point is not made of numbers.", hint=_AGAIN) from error


def _read_ply(content: bytes, name: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    end = content.find(b"end_header")
    start = content.find(b"\n", end) + 1
    if end < 0 or end > 100_000 or start == 0:
        raise BrokenFile(f"{name} is damaged: its header has no end.", hint=_AGAIN)
    lines = [line.split() for line in content[:end].decode("latin-1").splitlines()]
    style = next((words[1] for words in lines if len(words) > 1 and words[0] == "format"), "")
    counts, fields = _ply_header(lines, name)
    if style == "ascii":
        return _ascii_ply(content[start:], counts, fields, name)
    if style not in ("binary_little_endian", "binary_big_endian"):
        raise UnsupportedImage(f"{name} is a PLY of an unknown kind.")
    order = "<" if style == "binary_little_endian" else ">"
    corner = np.dtype([(field, order + kind) for field, kind in fields])
    at = start + counts[0] * corner.itemsize
    face = np.dtype([("count", "u1"), ("points", order + "i4", 3)])
    if at + counts[1] * face.itemsize > len(content):
        raise BrokenFile(f"{name} is cut off, or its faces are not plain triangles.", hint=_AGAIN)
    rows = np.frombuffer(content, corner, counts[0], start)
    faces = np.frombuffer(content, face, counts[1], at)
    if (faces["count"] != 3).any():
        raise UnsupportedImage(f"{name} has faces of more than three corners.", hint="Save it as triangles.")
    points = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return points, faces["points"].astype(np.intp)


def _ply_header(lines: list[list[str]], name: str) -> tuple[tuple[int, int], list[tuple[str, str]]]:
    """Return how many points and faces there are, and the fields of a point."""
    counts, fields, now = {"vertex": 0, "face": 0}, [], ""
    try:
        for words in lines:
            if words[:1] == ["element"]:
                now = words[1]
                counts[now] = int(words[2])
            elif words[:1] == ["property"] and now == "vertex":
                fields.append((words[2], _PLY_TYPES[words[1]]))
    except (IndexError, KeyError, ValueError) as error:
        raise BrokenFile(f"The header of {name} is damaged.", hint=_AGAIN) from error
    names = [field for field, _ in fields]
    if not {"x", "y", "z"} <= set(names) or len(set(names)) < len(names) or min(counts.values()) < 0:
        raise BrokenFile(
            f"The header of {name} is damaged: it does not tell where its points are.", hint=_AGAIN
        )
    return (counts["vertex"], counts["face"]), fields


def _ascii_ply(
    text: bytes, counts: tuple[int, int], fields: list[tuple[str, str]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < sum(counts):
        raise BrokenFile(f"{name} is cut off.", hint=_AGAIN)
    columns = [[field for field, _ in fields].index(axis) for axis in "xyz"]
    try:
        points = [[line[column] for column in columns] for line in lines[: counts[0]]]
        faces = [
            [int(word) for word in line[1:4]] for line in lines[counts[0] : sum(counts)] if int(line[0]) == 3
        ]
    except (IndexError, ValueError) as error:
        raise BrokenFile(f"{name} is damaged.", hint=_AGAIN) from error
    if len(faces) != counts[1] or any(len(face) != 3 for face in faces):
        raise UnsupportedImage(f"{name} has faces that are not triangles.", hint="Save it as triangles.")
    return _floats(points, name), np.array(faces, dtype=np.intp)


def _no_volume(path: Path) -> tuple[Volume, ...]:
    raise UnsupportedImage(
        f"{path.name} is a surface, not a volume.",
        hint="Open it over its scan in the viewer, or voxelise it elsewhere.",
    )


def _write(volume: Volume, path: Path) -> None:
    if not isinstance(volume, Labels):
        raise UnsupportedImage(
            "A surface is made of labels, not of grey values.", hint="Segment something first."
        )
    path.write_bytes(_writer(path)(list(surfaces_of(volume))))


FORMATS = (
    Format(
        "surface", "surface", ENDINGS, is_surface, _no_volume, _write, holds=frozenset({"labels", "overlap"})
    ),
)
