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

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
PLAIN = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG))
PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL")
) | frozenset((b"SS", b"ST", b"TM", b"UI", b"UL", b"US"))
_WINDOW = 16384
_DEEPEST = 32
_MOST_VALUE = 512_000_000
_MOST_INFLATED = 4_000_000_000
_MOST_RATIO = 1040


class Source:
    """Bytes at any place of a file (or of an inflated copy of it), fetched window by window."""

    def __init__(self, path: Path | str, handle: int, whole: bytes | None = None) -> None:
        self.name = os.path.basename(path)
        self.handle = handle
        self.size = len(whole) if whole is not None else os.fstat(handle).st_size
        self.whole = whole
        self.base = 0
        self.window = whole if whole is not None else os.pread(handle, _WINDOW, 0)

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
        Raw value of each wanted tag (group << 16 | element); of a sequence, its items.
    implicit, big : bool
        How the values are encoded.
    syntax : str
        Transfer syntax UID.
    pixels_tag, pixels_at, pixels_length : int
        Where the pixel data are; tag 0 where there are none, length `UNDEFINED` where they are
        compressed in fragments.
    whole : bytes or None
        The inflated content of a deflated file, which `pixels_at` then counts in.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    implicit: bool = False
    big: bool = False
    syntax: str = EXPLICIT
    pixels_tag: int = 0
    pixels_at: int = 0
    pixels_length: int = 0
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


def walk_file(path: Path | str, wanted: frozenset[int]) -> Elements | None:
    """Walk the top level of a file up to its pixels.

    Parameters
    ----------
    path : Path
    wanted : set of int
        Tags whose values are kept.

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
        source = Source(path, handle)
        if not looks_like_dicom(source.window):
            return None
        start = 132 if source.window[128:132] == b"DICM" else 0
        found = Elements()
        start = _meta(source, start, found)
        if found.syntax == DEFLATED:
            found.whole = _inflated(source, start)
            source, start = Source(path, handle, found.whole), 0
        _walk(source, start, source.size, wanted, found)
        return found
    finally:
        os.close(handle)


def _meta(source: Source, start: int, found: Elements) -> int:
    """Read the transfer syntax; return where the data set begins."""
    window, at = source.window, start
    syntax = ""
    while at + 12 <= len(window) and window[at : at + 2] == b"\x02\x00":
        vr = window[at + 4 : at + 6]
        if vr in _LONG:
            length, head = struct.unpack_from("<I", window, at + 8)[0], 12
        elif vr in _SHORT:
            length, head = struct.unpack_from("<H", window, at + 6)[0], 8
        else:
            length, head = struct.unpack_from("<I", window, at + 4)[0], 8
        if window[at + 2 : at + 4] == b"\x10\x00":
            syntax = window[at + head : at + head + length].decode("latin-1").rstrip("\0 ")
        at += head + length
        if at + 12 > source.base + len(window):
            raise cut_off(source.name)
    if not syntax:
        syntax = EXPLICIT if window[at + 4 : at + 6] in _SHORT | _LONG else IMPLICIT
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


def _walk(source: Source, position: int, end: int, wanted: frozenset[int], found: Elements) -> None:
    implicit, big = found.implicit, found.big
    unpack_start = struct.Struct(">HH2sH" if big else "<HH2sH").unpack_from
    unpack_word = struct.Struct(">I" if big else "<I").unpack_from
    window, base, reach = source.window, source.base, len(source.window)
    while position + 8 <= end:
        at = position - base
        if at + 12 > reach:
            if base + reach < source.size:
                source.move(position)
                window, base, reach, at = source.window, source.base, len(source.window), 0
            if at + 8 > reach:
                break
        group, element, vr, length = unpack_start(window, at)
        tag = group << 16 | element
        head = 8
        if implicit or vr not in _SHORT:
            if not implicit and vr in _LONG:
                if at + 12 > reach:
                    break
                length, head = unpack_word(window, at + 8)[0], 12
            else:
                length = unpack_word(window, at + 4)[0]
        value_at = position + head
        if tag in PIXELS:
            found.pixels_tag, found.pixels_at, found.pixels_length = tag, value_at, length
            return
        if length == UNDEFINED:
            position = _past_items(source, value_at, implicit or vr == b"UN", big, 0)
            window, base, reach = source.window, source.base, len(source.window)
        else:
            position = value_at + length
        if position > end:
            raise cut_off(source.name)
        if tag in wanted:
            found.values[tag] = source.bytes_at(value_at, position - value_at)


def _past_items(source: Source, position: int, implicit: bool, big: bool, depth: int) -> int:
    """Return the place after a sequence of undefined length."""
    if depth > _DEEPEST:
        raise cut_off(source.name)
    order = ">" if big else "<"
    while True:
        group, element, length = struct.unpack(order + "HHI", _near(source, position, 8))
        tag = group << 16 | element
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise cut_off(source.name)
        if length != UNDEFINED:
            position += length
            if position > source.size:
                raise cut_off(source.name)
            continue
        position = _past_elements(source, position, implicit, big, depth)


def _past_elements(source: Source, position: int, implicit: bool, big: bool, depth: int) -> int:
    """Return the place after an item of undefined length."""
    order = ">" if big else "<"
    while True:
        raw = _near(source, position, 8)
        group, element = struct.unpack_from(order + "HH", raw)
        if group << 16 | element == _ITEM_END:
            return position + 8
        vr = raw[4:6]
        if implicit or (vr not in _SHORT and vr not in _LONG):
            length, head = struct.unpack_from(order + "I", raw, 4)[0], 8
        elif vr in _LONG:
            length, head = struct.unpack(order + "I", _near(source, position + 8, 4))[0], 12
        else:
            length, head = struct.unpack_from(order + "H", raw, 6)[0], 8
        position += head
        if length == UNDEFINED:
            position = _past_items(source, position, implicit or vr == b"UN", big, depth + 1)
        else:
            position += length
        if position > source.size:
            raise cut_off(source.name)


def _near(source: Source, position: int, n_bytes: int) -> bytes:
    start = position - source.base
    if not (start >= 0 and start + n_bytes <= len(source.window)) and source.whole is None:
        source.move(position)
    return source.bytes_at(position, n_bytes)


def items(raw: bytes, implicit: bool, big: bool, wanted: frozenset[int]) -> list[Elements]:
    """Return the items of a sequence value, each walked for the wanted tags.

    Parameters
    ----------
    raw : bytes
        Value of the sequence element.
    implicit, big : bool
        How it is encoded.
    wanted : set of int
    """
    source = Source("a sequence", -1, raw)
    order = ">" if big else "<"
    position, found = 0, []
    while position + 8 <= len(raw):
        group, element, length = struct.unpack_from(order + "HHI", raw, position)
        position += 8
        if group << 16 | element != _ITEM:
            break
        if length == UNDEFINED:
            end = _past_elements(source, position, implicit, big, 1)
            stop = end - 8
        else:
            stop = end = position + length
            if end > len(raw):
                raise cut_off("A sequence")
        one = Elements(implicit=implicit, big=big)
        _walk(source, position, stop, wanted, one)
        found.append(one)
        position = end
    return found
