"""Super-resolution that learns from the scans themselves, against the truth, on pieces small enough for two cores.

``python -m benchmarks.superres_self [self] [inr] [pair] [dynamic] [time]`` prints one row a case: PSNR in dB inside the head,
of plain cubic, consistent cubic and the model, and the processor seconds it took. Each part stands alone. With
``--device cuda`` they run on a GPU and the seconds are those of the clock. ``clinical`` is meant for a GPU: the function `inr`
of a scan of 256 × 256 × 40 voxels, and of two such, each fitted to its end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.denoise import data_folder
from napari_mri import phantom, tasks
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine.device import processor_name
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load
from napari_mri.measure.consistency import consistency, slicing

Array = NDArray[np.float32]


def psnr(found: Array, truth: Array) -> float:
    """PSNR inside the head (brighter than 8 % of its peak), range of the truth."""
    head = truth > 0.08 * np.percentile(truth, 99.5)
    return 10 * float(np.log10(np.ptp(truth) ** 2 / np.mean((found - truth)[head] ** 2)))


def measured(truth: Volume, spacing: Sequence[float], noise: float = 0.0, seed: int = 0) -> Volume:
    """Return the scan of a truth in voxels of a spacing, with Rician noise in parts of its peak."""
    model = slicing(truth.grid.respaced(spacing), truth.grid)
    data = model.sampled(truth.data)
    if noise:
        sigma = noise * float(np.percentile(truth.data, 99.5))
        draw = np.random.default_rng(seed).normal(0, sigma, (2, *data.shape))
        data = np.hypot(data + draw[0], draw[1]).astype(np.float32)
    return Volume(data, model.scan)


def ran(model: str, *scans: Volume, device: str = "cpu", **options: Any) -> tuple[tasks.Outcome, float]:
    """Return the outcome and the seconds it took: of the processor, or by the clock on a GPU."""
    clock = clock_of(device)
    began = clock()
    outcome = tasks.run(Order("superres", model, options), scans[0], LocalRuntime(device), scans[1:])
    return outcome, clock() - began


def clock_of(device: str) -> Callable[[], float]:
    """Return what tells the seconds: of the processor, or by the clock on a GPU whose work is done."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        if device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def seconds_of(device: str) -> str:
    """Name the seconds that `ran` tells."""
    return "CPU s" if device == "cpu" else "s"


def colin(low: Sequence[int], high: Sequence[int]) -> Volume:
    """Return a piece of the real 1 mm head."""
    scan = load(data_folder() / "head_t1_colin27" / "ch2.nii.gz").turned("RAS")
    data = np.asarray(scan.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], dtype=np.float32)
    return Volume(data, Grid.plain(data.shape))


def piece(contrast: str) -> Volume:
    """Return a noise-free piece of the phantom at 3 mm."""
    grid = phantom.default_grid(3.0).cropped((8, 10, 26), (56, 66, 66))
    scan, _ = phantom.head(grid, contrast, noise=0.0, bias=0.1)
    return Volume(np.asarray(scan.data, dtype=np.float32), grid)


def cubics(scan: Volume, truth: Array, spacing: float) -> list[str]:
    """Return the PSNR of the plain and of the consistent spline."""
    both = [ran("cubic", scan, spacing=spacing, consistent=c)[0].result.data for c in (False, True)]  # no network
    return [f"{psnr(found, truth):.2f}" for found in both]


