"""Measure skull-stripping: ours, MindGrab, deepbrain and the classical method, on the same cases in one run.

python -m benchmarks.skullstrip --weights FOLDER --synthetic 60 --out docs/skullstrip_table.md
python -m benchmarks.skullstrip --gpu      only ours, in-process on a graphics processor, on the head of the phantom

Synthetic cases are drawn from label maps that the training never saw, at 1 mm in the plane and slices of 1 to
6 mm. Real cases are whole heads with masks, of `NAPARI_MRI_TEST_DATA`. Peers whose weights are absent are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import napari_mri as mri
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume

Mask = NDArray[np.bool_]
REAL = {
    "Colin27 T1, 1 mm": ("head_t1_colin27/ch2.nii.gz", "head_t1_colin27/ch2_brainmask.nii.gz"),
    "MS patient T1, 3 mm": ("head_ms_multicontrast/patient01/T1W.nii.gz", "head_ms_multicontrast/patient01/T1W_brainmask.nii.gz"),
    "MS patient T2, 4 mm": ("head_ms_multicontrast/patient01/T2W.nii.gz", "head_ms_multicontrast/patient01/T2W_brainmask.nii.gz"),
    "MS patient FLAIR, 4 mm": ("head_ms_multicontrast/patient01/FLAIR.nii.gz", "head_ms_multicontrast/patient01/FLAIR_brainmask.nii.gz"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A scan with what is known of its brain.

    `truth` holds one mask for each definition of brain that is known: "inner skull", "brain", or "reference".
    """

    name: str
    scan: Volume
    truth: dict[str, Mask]


