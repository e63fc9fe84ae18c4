"""Reads DICOM segmentations: binary, fractional and label maps, with sparse and overlapping frames."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, MissingExtra, UnsupportedImage
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.io.colors import rgb_of_lab
from napari_mri.io.decoding import pages
from napari_mri.io.dicom_bytes import PLAIN
from napari_mri.io.formats import Format
from napari_mri.io.layered import SEGMENTS
from napari_mri.io.seg_frames import BINARY_SEG, LABELMAP_SEG, Seg, understood
from napari_mri.io.seg_write import ENDINGS, VALUE, write

_DECODING = (
    RuntimeError,
    ValueError,
    NotImplementedError,
    AttributeError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
)
_AGAIN = "Copy or export it again."
_UID = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]+)|\x08\x00\x16\x00(?:UI..|....)([0-9.]+)", re.S)


def sop_class(head: bytes) -> str:
    """Return the SOP class that the first bytes of a DICOM file tell, or an empty string."""
    found = _UID.search(head)
    return (found[1] or found[2]).decode("ascii").rstrip(".") if found else ""


def mine(path: Path, head: bytes) -> bool:
    """Tell by the SOP class."""
    return sop_class(head) in (BINARY_SEG, LABELMAP_SEG)


def read(path: Path) -> tuple[Volume, ...]:
    """Read a DICOM segmentation on the grid that its own frames span.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of one Labels or Volume
        Segments keep their numbers (or the label values they had when this program wrote them).
        Those that overlap come as layers (see `layered`). A fractional segmentation comes as a
        Volume of fractions from 0 to 1, a channel a segment. `landing.landed` puts either on a scan.

    Raises
    ------
    BrokenFile, GeometryProblem, UnsupportedImage, MissingExtra
    """
    seg = understood(path)
    pages = _pages(seg)
    segments = [one for one in seg.segments if one.number > 0]
    if seg.kind == "FRACTIONAL":
        return (_fractions(seg, pages),)
    values, doubled = _values(seg)
    if seg.kind == "LABELMAP":
        data = _placed(seg, pages)
        data = (
            np.where(data == _padding(seg, data.dtype), 0, data)
            if 0x00280120 in seg.elements.values
            else data
        )
    else:
        data = _layers(seg, pages, values)
    if doubled:
        seg.warnings.append("Several segments tell the same label value; they keep their segment numbers.")
    names = {values.get(one.number, one.number): one.name for one in segments}
    colors = {
        values.get(one.number, one.number): rgb_of_lab(one.lab) for one in segments if len(one.lab) == 3
    }
    origin = Origin(seg.title, "dicom-seg", str(path), {"type": seg.kind}, tuple(seg.warnings))
    frames = SEGMENTS if data.ndim == 4 else None
    return (Labels(data, seg.grid, (), frames, origin, names, colors),)


def _values(seg: Seg) -> tuple[dict[int, int], bool]:
    """Return the label value of each segment number: told in its description where we wrote it."""
    told = {one.number: re.fullmatch(VALUE.format(r"(\d{1,9})"), one.description) for one in seg.segments}
    values = {number: int(match[1]) if match else number for number, match in told.items()}
    doubled = any(count > 1 for count in Counter(values.values()).values()) or 0 in (
        values[n] for n in values if n > 0
    )
    return ({number: number for number in values} if doubled else values), doubled


def _pages(seg: Seg) -> NDArray[Any]:
    """Return the stored frames, (n_frames, rows, columns); single bits as they lie, packed, in one row."""
    if seg.elements.syntax not in PLAIN:
        return _decoded(seg)
    n_pixels = seg.n_frames * seg.rows * seg.columns
    n_bytes = (n_pixels * seg.bits + 7) // 8
    at = seg.elements.pixels_at
    if seg.elements.whole is not None:
        raw: Any = np.frombuffer(seg.elements.whole, np.uint8)
    else:
        raw = np.memmap(seg.path, np.uint8, "r")
    if at + n_bytes > raw.size:
        raise BrokenFile(
            f"{seg.path.name} is cut off: {max(0, raw.size - at) / 1e6:,.1f} of {n_bytes / 1e6:,.1f} MB of pixels are there.",
            hint=_AGAIN,
        )
    body = raw[at : at + n_bytes]
    if seg.bits == 1:
        return np.asarray(body)
    kind = np.dtype("u1") if seg.bits == 8 else np.dtype(">u2" if seg.elements.big else "<u2")
    return np.asarray(body).view(kind).reshape(seg.n_frames, seg.rows, seg.columns)


def _decoded(seg: Seg) -> NDArray[Any]:
    try:
        stream = pages(seg.path, seg.elements, (seg.n_frames, seg.rows, seg.columns, seg.bits))
        found = [np.asarray(page).reshape(seg.rows, seg.columns) for page in stream]
    except ImportError as error:
        raise MissingExtra(
            "A package that unpacks compressed DICOM is missing.", hint="Install [formats]."
        ) from error
    except (*_DECODING, OSError) as error:
        raise UnsupportedImage(
            f"The compressed pixels of {seg.path.name} cannot be unpacked.", hint="Export it uncompressed."
        ) from error
    if len(found) != seg.n_frames:
        raise BrokenFile(
            f"{seg.path.name} is damaged: {len(found)} of {seg.n_frames} frames are there.", hint=_AGAIN
        )
    return np.stack(found)


def _page(seg: Seg, pages: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """Return one frame as bools, (rows, columns)."""
    if pages.ndim == 3:
        return np.asarray(pages[number] != 0)
    size = seg.rows * seg.columns
    start = number * size
    first, last = start // 8, (start + size + 7) // 8
    bits = np.unpackbits(pages[first:last], bitorder="little")
    return bits[start - first * 8 :][:size].reshape(seg.rows, seg.columns).view(np.bool_)


def _layers(seg: Seg, pages: NDArray[Any], values: dict[int, int]) -> NDArray[np.unsignedinteger[Any]]:
    """Put binary frames into as few layers as their overlaps allow, one segment after another."""
    numbers = [int(n) for n in np.unique(seg.shown)]
    kind = np.min_scalar_type(max(values.get(number, number) for number in numbers))
    layers: list[NDArray[np.unsignedinteger[Any]]] = []
    for number in numbers:
        value = values.get(number, number)
        frames = [
            (int(seg.planes[n]), _page(seg, pages, int(n))) for n in np.flatnonzero(seg.shown == number)
        ]
        home = next((layer for layer in layers if _fits(layer, frames)), None)
        if home is None:
            # Planes first: every frame then lies in one piece of memory.
            home = np.zeros((seg.grid.shape[2], seg.rows, seg.columns), kind)
            layers.append(home)
        for plane, mask in frames:
            np.maximum(home[plane], mask * kind.type(value), out=home[plane])
    return layers[0].T if len(layers) == 1 else np.stack([layer.T for layer in layers], axis=-1)


def _fits(layer: NDArray[Any], frames: Iterable[tuple[int, NDArray[np.bool_]]]) -> bool:
    return not any((layer[plane].view(np.bool_) if layer.itemsize == 1 else layer[plane] != 0)[mask].any()
                   for plane, mask in frames)  # fmt: skip


def _placed(seg: Seg, pages: NDArray[Any]) -> NDArray[Any]:
    """Return the frames of a label map, (columns, rows, planes)."""
    kind = pages.dtype.newbyteorder("=") if pages.ndim == 3 else np.dtype(np.uint8)
    data = np.zeros((seg.grid.shape[2], seg.rows, seg.columns), kind)
    for n in range(seg.n_frames):
        data[seg.planes[n]] = pages[n] if pages.ndim == 3 else _page(seg, pages, n)
    return data.T


def _padding(seg: Seg, kind: np.dtype[Any]) -> int:
    raw = seg.elements.values[0x00280120]
    return int.from_bytes(raw[:2], "big" if seg.elements.big else "little") % (1 << 8 * kind.itemsize)


def _fractions(seg: Seg, pages: NDArray[Any]) -> Volume:
    if pages.ndim != 3:
        raise BrokenFile(f"{seg.path.name} calls itself fractional but holds single bits.", hint=_AGAIN)
    numbers = [int(n) for n in np.unique(seg.shown)]
    data = np.zeros((seg.grid.shape[2], seg.rows, seg.columns, len(numbers)), np.float32)
    for n in range(seg.n_frames):
        data[seg.planes[n], :, :, numbers.index(int(seg.shown[n]))] = pages[n] / np.float32(seg.most)
    names = {one.number: one.name for one in seg.segments}
    told = [f"channel {n}: {names.get(number, number)}" for n, number in enumerate(numbers)]
    seg.warnings.append(
        f"A fractional segmentation: values from 0 to 1 tell how much of a voxel ({'; '.join(told)})."
    )
    origin = Origin(seg.title, "dicom-seg", str(seg.path), {"type": seg.kind}, tuple(seg.warnings))
    turned = data.transpose(2, 1, 0, 3)
    if len(numbers) == 1:
        return Volume(turned[..., 0], seg.grid, (), None, origin)
    return Volume(turned, seg.grid, (), Frames("channel"), origin)


FORMATS = (
    Format(
        "dicom-seg", "DICOM SEG", ENDINGS, mine, read, write, holds=frozenset({"labels", "names", "overlap"}),
    ),
)  # fmt: skip
