"""What stands where in a head, at 2 mm, and what a click on it most likely means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.models._marks import Places, Pointed

Array = NDArray[np.float32]
Meaning = tuple[int, int]
"""A structure (`BRAIN`: the whole brain), and its side: 1 right, -1 left, 0 either or both."""

STEP_MM = 2.0
MULTIPLE = 16
HEAD_ML = (500.0, 2600.0)
"""What the brain of a head may hold; with less or more the picture is of something else."""
MOST_ML = 30_000.0
"""Fields of view beyond this show a body, and would take gigabytes."""
LEAST_SURE = 0.4
"""A click on less than this probability of any structure means nothing to the map."""
MOST_ODD = 3.0
"""How unlikely (see `Anatomy.filling`) the faces of a box may be, given a structure, for the box to mean it."""
FAVOUR = 1.2
"""So much less odd is a box that means the brain: it is boxed more often than what lies around it, and drawn more loosely."""
FAR_OUT = 16.0
"""One face that is off by more than so many variances tells no more than that."""
UNKNOWN_REACH = (0.0, 3.0)
"""Mean and spread, mm, of how far a structure reaches beyond its map, where that was not measured."""
CRUMB = 0.1
"""Pieces smaller than this share of the largest do not count for how far a structure reaches."""
AIR, INNER, BRAIN = 0, range(1, 21), -1
SPREAD = frozenset((1, 2))
"""White matter and cortex: both sides of them are as good as the brain."""
ASIDE = 0.03
"""A new mark on less than this probability of what was meant so far says that more is meant."""
APART_MM = 20.0
"""If it lies at least this far from the marks before: nearer by, the map may be wrong about an edge."""
DEEP, SHALLOW = 0.8, 0.6
"""Who clicks this deep in the brain (1 = the deepest), and nearer to the border of the structure there than this, means the brain."""
SHEETS = frozenset((2, 22, 23, 26, 29))
"""Cortex, marrow, bone, skin, the tissue under it: too wide and thin for a crop around them."""


@dataclass(frozen=True, eq=False)
class Key:
    """What the network's answers are.

    Parameters
    ----------
    paired : frozenset of int
        Structures that stand on both sides.
    titles : tuple of str
        What they are called.
    beyond : ndarray, (N + 1, 2, 2), optional
        How far each structure, and last the brain, reaches beyond its map: for one side, or both (or the only one), the
        mean over the six faces and its spread, mm.
    """

    paired: frozenset[int]
    titles: tuple[str, ...] = ()
    beyond: Array | None = None

    def reach(self, meaning: Meaning) -> tuple[float, float]:
        """Return mean and spread, mm, of how far what is meant reaches beyond its map."""
        if self.beyond is None:
            return UNKNOWN_REACH
        mean, spread = self.beyond[meaning[0], int(meaning[1] == 0)]
        return (float(mean), float(spread)) if spread > 0 else UNKNOWN_REACH

    def says(self, meaning: Meaning) -> str:
        """Return what is meant in words."""
        number, side = meaning
        if number == BRAIN:
            return "brain"
        title = self.titles[number] if number < len(self.titles) else f"structure {number}"
        if number not in self.paired:
            return title
        return f"{title}, {({0: 'both sides', 1: 'right', -1: 'left'})[side]}"


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Probabilities of every structure of `nets.anatomy.NAMES`, and of the right side, each in steps of 1/255.

    Parameters
    ----------
    names : ndarray, (N, I, J, K) uint8
    right : ndarray, (I, J, K) uint8
    grid : Grid
        Of 2 mm.
    key : Key
    """

    names: NDArray[np.uint8]
    right: NDArray[np.uint8]
    grid: Grid
    key: Key

    def meant(self, told: Pointed) -> Meaning | None:
        """Return what is pointed at; None if unsure.

        That is the structure there, or the brain if the place is the middle of the brain and not of the structure.
        """
        here = self._at(self.names, told.inside)
        beside = self._at(self.names, told.outside) if len(told.outside) else np.zeros_like(here)
        number = int((here - beside).argmax())
        if self._inner(told.inside).min() > 0.5 and self._mid_brain(number, told.inside):
            return BRAIN, 0
        if number == AIR or here[number] < LEAST_SURE:
            return None
        return number, self._side(number, told.inside)

    def more(self, meaning: Meaning | None, before: Places, new: Places) -> Meaning | None:
        """Return what is meant after marks (N, 3) patient mm on another structure of the brain; None if nothing new is.

        Both sides of a structure, if it was pointed at on both; else the whole brain.
        """
        if meaning is not None and meaning[0] == BRAIN:
            return None
        if min(self._inner(before).min(), self._inner(new).min()) < 0.5:
            return None
        if np.linalg.norm(before[:, None] - new, axis=-1).min() < APART_MM:
            return None
        if meaning is None:
            number = int(self._at(self.names, before).argmax())
            meaning = number, self._side(number, before)
        number, side = meaning
        there = self._at(self.names, new)
        right = self._at(self.right[None], new)[0]
        chance = float(there[number]) * (right if side > 0 else 1 - right if side < 0 else 1.0)
        if chance > ASIDE:
            return None
        if int(there.argmax()) == number and number not in SPREAD:
            return number, 0
        return BRAIN, 0

    def shown(self, meaning: Meaning) -> Array:
        """Return how much each voxel (I, J, K) belongs to what is meant, 0 to 1."""
        return self._map(*meaning, (slice(None),) * 3)

    def filling(self, box: NDArray[np.float64]) -> Meaning | None:
        """Return the structure, or the whole brain, that fits a box (2, 3) patient mm; None if none does.

        That is the one whose six faces lie where the box has them; some reach farther beyond their map than others.
        """
        best: tuple[float, Meaning | None] = (MOST_ODD, None)
        for meaning, ends in self.ends.items():
            mean, spread = self.key.reach(meaning)
            off = (np.concatenate([ends[0] - box[0], box[1] - ends[1]]) - mean) / spread
            odd = float(np.minimum(off**2, FAR_OUT).mean()) / 2 + float(np.log(spread)) - FAVOUR * (meaning[0] == BRAIN)
            if odd < best[0]:
                best = odd, meaning
        return best[1]

    @cached_property
    def ends(self) -> dict[Meaning, NDArray[np.float64]]:
        """Lowest and highest patient mm (2, 3) of all that may be meant."""
        half = np.abs(self.grid.affine[:3, :3]).sum(axis=1) / 2
        found = {}
        for meaning in self._meanings():
            part = self._block(meaning[0])
            spots = main_voxels(self._map(*meaning, part) > 0.5)
            if len(spots):
                places = self.grid.to_patient(spots + [p.start for p in part])
                found[meaning] = np.array([places.min(axis=0) - half, places.max(axis=0) + half])
        return found

    def _meanings(self) -> list[Meaning]:
        one = [n for n in range(1, len(self.names)) if n not in self.key.paired]
        return [(BRAIN, 0), *((n, 0) for n in one), *((n, side) for n in self.key.paired for side in (1, -1, 0))]

    def _mid_brain(self, number: int, places: Places) -> bool:
        """Whether places are in the middle of the brain and not in that of a structure."""
        from scipy.ndimage import distance_transform_edt

        at = self._spots(places)
        if float(self.depth[at].min()) < DEEP:
            return False
        part = self._block(number)
        own = distance_transform_edt(np.pad(self._map(number, self._side(number, places), part) > 0.5, 1))
        near = [np.clip(a - p.start + 1, 0, n - 1) for a, p, n in zip(at, part, own.shape, strict=True)]
        return bool(float(own[tuple(near)].min()) < SHALLOW * float(own.max()))

    def _block(self, number: int) -> tuple[slice, ...]:
        """Return the box that a structure lies in, all of the grid for the brain."""
        from scipy.ndimage import find_objects

        found = [] if number == BRAIN else find_objects((self.names[number] > 127).view(np.uint8))
        return found[0] if found else tuple(slice(0, n) for n in self.grid.shape)

    @cached_property
    def depth(self) -> Array:
        """How deep each voxel lies in the brain: 1 is the deepest."""
        from scipy.ndimage import distance_transform_edt, find_objects, label

        depth = np.zeros(self.grid.shape, dtype=np.float32)
        mask = self.shown((BRAIN, 0)) > 0.5
        for part in find_objects(mask.view(np.uint8)):
            around, _ = label(~np.pad(mask[part], 1))
            inner = distance_transform_edt(around != around[0, 0, 0])
            depth[part] = (inner / inner.max())[1:-1, 1:-1, 1:-1]
        return depth

    def _inner(self, places: Places) -> NDArray[np.float64]:
        """How much places (P, 3) belong to the brain, (P,) 0 to 1."""
        return np.array([float(self._at(self.names[INNER.start : INNER.stop], p[None]).sum()) for p in places])

    def _side(self, number: int, places: Places) -> int:
        """On which side of a structure places lie: 1 right, -1 left, 0 if there is only one of it."""
        if number not in self.key.paired:
            return 0
        return 1 if self._at(self.right[None], places)[0] > 0.5 else -1

    def _map(self, number: int, side: int, part: tuple[slice, ...]) -> Array:
        """Return how much each voxel of a part belongs to a structure, 0 to 1; side 1 is right, -1 left, 0 either."""
        if number == BRAIN:
            return self.names[(slice(INNER.start, INNER.stop), *part)].sum(axis=0, dtype=np.float32) / np.float32(255)
        found = self.names[number][part].astype(np.float32) / np.float32(255)
        if side:
            right = self.right[part].astype(np.float32) / np.float32(255)
            found *= right if side > 0 else 1 - right
        return found

    def _at(self, maps: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of maps (N, I, J, K) at patient mm (P, 3): (N,), 0 to 1."""
        values: NDArray[np.float64] = maps[(slice(None), *self._spots(places))].mean(axis=1) / 255.0
        return values

    def _spots(self, places: Places) -> tuple[NDArray[np.int_], ...]:
        """Return the voxels nearest to patient mm (P, 3), as an index of three (P,)."""
        top = np.asarray(self.grid.shape) - 1
        return tuple(np.clip(np.rint(self.grid.to_voxels(places)).astype(int), 0, top).T)


def both_ways(ask: Callable[[Array], Array], image: Array) -> Array:
    """Ask about an image (I, J, K) and its mirror image, and average: a mirrored head is a head, its sides are swapped."""
    logits = ask(image)
    mirrored = ask(np.ascontiguousarray(image[::-1]))[:, ::-1]
    mirrored[-1] *= -1
    logits += mirrored
    logits *= 0.5
    return logits


def main_voxels(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the voxels (V, 3) of a mask but for crumbs."""
    from scipy.ndimage import find_objects, label

    part = find_objects(mask.astype(np.uint8))[0] if mask.any() else None
    if part is None:
        return np.zeros((0, 3), dtype=np.intp)
    pieces, _ = label(mask[part])
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    keep = sizes >= CRUMB * sizes.max()
    keep[0] = False
    return np.argwhere(keep[pieces]) + [p.start for p in part]


def anatomy_of(scan: Volume, ask: Callable[[Array], Array], key: Key) -> Anatomy | None:
    """Name what stands where in a scan; None where it does not look like a head.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order RAS.
    ask : callable
        The network: image (I, J, K), sides multiples of `MULTIPLE`, to logits (N + 1, I, J, K).
    key : Key
    """
    grid = scan.grid.respaced((STEP_MM,) * 3)
    if np.prod(grid.shape) * STEP_MM**3 > MOST_ML * 1000:
        return None
    small = fit.unit_scaled(fit.resampled(scan.data, scan.grid, grid))
    if not small.any():
        return None
    full = np.pad(small, [(0, -n % MULTIPLE) for n in small.shape])
    logits = both_ways(ask, full)[:, : small.shape[0], : small.shape[1], : small.shape[2]]
    names = np.empty((len(logits) - 1, *small.shape), dtype=np.uint8)
    inner = 0.0
    for start in range(0, small.shape[0], 8):  # a few slices at a time: all of them are hundreds of megabytes
        part = logits[:-1, start : start + 8]
        part = np.exp(part - part.max(axis=0))
        part *= np.float32(255) / part.sum(axis=0)
        inner += float(part[INNER.start : INNER.stop].sum()) / 255 * STEP_MM**3 / 1000
        names[:, start : start + 8] = np.rint(part, out=part)
    if not HEAD_ML[0] <= inner <= HEAD_ML[1]:
        return None
    right = 1 / (1 + np.exp(-np.clip(logits[-1], -30, 30)))
    return Anatomy(names, np.rint(right * 255).astype(np.uint8), grid, key)
