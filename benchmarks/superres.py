"""Super-resolution against the truth: average a fine head to thick slices, refine it again, compare.

``python benchmarks/superres.py --data FOLDER`` prints one row a factor and noise level: PSNR in dB of nearest
neighbour, plain cubic spline and the consistent one, and their data consistency in per cent of the range.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_mri import tasks
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load
from napari_mri.measure.consistency import consistency, slicing

SIDE = 96


def middle(scan: Volume) -> np.ndarray:
    """Return the middle cube of a scan, float32."""
    low = [max(0, (n - SIDE) // 2) for n in scan.grid.shape]
    return np.asarray(scan.data[tuple(slice(a, a + SIDE) for a in low)], dtype=np.float32)


def psnr(found: np.ndarray, truth: np.ndarray) -> float:
    error = float(np.mean((found - truth) ** 2))
    return 10 * float(np.log10(np.ptp(truth) ** 2 / error))


def row(truth: np.ndarray, factor: int, noise: float) -> str:
    grid = Grid.plain(truth.shape)
    model = slicing(grid.respaced((1, 1, factor)), grid)
    measured = model.sampled(truth)
    draw = np.random.default_rng(0).normal(0, noise * np.ptp(truth), (2, *measured.shape))
    magnitude = np.hypot(measured + draw[0], draw[1]) if noise else measured
    scan = Volume(magnitude.astype(np.float32), model.scan)
    cells = [f"{psnr(np.repeat(scan.data, factor, axis=2), truth):.2f}"]
    judged = []
    for consistent in (False, True):
        order = Order("superres", "cubic", {"spacing": 1.0, "consistent": consistent})
        result = tasks.run(order, scan, LocalRuntime("cpu")).result
        cells.append(f"{psnr(result.data, truth):.2f}")
        judged.append(f"{consistency(scan, result).percent:.2f}")
    return "| " + " | ".join([str(factor), f"{100 * noise:g} %", *cells, *judged]) + " |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--data", type=Path, required=True, help="folder with head_t1_colin27/ch2.nii.gz")
    truth = middle(load(ask.parse_args().data / "head_t1_colin27" / "ch2.nii.gz"))
    print("| factor | noise | nearest | plain cubic | consistent | plain: consistency % | consistent: consistency % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for noise in (0.0, 0.03):
        for factor in (2, 4, 6):
            print(row(truth, factor, noise))


if __name__ == "__main__":
    main()
