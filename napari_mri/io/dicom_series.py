"""Sorts the slices found in a folder into volumes: one array each, or a sentence why not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.volume import Frames
from napari_mri.io.dicom_diffusion import in_frame
from napari_mri.io.dicom_header import Frame
from napari_mri.io.dicom_place import levels, normal_of, place, runs, unplaced

_PLANES = ("sagittal", "coronal", "axial")
_SAME_TURN = 2e-3
_SHORTEST_FRAME = 0.1  # s
Key = Callable[[Frame], Hashable]


@dataclass
class Stack:
    """Slices that make one volume, in order.

    Parameters
    ----------
    volumes : list of list of Frame
        ``volumes[t][k]`` is slice k of frame t.
    affine : (4, 4) RAS+
    frames : Frames or None
        Meaning of t.
    label : str
        What tells it from others of its series: ``"phase"``, ``"echo 2"`` …
    warnings : list of str
    problem : str
        Why it does not make one grid; empty where it does.
    part : bool
        Whether it is a regular piece of a stack that has a problem.
    """

    volumes: list[list[Frame]]
    affine: NDArray[np.float64]
    frames: Frames | None = None
    label: str = ""
    warnings: list[str] = field(default_factory=list)
    problem: str = ""
    part: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns, rows, slices) or (columns, rows, slices, frames)."""
        first = self.volumes[0][0]
        sides = (first.columns, first.rows, len(self.volumes[0]))
        return sides if len(self.volumes) == 1 else (*sides, len(self.volumes))


def stacks_of(frames: Sequence[Frame]) -> list[Stack]:
    """Sort slices, of any number of series, into stacks.

    Slices of one stack share series, size, pixel spacing, orientation and part (magnitude, phase …).
    Several slices at one place become frames where a tag tells them apart, and are split otherwise.
    """
    turns: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    numbered: dict[Any, int] = {}  # most slices of a series repeat one orientation to the last digit
    groups: dict[tuple[Any, ...], list[Frame]] = {}
    for frame in frames:
        series = (frame.file.study, frame.file.series or str(frame.file.path.parent))
        exact = (series, frame.turn)
        turn = numbered.get(exact, -2)
        if turn < -1:
            turn = numbered[exact] = _number_of(frame.turn, turns.setdefault(series, []))
        pixel = tuple(round(v, 4) for v in frame.pixel or ())
        file = frame.file
        key = (*series, frame.rows, frame.columns, file.samples, file.modality, frame.kind, turn, pixel)
        groups.setdefault(key, []).append(frame)
    kinds: dict[tuple[str, str], set[str]] = {}
    planes: dict[tuple[str, str], set[int]] = {}
    for key in groups:
        kinds.setdefault(key[:2], set()).add(key[6])
        planes.setdefault(key[:2], set()).add(key[7])
    found: list[Stack] = []
    for key, group in groups.items():
        words = [key[6]] if len(kinds[key[:2]]) > 1 else []
        if len(planes[key[:2]]) > 1 and group[0].turn is not None:
            words.append(_PLANES[int(np.argmax(np.abs(normal_of(group[0]))))])
        found += _resolved(group, " ".join(words))
    return found


def _number_of(turn: tuple[float, ...] | None, known: list[NDArray[np.float64]]) -> int:
    """Return which orientation of a series this is; orientations that differ by rounding are one."""
    if turn is None:
        return -1
    values = np.asarray(turn)
    for number, other in enumerate(known):
        if np.abs(values - other).max() < _SAME_TURN:
            return number
    known.append(values)
    return len(known) - 1


def _resolved(frames: list[Frame], label: str) -> list[Stack]:
    told: list[str] = []
    frames = _without_copies(frames, told)
    if any(frame.position is None or frame.turn is None for frame in frames):
        frames.sort(key=lambda f: (f.instance, f.file.path.name, f.number))
        placed = unplaced(frames)
        return [Stack([frames], placed.affine, None, label, [*told, *placed.warnings])]
    stood = levels(frames)
    counts = {len(level) for level in stood}
    if counts == {1}:
        found = _single([level[0] for level in stood], label)
    elif len(counts) == 1:
        found = _several(frames, stood, label)
    else:
        found = _uneven(frames, stood, label)
    for stack in found:
        stack.warnings[:0] = told
    return found


def _without_copies(frames: list[Frame], told: list[str]) -> list[Frame]:
    """Drop a second copy of the very same image."""
    seen: set[tuple[Any, ...]] = set()
    kept: list[Frame] = []
    for frame in frames:
        key = (frame.file.instance_uid or frame.file.path, frame.number, frame.tile)
        if key not in seen:
            seen.add(key)
            kept.append(frame)
    if len(kept) < len(frames):
        told.append(f"{len(frames) - len(kept)} images are in the folder twice; each was taken once.")
    return kept


