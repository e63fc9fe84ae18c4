"""Slices as PNG pictures, with the labels' outlines on them; needs nothing but zlib."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume

COLORS = (
    (230, 70, 60), (60, 160, 240), (90, 200, 90), (240, 190, 50), (190, 110, 230), (60, 210, 210), (245, 130, 50), (240, 120, 180),
)  # fmt: skip
"""Colours of labels that have none of their own, by value, over and over."""
PLANES = {
    "axial": (2, ("A", "P"), ("R", "L")),
    "coronal": (1, ("S", "I"), ("R", "L")),
    "sagittal": (0, ("S", "I"), ("A", "P")),
}
"""Each plane: the patient axis it is stacked along, and the letters top, bottom and left, right of the picture."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as the bytes of a PNG file."""
    high, wide, _ = pixels.shape
    lines = np.zeros((high, 1 + 3 * wide), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(high, 3 * wide)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def three_planes(
    labels: Labels, scan: Volume | None = None, *, width: int = 320, at: tuple[float, float, float] | None = None
) -> dict[str, NDArray[np.uint8]]:
    """Draw the axial, coronal and sagittal slice through one point, radiological: the patient's right is left.

    An oblique grid is drawn along its own nearest axes.

    Parameters
    ----------
    labels : Labels
        The first frame; outlines in the labels' colours.
    scan : Volume, optional
        Grey values on the same grid, shown from the 1st to the 99.5th percentile; black without.
    width : int
        Longest side of each picture, pixels; voxels are shown in their true proportions.
    at : (3,) patient mm, optional
        The middle of the labels if not given, or of the box if there are none.

    Returns
    -------
    dict of str to ndarray of uint8, (H, W, 3)
        By the names of `PLANES`.
    """
    turned = labels.frame(0).turned("RAS")
    data, grid = np.asarray(turned.data), turned.grid
    grey: NDArray[np.uint8] = np.zeros(data.shape, np.uint8)
    if scan is not None:
        grey = _grey(np.asarray(scan.frame(0).turned("RAS").data))
    place = _place(data, grid, at)
    pictures = {}
    for name, (axis, _, _) in PLANES.items():
        sheet, marks = np.take(grey, place[axis], axis), np.take(data, place[axis], axis)
        step = [s for n, s in enumerate(grid.spacing) if n != axis]
        # (first, second) axis run to the right and up of the patient; pictures run down and right.
        sheet, marks = sheet.T[::-1, ::-1], marks.T[::-1, ::-1]
        pictures[name] = _drawn(sheet, marks, (step[1], step[0]), width, labels.colors)
    return pictures


def color_of(label: int, colors: Mapping[int, tuple[float, float, float]]) -> tuple[int, int, int]:
    """Return a label's colour as three bytes."""
    if label in colors:
        r, g, b = (round(255 * min(max(part, 0.0), 1.0)) for part in colors[label])
        return r, g, b
    return COLORS[(label - 1) % len(COLORS)]


def _place(data: NDArray[Any], grid: Grid, at: tuple[float, float, float] | None) -> list[int]:
    if at is not None:
        voxel = grid.to_voxels(at)
    elif data.any():
        voxel = np.array([place.mean() for place in np.nonzero(data)])
    else:
        voxel = (np.asarray(data.shape) - 1) / 2
    return [int(np.clip(round(float(v)), 0, n - 1)) for v, n in zip(voxel, data.shape, strict=True)]


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    real = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(v) for v in np.percentile(real, (1, 99.5)))
    return np.asarray(np.clip((real - low) / max(high - low, 1e-12), 0, 1) * 255, dtype=np.uint8)


def _drawn(
    sheet: NDArray[np.uint8], marks: NDArray[Any], step: tuple[float, float], width: int,
    colors: Mapping[int, tuple[float, float, float]],
) -> NDArray[np.uint8]:  # fmt: skip
    scale = width / max(n * s for n, s in zip(sheet.shape, step, strict=True))
    size = [max(1, round(n * s * scale)) for n, s in zip(sheet.shape, step, strict=True)]
    rows, columns = (np.minimum(np.arange(m) * n // m, n - 1) for m, n in zip(size, sheet.shape, strict=True))
    picture = np.repeat(sheet[np.ix_(rows, columns)][..., None], 3, axis=2)
    fine = marks[np.ix_(rows, columns)]
    # A pixel of a label next to a pixel of anything else is outline.
    rim = np.zeros(fine.shape, dtype=bool)
    rim[1:] |= fine[1:] != fine[:-1]
    rim[:-1] |= fine[1:] != fine[:-1]
    rim[:, 1:] |= fine[:, 1:] != fine[:, :-1]
    rim[:, :-1] |= fine[:, 1:] != fine[:, :-1]
    for value in np.unique(fine[rim & (fine != 0)]):
        picture[rim & (fine == value)] = color_of(int(value), colors)
    return picture
