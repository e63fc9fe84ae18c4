"""Opens BIDS folders: every scan of a subject, with the masks and maps that were made from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from napari_mri.core.errors import NotAnImage
from napari_mri.core.volume import Volume
from napari_mri.io.bids import BidsName, derivatives_of
from napari_mri.io.formats import Format, Found

_LABELS = ("mask", "dseg", "roi")
_SUBJECT = re.compile(r"sub-[a-zA-Z0-9+]+$")
_MOST = 2_000


def mine(path: Path, head: bytes) -> bool:
    """Tell whether a folder is a BIDS data set, or one of its subjects or sessions."""
    if not path.is_dir():
        return False
    inside = any(_SUBJECT.match(part) for part in path.resolve().parts)
    try:
        if inside:
            return next(_scans(path), None) is not None
        subjects = [one for one in path.iterdir() if _SUBJECT.match(one.name) and one.is_dir()]
        return any(next(_scans(one), None) is not None for one in subjects)
    except OSError:
        return False


def _scans(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder that bear BIDS names, derivatives left out."""
    for path in sorted(folder.rglob("sub-*.nii*")):
        name = BidsName.of(path.name)
        if name is not None and name.ending.startswith(".nii") and "derivatives" not in path.relative_to(folder).parts:
            yield path


def survey(path: Path) -> tuple[Found, ...]:
    """List the scans below a folder, each followed by what was derived from it.

    Parameters
    ----------
    path : Path
        A data set, a subject, a session or a folder such as ``anat``.
    """
    scans = [one for one, _ in zip(_scans(path), range(_MOST), strict=False)]
    people = sorted({BidsName.of(one.name).label("sub") for one in scans})  # type: ignore[union-attr]
    found: list[Found] = []
    for scan in scans:
        name = BidsName.of(scan.name)
        assert name is not None, "only BIDS names are listed"
        group = (f"sub-{name.label('sub')}",) if len(people) > 1 else ()
        stem = scan.name.removesuffix(name.ending)
        found.append(Found(stem, lambda at=scan: _opened(at), group=group))  # type: ignore[misc]
        for other in derivatives_of(scan):
            told = BidsName.of(other.name)
            assert told is not None, "derivatives have BIDS names"
            what = " ".join(filter(None, (told.label("desc"), told.label("label"), told.suffix)))
            maker = other.resolve().parts[other.resolve().parts.index("derivatives") + 1]
            title = f"{stem} · {what} ({maker})"
            labels = told.suffix in _LABELS
            found.append(Found(title, lambda at=other, mask=labels: _opened(at, mask), labels=labels, group=group))  # type: ignore[misc]
    if not found:
        raise NotAnImage(f"{path} is a BIDS folder without images.")
    return tuple(found)


def _opened(path: Path, mask: bool = False) -> Volume:
    from napari_mri.io.conventions import dressed
    from napari_mri.io.files import as_labels, load

    volume = load(path)
    if not mask:
        return volume
    return dressed(as_labels(volume), path)


def read(path: Path) -> tuple[Volume, ...]:
    """Open every image of a BIDS folder (see `survey`)."""
    return tuple(one.open() for one in survey(path))


FORMATS = (Format("bids", "BIDS folder", (), mine, read, folders=True, survey=survey),)
