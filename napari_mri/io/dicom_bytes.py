"""Walks the bytes of a DICOM file: finds the few elements that matter and where the pixels lie.

A general DICOM library builds an object for each of some hundred elements of each of some hundred
slices. Placing and reading a series needs thirty of them, so this walk jumps over the rest
(PS3.5 chapter 7) and leaves decoding of compressed pixels to that library.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from napari_mri.core.errors import BrokenFile
from napari_mri.io.dicom_layout import Layout

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
PLAIN = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG))
PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
CHARSET = 0x00080005
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL")
) | frozenset((b"SS", b"ST", b"TM", b"UI", b"UL", b"US"))
_LITTLE_STRUCTS = struct.Struct("<HH2sH").unpack_from, struct.Struct("<I").unpack_from
_BIG_STRUCTS = struct.Struct(">HH2sH").unpack_from, struct.Struct(">I").unpack_from
_NONE: frozenset[int] = frozenset()
_WINDOW = 32768
_DEEPEST = 32
_MOST_VALUE = 512_000_000
_MOST_INFLATED = 4_000_000_000
_MOST_RATIO = 1040


class Source:
    """Bytes at any place of a file (or of an inflated copy of it), fetched window by window."""

    def __init__(
        self, path: Path | str, handle: int, whole: bytes | None = None, sequences: frozenset[int] = frozenset()
    ) -> None:
        self.path = path
        self.handle = handle
        self.sequences = sequences
        self.size = len(whole) if whole is not None else os.fstat(handle).st_size
        self.whole = whole
        self.base = 0
        self.window = whole if whole is not None else os.pread(handle, _WINDOW, 0)

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return os.path.basename(self.path)

    def move(self, position: int) -> None:
        """Make the window begin at `position`."""
        if self.whole is None:
            self.base = position
            self.window = os.pread(self.handle, _WINDOW, position)

    def bytes_at(self, position: int, n_bytes: int) -> bytes:
        """Return exactly `n_bytes`, or raise BrokenFile."""
        start = position - self.base
        if start >= 0 and start + n_bytes <= len(self.window):
            return self.window[start : start + n_bytes]
        if n_bytes > _MOST_VALUE or position + n_bytes > self.size:
            raise cut_off(self.name)
        got = os.pread(self.handle, n_bytes, position) if self.whole is None else b""
        if len(got) != n_bytes:
            raise cut_off(self.name)
        return got


def cut_off(name: str) -> BrokenFile:
    """Return the error of a DICOM file that ends too early."""
    return BrokenFile(f"{name} is a DICOM file that is cut off or damaged.", hint="Copy or export it again.")


@dataclass(slots=True)
class Elements:
    """What a walk found.

    Parameters
    ----------
    values : dict of int to bytes
        Raw value of each wanted tag (group << 16 | element).
    sequences : dict of int to list of Elements
        Items of each sequence that was looked into.
    implicit, big : bool
        How the values are encoded.
    syntax : str
        Transfer syntax UID.
    pixels_tag, pixels_at, pixels_length : int
        Where the pixel data are; tag 0 where there are none, length `UNDEFINED` where they are
        compressed in fragments.
    size : int
        Bytes in the file.
    whole : bytes or None
        The inflated content of a deflated file, which `pixels_at` and `size` then count in; or all of a small
        file, so that it need not be opened again for its pixels.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list[Elements]] = field(default_factory=dict)
    implicit: bool = False
    big: bool = False
    syntax: str = EXPLICIT
    pixels_tag: int = 0
    pixels_at: int = 0
    pixels_length: int = 0
    size: int = 0
    whole: bytes | None = None


def looks_like_dicom(head: bytes) -> bool:
    """Tell by the first 132 bytes (or, without preamble, the first element) whether a file is DICOM."""
    if head[128:132] == b"DICM":
        return True
    # Files from before 1993 have no preamble: the first element is then of group 2 or 8 and short.
    if len(head) < 16 or head[:2] not in (b"\x08\x00", b"\x02\x00") or head[3] != 0:
        return False
    if head[4:6] in _SHORT | _LONG:
        return True
    return head[2:4] in (b"\0\0", b"\x01\0", b"\x05\0", b"\x08\0") and int.from_bytes(head[4:8], "little") < 256


