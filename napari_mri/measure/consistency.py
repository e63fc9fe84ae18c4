"""What a scan says about a finer one: sample it as the scanner would, compare, and correct it until both agree.

A thick slice is the mean of the finer voxels it covers, weighted by the slice profile. Grids of parallel
axes make that one small matrix an axis, so that sampling and its inverse are exact and quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume

Matrix = NDArray[np.float64]

PROFILES = ("box", "gaussian")
"""Slice profiles: even over the thickness, or a Gaussian whose full width at half maximum is the thickness."""

_SILENT = 8e-3
"""Share of the level at low frequencies below which a frequency counts as empty: scanners' own filters leave
more than twice as much, cubic interpolation or zero-filling by two leaves less than two thirds."""

_STEADY, _MEASURED = 1e-4, 0.02
"""Share of a correction's own strength that is added to what was measured; more where slices overlap so far (by half and
more) that some pattern across them was measured with less than the second share: it would come back as wild values."""


@dataclass(frozen=True, eq=False)
class Slicing:
    """How a scan's voxels sample a finer grid (see `slicing`).

    Parameters
    ----------
    scan, fine : Grid
        Axes of one direction and order.
    matrices : tuple of ndarray or None
        For each axis (voxels of the scan, voxels of the fine grid), rows of sum 1; None where both are the same.
    """

    scan: Grid
    fine: Grid
    matrices: tuple[Matrix | None, ...]

    def sampled(self, data: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the scanner would have measured of fine voxels.

        Parameters
        ----------
        data : ndarray, `fine.shape`

        Returns
        -------
        ndarray, `scan.shape`, float32
        """
        return along_axes(data, self.matrices)

    def corrected(self, data: NDArray[Any], measured: NDArray[Any], smooth: float = 10.0) -> NDArray[np.float32]:
        """Return the fine voxels nearest to the given ones that the scan could have been measured from.

        The correction is the one of least size and curvature whose samples are the difference
        ``measured - sampled(data)``: solved in closed form, axis by axis.

        Parameters
        ----------
        data : ndarray, `fine.shape`
        measured : ndarray, `scan.shape`
        smooth : float
            Weight of curvature, in units in which 1 spreads a correction over about one voxel of the scan.

        Returns
        -------
        ndarray, `fine.shape`, float32
        """
        gap = np.asarray(measured, dtype=np.float32) - self.sampled(data)
        return np.asarray(data, dtype=np.float32) + along_axes(gap, self.spread(smooth))

    def spread(self, smooth: float = 10.0) -> tuple[Matrix | None, ...]:
        """Return, for each axis, the (fine, scan) matrix that spreads a measured difference most smoothly."""
        return tuple(None if m is None else _inverse(m, smooth) for m in self.matrices)

    def scaled(self, data: NDArray[Any], measured: NDArray[Any], rounds: int = 4) -> NDArray[np.float32]:
        """Return fine voxels brought nearer to the scan by factors: what is not negative stays so.

        Richardson's and Lucy's rule; exact after one round where slices do not overlap.

        Parameters
        ----------
        data : ndarray, `fine.shape`
            Nowhere negative.
        measured : ndarray, `scan.shape`
            Nowhere negative.
        rounds : int
            At most; fewer if the scan is met to a ten-thousandth of its brightest voxel.

        Returns
        -------
        ndarray, `fine.shape`, float32
        """
        result, wanted = np.asarray(data, dtype=np.float32), np.asarray(measured, dtype=np.float32)
        back = tuple(None if m is None else m.T for m in self.matrices)
        share = along_axes(np.ones(self.scan.shape, np.float32), back)
        seen = share > 1e-3 * share.max()
        tiny = np.float32(1e-6 * max(float(wanted.max()), 1e-12))
        for _ in range(rounds):
            sampled = self.sampled(result)
            if np.abs(wanted - sampled).max() <= 1e-4 * wanted.max():
                break
            factor = (wanted + tiny) / (sampled + tiny)
            result = result * np.divide(along_axes(factor, back), share, out=np.ones_like(result), where=seen)
        return result


