"""One contract for every model that is found: it answers on the scan's own grid, whatever that is.

The cases come from the registry, so a new file in `models/` is tested before anybody writes a test for it.
Models whose packages or weights are not here are skipped with the registry's own reason.
"""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from napari_mri import registry, tasks
from napari_mri.core.errors import BadOption, Cancelled, MriError, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.model import knobs
from napari_mri.core.prompts import Box, Extremes, Lasso, Point, Prompts, Scribble
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.engine.runtime import LocalRuntime
from tests.scans import GRIDS, blob, grid_of, head

MIDDLE = (4.0, -7.0, 11.0)
LISTED = registry.list_models()
RUN = [m for m in LISTED if m.model is not None and m.model.run is not None]
OPEN = [m for m in LISTED if m.model is not None and m.model.open is not None]


def named(listed: list[registry.Listed]) -> pytest.MarkDecorator:
    cases = []
    for m in listed:
        card = m.model.card if m.model else None
        # A net without weights is trained within the run: minutes each time.
        trains = card is not None and "torch" in card.needs and not card.weights
        cases.append(pytest.param(m, id=f"{m.task}-{m.name}", marks=[pytest.mark.slow] if trains else []))
    return pytest.mark.parametrize("listed", cases)


def needed(listed: registry.Listed) -> None:
    if not listed.available:
        pytest.skip(listed.reason)


def heavy(listed: registry.Listed) -> bool:
    """A net costs seconds a run even on a small scan: fewer of the cases that differ least are run."""
    return bool(listed.model and (listed.model.card.weights or "torch" in listed.model.card.needs))


def slow_series(listed: registry.Listed) -> bool:
    """A diffusion model that is trained within the run, slice by slice."""
    return bool(listed.model and listed.model.card.invents and listed.model.card.wants.frames)


