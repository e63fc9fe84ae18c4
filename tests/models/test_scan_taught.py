"""Super-resolution that learns from the scans themselves: gains on the phantom, exact grids, and every refusal."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'models')")

from napari_mri import phantom, tasks
from napari_mri.core.errors import BadOption, Cancelled, GeometryProblem, GridMismatch, MriError, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.consistency import consistency, slicing
from napari_mri.models import _align as align
from napari_mri.models import inr
from napari_mri.models._planes import pairs_of, parts_of
from napari_mri.models._superres import Wish
from tests.scans import GRIDS, _rotation, grid_of, head


def run(model: str, scan: Volume, *others: Volume, **options: object) -> tasks.Outcome:
    return tasks.run(Order("superres", model, dict(options)), scan, LocalRuntime("cpu"), others)


def psnr(found: np.ndarray, truth: np.ndarray) -> float:
    inside = truth > 0.08 * np.percentile(truth, 99.5)
    return float(20 * np.log10(np.ptp(truth) / np.sqrt(np.mean((found - truth)[inside] ** 2))))


def sliced(truth: Volume, factor: float, axis: int) -> Volume:
    spacing = np.array(truth.spacing)
    spacing[axis] *= factor
    model = slicing(truth.grid.respaced(spacing), truth.grid)
    return Volume(model.sampled(truth.data), model.scan)


def anatomy(spacing: float, low: tuple[int, ...], high: tuple[int, ...], contrast: str = "T1") -> Volume:
    """Return a noise-free piece of the phantom's head."""
    grid = phantom.default_grid(spacing).cropped(low, high)
    scan, _ = phantom.head(grid, contrast, noise=0.0, bias=0.1)
    return Volume(scan.data.astype(np.float32), grid)


@pytest.fixture(scope="module")
def brain() -> Volume:
    return anatomy(2.0, (16, 16, 40), (80, 96, 72))


# ------------------------------------------------------------------------------------------ self


@pytest.mark.slow
def test_its_own_planes_teach_more_than_the_spline_knows(brain):
    scan = sliced(brain, 4, 2)
    plain = run("cubic", scan, spacing=2.0).result
    found = run("self", scan, spacing=2.0, steps=150, minutes=60.0).result
    assert found.grid.same(brain.grid)
    assert psnr(found.data, brain.data) > psnr(plain.data, brain.data) + 0.3
    assert consistency(scan, found).percent < 0.5


@pytest.mark.parametrize(("axes", "axis", "factor"), [("RAS", 2, 4), ("LIP", 1, 3), ("SRA", 0, 2.5)])
def test_any_axis_and_factor(axes, axis, factor):
    fine = head(grid_of((30, 30, 30), (2.0, 2.0, 2.0), axes, (7.0, -3.0, 4.0)))
    scan = sliced(fine, factor, axis)
    result = run("self", scan, steps=3).result
    assert result.grid.axes == scan.grid.axes
    assert np.linalg.norm(result.grid.corners() - scan.grid.corners(), axis=1).max() < 0.01
    assert consistency(scan, result).percent < 0.5
    assert result.data.min() >= 0


def test_gaps_and_a_finer_wish_than_the_planes_have():
    scan = sliced(head(grid_of((30, 30, 30), (2.0, 2.0, 2.0))), 3, 2)
    result = run("self", scan, spacing=1.5, thickness=4.0, steps=3)
    assert np.allclose(result.result.spacing, 1.5)
    assert any("not measured" in w for w in result.warnings)


@pytest.mark.parametrize("scan", [head(GRIDS["plain"]), head(grid_of((31, 35, 4), (4.0, 4.0, 40.0)))], ids=["cubes", "ten"])
def test_where_nothing_can_be_learned_it_says_so_and_gives_the_spline(scan):
    found = run("self", scan, spacing=4.0, steps=3)
    assert any("this is the cubic spline" in w for w in found.warnings) or scan.grid.shape[2] == 4
    if scan.grid.shape[2] != 4:
        assert np.array_equal(found.result.data, run("cubic", scan, spacing=4.0).result.data)


def test_a_stop_while_learning_keeps_the_best_so_far():
    scan = sliced(head(grid_of((32, 32, 32), (2.0, 2.0, 2.0))), 4, 2)
    stop = threading.Event()

    def heard(fraction: float, text: str) -> None:
        if "step 27" in text:
            stop.set()

    outcome = tasks.run(Order("superres", "self", {"steps": 200, "minutes": 60.0}), scan, LocalRuntime("cpu", heard, stop))
    assert any("best so far" in w for w in outcome.warnings)
    stop.clear()

    def at_once(fraction: float, text: str) -> None:
        if "step 3" in text:
            stop.set()

    with pytest.raises(Cancelled):
        tasks.run(Order("superres", "self", {"steps": 200, "minutes": 60.0}), scan, LocalRuntime("cpu", at_once, stop))


