"""Reads and writes NRRD: scans, label maps, and Slicer's segmentations with names, colours and layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, UnsupportedImage
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.io.blocks import check_promise, read_block
from napari_mri.io.formats import Format
from napari_mri.io.inside import beside
from napari_mri.io.layered import SEGMENTS, Box, is_layered, stacked
from napari_mri.io.nrrd_header import Header, escaped, lines_for, read_lines, understood

ENDINGS = (".seg.nrrd", ".nrrd")
_PACKINGS = {"raw": "raw", "gzip": "deflate", "gz": "deflate", "bzip2": "bzip2", "bz2": "bzip2"}
_TEXTS = ("ascii", "text", "txt", "hex")
_SEGMENT = re.compile(r"Segment(\d{1,6})_(\w+)$")
_FRAMES = "napari_mri_frames"
_AGAIN = "Copy or download the file again."


@dataclass(frozen=True)
class _Segment:
    layer: int
    value: int
    name: str
    color: tuple[float, float, float] | None
    kept: Mapping[str, str]


def mine(path: Path, head: bytes) -> bool:
    """Tell by the magic word."""
    return head[:7] == b"NRRD000"


def read(path: Path) -> tuple[Volume, ...]:
    """Read an NRRD file; one with segments gives labels.

    Parameters
    ----------
    path : Path
        A `.nrrd` with its voxels inside, or a `.nhdr` whose voxels lie in a file of the same folder.

    Returns
    -------
    tuple of one Volume or Labels
        Segments that overlap come as layers (see `layered`).

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    with open(path, "rb") as file:
        fields, pairs = read_lines(file, path.name)
        at = file.tell()
    header = understood(fields, pairs, path.name)
    data = _voxels(path, header, at)
    if header.extra is not None:
        data = np.moveaxis(data, header.extra, -1)
    if len(header.sizes) - (header.extra is not None) == 2:  # a plane, or a series of one
        data = data[:, :, None]
    name = path.name
    stem = next((name[: -len(e)] for e in (*ENDINGS, ".nhdr") if name.lower().endswith(e)), name) or name
    kept = {"fields": {k: v for k, v in fields.items() if k in ("measurement frame", "content")}}
    segments = _segments(pairs)
    if segments and data.dtype.kind in "iu":
        return (_labels(data, header, segments, Origin(stem, "nrrd", str(path), kept, header.warnings)),)
    frames = None if header.extra is None else _frames(header, data.shape[3])
    return (Volume(data, header.grid, (), frames, Origin(stem, "nrrd", str(path), kept, header.warnings)),)


def _voxels(path: Path, header: Header, at: int) -> NDArray[Any]:
    place = beside(path, header.data_file) if header.data_file else path
    start = 0 if header.data_file else at
    if header.encoding in _TEXTS:
        return _from_text(place, start, header)
    if header.encoding not in _PACKINGS:
        raise UnsupportedImage(
            f"{path.name} is packed by '{header.encoding[:40]}', which is not read.", hint="Save it again."
        )
    packing = _PACKINGS[header.encoding]
    skip = header.byte_skip
    if skip and packing != "raw":
        raise UnsupportedImage(
            f"{path.name} skips bytes of its packed voxels, which is not read.", hint="Save it again."
        )
    if skip == -1:
        n_bytes = int(np.prod(header.sizes, dtype=object)) * header.dtype.itemsize
        check_promise(place.name, n_bytes, place.stat().st_size - start)
        start, skip = place.stat().st_size - n_bytes, 0
    elif skip < 0:
        raise BrokenFile(f"The header of {path.name} is damaged: it skips {skip} bytes.", hint=_AGAIN)
    return read_block(place, start + skip, header.sizes, header.dtype, packing)


def _from_text(path: Path, at: int, header: Header) -> NDArray[Any]:
    """Read voxels written out as text; at least two bytes a number, so the file bounds the memory."""
    count = int(np.prod(header.sizes, dtype=object))
    check_promise(path.name, count, path.stat().st_size - at)
    with open(path, "rb") as file:
        file.seek(at)
        text = file.read()
    native = header.dtype.newbyteorder("=")
    try:
        if header.encoding == "hex":
            raw = bytes.fromhex(text.decode("ascii"))
            flat = np.frombuffer(raw, header.dtype, count).astype(native)
        else:
            whole = header.dtype.kind in "iu"
            words = text.split()[:count]
            flat = np.array([int(w) if whole else float(w) for w in words], dtype=native)
    except (ValueError, OverflowError) as error:
        raise BrokenFile(f"{path.name} is damaged: its voxels are not numbers.", hint=_AGAIN) from error
    if flat.size < count:
        raise BrokenFile(f"{path.name} is cut off: {flat.size:,} of {count:,} voxels are there.", hint=_AGAIN)
    return flat.reshape(header.sizes, order="F")


