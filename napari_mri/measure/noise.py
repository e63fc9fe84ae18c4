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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.volume import Volume
from napari_mri.measure import rician
from napari_mri.measure.consistency import Matrix, along_axes, between
from napari_mri.nets.blas import own_threads

if TYPE_CHECKING:
    from napari_mri.nets.noise_sums import TensorSums

Array = NDArray[np.float32]
Sums: TypeAlias = "ArraySums | TensorSums"

_MAD = 0.6745
"""Median of the absolute value of a standard normal variable."""
_LEAST = 2000
"""Fewer voxels tell no sigma to a few per cent."""
_ENOUGH, _MANY = 300_000, 500_000
"""Of so many values a median is right to a part in five hundred; and the brightness is told from so many."""
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


def estimate(scan: Volume, device: str = "cpu") -> Noise:
    """Estimate the noise of a 3D scan, or of the first frame of a series.

    Parameters
    ----------
    scan : Volume
        Grey values.
    device : str
        ``"cuda"``: a GPU looks, with the same answer to rounding; else processor cores do.

    Returns
    -------
    Noise

    Raises
    ------
    UnsupportedImage
        If the scan is too small or constant, or holds NaN or infinite values.
    """
    data = np.asarray(scan.frame(0).data, dtype=np.float32)
    if min(data.shape) < 2 or data.size < 512:
        raise UnsupportedImage(f"A scan of {data.shape} voxels is too small to tell its noise.")
    low, high = float(data.min()), float(data.max())
    if not np.isfinite(high - low):
        raise UnsupportedImage("The scan holds NaN or infinite values.", hint="Replace them (by 0, say).")
    data = _thinned(data)
    if not high > low:
        raise UnsupportedImage("Every voxel has the same value, so there is no noise to measure.")
    bright = brightness(data)
    rician_like = low >= 0
    air, flat = _both_looks(data, bright, rician_like) if device != "cuda" else _looks_on(device, data, bright, rician_like)
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


def _both_looks(data: Array, bright: float, rician_like: bool) -> tuple[_Look, _Look]:
    """Look at the air, if there may be a noise floor, and at the detail."""
    sums = ArraySums()
    with own_threads(), ThreadPoolExecutor(1) as beside:  # at once; filters do not hold the interpreter
        seen = beside.submit(_detail_look, data, rician_like, sums)
        return _air_look(data, bright, rician_like, sums), seen.result()


def _looks_on(device: str, data: Array, bright: float, rician_like: bool) -> tuple[_Look, _Look]:
    """Do so on a device of torch."""
    import torch

    from napari_mri.nets.noise_sums import TensorSums

    there, sums = torch.from_numpy(np.array(data)).to(device), TensorSums()
    return _air_look(there, bright, rician_like, sums), _detail_look(there, rician_like, sums)


class ArraySums:
    """What the looks ask of arrays (I, J, K) and of values (V,); `nets.noise_sums.TensorSums` answers for tensors.

    All else that they do arrays and tensors do alike.
    """

    def blurred(self, image: Any, matrices: tuple[Matrix, ...]) -> Any:
        """Apply one matrix along each axis."""
        return along_axes(image, matrices)

    def percentile(self, values: Any, share: float) -> float:
        """Return what `share` % of the values are below."""
        return float(np.percentile(values, share))

    def counts(self, values: Any, bins: int, top: float) -> NDArray[np.int_]:
        """Count the values from 0 to `top` in bins."""
        return np.histogram(values, bins=bins, range=(0.0, top))[0]

    def steepness(self, image: Any, axis: int) -> Any:
        """Return the difference per voxel along an axis."""
        return np.gradient(image, axis=axis)

    def precise(self, values: Any) -> Any:
        """Return the values in double precision."""
        return values.astype(np.float64)

    def home(self, values: Any) -> Array:
        """Return the values as an array."""
        return np.asarray(values)


def _thinned(data: Array, most: int = 1_500_000, band: int = 16) -> Array:
    """Return evenly spaced blocks of a large scan: neighbours stay neighbours, and a figure needs no more voxels.

    Bands of two axes are kept, never those at the border alone, where there may be nothing but air.
    """
    share = np.sqrt(min(1.0, most / data.size))
    for axis in (0, 1):
        n = data.shape[axis]
        count = max(3, round(share * n / band))
        if share < 1 and count * band < n:
            starts = ((np.arange(count) + 0.5) * n / count - band / 2).round().astype(int)
            data = data.take((starts[:, None] + np.arange(band)).ravel(), axis=axis)
    return data


