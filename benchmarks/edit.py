"""Measure the edit log (bytes a voxel, time of a large undo, cost of a stroke) and the interpolation between slices.

``python -m benchmarks.edit``: prints its tables; needs no display and no data. Strokes are painted in turn into a bare
napari layer and into one that keeps a log.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.edit.log import EditLog
from napari_mri.edit.tools import interpolate_slices

SHAPE = (192, 256, 256)


def large_step() -> None:
    index = np.indices(SHAPE, sparse=True)
    ball = sum((axis - c) ** 2 for axis, c in zip(index, (96, 128, 128), strict=True)) <= 114**2
    plain = ball.astype(np.uint8)
    many = np.where(ball, 1 + (index[0] // 30 + index[1] // 40).astype(np.uint8), 0).astype(np.uint8)
    for name, before, after in (("one label", np.zeros_like(plain), plain), ("12 labels over one", plain, many)):
        log = EditLog(SHAPE, np.uint8)
        start = time.perf_counter()
        entry = log.record("Model", None, before, after, kind="model")
        recorded = time.perf_counter() - start
        assert entry is not None
        array = after.copy()
        undo, redo = [], []
        for _ in range(5):
            start = time.perf_counter()
            log.undo(array)
            middle = time.perf_counter()
            log.redo(array)
            undo.append(middle - start)
            redo.append(time.perf_counter() - middle)
        assert np.array_equal(array, after)
        print(
            f"| {entry.voxels / 1e6:.1f} M voxels, {name} | {log.nbytes / 1e6:.2f} MB | record {recorded * 1e3:.0f} ms "
            f"| undo {np.median(undo) * 1e3:.0f} ms | redo {np.median(redo) * 1e3:.0f} ms |"
        )


def strokes(radius: int) -> None:
    rng = np.random.default_rng(radius)
    yy, xx = np.mgrid[:256, :256]
    with tempfile.TemporaryDirectory() as folder:
        log = EditLog((60, 256, 256), np.uint8, Path(folder) / "a.mrilog")
        log.flush()
        array, voxels, head = np.zeros(log.shape, np.uint8), 0, (Path(folder) / "a.mrilog").stat().st_size
        for _ in range(200):
            k, place, speed = int(rng.integers(60)), rng.uniform(40, 216, 2), rng.normal(0, 3, 2)
            new, value = array[k : k + 1].copy(), rng.integers(1, 5)
            for _ in range(int(rng.integers(5, 40))):
                place, speed = place + speed, speed + rng.normal(0, 1, 2)
                new[0, (yy - place[0]) ** 2 + (xx - place[1]) ** 2 <= radius**2] = value
            entry = log.record("Brush", (slice(k, k + 1), slice(None), slice(None)), array[k : k + 1], new)
            array[k : k + 1], voxels = new, voxels + (entry.voxels if entry else 0)
        log.close()
        size = (Path(folder) / "a.mrilog").stat().st_size - head
        print(
            f"| brush of radius {radius}, {voxels // 200} voxels a stroke | {log.nbytes / voxels:.2f} | {size / voxels:.2f} |"
        )


def in_a_layer() -> None:
    """Paint, undo and redo in napari layers with and without a log."""
    from napari.components import ViewerModel

    from napari_mri.gui import layers as bridge
    from napari_mri.gui.edit_history import edits_of
    from napari_mri.gui.window import watch

    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_MRI_EDITS"] = folder
        viewers = ViewerModel(), ViewerModel()
        watch(viewers[1])
        empty = Labels(np.zeros((256, 256, 192), np.uint8), Grid.plain((256, 256, 192)))
        layers = [viewer.add_layer(bridge.to_layer(empty)) for viewer in viewers]
        rng = np.random.default_rng(0)
        times: list[list[float]] = [[], []]
        for n in range(60):
            z, start, speed = int(rng.integers(20, 170)), rng.uniform(60, 190, 2), rng.normal(0, 3, 2)
            for layer, spent in zip(layers, times, strict=True):
                layer.brush_size, layer.selected_label = 15, n % 5 + 1
                begin = time.perf_counter()
                with layer.block_history():
                    for dab in range(12):
                        layer.paint((z, *(start + speed * dab)), n % 5 + 1, refresh=True)
                spent.append(time.perf_counter() - begin)
        bare, logged = (float(np.median(spent[5:])) * 1e3 for spent in times)
        print(f"| a stroke of 12 dabs | bare {bare:.2f} ms | with a log {logged:.2f} ms | {logged / bare:.2f} × |")
        edits, index = edits_of(layers[1]), np.indices(layers[1].data.shape, sparse=True)
        centre = [n // 2 for n in layers[1].data.shape]
        ball = sum((axis - c) ** 2 for axis, c in zip(index, centre, strict=True)) <= 114**2
        edits.counts.ask(layers[1].data)
        edits.change(np.where(ball, 7, layers[1].data).astype(np.uint8), "Model", kind="model")
        back, forth = [], []
        for _ in range(5):
            for spent, call in ((back, layers[1].undo), (forth, layers[1].redo)):
                begin = time.perf_counter()
                call()
                spent.append(time.perf_counter() - begin)
        print(
            f"| {edits.top.voxels / 1e6:.1f} M voxels, in a layer | undo {np.median(back) * 1e3:.0f} ms "
            f"| redo {np.median(forth) * 1e3:.0f} ms | step of {len(edits.top._packed or b'') / 1e6:.2f} MB |"
        )
        for viewer in viewers:
            viewer.layers.clear()


def between() -> None:
    x, y, z = np.meshgrid(*[np.arange(97.0) - 48] * 3, indexing="ij")
    apart = np.clip((z + 10) * 0.55, 0, None)
    shapes = {
        "sphere": x**2 + y**2 + z**2 <= 35**2,
        "torus, flat": (np.hypot(x, y) - 30) ** 2 + z**2 <= 10.5**2,
        "torus, upright": (np.hypot(x, z) - 30) ** 2 + y**2 <= 10.5**2,
        "two to one": ((np.hypot(x - apart, y) <= 9) | (np.hypot(x + apart, y) <= 9)) & (np.abs(z) <= 40),
    }
    for name, truth in shapes.items():
        scores: list[list[float]] = [[], []]
        for start in range(5):
            for ends in (False, True):
                keep = np.zeros(97, bool)
                keep[start::5] = True
                if ends:
                    keep[np.flatnonzero(truth.any(axis=(0, 1)))[[0, -1]]] = True
                out = interpolate_slices(Labels((truth & keep).astype(np.uint8), Grid.plain(truth.shape))).data > 0
                scores[ends].append(2 * (out & truth).sum() / (out.sum() + truth.sum()))
        print(f"| {name} | {min(scores[1]):.3f} | {min(scores[0]):.3f} |")


def random_edits(seeds: int = 20, count: int = 1000) -> None:
    """Make random edits, undo them all; compare voxels and memory to the start."""
    shape, equal, worst = (64, 128, 128), 0, 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as folder:
            log = EditLog(shape, np.uint8, Path(folder) / "a.mrilog")
            start = (rng.random(shape) < 0.01).astype(np.uint8)
            array = start.copy()
            log.begin(array)
            log.flush()
            gc.collect()
            tracemalloc.start()
            held = [start.copy(), array.copy()]  # what the window holds: the picture and its source
            base = tracemalloc.get_traced_memory()[0]
            for n in range(count):
                low = [int(rng.integers(0, size)) for size in shape]
                box = tuple(slice(a, min(size, a + int(rng.integers(1, 24)))) for a, size in zip(low, shape, strict=True))
                before = array[box].copy()
                array[box] = np.where(rng.random(before.shape) < rng.random(), rng.integers(0, 9), before)
                log.record(f"edit {n}", box, before, array[box])
            while log.undo(array):
                pass
            log.record("one more", (slice(0, 1),) * 3, array[:1, :1, :1], array[:1, :1, :1] ^ 1)  # what was undone goes
            log.flush()
            gc.collect()
            worst = max(worst, tracemalloc.get_traced_memory()[0] / base)
            tracemalloc.stop()
            equal += bool(np.array_equal(array, start))
            log.close()
            del held
    print(f"| {seeds} seeds | {count} edits and all undone: equal to the start {equal} times | memory {worst:.3f} × |")


def main() -> None:
    print("| large step | memory | | | |")
    large_step()
    print("\n| strokes | bytes a voxel in memory | in the file |")
    for radius in (2, 5, 10, 20):
        strokes(radius)
    print("\n| in a napari layer of 192 × 256 × 256 | | | |")
    in_a_layer()
    print("\n| every 5th slice (worst of 5 starts) | Dice, ends painted too | Dice, ends not painted |")
    between()
    print("\n| random edits | | worst memory to the start |")
    random_edits()


if __name__ == "__main__":
    main()