def dice(a: Mask, b: Mask) -> float:
    """Dice overlap; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def surface_distance(a: Mask, b: Mask, spacing: tuple[float, ...]) -> float:
    """Mean distance in mm between two outlines, both ways; infinite if one is empty."""
    import edt
    from scipy.ndimage import binary_erosion

    if not a.any() or not b.any():
        return float("inf")
    ends = [(int(w.min()), int(w.max()) + 1) for w in np.nonzero(a | b)]
    box = tuple(slice(low, high) for low, high in ends)
    masks = [m[box] for m in (a, b)]
    rims = [m & ~binary_erosion(m, border_value=1) for m in masks]
    ways = [edt.edt(np.ascontiguousarray(~rim), anisotropy=spacing) for rim in rims]
    return float(np.concatenate([ways[1][rims[0]], ways[0][rims[1]]]).mean())


def synthetic(count: int, seed: int = 77) -> Iterator[Case]:
    """Draw cases from held-out label maps: 1 mm in the plane, slices of 1 to 6 mm along any axis."""
    from training.head_tasks import HELD_OUT
    from training.paths import CACHE, DATA
    from training.synth import Recipe, load_heads, make_sample

    kept = CACHE / f"skullstrip_cases_v2_{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    heads = load_heads(DATA, CACHE, HELD_OUT)
    recipe = Recipe(spacing=(1.0, 1.0), extent=((176, 208), (208, 240), (176, 240)), parts=3, stripped=0.0, cropped=0.2)
    for number in range(count):
        thick = (1, 1, 2, 3, 4, 5, 6)[number % 7]
        axis = (2, 2, 1, 0)[number % 4]
        spacing = [1.0, 1.0, 1.0]
        spacing[axis] = float(thick)
        file = kept / f"{number:03d}.npz"
        if not file.exists():
            sample = make_sample(heads[number % len(heads)], recipe, seed * 10_000 + number, size=(1.0, 1.0, 1.0))
            # Thick slices are averaged here and stored as thick voxels, as a scanner stores them.
            image = _slices(sample.image.numpy(), thick, axis)
            near = [_slices(d.numpy(), thick, axis) for d in sample.distance]
            seen = _slices(sample.seen.numpy().astype(np.float32), thick, axis) > 0.99
            np.savez(file, image=(image * 1000).astype(np.int16), skull=(near[0] < 0) & seen, brain=(near[1] < 0) & seen)
        with np.load(file) as made:
            scan = Volume(made["image"], Grid.plain(made["image"].shape, spacing))
            truth = {"inner skull": made["skull"], "brain": made["brain"]}
        yield Case(f"synthetic {number:02d}, {thick} mm", scan, truth)


def _slices(data: NDArray[np.float32], thick: int, axis: int) -> NDArray[np.float32]:
    data = np.moveaxis(data, axis, -1)
    count = data.shape[-1] // thick
    data = data[..., : count * thick].reshape(*data.shape[:2], count, thick).mean(-1)
    return np.ascontiguousarray(np.moveaxis(data, -1, axis))


def real(folder: Path) -> Iterator[Case]:
    """Load the real heads that are present."""
    for name, (image, mask) in REAL.items():
        if (folder / image).is_file():
            yield Case(name, mri.load(folder / image), {"reference": np.asarray(mri.load(folder / mask).data) > 0})


def methods(weights: Path, wanted: list[str]) -> dict[str, Callable[[Volume, str], Mask]]:
    """Return how each method makes a mask of a scan, given the definition of brain that is asked for."""

    def ours(scan: Volume, kind: str) -> Mask:
        options = {"inner skull": {"csf": True}, "brain": {"csf": False}}.get(kind, {})
        return np.asarray(mri.skullstrip(scan, model="skullnet", **options).data) > 0

    def plain(name: str) -> Callable[[Volume, str], Mask]:
        return lambda scan, kind: np.asarray(mri.skullstrip(scan, model=name).data) > 0

    found: dict[str, Callable[[Volume, str], Mask]] = {"skullnet": ours, "threshold": plain("threshold")}
    if (weights / "skullstrip_mindgrab" / "mindgrab.safetensors").is_file():
        os.environ["NAPARI_MRI_WEIGHTS"] = str(weights / "skullstrip_mindgrab")
        found["mindgrab"] = plain("mindgrab")
    deep = weights / "skullstrip_deepbrain" / "deepbrain_v2.safetensors"
    if deep.is_file():
        from benchmarks.peers import DeepBrain

        net = DeepBrain.from_file(deep)
        found["deepbrain"] = lambda scan, kind: net.mask(np.asarray(scan.data, dtype=np.float32))
    return {name: found[name] for name in wanted if name in found}


def measure(cases: Iterator[Case], ways: dict[str, Callable[[Volume, str], Mask]]) -> list[dict[str, Any]]:
    """Run every method on every case; one row per method, case and definition of brain."""
    rows = []
    for case in cases:
        for name, way in ways.items():
            made: dict[str, Mask] = {}
            begin = time.perf_counter()
            for kind, truth in case.truth.items():
                # Only ours tells the two definitions apart: the others are asked once.
                mask = made["any"] if name != "skullnet" and made else way(case.scan, kind)
                made["any"] = mask
                rows.append(
                    {
                        "case": case.name,
                        "method": name,
                        "brain": kind,
                        "dice": round(dice(mask, truth), 4),
                        "surface_mm": round(surface_distance(mask, truth, case.scan.spacing), 3),
                        "ratio": round(float(mask.sum() / max(1, truth.sum())), 3),
                        "seconds": round(time.perf_counter() - begin, 2),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def orientations(scan: Volume) -> float:
    """Store one scan in all 48 orders of axes and directions; return the lowest Dice between any mask and the first."""
    first: Mask | None = None
    worst = 1.0
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            mask = mri.skullstrip(scan.reordered(order, flips), model="skullnet").turned("RAS")
            data = np.asarray(mask.data) > 0
            if first is None:
                first = data
            worst = min(worst, dice(first, data))
    return worst


def end_to_end(scan: Volume, model: str) -> dict[str, float]:
    """Strip a 256 mm head at 1 mm from file to file in a fresh process; wall seconds and peak memory in GB."""
    with tempfile.TemporaryDirectory() as folder:
        mri.save(cubed(scan), Path(folder) / "head.nii.gz")
        command = [sys.executable, "-c", "from napari_mri.cli import main; main()", "skullstrip", f"{folder}/head.nii.gz", f"{folder}/mask.nii.gz"]
        begin = time.perf_counter()
        child = subprocess.Popen([*command, "--model", model, "--device", "cpu"], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{model} failed in the timed run")
    busy = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 2), "cpu_seconds": round(busy, 2), "gigabytes": round(usage.ru_maxrss / 1e6, 2)}


def on_gpu(scan: Volume, device: str = "cuda", rounds: int = 5) -> dict[str, Any]:
    """Strip a head again and again in this process; seconds, memory of the GPU, and Dice with the CPU's mask."""
    import torch

    from napari_mri import tasks
    from napari_mri.core.history import Order
    from napari_mri.engine.runtime import LocalRuntime

    cuda = device == "cuda"
    steps: dict[str, list[float]] = {}

    def once() -> tuple[float, Mask]:
        stamps: list[tuple[str, float]] = []

        def note(fraction: float, text: str) -> None:
            if cuda:
                torch.cuda.synchronize()
            stamps.append((f"{fraction:.2f} {text}", time.perf_counter()))

        begin = time.perf_counter()
        found = tasks.run(Order("skullstrip", "skullnet", {}), scan, LocalRuntime(device, note)).result
        mask = np.asarray(found.data) > 0
        seconds = time.perf_counter() - begin
        for (name, start), (_, stop) in itertools.pairwise([*stamps, ("", begin + seconds)]):
            steps.setdefault(name, []).append(stop - start)
        return seconds, mask

    once()  # loads the weights and chooses kernels
    steps.clear()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    runs = [once() for _ in range(rounds)]
    plain = np.asarray(mri.skullstrip(scan, model="skullnet", device="cpu").data) > 0
    memory = {"allocated": torch.cuda.max_memory_allocated, "reserved": torch.cuda.max_memory_reserved} if cuda else {}
    return {
        "device": torch.cuda.get_device_name() if cuda else device, "torch": torch.__version__, "shape": scan.grid.shape,
        "type": str(scan.data.dtype), "seconds, median": round(float(np.median([s for s, _ in runs])), 3),
        "seconds": [round(s, 3) for s, _ in runs], **{f"GB {name}": round(most() / 1e9, 2) for name, most in memory.items()},
        "Dice with the CPU's": round(min(dice(mask, plain) for _, mask in runs), 5),
        "ms, median, of": {name: round(1000 * float(np.median(s)), 1) for name, s in steps.items()},
    }  # fmt: skip