def walk_file(
    path: Path | str, wanted: frozenset[int], sequences: frozenset[int] = frozenset(), layout: Layout | None = None
) -> Elements | None:
    """Walk the top level of a file up to its pixels.

    Parameters
    ----------
    path : Path
    wanted : set of int
        Tags whose values are kept, at every depth.
    sequences : set of int
        Tags of the sequences that are looked into; of others, where wanted, the raw value is kept
        (see `items`).
    layout : Layout, optional
        What was learned from the files before, for the same wanted tags; it is kept up to date.

    Returns
    -------
    Elements, or None if the file is not DICOM

    Raises
    ------
    BrokenFile
        If it is DICOM and ends too early.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        source = Source(path, handle, None, sequences)
        if not looks_like_dicom(source.window):
            return None
        start = 132 if source.window[128:132] == b"DICM" else 0
        found = Elements()
        start = _meta(source, start, found)
        if found.syntax == DEFLATED:
            found.whole = _inflated(source, start)
            source, start = Source(path, handle, found.whole, sequences), 0
        found.size = source.size
        if layout is None or found.big or found.whole is not None:
            _walk(source, start, source.size, wanted, found)
            return found
        first, key = source.window, (found.syntax, found.implicit)
        reached = layout.leap(first, start, key, found.values)
        end = _walk(source, reached, source.size, wanted, found)
        if len(first) == source.size and layout.keeps(len(first)):
            found.whole = first
        if layout.missed(reached - start, min(end, len(first)) - start):
            layout.learn(_places(first, start, found.implicit, sequences), first, key, wanted)
        return found
    finally:
        os.close(handle)


def _places(window: bytes, position: int, implicit: bool, sequences: frozenset[int]) -> list[tuple[int, int, int, int]]:
    """Return place, tag, head and length of the elements that lie wholly in the first window."""
    found: list[tuple[int, int, int, int]] = []
    while position + 12 <= len(window):
        group, element, vr, length = struct.unpack_from("<HH2sH", window, position)
        head = 8
        if implicit or vr not in _SHORT:
            if not implicit and vr in _LONG:
                length, head = struct.unpack_from("<I", window, position + 8)[0], 12
            else:
                length = struct.unpack_from("<I", window, position + 4)[0]
        tag = group << 16 | element
        if length == UNDEFINED or tag in sequences or group == 0x7FE0 or position + head + length > len(window):
            break
        # Implicit elements and those of an unheard-of type are told by their length word alone.
        if not implicit and vr not in _SHORT and vr not in _LONG:
            break
        found.append((position, tag, head, length))
        position += head + length
    return found


def _meta(source: Source, start: int, found: Elements) -> int:
    """Read the transfer syntax; return where the data set begins."""
    window, at = source.window, start
    syntax = ""
    unpack_start, unpack_word = _LITTLE_STRUCTS
    while at + 12 <= len(window):
        group, element, vr, length = unpack_start(window, at)
        if group != 2:
            break
        head = 8
        if vr in _LONG:
            length, head = unpack_word(window, at + 8)[0], 12
        elif vr not in _SHORT:
            length = unpack_word(window, at + 4)[0]
        if element == 0x0010:
            syntax = window[at + head : at + head + length].decode("latin-1").rstrip("\0 ")
        at += head + length
        if at + 12 > source.base + len(window):
            raise cut_off(source.name)
    if not syntax:
        syntax = EXPLICIT if window[at + 4 : at + 6] in _SHORT | _LONG else IMPLICIT
    if syntax.strip("0123456789."):
        raise cut_off(source.name)
    found.syntax = syntax
    found.implicit, found.big = syntax == IMPLICIT, syntax == BIG
    if not found.implicit and not found.big and syntax != DEFLATED:
        # Some archives tell explicit and write implicit: the first element shows what is true.
        found.implicit = window[at + 4 : at + 6] not in _SHORT | _LONG
    return at


def _inflated(source: Source, start: int) -> bytes:
    packed = source.bytes_at(start, source.size - start)
    limit = min(_MOST_INFLATED, len(packed) * _MOST_RATIO)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(packed, limit)
    except zlib.error as error:
        raise cut_off(source.name) from error
    if inflater.unconsumed_tail:
        raise BrokenFile(
            f"{source.name} unpacks to more than {limit / 1e9:.1f} GB and was stopped there.",
            hint="Ask for the series without compression.",
        )
    return content


def _walk(source: Source, position: int, end: int, wanted: frozenset[int], found: Elements, depth: int = 0) -> int:
    """Collect the wanted elements from `position` to `end`, or to the end of an item of unknown length.

    Every byte is looked at once: a sequence whose length is not told is collected while its end is
    sought. Returns the place after what was walked. This loop is most of the time that it takes to
    list a folder, hence the local names and the few calls.
    """
    if depth > _DEEPEST:
        raise cut_off(source.name)
    implicit, big, values = found.implicit, found.big, found.values
    unpack_start, unpack_word = _BIG_STRUCTS if big else _LITTLE_STRUCTS
    shorts, longs, pixels, sequences = _SHORT, _LONG, 0x7FE0, source.sequences
    window, base = source.window, source.base
    reach, size = len(window), source.size
    stop = size if end < 0 else end
    while position + 8 <= stop:
        at = position - base
        if at + 12 > reach or at < 0:
            if base + reach < size or at < 0:
                source.move(position)
                window, base, reach, at = source.window, source.base, len(source.window), 0
            if at + 8 > reach:
                break
        group, element, vr, length = unpack_start(window, at)
        value_at = position + 8
        if implicit or vr not in shorts:
            if not implicit and vr in longs:
                if at + 12 > reach:
                    break
                length, value_at = unpack_word(window, at + 8)[0], position + 12
            else:
                length = unpack_word(window, at + 4)[0]
        tag = group << 16 | element
        if group == pixels and tag in PIXELS and depth == 0:
            found.pixels_tag, found.pixels_at, found.pixels_length = tag, value_at, length
            return value_at
        if tag == _ITEM_END and end < 0:
            return position + 8
        if length == UNDEFINED or tag in sequences:
            kept, position = _items(source, value_at, length, found, vr, wanted if tag in sequences else _NONE, depth)
            if tag in sequences:
                found.sequences[tag] = kept
            elif tag in wanted:
                values[tag] = source.bytes_at(value_at, position - value_at)
            window, base = source.window, source.base
            reach = len(window)
            continue
        position = value_at + length
        if position > stop:
            raise cut_off(source.name)
        if tag in wanted:
            start = value_at - base
            if start + length <= reach:
                values[tag] = window[start : start + length]
            else:
                values[tag] = source.bytes_at(value_at, length)
    if end < 0:
        raise cut_off(source.name)
    return position


def _items(
    source: Source, position: int, length: int, parent: Elements, vr: bytes, wanted: frozenset[int], depth: int
) -> tuple[list[Elements], int]:
    """Walk the items of a sequence; return them and the place after it."""
    # An element of unknown type and length is encoded as implicit inside, whatever is around it.
    implicit = parent.implicit or (vr == b"UN" and length == UNDEFINED)
    order = ">HHI" if parent.big else "<HHI"
    end = source.size if length == UNDEFINED else position + length
    if end > source.size:
        raise cut_off(source.name)
    kept: list[Elements] = []
    while position + 8 <= end:
        start = position - source.base
        if start < 0 or start + 8 > len(source.window):
            source.move(position)
            start = position - source.base
        try:
            group, element, size = struct.unpack_from(order, source.window, start)
        except struct.error:
            raise cut_off(source.name) from None
        tag = group << 16 | element
        position += 8
        if tag == _SEQUENCE_END:
            return kept, position
        if tag != _ITEM:
            raise cut_off(source.name)
        if size != UNDEFINED and position + size > end:
            raise cut_off(source.name)
        if not wanted and size != UNDEFINED:
            position += size
            continue
        one = Elements(implicit=implicit, big=parent.big)
        position = _walk(source, position, -1 if size == UNDEFINED else position + size, wanted, one, depth + 1)
        kept.append(one)
    if length == UNDEFINED:
        raise cut_off(source.name)
    return kept, end


def items(raw: bytes, implicit: bool, big: bool, wanted: frozenset[int]) -> list[Elements]:
    """Return the items of a raw sequence value, each walked for the wanted tags.

    Parameters
    ----------
    raw : bytes
        Value of the sequence element.
    implicit, big : bool
        How it is encoded.
    wanted : set of int
    """
    source = Source("a sequence", -1, raw)
    return _items(source, 0, len(raw), Elements(implicit=implicit, big=big), b"SQ", wanted, 0)[0]


def inside(elements: Elements, tag: int, wanted: frozenset[int]) -> list[Elements]:
    """Return the items of a sequence that a walk kept raw, in the character set of what they stand in."""
    raw = elements.values.get(tag)
    found = items(raw, elements.implicit, elements.big, wanted) if raw else []
    if charset := elements.values.get(CHARSET):
        for one in found:
            one.values.setdefault(CHARSET, charset)
    return found
