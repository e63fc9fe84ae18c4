"""Turns the raw elements of a DICOM file into the record of one file and of each frame in it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from napari_mri.io.dicom_bytes import CHARSET, Elements

Xyz = tuple[float, float, float]

SHARED, PER_FRAME = 0x52009229, 0x52009230
WANTED = frozenset(
    (
        CHARSET, 0x00080008, 0x00080016, 0x00080018, 0x00080032, 0x00080033, 0x00080060, 0x00080070,
        0x0008103E, 0x00089208,
        0x00180050, 0x00180080, 0x00180081, 0x00180086, 0x00180088, 0x00181030, 0x00181060, 0x00181312,
        0x00189087, 0x00189089,
        0x00190010, 0x0019100A, 0x0019100C, 0x0019100E, 0x001910BB, 0x001910BC, 0x001910BD,
        0x0020000D, 0x0020000E, 0x00200011, 0x00200012, 0x00200013, 0x00200032, 0x00200037, 0x00200100,
        0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100,
        0x00280101, 0x00280102, 0x00280103, 0x00281052, 0x00281053,
        0x00291010, 0x00430010, 0x0043102F, 0x00431039, 0x00650010, 0x00651009, 0x00651037,
        0x20010010, 0x20011003, 0x20011004, 0x20050010, 0x2005100D, 0x2005100E, 0x200510B0, 0x200510B1,
        0x200510B2,
        # of functional groups
        0x00089007, 0x00189074, 0x00189075, 0x00189082, 0x00189151, 0x00209056, 0x00209128, 0x00209153,
    )
)  # fmt: skip

SEQUENCES = frozenset(
    (
        0x52009229, 0x52009230, 0x00189112, 0x00189114, 0x00189117, 0x00189118, 0x00189226, 0x00209111,
        0x00209113, 0x00209116, 0x00289110, 0x00289145, 0x00189076,
    )
)  # fmt: skip
"""The functional groups of enhanced images that are looked into."""


@dataclass(slots=True, eq=False)
class File:
    """One DICOM file: what all frames in it share.

    Parameters
    ----------
    place : str
        Its path (see `path`).
    elements : Elements
        Its raw elements; emptied once the frames are made.
    series, study, instance_uid, sop_class, modality, maker, title : str
    number : int or None
        Series number.
    rows, columns, samples, n_frames : int
    bits, stored : int
        Allocated and used bits of a stored value.
    signed : bool
    colour : str
        Photometric interpretation.
    repetition : float
        TR, ms; 0 where unknown.
    """

    place: str
    elements: Elements
    series: str = ""
    study: str = ""
    instance_uid: str = ""
    sop_class: str = ""
    modality: str = ""
    maker: str = ""
    title: str = ""
    number: int | None = None
    rows: int = 0
    columns: int = 0
    samples: int = 1
    n_frames: int = 1
    bits: int = 16
    stored: int = 16
    signed: bool = False
    colour: str = ""
    repetition: float = 0.0
    scale: tuple[float, float] | None = None

    @property
    def path(self) -> Path:
        """Where the file lies; made when asked for, since most of a folder's files are never named."""
        return Path(self.place)


@dataclass(slots=True, eq=False)
class Frame:
    """One slice: where it stands, what tells it from others at that place, and where its pixels are.

    Parameters
    ----------
    file : File
    number : int
        Which frame of the file, from 0.
    tile : (row, column) or None
        First pixel of the slice within a mosaic.
    rows, columns : int
    position : (3,) patient LPS mm, or None
        Centre of the first pixel.
    turn : 6 floats or None
        Direction of a row (increasing column) and of a column (increasing row), LPS.
    pixel : (row spacing, column spacing) mm, or None
    gap, thickness : float
        Spacing between slices and slice thickness the header tells, mm; 0 where it tells none.
    slope, inter : float
        Value = stored × slope + inter.
    kind : str
        ``"magnitude"``, ``"phase"``, ``"real"`` or ``"imaginary"``.
    types : tuple of str
        Image type.
    echo : float
        Echo time, ms; NaN where unknown.
    bval : float
        s/mm²; NaN where unknown.
    bvec : (3,) or None
        Gradient direction.
    in_image : bool
        Whether `bvec` is along the image's own axes rather than in patient LPS.
    temporal : int or None
        Index in time that the header tells.
    trigger, acquired : float
        Trigger time, ms, and time of day, s; NaN where unknown.
    acquisition, instance : int
    stack : str
    """

    file: File
    number: int = 0
    tile: tuple[int, int] | None = None
    rows: int = 0
    columns: int = 0
    position: Xyz | None = None
    turn: tuple[float, ...] | None = None
    pixel: tuple[float, float] | None = None
    gap: float = 0.0
    thickness: float = 0.0
    slope: float = 1.0
    inter: float = 0.0
    kind: str = "magnitude"
    types: tuple[str, ...] = ()
    echo: float = math.nan
    bval: float = math.nan
    bvec: Xyz | None = None
    in_image: bool = False
    temporal: int | None = None
    trigger: float = math.nan
    acquired: float = math.nan
    acquisition: int = 0
    instance: int = 0
    stack: str = ""