def _single(stack: list[Frame], label: str) -> list[Stack]:
    """Make a volume of one slice a place, or its regular pieces and a problem."""
    placed = place(stack)
    if not placed.problem:
        return [Stack([stack], placed.affine, None, label, list(placed.warnings))]
    for _, key in _SPLITS:
        parts = _split(stack, key)
        if 1 < len(parts) <= len(stack) // 2:
            ordered = [[level[0] for level in levels(part)] for part in parts]
            if all(len(part) > 1 and not place(part).problem for part in ordered):
                return [s for n, part in enumerate(ordered) for s in _single(part, _joined(label, f"stack {n + 1}"))]
    broken = Stack([stack], placed.affine, None, label, list(placed.warnings), placed.problem)
    pieces = runs(stack)
    out = [broken]
    for n, piece in enumerate(pieces if len(pieces) <= 16 else []):
        spot = place(piece)
        at = stack.index(piece[0]) + 1
        name = _joined(label, f"part {n + 1} (slices {at} to {at + len(piece) - 1})")
        out.append(Stack([piece], spot.affine, None, name, [placed.problem, *spot.warnings], part=True))
    return out


def _several(frames: list[Frame], stood: list[list[Frame]], label: str) -> list[Stack]:
    """Make frames of slices that stand several at each place: in time, of diffusion or of echoes."""
    count = len(stood[0])
    for name, key in _SPLITS:
        if name == "time":
            continue
        parts = _split(frames, key)
        if len(parts) < 2 or not all(_even(part, len(stood)) for part in parts):
            continue
        if name == "echo" and len(parts) == count:
            break
        return [
            stack
            for n, part in enumerate(parts)
            for stack in _resolved(part, _joined(label, _named(name, n, part, parts)))
        ]
    volumes = _ordered(stood)
    placed = place([level[0] for level in stood])
    if volumes is None:
        why = f"There are {count} images at each of {len(stood)} places, and nothing in the headers tells them apart."
        return [Stack([[level[0] for level in stood]], placed.affine, None, label, [], why)]
    told = list(placed.warnings)
    meaning = _meaning([volume[0] for volume in volumes], placed.affine, told)
    if placed.problem:
        return [Stack(volumes, placed.affine, meaning, label, told, placed.problem)]
    return [Stack(volumes, placed.affine, meaning, label, told)]


def _uneven(frames: list[Frame], stood: list[list[Frame]], label: str) -> list[Stack]:
    """Handle places with different numbers of slices: separate sets, or a series stopped early."""
    for name, key in _SPLITS:
        parts = _split(frames, key)
        if len(parts) < 2 or len(parts) == len(frames):
            continue
        sets = [levels(part) for part in parts]
        if all(len({len(level) for level in one}) == 1 for one in sets) and all(
            len(one) > 1 and not place([level[0] for level in one]).problem for one in sets
        ):
            if name == "time" and len({len(one) for one in sets}) > 1:
                return _complete(parts, len(stood), label)
            return [
                stack
                for n, part in enumerate(parts)
                for stack in _resolved(part, _joined(label, _named(name, n, part, parts)))
            ]
    for key in (_temporal, _acquisition):
        parts = _split(frames, key)
        if len(parts) > 1 and sum(_even(part, len(stood)) for part in parts) >= max(1, len(parts) - 2):
            return _complete(parts, len(stood), label)
    usual = Counter(len(level) for level in stood)
    counts = " or ".join(str(n) for n in sorted(usual))
    why = f"There are {counts} images at a place: some are missing, or images of different kinds are mixed."
    return [Stack([[level[0] for level in stood]], place([level[0] for level in stood]).affine, None, label, [], why)]


def _complete(parts: list[list[Frame]], n_places: int, label: str) -> list[Stack]:
    """Keep the frames that have a slice at each place; tell of the others."""
    whole = [part for part in parts if _even(part, n_places)]
    if not whole:
        return [stack for n, part in enumerate(parts) for stack in _resolved(part, _joined(label, f"set {n + 1}"))]
    found = _resolved([frame for part in whole for frame in part], label)
    lost = len(parts) - len(whole)
    for stack in found:
        stack.warnings.append(
            f"{lost} of {len(parts)} frames lack slices and were left out; the scan may have been stopped."
        )
    return found


def _even(part: list[Frame], n_places: int) -> bool:
    stood = levels(part)
    return len(stood) == n_places and len({len(level) for level in stood}) == 1


def _split(frames: Sequence[Frame], key: Key) -> list[list[Frame]]:
    parts: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(key(frame), []).append(frame)
    try:
        return [parts[value] for value in sorted(parts)]  # type: ignore[type-var]
    except TypeError:
        return list(parts.values())


def _types(frame: Frame) -> Hashable:
    return frame.types


def _stack(frame: Frame) -> Hashable:
    return frame.stack


