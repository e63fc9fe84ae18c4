"""How much noise a scan holds, of which kind, where, and whether that figure can be trusted.

Two independent looks: the air around the body, where a magnitude image is pure noise, and the finest diagonal
wavelet detail within flat tissue. They are compared with one another, and the noise is tested for being white:
interpolation, filtering and earlier denoising leave neighbours that resemble each other.

References
----------
Coupé et al., Med Image Anal 2010;14:483 (wavelet detail with Rician correction).
Koay & Basser, J Magn Reson 2006;179:317. Veraart et al., NeuroImage 2016;142:394 (Marchenko-Pastur).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.volume import Volume
from napari_mri.measure import rician
from napari_mri.measure.consistency import along_axes, between

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

_MAD = 0.6745
"""Median of the absolute value of a standard normal variable."""
_LEAST = 2000
"""Fewer voxels tell no sigma to a few per cent."""
_WHITE = 0.12
"""Largest mean correlation of neighbours that still counts as white."""


@dataclass(frozen=True)
class Noise:
    """The noise of a scan.

    Parameters
    ----------
    sigma : float
        Standard deviation in each complex channel (Rician) or of the noise (Gaussian), in the scan's units.
    percent : float
        The same as a share of bright tissue, %.
    kind : str
        ``"rician"`` (magnitudes: not one negative value, a noise floor in air) or ``"gaussian"``.
    how : str
        ``"background"`` or ``"detail"``: which look `sigma` comes from.
    background, detail : float
        Both looks; NaN where there was nothing to look at.
    trusted : bool
        False if interpolation, filtering, masking or lack of voxels spoil the estimate.
    notes : tuple of str
        Sentences for the user: why not trusted, or what else was found.
    """

    sigma: float
    percent: float
    kind: str
    how: str
    background: float
    detail: float
    trusted: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        doubt = "" if self.trusted else "; not to be trusted: " + " ".join(self.notes)
        return f"{self.kind} noise, σ = {self.sigma:.4g} ({self.percent:.1f} % of bright tissue), from {self.how}{doubt}"


@dataclass(frozen=True)
class _Look:
    sigma: float
    correlation: float
    count: int
    ratio: float = np.nan


def estimate(scan: Volume) -> Noise:
    """Estimate the noise of a 3D scan, or of the first frame of a series.

    Parameters
    ----------
    scan : Volume
        Grey values.

    Returns
    -------
    Noise

    Raises
    ------
    UnsupportedImage
        If the scan is too small or constant.
    """
    data = np.asarray(scan.frame(0).data, dtype=np.float32)
    if min(data.shape) < 2 or data.size < 512:
        raise UnsupportedImage(f"A scan of {data.shape} voxels is too small to tell its noise.")
    low, high = float(data.min()), float(data.max())
    data = _thinned(data)
    if not high > low:
        raise UnsupportedImage("Every voxel has the same value, so there is no noise to measure.")
    bright = brightness(data)
    rician_like = low >= 0
    with ThreadPoolExecutor(1) as beside:  # both look at once; filters do not hold the interpreter
        seen = beside.submit(_detail_look, data, rician_like)
        air = _air_look(data, bright) if rician_like else _Look(np.nan, np.nan, 0)
        flat = seen.result()
    notes = _doubts(data, air, flat, bright)
    from_air = np.isfinite(air.sigma) and (not np.isfinite(flat.sigma) or air.sigma <= 1.4 * flat.sigma)
    sigma = air.sigma if from_air else flat.sigma
    if not np.isfinite(sigma):
        sigma, notes = 0.0, (*notes, "Neither air nor flat tissue was found to measure it in.")
    kind = "rician" if rician_like else "gaussian"
    percent = 100 * sigma / bright
    how = "background" if from_air else "detail"
    if how == "background" and not np.isfinite(flat.sigma):
        notes = (*notes, "No flat tissue was found to check the figure from the air against.")
    return Noise(sigma, percent, kind, how, air.sigma, flat.sigma, not notes, notes)


def _thinned(data: Array, most: int = 3_000_000, slab: int = 12) -> Array:
    """Return evenly spaced slabs of a large scan: neighbours stay neighbours, and a figure needs no more voxels."""
    count = max(2, most // max(1, slab * data[0].size))
    if data.size <= most or count * slab >= data.shape[0]:
        return data
    starts = np.linspace(0, data.shape[0] - slab, count).round().astype(int)
    return np.concatenate([data[start : start + slab] for start in starts])


def brightness(data: NDArray[Any]) -> float:
    """Return what bright tissue measures: a robust maximum of the voxels that are not background."""
    some = np.asarray(data.reshape(-1)[:: max(1, data.size // 500_000)], dtype=np.float64)
    some = some[np.isfinite(some)]
    top = float(np.percentile(some, 99.5)) if some.size else 0.0
    body = some[some > 0.2 * top]
    level = float(np.percentile(body, 90)) if body.size else top
    return level if level > 0 else float(max(np.abs(some).max(initial=0.0), 1e-12))


def _doubts(data: Array, air: _Look, flat: _Look, bright: float) -> tuple[str, ...]:
    """Tell what spoils the estimate."""
    notes = []
    look = air if np.isfinite(air.correlation) else flat
    if look.correlation > _WHITE:
        notes.append("Neighbouring voxels resemble each other: the scan was interpolated, filtered or denoised before.")
    if np.isfinite(air.ratio) and not 0.9 < air.ratio < 1.12:
        notes.append(
            "The air does not look like the noise of one receiver channel: the scan was masked or filtered, "
            "or it combines several coils whose effective number is unknown."
        )
    zeros = float(np.count_nonzero(data == 0)) / data.size
    if not np.isfinite(air.sigma) and zeros > 0.2:
        notes.append("The background was set to zero, so only the detail within the tissue could be looked at.")
    both = np.isfinite(air.sigma) and np.isfinite(flat.sigma)
    if both and flat.sigma > 1.35 * air.sigma and flat.sigma > 0.01 * bright:
        notes.append("There is more noise in the tissue than in the air: it varies over the field of view, or the air was cleaned.")
    if both and flat.sigma < 0.7 * air.sigma:
        notes.append("There is less noise in the tissue than in the air: the scan was denoised, or the air holds artefacts.")
    return tuple(notes)


def _lag(data: Array, where: Mask) -> float:
    """Mean correlation of neighbours along the three axes within a mask, 0 for white noise."""
    found = []
    for axis in range(3):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        there = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        pair = where[here] & where[there]
        if np.count_nonzero(pair) < 200:
            continue
        a, b = data[here][pair].astype(np.float64), data[there][pair].astype(np.float64)
        a, b = a - a.mean(), b - b.mean()
        spread = np.sqrt((a**2).mean() * (b**2).mean())
        if spread > 0:
            found.append(float((a * b).mean() / spread))
    # One interpolated axis is enough to spoil the estimate.
    return max(found) if found else np.nan


def _air_look(data: Array, bright: float) -> _Look:
    """Sigma from the air: the commonest local mean, then the voxels around which it reigns."""
    from scipy.ndimage import uniform_filter

    nothing = _Look(np.nan, np.nan, 0)
    size = tuple(min(5, n // 2 * 2 - 1) for n in data.shape)
    mean = uniform_filter(data, size)
    low = mean[(mean > 0) & (mean < 0.45 * bright)]
    if low.size < _LEAST:
        return nothing
    counts, edges = np.histogram(low, bins=256, range=(0.0, float(np.percentile(low, 99))))
    counts = np.convolve(counts, (1, 2, 3, 2, 1), mode="same")
    # Partial volume and dark tissue lie above the air, so the first strong peak is the air's.
    strong = np.flatnonzero(counts > 0.4 * counts.max())
    peak = strong[0] + int(np.argmax(counts[strong[0] : strong[0] + 12]))
    sigma = float(edges[peak] + edges[peak + 1]) / 2 / rician.FLOOR
    if sigma <= 0:
        return nothing
    for _ in range(4):
        air = (mean > 0.75 * rician.FLOOR * sigma) & (mean < 1.2 * rician.FLOOR * sigma)
        inner = _inner(air)
        air = inner if np.count_nonzero(inner) >= _LEAST else air
        values = data[air]
        if values.size < _LEAST:
            return nothing
        sigma = float(np.median(values)) / np.sqrt(2 * np.log(2))
    share = values.size / data.size
    if share < 0.01 or sigma > 0.4 * bright:
        return nothing
    zero = float(np.count_nonzero(values == 0)) / values.size
    ratio = float(values.mean() / max(values.std(), 1e-12)) / (rician.FLOOR / rician.AIR_SPREAD)
    if zero > 0.2 or not 0.6 < ratio < 3:
        return nothing
    return _Look(sigma, _lag(data, air), values.size, ratio)


def _inner(mask: Mask) -> Mask:
    """Leave out what touches the outside, by a face or the border of the volume."""
    out = mask.copy()
    for axis in range(3):
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            at, beside = (tuple(part if a == axis else slice(None) for a in range(3)) for part in (here, there))
            out[at] &= mask[beside]
        out[tuple(slice(None, None, max(1, n - 1)) if a == axis else slice(None) for a, n in enumerate(mask.shape))] = False
    return out


def slope(image: Array, sigma: float) -> Array:
    """Return how steep an image is at every voxel, per voxel, after a blur of `sigma` voxels; (I, J, K), each above 1."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image, sigma, truncate=2.5)
    out = np.square(np.gradient(smooth, axis=0))
    for axis in (1, 2):
        out += np.square(np.gradient(smooth, axis=axis))
    return np.asarray(np.sqrt(out, out=out), dtype=np.float32)


