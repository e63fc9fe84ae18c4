"""Turns the colours of files into RGB from 0 to 1, and back: DICOM's CIELab, hexadecimal, bytes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

Rgb = tuple[float, float, float]
_WHITE = np.array((0.9642, 1.0, 0.8249))  # D50, which DICOM's CIELab is relative to (PS3.3 C.10.7.1.1)
# sRGB primaries adapted to D50 (Bradford).
_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_EDGE = 6 / 29


def rgb_of_lab(stored: Sequence[int]) -> Rgb:
    """Return RGB in [0, 1] of DICOM's Recommended Display CIELab Value, three 16-bit numbers."""
    lightness = stored[0] * 100 / 65535
    a, b = (value * 255 / 65535 - 128 for value in stored[1:3])
    y = (lightness + 16) / 116
    roots = np.array((y + a / 500, y, y - b / 200))
    xyz = _WHITE * np.where(roots > _EDGE, roots**3, 3 * _EDGE**2 * (roots - 4 / 29))
    linear = np.clip(np.linalg.solve(_TO_XYZ, xyz), 0, 1)
    red, green, blue = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return float(red), float(green), float(blue)


def lab_of_rgb(color: Sequence[float]) -> tuple[int, int, int]:
    """Return DICOM's CIELab value of RGB in [0, 1]; undoes `rgb_of_lab` to within its rounding."""
    rgb = np.clip(np.asarray(color, dtype=np.float64), 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = (_TO_XYZ @ linear) / _WHITE
    x, y, z = np.where(ratio > _EDGE**3, np.cbrt(ratio), ratio / (3 * _EDGE**2) + 4 / 29)
    lab = np.array((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    scaled = np.array((lab[0] * 65535 / 100, (lab[1] + 128) * 65535 / 255, (lab[2] + 128) * 65535 / 255))
    lightness, a, b = np.clip(np.round(scaled), 0, 65535).astype(int)
    return int(lightness), int(a), int(b)


def bytes_of(color: Sequence[float]) -> tuple[int, int, int]:
    """Return RGB in [0, 1] as three whole numbers from 0 to 255."""
    red, green, blue = (round(min(1.0, max(0.0, float(part))) * 255) for part in color)
    return red, green, blue


def hex_of(color: Sequence[float]) -> str:
    """Return RGB in [0, 1] as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*bytes_of(color))


def rgb_of_hex(text: str) -> Rgb | None:
    """Return RGB in [0, 1] of ``#rrggbb`` (or without ``#``), or None if it is none."""
    digits = text.strip().lstrip("#")
    if len(digits) not in (6, 8):
        return None
    try:
        red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    except ValueError:
        return None
    return red, green, blue


def some_color(value: int) -> Rgb:
    """Return a colour for a label without one: far apart for neighbouring values, the same every time."""
    return colorsys.hsv_to_rgb((value * 0.618033988749895) % 1.0, 0.72, 0.95)
