"""Click to segment in 3D: one small network, first on the whole field of view, then on a crop around the object."""

from __future__ import annotations

import itertools
import zlib
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadPrompt
from napari_mri.core.grid import Grid
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, Weights, knob
from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine import fit
from napari_mri.models._anatomy import BRAIN, BRANCHED, SHELLS, Anatomy, Meaning, anatomy_of, apart
from napari_mri.models._click3d_mend import WIDE, WINDOW, bettered, deep_in, leant, reached, window_of
from napari_mri.models._click3d_refine import Belief, believed, near
from napari_mri.models._click3d_rounds import OVERVIEW, Answer, Rounds, as_array, extent, touched
from napari_mri.models._click3d_zoom import Pyramid, carried, straight
from napari_mri.models._headnet import HEADNET, naming, unfit
from napari_mri.models._marks import Pointed, patient_ends, sorted_out, voxel_box

Array = NDArray[np.float32]

WEIGHTS = Weights("click3d.safetensors", licence="BSD-3-Clause", shipped=True)
MENDER = Weights("mender.safetensors", licence="BSD-3-Clause", shipped=True)

CARD = Card(
    name="click3d",
    task=SEGMENT,
    title="Click in 3D",
    says=(
        "A network trained on synthetic heads of random contrast: click on a structure, then on what is missing or "
        "too much. Works on any MR contrast; expect several clicks for thin or faint structures."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    prompts=(Point, Box, Scribble, Lasso, Extremes, Mask),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS, MENDER, HEADNET),
    cite="Trained by this project on label maps of SynthSeg (Billot et al., Med Image Anal 2023); see docs/click.md",
    rank=10,
)

FINE_SIDE = 144
"""Longest side of a crop in which place and brightness tell what belongs to a structure, voxels."""
KEEP_BYTES, LEAST_STATES = 700_000, 2
"""Answers kept for undo, packed, all but the newest together, but at least so many; others are worked out again."""


@dataclass(frozen=True)
class Params:
    """Options of clicking in 3D."""

    detail: int = knob(
        64, "Longest side of the crop the object is refined in, voxels; larger is finer and slower.", low=48, high=128
    )
    level: float = knob(0.5, "How sure the network must be; lower gives larger masks.", low=0.05, high=0.95)
    pieces: bool = knob(False, "Keep pieces that no click lies in.")
    anatomy: bool = knob(
        True, "Take the first click on a head for the structure it lies in, as the network of heads names it."
    )


MOST_SHAPES = 40
"""Crops of so many shapes are tried beforehand."""
NOTHING: Meaning = (-2, 0)
"""Marks say that the object is nothing that the map of anatomy knows."""
WRONG_MM, WRONG = 4.0, 0.8
"""A mark beside the object this deep in what was meant, and in the very middle (1 = the deepest) unless that is the brain, says
that nothing of the kind was."""
MENDED_WHOLE, MENDED_PART = 0.67, 0.5
"""So much of what the second network makes of an answer is taken, where it sees all of the object and where it sees a part: alone it
is surer of heads it never saw than it ought to be."""
UNSURE = 0.004
"""Nothing is known so surely that marks might not turn it: 0 (or 1) less (or more) than this."""
FIRST_MARKS = 3
"""Marks within which more may come to be meant than at first."""


@lru_cache(maxsize=1)
def _packer() -> ThreadPoolExecutor:
    """Return the thread that packs answers, while the user looks at them."""
    return ThreadPoolExecutor(1, "click3d")


@dataclass(frozen=True, eq=False)
class Found:
    """What is known after some marks.

    Parameters
    ----------
    known : Answer
        What place and brightness say, turned by rule near marks that say otherwise: what the next mark begins with.
    shown : Answer
        The same, bettered by a network: what the user sees. It is not begun with, since a network that is asked about its own
        answers again and again goes astray.
    meaning : Meaning, optional
        What the object was taken for, if the map of anatomy tells.
    """

    known: Answer
    shown: Answer
    meaning: Meaning | None = None