def _some(values: Any, enough: int = _ENOUGH) -> Any:
    """Return evenly spaced ones of many values (V,): a median or a correlation needs no more."""
    return values[:: max(1, len(values) // enough)]


def brightness(data: NDArray[Any]) -> float:
    """Return what bright tissue measures: a robust maximum of the voxels that are not background."""
    some = np.asarray(_some(data.reshape(-1), _MANY), dtype=np.float64)
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


def _lag(data: Any, where: Any, sums: Sums) -> float:
    """Mean correlation of neighbours along the three axes within a mask, 0 for white noise."""
    found = []
    for axis in range(3):
        here, there = _neighbours(axis)
        pair = where[here] & where[there]
        if int(pair.sum()) < 200:
            continue
        a, b = (sums.precise(_some(data[part][pair])) for part in (here, there))
        a, b = a - a.mean(), b - b.mean()
        spread = float((a * a).mean() * (b * b).mean()) ** 0.5
        if spread > 0:
            found.append(float((a * b).mean()) / spread)
    # One interpolated axis is enough to spoil the estimate.
    return max(found) if found else np.nan


def _neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return all voxels but the last along an axis, and those beside them."""
    here, there = (tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(None, -1), slice(1, None)))
    return here, there


def _air_look(data: Any, bright: float, rician_like: bool, sums: Sums) -> _Look:
    """Sigma from the air: the commonest local mean, then the voxels around which it reigns."""
    from scipy.ndimage import uniform_filter1d

    nothing = _Look(np.nan, np.nan, 0)
    if not rician_like:
        return nothing
    i, j, k = (uniform_filter1d(np.eye(n), min(5, n // 2 * 2 - 1), axis=0) for n in data.shape)
    mean = sums.blurred(data, (i, j, k))
    low = _some(mean[(mean > 0) & (mean < 0.45 * bright)])
    if len(low) < _LEAST:
        return nothing
    top = sums.percentile(low, 99)
    counts = np.convolve(sums.counts(low, 256, top), (1, 2, 3, 2, 1), mode="same")
    # Partial volume and dark tissue lie above the air, so the first strong peak is the air's.
    strong = np.flatnonzero(counts > 0.4 * counts.max())
    peak = strong[0] + int(np.argmax(counts[strong[0] : strong[0] + 12]))
    sigma = (peak + 0.5) * top / 256 / rician.FLOOR
    if sigma <= 0:
        return nothing
    for _ in range(4):
        air = (mean > 0.75 * rician.FLOOR * sigma) & (mean < 1.2 * rician.FLOOR * sigma)
        inner = _inner(air)
        air = inner if int(inner.sum()) >= _LEAST else air
        values = data[air]
        if len(values) < _LEAST:
            return nothing
        sigma = sums.percentile(_some(values), 50) / np.sqrt(2 * np.log(2))
    share = len(values) / np.prod(data.shape)
    if share < 0.01 or sigma > 0.4 * bright:
        return nothing
    zero = int((values == 0).sum()) / len(values)
    own = float(values.mean())
    ratio = own / max(float(((values - own) ** 2).mean()) ** 0.5, 1e-12) / (rician.FLOOR / rician.AIR_SPREAD)
    if zero > 0.2 or not 0.6 < ratio < 3:
        return nothing
    return _Look(float(sigma), _lag(data, air, sums), len(values), ratio)


def _inner(mask: Any) -> Any:
    """Leave out what touches the outside, by a face or the border of the volume."""
    out = mask & True
    for axis in range(3):
        here, there = _neighbours(axis)
        out[there] &= mask[here]
        out[here] &= mask[there]
        out[tuple(slice(None, None, max(1, n - 1)) if a == axis else slice(None) for a, n in enumerate(mask.shape))] = False
    return out


def slope(image: Any, sigma: float, sums: Sums | None = None) -> Any:
    """Return how steep an image is at every voxel, per voxel, after a blur of `sigma` voxels; (I, J, K), each above 1."""
    sums = sums or ArraySums()
    smooth = _smooth(image, sigma, sums)
    return sum(sums.steepness(smooth, axis) ** 2 for axis in range(3)) ** 0.5


def _smooth(image: Any, sigma: float, sums: Sums) -> Any:
    """Blur by a Gaussian of `sigma` voxels: a product of matrices an axis, quicker than a filter on one core."""
    from scipy.ndimage import gaussian_filter1d

    i, j, k = (gaussian_filter1d(np.eye(n), sigma, axis=0, truncate=2.5) for n in image.shape)
    return sums.blurred(image, (i, j, k))


def detail(data: Any) -> Any:
    """Return the finest diagonal Haar detail at every 2 x 2 x 2 block (I-1, J-1, K-1), of the noise's own variance."""
    for axis in range(3):
        here, there = _neighbours(axis)
        data = data[there] - data[here]
    return data / 8**0.5


def _detail_look(data: Any, rician_like: bool, sums: Sums) -> _Look:
    """Sigma from the diagonal detail of the flattest tissue, corrected for weak signal."""
    fine = detail(data)
    crop = tuple(slice(0, -1) for _ in range(3))
    smooth = _smooth(data, 2.0, sums)
    steep = slope(data, 1.5, sums)[crop]
    level = smooth[crop]
    tissue = abs(fine) >= 0
    if rician_like:
        bright = brightness(sums.home(_some(smooth.reshape(-1), _MANY)))
        tissue = (level > 0.3 * bright) & (abs(fine) > 0)
    if int(tissue.sum()) < _LEAST // 2:
        return _Look(np.nan, np.nan, 0)
    flat = tissue & (steep <= sums.percentile(steep[tissue], 30))
    spread = sums.percentile(abs(fine[flat]), 50) / _MAD
    sigma = float(rician.sigma_from(sums.percentile(level[flat], 50), spread)) if rician_like else spread
    return _Look(sigma, _colour(data, flat, spread, sums), int(flat.sum()))


def _colour(data: Any, flat: Any, diagonal: float, sums: Sums) -> float:
    """Correlation of neighbours guessed from how much weaker the diagonal detail is than that along two axes."""
    wider = []
    for kept in range(3):
        out = data
        for axis in range(3):
            here, there = _neighbours(axis)
            out = out[here] + out[there] if axis == kept else out[there] - out[here]
        wider.append(sums.percentile(abs(out[flat]), 50) / _MAD / np.sqrt(8))
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
