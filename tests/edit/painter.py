"""A program that paints, uses tools and saves until it is killed; `test_kill` and `benchmarks/kill.py` run it.

``python -m tests.edit.painter FOLDER SEED``: writes FOLDER/log.mrilog and FOLDER/mask.nii.gz, and tells on
stdout, one line each: ``did N`` after step N is recorded, ``saved N`` after a save of the state of step N.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.log import EditLog
from napari_mri.edit.tools import margin, smooth

SHAPE = (48, 56, 40)


def step(array: np.ndarray, number: int, seed: int) -> tuple[str, np.ndarray]:
    """Return the name and the labels after step `number`; the same for the same labels and seed."""
    rng = np.random.default_rng((seed, number))
    new = array.copy()
    # The step's own number stands in a corner, so that every state can be told from every other.
    new[0, 0, :4] = [(number >> (8 * n)) & 0xFF for n in range(4)]
    if number % 7 == 6:
        grid = Grid.plain(SHAPE, (1, 1, 1.5))
        tool = (margin, smooth)[number % 2]
        made = tool(Labels(new, grid), mm=1.5, label=1) if (new[1:] == 1).any() else Labels(new, grid)
        result = made.data.copy()
        result[0, 0, :4] = new[0, 0, :4]
        return tool.title, result
    centre = rng.uniform(8, 32, 3)
    index = np.stack(np.indices(SHAPE, sparse=False), -1)
    for _ in range(4):
        centre = centre + rng.normal(0, 2, 3)
        ball = ((index - centre) ** 2).sum(-1) <= rng.uniform(2, 6) ** 2
        ball[0] = False
        new[ball] = rng.integers(1, 4)
    return "Brush", new


def state_after(count: int, seed: int) -> np.ndarray:
    """Return the labels after steps 1 … count."""
    array = np.zeros(SHAPE, np.uint8)
    for number in range(1, count + 1):
        array = step(array, number, seed)[1]
    return array


def main(folder: Path, seed: int) -> None:
    from napari_mri.io.files import save

    log = EditLog(
        SHAPE, np.uint8, folder / "log.mrilog", author="A", on_warning=lambda text: print(text, file=sys.stderr)
    )
    array = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        name, new = step(array, number, seed)
        log.record(name, None, array, new, kind="stroke" if name == "Brush" else "tool")
        array = new
        os.write(1, f"did {number}\n".encode())
        time.sleep(float(rng.uniform(0.02, 0.06)))
        if number % 5 == 0:
            save(Labels(array, Grid.plain(SHAPE)), folder / "mask.nii.gz")
            os.write(1, f"saved {number}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
