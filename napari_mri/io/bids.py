"""Understands BIDS names and sidecars, and saves results as BIDS derivatives of the scan they came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from napari_mri.core.errors import BadOption, FileProblem
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.atomic import atomic_path
from napari_mri.io.label_tables import LabelTable, write_table

_PAIR = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)$")
_ENDING = re.compile(r"(\.nii\.gz|\.nii|\.json|\.tsv|\.bval|\.bvec)$")
_WORD = re.compile(r"[a-zA-Z0-9]+$")
_MOST_BYTES = 5_000_000
PIPELINE = "napari_mri"
VERSION = "1.9.0"


@dataclass(frozen=True)
class BidsName:
    """A BIDS file name, taken apart.

    Parameters
    ----------
    entities : tuple of (key, label)
        In their order, e.g. ``(("sub", "01"), ("ses", "a"))``.
    suffix : str
        ``"T1w"``, ``"bold"``, ``"dseg"``, …
    ending : str
        ``".nii.gz"``, …
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    ending: str

    @classmethod
    def of(cls, name: str) -> BidsName | None:
        """Take a file name apart; None if it is no BIDS name (which begins with ``sub-``)."""
        ending = _ENDING.search(name)
        if ending is None:
            return None
        *pairs, suffix = name[: ending.start()].split("_")
        found = [_PAIR.match(pair) for pair in pairs]
        if not found or None in found or not _WORD.match(suffix):
            return None
        entities = tuple((match[1], match[2]) for match in found if match is not None)
        return cls(entities, suffix, ending[1]) if entities[0][0] == "sub" else None

    def label(self, key: str) -> str:
        """Return the label of an entity, or an empty string."""
        return dict(self.entities).get(key, "")

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{label}" for key, label in self.entities), self.suffix]) + self.ending


def root_of(path: Path) -> Path | None:
    """Return the folder of the data set that a file belongs to: the one above its ``sub-`` folder."""
    for folder in path.resolve().parents:
        if folder.name.startswith("sub-"):
            return folder.parent
    return None


def sidecar_of(path: Path) -> dict[str, Any]:
    """Return what the JSON files of a data set tell about a scan, the nearest one last (BIDS inheritance).

    Parameters
    ----------
    path : Path
        A scan in a BIDS folder.

    Returns
    -------
    dict
        Empty where there is none; files that are no JSON objects are passed over.
    """
    name, root = BidsName.of(path.name), root_of(path)
    if name is None or root is None:
        return {}
    folders = [
        folder for folder in reversed(path.resolve().parents) if folder == root or root in folder.parents
    ]
    told: dict[str, Any] = {}
    for folder in folders:
        fitting = [(len(other.entities), place) for place in sorted(folder.glob(f"*{name.suffix}.json"))
                   if (other := _entities_of(place.name)) is not None and set(other.entities) <= set(name.entities)
                   and other.suffix == name.suffix]  # fmt: skip
        for _, place in sorted(fitting):
            told |= _object(place)
    return told


def _entities_of(name: str) -> BidsName | None:
    """Return the parts of a sidecar's name, which may have no entity at all (``T1w.json``)."""
    stem = name.removesuffix(".json")
    *pairs, suffix = stem.split("_")
    found = [_PAIR.match(pair) for pair in pairs]
    if None in found:
        return None
    return BidsName(tuple((match[1], match[2]) for match in found if match is not None), suffix, ".json")


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def derivatives_of(scan: Path) -> tuple[Path, ...]:
    """Return the images below ``derivatives/`` that were made from a scan: same subject, session and entities.

    Parameters
    ----------
    scan : Path
        A raw scan in a BIDS folder.
    """
    name, root = BidsName.of(scan.name), root_of(scan)
    if name is None or root is None:
        return ()
    found = []
    for path in sorted((root / "derivatives").glob(f"**/sub-{name.label('sub')}/**/*.nii*")):
        other = BidsName.of(path.name)
        if other is not None and set(name.entities) <= set(other.entities):
            found.append(path)
    return tuple(found)


def save_derivative(volume: Volume, scan: Path, desc: str, suffix: str = "") -> Path:
    """Save a result where BIDS wants it, with its JSON, and a table of names for labels.

    ``sub-01/anat/sub-01_T1w.nii.gz`` gives
    ``derivatives/napari_mri/sub-01/anat/sub-01_desc-brain_mask.nii.gz``.

    Parameters
    ----------
    volume : Volume or Labels
    scan : Path
        The raw scan it was made from.
    desc : str
        Letters and digits that tell results apart.
    suffix : str
        Default: ``"mask"`` for labels of one value, ``"dseg"`` for several, the scan's own else.

    Raises
    ------
    FileProblem
        If the scan lies in no BIDS folder, or the disk says no.
    BadOption
        If `desc` or `suffix` holds other signs than letters and digits.
    """
    from napari_mri.io.files import save

    name, root = BidsName.of(scan.name), root_of(scan)
    if name is None or root is None:
        raise FileProblem(f"{scan} does not lie in a BIDS folder.", hint="Save it with a name of your own.")
    labels = isinstance(volume, Labels)
    suffix = suffix or (
        ("mask" if len(volume.values) < 2 else "dseg") if isinstance(volume, Labels) else name.suffix
    )
    if not (_WORD.match(desc) and _WORD.match(suffix)):
        raise BadOption("BIDS labels are made of letters and digits only.", hint="For example desc='brain'.")
    entities = tuple(pair for pair in name.entities if pair[0] != "desc")
    goal = BidsName((*entities, ("desc", desc)), suffix, ".nii.gz")
    home = root / "derivatives" / PIPELINE
    relative = scan.resolve().relative_to(root)
    folder = home / relative.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem(f"Cannot write {folder}: {error.strerror or error}.") from error
    _describe(home)
    path = folder / str(goal)
    record: dict[str, Any] = {
        "Sources": [f"bids:raw:{relative.as_posix()}"],
        "SpatialReference": "orig",
        "napari_mri_history": [step.to_json() for step in volume.history],
    }
    if labels and suffix == "mask":
        record["Type"] = "Brain" if desc.lower() == "brain" else "ROI"
    _write_json(folder / str(BidsName(goal.entities, suffix, ".json")), record)
    if isinstance(volume, Labels) and suffix == "dseg":
        write_table(LabelTable.of(volume), folder / str(BidsName(goal.entities, suffix, ".tsv")), "bids")
    return save(volume, path, sidecar=False)


def _describe(home: Path) -> None:
    if (home / "dataset_description.json").exists():
        return
    try:
        version = metadata.version("napari-mri-workbench")
    except metadata.PackageNotFoundError:
        version = "unknown"
    record = {
        "Name": "napari_mri derivatives",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": PIPELINE, "Version": version}],
        "DatasetLinks": {"raw": "../.."},
    }
    _write_json(home / "dataset_description.json", record)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    with atomic_path(path) as part:
        part.write_text(
            json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
