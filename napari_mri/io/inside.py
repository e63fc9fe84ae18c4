"""Keeps file names told by headers and archives inside the folder that they belong to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from napari_mri.core.errors import BrokenFile, FileProblem


def beside(header: Path, told: str) -> Path:
    """Return the file that a header names, which must lie in the header's own folder.

    Parameters
    ----------
    header : Path
    told : str
        As written in the header.

    Raises
    ------
    FileProblem
        If the name leads out of the folder: by ``..``, an absolute path, a drive or a link.
    BrokenFile
        If there is no such file.
    """
    name = told.strip()
    if not is_tame(name) or len(name) > 1000:
        raise FileProblem(
            f"{header.name} points to a file outside its own folder ('{name[:80]}'), which is not followed.",
            hint="Put both files into one folder and write the bare name into the header.",
        )
    place = header.parent / name
    folder = header.parent.resolve()
    try:
        real = place.resolve()
        there = real.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise BrokenFile(f"{header.name} names a file that cannot be ('{name[:80]}').") from error
    if not real.is_relative_to(folder):
        raise FileProblem(
            f"{header.name} points through a link to a file outside its own folder, which is not followed.",
            hint="Put a copy of the file into the folder.",
        )
    if not there:
        raise BrokenFile(
            f"{header.name} needs the file '{name[:80]}', which is not there.", hint="Copy both files."
        )
    return place


def is_tame(name: str) -> bool:
    """Tell whether a name told by a file stays below the folder it is told in, on any system."""
    if not name or "\0" in name:
        return False
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.drive or windows.root or posix.is_absolute():
        return False
    return ".." not in windows.parts and ".." not in posix.parts
