"""Opens zip files: unpacks what is inside to a folder of its own, up to a limit, and looks there."""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mri.core.errors import BrokenFile, FileProblem, NotAnImage, UnsupportedImage
from napari_mri.core.volume import Volume
from napari_mri.io.formats import Format, Found
from napari_mri.io.inside import is_tame
from napari_mri.io.lazy import is_lazy

MOST_BYTES = 8_000_000_000
MOST_FILES = 50_000
MOST_RATIO = 300
_FREE_RATIO_BELOW = 100_000_000  # small archives of empty images shrink a lot and harm nobody
_CHUNK = 1 << 20
_AGAIN = "Copy or download the file again."


def mine(path: Path, head: bytes) -> bool:
    """Tell by the signature of the first entry; NumPy's and Office's archives are zip files too."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and path.is_file()


def survey(path: Path) -> tuple[Found, ...]:
    """List the volumes inside, unpacked into a temporary folder that lives as long as the list.

    Raises
    ------
    FileProblem
        If the archive is damaged, encrypted, larger than the limits, or tries to write elsewhere.
    """
    folder = tempfile.TemporaryDirectory(prefix="napari_mri_zip_", ignore_cleanup_errors=True)
    unpack(path, Path(folder.name))
    found = _look(Path(folder.name), path)
    return tuple(replace(one, open=_kept(one.open, folder, path)) for one in found)


def _kept(
    read: Callable[[], Volume], folder: tempfile.TemporaryDirectory[str], path: Path
) -> Callable[[], Volume]:
    """Return `read` for as long as the folder lives; voxels are taken out of it, and so is its name."""

    def kept() -> Volume:
        volume = read()
        assert os.path.isdir(folder.name)
        data = np.array(volume.data, order="K") if is_lazy(volume.data) else volume.data
        return replace(volume, data=data, origin=replace(volume.origin, path=str(path)))

    return kept


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive below `folder` and nowhere else.

    Raises
    ------
    BrokenFile, FileProblem, UnsupportedImage
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [one for one in archive.infolist() if _wanted(one)]
            _check(entries, path)
            for entry in entries:
                _one(archive, entry, folder, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BrokenFile(
            f"{path.name} is a damaged zip file, or packed in a way that is not read.", hint=_AGAIN
        ) from error


def _wanted(entry: zipfile.ZipInfo) -> bool:
    parts = entry.filename.replace("\\", "/").split("/")
    return not entry.is_dir() and not parts[-1].startswith(".") and "__MACOSX" not in parts


def _check(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len(entries) > MOST_FILES:
        raise FileProblem(
            f"{path.name} holds {len(entries):,} files; {MOST_FILES:,} are unpacked at most.",
            hint="Unpack it yourself.",
        )
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        raise FileProblem(
            f"{path.name} unpacks to {total / 1e9:,.1f} GB; {MOST_BYTES / 1e9:.0f} GB are unpacked at most.",
            hint="Unpack it yourself and open the folder.",
        )
    if total > _FREE_RATIO_BELOW and total > MOST_RATIO * path.stat().st_size:
        raise FileProblem(
            f"{path.name} unpacks to more than {MOST_RATIO} times its size, which no scan does; it was not opened.",
            hint="Unpack it yourself and open the folder, if you trust it.",
        )
    for entry in entries:
        if entry.flag_bits & 1:
            raise UnsupportedImage(
                f"{path.name} is encrypted.", hint="Unpack it with its password and open the folder."
            )
        if not is_tame(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
            raise FileProblem(
                f"{path.name} tries to write outside its own folder ('{entry.filename[:80]}'); it was not opened.",
                hint="Do not trust this file.",
            )


def _one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, path: Path) -> None:
    place = folder / entry.filename.replace("\\", "/")
    if not place.resolve().is_relative_to(folder.resolve()):
        raise FileProblem(f"{path.name} tries to write outside its own folder; it was not opened.")
    left = entry.file_size
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, open(place, "wb") as target:
            while chunk := source.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise BrokenFile(
                        f"{path.name} lies about the size of '{entry.filename[:80]}'.", hint=_AGAIN
                    )
                target.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BrokenFile(f"{path.name} holds one name twice.", hint=_AGAIN) from error


def _look(folder: Path, path: Path) -> list[Found]:
    from napari_mri.io import dicom, files

    found: list[Found] = []
    dicom_names = set()
    if dicom.mine(folder, b""):
        try:
            found += dicom.survey(folder)
            dicom_names = {name for name in _all(folder) if _is_dicom(name)}
        except FileProblem:
            pass
    for name in _all(folder):
        if name in dicom_names or name.suffix.lower() in (".zip", ".txt", ".json", ".csv", ".tsv"):
            continue
        try:
            more = files.survey(name)
        except FileProblem:
            continue
        found += [
            replace(one, title=str(name.relative_to(folder)) if len(more) == 1 else one.title) for one in more
        ]
    if not found:
        raise NotAnImage(f"{path.name} holds no images.", hint="Unpack it and look what is inside.")
    return found


def _all(folder: Path) -> list[Path]:
    return sorted(place for place in folder.rglob("*") if place.is_file())


def _is_dicom(path: Path) -> bool:
    from napari_mri.io.dicom_bytes import looks_like_dicom

    with open(path, "rb") as file:
        return looks_like_dicom(file.read(132))


def read(path: Path) -> tuple[Volume, ...]:
    """Open every volume inside (see `survey`)."""
    return tuple(one.open() for one in survey(path) if not one.problem)


FORMATS = (Format("zip", "zip of images", (".zip",), mine, read, survey=survey),)
