"""What every file format tells about itself; `files` asks each one "is this yours?" by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume

MODULES = (
    "nifti", "nrrd", "metaimage", "mgh", "analyze", "rtstruct", "seg_dicom", "omezarr", "bids_folder", "dicom",
    "surface_files", "zipped", "rawdata",
)  # fmt: skip
"""Modules of this folder that hold a ``FORMATS`` tuple, asked in this order."""


@dataclass(frozen=True)
class Found:
    """A volume that was found in a file or folder and not read yet.

    Parameters
    ----------
    title : str
        What a person knows it by, e.g. ``"3 T1 MPRAGE 192×256×256"``.
    open : callable
        ``open() -> Volume`` reads it, or raises why it cannot be read.
    number : int, optional
        Series number, where there is one.
    shape : tuple of int
        Of the array to come.
    problem : str
        Why it will not open, where that is known beforehand.
    part : bool
        Whether it is only a piece of another one of the list, which has a problem.
    labels : bool
        Whether it is a segmentation that belongs to another one of the list.
    grid : Grid, optional
        Where it will stand, where that is known without reading.
    resampled : callable, optional
        ``resampled() -> Volume`` makes one volume of slices that do not make a grid as they are.
    group : tuple of str
        What it belongs to, outermost first, told without names: ``("patient 1", "study 2")``.
    who : callable, optional
        ``who() -> str`` reads whose it is and when it was made: only for somebody who asked.
    """

    title: str
    open: Callable[[], Volume]
    number: int | None = None
    shape: tuple[int, ...] = ()
    problem: str = ""
    part: bool = False
    labels: bool = False
    grid: Grid | None = None
    resampled: Callable[[], Volume] | None = None
    group: tuple[str, ...] = ()
    who: Callable[[], str] | None = None


@dataclass(frozen=True)
class Format:
    """One way to keep volumes in files.

    Parameters
    ----------
    name : str
        ``"nifti"``, ``"dicom"``, …
    title : str
        As in a file dialog.
    endings : tuple of str
        File name endings a writer is chosen by, each with its dot, longest first.
    mine : callable
        ``mine(path, head) -> bool``; `head` is the first 1024 bytes of the file (of the unpacked
        content where the file is gzipped), empty for a folder.
    read : callable
        ``read(path) -> tuple of Volume``: every series or volume found, at least one, or a
        `FileProblem`.
    write : callable, optional
        ``write(volume, path)``; must write to exactly `path` (the caller makes it atomic).
    folders : bool
        Whether `mine` and `read` also take a folder.
    holds : frozenset of str
        What a writer can keep: ``"volume"``, ``"labels"``, ``"4d"``, ``"names"``, ``"overlap"``.
    survey : callable, optional
        ``survey(path) -> tuple of Found``: what `read` would give, in that order, without the voxels.
    labels_only : tuple of str
        Those of `endings` that keep no grey values, though the format does.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    mine: Callable[[Path, bytes], bool]
    read: Callable[[Path], tuple[Volume, ...]]
    write: Callable[[Volume, Path], None] | None = None
    folders: bool = False
    holds: frozenset[str] = field(default_factory=frozenset)
    survey: Callable[[Path], tuple[Found, ...]] | None = None
    labels_only: tuple[str, ...] = ()

    def kept_by(self, ending: str) -> frozenset[str]:
        """Return what of `holds` a file of one of the endings keeps."""
        return self.holds - {"volume"} if ending.lower() in self.labels_only else self.holds


def all_formats() -> Iterable[Format]:
    """Yield every format of the house, readers first asked first."""
    for name in MODULES:
        yield from import_module(f"napari_mri.io.{name}").FORMATS