def test_pairs_are_what_the_scanner_would_have_made(brain):
    planes = brain.data[:40, :30, :5]
    made = pairs_of(planes, (8.0, 2.0), (4, 1), Wish(), seed=0)
    assert len(made) == 3
    first = made[0]
    assert first.parts == (4, 1)
    assert first.coarse.shape == (5, 10, 30)
    assert np.allclose(first.coarse, planes.reshape(10, 4, 30, 5).mean(axis=1).transpose(2, 0, 1), atol=1e-2)
    assert np.array_equal(first.truth, planes.transpose(2, 0, 1))
    noisy = pairs_of(planes, (8.0, 2.0), (4, 1), Wish(), seed=0, sigma=20.0)[0]
    # A mean of four has half the noise; the other three quarters of its variance are put back.
    assert np.std(noisy.coarse - first.coarse) == pytest.approx(20 * np.sqrt(3 / 4), rel=0.1)
    assert pairs_of(planes[:11], (8.0, 2.0), (4, 1), Wish(), seed=0) == []
    assert (parts_of(5, 1), parts_of(4.4, 1), parts_of(1, 1), parts_of(1, 1, 2)) == (5, 4, 1, 2)


# ------------------------------------------------------------------------------------------- inr


@pytest.fixture(scope="module")
def views() -> list[tuple[Volume, Volume]]:
    made = []
    for contrast, axis in (("T1", 2), ("T2", 1)):
        truth = anatomy(4.0, (8, 8, 20), (40, 48, 48), contrast)
        made.append((truth, sliced(truth, 4, axis)))
    return made


@pytest.mark.slow
def test_two_views_beat_the_spline_and_one_view(views):
    (truth, scan), (other_truth, other) = views
    options = {"spacing": 4.0, "register": "off", "steps": 200, "minutes": 60.0}
    joint = run("inr", scan, other, **options)
    assert psnr(joint.result.data, truth.data) > psnr(run("cubic", scan, spacing=4.0).result.data, truth.data) + 0.5
    second = joint.extras["second"]
    assert second.grid.same(other_truth.grid)
    assert psnr(second.data, other_truth.data) > psnr(run("cubic", other, spacing=4.0).result.data, other_truth.data) + 0.5
    single = run("inr", scan, **options)
    assert "second" not in single.extras
    assert psnr(joint.result.data, truth.data) > psnr(single.result.data, truth.data) + 0.1


def test_a_small_scan_is_fitted_for_fewer_steps_unless_they_are_asked_for(views, monkeypatch):
    (_, scan), _ = views
    plans = []

    def heard(field, loss, judge, plan, rt):
        plans.append(plan)
        return field

    monkeypatch.setattr(inr, "learn", heard)
    run("inr", scan, preset="best")
    run("inr", scan, preset="best", steps=7)
    monkeypatch.setattr(inr, "DRAWS", 100_000)
    run("inr", scan, preset="best")
    assert [plan.steps for plan in plans] == [inr.FEWEST, 7, inr.PRESETS["best"].steps]


def test_further_scans_stand_in_the_history_and_replay_asks_for_them(views):
    (_, scan), (_, other) = views
    joint = run("inr", scan, other, steps=3, register="off")
    assert consistency(scan, joint.result).percent < 0.5
    step = joint.result.history[-1]
    assert step.facts["others"] == [other.fingerprint()]
    again = tasks.replay(step, scan, LocalRuntime("cpu"), (other,))
    assert np.array_equal(again.result.data, joint.result.data)
    with pytest.raises(GridMismatch, match="further scans"):
        tasks.replay(step, scan, LocalRuntime("cpu"))
    with pytest.raises(GridMismatch, match="further scans"):
        tasks.replay(step, scan, LocalRuntime("cpu"), (scan,))
    assert "others" not in run("inr", scan, steps=3).result.history[-1].facts


def test_scans_that_do_not_belong_together_are_refused(views):
    (_, scan), (_, other) = views
    affine = other.grid.affine.copy()
    affine[0, 3] += 100
    with pytest.raises(GridMismatch, match="less than half"):
        run("inr", scan, replace(other, grid=Grid(other.grid.shape, affine)), steps=3)
    with pytest.raises(BadOption, match="at most 3"):
        run("inr", scan, other, other, other, steps=3)
    with pytest.raises(BadOption, match="given twice"):
        run("inr", scan, scan.with_data(scan.data.copy()), steps=3)
    with pytest.raises(BadOption, match="takes one scan"):
        run("cubic", scan, other)
    series = Volume(np.stack([other.data] * 2, axis=-1), other.grid)
    with pytest.raises(UnsupportedImage):
        run("inr", scan, series, steps=3)


def test_with_several_scans_the_default_is_a_model_that_takes_them(views):
    (_, scan), (_, other) = views
    outcome = run("auto", scan, other, steps=3, register="off")
    assert outcome.result.history[-1].order.model == "inr"


