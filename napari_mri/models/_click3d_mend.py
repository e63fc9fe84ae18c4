"""Corrections of an answer to clicks: what marks turn by rule, and the window in which a network betters the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.models._click3d_rounds import Answer, as_array, extent
from napari_mri.models._click3d_zoom import overlap
from napari_mri.models._marks import Places, Pointed

Array = NDArray[np.float32]

REACH, LEAST_MM, MOST_MM, WINDOW_MM = 2.0, 2.0, 12.0, 24.0
"""A correction of such an answer reaches about so many times as far as it is from the outline; at least, at most, and only within."""
ALIKE = 0.15
"""What differs from the place of a correction by more than this share of the scan's range is hardly corrected with it."""
MARGIN = 1.0
"""Log odds at the place of a correction, at least."""
WINDOW, WIDE, SEEN = 48, 64, 6
"""Side of the part of a crop in which a network betters an answer, voxels, or of a wider one where all of the object lies in
that; and how many of them it must see around it."""


@dataclass(frozen=True, eq=False)
class Window:
    """Where an answer is bettered: a cube of `side` voxels from voxel `start` (3,) on, and whether all of the object lies in it.

    It may begin before the crop of the answer and end behind it.
    """

    start: NDArray[np.intp]
    side: int
    whole: bool

    def of(self, answer: Answer) -> Answer:
        """Return the answer in the window, 0 where that reaches beyond it."""
        return padded(answer, self.start, self.start + self.side)


def window_of(answer: Answer, told: Pointed) -> Window | None:
    """Return the window that holds all of an object, or what is around the newest marks `told` where that is too large.

    None if the object is too large and there is no mark.
    """
    span = extent(answer.found > 0.5)
    spots = answer.look.to_voxels(np.concatenate([told.inside, told.outside]))
    ends = [*(span or ()), *([spots.min(axis=0), spots.max(axis=0)] if len(spots) else [])]
    if not ends:
        return None
    low, high = np.min(ends, axis=0), np.max(ends, axis=0) + 1
    most = float((high - low).max()) + 2 * SEEN
    if most <= WIDE:
        side = WINDOW if most <= WINDOW else WIDE
        return Window(np.rint((low + high - side) / 2).astype(np.intp), side, True)
    if not len(spots):
        return None
    beside = np.clip(spots.mean(axis=0) - WINDOW / 2, low - SEEN, np.maximum(high + SEEN - WINDOW, low - SEEN))
    small = high - low <= WINDOW - 2 * SEEN
    return Window(np.rint(np.where(small, (low + high - WINDOW) / 2, beside)).astype(np.intp), WINDOW, False)


def deep_in(answer: Answer, places: Places) -> float:
    """Return how far inside an answer the innermost of places (P, 3) patient mm lies, mm, up to `WINDOW_MM`; 0 if none does."""
    from scipy.ndimage import distance_transform_edt

    spacing = np.asarray(answer.look.spacing)
    room = np.ceil(WINDOW_MM / spacing).astype(int)
    most = 0.0
    for spot in np.rint(answer.look.to_voxels(places)).astype(int):
        around = as_array(padded(answer, spot - room, spot + room + 1).found) > 0.5
        if around[tuple(room)]:
            most = max(most, float(distance_transform_edt(around, spacing)[tuple(room)]) if not around.all() else WINDOW_MM)
    return most


def padded(answer: Answer, start: NDArray[np.intp], stop: NDArray[np.intp]) -> Answer:
    """Return an answer on its crop from voxel `start` (3,) up to but not including `stop`, 0 where that reaches beyond it."""
    part, lacking = overlap(answer.look.shape, start, stop)
    held, look = answer.found[part], answer.look.cropped(start, stop)
    if not np.any(lacking):
        return Answer(held, look)
    if isinstance(held, np.ndarray):
        return Answer(np.pad(held, lacking), look)
    import torch

    wide = [n for sides in reversed(lacking) for n in sides]
    return Answer(torch.nn.functional.pad(held, wide), look)


def bettered(answer: Answer, better: Any, window: Window) -> Answer:
    """Lay a better answer (I, J, K) in a window over another; towards the window's border less of it.

    The crop grows where the window reaches beyond it.
    """
    low = np.minimum(window.start, 0)
    high = np.maximum(window.start + window.side, answer.look.shape)
    grown = padded(answer, low, high)
    found = grown.found.copy() if isinstance(grown.found, np.ndarray) else grown.found.clone()
    part = tuple(slice(int(a), int(a) + window.side) for a in window.start - low)
    steps = np.arange(window.side)
    ramp = np.minimum(1, (np.minimum(steps, steps[::-1]) + 0.5) / SEEN).astype(np.float32)
    weight: Any = np.minimum(np.minimum(ramp[:, None, None], ramp[:, None]), ramp)
    if not isinstance(found, np.ndarray):
        import torch

        weight = torch.from_numpy(weight).to(found.device)
    found[part] += weight * (better - found[part])
    return Answer(found, grown.look)


def reached(at: NDArray[np.intp], spacing: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """Return the first voxel (3,) that a mark at a voxel may turn, and the one behind the last."""
    room = np.ceil(WINDOW_MM / spacing).astype(int)
    return np.maximum(at - room, 0), np.minimum(at + room + 1, shape)


def leant(odds: Any, image: Any, spot: NDArray[np.float64], spacing: NDArray[np.float64], sign: float) -> Any:
    """Return log odds (I, J, K) that say what a mark at a voxel says, there and near it where it is as bright.

    How far it reaches follows from how far it lies from the outline: whoever clicks in the middle of what is wrong
    is as far from the outline as from the true one.
    """
    at = np.clip(np.rint(spot).astype(int), 0, np.asarray(odds.shape) - 1)
    low, high = reached(at, spacing, odds.shape)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(int(h) for h in at - low)
    near = tuple(slice(max(0, h - 1), h + 2) for h in here)
    odds = odds.copy() if isinstance(odds, np.ndarray) else odds.clone()
    away = [((np.arange(b - a) - h) * s) ** 2 for a, b, h, s in zip(low, high, here, spacing, strict=True)]
    lean = _lean if isinstance(odds, np.ndarray) else _lean_on
    odds[part] += lean(sign * odds[part], image[part], (here, near), away) * sign
    return odds


def _lean(right: Array, image: Array, at: tuple[Any, Any], axes: list[NDArray[np.float64]]) -> Array:
    """Return by how much a window (I, J, K) is leant, given how right it is already and the square distances along axes."""
    here, near = at
    away = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    held = right >= 0
    depth = float(np.sqrt(away[held].min())) if held.any() else WINDOW_MM
    width = min(max(LEAST_MM, REACH * depth), MOST_MM)
    like = np.exp(-0.5 * away / width**2 - 0.5 * ((image - float(image[near].mean())) / ALIKE) ** 2)
    return np.asarray((max(0.0, -float(right[here])) + MARGIN) * like, dtype=np.float32)


def _lean_on(right: Any, image: Any, at: tuple[Any, Any], axes: list[NDArray[np.float64]]) -> Any:
    """As `_lean`, of tensors."""
    import torch

    here, near = at
    first, second, third = (torch.from_numpy(axis.astype(np.float32)).to(image.device) for axis in axes)
    away = first[:, None, None] + second[:, None] + third
    depth = torch.where(right >= 0, away, WINDOW_MM**2).min().sqrt()
    width = (REACH * depth).clamp(LEAST_MM, MOST_MM)
    like = (-0.5 * away / width**2 - 0.5 * ((image - image[near].mean()) / ALIKE) ** 2).exp()
    return ((-right[here]).clamp(min=0) + MARGIN) * like