def detail(data: Array) -> Array:
    """Return the finest diagonal Haar detail at every 2 x 2 x 2 block (I-1, J-1, K-1), of the noise's own variance."""
    out = data
    for axis in range(3):
        out = np.diff(out, axis=axis)
    return np.asarray(out / np.float32(np.sqrt(8)), dtype=np.float32)


def _detail_look(data: Array, rician_like: bool) -> _Look:
    """Sigma from the diagonal detail of the flattest tissue, corrected for weak signal."""
    from scipy.ndimage import gaussian_filter

    fine = detail(data)
    crop = tuple(slice(0, -1) for _ in range(3))
    smooth = gaussian_filter(data, 2.0, truncate=2.5)
    steep = slope(data, 1.5)[crop]
    level = smooth[crop]
    bright = brightness(smooth)
    tissue = (level > 0.3 * bright) & (np.abs(fine) > 0) if rician_like else np.ones(fine.shape, bool)
    if np.count_nonzero(tissue) < _LEAST // 2:
        return _Look(np.nan, np.nan, 0)
    flat = tissue & (steep <= np.percentile(steep[tissue], 30))
    spread = float(np.median(np.abs(fine[flat]))) / _MAD
    sigma = float(rician.sigma_from(np.median(level[flat]), spread)) if rician_like else spread
    return _Look(sigma, _colour(data, flat, spread), int(np.count_nonzero(flat)))


