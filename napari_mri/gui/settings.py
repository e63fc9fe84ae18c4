"""What a person has set once and finds again in the next window: one small JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from napari_mri.core.errors import FileProblem
from napari_mri.io.atomic import atomic_path


def path() -> Path:
    """Return the settings file, in the user's configuration folder."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "napari_mri" / "settings.json"


def recall(name: str, default: Any) -> Any:
    """Return what was remembered under a name, or the default.

    A file that is missing, torn or holds something of another kind than the default counts as nothing remembered.
    """
    found = _read().get(name, default)
    return found if isinstance(found, type(default)) else default


def remember(name: str, value: Any) -> bool:
    """Keep a JSON value under a name; tells whether it could be written.

    Other names keep theirs. A home that cannot be written to must not end the work in the window.
    """
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as part:
            part.write_text(json.dumps(_read() | {name: value}, indent=1, ensure_ascii=False), encoding="utf-8")
    except (OSError, FileProblem):
        return False
    return True


def _read() -> dict[str, Any]:
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
