"""Slice step in the window: our layers and widgets against bare napari layers of the same arrays.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [--size 256] [--json FILE]

Each round opens both windows anew, each in a process of its own, and steps through the same slices;
they take turns, so that what else the machine does falls on both. Told is the median time from a
change of slice to the finished repaint, and the processor time it costs (which other
programs disturb less), and the median over rounds of their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.gui import layers
from napari_mri.gui.labels_widget import LabelsWidget
from napari_mri.gui.run_widget import RunWidget


def arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan (size, size, size) int16 and labels uint8, in the order NIfTI files are read in."""
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 1000, (size,) * 3, dtype=np.int16)
    ball = sum((axis - size / 2) ** 2 for axis in np.ogrid[:size, :size, :size]) < (size / 3) ** 2
    return np.asfortranarray(scan), np.asfortranarray(ball.astype(np.uint8) * (scan % 4 + 1).astype(np.uint8))


def bare(scan: np.ndarray, labels: np.ndarray) -> napari.Viewer:
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.add_image(scan.T, contrast_limits=(0, 1000))
    viewer.add_labels(labels.T)
    return viewer


def ours(scan: np.ndarray, labels: np.ndarray) -> napari.Viewer:
    viewer = napari.Viewer(show_welcome_screen=False)
    for widget, name in ((RunWidget(viewer), "Run a model"), (LabelsWidget(viewer), "Labels")):
        viewer.window.add_dock_widget(widget, name=name, area="right")
    volume = Volume(scan, Grid.plain(scan.shape))
    viewer.add_layer(layers.to_layer(volume))
    viewer.add_layer(layers.to_layer(volume.with_labels(labels), layers.frame_of(viewer.layers)))
    return viewer


def steps(viewer: napari.Viewer, size: int, count: int) -> list[tuple[float, float]]:
    """Return the seconds and the processor seconds each step takes."""
    app = QApplication.instance()
    viewer.window.resize(1400, 900)
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFixedSize(700, 700)  # widgets beside it must not make our picture cheaper
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        app.processEvents()
    taken = []
    for n in range(count + 3):
        began, worked = time.perf_counter(), time.process_time()
        viewer.dims.set_current_step(0, size // 4 + n)
        canvas.repaint()
        app.processEvents()
        taken.append((time.perf_counter() - began, time.process_time() - worked))
    viewer.close()
    app.processEvents()
    return taken[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--json")
    parser.add_argument("--only", choices=("bare", "ours"), help="measure one side and print seconds (used by itself)")
    given = parser.parse_args()
    if given.only:
        scan, labels = arrays(given.size)
        window = {"bare": bare, "ours": ours}[given.only](scan, labels)
        print(json.dumps(steps(window, given.size, given.count)))
        return
    sides: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for _ in range(given.rounds):
        for name, medians in sides.items():
            wall, work = zip(*_apart(name, given.size, given.count), strict=True)
            medians.append((statistics.median(wall), statistics.median(work)))
    figures: dict[str, float] = {}
    for n, what in enumerate(("wall", "processor")):
        a, b = ([1000 * pair[n] for pair in medians] for medians in sides.values())
        ratios = [after / before for before, after in zip(a, b, strict=True)]
        figures |= {
            f"{what} bare ms": round(statistics.median(a), 2),
            f"{what} ours ms": round(statistics.median(b), 2),
        }
        figures[f"{what} ratio"] = round(statistics.median(ratios), 3)
        print(f"{what} ratio in each round: " + ", ".join(f"{r:.3f}" for r in ratios))
    print(f"slice step, scan + labels {given.size}³: " + ", ".join(f"{k} {v}" for k, v in figures.items()))
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"benchmark": "window", "size": given.size, **figures}, file)


def _apart(side: str, size: int, count: int) -> list[tuple[float, float]]:
    """Measure in a process of its own: a window that was closed before must not weigh on the next."""
    command = [sys.executable, "-W", "ignore", __file__, "--only", side, "--size", str(size), "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(float(a), float(b)) for a, b in json.loads(done.stdout.strip().splitlines()[-1])]


if __name__ == "__main__":
    main()