_SLOTS = tuple(field.name for field in fields(Frame))


def copied(frame: Frame) -> Frame:
    """Return a frame of the same facts; `dataclasses.replace` takes ten times as long for a thousand frames."""
    new = Frame.__new__(Frame)
    for name in _SLOTS:
        setattr(new, name, getattr(frame, name))
    return new


def text(elements: Elements, tag: int) -> str:
    """Return a string value, stripped; empty where it is absent."""
    raw = elements.values.get(tag)
    return _text(raw) if raw else ""


# The files of a series repeat most of each other's values.
@lru_cache(maxsize=2048)
def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip("\0 ")


def numbers(elements: Elements, tag: int) -> tuple[float, ...]:
    """Return the values of a decimal or integer string; empty where absent or not all numbers."""
    raw = elements.values.get(tag)
    return _numbers(raw) if raw else ()


@lru_cache(maxsize=2048)
def _numbers(raw: bytes) -> tuple[float, ...]:
    try:
        return tuple(map(float, raw.rstrip(b"\0 ").split(b"\\")))
    except ValueError:
        return ()


def number(elements: Elements, tag: int, otherwise: float = math.nan) -> float:
    """Return the first value of a decimal or integer string."""
    raw = elements.values.get(tag)
    value = _number(raw) if raw else None
    return otherwise if value is None else value


@lru_cache(maxsize=2048)
def _number(raw: bytes) -> float | None:
    values = _numbers(raw)
    return values[0] if values and math.isfinite(values[0]) else None


def whole(elements: Elements, tag: int, otherwise: int = 0) -> int:
    """Return an integer string's first value."""
    raw = elements.values.get(tag)
    value = _number(raw) if raw else None
    return int(value) if value is not None and abs(value) < 2**53 else otherwise


