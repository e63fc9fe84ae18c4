"""The trained refiner: nearer to the truth than the spline, the same in every storage order, exact where it stands."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from napari_mri import phantom, tasks
from napari_mri.core.errors import Cancelled
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine import weights
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.consistency import consistency, slicing
from napari_mri.models import through_plane
from napari_mri.models._superres import Wish, way_of
from tests.scans import grid_of

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not weights.is_there(through_plane.WEIGHTS), reason="the weights are not here")

TILTED = grid_of((56, 60, 48), (1.0, 1.0, 1.0), "RAS", (9.0, -6.0, 14.0), (-20.0, 15.0, 20.0))


@cache
def fine(contrast: str = "T1") -> Volume:
    scan, _ = phantom.head(TILTED, contrast, noise=0.0)
    return scan.with_data(scan.data.astype(np.float32))


def thick(truth: Volume, step: float, axis: int = 2, width: float | None = None, profile: str = "box") -> Volume:
    spacing, widths = np.array(truth.spacing), np.array(truth.spacing)
    spacing[axis], widths[axis] = step, step if width is None else width
    model = slicing(truth.grid.respaced(spacing), truth.grid, widths, profile)
    return Volume(model.sampled(truth.data), model.scan)


def run(scan: Volume, model: str = "through_plane", rt: LocalRuntime | None = None, **options: object) -> tasks.Outcome:
    return tasks.run(Order("superres", model, {"spacing": 1.0, **options}), scan, rt or LocalRuntime("cpu"))


def psnr(found: Volume, truth: Volume) -> float:
    error = found.turned(truth.grid.axes).data[tuple(slice(0, n) for n in truth.grid.shape)] - truth.data
    return float(20 * np.log10(np.ptp(truth.data) / np.sqrt(np.mean(error**2))))


def gain(scan: Volume, truth: Volume, **options: object) -> float:
    return psnr(run(scan, **options).result, truth) - psnr(run(scan, "cubic", **options).result, truth)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_it_beats_the_spline_whatever_axis_the_slices_lie_along(axis, contrast):
    assert gain(thick(fine(contrast), 4.0, axis), fine(contrast)) > 0.5


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (2.0, {}),
        (6.0, {}),
        (3.2, {}),
        (4.0, {"thickness": 2.8}),
        (3.0, {"thickness": 4.0}),
        (4.0, {"profile": "gaussian"}),
        (4.0, {"variants": 4}),
    ],
)
def test_it_beats_the_spline_for_other_slices(step, options):
    scan = thick(fine(), step, 2, options.get("thickness"), options.get("profile", "box"))
    shared = {k: v for k, v in options.items() if k != "variants"}
    found, plain = run(scan, **options).result, run(scan, "cubic", **shared).result
    assert psnr(found, fine()) > psnr(plain, fine()) + 0.1


@pytest.mark.parametrize("axes", ["LIP", "SRA"])
def test_storage_order_changes_nothing(axes):
    scan = thick(fine(), 4.0)
    there = run(scan.turned(axes)).result
    assert there.grid.axes == axes
    assert np.allclose(there.turned("RAS").data, run(scan).result.turned("RAS").data, atol=1e-2)


def test_outer_corners_stay_and_the_scan_is_given_back():
    scan = thick(fine(), 4.0)
    outcome = run(scan)
    assert np.linalg.norm(outcome.result.grid.corners() - scan.grid.corners(), axis=1).max() < 0.01
    assert outcome.result.grid.same(fine().grid, 1e-3)
    assert consistency(scan, outcome.result).percent < 0.1
    assert outcome.extras["residual"].grid.same(scan.grid, 1e-6)
    assert consistency(scan, run(scan, consistent=False).result).percent > 0.1


def test_brightness_and_offset_go_through():
    scan = thick(fine(), 4.0)
    found = run(scan).result.data
    other = run(replace(scan, data=0.01 * scan.data + 5)).result.data
    inside = found > 1  # at 0 one of the two may be cut off
    assert np.abs((other - 5) / 0.01 - found)[inside].mean() < 1e-2 * np.ptp(found)


def test_tiles_join_without_a_seam(monkeypatch):
    scan = thick(fine(), 2.0)
    whole = run(scan).result.data
    monkeypatch.setattr(through_plane, "LONGEST_PLANE", 52)
    monkeypatch.setattr(through_plane, "LONGEST_STACK", 18)
    cut = through_plane.cut((24, 68, 72), 2)
    assert max(cut.size) <= 52
    assert np.abs(run(scan).result.data - whole).mean() < 2e-3 * np.ptp(whole)


@pytest.mark.parametrize("shape", [(24, 268, 268), (40, 300, 517), (200, 256, 64), (3, 13, 15)])
def test_tiles_are_no_longer_than_they_may_be(shape):
    cut = through_plane.cut(shape, 2)
    assert all(s <= n for s, n in zip(cut.size, shape, strict=True))
    assert cut.size[0] <= through_plane.LONGEST_STACK + 2
    assert max(cut.size[1:]) <= through_plane.LONGEST_PLANE + 2
    assert 0 <= cut.overlap < 0.9


def test_slices_no_thicker_than_the_plane_are_left_to_the_spline():
    scan = replace(fine(), grid=Grid.plain(TILTED.shape, (2.0, 2.0, 2.2)))
    outcome = run(scan)
    assert any("network was not asked" in line for line in outcome.warnings)
    assert np.allclose(outcome.result.data, run(scan, "cubic").result.data, atol=1e-3)


def test_a_wish_finer_than_the_plane_is_met():
    scan = thick(fine(), 4.0)
    result = run(scan, spacing=0.7).result
    assert np.allclose(result.spacing, 0.7)
    assert consistency(scan, result).percent < 0.5


def test_frames_are_refined_one_by_one_and_progress_only_grows():
    scan = thick(fine(), 4.0)
    frames = Frames("diffusion", bvals=(0.0, 1000.0), bvecs=((0.0, 0.0, 0.0), (0.6, 0.0, 0.8)))
    series = Volume(np.stack([scan.data, scan.data * 0.25], axis=-1), scan.grid, frames=frames)
    told: list[float] = []
    outcome = run(series, rt=LocalRuntime("cpu", on_report=lambda share, text: told.append(share)), variants=2)
    assert outcome.result.frames == frames
    assert np.allclose(outcome.result.data[..., 1], outcome.result.data[..., 0] / 4, atol=0.5)
    assert told == sorted(told)


def test_a_scan_of_one_value_stays_so():
    scan = Volume(np.full((20, 22, 6), 7, np.int16), Grid.plain((20, 22, 6), (1, 1, 4)))
    assert np.allclose(run(scan).result.data, 7, atol=1e-3)


def test_stop_is_heard():
    stop = threading.Event()
    rt = LocalRuntime("cpu", on_report=lambda share, text: stop.set() if "tile" in text else None, cancel=stop)
    with pytest.raises(Cancelled):
        run(thick(fine(), 4.0), rt=rt)


@pytest.mark.parametrize("step", [1.5, 2.0, 3.7, 8.0, 11.0])
def test_fine_voxels_are_means_of_parts(step):
    way = way_of(Grid.plain((2, 2, 7), (1.0, 1.0, step)), Wish(spacing=1.0))
    matrix = through_plane.reading(way, 2, 8)
    assert matrix.shape == (way.fine.shape[2], 56)
    assert np.allclose(matrix.sum(axis=1), 1)
    assert matrix.min() >= 0
    place = (np.arange(56) + 0.5) * step / 8
    inner = (np.arange(len(matrix)) + 0.5) < 7 * step - 1
    assert np.allclose((matrix @ place)[inner], (np.arange(len(matrix)) + 0.5)[inner], atol=step / 16 + 1e-6)


class OnDevice(LocalRuntime):
    """The processor, taken for a GPU: the network and all sums in torch from the first voxel to the last."""

    @property
    def device(self) -> str:
        return "cpu:0"


@pytest.mark.parametrize(
    ("axis", "options"), [(2, {}), (1, {"spacing": 0.8, "variants": 4}), (0, {"consistent": False}), (2, {"spacing": 1.6})]
)
def test_a_gpu_gives_what_the_processor_gives(axis, options):
    scan = thick(fine(), 4.0, axis)
    here, there = run(scan, **options), run(scan, rt=OnDevice("cpu"), **options)
    peak = float(np.ptp(scan.data))
    assert np.abs(there.result.data - here.result.data).max() < 1e-3 * peak
    assert there.result.data.flags.c_contiguous == here.result.data.flags.c_contiguous
    assert there.result.data.dtype == np.float32
    assert there.warnings == here.warnings
    assert np.abs(there.extras["residual"].data - here.extras["residual"].data).max() < 1e-3 * peak


def test_a_gpu_joins_tiles_as_the_processor_does(monkeypatch):
    scan = thick(fine(), 2.0)
    monkeypatch.setattr(through_plane, "LONGEST_PLANE", 52)
    monkeypatch.setattr(through_plane, "LONGEST_STACK", 18)
    here, there = run(scan).result.data, run(scan, rt=OnDevice("cpu")).result.data
    assert np.abs(there - here).max() < 1e-3 * np.ptp(here)


def test_where_the_memory_of_a_gpu_ends_the_processor_goes_on(monkeypatch):
    def ended(*args: object) -> None:
        raise RuntimeError("CUDA out of memory")

    scan = thick(fine(), 4.0)
    monkeypatch.setattr(through_plane, "lacking_there", ended)
    outcome = run(scan, rt=OnDevice("cpu"))
    assert any("Memory of the" in line for line in outcome.warnings)
    assert np.array_equal(outcome.result.data, run(scan).result.data)