def phantom_head() -> Volume:
    """Return the phantom's head in a 256-cube at 1 mm."""
    from napari_mri.phantom import head

    affine = np.eye(4)
    affine[:3, 3] = -128
    return head(Grid((256, 256, 256), affine))[0]


def cubed(scan: Volume) -> Volume:
    """Return a scan in the middle of 256 x 256 x 256 voxels."""
    low = np.asarray([(n - 256) // 2 for n in scan.grid.shape])
    grid = scan.grid.cropped(low, low + 256)
    data = np.zeros(grid.shape, dtype=np.asarray(scan.data).dtype)
    inner = tuple(slice(max(0, -a), max(0, -a) + n) for a, n in zip(low, scan.grid.shape, strict=True))
    data[inner] = scan.data
    return Volume(data, grid)


def table(rows: list[dict[str, Any]]) -> str:
    """Write means and worst cases as Markdown, and then every case."""
    lines = ["| cases | brain is | method | n | mean Dice | worst | surface mm | volume ratio |", "| --- " * 8 + "|"]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(("synthetic" if "synthetic" in row["case"] else "real", row["brain"], row["method"]), []).append(row)
    for (kind, brain, method), some in groups.items():
        means = [np.mean([r[k] for r in some]) for k in ("dice", "surface_mm", "ratio")]
        worst = min(r["dice"] for r in some)
        lines.append(
            f"| {kind} | {brain} | {method} | {len(some)} | {means[0]:.4f} | {worst:.3f} | {means[1]:.2f} | {means[2]:.3f} |"
        )
    lines += ["", "| case | brain is | method | Dice | surface mm | volume ratio |", "| --- " * 6 + "|"]
    lines += [
        f"| {r['case']} | {r['brain']} | {r['method']} | {r['dice']:.4f} | {r['surface_mm']:.2f} | {r['ratio']:.3f} |" for r in rows
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"), help="folder of the peers' weights")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NAPARI_MRI_TEST_DATA", "../shared/data")))
    parser.add_argument("--synthetic", type=int, default=60, help="number of synthetic cases")
    parser.add_argument("--methods", default="skullnet,mindgrab,deepbrain,threshold")
    parser.add_argument("--prepare", action="store_true", help="only make the synthetic cases and keep them")
    parser.add_argument("--slow-cases", type=int, default=60, help="synthetic cases given to MindGrab, minutes each")
    parser.add_argument("--no-real", action="store_true")
    parser.add_argument("--orientations", action="store_true", help="also one scan in all 48 orientations")
    parser.add_argument("--time", action="store_true", help="also time file to file, each method in a fresh process")
    parser.add_argument("--gpu", action="store_true", help="only time ours in-process on a graphics processor")
    parser.add_argument("--device", default="cuda", help="with --gpu: another one")
    parser.add_argument("--out", type=Path, default=Path("docs/skullstrip_table.md"))
    args = parser.parse_args(argv)
    if args.gpu:
        colin = args.data / REAL["Colin27 T1, 1 mm"][0]
        heads = {"phantom": phantom_head(), **({"Colin27": cubed(mri.load(colin))} if colin.is_file() else {})}
        print(json.dumps({name: on_gpu(scan, args.device) for name, scan in heads.items()}, indent=1))
        return
    if args.prepare:
        print(sum(1 for _ in synthetic(args.synthetic)), "cases are ready")
        return
    ways = methods(args.weights, args.methods.split(","))
    rows: list[dict[str, Any]] = []
    if not args.no_real:
        rows += measure(real(args.data), ways)
    quick = {name: way for name, way in ways.items() if name != "mindgrab"}
    rows += measure(synthetic(min(args.slow_cases, args.synthetic)), {n: w for n, w in ways.items() if n == "mindgrab"})
    rows += measure(synthetic(args.synthetic), quick)
    text = table(rows)
    colin = args.data / REAL["Colin27 T1, 1 mm"][0]
    if args.orientations:
        worst = orientations(mri.load(colin))
        text += f"\nOne scan (Colin27) stored in all 48 orientations: lowest Dice {worst:.4f}.\n"
    if args.time:
        for name in ways:
            if name != "deepbrain":
                text += f"\nFile to file, 256³ at 1 mm, {os.cpu_count()} cores: {name} {json.dumps(end_to_end(mri.load(colin), name))}\n"
    text += f"\nPeak memory of this run: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB.\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
