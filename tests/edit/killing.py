"""Kill the painter, or a window that paints, at a random moment and look at what it left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mri.edit.log import EditLog
from tests.edit.painter import SHAPE, step

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Wreck:
    """What was found after a kill.

    Parameters
    ----------
    did, saved : int
        Last step and last save the painter told of before it died.
    recovered : int
        Step whose state the log gave back; -1 if the state is none that ever was.
    mask : int
        Step whose state the mask file holds; 0 if there is none yet, -1 if it is damaged.
    torn : bool
        Whether a torn tail was cut off.
    """

    did: int
    saved: int
    recovered: int
    mask: int
    torn: bool

    @property
    def sound(self) -> bool:
        """At most one stroke lost, and a whole mask no older than the last save told of."""
        return self.recovered >= max(self.did - 1, 0) and self.mask >= self.saved


def kill_once(seed: int, longest: float = 1.5) -> Wreck:
    """Let a painter work for a random time, kill -9 it, and read what is there."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        painter = subprocess.Popen(
            [sys.executable, "-m", "tests.edit.painter", str(folder), str(seed)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert painter.stdout is not None
        first = painter.stdout.readline()  # the imports are over
        time.sleep(random.Random(seed).uniform(0.0, longest))
        painter.send_signal(signal.SIGKILL)
        told = (first + painter.stdout.read()).decode().split("\n")[:-1]
        painter.wait()
        painter.stdout.close()
        did = max((int(line.split()[1]) for line in told if line.startswith("did")), default=0)
        saved = max((int(line.split()[1]) for line in told if line.startswith("saved")), default=0)
        recovered = EditLog.recover(folder / "log.mrilog")
        recovered.log.close()
        return Wreck(did, saved, _step_of(recovered.array, seed), _mask_step(folder, seed), bool(recovered.notes))


def kill_window_once(seed: int, longest: float = 2.0) -> Wreck:
    """Let a real window paint and save for a random time, kill -9 it, and read what is there."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        painter = subprocess.Popen(
            [sys.executable, "-m", "tests.gui.painting_window", "200", "0.02"], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NAPARI_MRI_EDITS": str(folder), "NAPARI_MRI_SAVES": str(folder)},
        )  # fmt: skip
        assert painter.stdout is not None
        first = painter.stdout.readline()  # the window stands, and one stroke is done
        time.sleep(random.Random(seed).uniform(0.0, longest))
        painter.send_signal(signal.SIGKILL)
        told = (first + painter.stdout.read()).decode().split("\n")[:-1]
        painter.wait()
        painter.stdout.close()
        did = max((int(line.split()[1]) for line in told if line.startswith("did")), default=0)
        logs = list(folder.glob("*.mrilog"))
        if len(logs) != 1:
            return Wreck(did, 0, 0 if not logs else -1, _window_mask(folder), False)
        found = EditLog.recover(logs[0])
        found.log.close()
        return Wreck(did, 0, _stroke_of(found.array), _window_mask(folder), bool(found.notes))


def _stroke_of(array: np.ndarray) -> int:
    from tests.gui.painting_window import strokes

    return next((n for n, state in enumerate(strokes(array.shape, 200)) if np.array_equal(state, array)), -1)


def _window_mask(folder: Path) -> int:
    from napari_mri.core.errors import MriError
    from napari_mri.gui.placing import Frame, Placing
    from napari_mri.io.files import load_labels

    path = folder / "mask.nii.gz"
    if not path.exists():
        return 0
    try:
        labels = load_labels(path)
    except MriError:
        return -1
    return _stroke_of(Placing(labels.grid, Frame.of(labels.grid)).forth(np.asarray(labels.data), labels=True))


def _step_of(array: np.ndarray, seed: int) -> int:
    number = sum(int(array[0, 0, n]) << (8 * n) for n in range(4))
    truth = np.zeros(SHAPE, np.uint8)
    for n in range(1, number + 1):
        truth = step(truth, n, seed)[1]
    return number if np.array_equal(array, truth) else -1


def _mask_step(folder: Path, seed: int) -> int:
    from napari_mri.io.files import load_labels

    path = folder / "mask.nii.gz"
    return _step_of(np.asarray(load_labels(path).data), seed) if path.exists() else 0
