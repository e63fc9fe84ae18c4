"""Keeps the history of a file in a `.json` beside it, without touching anybody else's `.json`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from napari_mri.core.errors import FileProblem, MriError
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.atomic import atomic_path

MARK = "napari_mri"
LAYOUT = 1
_MOST_BYTES = 20_000_000
_ENDS = 65536


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar tells about its file.

    Parameters
    ----------
    history : tuple of Step
        Oldest first.
    names, colors : mapping of int to str, (r, g, b)
        Of the labels, where the file holds labels.
    fingerprint : str
        sha256 of the voxels and the grid that were written (`Volume.fingerprint`).
    stale : bool
        Whether the file was changed by another program since.
    """

    history: tuple[Step, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    fingerprint: str = ""
    stale: bool = False


def places(path: Path, ending: str) -> tuple[Path, ...]:
    """Return the names a sidecar of `path` may have, the preferred one first."""
    stem = path.name[: len(path.name) - len(ending)] if ending else path.stem
    names = (f"{stem}.json", f"{stem}.history.json", f"{path.name}.history.json")
    return tuple(path.with_name(name) for name in names)


def write_sidecar(volume: Volume, path: Path, ending: str) -> Path:
    """Write the history of `volume`, just saved at `path`, beside it.

    A `.json` of that name that is not ours (a BIDS one, say), or is about another file, is left
    alone and the next name of `places` is taken.

    Parameters
    ----------
    volume : Volume
    path : Path
        The finished file.
    ending : str
        Its ending, e.g. ``".nii.gz"``.

    Returns
    -------
    Path
        Where the sidecar went.

    Raises
    ------
    FileProblem
    """
    record: dict[str, Any] = {
        MARK: {"layout": LAYOUT, "version": _version()},
        "file": {"ending": ending, **_looks(path)},
        "fingerprint": volume.fingerprint(),
        "history": [step.to_json() for step in volume.history],
    }
    if isinstance(volume, Labels):
        record["labels"] = labels_to_json(volume.names, volume.colors)
    spot = next((p for p in places(path, ending) if _free(p, ending)), places(path, ending)[-1])
    text = json.dumps(record, indent=1, ensure_ascii=False, default=_plain)
    with atomic_path(spot) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return spot


def read_sidecar(path: Path, ending: str) -> Sidecar | None:
    """Return what stands beside `path` if it is ours and about this file, else None."""
    for spot in places(path, ending):
        record = _ours(spot)
        if record is not None and record.get("file", {}).get("ending") == ending:
            return _parsed(record, path)
    return None


def read_history(sidecar: Path) -> tuple[Step, ...]:
    """Return the steps that a sidecar tells, oldest first; for replaying.

    Raises
    ------
    FileProblem
        If the file is not there, or not one of our sidecars.
    """
    sidecar = Path(sidecar)
    if not sidecar.exists():
        raise FileProblem(f"There is no file {sidecar}.", hint="Check the path for typing errors.")
    if sidecar.is_dir():
        raise FileProblem(f"{sidecar} is a folder.", hint="Give the .json that was saved beside a result.")
    record = _ours(sidecar)
    if record is None:
        raise FileProblem(
            f"{sidecar} is not a history of this program.",
            hint="Give the .json that was saved beside a result.",
        )
    return _parsed(record, None).history


def result_of(sidecar: Path) -> Path | None:
    """Return the file that a sidecar stands beside and is about, or None if it is not there."""
    record = _ours(sidecar)
    ending = "" if record is None else str(record.get("file", {}).get("ending", ""))
    for stem in (sidecar.name.removesuffix(".json"), sidecar.name.removesuffix(".history.json")):
        for name in (stem + ending, stem):
            found = sidecar.with_name(name)
            if ending and name.endswith(ending) and found.is_file() and sidecar in places(found, ending):
                return found
    return None


def labels_to_json(
    names: Mapping[int, str], colors: Mapping[int, tuple[float, float, float]]
) -> dict[str, dict[str, Any]]:
    """Return names and colours of labels as plain values, one record a label value."""
    table: dict[str, dict[str, Any]] = {}
    for value in sorted({*names, *colors}):
        entry: dict[str, Any] = {}
        if value in names:
            entry["name"] = str(names[value])
        if value in colors:
            entry["color"] = [round(float(part), 6) for part in colors[value]]
        table[str(int(value))] = entry
    return table


def labels_from_json(table: Any) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]]:
    """Undo `labels_to_json`; records that make no sense are skipped."""
    names: dict[int, str] = {}
    colors: dict[int, tuple[float, float, float]] = {}
    if not isinstance(table, Mapping):
        return names, colors
    for key, entry in table.items():
        try:
            value = int(key)
            if "name" in entry:
                names[value] = str(entry["name"])
            if "color" in entry:
                red, green, blue = (float(part) for part in entry["color"])
                colors[value] = (red, green, blue)
        except (TypeError, ValueError):
            continue
    return names, colors


def _version() -> str:
    try:
        return metadata.version("napari-mri-workbench")
    except metadata.PackageNotFoundError:
        return "unknown"


def _looks(path: Path) -> dict[str, Any]:
    """Size and a hash of both ends: enough to see, in no time, that a file was replaced."""
    size = os.path.getsize(path)
    sha = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        sha.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        sha.update(file.read(_ENDS))
    return {"bytes": size, "ends_sha256": sha.hexdigest()}


def _ours(spot: Path) -> dict[str, Any] | None:
    try:
        if not spot.is_file() or spot.stat().st_size > _MOST_BYTES:
            return None
        record = json.loads(spot.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get(MARK), dict) else None


def _free(spot: Path, ending: str) -> bool:
    if not os.path.lexists(spot):
        return True
    record = _ours(spot)
    return record is not None and record.get("file", {}).get("ending") == ending


def _parsed(record: dict[str, Any], path: Path | None) -> Sidecar:
    try:
        steps = tuple(Step.from_json(step) for step in record.get("history", ()))
    except (TypeError, KeyError, AttributeError, ValueError, MriError):
        return Sidecar(stale=True)
    names, colors = labels_from_json(record.get("labels"))
    stale = False
    if path is not None:
        seen = _looks(path)
        stale = any(record["file"].get(key) != value for key, value in seen.items())
    return Sidecar(steps, names, colors, str(record.get("fingerprint", "")), stale)


def _plain(value: Any) -> Any:
    """Turn numpy numbers and mappings, which facts may hold, into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)
