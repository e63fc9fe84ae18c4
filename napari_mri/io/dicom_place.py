"""Decides where the slices of one stack stand: an affine for equal steps, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri.io.dicom_header import Frame

_ONE_PLACE = 0.005  # mm: closer slices stand at one place
_SILENT = 0.01  # of the slice step: rounding in the header
_BEARABLE = 0.1  # of the slice step: told, but still one grid
_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Placed:
    """Where a stack stands.

    Parameters
    ----------
    affine : (4, 4) float64
        Array (column, row, slice) -> patient RAS+ mm.
    warnings : tuple of str
    problem : str
        Why the slices do not make one grid; empty where they do.
    """

    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()
    problem: str = ""


def normal_of(frame: Frame) -> NDArray[np.float64]:
    """Return the unit normal (3,) LPS of a slice: row direction × column direction."""
    assert frame.turn is not None
    normal = np.cross(frame.turn[:3], frame.turn[3:])
    length = float(np.linalg.norm(normal))
    return np.asarray(normal / length if length > 0 else (0.0, 0.0, 1.0), dtype=np.float64)


def levels(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Sort slices along their normal and gather those that stand at one place.

    Positions that differ by less than a tenth of the slice step, as some scanners write them from one
    repetition to the next, are one place where that makes all places alike.

    Parameters
    ----------
    frames : sequence of Frame
        Of one orientation, each with a position.

    Returns
    -------
    list of list of Frame
        One list a place, in the direction of the normal.
    """
    height = np.array([frame.position for frame in frames], dtype=np.float64) @ normal_of(frames[0])
    order = np.argsort(height, kind="stable")
    found = _gathered(frames, height, order, _ONE_PLACE)
    gaps = np.diff(height[order])
    wide = gaps[gaps > _ONE_PLACE]
    if not wide.size or (gaps.size == wide.size and wide.min() > _BEARABLE * wide.max()):
        return found
    if len({len(level) for level in found}) > 1 or gaps.size == wide.size:
        wider = _gathered(frames, height, order, _BEARABLE * float(np.quantile(wide, 0.95)))
        if len({len(level) for level in wider}) == 1 and len(wider) < len(frames):
            return wider
    return found


def _gathered(
    frames: Sequence[Frame], height: NDArray[np.float64], order: NDArray[np.intp], apart: float
) -> list[list[Frame]]:
    found: list[list[Frame]] = []
    start = -np.inf
    for index in order:
        if height[index] - start > apart:
            found.append([])
            start = height[index]
        found[-1].append(frames[index])
    return found


def unplaced(frames: Sequence[Frame]) -> Placed:
    """Return unit or pixel spacing for slices whose headers tell no position."""
    first = frames[0]
    down, across = first.pixel if first.pixel and min(first.pixel) > 0 else (1.0, 1.0)
    step = first.gap or first.thickness or 1.0
    known = "pixel spacing" if first.pixel else "unit spacing"
    told = (
        f"The DICOM headers tell no geometry: opened with {known}, in the order of the image numbers. "
        "Left and right are a guess.",
    )
    return Placed(_LPS @ np.diag((across, down, step, 1.0)), told)


def place(stack: Sequence[Frame]) -> Placed:
    """Return the affine of slices that are already in order.

    Parameters
    ----------
    stack : sequence of Frame
        One volume, ordered along the normal.
    """
    first = stack[0]
    assert first.turn is not None
    told: list[str] = []
    if first.pixel is None or min(first.pixel) <= 0:
        told.append("The DICOM headers tell no pixel spacing; 1 mm was taken.")
    down, across = first.pixel if first.pixel and min(first.pixel) > 0 else (1.0, 1.0)
    row, column = (
        np.asarray(part) / max(float(np.linalg.norm(part)), 1e-9) for part in (first.turn[:3], first.turn[3:])
    )
    points = np.array([frame.position for frame in stack], dtype=np.float64)
    normal = normal_of(first)
    problem = ""
    if len(stack) == 1:
        gap = first.gap or first.thickness
        told.append("There is a single slice, so there is no depth: models that need a volume will not fit it.")
        step = normal * (gap or 1.0)
    else:
        step = (points[-1] - points[0]) / (len(stack) - 1)
        problem = _unequal(points, normal, step, told)
        if len(stack) < 4:
            told.append(f"There are only {len(stack)} slices; some may not have been copied.")
        _tilted(step, normal, len(stack), told)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * across, column * down, step, points[0]
    return Placed(_LPS @ affine, tuple(told), problem)


def _unequal(
    points: NDArray[np.float64], normal: NDArray[np.float64], step: NDArray[np.float64], told: list[str]
) -> str:
    """Return what is wrong with the steps between slices; small differences are only told."""
    along = np.diff(points @ normal)
    usual = float(np.median(along))
    fit = points[0] + np.arange(len(points))[:, None] * step
    off = float(np.linalg.norm(points - fit, axis=1).max())
    if off <= max(0.01, _SILENT * usual):
        return ""
    if off <= _BEARABLE * usual:
        told.append(f"The slices are up to {off:.2f} mm away from equal spacing; they were taken as equal.")
        return ""
    times = along / usual
    wide = np.flatnonzero(times > 1.5)
    if wide.size and np.abs(times - np.round(times)).max() < _BEARABLE:
        lost = int(np.round(times[wide]).sum() - wide.size)
        where = ", ".join(f"{n + 1} and {n + 2}" for n in wide[:5])
        many = f"{lost} slices are" if lost > 1 else "A slice is"
        return f"{many} missing: between slices {where} the gap is {along[wide[0]]:.2f} mm, elsewhere {usual:.2f} mm."
    if np.abs(times - 1).max() < _BEARABLE:
        return f"The slices do not stand on one line: they are up to {off:.1f} mm off to the side."
    return f"The slices are spaced unequally, {along.min():.2f} to {along.max():.2f} mm."


def _tilted(step: NDArray[np.float64], normal: NDArray[np.float64], count: int, told: list[str]) -> None:
    aside = step - normal * float(step @ normal)
    drift = float(np.linalg.norm(aside))
    if drift * (count - 1) > 0.5 and drift > 0.005 * float(np.linalg.norm(step)):
        angle = np.degrees(np.arctan2(drift, abs(float(step @ normal))))
        told.append(f"The slices are tilted by {angle:.1f}° (gantry tilt): the grid is sheared, positions are exact.")


def runs(stack: Sequence[Frame]) -> list[list[Frame]]:
    """Cut ordered slices where the step changes, into parts of equal step."""
    heights = np.array([frame.position for frame in stack], dtype=np.float64) @ normal_of(stack[0])
    along = np.diff(heights)
    usual = float(np.median(along))
    parts: list[list[Frame]] = [[stack[0]]]
    for frame, gap in zip(stack[1:], along, strict=True):
        if abs(gap / usual - 1) > _BEARABLE:
            parts.append([])
        parts[-1].append(frame)
    return [part for part in parts if len(part) > 1 and not place(part).problem]
