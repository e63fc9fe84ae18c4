"""Measure what ``import napari_mri`` costs beyond a bare interpreter: python -m benchmarks.start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(code: str) -> float:
    """Return the wall time of a fresh interpreter that runs `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    rows = {"bare interpreter": "pass", "import napari_mri": "import napari_mri", "+ load": "import napari_mri; napari_mri.load",
            "models list": "from napari_mri.cli import main\ntry: main(['models', 'list', '--json'], standalone_mode=False)\nexcept SystemExit: pass",
            "import nibabel (peer)": "import nibabel"}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(RUNS):  # in turn, so that a busy moment hits all alike
        for name, code in rows.items():
            code = code if name != "models list" else f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n exec({code!r})"
            times[name].append(seconds(code))
    bare = statistics.median(times["bare interpreter"])
    print("| what | median ms | beyond a bare interpreter, ms |\n| --- | --- | --- |")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {1e3 * middle:.0f} | {1e3 * (middle - bare):.0f} |")


if __name__ == "__main__":
    main()