def scan_for(listed: registry.Listed, grid: Grid, dtype: type = np.float32) -> Volume:
    """Return a scan the model can take: 4D for those that need several frames."""
    if slow_series(listed):  # hours on a whole scan: a few slices of the same place
        low = np.asarray(grid.shape) // 2 - (6, 5, 1)
        grid = grid.cropped(low, np.add(low, (12, 10, 3)))
    scan = head(grid, dtype)
    wants = listed.model.card.wants if listed.model else None
    if wants is None or wants.min_frames < 2:
        return scan
    rng = np.random.default_rng(1)
    count = max(wants.min_frames, 5 if slow_series(listed) else 8)
    data = np.stack([scan.data + rng.normal(0, 12, grid.shape) for _ in range(count)], axis=-1)
    ways = rng.normal(size=(count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    vectors = ((0.0, 0.0, 0.0), *(tuple(float(v) for v in way) for way in ways[1:]))
    frames = Frames("diffusion", bvals=(0.0, *[1000.0] * (count - 1)), bvecs=vectors)
    return Volume(data.clip(0).astype(dtype), grid, frames=frames)


def ran(listed: registry.Listed, scan: Volume, **options: object) -> tasks.Outcome:
    order = Order(listed.task, listed.name, {**brief(listed), **options})
    return tasks.run(order, scan, LocalRuntime("cpu"), others_for(listed, scan))


def others_for(listed: registry.Listed, scan: Volume) -> list[Volume]:
    """Return the further scans a model cannot do without: finer ones of the same place."""
    count = listed.model.card.wants.least_others if listed.model else 0
    grid = scan.grid.turned("RAS")
    return [head(grid.respaced(np.asarray(grid.spacing) / 2)) for _ in range(count)]


def brief(listed: registry.Listed) -> dict[str, object]:
    """Return options: a model that learns on the scan itself learns a few steps here: the contract asks where, not how well."""
    names = {knob.name for knob in knobs(listed.model.params)} if listed.model else set()
    if slow_series(listed):
        return {"steps": 2, "width": 8, "flips": False, "sigma": 12.0}
    return {"steps": 3} if {"steps", "minutes"} <= names else {}


def marks(listed: registry.Listed) -> Prompts:
    """Return one mark in the middle of the toy head, of the first kind the model takes."""
    assert listed.model is not None
    x, y, z = MIDDLE
    ring = [(x + 15 * np.cos(t), y + 15 * np.sin(t), z) for t in np.linspace(0, 2 * np.pi, 9)[:-1]]
    ends = ((x - 40, y, z), (x + 40, y, z), (x, y - 47, z), (x, y + 47, z), (x, y, z - 37), (x, y, z + 37))
    offers = {
        Extremes: lambda: Extremes(ends),  # first: a model that takes them needs them
        Point: lambda: Point(MIDDLE),
        Box: lambda: Box((x - 42, y - 49, z - 39), (x + 42, y + 49, z + 39)),
        Scribble: lambda: Scribble(((x - 8, y, z), (x, y, z), (x + 8, y, z))),
        Lasso: lambda: Lasso(tuple(ring)),
    }
    for kind in offers:
        if kind in listed.model.card.prompts:
            return Prompts((offers[kind](),))
    pytest.fail(f"{listed.name} takes prompts that no case knows: {listed.model.card.prompts}")


def check(listed: registry.Listed, scan: Volume, result: Volume) -> None:
    """Hold an answer to the contract of its task."""
    assert listed.model is not None
    task = listed.model.card.task
    if task.gives == "labels":
        assert isinstance(result, Labels)
        assert result.data.dtype.kind in "iu"
    else:
        assert np.isfinite(result.data).all()
    if task.keeps_grid:
        assert result.grid.same(scan.grid, 1e-6)
    else:  # the same piece of the patient, to within a voxel
        apart = np.linalg.norm(result.grid.corners()[:, None] - scan.grid.corners()[None], axis=-1).min(axis=1)
        assert apart.max() <= max(scan.spacing)


def test_a_model_is_found_for_skullstrip() -> None:
    assert "threshold" in {m.name for m in LISTED if m.available}


@named(list(LISTED))
def test_card_tells_what_a_person_needs(listed: registry.Listed) -> None:
    assert listed.model is not None, listed.reason
    card = listed.model.card
    assert card.title
    assert card.says.rstrip().endswith(".")
    assert card.licence
    assert not (card.invents and card.rank >= 0), "a model that invents texture must never be a default"
    assert bool(card.prompts) == (listed.model.open is not None)
    for knob in knobs(listed.model.params):
        assert knob.says.strip(), f"--{knob.name} needs a sentence"
        assert knob.checked(knob.default) == knob.default
    with pytest.raises(BadOption):
        listed.model.settings({"no_such_option": 1})


@named(RUN)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_answer_lies_on_the_scans_grid(listed: registry.Listed, grid: str, dtype: type) -> None:
    needed(listed)
    if heavy(listed) and (grid, dtype) not in {("oblique", np.float32), ("anisotropic", np.int16)}:
        pytest.skip("a net: two grids of the ten are enough, storage order is tested apart")
    scan = scan_for(listed, GRIDS[grid], dtype)
    before = scan.fingerprint()
    outcome = ran(listed, scan)
    check(listed, scan, outcome.result)
    assert scan.fingerprint() == before, "a model must not write into its input"
    assert outcome.result.history[-1].order is not None
    for extra in outcome.extras.values():
        assert extra.grid.same(scan.grid, 1e-6) or not listed.model.card.task.keeps_grid  # type: ignore[union-attr]


@named(RUN)
def test_storage_order_does_not_change_the_answer(listed: registry.Listed) -> None:
    needed(listed)
    if slow_series(listed):
        pytest.skip("it learns slice by slice in storage order, so the answers differ by chance")
    scan = scan_for(listed, GRIDS["oblique"])
    plain = ran(listed, scan).result
    axes = "SRP" if listed.model and listed.model.card.wants.axes else "RAS"
    other = ran(listed, scan.turned(axes)).result.turned(plain.grid.axes)
    assert other.grid.same(plain.grid, 1e-4)
    if isinstance(plain, Labels):
        assert np.array_equal(other.data, plain.data)
    else:  # sums taken in another order differ in the last digits
        span = float(plain.data.max()) - float(plain.data.min())
        assert np.allclose(other.data, plain.data, rtol=0, atol=1e-4 * span)


@named(RUN)
def test_a_thin_or_tiny_scan_is_done_or_refused_with_a_sentence(listed: registry.Listed) -> None:
    needed(listed)
    for shape, spacing in (((31, 35, 3), (4.0, 4.0, 40.0)), ((1, 35, 29), (4.0, 4.0, 4.0)), ((5, 4, 3), (9.0, 9.0, 9.0))):
        scan = scan_for(listed, grid_of(shape, spacing))
        with contextlib.suppress(MriError):  # a refusal of ours is an answer too; any other error is not
            check(listed, scan, ran(listed, scan).result)


@named(RUN)
def test_stop_is_obeyed(listed: registry.Listed) -> None:
    needed(listed)
    stop = threading.Event()
    seen: list[float] = []

    def on_report(fraction: float, text: str) -> None:
        seen.append(fraction)
        stop.set()

    scan = scan_for(listed, GRIDS["plain"])
    with pytest.raises(Cancelled):
        tasks.run(Order(listed.task, listed.name, {}), scan, LocalRuntime("cpu", on_report, stop), others_for(listed, scan))
    assert len(seen) == 1


def opened(listed: registry.Listed, scan: Volume) -> tasks.ScanSession:
    """Open a session; a model that works only with a file of the user's is skipped with its own reason."""
    try:
        return tasks.open_session(Order(listed.task, listed.name, {}), scan, LocalRuntime("cpu"))
    except WeightsProblem as reason:
        pytest.skip(str(reason))


@named(OPEN)
@pytest.mark.parametrize("grid", GRIDS)
def test_session_answers_on_the_scans_grid(listed: registry.Listed, grid: str) -> None:
    needed(listed)
    if heavy(listed) and grid not in {"oblique", "anisotropic"}:
        pytest.skip("a net: two grids of the five are enough")
    scan = scan_for(listed, GRIDS[grid], np.int16)
    with opened(listed, scan) as session:
        first, again = session.answer(marks(listed)), session.answer(marks(listed))
    check(listed, scan, first)
    assert np.array_equal(first.data, again.data), "the same prompts must give the same answer"
    assert first.data.any()
    inside = blob(scan.grid, MIDDLE, (60, 60, 60))
    assert inside[first.data > 0].mean() > 0.9


@named(OPEN)
def test_session_refuses_a_point_outside_the_scan(listed: registry.Listed) -> None:
    needed(listed)
    scan = scan_for(listed, GRIDS["plain"])
    with opened(listed, scan) as session, pytest.raises(MriError):
        session.answer(Prompts((Point((900.0, 0.0, 0.0)),)))
