"""The arithmetic of magnitude (Rician) noise: its mean and spread, the way back, and variance stabilisation.

A magnitude image holds ``m = |signal + complex Gaussian noise|``. Where the signal is weak its mean lies above the
signal (the noise floor) and its spread below sigma. Everything here is a table over signal / sigma, computed once.

References
----------
Koay & Basser, J Magn Reson 2006;179:317 (mean, spread, inversion).
Foi, IEEE ISBI 2011:1809 (stabilisation of Rician noise and its exact unbiased inverse).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
FLOOR = float(np.sqrt(np.pi / 2))
"""Mean of pure noise, in sigma."""
AIR_SPREAD = float(np.sqrt(2 - np.pi / 2))
"""Standard deviation of pure noise, in sigma."""
_FAR = 1e15
"""How far in sigma the straight line above a table goes on."""
_STRONG = 12.0
"""Above this signal-to-noise ratio the closed forms for strong signals hold to 1e-5."""


def mean_and_spread(snr: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of a Rician magnitude, both in sigma.

    Parameters
    ----------
    snr : array_like
        True signal / sigma, not negative.
    """
    from scipy.special import i0e, i1e

    t = np.asarray(snr, dtype=np.float64)
    quarter = t**2 / 4
    mean = FLOOR * ((1 + 2 * quarter) * i0e(quarter) + 2 * quarter * i1e(quarter))
    return np.asarray(mean), np.sqrt(np.maximum(2 + t**2 - mean**2, 0))


@dataclass(frozen=True)
class Tables:
    """What the functions below look up; all in sigma."""

    snr: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    stable: NDArray[np.float64]
    """Stabilising transform at magnitude `mean`."""
    stable_mean: NDArray[np.float64]
    """Expectation of the transformed magnitude at true signal `snr`."""


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Return the tables, computed at first use."""
    from scipy.integrate import cumulative_trapezoid
    from scipy.special import i0e

    snr = np.linspace(0, _STRONG + 8, 2001)
    mean, spread = mean_and_spread(snr)
    stable = np.asarray(cumulative_trapezoid(1 / spread, mean, initial=0.0))
    # Rice density around each true signal, in steps of the table; there is nothing of it 8 sigma away or below 0.
    m = np.arange(-800, 2801) * 0.01
    ramp = _stable_at(m, mean, spread, stable)
    m, ramp = (np.lib.stride_tricks.sliding_window_view(values, 1601) for values in (m.clip(0), ramp))
    # The scaled Bessel function keeps large arguments finite.
    density = m * np.exp(-0.5 * np.linspace(-8, 8, 1601) ** 2) * i0e(m * snr[:, None])
    stable_mean = np.einsum("ij,ij->i", density, ramp) / density.sum(axis=1)
    return Tables(snr, mean, spread, stable, stable_mean)


def _stable_at(
    m: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64], stable: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Stabilising transform at magnitudes m: the table, a straight line below it, slope 1 above it."""
    return np.interp(m, *_stable_line(mean, spread, stable))


def _stable_line(
    mean: NDArray[np.float64], spread: NDArray[np.float64], stable: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # A magnitude is not negative, so the line below the table begins at 0.
    at = np.array([0.0, *mean, mean[-1] + _FAR])
    return at, np.array([-mean[0] / spread[0], *stable, stable[-1] + _FAR])


def stable_line() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return corners of the stabilising transform: magnitudes in sigma, and what becomes of them; straight in between."""
    t = tables()
    return _stable_line(t.mean, t.spread, t.stable)


def signal_line(doubt: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return corners of the way back: means in the stabilised scale, and their signals in sigma; straight in between.

    Parameters
    ----------
    doubt : float
        See `back_from_stabilised`.
    """
    t = tables()
    ramp = t.snr
    if doubt > 0:
        steps, weights = np.polynomial.hermite_e.hermegauss(15)
        ramp = np.interp(t.stable_mean[:, None] + doubt * steps, t.stable_mean, t.snr) @ (weights / weights.sum())
        # Beyond the table the two inverses are the same straight line.
        ramp = np.where(t.stable_mean > t.stable_mean[-1] - 8 * doubt, t.snr, ramp)
    return np.array([*t.stable_mean, t.stable_mean[-1] + _FAR]), np.array([*ramp, t.snr[-1] + _FAR])


def _in_sigma(data: ArrayLike, sigma: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    s = np.asarray(sigma, dtype=np.float64)
    safe = np.maximum(s, np.finfo(np.float32).tiny)
    return np.asarray(data, dtype=np.float64) / safe, s


def unbiased(mean: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the signal whose magnitudes average to `mean`: takes the noise floor away.

    Parameters
    ----------
    mean : array_like
        An average (or denoised) magnitude.
    sigma : float or array_like
        Standard deviation in each complex channel, same units.

    Returns
    -------
    ndarray of float32; 0 where the mean lies at or under the noise floor.
    """
    t = tables()
    scaled, s = _in_sigma(mean, sigma)
    strong = np.sqrt(np.maximum(scaled**2 - 1, 0))
    found = np.where(scaled > t.mean[-1], strong, np.interp(scaled, t.mean, t.snr))
    return np.asarray(np.where(s > 0, found * s, np.asarray(mean)), dtype=np.float32)


def stabilised(data: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the scan in a scale in which its noise has unit variance at every signal.

    Parameters
    ----------
    data : array_like
        Magnitudes, not negative.
    sigma : float or array_like
        Above 0.
    """
    scaled, _ = _in_sigma(data, sigma)
    return np.interp(scaled, *stable_line()).astype(np.float32)


def back_from_stabilised(data: ArrayLike, sigma: ArrayLike, doubt: float = 0.0) -> Array:
    """Return the signal whose stabilised magnitudes average to `data`: the exact unbiased inverse.

    Parameters
    ----------
    data : array_like
        A denoised result in the stabilised scale.
    sigma : float or array_like
        As given to `stabilised`.
    doubt : float
        Standard deviation that `data` may still have. Above 0 the mean over it is returned, so that weak signal does
        not fall onto 0, of which no logarithm can be taken.

    Returns
    -------
    ndarray of float32, the noise-free signal; without doubt 0 at and below the noise floor.
    """
    found = np.interp(np.asarray(data, dtype=np.float64), *signal_line(doubt))
    return np.asarray(found * np.asarray(sigma, dtype=np.float64), dtype=np.float32)


def stable_floor() -> float:
    """Return what pure noise averages to in the stabilised scale."""
    return float(tables().stable_mean[0])


def sigma_from(mean: ArrayLike, spread: ArrayLike) -> NDArray[np.float64]:
    """Return sigma from the mean and the standard deviation of magnitudes of one constant signal.

    Parameters
    ----------
    mean, spread : array_like
        Same units. A ratio under that of pure noise counts as pure noise.

    Returns
    -------
    ndarray of float64
    """
    t = tables()
    m, s = np.asarray(mean, dtype=np.float64), np.asarray(spread, dtype=np.float64)
    ratio = m / np.maximum(s, np.finfo(np.float32).tiny)
    share = np.interp(ratio, t.mean / t.spread, t.spread)
    return np.asarray(s / share)


def noise_of(rng: np.random.Generator, signal: NDArray[Any], sigma: ArrayLike) -> Array:
    """Return the magnitude of a signal plus complex Gaussian noise (for tests, phantoms and benchmarks)."""
    s = np.asarray(sigma, dtype=np.float32)
    real = np.asarray(signal, dtype=np.float32) + s * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, s * rng.standard_normal(signal.shape, dtype=np.float32)), dtype=np.float32)