def _colour(data: Array, flat: Mask, diagonal: float) -> float:
    """Correlation of neighbours guessed from how much weaker the diagonal detail is than that along two axes."""
    wider = []
    for kept in range(3):
        out = data
        for axis in range(3):
            here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
            there = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            out = out[here] + out[there] if axis == kept else out[there] - out[here]
        wider.append(float(np.median(np.abs(out[flat]))) / _MAD / np.sqrt(8))
    # White noise has the same variance in both bands; neighbours that resemble each other along an axis with
    # correlation r have variances in the ratio (1 - r) / (1 + r). Anatomy adds to it, so the smallest counts.
    ratio = (diagonal / max(min(wider), 1e-12)) ** 2
    return float((1 - ratio) / (1 + ratio))


def sigma_map(scan: Volume, noise: Noise | None = None, block: int = 8) -> Array:
    """Estimate how strong the noise is at every voxel of a 3D scan (parallel imaging makes it vary).

    Parameters
    ----------
    scan : Volume, (I, J, K)
    noise : Noise, optional
        The global estimate; made if absent. Its kind decides about the correction for weak signal.
    block : int
        Side of the blocks a spread is taken in, voxels.

    Returns
    -------
    ndarray, (I, J, K) float32, the scan's units; smooth over about four blocks.
    """
    from scipy.ndimage import gaussian_filter

    known = estimate(scan) if noise is None else noise
    data = np.asarray(scan.frame(0).data, dtype=np.float32)
    size = [min(block, max(2, n - 1)) for n in data.shape]
    fine, level = np.abs(detail(data)), data[:-1, :-1, :-1]
    counts = [max(1, n // s) for n, s in zip(fine.shape, size, strict=True)]
    cut = tuple(slice(0, c * s) for c, s in zip(counts, size, strict=True))
    sides = [v for c, s in zip(counts, size, strict=True) for v in (c, s)]

    def blocks(array: Array) -> Array:
        return array[cut].reshape(sides).transpose(0, 2, 4, 1, 3, 5).reshape(*counts, -1)

    # The lower quartile of |detail| suffers less from edges than its median.
    spread = np.percentile(blocks(fine), 25, axis=-1) / 0.3186
    mean = blocks(level).mean(axis=-1)
    local = rician.sigma_from(mean, spread) if known.kind == "rician" else spread
    good = (local > 0.2 * known.sigma) & (local < 4 * known.sigma)
    weight = gaussian_filter(good.astype(np.float64), 1.5, mode="nearest")
    summed = gaussian_filter(np.where(good, local, 0.0), 1.5, mode="nearest")
    smooth = np.where(weight > 0.02, summed / np.maximum(weight, 0.02), known.sigma)
    i, j, k = (between(count, n, count / n) for count, n in zip(counts, data.shape, strict=True))
    return along_axes(smooth, (i, j, k))


def varies(field: Array, noise: Noise) -> bool:
    """Tell whether a sigma map varies by more than chance and anatomy explain (a quarter up or down)."""
    low, high = np.percentile(field, (5, 95))
    return bool(high > 1.6 * max(float(low), 1e-12) and noise.sigma > 0)


def series_sigma_map(scan: Volume, radius: int = 2) -> Array:
    """Estimate sigma at every voxel of a 4D series from the Marchenko-Pastur law (through dipy).

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
        At least about ten frames.
    radius : int
        Of the patches, voxels.

    Returns
    -------
    ndarray, (I, J, K) float32

    Raises
    ------
    UnsupportedImage
        If the scan is not a series of at least 8 frames.
    """
    if scan.n_frames < 8:
        raise UnsupportedImage(
            f"The Marchenko-Pastur law needs a series of at least 8 frames, not {scan.n_frames}.",
            hint="Use the estimate of a single frame.",
        )
    from dipy.denoise.localpca import mppca

    data = np.asarray(scan.data, dtype=np.float32)
    _, sigma = mppca(data, patch_radius=radius, return_sigma=True)
    return np.asarray(sigma, dtype=np.float32)
