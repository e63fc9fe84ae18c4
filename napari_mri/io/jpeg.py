"""Whether the head of a lossless JPEG stream holds together, before a decoder that trusts it sees it."""

from __future__ import annotations

SCAN, TABLES, LOSSLESS = 0xDA, 0xC4, 0xC3
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def segments(stream: bytes) -> list[tuple[int, bytes]]:
    """Return mark and content of a JPEG stream's segments up to the first scan, or up to the damage.

    Parameters
    ----------
    stream : bytes
    """
    found: list[tuple[int, bytes]] = []
    if stream[:2] != b"\xff\xd8":
        return found
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == 0xFF:  # a mark may be preceded by any number of these
            at += 1
            continue
        size = int.from_bytes(stream[at + 2 : at + 4], "big")
        if size < 2 or at + 2 + size > len(stream):
            break
        found.append((stream[at + 1], stream[at + 4 : at + 2 + size]))
        if found[-1][0] == SCAN:
            break
        at += 2 + size
    return found


def sound(stream: bytes, rows: int, columns: int, allocated: int) -> bool:
    """Return whether a stream is lossless JPEG of this size whose head agrees with itself (ISO/IEC 10918-1, annexes B, H).

    Parameters
    ----------
    stream : bytes
    rows, columns : int
        Size in the header of the file.
    allocated : int
        Bits of a stored value there.
    """
    parts = segments(stream)
    frames = [(mark, body) for mark, body in parts if mark in FRAMES]
    if not parts or parts[-1][0] != SCAN or len(frames) != 1 or frames[0][0] != LOSSLESS:
        return False
    frame, scan = frames[0][1], parts[-1][1]
    if len(frame) < 9 or len(frame) != 6 + 3 * frame[5]:
        return False
    precision, count = frame[0], frame[5]
    size = (int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"))
    parts_of = {frame[n]: frame[n + 1] for n in range(6, len(frame), 3)}
    if not 2 <= precision <= min(allocated, 16) or size != (rows, columns) or len(parts_of) != count:
        return False
    if count not in (1, 3) or any(shape != 0x11 for shape in parts_of.values()):
        return False
    known: set[int] = set()
    for mark, body in parts:
        if mark == TABLES:
            these = _tables(body)
            if these is None:
                return False
            known |= these
    if len(scan) < 6 or len(scan) != 4 + 2 * scan[0] or scan[0] > count:
        return False
    named = [(scan[n], scan[n + 1] >> 4) for n in range(1, 1 + 2 * scan[0], 2)]
    first, _, shift = scan[-3:]
    return all(c in parts_of and t in known for c, t in named) and 1 <= first <= 7 and (shift & 15) < precision


def _tables(body: bytes) -> set[int] | None:
    """Return the numbers of the Huffman tables of one segment; None if one of them cannot be."""
    found: set[int] = set()
    at = 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        values = body[at + 17 : at + 17 + sum(counts)]
        codes = sum(number << (16 - length) for length, number in enumerate(counts, 1))
        if body[at] > 3 or len(counts) < 16 or len(values) < sum(counts) or codes > 1 << 16 or any(v > 16 for v in values):
            return None
        found.add(body[at])
        at += 17 + sum(counts)
    return found
