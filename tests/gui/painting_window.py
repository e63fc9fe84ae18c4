"""A real window that paints until it kills itself; `test_recovery` and `benchmarks/kill.py` look at what it left.

``python -m tests.gui.painting_window STROKES [PAUSE]``: tells ``did N`` after stroke N, then dies by SIGKILL; with
a pause (seconds) it waits between strokes, and its parent kills it. Saves to NAPARI_MRI_SAVES if that is set.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def stroke(array: np.ndarray, number: int) -> tuple[tuple[slice, ...], int]:
    """Return the box of stroke `number` and its label; no two strokes touch the same voxels."""
    z, rest = divmod(number, 8)
    y, x = divmod(rest, 4)
    z = 2 + z % (array.shape[0] - 4)
    return (slice(z, z + 1), slice(4 + 8 * y, 8 + 8 * y), slice(2 + 6 * x, 6 + 6 * x)), number % 3 + 1


def strokes(shape: tuple[int, ...], count: int) -> Iterator[np.ndarray]:
    """Yield the labels after 0, 1, … strokes."""
    array = np.zeros(shape, np.uint8)
    yield array.copy()
    for number in range(1, count + 1):
        box, label = stroke(array, number)
        array[box] = label
        yield array.copy()


def main(count: int, pause: float = 0.0) -> None:
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_mri.core.volume import Origin, Volume
    from napari_mri.gui import layers as bridge
    from napari_mri.gui.labels_widget import LabelsWidget
    from tests.scans import GRIDS, head

    scan = head(GRIDS["oblique"])
    viewer = napari.Viewer()
    viewer.add_layer(bridge.to_layer(Volume(scan.data, scan.grid, origin=Origin(title="T1"))))
    desk = LabelsWidget(viewer)
    viewer.window.add_dock_widget(desk, name="Labels")
    desk.new_labels()
    layer, saves = desk.layer, os.environ.get("NAPARI_MRI_SAVES")
    for number in range(1, count + 1):
        box, label = stroke(layer.data, number)
        layer.selected_label = label
        with layer.block_history():
            where = np.stack([part.ravel() for part in np.mgrid[box]])
            for part in np.array_split(where, 4, axis=1):
                layer.data_setitem(tuple(part), label)
        os.write(1, f"did {number}\n".encode())
        if number == 1:
            desk.table.rows.item(0, 1).setText("liver")
        if saves and number % 5 == 0:
            desk.save_to(Path(saves) / "mask.nii.gz")
        end = time.monotonic() + pause
        while True:
            QApplication.processEvents()
            if time.monotonic() >= end:
                break
            time.sleep(0.005)
    time.sleep(1.0)  # what was painted within the last second may be lost, no more
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
