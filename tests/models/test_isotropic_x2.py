"""Voxels halved along all axes: nearer to the truth than the spline, cleaner where there is noise, exact in its place."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from napari_mri import phantom, tasks
from napari_mri.core.errors import BadOption, Cancelled, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine import weights
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.consistency import consistency, slicing
from napari_mri.measure.noise import Noise
from napari_mri.models import isotropic_x2
from napari_mri.models._superres import Wish, way_to
from tests.scans import grid_of

pytest.importorskip("torch")
trained = pytest.mark.skipif(not weights.is_there(isotropic_x2.WEIGHTS), reason="the weights are not here")

TILTED = grid_of((60, 72, 64), (1.0, 1.0, 1.0), "RAS", (9.0, -6.0, 14.0), (-20.0, 15.0, 20.0))


@cache
def fine(contrast: str = "T1") -> Volume:
    scan, _ = phantom.head(TILTED, contrast, noise=0.0)
    return scan.with_data(scan.data.astype(np.float32))


def coarse(truth: Volume, noise: float = 0.0) -> Volume:
    """Measure voxels twice as large, with Rician noise in parts of the peak."""
    model = slicing(truth.grid.respaced(2 * np.asarray(truth.spacing)), truth.grid)
    data = model.sampled(truth.data)
    if noise:
        sigma = noise * float(np.percentile(truth.data, 99.5))
        draw = np.random.default_rng(0).normal(0, sigma, (2, *data.shape))
        data = np.hypot(data + draw[0], draw[1]).astype(np.float32)
    return Volume(data, model.scan)


def run(scan: Volume, rt: LocalRuntime | None = None, **options: object) -> tasks.Outcome:
    return tasks.run(Order("superres", "isotropic_x2", options), scan, rt or LocalRuntime("cpu"))


def spline(scan: Volume) -> np.ndarray:
    way = way_to(scan.grid, np.asarray(scan.spacing) / 2, Wish())
    return way.spline(way.start(scan.data))


def psnr(found: np.ndarray, truth: np.ndarray) -> float:
    head = truth > 0.08 * np.percentile(truth, 99.5)
    return float(20 * np.log10(np.ptp(truth) / np.sqrt(np.mean((found - truth)[head] ** 2))))


@trained
@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_it_beats_the_spline_on_a_clean_scan(contrast):
    truth = fine(contrast)
    scan = coarse(truth)
    assert psnr(run(scan).result.data, truth.data) > psnr(spline(scan), truth.data) + 0.5


@trained
def test_it_takes_the_noise_out_and_can_be_told_to_keep_it():
    scan, truth = coarse(fine(), 0.04), fine().data
    outcome = run(scan)
    assert psnr(outcome.result.data, truth) > psnr(spline(scan), truth) + 0.5
    assert any("taken out" in line for line in outcome.warnings)
    kept = run(scan, strength=0.0)
    assert psnr(outcome.result.data, truth) > psnr(kept.result.data, truth) + 0.7
    assert not any("taken out" in line for line in kept.warnings)
    assert consistency(scan, kept.result).percent < 0.5


@trained
def test_outer_corners_stay_and_a_clean_scan_is_given_back():
    scan = coarse(fine())
    outcome = run(scan, strength=0.0)
    result = outcome.result
    assert result.grid.shape == tuple(2 * n for n in scan.grid.shape)
    assert np.linalg.norm(result.grid.corners() - scan.grid.corners(), axis=1).max() < 0.01
    assert result.grid.same(fine().grid, 1e-3)
    assert consistency(scan, result).percent < 0.1
    assert outcome.extras["residual"].grid.same(scan.grid, 1e-6)
    assert any("Data consistency" in line for line in outcome.warnings)


@trained
@pytest.mark.parametrize("axes", ["LIP", "SRA"])
def test_storage_order_changes_nothing(axes):
    scan = coarse(fine())
    there = run(scan.turned(axes)).result
    assert there.grid.axes == axes
    assert np.allclose(there.turned("RAS").data, run(scan).result.turned("RAS").data, atol=1e-2)


@trained
def test_brightness_goes_through():
    scan = coarse(fine(), 0.02)
    found = run(scan, sigma=10.0).result.data
    other = run(replace(scan, data=0.01 * scan.data), sigma=0.1).result.data
    assert np.abs(100 * other - found).max() < 1e-2 * np.ptp(found)


@trained
def test_tiles_join_without_a_seam(monkeypatch):
    scan = coarse(fine())
    whole = run(scan).result.data
    monkeypatch.setattr(isotropic_x2, "LONGEST", 34)
    assert max(isotropic_x2.cut((42, 48, 44)).size) <= 34
    assert np.abs(run(scan).result.data - whole).mean() < 2e-3 * np.ptp(whole)


@pytest.mark.parametrize("shape", [(140, 140, 140), (268, 30, 517), (3, 120, 121)])
def test_tiles_are_no_longer_than_they_may_be(shape):
    cut = isotropic_x2.cut(shape)
    assert all(s <= min(n, isotropic_x2.LONGEST) for s, n in zip(cut.size, shape, strict=True))
    assert 0 <= cut.overlap < 0.9


@trained
def test_thick_slices_are_told_to_be_another_models_work():
    scan = Volume(coarse(fine()).data[:, :, ::3], Grid.plain((30, 36, 11), (2, 2, 6)))
    outcome = run(scan)
    assert any("through_plane" in line for line in outcome.warnings)
    assert outcome.result.spacing == pytest.approx((1, 1, 3))
    assert not any("through_plane" in line for line in run(coarse(fine())).warnings)


@trained
def test_an_interpolated_scan_and_strong_noise_are_told():
    truth = fine()
    way = way_to(truth.grid, np.full(3, 0.5), Wish())
    smooth = Volume(way.spline(way.start(truth.data))[:80, :80, :80], Grid.plain((80, 80, 80)))
    assert any("interpolated already" in line for line in run(smooth).warnings)
    assert any("more than this model was tried with" in line for line in run(coarse(fine(), 0.12)).warnings)


def test_what_is_not_sure_to_be_noise_stays(monkeypatch):
    found = Noise(3.0, 1.0, "rician", "detail", np.nan, 3.0, False, ("No air was found.",))
    monkeypatch.setattr(isotropic_x2, "noise_of", lambda *_: found)
    rt, scan = LocalRuntime("cpu"), coarse(fine())
    assert isotropic_x2._noise(scan, isotropic_x2.Params(), rt) is None
    assert any("no noise was taken out" in line for line in rt.warnings)
    monkeypatch.setattr(isotropic_x2, "noise_of", lambda *_: replace(found, trusted=True))
    assert isotropic_x2._noise(scan, isotropic_x2.Params(), rt) is not None
    assert isotropic_x2._noise(scan, isotropic_x2.Params(strength=0.0), rt) is None


@trained
def test_frames_are_refined_one_by_one_and_progress_only_grows():
    scan = coarse(fine())
    frames = Frames("diffusion", bvals=(0.0, 1000.0), bvecs=((0.0, 0.0, 0.0), (0.6, 0.0, 0.8)))
    series = Volume(np.stack([scan.data, scan.data * 0.25], axis=-1), scan.grid, frames=frames)
    told: list[float] = []
    outcome = run(series, rt=LocalRuntime("cpu", on_report=lambda share, text: told.append(share)), strength=0.0)
    assert outcome.result.frames == frames
    assert np.allclose(outcome.result.data[..., 1], outcome.result.data[..., 0] / 4, atol=0.5)
    assert told == sorted(told)


@trained
def test_a_scan_of_one_value_stays_so_and_stop_is_heard():
    scan = Volume(np.full((20, 22, 16), 7, np.int16), Grid.plain((20, 22, 16)))
    assert np.allclose(run(scan).result.data, 7, atol=0.05)
    stop = threading.Event()
    rt = LocalRuntime("cpu", on_report=lambda share, text: stop.set() if "tile" in text else None, cancel=stop)
    with pytest.raises(Cancelled):
        run(coarse(fine()), rt=rt)


def test_without_weights_one_sentence_tells(monkeypatch):
    missing = replace(isotropic_x2.WEIGHTS, file="not_there.safetensors", shipped=True)
    monkeypatch.setattr(isotropic_x2, "WEIGHTS", missing)
    with pytest.raises(WeightsProblem, match="are not here"):
        isotropic_x2.load_net(LocalRuntime("cpu"))


def test_what_noise_explains_is_not_put_back_and_what_it_does_not_is(monkeypatch):
    rng = np.random.default_rng(0)
    clean = coarse(fine()).data + 50
    noisy = (clean + rng.normal(0, 5, clean.shape)).astype(np.float32)
    rt = LocalRuntime("cpu")
    monkeypatch.setattr(isotropic_x2._nonlocal, "denoised", lambda *_: clean.copy())
    assert np.abs(isotropic_x2.explained(noisy, 5.0, False, rt) - clean).mean() < 0.5
    monkeypatch.setattr(isotropic_x2._nonlocal, "denoised", lambda *_: clean + 60)  # a denoiser gone wrong
    assert np.abs(isotropic_x2.explained(noisy, 5.0, False, rt) - noisy).mean() < 3


@pytest.mark.skipif(not weights.is_there(isotropic_x2.SHARPER), reason="the weights are not here")
def test_the_sharper_twin_says_what_it_is_and_has_more_detail():
    scan = coarse(fine())
    plain, sharper = run(scan, strength=0.0), run(scan, strength=0.0, sharper=True)
    assert any("may be invented" in line for line in sharper.warnings)
    assert not any("may be invented" in line for line in plain.warnings)
    edges = [np.abs(np.diff(one.result.data, axis=0)).mean() for one in (plain, sharper)]
    assert edges[1] > edges[0]
    assert consistency(scan, sharper.result).percent < 0.5
    assert not isotropic_x2.Params().sharper


def test_an_absurd_option_is_refused():
    with pytest.raises(BadOption):
        isotropic_x2.MODELS[0].settings({"strength": -1.0})
