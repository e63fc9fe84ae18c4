"""Where to look next: the rounds of a session of clicks, without the network.

`Rounds.play` asks for an answer on one crop after the other and says when the object is seen well enough. The
session of the product and the training play by these same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.engine.pieces import pieces
from napari_mri.models._click3d_zoom import Pyramid, carried, crop_grid
from napari_mri.models._marks import Pointed, voxel_box

Array = NDArray[np.float32]

OVERVIEW = 48
"""Longest side, voxels, of the look at the whole field of view."""
TONE_STEPS = 48
"""Bins of brightness by which an object in a box is told from what is around it."""
SUREST = 0.7
"""How likely a voxel in the middle of a box is taken to be the object's before its brightness is looked at."""
ROOM_MM = 8.0
"""What a crop shows around an object whose place is known."""
FINEST = 0.5
"""Crops are never finer than this share of the scan's own smallest spacing."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Probabilities (I, J, K) 0 to 1, as an array or a tensor, and the crop they lie on."""

    found: Any
    look: Grid

    def holds(self, place: NDArray[np.float64]) -> bool:
        """Whether a place (3,) patient mm belongs to the object."""
        spot = np.rint(self.look.to_voxels(place)).astype(int)
        inside = bool(((spot >= 0) & (spot < self.look.shape)).all())
        return inside and float(self.found[tuple(spot)]) > 0.5


@dataclass(frozen=True, eq=False)
class Ask:
    """A question to the network: the crop to look at, and the probabilities there so far (I, J, K), if any."""

    crop: Grid
    before: Any


@dataclass(frozen=True)
class Rounds:
    """The rules of one session.

    Parameters
    ----------
    grid : Grid
        Of the scan.
    view : callable
        Gives the scan (I, J, K) on a crop.
    most : int
        Longest side of a crop around the object, voxels.
    multiple : int
        Sides of all crops are multiples of it; equal to `most` and `overview`, every crop is a cube.
    overview : int
        Longest side of the look at the whole field of view.
    room : float
        Scales the space left around the object.
    """

    grid: Grid
    view: Callable[[Grid], Any]
    most: int
    multiple: int = 16
    overview: int = OVERVIEW
    room: float = 1.0

    def play(self, told: Pointed, before: Answer | None) -> Generator[Ask, Any, Answer]:
        """Answer one more mark, given the answer so far; each question is yielded and its answer sent."""
        if before is None and told.mask is not None:
            at = np.argwhere(told.mask)
            if len(at):
                crop = self.around(at.min(axis=0), at.max(axis=0), told)
                before = Answer(share(told.mask, self.grid, crop), crop)
        soft: Any
        if before is not None and self._holds_marks(before.look, told):
            look, soft = before.look, before.found
        elif before is not None and (told.mask is not None or len(told.boxes)):
            look = self._grown_to(before, told)
            soft = carried(before.found, before.look, look)
        elif len(told.boxes):
            look = self.around(*self._box_of(told), told)
            soft = told_apart(rounded(told, look), as_array(self.view(look)))
        else:  # nothing is known yet, or the object is larger than was thought: look anew, with all the marks
            look, soft = self._whole(), None
        found = yield Ask(look, soft)
        for _ in range(2):
            crop_or_none = self._fitting(found, look, told)
            if crop_or_none is None:
                break
            crop = crop_or_none
            found = yield Ask(crop, carried(found, look, crop))
            look = crop
        return Answer(found, look)

    def _whole(self) -> Grid:
        shape = np.asarray(self.grid.shape)
        return crop_grid(self.grid, np.full(3, -0.5), shape - 0.5, self.multiple, self.overview, min(self.grid.spacing))

    def _box_of(self, told: Pointed) -> tuple[NDArray[Any], NDArray[Any]]:
        boxes = [voxel_box(box, self.grid) for box in told.boxes]
        return np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)

    def around(self, low: NDArray[Any], high: NDArray[Any], told: Pointed, most: int = 0) -> Grid:
        """Return a crop around an object's box (voxels of the scan) and the marks on it, with room to see beyond.

        Its sides are at most `most` voxels, of no less than a millimetre or the scan's own spacing, if that is told.
        """
        step = np.asarray(self.grid.spacing)
        if len(told.inside):
            spots = self.grid.to_voxels(told.inside)
            low, high = np.minimum(low, spots.min(axis=0)), np.maximum(high, spots.max(axis=0))
        if most:
            room = ROOM_MM / step
            return crop_grid(self.grid, low - room, high + room, 2, most, max(1.0, float(min(step))))
        size = (high - low) * step
        room = self.room * np.maximum(0.2 * size, max(6.0, 0.12 * float(size.max()))) / step
        most = self.most // self.multiple * self.multiple
        return crop_grid(self.grid, low - room, high + room, self.multiple, most, FINEST * min(step))

    def _holds_marks(self, crop: Grid, told: Pointed) -> bool:
        """Whether all marks on the object lie in a crop, not too near its border."""
        voxels = crop.to_voxels(told.inside)
        return bool(((voxels >= 2) & (voxels <= np.asarray(crop.shape) - 3)).all())

    def reaching(self, before: Answer, told: Pointed, most: int) -> Answer:
        """Return an answer on a crop that holds new marks on the object too; as it is, if it does already."""
        if not len(told.inside) or self._holds_marks(before.look, told):
            return before
        look = self._grown_to(before, told, most)
        return Answer(carried(before.found, before.look, look), look)

    def _grown_to(self, before: Answer, told: Pointed, most: int = 0) -> Grid:
        """Return a crop around the answer so far and all marks on the object."""
        span = extent(before.found > 0.5)
        corners = np.array(span if span is not None else ((0, 0, 0), np.asarray(before.look.shape) - 1))
        ends = self.grid.to_voxels(before.look.to_patient(corners))
        return self.around(ends.min(axis=0), ends.max(axis=0), told, most)

    def _fitting(self, found: Any, look: Grid, told: Pointed) -> Grid | None:
        """Return a crop that fits the object better than `look`, or None if `look` is good enough."""
        mask = touched(found > 0.5, look, told)
        span = extent(mask)
        if span is None:
            spots = look.to_voxels(told.inside) if len(told.inside) else (np.asarray(look.shape)[None] - 1) / 2
            span = (spots.min(axis=0) - 4, spots.max(axis=0) + 4)
        low, high = span
        ends = self.grid.to_voxels(look.to_patient(np.array([low - 0.5, high + 0.5])))
        crop = self.around(ends.min(axis=0), ends.max(axis=0), told)
        edge = (low <= 1) | (high >= np.asarray(look.shape) - 2)
        outer = self.grid.to_voxels(look.corners())
        # A crop that already reaches the end of the scan cannot show more of the object.
        more = (outer.min(axis=0) > 0) | (outer.max(axis=0) < np.asarray(self.grid.shape) - 1)
        if bool((edge & more).any()):
            return crop
        return crop if crop.spacing[0] < 0.8 * look.spacing[0] else None


