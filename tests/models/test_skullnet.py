"""The shipped skull-strip network: right on a made-up head, the same in every orientation, honest when in doubt."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import napari_mri as mri
from napari_mri import phantom, tasks
from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine import fit, weights
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.models import skullnet
from napari_mri.models._headnet import HEADNET
from napari_mri.models._skull_device import on_device
from napari_mri.models._skull_parts import REACH_MM

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not weights.is_there(HEADNET), reason="the weights are not here")


def toy_head(spacing: tuple[float, float, float] = (2.0, 2.0, 2.0), seed: int = 0) -> tuple[Volume, np.ndarray]:
    """A T1-like head of ellipsoids with a neck; returns the scan and the inside of its skull."""
    size = np.array([190.0, 220.0, 230.0])
    shape = tuple(int(n) for n in size // spacing)
    x, y, z = ((np.indices(shape).T + 0.5) * spacing).T - (size / 2)[:, None, None, None]
    z = z - 20
    r = np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 66) ** 2)
    out = np.zeros(shape)
    out[(np.hypot(x, y + 5) < 55) & (z < 0)] = 350
    out[np.sqrt((x / 80) ** 2 + (y / 98) ** 2 + (z / 80) ** 2) < 1] = 700
    out[np.sqrt((x / 75) ** 2 + (y / 93) ** 2 + (z / 75) ** 2) < 1] = 60
    out[r < 1] = 150
    out[r < 0.95] = 450
    out[r < 0.86 + 0.07 * np.sin(x / 6) * np.sin(y / 7)] = 600  # a thick cortex would pass for bone
    out += np.random.default_rng(seed).normal(0, 12, shape)
    return Volume(np.clip(out, 0, None).astype(np.int16), Grid.plain(shape, spacing)), r < 1


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def strip(scan: Volume, **options: object) -> tasks.Outcome:
    return tasks.run(Order("skullstrip", "skullnet", options), scan)


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (3.1, 2.9, 1.7)])
def test_finds_the_inside_of_a_toy_skull(spacing: tuple[float, float, float]) -> None:
    scan, truth = toy_head(spacing)
    mask = strip(scan).result
    assert mask.grid.same(scan.grid)
    assert mask.data.dtype == np.uint8
    assert dice(mask.data > 0, truth) > 0.88


def test_is_the_default_model() -> None:
    scan, _ = toy_head((4.0, 4.0, 4.0))
    mask = mri.skullstrip(scan)
    assert mask.history[-1].order.model == "skullnet"


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.0, 1.0, 5.0)])
def test_the_brightness_of_tissues_brings_the_outline_nearer_to_the_skull(spacing: tuple[float, float, float]) -> None:
    scan, truth = toy_head(spacing)
    plain, moved = strip(scan, tones=False), strip(scan)
    assert dice(moved.result.data > 0, truth) > dice(plain.result.data > 0, truth) + 0.002
    distance = moved.extras["distance"].data
    assert np.array_equal(distance < 0, moved.result.data > 0)
    wider = strip(scan, border=3.0).result.data > 0
    assert wider[moved.result.data > 0].all()
    assert np.array_equal(wider, distance < 3.0) or (wider != (distance < 3.0)).mean() < 1e-3  # pieces are dropped
    # The brain without its fluid goes without.
    both = [strip(scan, csf=False, tones=on).result.data for on in (False, True)]
    assert np.array_equal(*both)


def test_border_grows_and_csf_matters() -> None:
    scan, _ = toy_head((3.0, 3.0, 3.0))
    volumes = [strip(scan, border=b).result.volume_ml() for b in (-3.0, 0.0, 3.0)]
    assert volumes[0] < volumes[1] < volumes[2]
    assert strip(scan, csf=False).result.volume_ml() < strip(scan, csf=True).result.volume_ml()
    with pytest.raises(BadOption):
        strip(scan, border=99.0)


def test_storage_order_does_not_matter() -> None:
    scan, _ = toy_head((3.0, 4.0, 2.5))
    first = strip(scan).result.data
    for order, flips in (
        ((2, 0, 1), (True, False, True)),
        ((1, 0, 2), (False, True, True)),
        ((0, 2, 1), (True, True, True)),
    ):
        other = strip(scan.reordered(order, flips)).result.turned("RAS")
        assert dice(other.data > 0, first > 0) == 1.0


@pytest.mark.slow
def test_all_48_orientations_agree() -> None:
    scan, _ = toy_head((4.0, 5.0, 3.5))
    first = strip(scan).result.data > 0
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            other = strip(scan.reordered(order, flips)).result.turned("RAS").data > 0
            assert dice(other, first) >= 0.995


def test_oblique_scan_keeps_its_grid() -> None:
    scan, truth = toy_head((3.0, 3.0, 3.0))
    turn = np.eye(4)
    c, s = np.cos(0.2), np.sin(0.2)
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    tilted = Volume(scan.data, Grid(scan.grid.shape, turn @ scan.affine))
    mask = strip(tilted).result
    assert np.array_equal(mask.affine, tilted.affine)
    assert dice(mask.data > 0, truth) > 0.85


def test_distance_and_uncertainty_come_with_the_mask() -> None:
    scan, _ = toy_head((3.0, 3.0, 3.0))
    outcome = strip(scan, variants=2)
    distance = outcome.extras["distance"]
    assert distance.data.dtype == np.float32
    assert np.array_equal(distance.data < 0, outcome.result.data > 0)
    assert np.abs(distance.data).max() <= REACH_MM
    assert outcome.extras["uncertainty"].data.min() >= 0
    assert "uncertainty" not in strip(scan).extras


def test_distance_is_measured_in_mm() -> None:
    scan, _ = toy_head((2.0, 2.0, 2.0))
    distance = strip(scan).extras["distance"].data
    slope = np.sqrt(sum(g**2 for g in np.gradient(distance, 2.0)))
    assert np.median(slope[np.abs(distance) < 4]) == pytest.approx(1.0, abs=0.2)


def test_intensity_scale_does_not_matter() -> None:
    scan, _ = toy_head((3.0, 3.0, 3.0))
    first = strip(scan).result.data > 0
    for factor, shift in ((0.001, 0.0), (40.0, -1000.0)):
        other = strip(scan.with_data(scan.data * np.float32(factor) + np.float32(shift))).result.data > 0
        assert dice(first, other) > 0.99


def test_frames_are_stripped_one_by_one() -> None:
    scan, truth = toy_head((4.0, 4.0, 4.0))
    both = Volume(np.stack([scan.data, scan.data[::-1]], axis=-1), scan.grid)
    mask = strip(both).result
    assert mask.data.shape == both.data.shape
    assert dice(mask.data[..., 1] > 0, truth[::-1]) > 0.85


def test_an_empty_scan_says_so() -> None:
    flat = Volume(np.full((32, 32, 32), 7, np.int16), Grid.plain((32, 32, 32), (4.0, 4.0, 4.0)))
    outcome = strip(flat)
    assert not outcome.result.data.any()
    assert any("same value" in w for w in outcome.warnings)


def test_stripped_input_is_told_and_a_whole_head_is_not() -> None:
    scan, truth = toy_head((3.0, 3.0, 3.0))
    bare = scan.with_data(np.where(truth, scan.data, 0))
    assert any("stripped already" in w for w in strip(bare).warnings)
    assert not any("stripped already" in w for w in strip(scan).warnings)


def test_odd_volume_is_told_with_its_number() -> None:
    scan, _ = toy_head((3.0, 3.0, 3.0))
    tiny = Volume(scan.data, Grid.plain(scan.grid.shape, (1.5, 1.5, 1.5)))
    warned = [w for w in strip(tiny).warnings if " ml;" in w]
    normal = [w for w in strip(scan).warnings if " ml;" in w]
    assert warned
    assert not normal


def test_normalised_matches_the_training() -> None:
    torch = pytest.importorskip("torch")
    degrade = pytest.importorskip("training.synth.degrade")
    rng = np.random.default_rng(0)
    data = (rng.random((40, 41, 42)) ** 4 * 900 + 13).astype(np.float32)
    theirs = degrade.normalise(torch.from_numpy(data)).numpy()
    assert np.allclose(fit.unit_scaled(data), theirs, atol=1e-4)


def test_real_scans_of_three_contrasts(data_dir) -> None:  # type: ignore[no-untyped-def]
    folder = data_dir / "head_ms_multicontrast" / "patient01"
    for name in ("T1W", "T2W", "FLAIR"):
        scan = mri.load(folder / f"{name}.nii.gz")
        truth = mri.load(folder / f"{name}_brainmask.nii.gz").data > 0
        assert dice(strip(scan).result.data > 0, truth) > 0.92


@pytest.mark.parametrize("options", [{}, {"csf": False, "border": 1.5}, {"variants": 2, "border": -1.0}])
def test_on_a_graphics_processor_it_is_the_same_mask(options: dict[str, object]) -> None:
    from napari_mri.engine.runtime import LocalRuntime

    scan, _ = toy_head((2.0, 2.0, 3.0))
    params = skullnet.Params(**options)  # type: ignore[arg-type]
    plain, there = LocalRuntime("cpu"), LocalRuntime("cpu")
    mask = skullnet.run(scan, params, plain)
    other = on_device(scan, params, there)
    assert other is not None
    assert other.data.dtype == mask.data.dtype
    assert dice(mask.data > 0, other.data > 0) > 0.9995
    assert there.extras.keys() == plain.extras.keys()
    for name, extra in plain.extras.items():
        assert np.abs(extra.data - there.extras[name].data).mean() < 1e-3
    assert there.warnings == plain.warnings


def test_on_a_graphics_processor_doubts_are_told_too() -> None:
    from napari_mri.engine.runtime import LocalRuntime

    scan, inner = toy_head((3.0, 3.0, 3.0))
    stripped = scan.with_data(np.where(inner, scan.data, 0))
    rt = LocalRuntime("cpu")
    on_device(stripped, skullnet.Params(), rt)
    assert any("stripped already" in said for said in rt.warnings)
    assert on_device(scan.with_data(np.full_like(scan.data, 5)), skullnet.Params(), rt) is None


def test_who_looks_at_the_mask_alone_gets_the_same_mask_and_no_distance():
    scan, _ = phantom.head(phantom.default_grid(3.0))
    both = tasks.run(Order("skullstrip", "skullnet", {}), scan, LocalRuntime("cpu"))
    alone = LocalRuntime("cpu")
    alone.result_only = True
    bare = tasks.run(Order("skullstrip", "skullnet", {}), scan, alone)
    assert "distance" in both.extras
    assert "distance" not in bare.extras
    np.testing.assert_array_equal(bare.result.data, both.result.data)
    other = on_device(scan, skullnet.Params(), alone)
    assert other is not None
    assert "distance" not in alone.extras
    assert dice(other.data > 0, both.result.data > 0) > 0.9995
    wide = LocalRuntime("cpu")
    wide.result_only = True
    grown = tasks.run(Order("skullstrip", "skullnet", {"border": 4.0}), scan, wide)
    assert grown.result.data.sum() > 1.1 * both.result.data.sum()
