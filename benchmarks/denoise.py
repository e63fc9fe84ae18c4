"""Measure the denoisers against BM4D and dipy in one run: `python -m benchmarks.denoise --out docs/denoise.json`.

Crops of the phantom, of held-back synthetic heads and of real clean scans get Rician noise of known strength; each
method is given the true sigma, and is judged against the noise-free image inside the head. BM4D (installed for the
benchmark only) works in the variance-stabilised scale and comes back by the exact inverse, as its authors do.
A diffusion phantom (30 directions, two shells) and real series with noise added judge the methods for series, with the
error of fractional anisotropy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri import phantom, registry
from napari_mri.core.errors import MriError
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure import rician

Array = NDArray[np.float32]
LEVELS = (0.03, 0.05, 0.09, 0.15)


def data_folder() -> Path:
    """Return the folder of real scans: ``NAPARI_MRI_TEST_DATA``, or shared/data beside the project."""
    return Path(os.environ.get("NAPARI_MRI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def psnr(answer: Array, truth: Array, mask: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB inside a mask; the peak is the truth's brightness (99.5th percentile)."""
    peak = float(np.percentile(truth[mask], 99.5))
    return float(10 * np.log10(peak**2 / np.mean((answer[mask] - truth[mask]) ** 2)))


def ssim(answer: Array, truth: Array, mask: NDArray[np.bool_]) -> float:
    """Mean structural similarity inside a mask."""
    from skimage.metrics import structural_similarity

    peak = float(np.percentile(truth[mask], 99.5))
    _, field = structural_similarity(truth, answer, data_range=peak, full=True, win_size=7)
    return float(field[mask].mean())


