"""Noise: found within five per cent, refused where it cannot be told, and the arithmetic of magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.measure import noise, rician

SHAPE = (57, 49, 61)


@pytest.fixture(scope="module")
def ball() -> NDArray[np.float32]:
    """A head-like ball in air with a few inner surfaces; bright tissue 1000."""
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
    r = np.sqrt((x / 1.1) ** 2 + y**2 + (z / 1.2) ** 2)
    image = np.where(r < 20, 1000.0, 0.0)
    image[(r < 15) & (np.sin(x / 5) * np.cos(y / 6) > 0)] = 700.0
    image[r < 4] = 300.0
    return gaussian_filter(image, 0.5).astype(np.float32)


def scan(data: NDArray[np.float32]) -> Volume:
    return Volume(data, Grid.plain(data.shape))


def noisy(image: NDArray[np.float32], sigma: float, seed: int = 0) -> NDArray[np.float32]:
    return rician.noise_of(np.random.default_rng(seed), image, sigma)


@pytest.mark.parametrize("percent", [2, 5, 10, 20])
def test_sigma_within_five_per_cent(ball: NDArray[np.float32], percent: int) -> None:
    found = noise.estimate(scan(noisy(ball, 10.0 * percent)))
    assert found.sigma == pytest.approx(10.0 * percent, rel=0.05)
    assert found.kind == "rician"
    assert found.trusted, found.notes


def test_gaussian_noise_is_told_from_rician(ball: NDArray[np.float32]) -> None:
    data = ball + np.random.default_rng(1).normal(0, 50, ball.shape).astype(np.float32)
    found = noise.estimate(scan(data))
    assert found.kind == "gaussian"
    assert found.sigma == pytest.approx(50, rel=0.05)


def test_interpolated_or_filtered_scans_are_not_trusted(ball: NDArray[np.float32]) -> None:
    data = noisy(ball, 50)
    assert noise.estimate(scan(data)).trusted
    for spoiled in (gaussian_filter(data, 0.8), zoom(data, 1.4, order=1)):
        found = noise.estimate(scan(spoiled))
        assert not found.trusted
        assert found.notes


def test_zeroed_background_is_told(ball: NDArray[np.float32]) -> None:
    found = noise.estimate(scan(np.where(ball > 20, noisy(ball, 50), 0)))
    assert not found.trusted
    assert "background" in " ".join(found.notes)
    assert found.sigma == pytest.approx(50, rel=0.25)


def test_more_noise_in_tissue_than_in_air_is_told(ball: NDArray[np.float32]) -> None:
    field = np.where(gaussian_filter((ball > 100).astype(np.float32), 4) > 0.3, 60.0, 20.0)
    real = ball + field * np.random.default_rng(2).normal(size=SHAPE)
    other = field * np.random.default_rng(3).normal(size=SHAPE)
    found = noise.estimate(scan(np.hypot(real, other).astype(np.float32)))
    assert not found.trusted
    assert "varies" in " ".join(found.notes)


def test_map_follows_a_ramp(ball: NDArray[np.float32]) -> None:
    ramp = np.broadcast_to(np.linspace(30, 90, SHAPE[0])[:, None, None], SHAPE).astype(np.float32)
    rng = np.random.default_rng(4)
    data = np.hypot(ball + ramp * rng.normal(size=SHAPE), ramp * rng.normal(size=SHAPE)).astype(np.float32)
    field = noise.sigma_map(scan(data))
    assert field.shape == SHAPE
    assert np.median(field / ramp) == pytest.approx(1, abs=0.12)
    assert field[-10:].mean() > 1.7 * field[:10].mean()
    assert noise.varies(field, noise.estimate(scan(data)))


def test_brightness_scales_and_small_or_flat_scans_are_refused(ball: NDArray[np.float32]) -> None:
    data = noisy(ball, 40)
    a, b = noise.estimate(scan(data)), noise.estimate(scan(data * 8))
    assert b.sigma == pytest.approx(8 * a.sigma, rel=1e-3)
    assert b.percent == pytest.approx(a.percent, rel=1e-3)
    with pytest.raises(UnsupportedImage):
        noise.estimate(scan(np.full((20, 20, 20), 7.0, np.float32)))
    with pytest.raises(UnsupportedImage):
        noise.estimate(scan(data[:6, :6, :6]))
    data[3, 4, 5] = np.nan
    with pytest.raises(UnsupportedImage, match="NaN"):
        noise.estimate(scan(data))


def test_thinning_a_large_scan_keeps_neighbours() -> None:
    data = np.arange(90 * 300 * 300, dtype=np.float32).reshape(90, 300, 300)
    thin = noise._thinned(data)
    assert thin.size < data.size / 3
    assert np.unique(np.diff(thin[:16], axis=0)).size == 1
    assert np.unique(np.diff(thin[:, :16], axis=1)).size == 1
    assert noise._thinned(data[:10, :90]).shape == (10, 90, 300)


def test_noise_of_a_large_scan_whose_ends_hold_nothing(ball: NDArray[np.float32]) -> None:
    data = np.zeros((300, 420, 220), np.float32)
    part = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(data.shape, (228, 196, 183), strict=True))
    body = ball.repeat(4, 0).repeat(4, 1).repeat(3, 2)
    data[part] = np.where(body > 20, noisy(body, 50), 0)
    assert noise.estimate(scan(data)).sigma == pytest.approx(50, rel=0.1)


def test_a_gpu_looks_as_the_processor_does(ball: NDArray[np.float32]) -> None:
    for data in (noisy(ball, 50), ball + np.random.default_rng(1).normal(0, 50, ball.shape).astype(np.float32)):
        bright, magnitudes = noise.brightness(data), bool(data.min() >= 0)
        here, there = noise._both_looks(data, bright, magnitudes), noise._looks_on("cpu", data, bright, magnitudes)
        for one, other in zip(here, there, strict=True):
            assert one.count == other.count
            values = [(look.sigma, look.correlation, look.ratio) for look in (one, other)]
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4)


@given(st.floats(0, 40), st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_mean_of_magnitudes_leads_back_to_the_signal(snr: float, sigma: float) -> None:
    mean, _ = rician.mean_and_spread(snr)
    assert rician.unbiased(mean * sigma, sigma) == pytest.approx(snr * sigma, abs=0.02 * sigma)


def test_pure_noise_has_the_rayleigh_floor() -> None:
    mean, spread = rician.mean_and_spread(0.0)
    assert mean == pytest.approx(rician.FLOOR)
    assert spread == pytest.approx(rician.AIR_SPREAD)
    assert rician.unbiased(1.0, 1.0) == 0


@pytest.mark.parametrize("snr", [0.0, 1.0, 3.0, 10.0, 40.0])
def test_stabilised_noise_has_unit_spread_and_an_exact_way_back(snr: float) -> None:
    data = rician.noise_of(np.random.default_rng(5), np.full(200_000, 7 * snr, np.float32), 7.0)
    even = rician.stabilised(data, 7.0)
    assert even.std() == pytest.approx(1, abs=0.13)
    assert float(rician.back_from_stabilised(even.mean(), 7.0)) == pytest.approx(7 * snr, abs=0.5)


def test_order_is_kept_by_the_stabiliser() -> None:
    m = np.linspace(0, 60, 500)
    assert (np.diff(rician.stabilised(m, 1.3)) > 0).all()


@pytest.mark.parametrize("snr", [0.0, 2.0, 8.0])
def test_sigma_from_mean_and_spread(snr: float) -> None:
    mean, spread = rician.mean_and_spread(snr)
    assert rician.sigma_from(mean * 3, spread * 3) == pytest.approx(3, rel=0.01)


def test_marchenko_pastur_needs_a_series(ball: NDArray[np.float32]) -> None:
    with pytest.raises(UnsupportedImage):
        noise.series_sigma_map(scan(noisy(ball, 10)))


@pytest.mark.parametrize(("shape", "counts"), [((25, 30, 17), (3, 4, 2)), ((20, 9, 5), (2, 1, 1))])
def test_a_map_of_blocks_is_drawn_between_their_middles(shape, counts):
    coarse = np.random.default_rng(0).uniform(1, 9, counts)
    factors = [n / c for n, c in zip(shape, counts, strict=True)]
    wanted = zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
    ways = tuple(noise.between(c, n, c / n) for c, n in zip(counts, shape, strict=True))
    np.testing.assert_allclose(noise.along_axes(coarse, ways), wanted, atol=1e-5)
