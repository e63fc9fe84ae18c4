"""Super-resolution against the truth: measure thick slices of a fine head, refine them again, compare.

``python -m benchmarks.superres --out docs/superres.json`` judges every method on the same blocks in one run:
PSNR and SSIM inside the head, and the data consistency. VDSR is run where ``--weights FOLDER`` holds it. ``--downstream`` strips 5 mm heads with and without super-resolution; ``--time`` times a clinical scan.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.denoise import data_folder, psnr, ssim
from benchmarks.denoise_whole import profiled
from benchmarks.superres_self import begin_peak, peak
from napari_mri import phantom, tasks
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine.device import processor_name
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load
from napari_mri.measure.consistency import Slicing, consistency, slicing

Array = NDArray[np.float32]
Method = Callable[[Volume, Array], Array]
"""Thick scan, and its cubic spline on the fine grid, to fine voxels."""

BLOCK = (96, 120, 96)
"""Voxels of a block: whole slices at factors 2, 4, 6 (and 3, 8)."""


def middle(data: NDArray[Any], shift: tuple[int, int, int] = (0, 0, 0)) -> Array:
    """Return the middle block of a volume, moved by some voxels."""
    low = [max(0, min(n - b, (n - b) // 2 + s)) for n, b, s in zip(data.shape, BLOCK, shift, strict=True)]
    return np.asarray(data[tuple(slice(a, a + b) for a, b in zip(low, BLOCK, strict=True))], dtype=np.float32)


def real_cases() -> Iterator[tuple[str, Array]]:
    """Load the real 1 mm heads, in RAS order."""
    folder = data_folder()
    file = folder / "head_t1_colin27" / "ch2.nii.gz"
    if file.exists():
        yield "real: Colin27 T1", middle(load(file).turned("RAS").data)
    file = folder / "dicom_siemens_t1_classic" / "SAG-anon.tar.xz"
    if file.exists():
        with tempfile.TemporaryDirectory() as place, tarfile.open(file) as tar:
            tar.extractall(place, filter="data")
            yield "real: Siemens MPRAGE", middle(load(Path(place)).turned("RAS").data, (0, 0, 30))


def synthetic_cases() -> Iterator[tuple[str, Array]]:
    """Painted heads of three label maps that were never painted for training, without noise."""
    from training.clean_images import clean_volume
    from training.paths import CACHE, DATA
    from training.synth import load_heads
    from training.train_denoise import HELD_OUT

    seed = 99_100
    for head in load_heads(DATA, CACHE, HELD_OUT):
        while True:
            volume = clean_volume([head], seed, 132).numpy() * 1000
            seed += 1
            if all(n >= b for n, b in zip(volume.shape, BLOCK, strict=True)) and float((volume > 50).mean()) > 0.5:
                break
        yield f"synthetic: map {head.name}", middle(volume)


def phantom_cases() -> Iterator[tuple[str, Array]]:
    """Draw the phantom in three contrasts, without noise."""
    full = phantom.default_grid()
    low = (np.asarray(full.shape) - BLOCK) // 2 + np.array([14, 0, 10])
    for contrast in ("T1", "T2", "FLAIR"):
        scan, _ = phantom.head(full.cropped(low, low + BLOCK), contrast, noise=0.0)
        yield f"phantom: {contrast}", np.asarray(scan.data, dtype=np.float32)


def of_model(name: str, device: str = "cpu", **options: Any) -> Method:
    """One of the project's models."""

    def apply(scan: Volume, spline: Array) -> Array:
        order = Order("superres", name, {"spacing": 1.0, **options})
        return np.asarray(tasks.run(order, scan, LocalRuntime(device)).result.data, dtype=np.float32)

    return apply


def methods(names: list[str], weights: Path | None, factor: int, device: str = "cpu") -> dict[str, Method]:
    """Return what is judged; VDSR only at factors it was made for."""
    found: dict[str, Method] = {"plain cubic": lambda scan, spline: spline}
    found |= {name: of_model(name, device) for name in names}
    if weights is None:
        return found
    from benchmarks.superres_peers import vdsr

    file = weights / "superres_vdsr2d" / "vdsr.safetensors"
    if file.is_file() and factor in (2, 4):
        planes = vdsr(file)
        found["VDSR"] = lambda scan, spline: planes(spline)
    return found


def thick(truth: Array, factor: float, noise: float = 0.0, seed: int = 0) -> tuple[Volume, Slicing]:
    """Measure slices `factor` voxels thick along the third axis, with Rician noise in parts of the peak."""
    grid = Grid.plain(truth.shape)
    model = slicing(grid.respaced((1, 1, factor)), grid)
    measured = model.sampled(truth)
    if noise:
        sigma = noise * float(np.percentile(truth, 99.5))
        draw = np.random.default_rng(seed).normal(0, sigma, (2, *measured.shape))
        measured = np.hypot(measured + draw[0], draw[1])
    return Volume(measured.astype(np.float32), model.scan), model


def in_head(truth: Array) -> NDArray[np.bool_]:
    """Return the head: what is brighter than air, holes filled."""
    from scipy import ndimage

    bright = ndimage.uniform_filter(truth, 5) > 0.1 * np.percentile(truth, 99)
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=2)))