def slicing(scan: Grid, fine: Grid, thickness: ArrayLike | None = None, profile: str = "box") -> Slicing:
    """Return how the voxels of a scan sample a finer grid.

    Parameters
    ----------
    scan, fine : Grid
        Parallel axes in one order; the fine grid must reach every voxel of the scan.
    thickness : 3 float, mm, optional
        Width of a voxel of the scan along its axes; its spacing by default. Smaller than the spacing
        means gaps, larger means overlapping slices.
    profile : str
        One of `PROFILES`.

    Raises
    ------
    GridMismatch
        If the axes are not parallel or a voxel of the scan lies outside the fine grid.
    BadOption
        If the profile is not known or a thickness is not positive.
    """
    if profile not in PROFILES:
        raise BadOption(f"There is no slice profile '{profile}'.", hint=f"Choose among {', '.join(PROFILES)}.")
    widths = np.asarray(scan.spacing if thickness is None else thickness, dtype=np.float64)
    if widths.shape != (3,) or not np.isfinite(widths).all() or widths.min() <= 0:
        raise BadOption(f"Slice thickness must be three positive lengths in mm, not {thickness!r}.")
    if np.abs(scan.directions - fine.directions).max() > 1e-4:
        raise GridMismatch("The two grids are not parallel.", hint="Turn both to one storage order first.")
    first = scan.to_voxels(fine.to_patient((0, 0, 0))) * scan.spacing
    matrices: list[Matrix | None] = []
    for axis in range(3):
        step, finer = scan.spacing[axis], fine.spacing[axis]
        same = scan.shape[axis] == fine.shape[axis] and abs(step - finer) < 1e-5 and abs(first[axis]) < 1e-4
        if same and abs(widths[axis] - step) < 1e-5:
            matrices.append(None)
            continue
        centres = np.asarray(np.arange(scan.shape[axis]) * step, dtype=np.float64)
        edges = np.asarray(first[axis] + (np.arange(fine.shape[axis] + 1) - 0.5) * finer, dtype=np.float64)
        matrices.append(_weights(centres, edges, float(widths[axis]), profile))
    return Slicing(scan, fine, tuple(matrices))


def _weights(centres: Matrix, edges: Matrix, width: float, profile: str) -> Matrix:
    place = (edges[None, :] - centres[:, None]) / width
    if profile == "box":
        below = np.clip(place + 0.5, 0.0, 1.0)
    else:
        from scipy.special import ndtr

        below = ndtr(place * np.sqrt(8 * np.log(2)))
    weights = np.diff(below, axis=1)
    total = weights.sum(axis=1, keepdims=True)
    if total.min() < 1e-6:
        raise GridMismatch("The finer grid does not reach every slice of the scan.")
    return np.asarray(weights / total)


def _inverse(matrix: Matrix, smooth: float) -> Matrix:
    """Return the (fine, scan) matrix that spreads a measured difference most smoothly: matrix @ it = 1."""
    few, many = matrix.shape
    prior = np.eye(many)
    if many > 2:
        bend = np.diff(np.eye(many), n=2, axis=0)
        # A wave of a few scan voxels must cost as much curvature at any factor: hence the fourth power.
        prior += smooth * (max(many / few, 1.0) / np.pi) ** 4 * bend.T @ bend
    spread = np.linalg.solve(prior, matrix.T)
    seen = matrix @ spread
    mean = float(np.trace(seen)) / few
    least = float(np.linalg.eigvalsh((seen + seen.T) / 2)[0]) / mean
    seen += max(_STEADY, _MEASURED - least) * mean * np.eye(few)
    return np.asarray(np.linalg.solve(seen.T, spread.T).T)


def along_axes(data: NDArray[Any], matrices: tuple[Matrix | None, ...]) -> NDArray[np.float32]:
    """Apply one matrix along each axis.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    matrices : tuple of (new, old) ndarray or None
        None leaves an axis as it is.

    Returns
    -------
    ndarray of float32
    """
    out = np.ascontiguousarray(data, dtype=np.float32)
    # The axes that shrink first: the others then have less to do.
    order = sorted(range(3), key=lambda a: 1.0 if (m := matrices[a]) is None else m.shape[0] / m.shape[1])
    for axis in order:
        matrix = matrices[axis]
        if matrix is not None:
            last = np.moveaxis(out, axis, -1) @ matrix.T.astype(np.float32)
            out = np.ascontiguousarray(np.moveaxis(last, -1, axis))
    return out


def between(count: int, wanted: int, ratio: float) -> Matrix:
    """Return the (wanted, count) matrix that interpolates linearly between the middles of voxels; borders go on outside.

    Parameters
    ----------
    count, wanted : int
        Voxels there are, and voxels wanted, from the same outer edge on.
    ratio : float
        Spacing of those wanted, in voxels there are.
    """
    place = np.clip((np.arange(wanted) + 0.5) * ratio - 0.5, 0, count - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(count))))