def test_scans_out_of_register_are_noticed_and_moved():
    pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (extra 'models')")
    grid = phantom.default_grid(4.0)
    first = anatomy(4.0, (0, 0, 0), grid.shape)
    second = anatomy(4.0, (0, 0, 0), grid.shape, "T2")
    rt = LocalRuntime("cpu")
    assert align.distance(align.motion(first, second, rt), grid) < 1.0
    turn = np.eye(4)
    turn[:3, :3] = _rotation(3.0, -4.0, 5.0)
    turn[:3, 3] = (4.0, -6.0, 3.0)
    lost = align.moved(second, turn)
    back = align.motion(first, lost, rt)
    assert align.distance(turn, grid) > 6
    assert align.distance(back @ turn, grid) < 1.5
    outcome = run("inr", sliced(first, 3, 2), lost, steps=2, spacing=4.0)
    assert any("out of register" in w for w in outcome.warnings)
    outcome = run("inr", sliced(first, 3, 2), lost, steps=2, spacing=4.0, register="rigid")
    assert any("was moved" in w for w in outcome.warnings)


def test_registration_knows_scans_of_any_range_and_gives_the_same_twice():
    pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (extra 'models')")
    grid = phantom.default_grid(4.0)
    first, second = anatomy(4.0, (0, 0, 0), grid.shape), anatomy(4.0, (0, 0, 0), grid.shape, "T2")
    values = np.asarray(second.data, np.float32)
    far = np.eye(4)
    far[:3, 3] = (5.0, 0.0, -4.0)
    rt = LocalRuntime("cpu")
    ways = []
    for seen in (values, (values - np.percentile(values, 90)) / values.std(), -values, values * np.float32(1e-9)):
        lost = align.moved(second.with_data(seen.astype(np.float32)), far)
        ways.append(align.motion(first, lost, rt))
        assert align.distance(ways[-1] @ far, grid) < 1.5
    assert np.array_equal(align.motion(first, lost, rt), ways[-1])


@pytest.mark.parametrize("register", ["check", "rigid"])
def test_a_scan_that_nothing_can_be_compared_with_is_told(register):
    pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (extra 'models')")
    scan = sliced(anatomy(4.0, (0, 0, 0), (24, 26, 24)), 3, 2)
    even = scan.with_data(np.full_like(scan.data, 7.0))
    if register == "rigid":
        with pytest.raises(MriError, match="the same value"):
            run("inr", scan, even, steps=2, spacing=4.0, register=register)
    else:
        outcome = run("inr", scan, even, steps=2, spacing=4.0, register=register)
        assert any("is in register is not known" in w for w in outcome.warnings)


def test_units_as_small_as_they_come_change_nothing():
    scan = sliced(anatomy(4.0, (0, 0, 0), (24, 26, 24)), 3, 2)
    plain = run("inr", scan, steps=5, spacing=4.0).result.data
    small = run("inr", scan.with_data(np.float32(scan.data) * np.float32(1e-9)), steps=5, spacing=4.0).result.data
    assert np.abs(small * 1e9 - plain).max() < 1e-3 * plain.max()


# --------------------------------------------------------------------------------------- dynamic


def series_of(truth: Volume, factor: int) -> Volume:
    frames = [sliced(sliced(Volume(truth.data * gain, truth.grid), factor, 0), factor, 1) for gain in (1.0, 0.5)]
    told = Frames("diffusion", bvals=(0.0, 700.0), bvecs=((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)))
    return Volume(np.stack([frame.data for frame in frames], axis=-1), frames[0].grid, frames=told)


@pytest.mark.slow
def test_a_static_scan_teaches_a_series_of_another_place(brain):
    static = anatomy(2.0, (16, 16, 76), (80, 96, 84))
    scan = series_of(brain, 2)
    plain = run("cubic", scan, spacing=2.0).result
    found = run("dynamic", scan, static, steps=150, minutes=60.0).result
    assert found.grid.same(plain.grid)
    assert (found.frames.bvals, found.frames.bvecs) == (scan.frames.bvals, scan.frames.bvecs)
    for number, gain in enumerate((1.0, 0.5)):
        truth = brain.data * np.float32(gain)
        assert psnr(found.data[..., number], truth) > psnr(plain.data[..., number], truth) + 0.3


def test_one_scale_serves_the_series_exactly():
    fine = head(grid_of((32, 32, 12), (2.0, 2.0, 2.0)))
    found = run("dynamic", series_of(fine, 2), fine, steps=60).result
    # A net without biases: half as bright a frame gets half of everything.
    assert np.allclose(found.data[..., 1], found.data[..., 0] / 2, atol=0.02)


def test_a_static_scan_is_needed_and_must_be_finer():
    fine = head(grid_of((32, 32, 12), (2.0, 2.0, 2.0)))
    scan = series_of(fine, 2)
    with pytest.raises(BadOption, match="needs 2 scans"):
        run("dynamic", scan, steps=3)
    with pytest.raises(GeometryProblem, match="coarser"):
        run("dynamic", scan, sliced(sliced(fine, 2, 0), 2, 1), spacing=2.0, steps=3)
    small = replace(fine, data=fine.data[:5, :5], grid=fine.grid.cropped((0, 0, 0), (5, 5, 12)))
    with pytest.raises(GeometryProblem, match="too small"):
        run("dynamic", scan, small, steps=3)
