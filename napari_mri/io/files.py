"""Opens any file or folder by what is in it, and saves by the ending of the name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_mri.core.errors import BrokenFile, FileProblem, MriError, NotAnImage, SeveralSeries, UnsupportedImage
from napari_mri.core.volume import Labels, Volume, check_volume
from napari_mri.io.atomic import atomic_path
from napari_mri.io.conventions import dressed
from napari_mri.io.formats import Format, Found, all_formats
from napari_mri.io.history import read_sidecar, write_sidecar
from napari_mri.io.philips import as_kind
from napari_mri.io.unpack import head_of

Got = TypeVar("Got")
_STALE = "The history beside the file is about an older version of it and was left out."


def load(
    path: str | Path, *, series: str | int | None = None, resample: bool = False, philips: str = "display"
) -> Volume:
    """Open one scan.

    Parameters
    ----------
    path : str or Path
        A file of any known format, a DICOM folder, or one file of a DICOM series.
    series : str or int, optional
        Which one, where there are several: its series number, or a part of its name.
    resample : bool
        Whether DICOM slices that are spaced unequally may be resampled to equal steps; they are
        refused otherwise. Told among the warnings and in the history.
    philips : str
        ``"display"`` (what the console shows) or ``"precise"`` values of a Philips scan.

    Returns
    -------
    Volume or Labels
        With its history, where one was saved beside it.

    Raises
    ------
    SeveralSeries
        If there is more than one and `series` does not choose.
    FileProblem, GeometryProblem
        If it cannot be read; the hint tells the way out.
    """
    one = _one(path, series)
    opens = one.resampled if resample and one.resampled is not None else one.open
    return as_kind(opens(), philips)


def _one(path: str | Path, series: str | int | None, *, labels: bool = False) -> Found:
    """Return the one thing meant at a path, or raise SeveralSeries."""
    found = survey(path)
    if series is not None:
        found = _chosen(found, series, str(path))
    else:
        own = tuple(one for one in found if one.labels) if labels else ()
        found = own or _main(found)
    if len(found) > 1:
        names = tuple(one.title for one in found)
        raise SeveralSeries(
            f"{path} holds {len(found)} series: {'; '.join(names)}.",
            hint=f'Choose one, e.g. --series "{_handle(found[0], found)}" (load_all opens every one).',
            names=names,
        )
    return found[0]


def load_all(path: str | Path) -> tuple[Volume, ...]:
    """Open every scan found in a file or folder.

    A series that cannot be read is left out while another one opens; what was wrong with it is then
    told among the warnings of the first.

    Raises
    ------
    FileProblem, GeometryProblem
        If not one can be read.
    """
    volumes: list[Volume] = []
    errors: list[tuple[str, MriError]] = []
    for one in survey(path):
        try:
            volumes.append(one.open())
        except MriError as error:
            errors.append((one.title, error))
    if not volumes:
        raise errors[0][1]
    if errors:
        told = tuple(f"'{title}' was left out: {error}" for title, error in errors)
        first = volumes[0]
        volumes[0] = replace(first, origin=replace(first.origin, warnings=(*first.origin.warnings, *told)))
    return tuple(volumes)


def load_labels(path: str | Path, *, series: str | int | None = None) -> Labels:
    """Open a label map; floats that are all whole numbers are taken, others refused.

    Parameters
    ----------
    path, series
        As in `load`; of a DICOM folder with one segmentation, that one.

    Raises
    ------
    UnsupportedImage
        If the values are not whole numbers.
    """
    volume = _one(path, series, labels=True).open()
    return dressed(as_labels(volume), Path(path))


def as_labels(volume: Volume) -> Labels:
    """Return a volume of whole numbers as labels.

    Raises
    ------
    UnsupportedImage
        If the values are not whole numbers.
    """
    if isinstance(volume, Labels):
        return volume
    data = volume.data
    if data.dtype.kind == "f":
        whole = data.astype(np.int64 if _fits(data) else np.float64)
        if whole.dtype.kind == "f" or not np.array_equal(whole, data):
            raise UnsupportedImage(
                f"'{volume.title}' is not a label map: it holds fractions or numbers that are not finite.",
                hint="Open it as a scan, or make labels of it with a threshold.",
            )
        low, high = int(whole.min()), int(whole.max())
        kind = np.int32 if low >= -(2**31) and high < 2**31 else np.int64
        data = whole.astype(kind)
    return Labels(data, volume.grid, volume.history, volume.frames, volume.origin)


def _fits(data: np.ndarray[Any, Any]) -> bool:
    low, high = float(data.min()), float(data.max())
    return bool(np.isfinite([low, high]).all() and max(abs(low), abs(high)) < 2**53)


def survey(path: str | Path) -> tuple[Found, ...]:
    """Tell what can be opened at a path, without reading voxels where the format allows it.

    Raises
    ------
    FileProblem
        If there is nothing there that can be opened.
    """
    place = Path(path).expanduser()
    try:
        if not place.exists():
            raise FileProblem(f"There is no file or folder {place}.", hint="Check the path for typing errors.")
        if place.is_dir():
            return _in_folder(place)
        return _in_file(place)
    except PermissionError as error:
        raise FileProblem(
            f"You have no permission to read {error.filename or place}.",
            hint="Ask its owner, or copy it to a folder of your own.",
        ) from error
    except OSError as error:
        raise FileProblem(f"Cannot read {place}: {error.strerror or error}.") from error


def _in_file(path: Path) -> tuple[Found, ...]:
    head = head_of(path)
    fmt = _format_of(path, head)
    if fmt is None:
        raise _unknown(path, head)
    if fmt.survey is not None:
        return tuple(replace(one, open=_guarded(one.open, path)) for one in fmt.survey(path))
    volumes = tuple(_with_history(volume, path) for volume in _read(fmt, path))
    return tuple(Found(volume.title, lambda v=volume: v, shape=volume.data.shape) for volume in volumes)  # type: ignore[misc]


def _in_folder(path: Path) -> tuple[Found, ...]:
    for fmt in all_formats():
        if fmt.folders and fmt.mine(path, b""):
            if fmt.survey is not None:
                return tuple(replace(one, open=_guarded(one.open, path)) for one in fmt.survey(path))
            volumes = _read(fmt, path)
            return tuple(Found(volume.title, lambda v=volume: v) for volume in volumes)  # type: ignore[misc]
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    found: list[Found] = []
    for file in files:
        fmt_of_file = _format_of(file, head_of(file))
        if fmt_of_file is not None:
            found.append(Found(file.name, lambda f=file, m=fmt_of_file: _only(m, f)))  # type: ignore[misc]
    if not found:
        raise NotAnImage(
            f"The folder {path} holds no images.",
            hint="Give a folder of DICOM files, or a single image file.",
        )
    return tuple(found)


def _only(fmt: Format, path: Path) -> Volume:
    return _with_history(_read(fmt, path)[0], path)


def _format_of(path: Path, head: bytes) -> Format | None:
    return next((fmt for fmt in all_formats() if fmt.mine(path, head)), None)


def _read(fmt: Format, path: Path) -> tuple[Volume, ...]:
    return _guarded(lambda: fmt.read(path), path)()


def _guarded(read: Callable[[], Got], path: Path) -> Callable[[], Got]:
    """Return `read` with the errors of the disk turned into sentences."""

    def guarded() -> Got:
        try:
            return read()
        except PermissionError as error:
            raise FileProblem(
                f"You have no permission to read {error.filename or path}.",
                hint="Ask its owner, or copy it to a folder of your own.",
            ) from error
        except OSError as error:
            raise FileProblem(f"Cannot read {path}: {error.strerror or error}.") from error

    return guarded


def _unknown(path: Path, head: bytes) -> FileProblem:
    if path.stat().st_size == 0:
        return BrokenFile(f"{path} is empty.", hint="Copy or download the file again.")
    named = next((fmt for fmt in all_formats() if ending_of(path, fmt)), None)
    if named is not None:
        what = "its packing is broken" if not head else "its content is something else"
        return BrokenFile(
            f"{path} is named like {named.title}, but {what}.",
            hint="Copy or download the file again.",
        )
    known = ", ".join(fmt.title for fmt in all_formats())
    return NotAnImage(f"{path} is not an image of a known format.", hint=f"These open: {known}.")


def _with_history(volume: Volume, path: Path) -> Volume:
    ending = next((e for fmt in all_formats() if (e := ending_of(path, fmt))), "")
    sidecar = read_sidecar(path, ending) if ending else None
    if sidecar is None:
        return volume
    if sidecar.stale:
        told = (*volume.origin.warnings, _STALE)
        return replace(volume, origin=replace(volume.origin, warnings=told))
    history = sidecar.history or volume.history
    if isinstance(volume, Labels) or not sidecar.names or volume.data.dtype.kind not in "iu":
        return replace(volume, history=history)
    return Labels(volume.data, volume.grid, history, volume.frames, volume.origin, sidecar.names, sidecar.colors)


def _main(found: tuple[Found, ...]) -> tuple[Found, ...]:
    """Leave out what belongs to another one: segmentations, and pieces of a volume that has a problem."""
    scans = tuple(one for one in found if not one.part and not one.labels)
    return scans or tuple(one for one in found if not one.part)


def _handle(one: Found, among: tuple[Found, ...]) -> str:
    alone = one.number is not None and [other.number for other in among].count(one.number) == 1
    return str(one.number) if alone else one.title


def _chosen(found: tuple[Found, ...], series: str | int, where: str) -> tuple[Found, ...]:
    """Return those that a number or a piece of a name chooses: an exact match before a partial one."""
    text = str(series).strip().casefold()
    tests = (
        lambda one: one.title.casefold() == text,
        lambda one: one.number is not None and str(one.number) == text,
        lambda one: text in one.title.casefold(),
    )
    for test in tests:
        fits = tuple(one for one in found if test(one))
        if fits:
            return fits if len(fits) == 1 else _main(fits) or fits
    names = tuple(one.title for one in found)
    raise SeveralSeries(
        f"No series of {where} is called '{series}'. There are: {'; '.join(names)}.",
        hint="Give a series number, or a part of a name.",
        names=names,
    )


def ending_of(path: Path, fmt: Format) -> str:
    """Return the ending of `path` that belongs to a format, as written, or an empty string."""
    name = path.name
    for ending in fmt.endings:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[len(name) - len(ending) :]
    return ""


def save(volume: Volume, path: str | Path, *, sidecar: bool = True) -> Path:
    """Save a volume or labels in the format that the ending of the name tells.

    The file is written whole or not at all. Beside it goes a `.json` with the history (never a
    name, a path or patient data), unless `sidecar` is off; one that belongs to somebody else is
    left alone (see `napari_mri.io.history.places`).

    Parameters
    ----------
    volume : Volume or Labels
    path : str or Path
        E.g. ``"mask.nii.gz"``.
    sidecar : bool

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileProblem
        If the ending is unknown, the format cannot hold it, or the disk says no.
    BadOption
        If it is no volume.
    """
    if isinstance(path, Volume):
        raise FileProblem("save takes the volume first, then the path.", hint="Write mri.save(volume, path).")
    check_volume(volume, "save")
    place = Path(path).expanduser()
    fmt, ending = writer_of(place)
    _can_hold(fmt, volume, place)
    assert fmt.write is not None
    with atomic_path(place) as part:
        fmt.write(volume, part)
    if fmt.name == "nifti":
        _save_gradients(volume, place, ending)
    if sidecar:
        write_sidecar(volume, place, ending)
    return place


def writer_of(path: Path) -> tuple[Format, str]:
    """Return the format that writes a name, and the ending that chose it.

    Raises
    ------
    FileProblem
        If no format has that ending, or the name is that of a folder.
    """
    if path.is_dir():
        raise FileProblem(f"{path} is a folder.", hint="Give the result another name.")
    writers = [fmt for fmt in all_formats() if fmt.write is not None]
    for fmt in writers:
        ending = ending_of(path, fmt)
        if ending:
            return fmt, ending
    endings = ", ".join(ending for fmt in writers for ending in fmt.endings)
    raise FileProblem(f"Cannot tell the format of '{path.name}' by its ending.", hint=f"Use one of {endings}.")


def _can_hold(fmt: Format, volume: Volume, path: Path) -> None:
    if isinstance(volume, Labels):
        if "labels" not in fmt.holds:
            raise UnsupportedImage(f"{fmt.title} cannot hold labels ({path.name}).", hint="Save as .nii.gz.")
    elif "volume" not in fmt.holds:
        raise UnsupportedImage(
            f"{path.name} would hold labels, and this is not read as labels.",
            hint="Is it a mask? Then take it as labels (--labels, load_labels). Else save as .nii.gz.",
        )
    layered = volume.frames is not None and volume.frames.kind == "segment"
    if volume.data.ndim == 4 and layered and not fmt.holds & {"overlap", "4d"}:
        raise UnsupportedImage(
            f"{fmt.title} holds one label a voxel, and these segments overlap.", hint="Save as .seg.nrrd or .seg.dcm."
        )
    if volume.data.ndim == 4 and not layered and "4d" not in fmt.holds:
        raise UnsupportedImage(f"{fmt.title} holds one volume, not {volume.n_frames} frames.", hint="Save as .nii.gz.")


_WITH_TABLES = (".nii", ".nii.gz", ".hdr", ".img")
"""Scans that b-values are read with from files beside them."""


def _save_gradients(volume: Volume, path: Path, ending: str) -> None:
    """Write FSL's text files beside a diffusion scan.

    Those that lie beside a series without b-values (or without directions) would be read with it: they are moved aside,
    unless a scan of another format is there that they may belong to.
    """
    stem, frames = path.name[: len(path.name) - len(ending)], volume.frames
    diffusion = frames is not None and frames.kind == "diffusion"
    bvals = frames.bvals if frames is not None and diffusion else ()
    bvecs = frames.bvecs if frames is not None and bvals else ()
    alone = not any(other.is_file() for other in map(path.with_name, (stem + e for e in _WITH_TABLES if e != ending.lower())))
    for suffix, ours in ((".bval", bvals), (".bvec", bvecs)):
        other = path.with_name(stem + suffix)
        if not ours and volume.data.ndim == 4 and alone and other.is_file():
            other.replace(path.with_name(f"{stem}{suffix}.old"))
    if bvals:
        with atomic_path(path.with_name(stem + ".bval")) as part:
            part.write_text(" ".join(f"{b:g}" for b in bvals) + "\n")
    if bvecs:
        rows = (" ".join(f"{vec[axis]:.8g}" for vec in bvecs) for axis in range(3))
        with atomic_path(path.with_name(stem + ".bvec")) as part:
            part.write_text("\n".join(rows) + "\n")