@dataclass(frozen=True, eq=False)
class State:
    """The same, packed small."""

    known: Packed
    shown: Packed
    meaning: Meaning | None

    @classmethod
    def of(cls, found: Found) -> tuple[State, Found]:
        """Pack what was found; the session goes on with exactly what was packed, returned too."""
        packed, known = Packed.of(found.known)
        if found.shown is found.known:
            return cls(packed, packed, found.meaning), Found(known, known, found.meaning)
        other, shown = Packed.of(found.shown)
        return cls(packed, other, found.meaning), Found(known, shown, found.meaning)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(packed.bytes) for packed in {self.known, self.shown})

    def found(self, device: str) -> Found:
        """Return what was found again, as arrays or as tensors on another device."""
        known = self.known.answer(device)
        return Found(known, known if self.shown is self.known else self.shown.answer(device), self.meaning)


@dataclass(frozen=True, eq=False)
class Packed:
    """Probabilities in a crop, in steps of 1/255, compressed by a thread."""

    grid: Grid
    packing: Future[bytes]

    @classmethod
    def of(cls, answer: Answer) -> tuple[Packed, Answer]:
        """Pack an answer; returned too is exactly what was packed."""
        steps, look = _steps(answer.found), answer.look
        return cls(look, _packer().submit(zlib.compress, as_array(steps).tobytes(), 1)), _shares(steps, look)

    @property
    def bytes(self) -> bytes:
        """The probabilities, (I, J, K) uint8, compressed."""
        return self.packing.result()

    def answer(self, device: str) -> Answer:
        """Return the probabilities again, as an array or as a tensor on another device."""
        steps = np.frombuffer(bytearray(zlib.decompress(self.bytes)), np.uint8).reshape(self.grid.shape)
        if device == "cpu":
            return _shares(steps, self.grid)
        import torch

        return _shares(torch.from_numpy(steps).to(device), self.grid)


def _shares(steps: Any, grid: Grid) -> Answer:
    if isinstance(steps, np.ndarray):
        return Answer(steps.astype(np.float32) / np.float32(255), grid)
    return Answer(steps.float() / 255, grid)


def _steps(found: Any) -> Any:
    if isinstance(found, np.ndarray):
        return np.rint(found * 255).astype(np.uint8)
    import torch

    return (found * 255).round().to(torch.uint8)