def judged(name: str, truth: Array, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Judge every method on one case at every factor and noise level."""
    mask = in_head(truth)
    for factor in args.factors:
        for noise in args.noise:
            scan, _ = thick(truth, factor, noise)
            plain = np.asarray(of_model("cubic", consistent=False)(scan, truth))
            wanted = methods(args.models, args.weights if noise == 0 else None, factor, args.device)
            for method, apply in wanted.items():
                begin = time.perf_counter()
                found = apply(scan, plain)
                seconds = time.perf_counter() - begin
                row = {
                    "case": name,
                    "factor": factor,
                    "noise": noise,
                    "method": method,
                    "psnr": round(psnr(found, truth, mask), 2),
                    "ssim": round(ssim(found, truth, mask), 4),
                    "consistency": round(consistency(scan, Volume(found, Grid.plain(found.shape))).percent, 3),
                    "seconds": round(seconds, 1),
                }
                print(row, flush=True)
                yield row


def downstream(model: str, count: int) -> list[dict[str, Any]]:
    """Strip 5 mm heads as they are and after super-resolution, against the truth, on the 1 mm and on the thick grid."""
    from benchmarks.skullstrip import dice, synthetic
    from napari_mri import api
    from napari_mri.core.volume import Labels
    from napari_mri.edit.carry import carried

    rows: list[dict[str, Any]] = []

    def add(name: str, scan: Volume, truth: Labels, **options: Any) -> None:
        for way, image in (("as it is", scan), (model, api.superres(scan, model=model, spacing=1.0, device="cpu"))):
            found = carried(api.skullstrip(image, model="skullnet", device="cpu", **options), truth.grid)
            a, b = np.asarray(found.data) > 0, np.asarray(truth.data) > 0
            rows.append({"case": name, "way": way, "dice": round(dice(a, b), 4), "ratio": round(float(a.sum() / b.sum()), 4)})
            print(rows[-1], flush=True)

    folder = data_folder() / "head_t1_colin27"
    if folder.is_dir():
        fine, brain = load(folder / "ch2.nii.gz"), load(folder / "ch2_brainmask.nii.gz")
        step = (1.0, 1.0, 5.0)
        model5 = slicing(fine.grid.respaced(step), fine.grid)
        scan = Volume(model5.sampled(fine.data), model5.scan)
        add("Colin27 T1, 5 mm", scan, Labels((np.asarray(brain.data) > 0).astype(np.uint8), brain.grid), csf=False)
    fives = [case for number, case in enumerate(synthetic(7 * count)) if number % 7 == 5]
    for case in fives:
        add(case.name, case.scan, Labels(case.truth["inner skull"].astype(np.uint8), case.scan.grid), csf=True)
    return rows


def timed(model: str, device: str = "cpu", runs: int = 5, profile: bool = False) -> dict[str, Any]:
    """Time a scan of 256 x 256 x 40 voxels, 0.9 x 0.9 x 4 mm, to isotropic: the median of some runs after a first."""
    import torch

    scan, _ = phantom.head(Grid.plain((256, 256, 40), (0.9, 0.9, 4.0)), "T2")
    order = Order("superres", model, {})
    result = tasks.run(order, scan, LocalRuntime(device)).result
    begin_peak(device)
    spent = []
    for _ in range(runs):
        began = time.perf_counter(), time.process_time()
        tasks.run(order, scan, LocalRuntime(device))  # its result has come home: the GPU has nothing left to do
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, cpu_seconds = np.median(spent, axis=0)
    if profile:
        print(profiled(lambda: tasks.run(order, scan, LocalRuntime(device)), device))
    return {
        "model": model,
        "device": processor_name(device),
        "to": "x".join(map(str, result.grid.shape)),
        "threads": torch.get_num_threads(),
        "runs": runs,
        "seconds": round(float(seconds), 2),
        "cpu_seconds": round(float(cpu_seconds), 2),
        "peak_gpu_memory_gb": peak(device),
    }


def means(rows: list[dict[str, Any]]) -> str:
    """Return a table: mean PSNR, SSIM and consistency of each kind of case, factor, noise and method."""
    kinds: dict[tuple[str, float, float, str], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["case"].split(":")[0], row["factor"], row["noise"], row["method"]), []).append(row)
    lines = ["| cases | factor | noise | method | PSNR | SSIM | consistency % |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for (kind, factor, noise, method), some in kinds.items():
        figures = [np.mean([row[name] for row in some]) for name in ("psnr", "ssim", "consistency")]
        lines.append(
            f"| {kind} ({len(some)}) | {factor:g} | {100 * noise:g} % | {method} | "
            f"{figures[0]:.2f} | {figures[1]:.3f} | {figures[2]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for and print it."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--models", nargs="+", default=["cubic", "through_plane"])
    ask.add_argument("--cases", nargs="+", default=["real", "synthetic", "phantom"])
    ask.add_argument("--factors", nargs="+", type=int, default=[2, 4, 6])
    ask.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.03], help="in parts of the peak")
    ask.add_argument("--weights", type=Path, default=None, help="folder that holds superres_vdsr2d")
    ask.add_argument("--downstream", type=int, default=0, metavar="COUNT", help="synthetic 5 mm heads to strip")
    ask.add_argument("--time", action="store_true")
    ask.add_argument("--runs", type=int, default=5, help="of --time, after a first one")
    ask.add_argument("--profile", action="store_true", help="with --time: where the time goes")
    ask.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    ask.add_argument("--out", type=Path, default=None)
    args = ask.parse_args()
    makers = {"real": real_cases, "synthetic": synthetic_cases, "phantom": phantom_cases}
    rows = [row for kind in args.cases if kind in makers for name, truth in makers[kind]() for row in judged(name, truth, args)]
    found: dict[str, Any] = {"rows": rows}
    if args.downstream:
        found["downstream"] = downstream(args.models[-1], args.downstream)
    if args.time:
        found["time"] = [timed(name, args.device, args.runs, args.profile) for name in args.models]
        for row in found["time"]:
            print(row, flush=True)
    if rows:
        print(means(rows))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
