"""Damages the bytes of a file in the ways that disks, networks and attackers do; the same seed, the same damage."""

from __future__ import annotations

import gzip
import random
import re
import zlib

_WORDS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
)
_TEXTS = (
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e308",
    b"99999999999",
    b"2147483648",
    b"",
    b"../../etc/passwd",
    b"\\",
    b":",
    b"\0",
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
HEADER = 2048


def damaged(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a damaged copy of a file; what is gzipped is damaged inside and packed again, half of the time.

    Parameters
    ----------
    seed : bytes
    others : list of bytes
        Other files, whose pieces may be spliced in.
    rng : random.Random
    """
    if seed[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        inner = gzip.decompress(seed)
        return gzip.compress(damaged(inner, [], rng), 1)
    data = bytearray(seed)
    for _ in range(1 + int(rng.expovariate(0.6))):
        data = _once(data, others, rng)
    return bytes(data)


def _once(data: bytearray, others: list[bytes], rng: random.Random) -> bytearray:
    if not data:
        return data
    kind = rng.randrange(10)
    at = _place(data, rng)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.randrange(256)
    elif kind == 2:
        width = rng.choice((2, 4, 8))
        value = rng.choice(_WORDS) % (1 << 8 * width)
        data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at : at + rng.choice((1, 2, 4, 16, 200, 5000))]
    elif kind == 5:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16, 200)))
    elif kind == 6:
        piece = data[at : at + rng.choice((4, 16, 64, 512))]
        to = _place(data, rng)
        data[to:to] = piece
    elif kind == 7 and others:
        other = rng.choice(others)
        start = rng.randrange(max(1, len(other)))
        piece = other[start : start + rng.choice((16, 64, 512, 4096))]
        data[at : at + len(piece)] = piece
    else:
        _other_number(data, rng)
    return data


def _place(data: bytearray, rng: random.Random) -> int:
    """Return a place to damage: mostly in the header, where files lie about themselves."""
    reach = min(len(data), HEADER) if rng.random() < 0.75 else len(data)
    return rng.randrange(reach)


def _other_number(data: bytearray, rng: random.Random) -> None:
    """Put another number where a text header has one."""
    found = list(_NUMBER.finditer(bytes(data[: 2 * HEADER])))
    if found:
        match = rng.choice(found)
        data[match.start() : match.end()] = rng.choice(_TEXTS)


def packed(data: bytes, level: int = 1) -> bytes:
    """Return zlib-packed bytes, for seeds."""
    return zlib.compress(data, level)
