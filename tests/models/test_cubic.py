"""The cubic refiner: the new grid exact, the scan given back, and every limit told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mri import tasks
from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.consistency import consistency, slicing
from tests.scans import GRIDS, grid_of, head

FINE = grid_of((40, 44, 48), (2.5, 2.5, 2.5), "RAS", (6.0, -4.0, 9.0))


def run(scan: Volume, **options: object) -> tasks.Outcome:
    return tasks.run(Order("superres", "cubic", dict(options)), scan, LocalRuntime("cpu"))


def thick(factor: int, axis: int = 2, grid: Grid = FINE) -> tuple[Volume, Volume]:
    """Return a fine head and the scan of it in slices `factor` times as thick."""
    fine = head(grid)
    spacing = np.array(grid.spacing)
    spacing[axis] *= factor
    model = slicing(grid.respaced(spacing), grid)
    return fine, Volume(model.sampled(fine.data), model.scan)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(20 * np.log10(np.ptp(b) / np.sqrt(np.mean((a - b) ** 2))))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("axes", ["RAS", "LIP", "SRA"])
def test_outer_corners_stay_where_they_were(axis, axes):
    _, scan = thick(4, axis)
    scan = scan.turned(axes)
    result = run(scan).result
    assert result.grid.axes == scan.grid.axes
    assert np.allclose(result.spacing, 2.5)
    apart = np.linalg.norm(result.grid.corners() - scan.grid.corners(), axis=1)
    assert apart.max() < 0.01
    assert result.data.shape == tuple(4 * n if s > 3 else n for n, s in zip(scan.grid.shape, scan.spacing, strict=True))


def test_a_spacing_that_does_not_divide_covers_the_scan():
    _, scan = thick(4)
    result = run(scan, spacing=1.7).result
    assert np.allclose(result.spacing, 1.7)
    assert all(new >= old for new, old in zip(result.grid.size_mm, scan.grid.size_mm, strict=True))
    assert all(new < old + 1.7 for new, old in zip(result.grid.size_mm, scan.grid.size_mm, strict=True))


@pytest.mark.parametrize("factor", [2, 4])
def test_the_result_gives_the_scan_back_and_is_nearer_to_the_truth(factor):
    fine, scan = thick(factor)
    good, plain = run(scan), run(scan, consistent=False)
    assert good.result.grid.same(fine.grid, 1e-3)
    assert consistency(scan, good.result).percent < 1.0
    assert consistency(scan, plain.result).percent > consistency(scan, good.result).percent
    assert psnr(good.result.data, fine.data) > psnr(plain.result.data, fine.data)
    nearest = np.repeat(scan.data, factor, axis=2)
    assert psnr(plain.result.data, fine.data) > psnr(nearest, fine.data)


def test_the_residual_lies_on_the_scan_and_is_what_the_scan_has_more():
    _, scan = thick(4)
    scan = scan.turned("LIP")
    outcome = run(scan, consistent=False)
    residual = outcome.extras["residual"]
    assert residual.grid.same(scan.grid, 1e-6)
    again = consistency(scan, outcome.result).residual
    assert np.allclose(residual.data, again.data, atol=1e-2)
    assert any("Data consistency" in line for line in outcome.result.history[-1].warnings)


def test_a_finer_plane_is_averaged_and_said_so():
    scan = head(GRIDS["anisotropic"])
    outcome = run(scan, spacing=4.0)
    assert np.allclose(outcome.result.spacing, 4.0)
    assert any("averaged" in line for line in outcome.warnings)
    assert abs(outcome.result.data.mean() / scan.data.mean() - 1) < 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"spacing": 0.9}, "Factor"), ({"thickness": 6.0}, "were not measured"), ({"spacing": 10.0}, "Nothing to refine")],
)
def test_limits_are_told(options, sentence):
    _, scan = thick(4)
    assert any(sentence in line for line in run(scan, **options).warnings)


def test_no_limit_is_told_of_an_ordinary_scan():
    _, scan = thick(4)
    assert len(run(scan).warnings) == 1  # the consistency figure


def test_too_many_voxels_are_refused():
    _, scan = thick(4)
    with pytest.raises(BadOption, match="too many voxels"):
        run(scan, spacing=0.05)


def test_frames_keep_their_meaning_and_their_intensities():
    _, scan = thick(4)
    frames = Frames("diffusion", bvals=(0.0, 1000.0), bvecs=((0.0, 0.0, 0.0), (0.6, 0.0, 0.8)))
    series = Volume(np.stack([scan.data, scan.data * 0.25], axis=-1), scan.grid, frames=frames)
    outcome = run(series)
    assert outcome.result.frames == frames
    assert outcome.result.data.shape[3] == outcome.extras["residual"].data.shape[3] == 2
    assert np.allclose(outcome.result.data[..., 0], run(scan).result.data, atol=1e-3)
    assert np.allclose(outcome.result.data[..., 1], outcome.result.data[..., 0] / 4, atol=1e-2)


def test_overlapping_slices_are_deblurred():
    fine = head(FINE)
    widths = (2.5, 2.5, 15.0)
    model = slicing(FINE.respaced((2.5, 2.5, 10.0)), FINE, widths)
    scan = Volume(model.sampled(fine.data), model.scan)
    told, untold = run(scan, thickness=15.0).result, run(scan).result
    assert consistency(scan, told, widths).percent < 1.0
    assert consistency(scan, told, widths).percent < consistency(scan, untold, widths).percent


def test_negative_values_stay_where_the_scan_has_them():
    _, scan = thick(4)
    shifted = replace(scan, data=scan.data - 300)
    assert run(scan).result.data.min() >= 0
    assert run(shifted).result.data.min() < -250
