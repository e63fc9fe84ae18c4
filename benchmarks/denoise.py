"""Measure the denoisers against BM4D and dipy in one run: `python -m benchmarks.denoise --out docs/denoise.json`.

Crops of the phantom, of held-back synthetic heads and of real clean scans get Rician noise of known strength; each
method is given the true sigma, and is judged against the noise-free image inside the head. BM4D (installed for the
benchmark only) works in the variance-stabilised scale and comes back by the exact inverse, as its authors do.
Series are `benchmarks.denoise_series`' part, time on a whole head is `benchmarks.denoise_whole`'s.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_mri import phantom, registry
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
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


class Case(NamedTuple):
    """A noise-free crop, (I, J, K), and where its cerebrospinal fluid is, if that is known."""

    name: str
    clean: Array
    fluid: NDArray[np.bool_] | None = None


def phantom_cases(side: int) -> list[Case]:
    """Noise-free crops of the phantom in three contrasts."""
    full = phantom.default_grid()
    low = (np.asarray(full.shape) - side) // 2 + np.array([14, 0, 10])
    grid = full.cropped(low, low + side)
    made = []
    for contrast in ("T1", "T2", "FLAIR"):
        scan, labels = phantom.head(grid, contrast, noise=0.0)
        wet = [number for number, name in labels.names.items() if name in ("cerebrospinal fluid", "ventricles")]
        made.append(Case(f"phantom {contrast}", np.asarray(scan.data, np.float32), np.isin(labels.data, wet)))
    return made


def held_back_cases(side: int) -> list[Case]:
    """Noise-free crops of painted heads whose label maps were never painted for training."""
    from training.clean_images import clean_volume
    from training.paths import CACHE, DATA
    from training.synth import load_heads
    from training.train_denoise import HELD_OUT

    heads = load_heads(DATA, CACHE, HELD_OUT)
    made: list[Case] = []
    seed = 0
    while len(made) < 3:
        volume = clean_volume(heads, 99_000 + seed).numpy() * 1000
        seed += 1
        piece = crop(volume, side)
        if min(piece.shape) >= min(side, 40) and float((piece > 50).mean()) > 0.6:
            made.append(Case(f"held-back {len(made)}", piece.astype(np.float32)))
    return made


def real_cases(side: int) -> list[Case]:
    """Crops of real scans with little noise of their own."""
    from napari_mri.io.files import load

    folder = data_folder()
    files = {
        "colin27 T1": folder / "head_t1_colin27" / "ch2.nii.gz",
        "MS T1": folder / "head_ms_multicontrast" / "patient01" / "T1W.nii.gz",
        "MS T2": folder / "head_ms_multicontrast" / "patient01" / "T2W.nii.gz",
        "MS FLAIR": folder / "head_ms_multicontrast" / "patient01" / "FLAIR.nii.gz",
    }
    return [Case(name, crop(np.asarray(load(f).data, np.float32), side)) for name, f in files.items() if f.exists()]


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
    methods: dict[str, Callable[[Array, float], Array]], cases: list[Case], levels: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Every method on every case at every level."""
    rows = []
    for apply in methods.values():  # imports and first calls are not what is timed
        apply(rician.noise_of(np.random.default_rng(1), np.full((16, 16, 16), 100.0), 5.0), 5.0)
    for name, clean, fluid in cases:
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
                off = (answer - clean) / bright * 100
                dark = clean < 0.02 * bright
                row[method] = {
                    "psnr": round(psnr(answer, clean, mask), 2),
                    "ssim": round(ssim(answer, clean, mask), 4),
                    "s_per_mvox": round(took / clean.size * 1e6, 2),
                    "air_bias_percent": round(float(off[dark].mean()), 2) if dark.any() else None,
                    "fluid_bias_percent": None if fluid is None else round(float(off[fluid].mean()), 2),
                }
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
    parser.add_argument("--profile", action="store_true", help="with --whole on a GPU: where the time goes")
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
        from benchmarks import denoise_series

        wish = denoise_series.Wish(tuple(args.series), tuple(args.series_levels), args.series_side, args.series_seed)
        found |= denoise_series.measured(wish, tuple(args.series_cases))
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
