"""Edit logs that were left behind, by a crash or by a window that closed before its labels were saved."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mri.core.errors import MriError
from napari_mri.core.grid import Grid
from napari_mri.edit.journal import in_use, read_records
from napari_mri.edit.log import ENDING

SAVED, CLOSED = "saved", "closed"
"""Notes in a log: all before it is in a file of the user's; its layer was closed."""
RESTORED = "Restored"
"""Name of a start that is in no file of the user's."""
_NO_STEPS = ("open", "note", "type", "start", "name")


@dataclass(frozen=True)
class Unfinished:
    """A log whose labels were not saved.

    Parameters
    ----------
    path : Path
    time : float
        Of the last step, seconds since 1970, UTC.
    steps : tuple of str
        Names of what was done since the labels were last saved, oldest first.
    closed : bool
        Whether its layer was closed in good order; else its window died.
    facts : mapping
        What the head of the log tells: grid, names, …
    """

    path: Path
    time: float
    steps: tuple[str, ...]
    closed: bool
    facts: Mapping[str, Any]


def folder() -> Path:
    """Return where the window keeps its logs: ``NAPARI_MRI_EDITS``, or a folder of the user's data."""
    given = os.environ.get("NAPARI_MRI_EDITS")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "napari_mri" / "edits"


def new_path(grid: Grid) -> Path:
    """Return a name for a new log in `folder`: a hash of the grid and the time, nothing of the patient."""
    key = hashlib.sha256(repr((grid.shape, grid.affine.round(4).tolist())).encode()).hexdigest()[:12]
    return folder() / f"{key}-{time.time_ns():x}-{os.getpid()}{ENDING}"


def unfinished(place: Path | None = None) -> tuple[Unfinished, ...]:
    """Return the logs that hold unsaved work and that no window has open, newest first.

    Logs without any are removed on the way; what is no log, or has no sound head, is left alone.
    """
    found = []
    with suppress(OSError):
        for path in (place or folder()).glob("*" + ENDING):
            one = _look(path)
            if one is not None:
                found.append(one)
    return tuple(sorted(found, key=lambda one: -one.time))


def _look(path: Path) -> Unfinished | None:
    try:
        if in_use(path):
            return None
        records, _, _ = read_records(path)
    except (OSError, MriError):
        return None
    if not records or records[0].facts.get("kind") != "open":
        return None
    names: list[str] = []
    closed, last = False, 0.0
    for record in records[1:]:
        kind = str(record.facts.get("kind", "stroke"))
        about = record.facts.get("about") if kind == "note" else None
        closed = about == CLOSED
        if about == SAVED:
            names.clear()
        elif kind == "name" and names:
            names[-1] = str(record.facts.get("name", names[-1]))
        elif kind not in _NO_STEPS or record.facts.get("name") == RESTORED:
            names.append(str(record.facts.get("name", kind)))
            last = float(record.facts.get("time", 0))
    if not names:
        with suppress(OSError):
            path.unlink()
        return None
    return Unfinished(path, last, tuple(names), closed, records[0].facts)
