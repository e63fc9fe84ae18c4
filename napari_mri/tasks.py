"""The one road every result takes: check, turn there, run, turn home, check the grid, write the history."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_mri import registry
from napari_mri.core.errors import BadOption, BadPrompt, GeometryProblem, GridMismatch, MriError, UnsupportedImage
from napari_mri.core.grid import Grid, way_back
from napari_mri.core.history import Order, Step
from napari_mri.core.model import TASKS, Model, Session
from napari_mri.core.prompts import Box, Extremes, Mask, Point, Prompts, Slab
from napari_mri.core.volume import Labels, Origin, Volume, check_volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.models._marks import voxel_box

LARGEST = 1e18
"""Grey values beyond this are refused."""
TAKEN_FOR = "taken for"
"""Under this name the history of an answer tells what its marks were taken for, if they were for something known."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Parameters
    ----------
    result : Volume or Labels
        With its history; on the grid of the scan where the task keeps the grid.
    extras : mapping of str to Volume
        By-products by name: ``"distance"``, ``"uncertainty"``, ``"residual"``, …
    warnings : tuple of str
        Sentences to show; they stand in the history, too.
    """

    result: Volume
    extras: Mapping[str, Volume] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def run(order: Order, scan: Volume, rt: LocalRuntime | None = None, others: Sequence[Volume] = ()) -> Outcome:
    """Run a model on a scan.

    Parameters
    ----------
    order : Order
        Task, model (``"auto"`` for the default) and options.
    scan : Volume
        3D, or 4D: frame by frame unless the model takes all frames at once.
    rt : LocalRuntime, optional
        Device, progress and stop.
    others : sequence of Volume
        Further scans of the patient, for a model that takes them.

    Returns
    -------
    Outcome

    Raises
    ------
    UnknownModel, MissingExtra, WeightsProblem, BadOption
        Before any work, if the order cannot be carried out, or the model takes fewer or more scans.
    UnsupportedImage, GeometryProblem
        If the scan is not one the model can work on.
    Cancelled
        If the user pressed stop.
    """
    rt = rt or LocalRuntime()
    model = registry.find(order.task, order.model, len(others))
    if model.run is None:
        raise BadPrompt(f"{model.card.title} answers prompts.", hint="Open a session and give it points or boxes.")
    params = model.settings(order.params)
    check_scan(model, scan)
    check_others(model, others)
    if others and len({one.fingerprint() for one in (scan, *others)}) <= len(others):
        raise BadOption("The same scan was given twice.", hint="Give each scan once.")
    began = time.monotonic()
    rt.report(0.0, model.card.title)
    there, order_back, flips_back = _turned(model, scan)
    if there.data.ndim == 4 and not model.card.wants.frames:
        answer = _frame_by_frame(model, there, params, rt)
    else:
        along = (tuple(_turned(model, other)[0] for other in others),) if model.card.wants.others else ()
        answer = model.run(there, params, rt, *along)
    if model.card.task.keeps_grid and not answer.grid.same(there.grid):
        raise GridMismatch(f"{model.card.name} gave a result on another grid: {answer.grid} for {there.grid}.")
    home = answer.reordered(order_back, flips_back)
    extras = {name: extra.reordered(order_back, flips_back) for name, extra in rt.extras.items()}
    result = _born_from(scan, home, model)
    _judge(result, model, rt)
    more = {"others": [other.fingerprint() for other in others]} if others else {}
    step = _step(model, params, scan, rt, seconds=time.monotonic() - began, **more)
    rt.report(1.0, "done")
    return Outcome(result.after(step), _named(extras, scan, model, step), tuple(rt.warnings))


def check_scan(model: Model, scan: Volume) -> None:
    """Refuse, before any work, a scan the model cannot work on."""
    wants = model.card.wants
    check_volume(scan, model.card.title)
    if isinstance(scan, Labels):
        raise UnsupportedImage(
            f"{model.card.title} needs grey values, and these are labels.", hint="Give the scan that they were drawn on."
        )
    if scan.data.dtype.kind not in "biuf":
        raise UnsupportedImage(
            f"{model.card.title} needs grey values, not {scan.data.dtype}.",
            hint="Save the magnitude of a complex image first.",
        )
    if min(scan.grid.shape) < wants.min_slices:
        raise GeometryProblem(
            f"{model.card.title} needs at least {wants.min_slices} voxels along each axis; "
            f"this scan has {'×'.join(map(str, scan.grid.shape))}.",
            hint="Open the whole series, not one slice.",
        )
    if scan.n_frames < wants.min_frames:
        raise UnsupportedImage(
            f"{model.card.title} needs a series of at least {wants.min_frames} frames; this scan has {scan.n_frames}.",
            hint="Choose a model for single volumes.",
        )
    if scan.data.dtype.kind == "f":
        ends = float(scan.data.min()), float(scan.data.max())
        if not np.isfinite(ends).all():
            raise UnsupportedImage(
                "The scan holds NaN or infinite values.", hint="Replace them (by 0, say) and save the scan again."
            )
        if (most := max(map(abs, ends))) > LARGEST:
            raise UnsupportedImage(
                f"The scan holds values up to {most:.2g}, whose squares single precision cannot hold.",
                hint="Divide them by a constant and save the scan again.",
            )


def check_others(model: Model, others: Sequence[Volume]) -> None:
    """Refuse, before any work, further scans the model cannot take, or too few of them."""
    wants = model.card.wants
    if len(others) > wants.others:
        many = "one scan" if wants.others == 0 else f"at most {wants.others + 1} scans"
        raise BadOption(f"{model.card.title} takes {many}, not {len(others) + 1}.", hint="Leave the others out.")
    if len(others) < wants.least_others:
        raise BadOption(
            f"{model.card.title} needs {wants.least_others + 1} scans, not {len(others) + 1}.", hint=model.card.says
        )
    for other in others:
        check_scan(model, other)
        if other.data.ndim != 3:
            raise UnsupportedImage("A further scan must be one volume, not a series.", hint="Choose a frame first.")


def _turned(model: Model, scan: Volume) -> tuple[Volume, tuple[int, ...], tuple[bool, ...]]:
    axes = model.card.wants.axes
    if not axes:
        return scan, (0, 1, 2), (False, False, False)
    order, flips = scan.grid.turn_to(axes)
    return scan.reordered(order, flips), *way_back(order, flips)


def _frame_by_frame(model: Model, scan: Volume, params: Any, rt: LocalRuntime) -> Volume:
    assert model.run is not None
    count = scan.n_frames
    answers: list[Volume] = []
    extras: dict[str, list[Volume]] = {}
    for number in range(count):
        rt.span = (number / count, (number + 1) / count)
        rt.extras = {}
        answers.append(model.run(scan.frame(number), params, rt))
        for name, extra in rt.extras.items():
            extras.setdefault(name, []).append(extra)
    rt.span = (0.0, 1.0)
    rt.extras = {n: _stacked(e, scan) for n, e in extras.items() if len(e) == count}
    return _stacked(answers, scan)


def _stacked(frames: list[Volume], scan: Volume) -> Volume:
    data = np.stack([frame.data for frame in frames], axis=-1)
    return dataclasses.replace(frames[0], data=data, frames=scan.frames)


def _born_from(scan: Volume, home: Volume, model: Model) -> Volume:
    """Return the answer with the scan's own grid, history and origin."""
    gives_labels = model.card.task.gives == "labels"
    if gives_labels and not isinstance(home, Labels):
        raise GridMismatch(f"{model.card.name} promised labels and gave grey values.")
    if not model.card.task.keeps_grid:
        return dataclasses.replace(home, history=scan.history, origin=scan.origin)
    data = np.ascontiguousarray(home.data)
    if isinstance(home, Labels):
        made = scan.with_labels(data, home.names)
        return dataclasses.replace(made, colors=home.colors)
    return scan.with_data(data)