def binary(elements: Elements, tag: int, kind: str) -> tuple[float, ...]:
    """Return the values of a binary element; `kind` is a `struct` letter (H, I, f, d …)."""
    raw = elements.values.get(tag)
    size = struct.calcsize(kind)
    if not raw or len(raw) < size:
        return ()
    count = min(len(raw) // size, 64)
    return tuple(struct.unpack_from(f"{'>' if elements.big else '<'}{count}{kind}", raw))


def short(elements: Elements, tag: int, otherwise: int) -> int:
    """Return a 16-bit unsigned value."""
    raw = elements.values.get(tag)
    return int.from_bytes(raw[:2], "big" if elements.big else "little") if raw and len(raw) > 1 else otherwise


def either(elements: Elements, tag: int) -> tuple[float, ...]:
    """Return numbers that some writers store as doubles, some as floats, some as text."""
    raw = elements.values.get(tag, b"")
    if raw and all(byte in b"0123456789.+-eE\\ \0" for byte in raw):
        return numbers(elements, tag)
    return binary(elements, tag, "f" if len(raw) in (4, 12) else "d")


def words(elements: Elements, tag: int) -> str:
    """Return a description in whatever character set the file tells."""
    raw = elements.values.get(tag, b"").strip(b"\0 ")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    from pydicom.charset import convert_encodings, decode_bytes

    sets = [part.strip() for part in text(elements, CHARSET).split("\\")] or [""]
    try:
        encodings = convert_encodings(sets)
        return str(decode_bytes(raw, encodings, set())).strip()
    except (LookupError, UnicodeError):
        return raw.decode("latin-1")


def seconds(clock: str) -> float:
    """Return a DICOM time (or the time in a date-time) as seconds of the day; NaN where absent."""
    clock = clock.strip().partition("+")[0].partition("-")[0].replace(":", "")
    if len(clock) >= 14 and "." not in clock[:14]:
        clock = clock[8:]
    try:
        return int(clock[:2]) * 3600 + int(clock[2:4] or 0) * 60 + float(clock[4:] or 0)
    except ValueError:
        return math.nan


def file_record(place: str, elements: Elements) -> File:
    """Return what all frames of a file share."""
    maker = text(elements, 0x00080070).upper()
    return File(
        place=place,
        elements=elements,
        series=text(elements, 0x0020000E),
        study=text(elements, 0x0020000D),
        instance_uid=text(elements, 0x00080018),
        sop_class=text(elements, 0x00080016),
        modality=text(elements, 0x00080060),
        maker=maker,
        title=words(elements, 0x0008103E) or words(elements, 0x00181030),
        number=whole(elements, 0x00200011) if 0x00200011 in elements.values else None,
        rows=short(elements, 0x00280010, 0),
        columns=short(elements, 0x00280011, 0),
        samples=short(elements, 0x00280002, 1),
        n_frames=max(1, whole(elements, 0x00280008, 1)),
        bits=short(elements, 0x00280100, 16),
        stored=short(elements, 0x00280101, short(elements, 0x00280100, 16)),
        signed=short(elements, 0x00280103, 0) == 1,
        colour=text(elements, 0x00280004).upper(),
        repetition=number(elements, 0x00180080, 0.0),
        scale=_philips_scale(elements) if "PHILIPS" in maker else None,
    )


def _philips_scale(elements: Elements) -> tuple[float, float] | None:
    """Return slope and intercept of Philips' precise values, which are stored as text or as floats."""
    slope, inter = number(elements, 0x2005100E), number(elements, 0x2005100D)
    if not math.isfinite(slope):
        floats = binary(elements, 0x2005100E, "f"), binary(elements, 0x2005100D, "f")
        slope = floats[0][0] if floats[0] else math.nan
        inter = floats[1][0] if floats[1] else 0.0
    return (slope, inter) if math.isfinite(slope) and slope > 0 else None


def frame_record(file: File) -> Frame:
    """Return the frame of a classic single-frame file."""
    elements = file.elements
    place, turn, pixel = (numbers(elements, tag) for tag in (0x00200032, 0x00200037, 0x00280030))
    frame = Frame(
        file=file,
        rows=file.rows,
        columns=file.columns,
        position=(place[0], place[1], place[2]) if len(place) == 3 else None,
        turn=turn if len(turn) == 6 else None,
        pixel=(pixel[0], pixel[1]) if len(pixel) == 2 else None,
        gap=abs(number(elements, 0x00180088, 0.0)),
        thickness=abs(number(elements, 0x00180050, 0.0)),
        slope=number(elements, 0x00281053, 1.0),
        inter=number(elements, 0x00281052, 0.0),
        types=tuple(text(elements, 0x00080008).upper().split("\\")),
        echo=number(elements, 0x00180081),
        trigger=number(elements, 0x00181060),
        acquired=seconds(text(elements, 0x00080032) or text(elements, 0x00080033)),
        acquisition=whole(elements, 0x00200012),
        instance=whole(elements, 0x00200013),
        temporal=whole(elements, 0x00200100) if 0x00200100 in elements.values else None,
    )
    frame.kind = part_of(frame.types, text(elements, 0x00089208), elements)
    return frame


def part_of(types: tuple[str, ...], component: str, elements: Elements) -> str:
    """Tell whether an image is magnitude, phase, or one part of complex numbers."""
    told = component.upper()
    if told in ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY"):
        return told.lower()
    if text(elements, 0x00430010) == "GEMS_PARM_01":
        code = binary(elements, 0x0043102F, "h")
        if code and 0 <= code[0] <= 3:
            return ("magnitude", "phase", "real", "imaginary")[int(code[0])]
    return _part_named(types)


@lru_cache(maxsize=256)
def _part_named(types: tuple[str, ...]) -> str:
    for part, names in (
        ("phase", ("P", "PHASE", "PHASE MAP", "P_FFE", "P_SE")),
        ("real", ("R", "REAL", "R_FFE", "R_SE")),
        ("imaginary", ("I", "IMAGINARY", "I_FFE", "I_SE")),
    ):
        if any(name in types[2:] for name in names):
            return part
    return "magnitude"
