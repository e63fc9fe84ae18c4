"""Understands the frames of a DICOM segmentation: which segment each shows, and on which plane it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GeometryProblem, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.io.blocks import check_promise
from napari_mri.io.dicom_bytes import CHARSET, Elements, inside, walk_file
from napari_mri.io.dicom_header import binary, numbers, short, text, whole, words
from napari_mri.io.lps import turned_affine

BINARY_SEG, LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTS, SHARED, PER_FRAME = 0x00620002, 0x52009229, 0x52009230
_MEASURES, _ORIENTATION, _POSITION, _SEGMENT = 0x00289110, 0x00209116, 0x00209113, 0x0062000A
_GROUPS = frozenset((_MEASURES, _ORIENTATION, _POSITION, _SEGMENT))
_TOP = frozenset(
    (
        CHARSET, 0x00080016, 0x0008103E, 0x00200011, 0x0020000E, 0x00280002, 0x00280008, 0x00280010, 0x00280011,
        0x00280100, 0x00280120, 0x00620001, SEGMENTS, 0x0062000E, 0x00700080, SHARED, PER_FRAME,
    )
)  # fmt: skip
_INNER = frozenset((0x00180050, 0x00180088, 0x00280030, 0x00200037, 0x00200032, 0x0062000B))
_NAMED = frozenset((0x00620004, 0x00620005, 0x00620006, 0x0062000D, 0x0062000F, 0x00080104))
_AGAIN = "Export it again."
_MOST_SLICES = 20_000


@dataclass(frozen=True)
class Segment:
    """One segment, as its header tells: number, label, description and CIELab colour."""

    number: int
    name: str
    description: str = ""
    lab: tuple[int, ...] = ()


@dataclass(frozen=True)
class Seg:
    """A segmentation, understood but for its pixels.

    Parameters
    ----------
    path : Path
    elements : Elements
    rows, columns, n_frames, bits : int
    kind : str
        ``"BINARY"``, ``"FRACTIONAL"`` or ``"LABELMAP"``.
    most : int
        Stored value that means a fraction of 1.
    segments : tuple of Segment
    shown : ndarray of int, (n_frames,)
        Segment number of each frame; 0 in a label map.
    planes : ndarray of int, (n_frames,)
        Index of each frame along the third axis.
    grid : Grid
        Columns, rows, planes.
    warnings : list of str
    """

    path: Path
    elements: Elements
    rows: int
    columns: int
    n_frames: int
    bits: int
    kind: str
    most: int
    segments: tuple[Segment, ...]
    shown: NDArray[np.intp]
    planes: NDArray[np.intp]
    grid: Grid
    warnings: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Series number and description."""
        head = self.elements
        number = text(head, 0x00200011)
        label = words(head, 0x0008103E) or text(head, 0x00700080) or "segmentation"
        return f"{number} {label}".strip()


def understood(path: Path) -> Seg:
    """Read the header of a DICOM segmentation.

    Raises
    ------
    BrokenFile, GeometryProblem, UnsupportedImage
    """
    head = walk_file(path, _TOP)
    if head is None or not head.pixels_tag:
        raise BrokenFile(f"{path.name} is a DICOM segmentation without pixels.", hint=_AGAIN)
    rows, columns = short(head, 0x00280010, 0), short(head, 0x00280011, 0)
    n_frames, bits = whole(head, 0x00280008, 1), short(head, 0x00280100, 1)
    label_map = text(head, 0x00080016) == LABELMAP_SEG
    kind = "LABELMAP" if label_map else text(head, 0x00620001).upper() or "BINARY"
    if rows < 1 or columns < 1 or n_frames < 1 or bits not in (1, 8, 16):
        raise BrokenFile(
            f"{path.name} is damaged: {n_frames} frames of {columns}×{rows} with {bits} bits.", hint=_AGAIN
        )
    if short(head, 0x00280002, 1) != 1:
        raise UnsupportedImage(f"{path.name} holds colours (RGB), not segments.")
    segments = tuple(_segment(one) for one in inside(head, SEGMENTS, _NAMED))
    shared = inside(head, SHARED, _GROUPS)
    groups = inside(head, PER_FRAME, _GROUPS)
    if len(groups) != n_frames:
        raise BrokenFile(
            f"{path.name} is damaged: it has {n_frames} frames but tells of {len(groups)}.", hint=_AGAIN
        )
    common = shared[0] if shared else Elements()
    shown = np.zeros(n_frames, np.intp)
    if kind != "LABELMAP":
        for n, group in enumerate(groups):
            one = _first(group, common, _SEGMENT)
            number = short(one, 0x0062000B, 0) if one is not None else 0
            shown[n] = number or (segments[0].number if len(segments) == 1 else 0)
        if shown.min() < 1:
            raise BrokenFile(
                f"{path.name} is damaged: a frame does not tell which segment it shows.", hint=_AGAIN
            )
    told: list[str] = []
    grid, planes = _stack(groups, common, (columns, rows), told, path.name)
    check_promise(path.name, int(np.prod(grid.shape, dtype=object)), n_frames * rows * columns * 200 + 2**28)
    most = max(1, short(head, 0x0062000E, 255))
    return Seg(path, head, rows, columns, n_frames, bits, kind, most, segments, shown, planes, grid, told)


