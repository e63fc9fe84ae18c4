"""Super-resolution that learns from the scans themselves, against the truth, on pieces small enough for two cores.

``python -m benchmarks.superres_self [self] [inr] [pair] [dynamic] [time]`` prints one row a case: PSNR in dB inside the head,
of plain cubic, consistent cubic and the model, and the processor seconds it took. Each part stands alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.denoise import data_folder
from napari_mri import phantom, tasks
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
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


def ran(model: str, scan: Volume, *others: Volume, **options: Any) -> tuple[tasks.Outcome, float, float]:
    """Return the outcome, processor seconds and seconds by the clock."""
    began, clock = time.process_time(), time.perf_counter()
    outcome = tasks.run(Order("superres", model, options), scan, LocalRuntime("cpu"), others)
    return outcome, time.process_time() - began, time.perf_counter() - clock


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
    both = [ran("cubic", scan, spacing=spacing, consistent=c)[0].result.data for c in (False, True)]
    return [f"{psnr(found, truth):.2f}" for found in both]


def show(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def rows_self(steps: int, cases: Sequence[str]) -> None:
    """Real 1 mm head; a case is a factor and the noise in parts of the peak, ``4:0.03``."""
    truth = colin((26, 44, 40), (154, 172, 136))
    show("factor", "noise", "plain cubic", "consistent", "self", "consistency %", "CPU s")
    for factor, noise in ((int(case.split(":")[0]), float(case.split(":")[1])) for case in cases):
        scan = measured(truth, (1, 1, factor), noise)
        outcome, spent, _ = ran("self", scan, spacing=1.0, minutes=600.0, steps=steps)
        found = f"{psnr(outcome.result.data, truth.data):.2f}"
        agrees = f"{consistency(scan, outcome.result).percent:.2f}"
        show(factor, f"{100 * noise:g} %", *cubics(scan, truth.data, 1.0), found, agrees, round(spent))


def rows_inr(steps: int, preset: str) -> None:
    """Two views of the phantom, T1 in axial and T2 in coronal slices of four voxels; together and alone."""
    truths = [piece("T1"), piece("T2")]
    scans = [measured(truths[0], (3, 3, 12), 0.01), measured(truths[1], (3, 12, 3), 0.01, 1)]
    _together(("T1", "T2"), truths, scans, {"spacing": 3.0, "register": "off", "preset": preset, "steps": steps})


def rows_pair(steps: int, preset: str, factor: int = 3) -> None:
    """Two real contrasts of one patient in cubes of 4 mm, each in slices of three of them, across and front to back."""
    for names in (("T1W", "T2W"), ("T2W", "FLAIR")):
        truths = [cubes(name, 4.0, factor) for name in names]
        scans = [measured(truths[0], (4, 4, 4 * factor)), measured(truths[1], (4, 4 * factor, 4))]
        _together(names, truths, scans, {"spacing": 4.0, "register": "off", "preset": preset, "steps": steps})


def _together(names: Sequence[str], truths: list[Volume], scans: list[Volume], options: dict[str, Any]) -> None:
    options = {**options, "minutes": 600.0}
    show("contrast", "plain cubic", "consistent", "alone", "together", "CPU s, together")
    joint, spent, _ = ran("inr", *scans, **options)
    answers = [joint.result, joint.extras["second"]]
    for name, truth, scan, answer in zip(names, truths, scans, answers, strict=True):
        alone = ran("inr", scan, **options)[0].result
        figures = [f"{psnr(one.data, truth.data):.2f}" for one in (alone, answer)]
        show(name, *cubics(scan, truth.data, float(options["spacing"])), *figures, round(spent))


def cubes(contrast: str, spacing: float, factor: int) -> Volume:
    """Return a scan of the patient with three contrasts in cubes no smaller than its slices: measured, not guessed."""
    scan = load(data_folder() / "head_ms_multicontrast" / "patient01" / f"{contrast}.nii.gz").turned("RAS")
    grid = scan.grid.respaced((spacing,) * 3)
    i, j, k = (n // factor * factor for n in grid.shape)
    data = slicing(grid, scan.grid).sampled(scan.data)
    return Volume(np.ascontiguousarray(data[:i, :j, :k]), grid.cropped((0, 0, 0), (i, j, k)))


def rows_dynamic(steps: int) -> None:
    """Two frames, the second dimmer and moved, at a third of the in-plane resolution; taught by another place."""
    prior, truth = colin((26, 44, 40), (154, 172, 100)), colin((30, 50, 100), (150, 170, 136))
    dim = np.roll(0.6 * truth.data, 3, axis=0)
    frames = [truth.data, dim]
    coarse = [measured(Volume(data, truth.grid), (3, 3, 1)) for data in frames]
    scan = Volume(np.stack([one.data for one in coarse], axis=-1), coarse[0].grid)
    outcome, spent, _ = ran("dynamic", scan, prior, spacing=1.0, minutes=600.0, steps=steps)
    show("frame", "plain cubic", "consistent", "dynamic", "CPU s")
    for number, data in enumerate(frames):
        found = f"{psnr(outcome.result.data[..., number], data):.2f}"
        show(number + 1, *cubics(coarse[number], data, 1.0), found, round(spent))


def rows_time(steps: int = 20) -> None:
    """Tell the cost of a scan of 256 × 256 × 40 apart: a step of learning, and all that is not learning."""
    truth = colin((0, 0, 10), (180, 216, 170))
    data = np.pad(measured(truth, (1, 1, 4)).data, ((38, 38), (20, 20), (0, 0)))
    scan = Volume(data, Grid.plain(data.shape, (1, 1, 4)))
    show("model", "voxels", "CPU s a step", "CPU s for the rest")
    for model in ("inr", "self"):
        learning: list[float] = []

        def heard(fraction: float, text: str, at: list[float] = learning) -> None:
            if text.startswith("learning"):
                at.append(time.process_time())

        began = time.process_time()
        order = Order("superres", model, {"spacing": 1.0, "minutes": 600.0, "steps": steps})
        tasks.run(order, scan, LocalRuntime("cpu", heard))
        whole, lesson = time.process_time() - began, learning[-1] - learning[0]
        show(model, "×".join(map(str, data.shape)), f"{lesson / (len(learning) - 1):.2f}", round(whole - lesson))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("parts", nargs="*", help="self, inr, pair, dynamic, time")
    ask.add_argument("--steps", type=int, default=400, help="learning steps of each run")
    ask.add_argument("--preset", default="fast", help="of inr")
    ask.add_argument("--cases", nargs="+", default=["2:0", "4:0", "6:0", "4:0.03"], help="of self")
    given = ask.parse_args()
    parts = given.parts or ["self", "inr", "pair", "dynamic", "time"]
    if "self" in parts:
        rows_self(given.steps, given.cases)
    if "inr" in parts:
        rows_inr(given.steps, given.preset)
    if "pair" in parts:
        rows_pair(given.steps, given.preset)
    if "dynamic" in parts:
        rows_dynamic(given.steps)
    if "time" in parts:
        rows_time()


if __name__ == "__main__":
    main()
