"""The denoisers of series, on a diffusion phantom and on real series; `benchmarks.denoise --series` asks for it.

The diffusion phantom has 30 directions on each of two shells. Real series get noise on top of their own. Their first
rows take the series for noise-free, so that a method that takes out the series' own noise is blamed for it. The rows
named *unseen* judge by the clean image nobody has seen (Pang et al., Recorrupted-to-Recorrupted, CVPR 2021): where
`own` is the noise of the series and `added` was added, `series - (own / added level)² added` has noise that is
independent of that in `series + added`, so the squared distance of an answer to it is the error of the answer plus a
constant that is known. It needs the level of the series' own noise, which should be white; a level told wrong shifts
all methods alike, to first order. The phantom with noise of its own, whose truth is known, shows how far it can be
trusted.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.denoise import Array, data_folder, psnr
from napari_mri import phantom, registry
from napari_mri.core.errors import MriError
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure import noise, rician

OWN = 0.03
"""Noise that the phantom is given for its own, in parts of its brightness."""
CLEAR = 4.0
"""Signal, in standard deviations of the noise, from which on magnitudes are Gaussian enough to be judged unseen."""


@dataclass(frozen=True)
class Wish:
    """What is to be measured.

    Parameters
    ----------
    names : tuple of str
        Models, as ``neighbours:net``.
    levels : tuple of float
        Of the noise added, in parts of the brightness.
    side : int
        Of the phantom, voxels.
    seed : int
    """

    names: tuple[str, ...]
    levels: tuple[float, ...]
    side: int
    seed: int


def measured(wish: Wish, kinds: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Measure every method on every series at every level, against the series and against what nobody has seen."""
    cases = series_cases(kinds, wish.side, wish.seed)
    seen = [row for case in cases for level in wish.levels for row in one_series(case, wish.names, level, wish.seed)]
    unseen = []
    for case in cases:
        own = with_noise(case, wish.seed) if case.name.startswith("phantom") else case
        for level in wish.levels:
            unseen += one_unseen(own, case.clean if own is not case else None, wish.names, level, wish.seed)
    return {"series": seen, "series_unseen": unseen}


