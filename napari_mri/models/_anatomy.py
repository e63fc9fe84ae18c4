"""What stands where in a head, at 2 mm, and what a click on it most likely means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.models._click3d_rounds import as_array, extent
from napari_mri.models._click3d_zoom import carried
from napari_mri.models._marks import Places, Pointed
from napari_mri.models._tones import Tones, nearest, nearest_to_all, probable, sharpened
from napari_mri.models._tones_device import DeviceTones, nearest_on
from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]
Ask = Callable[[Array], Array]
"""A network: image (I, J, K) to logits (structures + 1, I, J, K)."""
Meaning = tuple[int, int]
"""A structure (`BRAIN`: the whole brain), and its side: 1 right, -1 left, 0 either or both."""

STEP_MM = 2.0
MULTIPLE = 16
HEAD_ML = (500.0, 3200.0)
"""What the brain of a head may hold; with less or more the picture is of something else."""
MOST_ML = 30_000.0
"""Fields of view beyond this show a body, and would take gigabytes."""
LEAST_SURE = 0.2
"""A click on less than this probability of any structure means nothing to the map."""
SMALLER = 0.25
"""Any structure may be pointed at, not any voxel: of several that may stand at a place, small ones are favoured by so much of a
power of their volume."""
MOST_ODD = 4.2
"""How unlikely (see `Anatomy.filling`) the faces of a box may be, given a structure, for the box to mean it."""
FAVOUR, DISFAVOUR = 0.4, 1.2
"""So much less odd is a box that means the brain: it is boxed more often than what lies around it, and drawn more loosely.
And so much odder is one around a shell of the brain."""
SHELLS, BRANCHED = frozenset((23, 25)), frozenset((20, 32))
"""Marrow of the skull, and sinuses with the dura: nearly as large as the brain. And vessels: a part of them may be meant."""
FAR_OUT = 16.0
"""One face that is off by more than so many variances tells no more than that."""
LEAST_SHARED = 0.1
"""A box that shares less than this with that of a structure (intersection over union) is not one around it."""
UNKNOWN_REACH = (0.0, 3.0)
"""Mean and spread, mm, of how far a structure reaches beyond its map, where that was not measured."""
SOME_VOXELS = 600_000
"""Voxels of the scan itself from which histograms are taken once more."""
UNSEEN = 0.004
"""What is less likely than this by its place is not looked for."""
MARKED = 2000.0
"""A mark tells of a structure's brightness as much as so many voxels of the map do."""
CRUMB = 0.1
"""Pieces smaller than this share of the largest do not count for how far a structure reaches."""
INNER, BRAIN = range(1, 22), -1
CORTEX = 2
DOUBT, CLEARLY = 0.05, 0.5
"""Share of its own errors in the map; and how much likelier (log odds) marks must be by another structure to mean that."""
DEEP_IN, EDGE_MM, HERE = 0.6, 3.0, 0.05
"""A mark beside the object this deep in what was meant (1 = the deepest), and no nearer than this to its edge, says that it is
something else; if that is so likely where the first mark is."""
AT_ONCE = 32_768
"""Voxels that a thread works on at a time."""
SHEETS = frozenset((2, 24, 27))
"""Cortex, bone and skin: a first mark in the middle of such a thin thing often lies, in the map, on what is beside it."""
SPREAD = frozenset((1, 2))
"""White matter and cortex: both sides of them are as good as the brain."""
ASIDE = 0.03
"""A new mark on less than this probability of what was meant so far says that more is meant."""
APART_MM, BESIDE_MM = 20.0, 10.0
"""If it lies at least this far from the marks before, and from the structure: nearer by, the map may be wrong about an edge."""
DEEP, SHALLOW = 0.8, 0.6
"""Who clicks this deep in the brain (1 = the deepest), and nearer to the border of the structure there than this, means the brain."""
WHOLE = frozenset(((BRAIN, 0), (1, 0), (2, 0), (16, 0)))
"""A box around all white matter, all cortex or the fluid around them is one around the brain."""


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
    tones : Tones, optional
        What the structures look like in this scan.
    scale : Scale
        From the scan's intensities to those of `tones`.
    device : str
        Where maps are worked on: elsewhere than on ``"cpu"`` what is shown is a tensor.
    """

    names: NDArray[np.uint8]
    right: NDArray[np.uint8]
    grid: Grid
    key: Key
    tones: Tones | None = None
    scale: fit.Scale = field(default_factory=fit.Scale)
    device: str = "cpu"
    _depths: dict[Meaning, tuple[tuple[slice, ...], NDArray[np.float16]]] = field(default_factory=dict, repr=False)
    _blocks: dict[int, tuple[slice, ...]] = field(default_factory=dict, repr=False)

    def meant(self, told: Pointed) -> Meaning | None:
        """Return what is pointed at; None if unsure.

        That is the structure there, or the brain if the place is the middle of the brain and not of the structure.
        """
        here = self._at(self.names, told.inside)
        beside = self._at(self.names, told.outside) if len(told.outside) else np.zeros_like(here)
        chance = np.where(here < LEAST_SURE, 0, (here - beside).clip(0)) * (self.volumes + 0.3) ** -SMALLER
        number = int((chance if chance[1:].any() else here)[1:].argmax()) + 1  # nobody points at air
        if self._inner(told.inside).min() > 0.5 and self._mid_brain(number, told.inside):
            return BRAIN, 0
        if here[number] < LEAST_SURE:
            return None
        return number, self._side(number, told.inside)

    def more(self, meaning: Meaning | None, marks: list[Places], new: Places) -> Meaning | None:
        """Return what is meant after a mark (N, 3) patient mm on another structure of the brain; None if nothing new is.

        Both sides of a structure, if it was pointed at on both; else the whole brain.
        """
        if meaning is not None and meaning[0] == BRAIN:
            return None
        before = np.concatenate(marks)
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
        chance = float(there[number]) * _on(side, right)
        if chance > ASIDE:
            return None
        if int(there.argmax()) == number and number not in SPREAD:
            return number, 0
        if not apart(marks) or self._beside(meaning, new):
            return None
        return BRAIN, 0

    def instead(self, meaning: Meaning, told: Pointed, seen: Seen, missing: bool = False) -> Meaning | None:
        """Return what all marks speak for, if they clearly do not for what was meant; else None.

        Parameters
        ----------
        meaning : tuple of int
            What was meant.
        told : Pointed
        seen : Seen
            What the answer holds that the newest mark corrects. Whoever wants what is larger than that clicks on what is
            missing, whoever wants what is smaller on what is too much.
        missing : bool
            Whether the newest mark lies on the object, not beside it. It then tells of thin things only.
        """
        if meaning[0] == BRAIN or not len(told.inside) or (missing and meaning[0] in SHEETS):
            return None
        names, right = self._at_each(told.inside[:1])
        others = [
            (number, side)
            for number, side in self._meanings()
            if (number in SHEETS if missing else number != BRAIN)
            and (side != 0 or number not in self.key.paired)
            and (number, side) != meaning
            and names[number, 0] * _on(side, right[0]) >= HERE
            and seen.lacks((number, side)) == missing
        ]
        marks = [(self._at_each(places), sign) for places, sign in ((told.inside, True), (told.outside, False))]

        def speak(number: int, side: int) -> float:
            shares = [(names[number] * _on(side, right), sign) for (names, right), sign in marks]
            return sum(float(np.log(np.where(sign, s, 1 - s) * (1 - DOUBT) + DOUBT).sum()) for s, sign in shares)

        best = max(others, key=lambda other: speak(*other), default=None)
        return best if best is not None and speak(*best) > speak(*meaning) + CLEARLY else None

    def seen(self, found: Any, look: Grid) -> Seen:
        """Return what probabilities (I, J, K) on a grid hold of each structure."""
        part = self._part(look)
        mask = as_array(carried(found, look, self._shows(part)) > 0.5)
        return Seen(np.bincount(self.codes[part][mask], minlength=len(self.sizes)), self.sizes)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """Three times the likeliest structure of each voxel (I, J, K); 1 more on the right side of a paired one, 2 on the left."""
        most, found = self.names[0].copy(), np.zeros(self.grid.shape, dtype=np.uint8)
        side = np.where(self.right > 127, 1, 2).astype(np.uint8)
        for number, likely in enumerate(self.names[1:], 1):  # quicker than argmax along the first axis
            np.copyto(found, 3 * number + (side if number in self.key.paired else 0), where=likely > most, casting="unsafe")
            np.maximum(most, likely, out=most)
        return found

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """How many voxels have each code, (3 N,)."""
        return np.bincount(self.codes.ravel(), minlength=3 * len(self.names))

    def _part(self, look: Grid) -> tuple[slice, ...]:
        """Return the part of the map that another grid, of parallel axes, shows."""
        ends = self.grid.to_voxels(look.to_patient(np.array([(0, 0, 0), np.asarray(look.shape) - 1])))
        low = np.clip(np.floor(ends.min(axis=0)) - 1, 0, self.grid.shape).astype(int)
        high = np.clip(np.ceil(ends.max(axis=0)) + 2, low + 1, self.grid.shape).astype(int)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def _shows(self, part: tuple[slice, ...]) -> Grid:
        """Return the grid of a part of the map."""
        return self.grid.cropped([p.start for p in part], [p.stop for p in part])

    def denied(self, meaning: Meaning, told: Pointed) -> tuple[float, float]:
        """Return how deep marks beside the object lie in what was meant, mm and 0 to 1, if that is in its middle; else 0."""
        if not len(told.outside) or meaning[0] == CORTEX:  # which is deep nowhere
            return 0.0, 0.0
        depth, most = self._depth_of(meaning, self._spots(told.outside))
        deepest = float(depth.max())
        if deepest < DEEP_IN * most or deepest * STEP_MM <= EDGE_MM:
            return 0.0, 0.0
        return deepest * STEP_MM, deepest / most

    def shown(self, meaning: Meaning) -> Any:
        """Return how much each voxel (I, J, K) belongs to what is meant, 0 to 1."""
        return self._map(*meaning, (slice(None),) * 3, self._held)

    def shown_on(self, meaning: Meaning, look: Grid, image: Any, marks: Places | None = None) -> Any:
        """Return how much each voxel of a finer grid belongs to what is meant, 0 to 1, by place and by brightness.

        Parameters
        ----------
        meaning : tuple of int
        look : Grid
            Axes parallel to those of the scan.
        image : ndarray or Tensor, `look.shape`
            The scan there.
        marks : ndarray, (N, 3), optional
            Patient mm on what is meant: it may be as bright as it is there.
        """
        tones = self._held.tones
        if tones is None:
            return carried(self.shown(meaning), self.grid, look)
        number, side = meaning
        if marks is not None and len(marks) and number != BRAIN:
            tones = self._marked(tones, number, look, image, marks)
        own = np.zeros(256, dtype=bool)
        own[INNER if number == BRAIN else number] = True
        part = self._part(look)
        if isinstance(tones, DeviceTones):
            return self._shown_there(tones, meaning, own, part, (look, image))
        place = np.zeros([p.stop - p.start for p in part], dtype=np.float32)
        first, last = (INNER.start, INNER.stop - 1) if number == BRAIN else (number, number)
        for which, share in zip(tones.which[(slice(None), *part)], tones.share[(slice(None), *part)], strict=True):
            there = np.flatnonzero((which >= first) & (which <= last))
            place.reshape(-1)[there] += share.reshape(-1)[there]
        if side:
            right = self.right[part].astype(np.float32) / np.float32(255)
            place *= _on(side, right)
        found = np.ascontiguousarray(carried(place, self._shows(part), look))
        open_ = np.flatnonzero((found > UNSEEN) & (found < 1 - UNSEEN))
        # Places are interpolated; what else may stand there, and how bright it is, is that of the nearest voxel.
        near, values, likely = (array.reshape(-1) for array in (nearest_to_all(look, self.grid), image, found))

        def told(some: NDArray[np.intp]) -> None:
            shown, before = fit.unit_scaled(values.take(some), self.scale), likely.take(some)
            odds = before / (1 - before) * np.exp(tones.gain(shown, near.take(some), own))
            likely[some] = odds / (1 + odds)

        with own_threads() as threads:
            each(told, [open_[n : n + AT_ONCE] for n in range(0, len(open_), AT_ONCE)], threads)
        return found

    def _marked(self, tones: Any, number: int, look: Grid, image: Any, marks: Places) -> Any:
        """Let a structure be as bright as it is around marks (N, 3) patient mm on it; of a large one they tell less."""
        around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3)
        spots = np.rint(look.to_voxels(marks)).astype(np.intp)[:, None] + around
        i, j, k = np.clip(spots.reshape(-1, 3), 0, np.asarray(look.shape) - 1).T
        at = nearest(look, (i, j, k), self.grid)
        weight = MARKED / (MARKED + float(self.counts[number]))
        if isinstance(tones, DeviceTones):
            import torch

            i, j, k, at = (torch.from_numpy(index).to(self.device) for index in (i, j, k, at))
        return tones.marked(number, self.scale.unit(image[i, j, k]), at, weight)

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """How many voxels of the map each structure has by its place, (N,); 0 where it is not known how bright they are."""
        if self.tones is None:
            return np.zeros(len(self.names))
        which, share = self.tones.which.reshape(-1), self.tones.share.reshape(-1)
        found: NDArray[np.float64] = np.bincount(which, share, len(self.names))
        return found

    def _shown_there(
        self, tones: DeviceTones, meaning: Meaning, own: NDArray[np.bool_], part: tuple[slice, ...], seen: tuple[Grid, Any]
    ) -> Any:
        """As `shown_on`, of tensors: `own` (256,) are the structures meant, `part` of the map is seen in the look."""
        import torch

        look, image = seen
        mine = torch.from_numpy(own).to(self.device)
        which, share = (array.reshape(-1, *self.grid.shape)[(slice(None), *part)] for array in (tones.which, tones.share))
        place = torch.where(mine[which.long()], share.float(), 0.0).sum(dim=0)
        if meaning[1]:
            right = self._held.right[part].float() / 255
            place = place * _on(meaning[1], right)
        found = carried(place, self._shows(part), look)
        spots = torch.nonzero((found > UNSEEN) & (found < 1 - UNSEEN), as_tuple=True)
        at = nearest_on(look, spots, self.grid)
        odds = found[spots] / (1 - found[spots]) * tones.gain(self.scale.unit(image[spots]), at, mine).exp()
        found[spots] = odds / (1 + odds)
        return found

    @cached_property
    def _held(self) -> _Held:
        """What maps are made of, where they are worked on."""
        if self.device == "cpu":
            return _Held(self.names, self.right, self.tones)
        import torch

        names, right = (torch.from_numpy(part).to(self.device) for part in (self.names, self.right))
        return _Held(names, right, None if self.tones is None else DeviceTones.of(self.tones, self.device))

    @property
    def shade(self) -> Any:
        """Logarithm of the scan's shading, (I, J, K)."""
        return self._held.tones.shade

    def prepare(self) -> None:
        """Find beforehand how deep and how large all is that may be meant: it takes longer than a click may."""
        _ = self.depth, self.volumes, self.sizes, self._held, self.counts
        with own_threads() as threads:
            each(self._fathom, self._meanings(), threads if self.device == "cpu" else 1)

    def _fathom(self, meaning: Meaning) -> None:
        """Find how deep what is meant is, where it is: `_depths`."""
        if meaning in self._depths:
            return
        part = self._block(meaning[0])
        mask = self._map(*meaning, part, self._held) > 0.5
        span = extent(mask)
        if span is not None:
            own = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
            part = tuple(slice(p.start + o.start, p.start + o.stop) for p, o in zip(part, own, strict=True))
            mask = mask[own]
        self._depths[meaning] = part, _depth(mask)

    def _depth_of(self, meaning: Meaning, at: tuple[NDArray[np.int_], ...]) -> tuple[Array, float]:
        """Return how deep voxels `at` (three of (P,)) lie in what is meant, (P,) voxels, and how deep it is anywhere."""
        self._fathom(meaning)
        part, depth = self._depths[meaning]
        near = [np.clip(a - p.start + 1, 0, n - 1) for a, p, n in zip(at, part, depth.shape, strict=True)]
        return depth[tuple(near)].astype(np.float32), float(depth.max())

    def filling(self, box: NDArray[np.float64]) -> Meaning | None:
        """Return the structure, or the whole brain, that fits a box (2, 3) patient mm; None if none does.

        That is the one whose six faces lie where the box has them; some reach farther beyond their map than others.
        """
        best: tuple[float, Meaning | None] = (MOST_ODD, None)
        for meaning, ends in self.ends.items():
            mean, spread = self.key.reach(meaning)
            if _shared(ends, box) < LEAST_SHARED:
                continue
            off = (np.concatenate([ends[0] - box[0], box[1] - ends[1]]) - mean) / spread
            odd = float(np.minimum(off**2, FAR_OUT).mean()) / 2 + float(np.log(spread)) + DISFAVOUR * (meaning[0] in SHELLS)
            if meaning in WHOLE:
                odd, meaning = odd - FAVOUR, (BRAIN, 0)
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
        at = self._spots(places)
        if float(self.depth[at].min()) < DEEP:
            return False
        own, most = self._depth_of((number, self._side(number, places)), at)
        return float(own.min()) < SHALLOW * most

    def _beside(self, meaning: Meaning, places: Places) -> bool:
        """Whether one of places (P, 3) patient mm is near to what is meant."""
        room = int(np.ceil(BESIDE_MM / STEP_MM)) + 1
        for place, *spot in zip(places, *self._spots(places), strict=True):
            part = tuple(slice(max(0, s - room), s + room + 1) for s in spot)
            there = np.argwhere(self._map(*meaning, part) > 0.5) + [p.start for p in part]
            if len(there) and float(np.linalg.norm(self.grid.to_patient(there) - place, axis=1).min()) < BESIDE_MM:
                return True
        return False

    def _block(self, number: int) -> tuple[slice, ...]:
        """Return the box that a structure lies in, all of the grid where there is none of it."""
        if number not in self._blocks:
            brain = number == BRAIN
            span = extent(self.shown((BRAIN, 0)) > 0.5 if brain else self._held.names[number] > 127)
            ends = zip(*span, strict=True) if span is not None else ((0, n - 1) for n in self.grid.shape)
            self._blocks[number] = tuple(slice(int(a), int(b) + 1) for a, b in ends)
        return self._blocks[number]

    @cached_property
    def depth(self) -> Array:
        """How deep each voxel lies in the brain: 1 is the deepest."""
        from scipy.ndimage import distance_transform_edt, find_objects, label

        depth = np.zeros(self.grid.shape, dtype=np.float32)
        mask = self._map(BRAIN, 0, (slice(None),) * 3) > 0.5
        for part in find_objects(mask.view(np.uint8)):
            around, _ = label(~np.pad(mask[part], 1))
            inner = distance_transform_edt(around != around[0, 0, 0])
            depth[part] = (inner / inner.max())[1:-1, 1:-1, 1:-1]
        return depth

    @cached_property
    def volumes(self) -> NDArray[np.float64]:
        """What each structure holds, (N,) ml; of paired ones one side."""
        voxels = np.array([np.count_nonzero(name > 127) for name in self.names])
        sides = np.array([2 if n in self.key.paired else 1 for n in range(len(voxels))])
        found: NDArray[np.float64] = voxels * self.grid.voxel_ml / sides
        return found

    def _inner(self, places: Places) -> NDArray[np.float64]:
        """How much places (P, 3) belong to the brain, (P,) 0 to 1."""
        return np.array([float(self._at(self.names[INNER.start : INNER.stop], p[None]).sum()) for p in places])

    def _side(self, number: int, places: Places) -> int:
        """On which side of a structure places lie: 1 right, -1 left, 0 if there is only one of it."""
        if number not in self.key.paired:
            return 0
        return 1 if self._at(self.right[None], places)[0] > 0.5 else -1

    def _map(self, number: int, side: int, part: tuple[slice, ...], held: _Held | None = None) -> Any:
        """Return how much each voxel of a part belongs to a structure, 0 to 1; side 1 is right, -1 left, 0 either."""
        held = held or _Held(self.names, self.right)
        if number == BRAIN:
            return _shares(held.names[(slice(INNER.start, INNER.stop), *part)], add=True)
        found = _shares(held.names[number][part])
        if side:
            right = _shares(held.right[part])
            found *= _on(side, right)
        return found

    def _at(self, maps: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of maps (N, I, J, K) at patient mm (P, 3): (N,), 0 to 1."""
        values: NDArray[np.float64] = maps[(slice(None), *self._spots(places))].mean(axis=1) / 255.0
        return values

    def _at_each(self, places: Places) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how likely each structure is at patient mm (P, 3), (N, P), and how likely it is the right side, (P,)."""
        at = self._spots(places)
        return self.names[(slice(None), *at)] / 255.0, self.right[at] / 255.0

    def _spots(self, places: Places) -> tuple[NDArray[np.int_], ...]:
        """Return the voxels nearest to patient mm (P, 3), as an index of three (P,)."""
        top = np.asarray(self.grid.shape) - 1
        return tuple(np.clip(np.rint(self.grid.to_voxels(places)).astype(int), 0, top).T)


@dataclass(frozen=True, eq=False)
class Seen:
    """What an answer holds of each structure, and how large they are: voxels (3 N,), as `Anatomy.codes` counts."""

    held: NDArray[np.intp]
    sizes: NDArray[np.intp]

    def lacks(self, meaning: Meaning) -> bool:
        """Whether more of a structure is missing in the answer than there is beside the structure."""
        number, side = meaning
        own = [3 * number + code for code in ((0, 1, 2) if side == 0 else (1,) if side > 0 else (2,))]
        held = int(self.held[own].sum())
        return int(self.sizes[own].sum()) - held > int(self.held.sum()) - held


@dataclass(frozen=True, eq=False)
class _Held:
    """Arrays, or tensors on a device: names (N, I, J, K) and right (I, J, K), and what structures look like."""

    names: Any
    right: Any
    tones: Any = None


def apart(marks: list[Places]) -> bool:
    """Whether marks (N, 3) patient mm are all far from each other: whoever wants something large does not click again near by."""
    return all(np.linalg.norm(a[:, None] - b, axis=-1).min() >= APART_MM for a, b in combinations(marks, 2))


def _shared(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return what two boxes (2, 3) mm share, over what they take together."""
    both = np.prod(np.maximum(np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]), 0))
    return float(both / (np.prod(one[1] - one[0]) + np.prod(other[1] - other[0]) - both))


def _on(side: int, right: Any) -> Any:
    """Return how likely what is asked for is on its side: 1 right, -1 left, 0 either; `right` is how likely it is the right one."""
    return right if side > 0 else 1 - right if side < 0 else 1.0


def _shares(steps: Any, add: bool = False) -> Any:
    """Return steps of 1/255 as 0 to 1; `add` those of several structures."""
    if isinstance(steps, np.ndarray):
        return (steps.sum(axis=0, dtype=np.float32) if add else steps.astype(np.float32)) / np.float32(255)
    return (steps.sum(dim=0) if add else steps).float() / 255


def _depth(mask: Any) -> NDArray[np.float16]:
    """Return how deep each voxel lies in a mask (I, J, K), voxels, with one voxel more on every side."""
    from scipy.ndimage import distance_transform_edt

    if isinstance(mask, np.ndarray):
        return np.asarray(distance_transform_edt(np.pad(mask, 1)), dtype=np.float16)
    import torch

    from napari_mri.nets.voxels import away

    full = torch.nn.functional.pad(mask.to(torch.uint8), (1,) * 6).bool()
    # Nothing is deeper than half of the shortest side.
    return as_array(away(~full, min(full.shape) // 2 + 1).half())


def both_ways(ask: Ask, image: Array) -> Array:
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


def anatomy_of(scan: Volume, ask: Ask, key: Key, device: str = "cpu") -> Anatomy | None:
    """Name what stands where in a scan; None where it does not look like a head.

    Parameters
    ----------
    scan : Volume, (I, J, K)
        Storage order RAS.
    ask : callable
        The network: image (I, J, K), sides multiples of `MULTIPLE`, to logits (N + 1, I, J, K).
    key : Key
    device : str
        Where its maps are worked on.
    """
    grid = scan.grid.respaced((STEP_MM,) * 3)
    if np.prod(grid.shape) * STEP_MM**3 > MOST_ML * 1000:
        return None
    small = fit.resampled(scan.data, scan.grid, grid)
    scale = fit.unit_scale(small)
    if scale is None:
        return None
    small = fit.unit_scaled(small, scale)
    full = np.pad(small, [(0, -n % MULTIPLE) for n in small.shape])
    logits = both_ways(ask, full)[:, : small.shape[0], : small.shape[1], : small.shape[2]]
    maps = probable(logits[:-1])
    inner = float(maps[INNER.start : INNER.stop].sum()) * STEP_MM**3 / 1000
    if not HEAD_ML[0] <= inner <= HEAD_ML[1]:
        return None
    right = 1 / (1 + np.exp(-np.clip(logits[-1], -30, 30)))
    names, tones = sharpened(maps, small, STEP_MM)
    if tones is not None:
        some = np.random.default_rng(0).integers(0, scan.data.size, SOME_VOXELS)
        spots = np.unravel_index(some, scan.grid.shape)
        at = nearest(scan.grid, spots, grid)
        open_ = tones.share[0].reshape(-1)[at] < 1
        values = fit.finite(scan.data[spots][open_])
        tones = tones.refitted(fit.unit_scaled(values, scale), at[open_])
    return Anatomy(names, np.rint(right * 255).astype(np.uint8), grid, key, tones, scale, device)
