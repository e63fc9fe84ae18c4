"""Where trainings find label maps and keep what must not enter the repository."""

from __future__ import annotations

import os
from pathlib import Path

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("NAPARI_MRI_TEST_DATA", _SHARED)) / "synthseg_label_maps"
CACHE = Path(os.environ.get("NAPARI_MRI_TRAINING_CACHE", Path.home() / ".cache" / "napari_mri" / "training"))