def _echo(frame: Frame) -> Hashable:
    return -1.0 if math.isnan(frame.echo) else round(frame.echo, 2)


def _temporal(frame: Frame) -> Hashable:
    return -1 if frame.temporal is None else frame.temporal


def _acquisition(frame: Frame) -> Hashable:
    return frame.acquisition


def _gradient(frame: Frame) -> Hashable:
    vector = tuple(round(part, 3) + 0.0 for part in frame.bvec or ())
    return (-1.0 if math.isnan(frame.bval) else round(frame.bval, 1), vector)


_SPLITS: tuple[tuple[str, Key], ...] = (
    ("type", _types), ("stack", _stack), ("echo", _echo), ("time", _acquisition),
)  # fmt: skip


def _named(name: str, n: int, part: list[Frame], parts: list[list[Frame]]) -> str:
    if name == "type":
        common = set.intersection(*(set(other[0].types) for other in parts))
        own = [word.lower() for word in part[0].types if word not in common]
        return " ".join(own) or f"kind {n + 1}"
    if name == "echo" and not math.isnan(part[0].echo):
        return f"echo {n + 1} (TE {part[0].echo:g} ms)"
    return f"{'set' if name == 'time' else name} {n + 1}"


def _joined(label: str, word: str) -> str:
    return f"{label} {word}".strip()


def _ordered(stood: list[list[Frame]]) -> list[list[Frame]] | None:
    """Put the slices of each place in the order of time, by the first tag that does so everywhere."""
    keys: tuple[Key, ...] = (
        _temporal, _echo, lambda f: (f.instance, f.number), lambda f: f.trigger, lambda f: f.acquired, _acquisition,
    )  # fmt: skip
    count = len(stood[0])
    for key in keys:
        if any(len({key(frame) for frame in level}) != count for level in stood):
            continue
        volumes = [list(volume) for volume in zip(*(sorted(level, key=key) for level in stood), strict=True)]  # type: ignore[arg-type]
        if all(len({(_gradient(f), _echo(f)) for f in volume}) == 1 for volume in volumes):
            return volumes
    # Directions tell the frames apart where numbers do not; the first place shows their order.
    if any(len({_gradient(frame) for frame in level}) != count for level in stood):
        return None
    order = {_gradient(f): n for n, f in enumerate(sorted(stood[0], key=lambda f: (f.instance, f.number)))}
    if any(set(order) != {_gradient(frame) for frame in level} for level in stood):
        return None
    return [list(v) for v in zip(*(sorted(lv, key=lambda f: order[_gradient(f)]) for lv in stood), strict=True)]


def _meaning(firsts: list[Frame], affine: NDArray[np.float64], told: list[str]) -> Frames:
    """Say what the frames are: diffusion, echoes, time, or nothing that the headers tell."""
    step, unit, times = _timing(firsts)
    bvals = tuple(0.0 if math.isnan(frame.bval) else frame.bval for frame in firsts)
    if len(set(bvals)) > 1 or any(frame.bvec for frame in firsts):
        return Frames("diffusion", step, unit, bvals, in_frame(firsts, affine))
    echoes = tuple(frame.echo for frame in firsts)
    if len(set(echoes)) == len(echoes) and not any(map(math.isnan, echoes)):
        return Frames("echo", 0.0, "ms", times=echoes)
    if step > 0 or len({frame.temporal for frame in firsts}) == len(firsts):
        return Frames("time", step, unit, times=times)
    told.append("Nothing in the headers tells what the frames are; they are in the order of their numbers.")
    return Frames("channel")


def _timing(firsts: list[Frame]) -> tuple[float, str, tuple[float, ...]]:
    """Return step, unit and, where they are uneven, the times of the frames at one slice.

    The repetition time is the step where the clock agrees with it; in segmented and 3D scans it is
    not, and the clock or the trigger delay tells.
    """
    repetition = firsts[0].file.repetition / 1000.0
    clock = np.array([frame.acquired for frame in firsts])
    delay = np.array([frame.trigger for frame in firsts]) / 1000.0
    n_steps = len(firsts) - 1
    for times, slack in ((clock, 1.0 / n_steps), (delay, 0.0)):
        if np.isnan(times).any() or (np.diff(times) <= 0).any():
            continue
        measured = float(times[-1] - times[0]) / n_steps
        if repetition > 0 and abs(measured - repetition) <= max(0.05 * repetition, min(slack, 0.5 * repetition)):
            return repetition, "s", ()
        uneven = np.abs(np.diff(times) - measured).max() > 0.05 * measured + slack
        since = tuple(float(t) for t in (times - times[0]).round(6)) if uneven else ()
        return round(measured, 6), "s", since
    # A repetition time of some milliseconds is that of one line of k-space, not of a frame.
    return (repetition, "s", ()) if repetition >= _SHORTEST_FRAME else (0.0, "", ())
