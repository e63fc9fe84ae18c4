"""Finds the segmentations and contours that lie beside DICOM series, and lands each on its series in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_mri.core.errors import GridMismatch, MriError, UnsupportedImage
from napari_mri.core.volume import Volume
from napari_mri.io.dicom_bytes import inside, walk_file
from napari_mri.io.dicom_header import File, text
from napari_mri.io.formats import Found
from napari_mri.io.landing import landed_on, why_apart

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"
Series = tuple[str, str, Found]
"""UID of a study, of a series in it, and what opens it."""
_REFERENCED_SERIES, _SERIES = 0x00081115, 0x0020000E


@dataclass(frozen=True)
class Companion:
    """A file that belongs to a series: what is known of it before it is read.

    Parameters
    ----------
    path : Path
    contours : bool
        Whether it is an RTSTRUCT.
    title : str
        Description of its own series.
    number : int or None
    study : str
    """

    path: Path
    contours: bool
    title: str
    number: int | None
    study: str


def companion(file: File) -> Companion | None:
    """Return what a DICOM file adds to a series, or None if it is no segmentation."""
    if file.sop_class not in (*SEG, CONTOURS):
        return None
    contours = file.sop_class == CONTOURS
    label = file.title or ("contours" if contours else "segmentation")
    return Companion(file.path, contours, label, file.number, file.study)


def listed(companions: Sequence[Companion], series: Sequence[Series]) -> tuple[Found, ...]:
    """List segmentations so that opening one puts it on the voxels of its series.

    Parameters
    ----------
    companions : sequence of Companion
    series : sequence of Series
        Of the same folder.
    """
    found = []
    groups = {study: one.group for study, _, one in series}
    for one in companions:
        number = "" if one.number is None else f"{one.number} "
        title = f"{number}{one.title} ({'contours' if one.contours else 'segmentation'})"

        def read(one: Companion = one, title: str = title) -> Volume:
            opened = _contours(one, series) if one.contours else _segmentation(one, series)
            return opened.titled(title)

        found.append(Found(title, read, one.number, labels=True, group=groups.get(one.study, ())))
    return tuple(found)


def referenced(path: Path) -> set[str]:
    """Return the UIDs of the series that a DICOM SEG says it was made on."""
    top = walk_file(path, frozenset((_REFERENCED_SERIES,)))
    if top is None:
        return set()
    return {text(one, _SERIES) for one in inside(top, _REFERENCED_SERIES, frozenset((_SERIES,)))}


def made_on(one: Companion, series: str) -> bool:
    """Tell whether a segmentation names a series as the one it was made on; a damaged one names none."""
    from napari_mri.io.rtstruct import outlines

    try:
        return series in (outlines(one.path)[1] if one.contours else referenced(one.path))
    except MriError:
        return False


def _meant(uids: set[str], series: Sequence[Series]) -> tuple[list[Found], bool]:
    """Return the series that are named, or every one where none of them is here, and which it is."""
    placed = [(uid, one) for _, uid, one in series if one.grid is not None and not one.problem]
    named = [one for uid, one in placed if uid in uids]
    return (named, True) if named else ([one for _, one in placed], False)


def _segmentation(one: Companion, series: Sequence[Series]) -> Volume:
    """Return a SEG on the first series whose voxels it shares, else on its own grid and why."""
    from napari_mri.io.seg_dicom import read

    volume = read(one.path)[0]
    targets, named = _meant(referenced(one.path), series)
    why = "" if named else "the series that it was made on is not in this folder"
    for target in targets:
        assert target.grid is not None
        try:
            return landed_on(volume, target.grid, target.title)
        except GridMismatch:
            apart = why_apart(volume.grid, target.grid)
            why = why or f"against '{target.title}', {apart}"
    told = f"It is shown on its own grid, in mm, not on the voxels of a scan: {why}."
    return replace(volume, origin=replace(volume.origin, warnings=(*volume.origin.warnings, told)))


def _contours(one: Companion, series: Sequence[Series]) -> Volume:
    from napari_mri.io.rtstruct import outlines, read_on

    uids = set(outlines(one.path)[1])
    targets, named = _meant(uids, series)
    if not targets or (uids and not named):
        raise UnsupportedImage(
            f"{one.path.name} holds contours of a series that is not in this folder.",
            hint="Put the scan's DICOM files into the same folder.",
        )
    trouble: GridMismatch | None = None
    for target in targets:
        assert target.grid is not None
        try:
            return read_on(one.path, target.grid)
        except GridMismatch as error:
            trouble = trouble or error
    assert trouble is not None
    raise trouble
