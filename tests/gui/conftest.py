"""Real windows where there is a display; nothing may outlive a test."""

from __future__ import annotations

import ctypes.util
import gc
import os
import sys
import threading
import time

import pytest

_PACKAGES = {"xcb-cursor": "libxcb-cursor0", "EGL": "libegl1", "GL": "libgl1", "xkbcommon-x11": "libxkbcommon-x11-0"}


def why_no_window() -> str:
    """Return why no real window can be opened here, or an empty text."""
    try:
        import qtpy.QtWidgets  # noqa: F401
    except Exception as error:  # noqa: BLE001  (qtpy raises its own kind without a binding)
        return f"napari or a Qt binding is not installed (extra 'all'): {error}"
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return "no display: install Xvfb (Debian package xvfb)"
        missing = [deb for lib, deb in _PACKAGES.items() if ctypes.util.find_library(lib) is None]
        if missing:
            return f"Debian packages are missing: {' '.join(missing)}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip every test that wants a window, if there can be none; say why."""
    wanting = [i for i in items if {"make_napari_viewer", "window", "qtbot"} & set(getattr(i, "fixturenames", ()))]
    reason = why_no_window() if wanting else ""
    for item in wanting:
        item.add_marker(pytest.mark.qt)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def nothing_outlives_a_test(request: pytest.FixtureRequest):
    """Fail on a thread of ours that still runs, or a widget of ours that still lives."""
    yield
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        ours = [t for t in threading.enumerate() if t.name.startswith("napari-mri")]
        if not ours:
            break
        time.sleep(0.05)
    assert not ours, f"threads still run after the test: {ours}"


_imported = 0


@pytest.fixture(autouse=True)
def quick_collections():
    """Leave what modules hold out of the collections of garbage, of which every window asks for several."""
    global _imported
    yield
    if len(sys.modules) > _imported:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


@pytest.fixture(autouse=True)
def own_edit_logs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Keep the logs of painted labels out of the user's folder."""
    place = tmp_path_factory.mktemp("edits")
    monkeypatch.setenv("NAPARI_MRI_EDITS", str(place))
    return place


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Begin without what another test has set and the window remembers."""
    pytest.importorskip("napari")
    from napari_mri.gui import settings

    settings.path().unlink(missing_ok=True)


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """Make a napari window; when the test ends, no widget of ours may be left."""
    from qtpy.QtWidgets import QApplication

    viewer = make_napari_viewer(show=True)
    yield viewer
    viewer.close()
    viewer = None
    for _ in range(3):
        QApplication.sendPostedEvents(None, 52)  # 52: DeferredDelete
        QApplication.processEvents()
        gc.collect()
    left = [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_mri")]
    assert not left, f"widgets still live after the window closed: {left}"
