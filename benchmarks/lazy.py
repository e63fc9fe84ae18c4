"""A scan of 2 GB in a real window: seconds to its first slice, and the memory it takes.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.lazy [--json FILE]

Each case opens in a process of its own. The window has shown a small scan before, so that what napari
itself loads at its first layer is not counted; it is told apart in the first row. *After* is the
resident memory once five time points were looked at.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (128, 128, 64, 1000)


def make(folder: Path) -> dict[str, Path]:
    """Write one field as `.nii`, `.nii.gz` and OME-Zarr; all but the last frame are alike, to save time."""
    import nibabel
    import zarr

    header = nibabel.Nifti1Header()
    header.set_data_dtype("i2")
    header.set_data_shape(SHAPE)
    header.set_zooms((2, 2, 2, 1))
    header.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    frame = np.random.default_rng(0).integers(0, 1000, SHAPE[:3]).astype("<i2")
    plain, packed, chunked = folder / "big.nii", folder / "packed.nii.gz", folder / "big.ome.zarr"
    with open(plain, "wb") as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(SHAPE[3]):
            file.write(frame.tobytes(order="F"))
    with open(plain, "rb") as source, gzip.open(packed, "wb", 1) as target:
        shutil.copyfileobj(source, target, 1 << 22)
    group = zarr.open_group(chunked, mode="w", zarr_format=2)
    array = group.create_array("0", shape=SHAPE[::-1], chunks=(1, 64, 128, 128), dtype="i2")
    for n in range(0, SHAPE[3], 100):
        array[n : n + 100] = np.broadcast_to(frame.T, (100, *frame.T.shape))
    axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space", "unit": "millimeter"} for a in "zyx")]
    scale = [{"type": "scale", "scale": [1, 2, 2, 2]}]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    small = folder / "small.nii"
    nibabel.save(nibabel.Nifti1Image(frame[:32, :32, :16], np.eye(4)), small)
    return {"small": small, ".nii": plain, ".nii.gz": packed, "OME-Zarr": chunked}


def resident(key: str = "VmRSS") -> float:
    """Return the resident memory of this process, MB."""
    with open("/proc/self/status") as file:
        return int(next(line.split()[1] for line in file if line.startswith(key))) / 1024


def show(path: str, small: str) -> dict[str, float]:
    """Open a file in a window and measure."""
    import napari
    from napari.layers import Layer
    from qtpy.QtWidgets import QApplication

    from napari_mri.gui import files

    viewer = napari.Viewer(show_welcome_screen=False)
    app = QApplication.instance()
    assert app is not None

    def opened(place: str) -> float:
        began = time.perf_counter()
        for made in files.read(place):
            viewer.add_layer(Layer.create(*made))
        viewer.window._qt_viewer.canvas.native.repaint()
        app.processEvents()
        return time.perf_counter() - began

    _idle(app, 1.5)
    first = opened(small)
    _idle(app, 0.5)
    viewer.layers.clear()
    _idle(app, 0.5)
    before = resident()
    seconds = opened(path)
    mapped = resident()
    steps = []
    for n in range(5):
        began = time.perf_counter()
        viewer.dims.set_current_step(0, 150 * n)
        viewer.window._qt_viewer.canvas.native.repaint()
        app.processEvents()
        steps.append(time.perf_counter() - began)
    figures = {"napari's first layer s": first, "first slice s": seconds, "window MB": before, "resident MB": mapped,
               "after MB": resident(), "peak MB": resident("VmHWM"), "step s": float(np.median(steps))}  # fmt: skip
    viewer.close()
    app.processEvents()
    return {key: round(value, 2) for key, value in figures.items()}


def _idle(app: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        app.processEvents()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lazy")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", nargs=2, help="measure one file (used by itself)")
    wish = parser.parse_args()
    if wish.show:
        print(json.dumps(show(*wish.show)))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        paths = make(Path(name))
        for kind in (".nii", "OME-Zarr", ".nii.gz"):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.lazy", "--show", paths[kind], paths["small"]]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            rows[kind] = json.loads(done.stdout.strip().splitlines()[-1])
            told = ", ".join(f"{key} {value}" for key, value in rows[kind].items())
            print(f"2 GB 4D {kind}: {told}", flush=True)
    if wish.json:
        wish.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
