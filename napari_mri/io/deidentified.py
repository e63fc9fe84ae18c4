"""Writes de-identified copies of files and folders, with a report that holds no personal data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_mri.core.errors import FileProblem, MriError
from napari_mri.core.volume import Volume
from napari_mri.io.atomic import atomic_path
from napari_mri.io.deidentify import Removed, Rules, not_for_sharing, take_out
from napari_mri.io.dicom_bytes import DEFLATED, looks_like_dicom, walk_file
from napari_mri.io.unquoted import unquoted

_BROKEN = (
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    IndexError,
)
_TEXT_FIELDS = ("descrip", "intent_name", "segments", "fields")


@dataclass
class Report:
    """What was written and what was not.

    Parameters
    ----------
    written : int
        Number of files.
    skipped : dict of str to int
        Why files stayed behind, and how many.
    removed : Removed
        Elements of all files together.
    """

    written: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    removed: Removed = field(default_factory=Removed)

    def skip(self, why: str) -> None:
        """Count a file that was not written."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def lines(self) -> list[str]:
        """Return the report in words, without any value of the files."""
        told = [f"{self.written} files written, {sum(self.skipped.values())} left out."]
        told += [f"left out ({count}): {why}" for why, count in sorted(self.skipped.items())]
        for what, counts in (("removed", self.removed.removed), ("emptied", self.removed.emptied),
                             ("replaced", self.removed.replaced)):  # fmt: skip
            told += [f"{what} {keyword}: {count}" for keyword, count in sorted(counts.items())]
        if self.removed.private:
            told.append(f"removed private elements: {self.removed.private}")
        return told + [f"warning: {warning}" for warning in self.removed.warnings]


@unquoted()
def deidentify(
    source: Path | str,
    target: Path | str,
    rules: Rules | None = None,
    cancelled: Callable[[], None] | None = None,
) -> Report:
    """Write copies without the person.

    DICOM files go to ``target/study-1/series-1/image-0001.dcm`` and so on, since file names often are
    the patient's. A single file of another format (NIfTI, NRRD, …) is written to `target` with its
    free texts emptied; it must be told where to, since its own name may tell the person too.

    Parameters
    ----------
    source : Path
        A DICOM file or folder (with those below it), or a volume file.
    target : Path
        A folder that does not exist or is empty, for DICOM; a file name for other formats.
    rules : Rules, optional
    cancelled : callable, optional
        Called between files; may raise `Cancelled`.

    Returns
    -------
    Report

    Raises
    ------
    FileProblem
        If there is nothing to write, the target is not empty, or the disk says no.
    MissingExtra
        Without the tables of dicom-anonymizer.
    """
    start, goal = Path(source), Path(target)
    rules = rules or Rules()
    if not start.exists():
        raise FileProblem(f"There is no file or folder {start}.")
    if start.is_file() and not _dicom(start):
        return _volume_file(start, goal)
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise FileProblem(
            f"{goal} is not an empty folder.", hint="Give a new one, so that nothing is mixed up."
        )
    report = Report()
    places: dict[tuple[str, str], Path] = {}
    studies: dict[str, int] = {}
    counts: dict[Path, int] = {}
    for path in _files(start):
        if cancelled is not None:
            cancelled()
        dataset = _opened(path, report)
        if dataset is None:
            continue
        key = str(dataset.get("StudyInstanceUID", "")), str(dataset.get("SeriesInstanceUID", ""))
        if key not in places:
            study = studies.setdefault(key[0], len(studies) + 1)
            inside = sum(one[0] == key[0] for one in places) + 1
            places[key] = goal / f"study-{study}" / f"series-{inside}"
        report.removed.add(take_out(dataset, rules))
        folder = places[key]
        counts[folder] = counts.get(folder, 0) + 1
        _write(dataset, folder / f"image-{counts[folder]:04d}.dcm")
        report.written += 1
    if not report.written:
        reasons = "; ".join(report.skipped) or "there is no DICOM file"
        raise FileProblem(f"Nothing of {start} could be written: {reasons}.")
    return report


def _dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return looks_like_dicom(file.read(1024))


def _files(start: Path) -> Iterator[Path]:
    if start.is_file():
        yield start
        return
    for where, folders, names in os.walk(start):
        folders.sort()
        for name in sorted(names):
            yield Path(where) / name


def _opened(path: Path, report: Report) -> Any:
    """Return the data set of a file that may go out, or None and why it may not in the report."""
    from pydicom import dcmread

    if not _dicom(path):
        report.skip("not DICOM")
        return None
    if path.name.upper() == "DICOMDIR":
        report.skip("a DICOMDIR, which lists patients")
        return None
    try:
        # Checks lengths, and how far deflated files unpack, before a general reader takes memory for them.
        elements = walk_file(path, frozenset())
        if elements is None or elements.syntax == DEFLATED:
            report.skip("deflated: convert it first")
            return None
        dataset = dcmread(path)
        why = not_for_sharing(dataset) or (
            "" if "SOPInstanceUID" in dataset else "it has no SOP instance UID"
        )
    except (MriError, OSError, *_BROKEN):
        why, dataset = "damaged", None
    if why:
        report.skip(why)
        return None
    return dataset


def _write(dataset: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem(f"Cannot write {path.parent}: {error.strerror or error}.") from error
    with atomic_path(path) as part:
        try:
            dataset.save_as(part, enforce_file_format=True)
        except _BROKEN as error:
            raise FileProblem(
                f"{path.name} cannot be written: its source has elements that make no sense."
            ) from error


def _volume_file(source: Path, target: Path) -> Report:
    from napari_mri.io.files import load, save

    volume = load(source)
    save(nameless(volume), target, sidecar=False)
    report = Report(written=1)
    report.removed.removed["free text of the header"] = 1
    return report


def nameless(volume: Volume) -> Volume:
    """Return a volume without title, path, history and the free texts of the header it was read from."""
    kept = {key: value for key, value in volume.origin.fields.items() if key not in _TEXT_FIELDS}
    return replace(volume, history=(), origin=replace(volume.origin, title="", path="", fields=kept))