class Clicking(Session):
    """The network opened on one scan (storage order RAS).

    An answer depends on the scan and on the prompts, in their order, and on nothing else: round after round
    is played from the first mark on, and rounds played before are remembered.
    """

    def __init__(self, scan: Volume, p: Params, rt: Runtime) -> None:
        self.scan, self.p, self.rt = scan, p, rt
        path, mending = rt.weights(WEIGHTS), rt.weights(MENDER)
        self.net = rt.keep(f"click3d {path}", lambda: loaded(path, rt.device))
        self.mender = rt.keep(f"click3d {mending}", lambda: loaded(mending, rt.device, mends=True))
        rt.report(0.3, "making coarser copies")
        self.pyramid = Pyramid(scan.data, scan.grid, rt.device)
        self._states: OrderedDict[tuple[Mark, ...], State] = OrderedDict()
        self._scale = fit.unit_scale(as_array(self.pyramid.levels[-1][0])) or fit.Scale()
        self.anatomy = self._named() if p.anatomy else None
        self._rounds = Rounds(scan.grid, self.pyramid.view, p.detail)
        self._believes: Belief | None = None
        if rt.device == "cuda":
            self._warmed()

    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask (1 = object) on the grid of the scan."""
        import torch

        with torch.inference_mode():
            return self._answer(prompts)

    def _answer(self, prompts: Prompts) -> Labels:
        first = next((n for n, mark in enumerate(prompts.marks) if mark.positive), 0) + 1
        known = max((n for n in range(first, len(prompts) + 1) if prompts.marks[:n] in self._states), default=first - 1)
        kept, found = self._states.get(prompts.marks[:known]), None
        if kept is not None:
            self._states.move_to_end(prompts.marks[:known])
            found = kept.found(self.rt.device)
        for count in range(known + 1, len(prompts) + 1):
            marks = prompts.marks[:count]
            self.rt.report((count - known) / max(1, len(prompts) + 1 - known), f"mark {count}")
            state, found = State.of(self._round(Prompts(marks), found))
            # The newest is still being packed.
            while len(self._states) >= LEAST_STATES and sum(s.size for s in self._states.values()) > KEEP_BYTES:
                self._states.popitem(last=False)
            self._states[marks] = state
        assert found is not None, "tasks refuses prompts without a positive mark"
        likely = found.shown.found
        chosen = likely > 0.5
        count = int(chosen.sum())
        self.score = float((likely * chosen).sum()) / count if count else 0.0
        self.taken_for = self.anatomy.key.says(found.meaning) if self.anatomy and found.meaning else ""
        return self._home(found.shown, sorted_out(prompts, self.scan.grid))

    def _warmed(self) -> None:
        """Work once on crops of every shape and on two marks: whatever a GPU does for the first time takes long."""
        import torch

        from napari_mri.nets.click3d import COARSE, FINE, MENDED

        most, step = self.p.detail // self._rounds.multiple * self._rounds.multiple, self._rounds.multiple
        sides = range(2 * step, most + 1, step)
        shapes = [s for s in itertools.product(sides, repeat=3) if max(s) in (most, OVERVIEW)]

        def once() -> bool:
            for shape in shapes if len(shapes) < MOST_SHAPES else shapes[-1:]:
                coarse = torch.zeros((2, COARSE, *(n // 2 for n in shape)), device=self.rt.device)
                self.net(torch.zeros((2, FINE, *shape), device=self.rt.device), coarse)
            for side in (WINDOW, WIDE):
                coarse = torch.zeros((1, COARSE, *(side // 2,) * 3), device=self.rt.device)
                self.mender(torch.zeros((1, MENDED, *(side,) * 3), device=self.rt.device), coarse)
            return True

        middle = self.scan.grid.centre
        with torch.inference_mode():
            self.rt.keep(f"click3d warm {most}", once)
            self._answer(Prompts((Point(tuple(middle.tolist())), Point(tuple((middle + 6.0).tolist()), False))))
        self._states.clear()

    def _named(self) -> Anatomy | None:
        """Name what stands where, if the scan looks like a head."""
        ask, key = naming(self.rt)
        self.rt.report(0.6, "looking for anatomy")
        found = anatomy_of(self.scan, ask, key, self.rt.device)
        if found is not None:
            found.prepare()
        return found

    def _meant(self, prompts: Prompts, told: Pointed, before: Found | None) -> Meaning | None:
        """Return what the newest mark lets us take the object for, if that is new and the map is sure of it."""
        anatomy = self.anatomy
        if anatomy is None or told.mask is not None or len(told.boxes) > 1:
            return None
        if len(told.boxes):
            return anatomy.filling(patient_ends(told.boxes[0])) if before is None and not len(told.inside) else None
        if before is None:
            return anatomy.meant(told)
        less = self._less(anatomy, prompts, before) if len(prompts) <= FIRST_MARKS + 1 else None
        if less is not None or len(prompts) > FIRST_MARKS:
            return less
        *earlier, newest = (sorted_out(Prompts((mark,)), self.scan.grid) for mark in prompts)
        other, meaning, shown = None, before.meaning, before.shown
        if prompts.marks[-1].positive:
            places = [mark.inside for mark in (*earlier, newest)]
            if meaning is not None and apart([place for place in places if len(place)]):
                other = anatomy.instead(meaning, told, anatomy.seen(shown.found, shown.look), missing=True)
            if other is None and all(len(mark.inside) and not len(mark.outside) for mark in (*earlier, newest)):
                # Whoever has begun to correct does not mean more.
                other = anatomy.more(meaning, places[:-1], places[-1])
            return other
        if meaning is None:
            return None
        # In the middle of what was meant, and of what the user saw of it.
        deep, middle = anatomy.denied(meaning, newest)
        deep = min(deep, deep_in(shown, newest.outside)) if deep else deep
        if not deep:
            return None
        other = anatomy.instead(meaning, told, anatomy.seen(shown.found, shown.look))
        wrong = deep >= WRONG_MM and (middle >= WRONG or meaning == (BRAIN, 0)) and len(prompts) == 2
        wrong &= meaning[0] not in SHELLS | BRANCHED
        return NOTHING if other is None and wrong else other

    def _less(self, anatomy: Anatomy, prompts: Prompts, before: Found) -> Meaning | None:
        """Return what the first mark meant, if a later one was taken for the brain and the newest denies that deep in it."""
        if before.meaning != (BRAIN, 0) or prompts.marks[-1].positive:
            return None
        first, newest = (sorted_out(Prompts((prompts.marks[n],)), self.scan.grid) for n in (0, -1))
        meant = anatomy.meant(first) if len(first.inside) else None
        denied = anatomy.denied(before.meaning, newest)[0] and deep_in(before.shown, newest.outside)
        return meant if denied and meant != before.meaning else None

    def _shown(self, anatomy: Anatomy, meaning: Meaning, told: Pointed) -> Answer | None:
        """Return what place and brightness have for a meaning, in a fine crop around it; None if that is nothing."""
        found, grid = anatomy.shown(meaning), anatomy.grid
        kept = touched(found > 0.5, grid, told)
        span = extent(kept)
        if span is None:
            return None
        ends = self.scan.grid.to_voxels(grid.to_patient(np.array([span[0] - 0.5, span[1] + 0.5])))
        look = self._rounds.around(ends.min(axis=0), ends.max(axis=0), told, FINE_SIDE)
        sure = anatomy.shown_on(meaning, look, self.pyramid.view(look), told.inside)
        kept = touched(sure > 0.5, look, told)
        return Answer(sure * (kept | (sure <= 0.5)), look)

    def close(self) -> None:
        """Let go of the copies of the scan, and of what was named in it."""
        self.anatomy = self._believes = None
        self.pyramid.levels.clear()
        self._states.clear()

    def _round(self, prompts: Prompts, before: Found | None) -> Found:
        """Answer one more mark, given what was found so far."""
        told = sorted_out(prompts, self.scan.grid, room=1.5)
        new = self._meant(prompts, told, before)
        if new == NOTHING:
            new = before = None
        known = None if new is None or self.anatomy is None else self._shown(self.anatomy, new, told)
        if known is not None:
            for mark in prompts if len(prompts) > 1 else ():
                each = sorted_out(Prompts((mark,)), self.scan.grid)
                known = self._corrected(self._rounds.reaching(known, each, FINE_SIDE), each, gently=True)
            return Found(known, self._mended(known, known, told, told), new)
        newest = sorted_out(Prompts(prompts.marks[-1:]), self.scan.grid)
        if told.mask is not None:
            began = before is not None and newest.mask is None
            return self._refined(before, told, newest) if began else self._refining(prompts, told)
        if before is not None and before.meaning is not None:
            known = self._rounds.reaching(before.known, newest, FINE_SIDE)
            turned = self._corrected(known, newest)
            return Found(turned, self._mended(known, turned, told, newest, before.shown), before.meaning)
        asking = self._rounds.play(told, None if before is None else before.known)
        ask = next(asking)
        while True:
            try:
                ask = asking.send(self._asked(ask.crop, told, ask.before))
            except StopIteration as done:
                answer: Answer = done.value
                break
        turned = self._corrected(answer, newest, gently=True)
        return Found(answer, self._mended(answer, turned, told, newest, turned))

    def _refining(self, prompts: Prompts, told: Pointed) -> Found:
        """Begin from a mask: it is believed, but for what the other marks say."""
        assert told.mask is not None
        span = extent(told.mask)
        if span is None:
            raise BadPrompt("The mask to refine is empty.", hint="Point at the object instead.")
        look = self._rounds.around(*span, told, FINE_SIDE)
        given = Answer(_like(self._belief(told.mask, look).likely, self.pyramid.levels[0][0]), look)
        found = Found(given, given)
        for mark in prompts:
            if not isinstance(mark, Mask):
                found = self._refined(found, told, sorted_out(Prompts((mark,)), self.scan.grid))
        return found

    def _refined(self, before: Found, told: Pointed, new: Pointed) -> Found:
        """Change a mask around new marks that it is wrong at, and nowhere else."""
        known = self._rounds.reaching(before.known, new, FINE_SIDE)
        turned = self._corrected(known, new, gently=True)
        wrong = [p for places, right in ((new.inside, True), (new.outside, False)) for p in places if before.shown.holds(p) != right]
        if not wrong:
            return Found(turned, before.shown)
        better = self._mended(known, turned, told, new, before.shown)
        last = carried(before.shown.found, before.shown.look, better.look)
        share = _like(near(np.array(wrong), better.look), last)
        return Found(turned, Answer(last + share * (better.found - last), better.look))

    def _corrected(self, known: Answer, told: Pointed, gently: bool = False) -> Answer:
        """Turn an answer near new marks, where the brightness is theirs; `gently` only where it says otherwise."""
        look, found = known.look, known.found.clip(UNSURE, 1 - UNSURE)
        spacing = np.asarray(look.spacing)
        for places, sign in ((told.inside, 1.0), (told.outside, -1.0)):
            for spot in look.to_voxels(places[:: max(1, len(places) // 16)]):
                at = np.clip(np.rint(spot).astype(int), 0, np.asarray(look.shape) - 1)
                if gently and sign * (float(found[tuple(at)]) - 0.5) > 0:
                    continue
                # Only what a mark may reach is looked at.
                low, high = reached(at, spacing, look.shape)
                part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
                odds = found[part] / (1 - found[part])
                odds = np.log(odds) if isinstance(odds, np.ndarray) else odds.log()
                odds = leant(odds, self._toned(look.cropped(low, high)), spot - low, spacing, sign)
                found[part] = 1 / (1 + np.exp(-odds)) if isinstance(odds, np.ndarray) else odds.sigmoid()
        return Answer(found, look)

    def _toned(self, look: Grid) -> Any:
        """Return the scan on a crop, in parts of its range, and without its shading where that is known."""
        image = self.pyramid.view(look)
        if self.anatomy is None or self.anatomy.tones is None:
            return self._scale.unit(image)
        shade = straight(self.anatomy.shade, self.anatomy.grid, look)
        return self.anatomy.scale.unit(image) * (np.exp(-shade) if isinstance(image, np.ndarray) else (-shade).exp())

    def _mended(
        self, known: Answer, turned: Answer, told: Pointed, new: Pointed, shown: Answer | None = None
    ) -> Answer:
        """Let a network better an answer on the object, or around new marks on a large one.

        Parameters
        ----------
        known, turned : Answer
            On one crop: the answer so far, and as new marks turn it by rule.
        told, new : Pointed
            All marks, and the new ones.
        shown : Answer, optional
            What was bettered before: of a large object it stays where no new marks are. Without it, a large object is left
            as it is.
        """
        window = window_of(turned, new)
        if window is None or (shown is None and not window.whole):
            return turned
        before, after = window.of(known), window.of(turned)
        better = self._better(after.look, told, after.found, after.found - before.found)
        if not window.whole and shown is not None:
            turned = Answer(carried(shown.found, shown.look, turned.look), turned.look)
        taken = MENDED_WHOLE if window.whole else MENDED_PART
        return bettered(turned, after.found + taken * (better - after.found), window)

    def _better(self, window: Grid, told: Pointed, found: Any, turned: Any) -> Any:
        """Ask the network that mends, in a window: probabilities so far (I, J, K) to better ones."""
        import torch

        fine, coarse = self._told(window, told, found)
        fine = torch.cat([fine, torch.as_tensor(turned).to(fine.device)[None]])
        better = torch.sigmoid(self.mender(fine[None], coarse[None])[0, 0].float())
        return better.numpy() if self.rt.device == "cpu" else better

    def _asked(self, crop: Grid, told: Pointed, before: Any) -> Any:
        """Run the network on a crop and on its mirror image; return the mean probabilities (I, J, K)."""
        import torch

        fine, coarse = self._told(crop, told, before)
        # The first axis runs from left to right: a mirrored head is a head.
        both = (torch.stack([inputs, inputs.flip(1)]) for inputs in (fine, coarse))
        plain, mirrored = self.net(*both)[:, 0].float()
        found = torch.sigmoid((plain + mirrored.flip(0)) / 2)
        return found.numpy() if self.rt.device == "cpu" else found

    def _told(self, crop: Grid, told: Pointed, before: Any) -> tuple[Any, Any]:
        """Return what networks are told of a crop: `nets.click3d.encode`."""
        import torch

        from napari_mri.nets import click3d as nets
        from napari_mri.nets import click3d_marks

        image = nets.standard(torch.as_tensor(self.pyramid.view(crop)))
        encode = nets.encode if self.rt.device in ("cpu", "mps") else click3d_marks.encode
        return encode(image, told_on(crop, told, before, image.device), float(np.mean(crop.spacing)))

    def _home(self, answer: Answer, told: Pointed) -> Labels:
        """Bring the answer to the scan's grid."""
        grid, look = self.scan.grid, answer.look
        if told.mask is not None:
            kept = self._home_from(answer, told.mask)
            if len(told.boxes):
                kept *= _in_boxes(told, grid)
            return self.scan.with_labels(kept, {1: "object"})
        mask = np.zeros(grid.shape, dtype=np.uint8)
        span = extent(answer.found > self.p.level)
        if span is None:
            return self.scan.with_labels(mask, {1: "object"})
        # Between voxels that are not the object's nothing is.
        ends = np.clip([span[0] - 1, span[1] + 1], 0, np.asarray(look.shape) - 1)
        there = self._around(look.to_patient(ends))
        if there is not None:
            part, target = there
            found = carried(answer.found, look, target) > self.p.level
            if len(told.boxes):
                found &= _like(_in_boxes(told, target), found)
            mask[part] = as_array(found if self.p.pieces else touched(found, target, told))
        return self.scan.with_labels(mask, {1: "object"})

    def _around(self, places: NDArray[np.float64]) -> tuple[tuple[slice, ...], Grid] | None:
        """Return the voxels of the scan around places (N, 3) patient mm, and their grid; None if all lie beside the scan."""
        grid = self.scan.grid
        outer = grid.to_voxels(places)
        low = np.clip(np.floor(outer.min(axis=0)), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(outer.max(axis=0)) + 1, low, grid.shape).astype(int)
        if (high <= low).any():
            return None
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), grid.cropped(low, high)

    def _home_from(self, answer: Answer, given: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Bring the answer to the scan's grid, and with it, voxel by voxel, all of a mask (I, J, K) that nothing has changed."""
        before = self._belief(given, answer.look)
        after = as_array(carried(answer.found, answer.look, before.target)) > self.p.level
        mask = given.astype(np.uint8)
        np.copyto(mask[before.part], after, where=before.there != after, casting="unsafe")
        return mask

    def _belief(self, given: NDArray[np.bool_], look: Grid) -> Belief:
        """Return what a mask (I, J, K) says on a crop and, brought home from there, on the scan; the last one is kept."""
        kept = self._believes
        if kept is None or kept.given is not given or not kept.look.same(look):
            there = self._around(look.corners())
            assert there is not None, "a crop around a mask shows a part of the scan"
            likely = believed(given, self.scan.grid, look)
            kept = Belief(given, look, likely, *there, carried(likely, look, there[1]) > self.p.level)
            self._believes = kept
        return kept


def _like(values: NDArray[Any], other: Any) -> Any:
    """Return an array as a tensor where the other is."""
    if isinstance(other, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(other.device)


def loaded(path: Path, device: str, mends: bool = False) -> Any:
    """Return the network with its weights, ready to answer, or the one that mends."""
    import torch

    from napari_mri.engine.weights import load
    from napari_mri.nets import click3d as nets

    state = {name: value.float() for name, value in load(path).items()}
    try:
        net = nets.from_state(state, nets.Mender if mends else nets.Click3D)
    except (KeyError, RuntimeError) as error:
        raise unfit(path, error) from None
    return net.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)


def told_on(crop: Grid, told: Pointed, before: Any, device: Any = "cpu") -> Any:
    """Return what the network is told on one crop: `nets.click3d.Pointed`, in voxels of the crop."""
    import torch

    from napari_mri.nets import click3d as nets

    boxes = [voxel_box(box, crop) for box in told.boxes]
    box = None
    if boxes:
        ends = np.stack([np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)])
        box = torch.from_numpy(ends.astype(np.float32))
    inside, outside = (torch.from_numpy(_within(crop.to_voxels(p), crop)) for p in (told.inside, told.outside))
    return nets.Pointed(inside, outside, box, None if before is None else torch.as_tensor(before).to(device))


def _in_boxes(told: Pointed, grid: Grid) -> NDArray[np.bool_]:
    """Mark the voxels that lie in a box or no more than a twentieth of its side beyond; all, if there is no box."""
    if not len(told.boxes):
        return np.ones(grid.shape, dtype=bool)
    held = np.zeros(grid.shape, dtype=bool)
    for box in told.boxes:
        low, high = voxel_box(box, grid)
        room = 0.05 * (high - low) + 1
        first = np.clip(np.floor(low - room), 0, grid.shape).astype(int)
        last = np.clip(np.ceil(high + room) + 1, first, grid.shape).astype(int)
        held[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return held


def _within(voxels: NDArray[Any], crop: Grid) -> Array:
    """Keep the marks (N, 3) that lie in a crop, as float32."""
    voxels = voxels.reshape(-1, 3)
    held = ((voxels > -1) & (voxels < np.asarray(crop.shape))).all(axis=1)
    return np.asarray(voxels[held], dtype=np.float32)


def open_session(scan: Volume, p: Any, rt: Runtime) -> Clicking:
    """Open the network on a 3D scan in storage order RAS."""
    return Clicking(scan, p, rt)


MODELS = (Model(CARD, Params, open=open_session),)
