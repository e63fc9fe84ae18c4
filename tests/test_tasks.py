"""The one road: the answer comes home to the scan's grid, or the run is refused with a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from napari_mri import registry, tasks
from napari_mri.core.errors import (
    BadOption,
    BadPrompt,
    Cancelled,
    GeometryProblem,
    GridMismatch,
    MriError,
    UnsupportedImage,
)  # fmt: skip
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order, Step
from napari_mri.core.model import DENOISE, SEGMENT, SKULLSTRIP, SUPERRES, Card, Model, Session, Wants, knob
from napari_mri.core.prompts import Box, Point, Prompts, Slab
from napari_mri.core.volume import Frames, Origin, Volume
from napari_mri.engine.runtime import LocalRuntime
from tests.scans import GRIDS, blob, head

SEEN: list[Volume] = []


@dataclass(frozen=True)
class Params:
    level: float = knob(0.0, "Level.", low=-10, high=1e6)


def _corner(scan, p, rt):
    """Mark the voxel nearest to the right anterior superior corner: array position (-1, -1, -1) in RAS."""
    SEEN.append(scan)
    data = np.zeros(scan.grid.shape, np.uint8)
    data[-2, -2, -2] = 1
    rt.offer("ramp", scan.with_data(np.arange(data.size, dtype=np.float32).reshape(data.shape)))
    return scan.with_labels(data, {1: "corner"})


def _above(scan, p, rt):
    return scan.with_labels(scan.data > p.level)


class _Ball(Session):
    def __init__(self, scan):
        self.scan, self.closed = scan, False

    def answer(self, prompts):
        index = np.stack(np.meshgrid(*map(np.arange, self.scan.grid.shape), indexing="ij"), -1)
        near = np.zeros(self.scan.grid.shape, bool)
        for point in prompts.of(Point):
            near |= np.linalg.norm(self.scan.grid.to_patient(index) - point.xyz, axis=-1) < 9
        return self.scan.with_labels(near)

    def close(self):
        self.closed = True


def _double(scan, p, rt):
    grid = scan.grid.respaced(np.asarray(scan.spacing) / 2)
    data = scan.data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return Volume(data, grid)


def _slow(scan, p, rt):
    for n in range(1000):
        rt.report(n / 1000)
    return scan


def _card(name, task=SKULLSTRIP, **more):
    return Card(name, task, name, **more)


MODELS = (
    Model(_card("corner"), Params, run=_corner),
    Model(_card("above"), Params, run=_above),
    Model(_card("own_axes", wants=Wants(axes="")), Params, run=_corner),
    Model(_card("elsewhere"), run=lambda s, p, rt: Volume(s.data, s.grid.cropped((0, 0, 0), s.grid.shape)).turned("LPS")),
    Model(_card("grey"), run=lambda s, p, rt: s),
    Model(_card("nan", DENOISE), run=lambda s, p, rt: s.with_data(np.full(s.data.shape, np.nan))),
    Model(_card("slow", DENOISE), run=_slow),
    Model(_card("whole", DENOISE, wants=Wants(frames=True, min_frames=3)), run=lambda s, p, rt: s.with_data(s.data * 2)),
    Model(_card("inventive", DENOISE, invents=True), run=lambda s, p, rt: s),
    Model(_card("double", SUPERRES), run=_double),
    Model(_card("joined", SUPERRES, wants=Wants(others=1)), run=_double),
    Model(_card("ball", SEGMENT, prompts=(Point,)), open=lambda s, p, rt: _Ball(s)),
)


@pytest.fixture(autouse=True)
def toy_models(monkeypatch):
    monkeypatch.setattr(registry, "_found", lambda: MODELS)
    SEEN.clear()


def run(name, scan, task="skullstrip", rt=None, **params):
    return tasks.run(Order(task, name, params), scan, rt)


@pytest.mark.parametrize("name", GRIDS)
def test_the_answer_lies_on_the_scan_and_says_the_same_place(name):
    scan = head(GRIDS[name])
    outcome = run("corner", scan)
    assert SEEN[0].grid.axes == "RAS"
    assert outcome.result.grid is scan.grid
    (voxel,) = np.argwhere(outcome.result.data)
    expected = SEEN[0].grid.to_patient(np.asarray(SEEN[0].grid.shape) - 2)
    assert np.allclose(scan.grid.to_patient(voxel), expected, atol=1e-6)
    ramp = outcome.extras["ramp"]
    assert ramp.grid.same(scan.grid, 1e-9)
    place = tuple(np.rint(SEEN[0].grid.to_voxels(scan.grid.to_patient((1, 2, 3)))).astype(int))
    assert ramp.data[1, 2, 3] == np.ravel_multi_index(place, SEEN[0].grid.shape)


def test_a_model_may_ask_for_the_scans_own_axes():
    scan = head(GRIDS["permuted"])
    run("own_axes", scan)
    assert SEEN[0].grid is scan.grid


def test_history_tells_what_made_it_and_can_be_replayed():
    scan = head(GRIDS["oblique"])
    first = run("above", scan, level=300)
    step = first.result.history[-1]
    assert step.order == Order("skullstrip", "above", {"level": 300.0})
    assert step.facts["input"] == scan.fingerprint()
    assert step.facts["device"] == "cpu"
    again = tasks.replay(Step.from_json(step.to_json()), scan)
    assert np.array_equal(again.result.data, first.result.data)


def test_replay_refuses_another_scan_and_steps_without_order():
    scan = head(GRIDS["plain"])
    step = run("above", scan, level=300).result.history[-1]
    with pytest.raises(GridMismatch, match="not the scan"):
        tasks.replay(step, head(GRIDS["plain"], seed=1))
    with pytest.raises(MriError, match="cannot be repeated"):
        tasks.replay(Step("edited by hand"), scan)


def test_four_dimensions_frame_by_frame():
    grid = GRIDS["flipped"]
    data = np.stack([head(grid, seed=n).data * (n + 1) for n in range(3)], -1)
    scan = Volume(data, grid, frames=Frames("time", 2.0, "s"))
    seen = []
    outcome = run("above", scan, rt=LocalRuntime(on_report=lambda f, t: seen.append(f)), level=900)
    assert outcome.result.data.shape == data.shape
    assert outcome.result.frames == scan.frames
    for n in range(3):
        assert np.array_equal(outcome.result.data[..., n], data[..., n] > 900)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert run("corner", scan).extras["ramp"].data.shape == data.shape


def test_a_series_model_gets_the_series_whole_and_refuses_single_volumes():
    grid = GRIDS["plain"]
    scan = Volume(np.ones((*grid.shape, 3), np.float32), grid)
    assert run("whole", scan, "denoise").result.data.max() == 2
    with pytest.raises(UnsupportedImage, match="at least 3 frames"):
        run("whole", scan.frame(0), "denoise")


def test_a_finer_grid_comes_home_turned():
    scan = head(GRIDS["permuted"])
    result = run("double", scan, "superres").result
    assert result.grid.axes == scan.grid.axes
    assert np.abs(np.sort(result.grid.corners(), 0) - np.sort(scan.grid.corners(), 0)).max() < 1e-6
    assert np.array_equal(result.data[::2, ::2, ::2], scan.data)


def test_what_lies_elsewhere_is_refused():
    with pytest.raises(GridMismatch, match="another grid"):
        run("elsewhere", head(GRIDS["plain"]))
    with pytest.raises(GridMismatch, match="grey values"):
        run("grey", head(GRIDS["plain"]))


def test_nan_never_leaves():
    with pytest.raises(MriError, match="thrown away"):
        run("nan", head(GRIDS["plain"]), "denoise")


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (np.zeros((5, 5, 1)), GeometryProblem, "at least 3 voxels"),
        (np.zeros((5, 5, 5), complex), UnsupportedImage, "grey values"),
        (np.full((5, 5, 5), np.nan), UnsupportedImage, "NaN"),
    ],
)
def test_bad_scans_are_refused_before_any_work(data, error, says):
    with pytest.raises(error, match=says):
        run("corner", Volume(data, Grid.plain(data.shape)))
    assert not SEEN


@pytest.mark.parametrize("given", ["scan.nii.gz", np.zeros((5, 5, 5)), None])
def test_what_is_no_scan_is_refused_with_the_way_to_one(given):
    scan = head(GRIDS["plain"])
    hint = "with_data" if isinstance(given, np.ndarray) else "mri.load"
    for order, first, others in (
        (Order("skullstrip", "corner"), given, ()), (Order("superres", "joined"), scan, (given,)),
    ):  # fmt: skip
        with pytest.raises(BadOption, match="needs a Volume, not") as told:
            tasks.run(order, first, others=others)
        assert hint in told.value.hint
    with pytest.raises(BadOption, match="needs a Volume, not"):
        tasks.open_session(Order("segment", "ball"), given)


@pytest.mark.parametrize("marks", [Point((0, 0, 0)), (Point((0, 0, 0)),), [Point((0, 0, 0))], None])
def test_marks_come_as_prompts(marks):
    with tasks.open_session(Order("segment", "ball"), head(GRIDS["plain"])) as session:
        with pytest.raises(BadPrompt, match="given as Prompts") as told:
            session.answer(marks)
        assert "mri.Prompts" in told.value.hint


def test_a_repeated_run_tells_that_the_weights_differ():
    scan = head(GRIDS["plain"])
    step = run("above", scan, level=300).result.history[-1]
    assert not any("weights" in w for w in tasks.replay(step, scan).warnings)
    other = replace(step, facts={**step.facts, "weights": {"a.safetensors": "0"}})
    assert any("weights differ" in w for w in tasks.replay(other, scan).warnings)


def test_bad_options_are_refused_before_any_work():
    with pytest.raises(BadOption):
        run("corner", head(GRIDS["plain"]), level="high")
    assert not SEEN


def test_warnings_for_empty_and_cut_off_masks():
    scan = head(GRIDS["flipped"])
    assert "empty" in run("above", scan, level=1e6).warnings[0]
    cut = run("above", scan, level=-1).warnings
    assert "touches the edge" in cut[0]
    assert "left" in cut[0]
    assert run("above", scan.with_data(blob(scan.grid) * 9.0), level=5).warnings == ()


def test_the_side_that_is_touched_has_the_right_name():
    for name in ("plain", "flipped", "permuted"):
        grid = GRIDS[name].turned("RAS")
        data = np.zeros(grid.shape)
        data[-1, 5, 5] = 9.0
        scan = Volume(data, grid).turned(GRIDS[name].axes)
        assert "(right)" in run("above", scan, level=5).warnings[0]


def test_inventive_models_say_so():
    outcome = run("inventive", head(GRIDS["plain"]), "denoise")
    assert "invent" in outcome.warnings[0]
    assert outcome.result.history[-1].facts["invents"]


def test_stop_stops():
    rt = LocalRuntime(on_report=lambda f, t: rt.cancel.set() if f > 0.1 else None)
    with pytest.raises(Cancelled):
        run("slow", head(GRIDS["plain"]), "denoise", rt)
    assert rt.cancel.is_set()


@pytest.mark.parametrize("name", GRIDS)
def test_clicks_hit_the_voxel_they_mean(name):
    scan = head(GRIDS[name])
    voxel = np.array([9, 12, 7])
    place = tuple(scan.grid.to_patient(voxel))
    with tasks.open_session(Order("segment", "ball"), scan) as session:
        mask = session.answer(Prompts((Point(place),)))
        more = session.answer(Prompts((Point(place), Point(tuple(scan.grid.centre)))))
        undone = session.answer(Prompts((Point(place),)))
    assert mask.data[tuple(voxel)]
    assert np.abs(np.argwhere(mask.data).mean(0) - voxel).max() < 1
    assert more.data.sum() > mask.data.sum()
    assert np.array_equal(mask.data, undone.data)
    assert session._inner.closed
    again = tasks.replay(mask.history[-1], scan)
    assert np.array_equal(again.result.data, mask.data)


@pytest.mark.parametrize("name", GRIDS)
def test_a_range_of_slices_cuts_the_answer_and_nothing_else(name):
    scan = head(GRIDS[name])
    place = scan.grid.to_patient((9, 12, 7))
    for axis in range(3):
        normal = scan.grid.directions[:, axis]
        slab = Slab(tuple(normal), float(place @ normal), float(place @ normal) + 40)
        with tasks.open_session(Order("segment", "ball"), scan) as session:
            whole = session.answer(Prompts((Point(tuple(place)),)))
            part = session.answer(Prompts((slab, Point(tuple(place)))))
        expected = whole.data.copy()
        expected[tuple(slice(0, (9, 12, 7)[axis]) if a == axis else slice(None) for a in range(3))] = 0
        assert np.array_equal(part.data, expected)
        assert 0 < part.data.sum() < whole.data.sum()
        assert np.array_equal(tasks.replay(part.history[-1], scan).result.data, part.data)


def test_prompts_that_cannot_be_are_refused():
    scan = head(GRIDS["plain"])
    with tasks.open_session(Order("segment", "ball"), scan) as session:
        with pytest.raises(BadPrompt, match="outside the scan"):
            session.answer(Prompts((Point((900, 0, 0)),)))
        with pytest.raises(BadPrompt, match="takes no box"):
            session.answer(Prompts((Box((0, 0, 0), (5, 5, 5)),)))
        with pytest.raises(BadPrompt, match="at least one positive"):
            session.answer(Prompts((Point(tuple(scan.grid.centre), positive=False),)))
    with pytest.raises(BadPrompt, match="Open a session"):
        run("ball", scan, "segment")
    with pytest.raises(UnsupportedImage, match="one volume"):
        tasks.open_session(Order("segment", "ball"), replace(scan, data=np.stack([scan.data] * 2, -1)))


def test_a_by_product_has_the_past_of_the_scan_it_was_made_from():
    first = replace(head(GRIDS["oblique"]), history=(Step("denoise by nlpca"),), origin=Origin("FLAIR", "nifti"))
    other = replace(head(GRIDS["oblique"], seed=2), origin=Origin("T1", "nifti", fields={"descrip": "raw"}))
    model = registry.find("superres", "double")
    extras = {"residual": first.with_data(first.data), "second": other, "bare": Volume(first.data, first.grid)}
    made = tasks._named(extras, first, model, Step("superres by double"))
    assert [step.action for step in made["residual"].history] == ["denoise by nlpca", "residual by double"]
    assert [step.action for step in made["bare"].history] == ["denoise by nlpca", "bare by double"]
    assert [step.action for step in made["second"].history] == ["second by double"]
    assert made["second"].origin == other.origin
    assert made["residual"].origin == made["bare"].origin == first.origin


@pytest.mark.parametrize(("value", "says"), [(np.nan, "NaN"), (-np.inf, "NaN"), (1e19, "single precision"), (-2e300, "single precision")])
def test_values_that_cannot_be_worked_with_are_refused(value, says):
    scan = head(GRIDS["plain"])
    data = np.array(scan.data, dtype=np.float64)
    data[3, 4, 5] = value
    with pytest.raises(UnsupportedImage, match=says):
        tasks.check_scan(registry.find("superres", "double"), scan.with_data(data))
    tasks.check_scan(registry.find("superres", "double"), scan.with_data(np.where(np.abs(data) < 1e6, data * 1e10, 0)))