def _frames(header: Header, count: int) -> Frames:
    pairs = header.pairs
    if pairs.get("modality", "").upper() == "DWMRI":
        found = _gradients(pairs, count)
        if found is not None:
            return found
    told = pairs.get(_FRAMES, "").split(" ")
    if len(told) == 3 and told[0] in ("time", "echo", "channel", "diffusion", "segment"):
        try:
            return Frames(told[0], max(0.0, float(np.nan_to_num(float(told[1])))), told[2])
        except ValueError:
            pass
    if header.kind == "time":
        words = header.fields.get("spacings", "").split()
        try:
            step = float(words[header.extra or 0]) if words else 0.0
        except (ValueError, IndexError):
            step = 0.0
        return Frames("time", step if np.isfinite(step) and step > 0 else 0.0, "s")
    return Frames("channel")


def _gradients(pairs: Mapping[str, str], count: int) -> Frames | None:
    """Return the b-values of a DWMRI file; a gradient's length tells its share of the largest one.

    Directions stay out: NRRD tells them in the frame of the measurement, not of the image.
    """
    try:
        largest = float(pairs["DWMRI_b-value"])
        shares = [
            np.linalg.norm([float(word) for word in pairs[f"DWMRI_gradient_{n:04d}"].split()[:3]])
            for n in range(count)
        ]
    except (KeyError, ValueError):
        return None
    top = max(shares) or 1.0
    values = tuple(float(round(largest * (share / top) ** 2, 3)) for share in shares)
    return Frames("diffusion", bvals=values) if np.isfinite(values).all() else None


def _segments(pairs: Mapping[str, str]) -> list[_Segment]:
    """Return what the ``Segment0_Name`` lines tell; the oldest files have a layer for each segment."""
    told: dict[int, dict[str, str]] = {}
    for key, value in pairs.items():
        match = _SEGMENT.match(key)
        if match:
            told.setdefault(int(match[1]), {})[match[2]] = value
    found = []
    for number, facts in sorted(told.items()):
        if "ID" not in facts and "Name" not in facts and "LabelValue" not in facts:
            continue
        try:
            layer, label = int(facts.get("Layer", number)), int(facts.get("LabelValue", 1))
        except ValueError as error:
            raise BrokenFile(f"Segment {number} has no label value that makes sense.", hint=_AGAIN) from error
        kept: dict[str, str] = {key: facts[key] for key in ("ID", "Tags", "Status") if key in facts}
        name = facts.get("Name") or facts.get("ID") or f"Segment {number + 1}"
        found.append(_Segment(layer, label, name, _color(facts.get("Color", "")), kept))
    return found