def diffusion_phantom(side: int, seed: int = 0) -> tuple[Array, Frames, NDArray[np.bool_]]:
    """Noise-free diffusion series from the phantom's labels: 4 b0 and 30 directions at b = 1000 and 2000.

    Returns
    -------
    series : ndarray, (I, J, K, 64)
    frames : Frames
    white : ndarray of bool
        White matter, where anisotropy is judged.
    """
    full = phantom.default_grid(2.0)
    low = (np.asarray(full.shape) - side) // 2 + np.array([0, 0, 8])
    grid = full.cropped(low, low + np.array([side, side, min(side, 20)]))
    scan, labels = phantom.head(grid, "T2", noise=0.0, bias=0.1)
    names = {v: k for k, v in labels.names.items()}
    white = np.isin(labels.data, [names[n] for n in names if "white" in n.lower() or "callosum" in n.lower()])
    fluid = np.isin(
        labels.data, [names[n] for n in names if "vent" in n.lower() or "fluid" in n.lower() or "csf" in n.lower()]
    )
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij"), -1)
    fibre = np.stack([np.sin(2.5 * x[..., 1] + 1), np.cos(2 * x[..., 0]), np.sin(2 * x[..., 2] + x[..., 0])], -1)
    fibre /= np.linalg.norm(fibre, axis=-1, keepdims=True)
    along, across = np.full(grid.shape, 0.9e-3), np.full(grid.shape, 0.75e-3)
    along[white], across[white] = 1.6e-3, 0.35e-3
    along[fluid] = across[fluid] = 3.0e-3
    vectors = rng.standard_normal((60, 3))
    for _ in range(200):  # spread directions by mutual repulsion, shell by shell
        for shell in (vectors[:30], vectors[30:]):
            shell /= np.linalg.norm(shell, axis=1, keepdims=True)
            both = np.concatenate([shell, -shell])
            gap = shell[:, None] - both[None]
            shell += 0.02 * (gap / (np.linalg.norm(gap, axis=-1, keepdims=True) ** 3 + 1e-3)).sum(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bvals = [0.0] * 4 + [1000.0] * 30 + [2000.0] * 30
    bvecs = np.concatenate([np.zeros((4, 3)), vectors])
    base = np.asarray(scan.data, np.float32)
    series = np.stack(
        [base * np.exp(-b * (across + (along - across) * (fibre @ v) ** 2)) for b, v in zip(bvals, bvecs, strict=True)],
        -1,
    )
    frames = Frames("diffusion", bvals=tuple(bvals), bvecs=tuple((float(a), float(b), float(c)) for a, b, c in bvecs))
    return series.astype(np.float32), frames, white


def anisotropy(series: Array, frames: Frames | None, mask: NDArray[np.bool_]) -> Array:
    """Fractional anisotropy inside a mask by a weighted tensor fit (dipy)."""
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    assert frames is not None
    table = gradient_table(np.asarray(frames.bvals), bvecs=np.asarray(frames.bvecs))
    return np.asarray(TensorModel(table).fit(np.maximum(series[mask], 1e-3)).fa)


@dataclass(frozen=True)
class SeriesCase:
    """A series taken for noise-free.

    Parameters
    ----------
    name : str
    clean : ndarray, (I, J, K, C)
    spacing : tuple of float, mm
    frames : Frames, optional
    judged : ndarray of bool, (I, J, K), optional
        Where the error of fractional anisotropy is taken.
    """

    name: str
    clean: Array
    spacing: tuple[float, float, float]
    frames: Frames | None = None
    judged: NDArray[np.bool_] | None = None


def series_cases(kinds: tuple[str, ...], side: int, seed: int) -> list[SeriesCase]:
    """Make the diffusion phantom, and take the real series of the data folder: six directions in a spinal cord, ten time points."""
    made = []
    if "phantom" in kinds:
        clean, frames, white = diffusion_phantom(side, seed)
        made.append(SeriesCase(f"phantom, seed {seed}", clean, (2.0, 2.0, 2.0), frames, white))
    if "real" in kinds:
        from napari_mri.io.files import load

        folder = data_folder()
        cord, points = folder / "spine_and_4d" / "dmri_dmri.nii.gz", folder / "dicom_ge_fmri_classic"
        if cord.exists():
            scan = load(cord)
            bvals = np.loadtxt(cord.with_name("dmri_bvals.txt")).ravel()
            bvecs = np.loadtxt(cord.with_name("dmri_bvecs.txt")).reshape(-1, 3)
            frames = Frames(
                "diffusion",
                bvals=tuple(map(float, bvals)),
                bvecs=tuple((float(a), float(b), float(c)) for a, b, c in bvecs),
            )
            data = np.asarray(scan.data, np.float32)
            made.append(
                SeriesCase(
                    "cord, 6 directions",
                    data,
                    scan.grid.spacing,
                    frames,
                    data.min(-1) > 0.2 * np.percentile(data[..., 0], 90),
                )
            )
        if points.exists():
            scan = load(points)
            made.append(SeriesCase("functional, 10 time points", np.asarray(scan.data, np.float32), scan.grid.spacing))
    return made


def with_noise(case: SeriesCase, seed: int) -> SeriesCase:
    """Give a series noise of its own."""
    level = OWN * brightness(case.clean)
    return replace(
        case,
        name=f"{case.name} with {100 * OWN:.0f} % of its own",
        clean=rician.noise_of(np.random.default_rng(70 + seed), case.clean, level),
    )


def brightness(series: Array) -> float:
    """Return what noise levels are told in parts of: the 90th percentile of the first frame."""
    return float(np.percentile(series[..., 0], 90))


def body(series: Array) -> NDArray[np.bool_]:
    """(I, J, K, C) bool: where errors count."""
    return np.broadcast_to((series[..., 0] > 0.1 * brightness(series))[..., None], series.shape)


def own_noise(series: Array) -> float:
    """Return the level of the noise that a series has: from the air if there is any, else from bright tissue.

    Anatomy has no part in the finest detail of what differs between frames, but a moving head has, so air is better.
    """
    steady = series.mean(-1)[:-1, :-1, :-1]
    pairs = zip(frames_of(series), frames_of(series)[1:], strict=False)
    fine = np.abs(np.stack([noise.detail((b - a) / np.sqrt(2)) for a, b in pairs])) / 0.6745
    air = steady < 0.05 * brightness(series)
    if np.count_nonzero(air) > 400:
        return float(np.median(fine[:, air])) / rician.AIR_SPREAD
    level = float(np.median(fine))
    for _ in range(3):  # near the noise floor magnitudes spread less
        tissue = steady > CLEAR * level
        level = float(np.median(fine[:, tissue if np.count_nonzero(tissue) > 400 else steady > np.median(steady)]))
    return level


def frames_of(series: Array) -> list[Array]:
    """Return the frames, (I, J, K) each."""
    return list(np.moveaxis(series, -1, 0))


def answers(case: SeriesCase, noisy: Array, sigma: float, names: tuple[str, ...]) -> dict[str, tuple[Array, float]]:
    """Return what each method makes of a noisy series, and its seconds; the noisy series itself comes first."""
    scan = Volume(noisy, Grid.plain(noisy.shape[:3], case.spacing), frames=case.frames)
    made: dict[str, tuple[Array, float]] = {"noisy": (noisy, 0.0)}
    for name in names:
        model = registry.find("denoise", name.split(":")[0])
        assert model.run is not None
        given: dict[str, Any] = {"sigma": sigma} if any(k.name == "sigma" for k in model.knobs) else {}
        if ":" in name:
            given["way"] = name.split(":")[1]
        began = time.process_time()
        try:
            answer = np.asarray(model.run(scan, model.settings(given), LocalRuntime("cpu")).data)
        except (MriError, ValueError) as error:
            print(name, "cannot:", error, flush=True)
            continue
        made[name] = answer, time.process_time() - began
    return made


def one_series(case: SeriesCase, names: tuple[str, ...], level: float, seed: int) -> list[dict[str, Any]]:
    """Run the methods for series on one case that is taken for noise-free."""
    clean, frames = case.clean, case.frames
    sigma = level * brightness(clean)
    noisy = rician.noise_of(np.random.default_rng(3 + seed), clean, sigma)
    judged = frames is not None and case.judged is not None
    truth = anisotropy(clean, frames, case.judged) if judged else None
    rows = []
    for name, (answer, took) in answers(case, noisy, sigma, names).items():
        row: dict[str, Any] = {
            "case": case.name,
            "percent": round(100 * level),
            "method": name,
            "psnr": round(psnr(answer, clean, body(clean)), 2),
        }
        if truth is not None:
            row["fa_error"] = round(float(np.abs(anisotropy(answer, frames, case.judged) - truth).mean()), 4)
        row["s"] = round(took, 1)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def one_unseen(
    case: SeriesCase, truth: Array | None, names: tuple[str, ...], level: float, seed: int
) -> list[dict[str, Any]]:
    """Run the methods on a series that has noise of its own; judge by the clean image nobody has seen, and by the truth.

    Errors are mean squares where signal is clear, in parts of the variance of all the noise; at 0.1 10 dB are gained.
    """
    from scipy.ndimage import uniform_filter

    series = case.clean
    own, sigma = own_noise(series), level * brightness(series)
    added = sigma * np.random.default_rng(3 + seed).standard_normal(series.shape, dtype=np.float32)
    noisy = rician.noise_of(np.random.default_rng(3 + seed), series, sigma)  # its real part is `series + added`
    other, spread = series - (own / sigma) ** 2 * added, own**2 + own**4 / sigma**2
    total = float(np.hypot(own, sigma))
    where = np.stack([uniform_filter(frame, 3) for frame in frames_of(series)], -1) > CLEAR * total
    rows = []
    for name, (answer, _) in answers(case, noisy, total, names).items():
        error = float(np.mean((answer[where] - other[where]) ** 2)) - spread
        row: dict[str, Any] = {
            "case": case.name,
            "percent": round(100 * level),
            "own_percent": round(100 * own / brightness(series), 1),
            "judged_percent": round(100 * float(where.mean())),
            "method": name,
            "unseen_error": round(error / total**2, 3),
        }
        if truth is not None:
            row["true_error"] = round(float(np.mean((answer[where] - truth[where]) ** 2)) / total**2, 3)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows
