"""Views: slice step and painting with four linked views, against bare napari and napari-orthogonal-views.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.desk [--rounds 3] [--json FILE]
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.desk open

Each side opens its own window in a process of its own, with the same arrays, the main canvas of the same
size, and does the same things; sides take turns, so that what else the machine does falls on all. Told are
the milliseconds from the call to the finished repaint of every view (looked at on the screen: what stands there
then is what stands there later), the processor milliseconds (which other
programs disturb less), and the median over rounds of the ratios. `open` tells the seconds from volumes in
memory to the first finished picture, 512×512×300 with twenty labels, three planes and napari's canvas, in a
window that has shown a small scan before.

napari-orthogonal-views is needed for the benchmark only: pip install napari-orthogonal-views
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.gui import layers
from napari_mri.gui.planes import ThreePlanes

SHAPE = (192, 256, 256)
CANVAS = 460
"""Edge of the main canvas in pixels; a view beside it must not make it cheaper."""
ACTIONS = ("slice step", "2D paint", "3D paint")
SIDES = ("bare", "ours", "orthogonal")


def arrays(shape: tuple[int, int, int], count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan uint8 and labels uint8 of some values in a ball."""
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 255, shape, dtype=np.uint8)
    ball = sum(
        ((axis - n / 2) / (n / 3)) ** 2 for axis, n in zip(np.ogrid[tuple(map(slice, shape))], shape, strict=True)
    )
    return scan, ((ball < 1) * (scan % count + 1)).astype(np.uint8)


def bare() -> tuple[napari.Viewer, Any]:
    scan, labels = arrays(SHAPE)
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.add_image(scan, contrast_limits=(0, 255))
    return viewer, viewer.add_labels(labels)


def orthogonal() -> tuple[napari.Viewer, Any]:
    from napari_orthogonal_views.ortho_view_manager import OrthoViewManager

    viewer, painted = bare()
    viewer.window.resize(1500, 950)
    spin(0.5)
    manager = OrthoViewManager(viewer)
    manager.show()
    manager.set_cross_hairs(True)
    keep.append(manager)
    return viewer, painted


def ours() -> tuple[napari.Viewer, Any]:
    scan, labels = arrays(SHAPE)
    viewer = napari.Viewer(show_welcome_screen=False)
    planes = ThreePlanes(viewer)
    viewer.window.add_dock_widget(planes, name="Three planes", area="right")
    planes.set_layout("2 × 2")
    # In napari's axes the volume is the very array the others show.
    volume = Volume(scan.T, Grid.plain(scan.T.shape))
    viewer.add_layer(layers.to_layer(volume, contrast_limits=(0, 255)))
    painted = layers.to_layer(volume.with_labels(labels.T), layers.frame_of(viewer.layers))
    viewer.add_layer(painted)
    keep.append(planes)
    return viewer, painted


keep: list[Any] = []


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        QApplication.processEvents()


def measure(side: str, count: int) -> dict[str, list[tuple[float, float]]]:
    """Return the milliseconds and processor milliseconds of each repetition of each action."""
    viewer, painted = {"bare": bare, "ours": ours, "orthogonal": orthogonal}[side]()
    viewer.window.resize(1500, 950)
    spin(1.0)
    with_canvas(viewer).setFixedSize(CANVAS, CANVAS)
    spin(1.0)
    painted.brush_size = 12
    taken = {}
    for action in ACTIONS:
        painted.n_edit_dimensions = 3 if action == "3D paint" else 2
        act = stepping(viewer) if action == "slice step" else painting(viewer, painted)
        for n in range(4):
            timed(viewer, act, n)
        taken[action] = [timed(viewer, act, n + 4) for n in range(count)]
        for n in range(3):
            timed(viewer, act, count + 4 + n)
            seen = pictures(viewer)
            spin(0.4)
            if seen != pictures(viewer):
                raise SystemExit(f"{side}, {action}: a view was not yet drawn when its time was taken")
    viewer.close()
    return taken


def stepping(viewer: napari.Viewer) -> Callable[[int], None]:
    return lambda n: viewer.dims.set_current_step(0, SHAPE[0] // 3 + n)


def painting(viewer: napari.Viewer, painted: Any) -> Callable[[int], None]:
    """Return strokes about the point where the planes cross, so that every view has something to show anew."""

    def dab(n: int) -> None:
        here = viewer.dims.current_step[0]
        painted.paint((here, SHAPE[1] // 2 - 8 + n % 17, SHAPE[2] // 2 - 3 + n % 7), n % 5 + 5)

    return dab


def timed(viewer: napari.Viewer, act: Callable[[int], None], n: int) -> tuple[float, float]:
    began, worked = time.perf_counter(), time.process_time()
    act(n)
    with_canvas(viewer).update()  # as napari does: what is due is drawn together, at the next turn of the event loop
    QApplication.processEvents()
    QApplication.processEvents()
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)


def pictures(viewer: napari.Viewer) -> Any:
    """Return what stands on the screen where the views are: right of napari's list of layers."""
    window = viewer.window._qt_window
    left = window.mapFromGlobal(with_canvas(viewer).mapToGlobal(with_canvas(viewer).rect().topLeft())).x()
    whole = window.screen().grabWindow(0).toImage()
    at = window.mapToGlobal(window.rect().topLeft())
    return whole.copy(at.x() + left, at.y() + 20, window.width() - left, window.height() - 60)


def with_canvas(viewer: napari.Viewer) -> Any:
    from napari_mri.gui.napari_private import native_of

    return native_of(viewer)


def opened() -> dict[str, float]:
    """Return the seconds from volumes in memory to the first finished picture of all views."""
    scan, labels = arrays((300, 512, 512), 20)
    volume = Volume(scan.T.astype(np.int16), Grid.plain((512, 512, 300), (0.5, 0.5, 0.8)))
    mask = volume.with_labels(labels.T)
    viewer = napari.Viewer(show_welcome_screen=False)
    planes = ThreePlanes(viewer)
    viewer.window.add_dock_widget(planes, name="Three planes", area="right")
    planes.set_layout("2 × 2")
    viewer.window.resize(1500, 950)
    spin(1.5)
    # What napari imports and compiles at the first layer of a process is not what is asked here.
    small = Volume(np.zeros((9, 9, 9), np.int16), Grid.plain((9, 9, 9)))
    for layer in (layers.to_layer(small), layers.to_layer(small.with_labels(small.data.astype(np.uint8)))):
        viewer.add_layer(layer)
    spin(1.0)
    viewer.layers.clear()
    spin(0.5)
    began, worked = time.perf_counter(), time.process_time()
    viewer.add_layer(layers.to_layer(volume))
    viewer.add_layer(layers.to_layer(mask, layers.frame_of(viewer.layers)))
    with_canvas(viewer).repaint()
    for view in planes.views.values():
        view.repaint()
    QApplication.processEvents()
    found = {"open s": time.perf_counter() - began, "open processor s": time.process_time() - worked}
    viewer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("views", "open"), default="views")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--json")
    parser.add_argument("--only", choices=SIDES, help="measure one side (used by itself)")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.count)))
        return
    figures = opened() if given.what == "open" else rounds(given.rounds, given.count)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"benchmark": "desk", **figures}, file)


def rounds(times: int, count: int) -> dict[str, float]:
    """Return medians and ratios over rounds in which the sides take turns."""
    seen: dict[str, list[dict[str, tuple[float, float]]]] = {side: [] for side in SIDES}
    for _ in range(times):
        for side in SIDES:
            taken = apart(side, count)
            seen[side].append({a: tuple(map(statistics.median, zip(*v, strict=True))) for a, v in taken.items()})
    figures: dict[str, float] = {}
    for action in ACTIONS:
        for n, what in enumerate(("", " processor")):
            for side in SIDES:
                figures[f"{action}{what} {side} ms"] = statistics.median(r[action][n] for r in seen[side])
            for peer in ("bare", "orthogonal"):
                pairs = zip(seen["ours"], seen[peer], strict=True)
                figures[f"{action}{what} ours / {peer}"] = statistics.median(
                    a[action][n] / b[action][n] for a, b in pairs
                )
    return figures


def apart(side: str, count: int) -> dict[str, list[tuple[float, float]]]:
    """Measure in a process of its own: a window that was closed before must not weigh on the next."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.desk", "--only", side, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
