"""Logs left behind are found, those in use and those all saved are not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.edit.log import EditLog
from napari_mri.edit.unfinished import CLOSED, SAVED, folder, new_path, unfinished

SHAPE = (4, 5, 6)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_MRI_EDITS", str(tmp_path))


def _log(name: str = "") -> EditLog:
    path = folder() / f"{name}.mrilog" if name else new_path(Grid.plain(SHAPE))
    return EditLog(SHAPE, np.uint8, path, facts={"grid": "here"})


def _stroke(log: EditLog, value: int) -> None:
    log.record("Brush", None, np.full(SHAPE, value, np.uint8), np.full(SHAPE, value + 1, np.uint8))


def test_what_was_not_saved_is_found_newest_first() -> None:
    for name, strokes in (("a", 2), ("b", 1)):
        log = _log(name)
        for n in range(strokes):
            _stroke(log, n)
        log.close()
    found = unfinished()
    assert [one.path.stem for one in found] == ["b", "a"]
    assert found[1].steps == ("Brush", "Brush")
    assert found[1].facts["grid"] == "here"
    assert not found[1].closed


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_what_a_window_has_open_is_not_offered() -> None:
    log = _log()
    _stroke(log, 0)
    assert log.flush()
    assert unfinished() == ()
    log.close()
    assert len(unfinished()) == 1


def test_only_what_came_after_the_last_save_counts() -> None:
    log = _log("saved")
    _stroke(log, 0)
    log.note(SAVED, {})
    log.close()
    assert unfinished() == ()
    assert not log.path.exists(), "nothing in it is wanted any more"
    log = _log("more")
    _stroke(log, 0)
    log.note(SAVED, {})
    array = np.full(SHAPE, 1, np.uint8)
    log.undo(array)
    log.note(CLOSED, {})
    log.close()
    (one,) = unfinished()
    assert one.steps == ("undo",)
    assert one.closed


def test_what_is_no_log_is_left_alone() -> None:
    (folder() / "x.mrilog").write_bytes(b"something of somebody's")
    (folder() / "y.mrilog").write_bytes(b"")
    assert unfinished() == ()
    assert (folder() / "x.mrilog").exists()
    assert unfinished(folder() / "no such folder") == ()


def test_a_logs_name_tells_nothing_but_place_and_time() -> None:
    name = new_path(Grid.plain(SHAPE)).name
    key, when, rest = name.split("-")
    assert len(key) == 12
    assert int(key, 16) >= 0
    assert int(when, 16) > 0
    assert rest.split(".")[0].isdigit()
    assert new_path(Grid.plain(SHAPE)).name != name
