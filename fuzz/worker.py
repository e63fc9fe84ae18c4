"""Opens one input as a user would, and tells how that ended."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

SECONDS = 10.0


def outcome(path: Path) -> tuple[str, str]:
    """Return ``("volume" | "refused" | "error", details)`` of opening a file.

    An input may be refused only by a `MriError`; every voxel of what opens is read once.
    """
    from napari_mri.core.errors import MriError
    from napari_mri.io.files import load_all
    from napari_mri.io.surface_files import is_surface, read_surface

    try:
        with open(path, "rb") as file:
            head = file.read(1024)
        if is_surface(path, head):
            read_surface(path)
            return "volume", ""
        for volume in load_all(path):
            assert volume.data.shape[:3] == volume.grid.shape
            np.asarray(volume.data).max()
        return "volume", ""
    except MriError as error:
        return ("refused", "") if str(error).strip() else ("error", "a MriError that says nothing")
    except Exception:  # noqa: BLE001 - whatever else comes is what we are looking for
        return "error", traceback.format_exc(limit=-6)


def serve(pipe: Any) -> None:
    """Answer inputs until the pipe closes."""
    import resource

    warnings.simplefilter("ignore")
    folder = Path(mkdtemp(prefix="napari_mri_fuzz_"))
    import napari_mri.io.files  # noqa: F401 - so that the first input does not pay for it

    pipe.send("ready")
    number = 0
    try:
        while True:
            name, content = pipe.recv()
            number += 1
            # A folder of its own: a DICOM file stands for its whole folder.
            place = folder / str(number)
            place.mkdir()
            (place / name).write_bytes(content)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            word, details = outcome(place / name)
            signal.setitimer(signal.ITIMER_PROF, 0)
            shutil.rmtree(place, ignore_errors=True)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            pipe.send((word, details, peak / (1 << 20 if os.uname().sysname == "Linux" else 1 << 30)))
    except EOFError:
        shutil.rmtree(folder, ignore_errors=True)