def _named(extras: Mapping[str, Volume], scan: Volume, model: Model, step: Step) -> dict[str, Volume]:
    """Return the by-products with the facts of the run, but without its order, which gives the result."""
    keeps, found = model.card.task.keeps_grid, {}
    for name, extra in extras.items():
        # A further scan that was worked on, too, has a past of its own.
        own = extra if extra.origin not in (scan.origin, Origin()) else scan
        found[name] = dataclasses.replace(
            extra, data=np.ascontiguousarray(extra.data), grid=scan.grid if keeps else extra.grid,
            origin=own.origin, history=(*own.history, step.by_product(f"{name} by {model.card.name}")),
        )  # fmt: skip
    return found


def _judge(result: Volume, model: Model, rt: LocalRuntime) -> None:
    """Say what may be wrong with a result."""
    if isinstance(result, Labels):
        if not result.data.any():
            rt.warn("The mask is empty: nothing was found.")
        elif model.card.task.name != "segment":
            sides = _touched_sides(result)
            if sides:
                rt.warn(f"The mask touches the edge of the scan ({', '.join(sides)}): part of it may lie outside.")
    elif result.data.dtype.kind == "f" and not np.isfinite(result.data).all():
        raise MriError(f"{model.card.name} gave NaN or infinite values; the result was thrown away.")
    if model.card.invents:
        rt.warn(f"{model.card.title} may invent texture: do not measure or diagnose on its result.")