def crop(image: Array, side: int) -> Array:
    """Return the middle of a volume, at most `side` voxels along each axis."""
    return image[tuple(slice(max(0, (n - side) // 2), max(0, (n - side) // 2) + side) for n in image.shape)]


def brightness(clean: Array) -> float:
    """Return what noise levels are told in parts of: the 90th percentile of what is not air."""
    return float(np.percentile(clean[clean > 0.05 * clean.max()], 90))


def phantom_cases(side: int) -> list[tuple[str, Array]]:
    """Noise-free crops of the phantom in three contrasts."""
    full = phantom.default_grid()
    low = (np.asarray(full.shape) - side) // 2 + np.array([14, 0, 10])
    grid = full.cropped(low, low + side)
    return [
        (f"phantom {c}", np.asarray(phantom.head(grid, c, noise=0.0)[0].data, np.float32))
        for c in ("T1", "T2", "FLAIR")
    ]


def held_back_cases(side: int) -> list[tuple[str, Array]]:
    """Noise-free crops of painted heads whose label maps were never painted for training."""
    from training.clean_images import clean_volume
    from training.paths import CACHE, DATA
    from training.synth import load_heads
    from training.train_denoise import HELD_OUT

    heads = load_heads(DATA, CACHE, HELD_OUT)
    made: list[tuple[str, Array]] = []
    seed = 0
    while len(made) < 3:
        volume = clean_volume(heads, 99_000 + seed).numpy() * 1000
        seed += 1
        piece = crop(volume, side)
        if min(piece.shape) >= min(side, 40) and float((piece > 50).mean()) > 0.6:
            made.append((f"held-back {len(made)}", piece.astype(np.float32)))
    return made


def real_cases(side: int) -> list[tuple[str, Array]]:
    """Crops of real scans with little noise of their own."""
    from napari_mri.io.files import load

    folder = data_folder()
    files = {
        "colin27 T1": folder / "head_t1_colin27" / "ch2.nii.gz",
        "MS T1": folder / "head_ms_multicontrast" / "patient01" / "T1W.nii.gz",
        "MS T2": folder / "head_ms_multicontrast" / "patient01" / "T2W.nii.gz",
        "MS FLAIR": folder / "head_ms_multicontrast" / "patient01" / "FLAIR.nii.gz",
    }
    return [(name, crop(np.asarray(load(f).data, np.float32), side)) for name, f in files.items() if f.exists()]


def bm4d(noisy: Array, sigma: float) -> Array:
    """BM4D in the stabilised scale."""
    from bm4d import bm4d as method

    even = rician.stabilised(noisy, sigma).astype(np.float64)
    return rician.back_from_stabilised(method(even, 1.0), sigma)


def of_model(name: str, **options: Any) -> Callable[[Array, float], Array]:
    """One of the project's models as a function of scan and sigma."""

    def apply(noisy: Array, sigma: float) -> Array:
        model = registry.find("denoise", name)
        assert model.run is not None
        params = model.settings({"sigma": sigma, "kind": "rician", **options})
        return np.asarray(model.run(Volume(noisy, Grid.plain(noisy.shape)), params, LocalRuntime("cpu")).data)

    return apply


def volumes(
    methods: dict[str, Callable[[Array, float], Array]], cases: list[tuple[str, Array]], levels: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Every method on every case at every level."""
    rows = []
    for apply in methods.values():  # imports and first calls are not what is timed
        apply(rician.noise_of(np.random.default_rng(1), np.full((16, 16, 16), 100.0), 5.0), 5.0)
    for name, clean in cases:
        bright = brightness(clean)
        mask = clean > 0.1 * bright
        for level in levels:
            noisy = rician.noise_of(np.random.default_rng(7), clean, level * bright)
            row: dict[str, Any] = {
                "case": name,
                "percent": round(100 * level),
                "noisy": round(psnr(noisy, clean, mask), 2),
            }
            for method, apply in methods.items():
                began = time.process_time()
                answer = apply(noisy, level * bright)
                took = time.process_time() - began
                dark = clean < 0.02 * bright
                row[method] = {
                    "psnr": round(psnr(answer, clean, mask), 2),
                    "ssim": round(ssim(answer, clean, mask), 4),
                    "s_per_mvox": round(took / clean.size * 1e6, 2),
                    "air_bias_percent": round(100 * float((answer - clean)[dark].mean()) / bright, 2)
                    if dark.any()
                    else None,
                }
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


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


def one_series(case: SeriesCase, names: tuple[str, ...], level: float, seed: int) -> list[dict[str, Any]]:
    """Run the methods for series on one case."""
    clean, frames = case.clean, case.frames
    bright = float(np.percentile(clean[..., 0], 90))
    noisy = rician.noise_of(np.random.default_rng(3 + seed), clean, level * bright)
    scan = Volume(noisy, Grid.plain(clean.shape[:3], case.spacing), frames=frames)
    mask = np.broadcast_to((clean[..., 0] > 0.1 * bright)[..., None], clean.shape)
    judged = frames is not None and case.judged is not None
    truth = anisotropy(clean, frames, case.judged) if judged else None
    rows = []
    answers: dict[str, tuple[Array, float]] = {"noisy": (noisy, 0.0)}
    for name in names:
        model = registry.find("denoise", name.split(":")[0])
        assert model.run is not None
        given: dict[str, Any] = {"sigma": level * bright} if any(k.name == "sigma" for k in model.knobs) else {}
        if ":" in name:
            given["way"] = name.split(":")[1]
        began = time.process_time()
        try:
            answer = np.asarray(model.run(scan, model.settings(given), LocalRuntime("cpu")).data)
        except (MriError, ValueError) as error:
            print(name, "cannot:", error, flush=True)
            continue
        answers[name] = answer, time.process_time() - began
    for name, (answer, took) in answers.items():
        row: dict[str, Any] = {
            "case": case.name,
            "percent": round(100 * level),
            "method": name,
            "psnr": round(psnr(answer, clean, mask), 2),
        }
        if truth is not None:
            row["fa_error"] = round(float(np.abs(anisotropy(answer, frames, case.judged) - truth).mean()), 4)
        row["s"] = round(took, 1)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean PSNR of each method, and each method's mean and worst difference to BM4D, by kind of case."""
    out: dict[str, Any] = {}
    for kind in ("phantom", "held-back", "real"):
        mine = [
            r
            for r in rows
            if (r["case"].split()[0] if r["case"].split()[0] in ("phantom", "held-back") else "real") == kind
        ]
        if not mine:
            continue
        methods = [k for k in mine[0] if isinstance(mine[0][k], dict)]
        table = {m: [r[m]["psnr"] for r in mine] for m in methods}
        out[kind] = {m: round(float(np.mean(v)), 2) for m, v in table.items()}
        if "bm4d" in table:
            for m in methods:
                gap = np.subtract(table[m], table["bm4d"])
                out[kind][f"{m} - bm4d"] = [round(float(gap.mean()), 2), round(float(gap.min()), 2)]
    return out


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--side", type=int, default=64, help="of the crops, voxels")
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS))
    parser.add_argument("--methods", nargs="*", default=["nlpca", "net3d", "nlm", "selfscan", "bm4d"])
    parser.add_argument("--cases", nargs="+", default=["phantom", "held-back", "real"])
    parser.add_argument(
        "--series",
        nargs="*",
        default=["neighbours", "mppca", "patch2self", "lowrank"],
        help="models, as neighbours:net",
    )
    parser.add_argument("--series-side", type=int, default=48)
    parser.add_argument("--series-levels", type=float, nargs="+", default=[0.05])
    parser.add_argument("--series-cases", nargs="+", default=["phantom", "real"])
    parser.add_argument("--series-seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=4.0, help="for the model that learns from the scan")
    parser.add_argument("--whole", action="store_true", help="time a whole head of 256 x 256 x 256 voxels beside BM4D")
    parser.add_argument("--device", default="cpu", help="of --whole: on a GPU it is timed by the clock, without BM4D")
    parser.add_argument("--profile", action="store_true", help="with --whole: where the time goes on the GPU")
    args = parser.parse_args(argv)
    own = {
        n: of_model(n, **({"minutes": args.minutes} if n == "selfscan" else {})) for n in args.methods if n != "bm4d"
    }
    methods = own | ({"bm4d": bm4d} if "bm4d" in args.methods else {})
    makers = {"phantom": phantom_cases, "held-back": held_back_cases, "real": real_cases}
    cases = [case for kind in args.cases for case in makers[kind](args.side)] if methods else []
    rows = volumes(methods, cases, tuple(args.levels))
    found = {"volumes": rows, "summary": summary(rows)}
    if args.series:
        found["series"] = [
            row
            for case in series_cases(tuple(args.series_cases), args.series_side, args.series_seed)
            for level in args.series_levels
            for row in one_series(case, tuple(args.series), level, args.series_seed)
        ]
    if args.whole:
        from benchmarks.denoise_whole import beside_bm4d, on_device

        found["whole_head"] = beside_bm4d() if args.device == "cpu" else on_device(args.device, args.profile)
        print(json.dumps(found["whole_head"], indent=1))
    if rows:
        print(json.dumps(found["summary"], indent=1))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