def show(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def rows_self(steps: int, cases: Sequence[str], device: str) -> None:
    """Real 1 mm head; a case is a factor and the noise in parts of the peak, ``4:0.03``."""
    truth = colin((26, 44, 40), (154, 172, 136))
    show("factor", "noise", "plain cubic", "consistent", "self", "consistency %", seconds_of(device))
    for factor, noise in ((int(case.split(":")[0]), float(case.split(":")[1])) for case in cases):
        scan = measured(truth, (1, 1, factor), noise)
        outcome, spent = ran("self", scan, device=device, spacing=1.0, minutes=600.0, steps=steps)
        found = f"{psnr(outcome.result.data, truth.data):.2f}"
        agrees = f"{consistency(scan, outcome.result).percent:.2f}"
        show(factor, f"{100 * noise:g} %", *cubics(scan, truth.data, 1.0), found, agrees, round(spent))


def rows_inr(steps: int, preset: str, device: str) -> None:
    """Two views of the phantom, T1 in axial and T2 in coronal slices of four voxels; together and alone."""
    truths = [piece("T1"), piece("T2")]
    scans = [measured(truths[0], (3, 3, 12), 0.01), measured(truths[1], (3, 12, 3), 0.01, 1)]
    options = {"spacing": 3.0, "register": "off", "preset": preset, "steps": steps}
    _together(("T1", "T2"), truths, scans, options, device)


def rows_pair(steps: int, preset: str, device: str, factor: int = 3) -> None:
    """Two real contrasts of one patient in cubes of 4 mm, each in slices of three of them, across and front to back."""
    for names in (("T1W", "T2W"), ("T2W", "FLAIR")):
        truths = [cubes(name, 4.0, factor) for name in names]
        scans = [measured(truths[0], (4, 4, 4 * factor)), measured(truths[1], (4, 4 * factor, 4))]
        options = {"spacing": 4.0, "register": "off", "preset": preset, "steps": steps}
        _together(names, truths, scans, options, device)


def _together(
    names: Sequence[str], truths: list[Volume], scans: list[Volume], options: dict[str, Any], device: str
) -> None:
    options = {**options, "minutes": 600.0, "device": device}
    seconds = seconds_of(device)
    show("contrast", "plain cubic", "consistent", "alone", "together", f"{seconds}, alone", f"{seconds}, together")
    joint, spent = ran("inr", *scans, **options)
    answers = [joint.result, joint.extras["second"]]
    ends = [joint]
    for name, truth, scan, answer in zip(names, truths, scans, answers, strict=True):
        single, took = ran("inr", scan, **options)
        figures = [f"{psnr(one.data, truth.data):.2f}" for one in (single.result, answer)]
        show(name, *cubics(scan, truth.data, float(options["spacing"])), *figures, round(took), round(spent))
        ends.append(single)
    tell_ends(ends)


def tell_ends(outcomes: Sequence[tasks.Outcome]) -> None:
    """Print which fits ended before their last step, and why."""
    for outcome in outcomes:
        for line in outcome.warnings:
            if line.startswith("Learning ended"):
                print(line, flush=True)


def rows_clinical(steps: int, device: str) -> None:
    """Fit the preset best of `inr` to the real head in 256 × 256 × 40 voxels of 1 × 1 × 4 mm, alone and with a second view."""
    ran("inr", measured(piece("T1"), (3, 3, 12)), device=device, spacing=3.0, preset="best", steps=60)  # warms up
    head = colin((0, 0, 10), (180, 216, 170))
    data = np.pad(head.data, ((38, 38), (20, 20), (0, 0)))
    truth = Volume(data, Grid.plain(data.shape))
    axial, coronal = measured(truth, (1, 1, 4)), measured(truth, (1, 4, 1))
    cubic = cubics(axial, truth.data, 1.0)
    show("scans", "voxels", "plain cubic", "consistent", "inr best", seconds_of(device), "peak GPU memory, GB")
    for scans in ((axial,), (axial, coronal)):
        begin_peak(device)
        options = {"spacing": 1.0, "register": "off", "preset": "best", "minutes": 600.0, "steps": steps}
        outcome, spent = ran("inr", *scans, device=device, **options)
        voxels = " and ".join("×".join(map(str, scan.grid.shape)) for scan in scans)
        found = f"{psnr(outcome.result.data, truth.data):.2f}"
        show(len(scans), voxels, *cubic, found, f"{spent:.1f}", peak(device))
        tell_ends([outcome])


def begin_peak(device: str) -> None:
    """Forget the highest use of the GPU's memory so far."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> str:
    """Return the highest use of the GPU's memory since `begin_peak`, in GB; a dash without such a GPU."""
    if device != "cuda":
        return "–"
    import torch

    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f}"