def _touched_sides(labels: Labels) -> list[str]:
    names = {"L": "left", "R": "right", "P": "back", "A": "front", "I": "bottom", "S": "top"}
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    touched = []
    for axis, letter in enumerate(labels.grid.axes):
        ends = np.take(labels.data, [0, -1], axis=axis)
        for end, side in ((0, opposite[letter]), (1, letter)):
            if np.take(ends, end, axis=axis).any():
                touched.append(names[side])
    return touched


@lru_cache(maxsize=32)
def _version(package: str) -> str:
    return version(package)


def versions() -> dict[str, str]:
    """Return the versions of what is loaded and may change a result."""
    found = {"python": sys.version.split()[0], "numpy": np.__version__}
    for module, package in (("napari_mri", "napari-mri-workbench"), ("torch", "torch"), ("scipy", "scipy")):
        if module in sys.modules:
            try:
                found[module] = _version(package)
            except PackageNotFoundError:  # run from a folder, not installed
                found[module] = "unknown"
    return found


def _step(model: Model, params: Any, scan: Volume, rt: LocalRuntime, seconds: float, **more: Any) -> Step:
    card = model.card
    seen = more.pop("input", None) or scan.fingerprint()
    facts: dict[str, Any] = {
        "title": card.title, "licence": card.licence, "cite": card.cite, "device": rt.device_used,
        "seed": rt.seed, "seconds": round(seconds, 2), "weights": dict(rt.used), "versions": versions(),
        "input": seen, "when": datetime.now(timezone.utc).isoformat(timespec="seconds"), **more,
    }  # fmt: skip
    if card.invents:
        facts["invents"] = True
    order = Order(card.task.name, card.name, dataclasses.asdict(params))
    return Step(f"{card.task.name} by {card.name}", order, facts, tuple(rt.warnings))


def _within(labels: Labels, slabs: tuple[Slab, ...]) -> Labels:
    """Cut an answer to the slices it may lie in."""
    if not slabs:
        return labels
    data = labels.data.copy()
    where = np.nonzero(data)
    places = labels.grid.to_patient(np.stack(where, axis=1))
    beyond = ~np.all([slab.holds(places) for slab in slabs], axis=0)
    data[tuple(axis[beyond] for axis in where)] = 0
    return dataclasses.replace(labels, data=data)


class ScanSession(Session):
    """A model's session on a scan in any storage order; answers lie on the scan's own grid.

    Parameters
    ----------
    model, scan, params, rt
        As in `open_session`.
    """

    def __init__(self, model: Model, scan: Volume, params: Any, rt: LocalRuntime) -> None:
        assert model.open is not None
        self.model, self.scan, self.rt = model, scan, rt
        self._params = params
        self._seen = ""
        self._even = bool(scan.data.max() == scan.data.min())
        there, self._order_back, self._flips_back = _turned(model, scan)
        self._inner = model.open(there, params, rt)

    def check(self, prompts: Prompts) -> None:
        """Refuse prompts of a kind the model does not take, or that miss the scan.

        Raises
        ------
        BadPrompt
        """
        if not isinstance(prompts, Prompts):
            raise BadPrompt(
                f"Marks are given as Prompts, not as {type(prompts).__name__}.", hint="Write mri.Prompts((mri.Point((x, y, z)),))."
            )
        takes = self.model.card.prompts
        for mark in prompts.pointing():
            assert not isinstance(mark, Slab)
            if type(mark) not in takes:
                known = ", ".join(str(getattr(kind, "kind", kind.__name__)) for kind in takes) or "none"
                raise BadPrompt(f"{self.model.card.title} takes no {mark.kind}.", hint=f"It takes: {known}.")
            if isinstance(mark, Box | Extremes | Mask) and not mark.positive:
                raise BadPrompt(
                    f"A {mark.kind} always shows the object, so it cannot be negative.",
                    hint="Show what is not the object by points, scribbles or lassos.",
                )
            if isinstance(mark, Mask) and not mark.grid.same(self.scan.grid):
                raise BadPrompt(
                    "The mask to refine does not lie on the grid of the scan.", hint="Bring it to that grid first."
                )
            places = (mark.xyz,) if isinstance(mark, Point) else () if isinstance(mark, Box | Mask) else mark.points
            if places and not any(self.scan.grid.holds(place) for place in places):
                x, y, z = places[0]
                raise BadPrompt(
                    f"The {mark.kind} at ({x:.1f}, {y:.1f}, {z:.1f}) mm lies outside the scan.",
                    hint="Prompts are in patient millimetres, RAS+.",
                )
            if isinstance(mark, Box) and not _meets(mark, self.scan.grid):
                raise BadPrompt("The box lies outside the scan.", hint="Prompts are in patient millimetres, RAS+.")
        if not any(mark.positive for mark in prompts):
            raise BadPrompt("Nothing points at the object yet.", hint="Give at least one positive prompt.")

    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask for all prompts, on the scan's grid, with a history that can be replayed."""
        self.check(prompts)
        began = time.monotonic()
        self.rt.warnings.clear()
        if self._even:
            self.rt.warn("Every voxel of the scan has the same value: there is nothing in it that the mask could follow.")
        self._inner.bounds = prompts.of(Slab)
        answer = self._inner.answer(prompts.pointing())
        self.score, self.taken_for = self._inner.score, self._inner.taken_for
        home = _born_from(self.scan, answer.reordered(self._order_back, self._flips_back), self.model)
        assert isinstance(home, Labels)
        home = _within(home, prompts.of(Slab))
        _judge(home, self.model, self.rt)
        seconds = time.monotonic() - began
        # The scan does not change while the session is open: its fingerprint is taken once, not at every click.
        self._seen = self._seen or self.scan.fingerprint()
        facts = {"prompts": prompts.to_json(), "input": self._seen}
        if self.taken_for:
            facts[TAKEN_FOR] = self.taken_for
            home = dataclasses.replace(home, names={1: self.taken_for})
        return home.after(_step(self.model, self._params, self.scan, self.rt, seconds, **facts))

    def close(self) -> None:
        """Let go of what the model holds."""
        self._inner.close()


def _meets(box: Box, grid: Grid) -> bool:
    """Whether a box has a part of a grid in it."""
    low, high = voxel_box(box.corners(), grid)
    return bool(((high >= -0.5) & (low <= np.asarray(grid.shape) - 0.5)).all())


def open_session(order: Order, scan: Volume, rt: LocalRuntime | None = None) -> ScanSession:
    """Open a prompted model on a 3D scan: slow once, then `answer` is quick.

    Raises
    ------
    UnknownModel, MissingExtra, WeightsProblem, BadOption
    UnsupportedImage
        If the scan has several frames.
    """
    rt = rt or LocalRuntime()
    model = registry.find(order.task, order.model)
    if model.open is None:
        raise BadPrompt(f"{model.card.title} takes no prompts.", hint="Run it instead.")
    params = model.settings(order.params)
    check_scan(model, scan)
    if scan.data.ndim == 4:
        raise UnsupportedImage("Clicks need one volume, not a series.", hint="Choose a frame first.")
    return ScanSession(model, scan, params, rt)


def others_of(step: Step) -> list[str]:
    """Return the fingerprints of the further scans of a run, in its order; where marks were answered there are none."""
    return [] if "prompts" in step.facts else step.fact("others", list, [])


def replay(step: Step, scan: Volume, rt: LocalRuntime | None = None, others: Sequence[Volume] = ()) -> Outcome:
    """Carry out the order of a step of history again.

    `others` are the further scans of the first run, in its order.

    Raises
    ------
    MriError
        If the step holds no order, or the scan is not the one it was given.
    """
    if step.order is None:
        raise MriError(f"'{step.action}' cannot be repeated: it was no order.", hint="Only model runs can be replayed.")
    expected = step.fact("input", str, "")
    if expected and scan.fingerprint() != expected:
        frames = (scan.frame(number) for number in range(scan.n_frames)) if scan.data.ndim == 4 else ()
        clicked = next((frame for frame in frames if frame.fingerprint() == expected), None)
        if clicked is None:
            raise GridMismatch(
                "This is not the scan the result was made from (voxels or grid differ).",
                hint="Give the original file.",
            )
        scan = clicked
    if [other.fingerprint() for other in others] != others_of(step):
        raise GridMismatch(
            "The further scans are not those the result was made from.", hint="Give the original files, in their order."
        )
    if step.order.task not in TASKS:
        raise MriError(f"There is no task '{step.order.task}' in this version.")
    rt = rt or LocalRuntime()
    rt.sow(step.fact("seed", int, 0))
    before = step.fact("weights", dict, {})
    if "prompts" in step.facts:
        prompts = Prompts.from_json(step.fact("prompts", list, []))
        with open_session(step.order, scan, rt) as session:
            labels = session.answer(prompts)
        outcome = Outcome(labels, {}, tuple(rt.warnings))
    else:
        outcome = run(step.order, scan, rt, others)
    if before != dict(outcome.result.history[-1].facts["weights"]):
        rt.warn("The weights differ from those of the first run, so the result may differ.")
    return dataclasses.replace(outcome, warnings=tuple(rt.warnings))
