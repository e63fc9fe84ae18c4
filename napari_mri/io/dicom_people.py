"""Tells whose studies lie in a folder: by number for everybody, by name for somebody who asks."""

from __future__ import annotations

from collections.abc import Callable

from napari_mri.core.errors import MriError
from napari_mri.io.dicom_bytes import CHARSET, walk_file
from napari_mri.io.dicom_header import File, text, words

_DATE, _NAME, _ID = 0x00080020, 0x00100010, 0x00100020
_WHO = frozenset((CHARSET, _DATE, _NAME, _ID))


def _told(place: str) -> tuple[str, str, str]:
    """Return name, number and study date as a file tells them; empty where it cannot be read."""
    try:
        top = walk_file(place, _WHO)
    except (MriError, OSError):
        return "", "", ""
    if top is None:
        return "", "", ""
    return words(top, _NAME).replace("^", " ").strip(), text(top, _ID), text(top, _DATE)


def who(file: File) -> Callable[[], str]:
    """Return a function that reads whose a file is: name, number, date of study, for a person's eyes only."""

    def ask() -> str:
        name, number, date = _told(file.place)
        day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date
        return ", ".join(part for part in (name, number, day) if part) or "no name in the file"

    return ask


def groups(files: list[File]) -> dict[str, tuple[str, ...]]:
    """Return a number for each patient and study, where there are several of either.

    Parameters
    ----------
    files : list of File
        One or more of each study.

    Returns
    -------
    dict of study UID to tuple of str
        E.g. ``("patient 1", "study 2")``; empty tuples where there is one study only. Names are
        compared here and go no further.
    """
    firsts: dict[str, File] = {}
    for file in files:
        firsts.setdefault(file.study, file)
    if len(firsts) < 2:
        return dict.fromkeys(firsts, ())
    people: dict[tuple[str, str], list[str]] = {}
    for study, file in firsts.items():
        name, number, _ = _told(file.place)
        key = ("", number) if number else (name, "") if name else ("", "\0" + study)
        people.setdefault(key, []).append(study)
    studies = list(firsts)
    if len(people) < 2:
        return {study: (f"study {n}",) for n, study in enumerate(studies, 1)}
    return {
        study: (f"patient {n}", f"study {studies.index(study) + 1}")
        for n, own in enumerate(people.values(), 1)
        for study in own
    }