def _color(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (min(1.0, max(0.0, float(word))) for word in text.split())
    except ValueError:
        return None
    return red, green, blue


def _labels(data: NDArray[Any], header: Header, segments: list[_Segment], origin: Origin) -> Labels:
    """Return labels of one map, or of layers where segments overlap or share a value."""
    values = [segment.value for segment in segments]
    told = list(header.warnings)
    numbers = values
    if len(set(values)) < len(values) or min(values) < 1 or max(values) >= 1 << 31:
        numbers = list(range(1, len(segments) + 1))
        told.append(
            "The label values of the segments were double or out of range; they were numbered anew, in order."
        )
    names = {number: segment.name for number, segment in zip(numbers, segments, strict=True)}
    colors = {n: s.color for n, s in zip(numbers, segments, strict=True) if s.color is not None}
    kept = {**origin.fields, "segments": {n: dict(s.kept) for n, s in zip(numbers, segments, strict=True)}}
    origin = Origin(origin.title, origin.format, origin.path, kept, tuple(told))
    if data.ndim == 3:
        if numbers is not values:
            raise BrokenFile(
                f"'{origin.title}' gives its segments label values that are double or out of range.",
                hint=_AGAIN,
            )
        return Labels(data, header.grid, (), None, origin, names, colors)
    whole: Box = (slice(None), slice(None), slice(None))
    parts = []
    for number, segment in zip(numbers, segments, strict=True):
        if not 0 <= segment.layer < data.shape[3]:
            raise BrokenFile(f"Segment '{segment.name}' lies in a layer that is not there.", hint=_AGAIN)
        parts.append((number, whole, np.asarray(data[..., segment.layer] == segment.value)))
    map_or_layers = stacked(header.grid.shape, parts)
    frames = SEGMENTS if map_or_layers.ndim == 4 else None
    return Labels(map_or_layers, header.grid, (), frames, origin, names, colors)


def write(volume: Volume, path: Path) -> None:
    """Write an NRRD file, gzipped inside; labels carry names and colours as Slicer's segmentations do.

    Parameters
    ----------
    volume : Volume
        Layers of overlapping segments stay layers.
    path : Path
        Ends in ``.nrrd`` or ``.seg.nrrd``.

    Raises
    ------
    UnsupportedImage
        If labels that change over time should become a segmentation, or a type has no NRRD name.
    """
    labels = isinstance(volume, Labels)
    layered = isinstance(volume, Labels) and is_layered(volume)
    if path.name.lower().endswith(".seg.nrrd"):
        if not labels:
            raise UnsupportedImage(
                "A .seg.nrrd holds labels, not grey values.",
                hint="Is it a mask? Then take it as labels (--labels, load_labels). Else save as .nrrd or .nii.gz.",
            )
        if volume.data.ndim == 4 and not layered:
            raise UnsupportedImage(
                "A .seg.nrrd keeps its fourth axis for segments that overlap, not for time.",
                hint="Save as .nii.gz.",
            )
    dtype = _written_type(volume)
    shape = tuple(volume.data.shape)
    order = (*shape[3:], *shape[:3])
    # "list", also for time: ITK refuses a time axis where the space has three.
    lines = lines_for(order, dtype, volume.grid, "list", "gzip")
    if volume.data.ndim == 4 and volume.frames is not None:
        lines.append(
            f"{_FRAMES}:={volume.frames.kind} {float(volume.frames.step)!r} {escaped(volume.frames.unit)}"
        )
    if isinstance(volume, Labels) and (layered or volume.data.ndim == 3):
        lines += _segment_lines(volume)
    head = ("\n".join(lines) + "\n\n").encode()
    with open(path, "wb") as disk:
        disk.write(head)
        _pack(disk, volume.data, dtype)


def _written_type(volume: Volume) -> np.dtype[Any]:
    from napari_mri.io.nifti import stored_type

    return stored_type(volume).newbyteorder("<")


def _segment_lines(labels: Labels) -> list[str]:
    layered = is_layered(labels)
    kept = labels.origin.fields.get("segments", {}) if labels.origin.format == "nrrd" else {}
    lines = []
    for number, value in enumerate(sorted({*labels.values, *(v for v in labels.names if v > 0)})):
        mask = labels.data == value
        layer = int(np.argmax(mask.any(axis=(0, 1, 2)))) if layered else 0
        flat = mask[..., layer] if layered else mask
        name = labels.names.get(value, f"Segment {value}")
        facts: dict[str, Any] = {}
        if value in labels.colors:
            facts["Color"] = " ".join(f"{part:.6g}" for part in labels.colors[value])
            facts["ColorAutoGenerated"] = 0
        facts |= {
            "Extent": _extent(flat), "ID": kept.get(value, {}).get("ID", f"Segment_{value}"), "LabelValue": value,
            "Layer": layer, "Name": name, "NameAutoGenerated": 0, "Tags": kept.get(value, {}).get("Tags", "|"),
        }  # fmt: skip
        lines += [f"Segment{number}_{key}:={escaped(str(fact))}" for key, fact in facts.items()]
    return [
        *lines,
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]


def _extent(mask: NDArray[np.bool_]) -> str:
    ends = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis)))
        ends += [int(hits[0]), int(hits[-1])] if hits.size else [0, -1]
    return " ".join(map(str, ends))


def _pack(disk: Any, data: NDArray[Any], dtype: np.dtype[Any]) -> None:
    from napari_mri.io.nifti import _packer

    with _packer(disk) as packed:
        for at in range(data.shape[2]):
            slab = np.asarray(data[:, :, at])
            slab = np.moveaxis(slab, -1, 0) if slab.ndim == 3 else slab
            packed.write(slab.astype(dtype, copy=False).tobytes(order="F"))


FORMATS = (
    Format(
        "nrrd", "NRRD", ENDINGS, mine, read, write,
        holds=frozenset({"volume", "labels", "4d", "names", "overlap"}), labels_only=(".seg.nrrd",),
    ),
)  # fmt: skip
