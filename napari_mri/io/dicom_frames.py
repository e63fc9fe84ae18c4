"""Lists the slices inside one DICOM file: one, an enhanced multi-frame stack, or a Siemens mosaic."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import numpy as np

from napari_mri.core.errors import BrokenFile
from napari_mri.io.dicom_bytes import Elements
from napari_mri.io.dicom_diffusion import set_gradient, tell_diffusion
from napari_mri.io.dicom_header import (
    PER_FRAME,
    SHARED,
    File,
    Frame,
    binary,
    copied,
    either,
    frame_record,
    number,
    numbers,
    part_of,
    seconds,
    text,
    whole,
)

_MOST_FRAMES = 200_000
_FARTHEST = 1e6  # mm


def frames_of(file: File) -> list[Frame]:
    """Return every slice of a file, and let go of its raw elements.

    Raises
    ------
    BrokenFile
        If the functional groups or the mosaic header contradict themselves, or a position cannot be.
    """
    first = frame_record(file)
    tell_diffusion(first, file.elements)
    if file.n_frames > _MOST_FRAMES:
        raise BrokenFile(f"{file.path.name} claims {file.n_frames} frames.", hint="The header is damaged.")
    if PER_FRAME in file.elements.sequences:
        frames = _enhanced(file, first)
    elif "MOSAIC" in first.types:
        frames = _mosaic(file, first)
    elif file.n_frames > 1:
        frames = [replace(first, number=n, instance=n, position=_shifted(first, n)) for n in range(file.n_frames)]
    else:
        frames = [first]
    _check_places(file, frames)
    file.elements.values.clear()
    file.elements.sequences.clear()
    return frames


def _check_places(file: File, frames: list[Frame]) -> None:
    """Refuse positions and directions that are no numbers, or beyond all scanners."""
    told: set[tuple[float, ...] | None] = {frame.turn for frame in frames}
    told.update([frame.position for frame in frames])
    for values in told:
        # A sum is quicker than a look at each; NaN and infinity go through to it.
        if values is not None and not sum(map(abs, values)) <= _FARTHEST:
            raise BrokenFile(
                f"{file.path.name} tells a slice position that cannot be.",
                hint="The header is damaged; export the series again.",
            )


def _shifted(first: Frame, number: int) -> tuple[float, float, float] | None:
    """Place the frames of an old multi-frame file, which tells one position, along its normal."""
    if first.position is None or first.turn is None:
        return None
    step = first.gap or first.thickness or 1.0
    place = np.asarray(first.position) + np.cross(first.turn[:3], first.turn[3:]) * step * number
    return float(place[0]), float(place[1]), float(place[2])


def _enhanced(file: File, first: Frame) -> list[Frame]:
    """Read the functional groups: what all frames share, then what each one changes."""
    sequences = file.elements.sequences
    shared = replace(first)
    if sequences.get(SHARED):
        _apply(shared, sequences[SHARED][0])
    groups = sequences[PER_FRAME]
    if len(groups) != file.n_frames:
        raise BrokenFile(
            f"{file.path.name} tells of {file.n_frames} frames but describes {len(groups)}.",
            hint="The header is damaged; export the series again.",
        )
    frames = []
    for index, group in enumerate(groups):
        frame = copied(shared)
        frame.number = frame.instance = index
        _apply(frame, group)
        frames.append(frame)
    return frames


def _apply(frame: Frame, group: Elements) -> None:
    """Write what one functional group item tells into a frame."""
    for tag, inner in group.sequences.items():
        if inner and tag in _PARTS:
            _PARTS[tag](frame, inner[0])


def _measures(frame: Frame, inner: Elements) -> None:
    pixel = numbers(inner, 0x00280030)
    if len(pixel) == 2:
        frame.pixel = (pixel[0], pixel[1])
    frame.thickness = abs(number(inner, 0x00180050, frame.thickness))
    frame.gap = abs(number(inner, 0x00180088, frame.gap))


def _place(frame: Frame, inner: Elements) -> None:
    place = numbers(inner, 0x00200032)
    if len(place) == 3:
        frame.position = (place[0], place[1], place[2])


def _orientation(frame: Frame, inner: Elements) -> None:
    turn = numbers(inner, 0x00200037)
    if len(turn) == 6:
        frame.turn = turn


def _scaling(frame: Frame, inner: Elements) -> None:
    frame.slope = number(inner, 0x00281053, 1.0)
    frame.inter = number(inner, 0x00281052, 0.0)


def _content(frame: Frame, inner: Elements) -> None:
    frame.stack = text(inner, 0x00209056) or frame.stack
    for tag in (0x00209128,):
        values = binary(inner, tag, "I")
        if values:
            frame.temporal = int(values[0])
    clock = text(inner, 0x00189074) or text(inner, 0x00189151)
    if clock:
        frame.acquired = seconds(clock)


def _echo(frame: Frame, inner: Elements) -> None:
    echo = either(inner, 0x00189082)
    if echo:
        frame.echo = echo[0]


def _diffusion(frame: Frame, inner: Elements) -> None:
    vectors = inner.sequences.get(0x00189076, [])
    vector = either(vectors[0], 0x00189089) if vectors else ()
    kind = text(inner, 0x00189075).upper()
    bval = either(inner, 0x00189087)
    if not bval and kind == "NONE":
        bval = (0.0,)
    frame.bvec, frame.in_image = None, False
    set_gradient(frame, bval, () if kind in ("ISOTROPIC", "NONE") else vector)


def _types(frame: Frame, inner: Elements) -> None:
    told = text(inner, 0x00089007).upper()
    if told:
        frame.types = tuple(told.split("\\"))
    frame.kind = part_of(frame.types, text(inner, 0x00089208), inner)


def _timing(frame: Frame, inner: Elements) -> None:
    repetition = number(inner, 0x00180080)
    if math.isfinite(repetition):
        frame.file.repetition = repetition


def _heart(frame: Frame, inner: Elements) -> None:
    delay = either(inner, 0x00209153)
    if delay:
        frame.trigger = delay[0]


_PARTS = {
    0x00289110: _measures, 0x00209113: _place, 0x00209116: _orientation, 0x00289145: _scaling,
    0x00209111: _content, 0x00189114: _echo, 0x00189117: _diffusion, 0x00189226: _types,
    0x00189112: _timing, 0x00189118: _heart,
}  # fmt: skip


def _mosaic(file: File, first: Frame) -> list[Frame]:
    """Cut a Siemens mosaic into its slices.

    The position in the header is that of the whole mosaic's corner as if it were one big slice with
    the same centre, so the first slice's corner lies half the difference further in.
    """
    raw = file.elements
    private = read_csa(raw.values.get(0x00291010, b""))
    count = binary(raw, 0x0019100A, "H")
    n_slices = int(count[0]) if count else _csa_number(private, "NumberOfImagesInMosaic")
    if n_slices < 1:
        n_slices = whole(raw, 0x0019100A)
    if n_slices < 1 or first.turn is None or first.position is None or first.pixel is None:
        raise BrokenFile(
            f"{file.path.name} is a Siemens mosaic without the header that tells how many slices it holds.",
            hint="De-identification may have removed it; export the series again with private tags.",
        )
    side = math.ceil(math.sqrt(n_slices))
    rows, columns = file.rows // side, file.columns // side
    if rows < 1 or columns < 1:
        raise BrokenFile(f"{file.path.name} is a mosaic too small for {n_slices} slices.")
    row, column = np.asarray(first.turn[:3]), np.asarray(first.turn[3:])
    normal = np.cross(row, column)
    told = private.get("SliceNormalVector", ())
    if len(told) == 3 and float(np.dot(told, normal)) < 0:
        normal = -normal
    down, across = first.pixel
    corner = (
        np.asarray(first.position)
        + row * (across * (file.columns - columns) / 2)
        + column * (down * (file.rows - rows) / 2)
    )
    step = normal * (first.gap or first.thickness or 1.0)
    frames = []
    for n in range(n_slices):
        place = corner + step * n
        frames.append(
            replace(
                first, tile=(n // side * rows, n % side * columns), rows=rows, columns=columns,
                position=(float(place[0]), float(place[1]), float(place[2])),
            )
        )  # fmt: skip
    return frames


def _csa_number(private: dict[str, tuple[float, ...]], name: str) -> int:
    values = private.get(name, ())
    return int(values[0]) if values and math.isfinite(values[0]) else 0


def read_csa(raw: bytes) -> dict[str, tuple[float, ...]]:
    """Return the numbers of a Siemens CSA image header (version 2, ``SV10``), by name.

    A damaged header gives what could be read before the damage.
    """
    found: dict[str, tuple[float, ...]] = {}
    if raw[:4] != b"SV10" or len(raw) < 16:
        return found
    (n_tags,) = struct.unpack_from("<I", raw, 8)
    at = 16
    for _ in range(min(n_tags, 1024)):
        if at + 84 > len(raw):
            return found
        name = raw[at : at + 64].split(b"\0")[0].decode("latin-1")
        (n_items,) = struct.unpack_from("<I", raw, at + 76)
        at += 84
        values: list[float] = []
        for _item in range(min(n_items, 4096)):
            if at + 16 > len(raw):
                return found
            (length,) = struct.unpack_from("<I", raw, at + 4)
            word = raw[at + 16 : at + 16 + length].split(b"\0")[0].strip()
            at += 16 + -(-length // 4) * 4
            if word:
                try:
                    values.append(float(word))
                except ValueError:
                    continue
        if values:
            found[name] = tuple(values)
    return found
