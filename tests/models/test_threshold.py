"""The skull-strip that needs no weights: near the reference masks on real heads, honest where it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from napari_mri import phantom, tasks
from napari_mri.core.errors import Cancelled
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load
from tests.scans import GRIDS, blob, dice, head

MS = "head_ms_multicontrast/patient01"
REAL = {
    "Colin27 T1": ("head_t1_colin27/ch2.nii.gz", "head_t1_colin27/ch2_brainmask.nii.gz", 0.94),
    "MS T1": (f"{MS}/T1W.nii.gz", f"{MS}/T1W_brainmask.nii.gz", 0.94),
    "MS T2": (f"{MS}/T2W.nii.gz", f"{MS}/T2W_brainmask.nii.gz", 0.89),
    "MS FLAIR": (f"{MS}/FLAIR.nii.gz", f"{MS}/FLAIR_brainmask.nii.gz", 0.94),
}


def strip(scan: Volume, rt: LocalRuntime | None = None, **options: float) -> tasks.Outcome:
    return tasks.run(Order("skullstrip", "threshold", options), scan, rt)


@pytest.mark.parametrize("name", REAL)
def test_real_head(name: str, data_dir: Path) -> None:
    scan_path, mask_path, at_least = REAL[name]
    found = strip(load(data_dir / scan_path)).result.data > 0
    assert dice(found, load(data_dir / mask_path).data > 0) >= at_least


def test_shading_and_units_do_not_matter(data_dir: Path) -> None:
    scan = load(data_dir / REAL["MS T1"][0])
    truth = load(data_dir / REAL["MS T1"][1]).data > 0
    slope = [np.linspace(-1, 1, n) for n in scan.grid.shape]
    shade = np.exp(0.35 * (slope[0][:, None, None] + 0.7 * slope[1][None, :, None]))
    shaded = scan.with_data((scan.data * shade * 1e-5).astype(np.float32))
    assert dice(strip(shaded).result.data > 0, truth) > 0.93


@pytest.mark.parametrize(("contrast", "at_least"), [("T1", 0.85), ("T2", 0.82), ("FLAIR", 0.87)])
def test_phantom(contrast: str, at_least: float) -> None:
    scan, labels = phantom.head(phantom.default_grid(1.5), contrast)
    assert dice(strip(scan).result.data > 0, phantom.brain_mask(labels).data > 0) > at_least


@pytest.mark.parametrize("name", GRIDS)
def test_toy_head_on_every_grid(name: str) -> None:
    scan = head(GRIDS[name])
    found = strip(scan).result
    assert found.grid.same(scan.grid)
    assert found.names == {1: "brain"}
    assert dice(found.data > 0, blob(scan.grid, (4, -7, 11), (40, 47, 37))) > 0.85


def test_border_is_in_millimetres() -> None:
    scan = head(GRIDS["plain"])
    plain, wide, narrow = (strip(scan, border=b).result for b in (0.0, 4.0, -4.0))
    radius = [(3 * m.volume_ml() * 1000 / (4 * np.pi)) ** (1 / 3) for m in (narrow, plain, wide)]
    assert radius[1] - radius[0] == pytest.approx(4.0, abs=1.0)
    assert radius[2] - radius[1] == pytest.approx(4.0, abs=1.0)
    assert np.all(narrow.data <= plain.data)
    assert np.all(plain.data <= wide.data)


@pytest.mark.parametrize("value", [0, -3.5, 1000])
def test_constant_scan_gives_an_empty_mask_and_says_so(value: float) -> None:
    outcome = strip(Volume(np.full((20, 21, 22), value, np.float32), Grid.plain((20, 21, 22), (3, 3, 3))))
    assert outcome.result.data.max() == 0
    assert outcome.warnings


def test_noise_alone_is_no_brain() -> None:
    data = np.random.default_rng(0).rayleigh(10, (40, 41, 42)).astype(np.float32)
    assert strip(Volume(data, Grid.plain(data.shape, (4, 4, 4)))).warnings


def test_it_can_be_stopped_at_every_report() -> None:
    scan = head(GRIDS["plain"])
    told: list[float] = []
    strip(scan, LocalRuntime("cpu", lambda f, _: told.append(f)))
    assert told == sorted(told)
    for stop_at in range(0, len(told), 2):
        stop, seen = threading.Event(), []

        def on_report(fraction: float, text: str, stop=stop, seen=seen, stop_at=stop_at) -> None:
            seen.append(fraction)
            if len(seen) > stop_at:
                stop.set()

        if stop_at < len(told) - 1:
            with pytest.raises(Cancelled):
                strip(scan, LocalRuntime("cpu", on_report, stop))


def test_where_zero_lies_does_not_matter() -> None:
    scan = head(GRIDS["plain"])
    values = np.float32(scan.data)
    plain, lowered = (strip(scan.with_data(seen)).result.data > 0 for seen in (values, values - np.float32(2000)))
    assert plain.any()
    assert dice(plain, lowered) > 0.99