@dataclass(frozen=True, eq=False)
class Consistency:
    """How well a finer volume explains the scan.

    Parameters
    ----------
    rmse : float
        Root mean square of the residual, in units of the scan.
    percent : float
        The same in per cent of the scan's range (percentile 0.5 to 99.5).
    worst : float
        Largest residual, in per cent of that range.
    residual : Volume
        Scan minus re-sampled result, on the grid of the scan, float32.
    """

    rmse: float
    percent: float
    worst: float
    residual: Volume

    def __str__(self) -> str:
        much = "less than 0.01" if self.percent < 0.01 else f"{self.percent:.2g}"
        return f"sampled back to the scan's slices it differs by {much} % of the range (RMS)"


def consistency(
    scan: Volume, result: Volume, thickness: ArrayLike | None = None, profile: str = "box"
) -> Consistency:
    """Compare a finer volume, sampled as the scan was, with the scan. Needs no ground truth.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    result : Volume
        3D, on a finer grid of parallel axes, in any storage order.
    thickness : 3 float, mm, optional
        Of the scan's voxels along its axes; its spacing by default.
    profile : str
        One of `PROFILES`.

    Raises
    ------
    GridMismatch
        If the grids are not parallel, or a volume has several frames.
    """
    if scan.data.ndim != 3 or result.data.ndim != 3:
        raise GridMismatch("Consistency is measured frame by frame.", hint="Compare one frame at a time.")
    fine = result.turned(scan.grid.axes)
    model = slicing(scan.grid, fine.grid, thickness, profile)
    return compared(scan, model.sampled(fine.data))


def compared(scan: Volume, sampled: NDArray[Any]) -> Consistency:
    """Return the figures for a result that was sampled already (see `consistency`).

    Parameters
    ----------
    scan : Volume, (I, J, K)
    sampled : ndarray, (I, J, K)
        What the scanner would have measured of the result.
    """
    measured = np.asarray(scan.data, dtype=np.float32)
    residual = measured - np.asarray(sampled, dtype=np.float32)
    extent = _range(measured)
    rmse = float(np.sqrt(np.mean(residual.astype(np.float64) ** 2)))
    worst = float(np.abs(residual).max())
    # A scan of one value has no range: any difference that is not rounding is then a whole one.
    rounding = 1e-5 * float(np.abs(measured).max(initial=0))
    percent, most = (100 * x / extent if extent > 0 else 100.0 * (x > rounding) for x in (rmse, worst))
    return Consistency(rmse, float(percent), float(most), scan.with_data(residual))


def _range(values: NDArray[np.float32]) -> float:
    # Every n-th voxel is plenty for two percentiles of a large scan.
    some = values.ravel()[:: max(1, values.size // 500_000)]
    low, high = np.percentile(some, [0.5, 99.5])
    return float(high - low) or float(values.max() - values.min())


def filled_spectrum(data: NDArray[Any]) -> tuple[float, float, float]:
    """Return up to which share of the highest frequency each axis holds signal or noise.

    An MR scan fills its spectrum: where the signal ends, noise goes on. A scan that was interpolated
    (zero-filled, or resampled by a smooth kernel) has next to nothing beyond its true resolution.

    Parameters
    ----------
    data : ndarray, (I, J, K)

    Returns
    -------
    3 float
        0 to 1 for each axis; 1.0 where the axis is too short (below 16) or empty to judge.
    """
    i, j, k = (_filled(np.moveaxis(np.asarray(data), axis, -1)) for axis in range(3))
    return i, j, k


def _filled(data: NDArray[Any]) -> float:
    count = data.shape[-1]
    if count < 16:
        return 1.0
    lines = data.reshape(-1, count)
    lines = lines[:: max(1, len(lines) // 20_000)].astype(np.float64)
    strength = lines.std(axis=1)
    lines = lines[strength > 0.2 * strength.max()]  # lines of air say nothing
    if strength.max() <= 0 or len(lines) < 8:
        return 1.0
    window = np.hanning(count + 2)[1:-1]
    power = (np.abs(np.fft.rfft((lines - lines.mean(axis=1, keepdims=True)) * window)) ** 2).mean(axis=0)
    frequency = np.arange(len(power)) / (count / 2)
    # Edges fall off with the square of the frequency; what remains after undoing that is level.
    level = power * frequency**2
    band = (frequency > 0.04) & (frequency < 0.3)
    if not band.any() or np.median(level[band]) <= 0:
        return 1.0
    # A running median: single frequencies scatter, and the folded images of interpolation are narrow.
    wide = max(1, len(level) // 30)
    padded = np.pad(level, wide, mode="edge")
    level = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * wide + 1), axis=1)
    silent = level <= _SILENT * np.median(level[band])
    # From where on nearly all is silent: folded images and the last frequency may rise again.
    beyond = np.cumsum(silent[::-1])[::-1] / np.arange(len(silent), 0, -1)
    quiet = frequency[(beyond >= 0.8) & silent]
    return float(quiet.min()) if quiet.size > 2 else 1.0