def _first(group: Elements, common: Elements, tag: int) -> Elements | None:
    """Return the one item of a functional group, of the frame or shared by all."""
    for place in (group, common):
        found = inside(place, tag, _INNER)
        if found:
            return found[0]
    return None


def _segment(one: Elements) -> Segment:
    number = short(one, 0x00620004, 0)
    kinds = inside(one, 0x0062000F, _NAMED)
    name = words(one, 0x00620005) or (words(kinds[0], 0x00080104) if kinds else "") or f"Segment {number}"
    lab = tuple(int(v) for v in binary(one, 0x0062000D, "H")[:3])
    return Segment(number, name, words(one, 0x00620006), lab)


def _stack(
    groups: list[Elements], common: Elements, sides: tuple[int, int], told: list[str], name: str
) -> tuple[Grid, NDArray[np.intp]]:
    """Return the grid that holds all frames, and the plane of each."""
    turn = _same_turn(groups, common, name)
    measures = _first(groups[0], common, _MEASURES)
    pixel = numbers(measures, 0x00280030) if measures is not None else ()
    if len(pixel) != 2 or min(pixel) <= 0 or not np.isfinite(pixel).all():
        raise GeometryProblem(f"{name} does not tell the spacing of its pixels.", hint=_AGAIN)
    places = [_first(group, common, _POSITION) for group in groups]
    points = np.array([p if len(p) == 3 else (np.nan,) * 3 for p in
                       (numbers(one, 0x00200032) if one is not None else () for one in places)])  # fmt: skip
    if not np.isfinite(points).all():
        raise GeometryProblem(f"{name} does not tell where its frames stand.", hint=_AGAIN)
    row, column = turn[:3], turn[3:]
    normal = np.cross(row, column)
    heights = points @ normal
    gap, thick = (numbers(measures, tag) if measures is not None else () for tag in (0x00180088, 0x00180050))
    step = _step(heights, (*gap, *thick), told, name)
    lowest = int(np.argmin(heights))
    planes = np.round((heights - heights[lowest]) / step).astype(np.intp)
    aside = points - points[lowest]
    aside = aside - np.outer(aside @ normal, normal)
    if np.abs(aside).max() > max(0.01, 0.05 * min(pixel)):
        raise GeometryProblem(
            f"The frames of {name} do not stand one behind the other (they are shifted sideways).",
            hint="Export the segmentation on the grid of its scan.",
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * pixel[1], column * pixel[0], normal * step
    affine[:3, 3] = points[lowest]
    return Grid((*sides, int(planes.max()) + 1), turned_affine(affine)), planes


def _same_turn(groups: list[Elements], common: Elements, name: str) -> NDArray[np.float64]:
    own = [inside(group, _ORIENTATION, _INNER) for group in groups]
    turns = [numbers(one[0], 0x00200037) for one in own if one]
    if not turns:
        shared = inside(common, _ORIENTATION, _INNER)
        turns = [numbers(shared[0], 0x00200037)] if shared else [()]
    if any(len(turn) != 6 for turn in turns) or not np.isfinite(turns).all():
        raise GeometryProblem(f"{name} does not tell the orientation of its frames.", hint=_AGAIN)
    table = np.asarray(turns, dtype=np.float64)
    if np.abs(table - table[0]).max() > 1e-3:
        raise GeometryProblem(
            f"{name} holds frames of several orientations, which make no one volume.",
            hint="Export them one by one.",
        )
    row, column = table[0, :3], table[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5 or abs(float(row @ column)) > 1e-2:
        raise GeometryProblem(f"{name} tells an orientation that makes no sense.", hint=_AGAIN)
    return np.concatenate((row / lengths[0], column / lengths[1]))


def _step(heights: NDArray[np.float64], told_steps: tuple[float, ...], told: list[str], name: str) -> float:
    """Return the distance between planes: what the header tells where frames fit it, else their own."""
    levels = np.unique(np.round(heights - heights.min(), 3))
    known = [step for step in told_steps if np.isfinite(step) and step > 0]
    gaps = np.diff(levels)
    gaps = gaps[gaps > 5e-3]
    candidates = [*known, *([float(gaps.min())] if gaps.size else [])]
    if not gaps.size:
        if not known:
            told.append("There is one plane and its thickness is not told; 1 mm was taken.")
        return known[0] if known else 1.0
    span = float(levels[-1])
    for step in candidates:
        if span / step > _MOST_SLICES:
            continue
        planes = levels / step
        # A step that the header rounds adds up over the planes: what counts is the whole number of them.
        better = span / max(1.0, round(span / step))
        if np.abs(planes - np.round(planes)).max() <= 0.1 and abs(better - step) < 0.02 * step:
            return better
    raise GeometryProblem(
        f"The planes of {name} are spaced unequally ({gaps.min():.3g} to {gaps.max():.3g} mm).",
        hint="Export the segmentation on a grid of equal steps.",
    )