def rounded(told: Pointed, grid: Grid) -> Array:
    """Return a first guess for boxes: soft ellipsoids that fill them, (I, J, K) 0 to 1."""
    guess = np.zeros(grid.shape, dtype=np.float32)
    for box in told.boxes:
        low, high = voxel_box(box, grid)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.5)
        parts = [((np.arange(n) - m) / h) ** 2 for n, m, h in zip(grid.shape, middle, half, strict=True)]
        radius = np.sqrt(parts[0][:, None, None] + parts[1][:, None] + parts[2])
        guess = np.maximum(guess, 1 / (1 + np.exp(8 * (radius - 0.95)))).astype(np.float32)
    return guess


def told_apart(guess: Array, image: Array) -> Array:
    """Sharpen a guess of where an object is by how bright things are in it and around it.

    Two histograms, of the object and of the rest, and the share of each voxel are found in turns, as GrabCut does
    (Rother et al., ACM Trans Graph 2004).

    Parameters
    ----------
    guess : ndarray, (I, J, K)
        0 to 1; where it is nearly 0 it stays so.
    image : ndarray, (I, J, K)
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    low, high = np.quantile(image.reshape(-1)[:: max(1, image.size // 60_000)], (0.005, 0.997))
    if not high > low:
        return guess
    steps = np.clip((image - low) / (high - low) * TONE_STEPS, 0, TONE_STEPS - 1).astype(np.intp)
    prior = np.where(guess > 0.02, SUREST * guess, 0)
    part = prior
    for _ in range(3):
        looks = []
        for weight in (part, 1 - part):
            counts = gaussian_filter1d(np.bincount(steps.ravel(), weight.ravel(), TONE_STEPS), 1.5)
            looks.append(counts / max(float(counts.sum()), 1e-6) + 1e-3 / TONE_STEPS)
        odds = prior * (looks[0] / looks[1])[steps]
        part = gaussian_filter(odds / (odds + 1 - prior), 0.7)
    return np.asarray(part, dtype=np.float32)


def as_array(values: Any) -> NDArray[Any]:
    """Return an array, or a tensor on any device, as an array."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu().numpy())


def extent(mask: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the first and last voxel (3,) of a mask (array or tensor) along each axis, or None if it is empty."""
    if not isinstance(mask, np.ndarray):
        from napari_mri.nets import voxels

        return voxels.extent(mask)
    ends = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not there.size:
            return None
        ends.append((there[0], there[-1]))
    return np.array([e[0] for e in ends]), np.array([e[1] for e in ends])


def touched(mask: Any, grid: Grid, told: Pointed) -> Any:
    """Drop pieces of a mask (array or tensor) without a mark in or beside them, unless a fifth as large as the largest."""
    span = extent(mask)
    if span is None:
        return mask
    # Only the box that holds the mask is searched: a small object in a large scan is the common case.
    part = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
    found = _pieces(mask[part])
    if len(found.sizes) < 2:
        return mask
    keep = found.sizes >= 0.2 * found.sizes.max()
    for spot in np.rint(grid.to_voxels(told.inside) - span[0]).astype(int):
        if ((spot >= -1) & (spot <= np.asarray(mask[part].shape))).all():
            keep[found.at(tuple(slice(max(0, s - 1), s + 2) for s in spot))] = True
    kept = mask & False
    kept[part] = found.chosen(keep)
    return kept


def _pieces(mask: Any) -> Any:
    """Return the pieces of a mask (array or tensor)."""
    if isinstance(mask, np.ndarray):
        return pieces(mask)
    from napari_mri.nets import voxels

    return voxels.pieces(mask)


def share(mask: NDArray[np.bool_], grid: Grid, crop: Grid) -> Array:
    """Return how much of each crop voxel a mask covers, (I, J, K) 0 to 1."""
    return Pyramid(mask.astype(np.float32), grid).view(crop).clip(0, 1)