def cubes(contrast: str, spacing: float, factor: int) -> Volume:
    """Return a scan of the patient with three contrasts in cubes no smaller than its slices: measured, not guessed."""
    scan = load(data_folder() / "head_ms_multicontrast" / "patient01" / f"{contrast}.nii.gz").turned("RAS")
    grid = scan.grid.respaced((spacing,) * 3)
    i, j, k = (n // factor * factor for n in grid.shape)
    data = slicing(grid, scan.grid).sampled(scan.data)
    return Volume(np.ascontiguousarray(data[:i, :j, :k]), grid.cropped((0, 0, 0), (i, j, k)))


def rows_dynamic(steps: int, device: str) -> None:
    """Two frames, the second dimmer and moved, at a third of the in-plane resolution; taught by another place."""
    prior, truth = colin((26, 44, 40), (154, 172, 100)), colin((30, 50, 100), (150, 170, 136))
    dim = np.roll(0.6 * truth.data, 3, axis=0)
    frames = [truth.data, dim]
    coarse = [measured(Volume(data, truth.grid), (3, 3, 1)) for data in frames]
    scan = Volume(np.stack([one.data for one in coarse], axis=-1), coarse[0].grid)
    outcome, spent = ran("dynamic", scan, prior, device=device, spacing=1.0, minutes=600.0, steps=steps)
    show("frame", "plain cubic", "consistent", "dynamic", seconds_of(device))
    for number, data in enumerate(frames):
        found = f"{psnr(outcome.result.data[..., number], data):.2f}"
        show(number + 1, *cubics(coarse[number], data, 1.0), found, round(spent))


def rows_time(device: str, steps: int = 20) -> None:
    """Tell the cost of a scan of 256 × 256 × 40 apart: a step of learning, and all that is not learning."""
    truth = colin((0, 0, 10), (180, 216, 170))
    data = np.pad(measured(truth, (1, 1, 4)).data, ((38, 38), (20, 20), (0, 0)))
    scan = Volume(data, Grid.plain(data.shape, (1, 1, 4)))
    clock, seconds = clock_of(device), seconds_of(device)
    show("model", "voxels", f"{seconds} a step", f"{seconds} for the rest")
    for model in ("inr", "self"):
        learning: list[float] = []

        def heard(fraction: float, text: str, at: list[float] = learning) -> None:
            if text.startswith("learning"):
                at.append(clock())

        began = clock()
        order = Order("superres", model, {"spacing": 1.0, "minutes": 600.0, "steps": steps})
        tasks.run(order, scan, LocalRuntime(device, heard))
        whole, lesson = clock() - began, learning[-1] - learning[0]
        show(model, "×".join(map(str, data.shape)), f"{lesson / (len(learning) - 1):.3f}", round(whole - lesson))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("parts", nargs="*", help="self, inr, pair, dynamic, time, clinical")
    ask.add_argument("--steps", type=int, default=400, help="learning steps of each run; 0 takes the model's own")
    ask.add_argument("--preset", default="fast", help="of inr")
    ask.add_argument("--cases", nargs="+", default=["2:0", "4:0", "6:0", "4:0.03"], help="of self")
    ask.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    given = ask.parse_args()
    print(processor_name(given.device), flush=True)
    parts = given.parts or ["self", "inr", "pair", "dynamic", "time"]
    makers = {
        "self": lambda: rows_self(given.steps, given.cases, given.device),
        "inr": lambda: rows_inr(given.steps, given.preset, given.device),
        "pair": lambda: rows_pair(given.steps, given.preset, given.device),
        "dynamic": lambda: rows_dynamic(given.steps, given.device),
        "time": lambda: rows_time(given.device),
        "clinical": lambda: rows_clinical(given.steps, given.device),
    }
    for part in parts:
        makers[part]()


if __name__ == "__main__":
    main()
