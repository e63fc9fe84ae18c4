"""Voxels halved along all axes against the truth: measure a fine head twice as coarse, refine it again, compare.

``python -m benchmarks.superres_isotropic [--weights FOLDER]`` prints PSNR in dB and SSIM inside the head. Voxels are
measured as the mean of eight, as the middle of k-space (a raised cosine over its outer third), and after a Gaussian
blur; with and without Rician noise. The first two are what the network is judged by, the last is what SRReCNN3D
(run where ``--weights FOLDER`` holds it) was made for. ``--time`` times a scan of 128 × 128 × 128.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.denoise import psnr, ssim
from benchmarks.superres import in_head, phantom_cases, real_cases, synthetic_cases
from napari_mri import phantom, tasks
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.consistency import consistency
from training.train_isotropic import along, box, gaussian, kspace

Array = NDArray[np.float32]
WAYS: dict[str, Callable[[int], torch.Tensor]] = {
    "mean": box,
    "k-space": lambda n: kspace(n, 1 / 3),
    "gaussian": lambda n: gaussian(n, 1.18),
}


def coarse(truth: Array, way: str, noise: float, seed: int = 0) -> Volume:
    """Measure voxels of 2 mm from a truth of 1 mm, with Rician noise in parts of the peak."""
    i, j, k = (WAYS[way](n) for n in truth.shape)
    data = along(torch.from_numpy(truth), (i, j, k)).abs().numpy()
    if noise:
        sigma = noise * float(np.percentile(truth, 99.5))
        draw = np.random.default_rng(seed).normal(0, sigma, (2, *data.shape))
        data = np.hypot(data + draw[0], draw[1])
    grid = Grid.plain(truth.shape).respaced((2, 2, 2))
    return Volume(data.astype(np.float32), grid)


def ran(model: str, scan: Volume, **options: Any) -> Array:
    """Run one of the project's models."""
    return np.asarray(tasks.run(Order("superres", model, options), scan, LocalRuntime("cpu")).result.data, np.float32)


def methods(weights: Path | None) -> dict[str, Callable[[Volume], Array]]:
    """Return what is judged."""
    found: dict[str, Callable[[Volume], Array]] = {
        "plain cubic": lambda scan: ran("cubic", scan, spacing=1.0, consistent=False),
        "cubic": lambda scan: ran("cubic", scan, spacing=1.0),
        "isotropic_x2": lambda scan: ran("isotropic_x2", scan),
    }
    file = None if weights is None else weights / "superres_brain3d" / "srrecnn3d_10l_x2.safetensors"
    if file is not None and file.is_file():
        from benchmarks.superres_peers import srrecnn

        net = srrecnn(file)
        found["SRReCNN3D"] = lambda scan: net(ran("cubic", scan, spacing=1.0, consistent=False))
    return found


def judged(name: str, truth: Array, ways: list[str], noises: list[float], weights: Path | None) -> list[dict[str, Any]]:
    """Judge every method on one case."""
    mask, rows = in_head(truth), []
    for way in ways:
        for noise in noises:
            scan = coarse(truth, way, noise)
            for method, apply in methods(weights).items():
                began = time.process_time()
                found = apply(scan)
                row = {
                    "case": name,
                    "way": way,
                    "noise": noise,
                    "method": method,
                    "psnr": round(psnr(found, truth, mask), 2),
                    "ssim": round(ssim(found, truth, mask), 4),
                    "consistency": round(consistency(scan, Volume(found, Grid.plain(found.shape))).percent, 2),
                    "cpu_seconds": round(time.process_time() - began, 1),
                }
                rows.append(row)
                print(row, flush=True)
    return rows


def means(rows: list[dict[str, Any]]) -> str:
    """Return a table: mean PSNR and SSIM of each kind of case, way of measuring, noise and method."""
    kinds: dict[tuple[str, str, float, str], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["case"].split(":")[0], row["way"], row["noise"], row["method"]), []).append(row)
    lines = ["| cases | measured by | noise | method | PSNR | SSIM | consistency % |", "| --- " * 7 + "|"]
    for (kind, way, noise, method), some in kinds.items():
        figures = [float(np.mean([row[name] for row in some])) for name in ("psnr", "ssim", "consistency")]
        lines.append(
            f"| {kind} ({len(some)}) | {way} | {100 * noise:g} % | {method} | "
            f"{figures[0]:.2f} | {figures[1]:.3f} | {figures[2]:.2f} |"
        )
    return "\n".join(lines)


def timed() -> dict[str, Any]:
    """Time a head of 128 × 128 × 128 voxels of 1.5 mm."""
    scan, _ = phantom.head(Grid.plain((128, 128, 128), (1.5, 1.5, 1.5)), "T1")
    busy, began = time.process_time(), time.perf_counter()
    result = ran("isotropic_x2", scan)
    return {
        "to": "x".join(map(str, result.shape)),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - busy, 1),
    }


def main() -> None:
    """Run what is asked for and print it."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--cases", nargs="*", default=["real", "synthetic", "phantom"])
    ask.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=["mean", "k-space"])
    ask.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.04], help="in parts of the peak")
    ask.add_argument("--weights", type=Path, default=None, help="folder that holds superres_brain3d")
    ask.add_argument("--time", action="store_true")
    ask.add_argument("--out", type=Path, default=None)
    args = ask.parse_args()
    makers = {"real": real_cases, "synthetic": synthetic_cases, "phantom": phantom_cases}
    rows: list[dict[str, Any]] = []
    for kind in args.cases:
        for name, truth in makers[kind]():
            rows += judged(name, truth, args.ways, args.noise, args.weights)
    if rows:
        print(means(rows))
    time_ = timed() if args.time else None
    if time_:
        print(time_)
    if args.out is not None:
        args.out.write_text(json.dumps({"rows": rows, "time": time_}, indent=1) + "\n")


if __name__ == "__main__":
    main()
