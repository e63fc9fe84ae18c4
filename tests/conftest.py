"""Real data where present, and the same small thread count everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent


def real_data() -> Path:
    """Return the folder of real scans, whether or not it exists."""
    given = os.environ.get("NAPARI_MRI_TEST_DATA")
    return Path(given) if given else (_ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real scans; skips where it is absent."""
    folder = real_data()
    if not folder.is_dir():
        pytest.skip("no real scans here: set NAPARI_MRI_TEST_DATA to a folder of them")
    return folder


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Return the folder of other projects' weights; skips where it is absent."""
    folder = real_data().parent / "weights"
    if not folder.is_dir():
        pytest.skip("no third-party weights here")
    return folder


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's caches and settings out of the tests, and the tests out of them."""
    place = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "data"))
    monkeypatch.delenv("NAPARI_MRI_WEIGHTS", raising=False)
