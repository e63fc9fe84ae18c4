"""Finds the series in a DICOM file or folder and opens each as a volume."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from napari_mri.core.errors import BrokenFile, FileProblem, GeometryProblem, MriError, NotAnImage, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.history import Step
from napari_mri.core.volume import Origin, Volume
from napari_mri.io.dicom_bytes import looks_like_dicom, walk_file
from napari_mri.io.dicom_companions import Companion, Series, companion, made_on
from napari_mri.io.dicom_companions import listed as listed_companions
from napari_mri.io.dicom_frames import frames_of
from napari_mri.io.dicom_header import SEQUENCES, WANTED, File, Frame, file_record
from napari_mri.io.dicom_layout import Layout
from napari_mri.io.dicom_people import groups, who
from napari_mri.io.dicom_pixels import read_stack, why_not
from napari_mri.io.dicom_resample import resampled
from napari_mri.io.dicom_series import Stack, stacks_of
from napari_mri.io.formats import Format, Found
from napari_mri.io.philips import fields_of

_NOT_IMAGES = ("1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.88", "1.2.840.10008.5.1.4.1.1.481",
               "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.104")  # fmt: skip
_HINT_PARTS = (
    "Copy the missing files. Its regular parts open by themselves: choose one by name, or open all. "
    "Or ask for equal steps: --resample, or load(path, resample=True)."
)


def mine(path: Path, head: bytes) -> bool:
    """Tell whether a file is DICOM, or a folder holds at least one DICOM file."""
    if not path.is_dir():
        return looks_like_dicom(head)
    for file in _files_below(path):
        try:
            with open(file, "rb") as handle:
                if looks_like_dicom(handle.read(132)):
                    return True
        except OSError:
            continue
    return False


def _files_below(folder: Path) -> Iterator[str]:
    """Yield every file below a folder; links to folders are not followed, so it ends."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(where, name)


def survey(path: Path) -> tuple[Found, ...]:
    """List the volumes of a DICOM file's series, or of every series in a folder, without their pixels.

    Parameters
    ----------
    path : Path
        A folder, read with all folders below; or one file, which stands for its whole series in its
        folder and for the segmentations there that name it; or a DICOMDIR, which stands for its folder.

    Raises
    ------
    NotAnImage, UnsupportedImage, BrokenFile
        If there is not one image.
    """
    wanted_series = ""
    known: dict[str, File] = {}
    folder = path
    if not path.is_dir():
        folder = path.parent
        if path.name.upper() != "DICOMDIR":
            alone = _record(path)
            if alone is None:
                raise NotAnImage(f"{path} is not a DICOM file.")
            wanted_series, known = alone.series, {str(path): alone}
            reason = _not_an_image(alone)
            if reason:
                raise UnsupportedImage(f"{path.name} is a DICOM file, but not an image. {reason}",
                                       hint="Give a file or folder of the scan itself.")  # fmt: skip
    if path.is_dir() or path.name.upper() == "DICOMDIR":
        names = list(_files_below(folder))
    else:
        names = sorted(str(p) for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        if not wanted_series:
            names = [str(path)]
    frames, troubles, others, companions = _gather(names, wanted_series, known)
    if not frames and not companions:
        raise _nothing(path, troubles, others)
    series = _listed(stacks_of(frames), path, troubles) if frames else []
    return (*(one for _, _, one in series), *listed_companions(companions, series))


def _record(path: Path | str, layout: Layout | None = None) -> File | None:
    elements = walk_file(path, WANTED, SEQUENCES, layout)
    return None if elements is None else file_record(str(path), elements)


def _not_an_image(file: File) -> str:
    if file.sop_class.startswith(_NOT_IMAGES):
        return "It is a segmentation, report, presentation state or plan."
    if not file.elements.pixels_tag or not file.rows or not file.columns:
        return "It has no pixel data."
    return ""


def _gather(
    names: list[str], series: str, known: dict[str, File]
) -> tuple[list[Frame], list[str], list[str], list[Companion]]:
    """Read the headers; return slices, sentences about broken files, why others are no images, and segmentations."""
    frames: list[Frame] = []
    companions: list[Companion] = []
    troubles: list[str] = []
    others: list[str] = []
    layout = Layout()
    for name in names:
        try:
            file = known.get(name) or _record(name, layout)
            if file is None:
                continue
            if series and file.series != series:
                beside = companion(file)
                if beside is not None and made_on(beside, series):
                    companions.append(beside)
                continue
            reason = _not_an_image(file)
            if reason:
                others.append(reason)
                belongs = companion(file)
                if belongs is not None:
                    companions.append(belongs)
                continue
            frames += frames_of(file)
        except MriError as error:
            troubles.append(error.what)
        except PermissionError:
            troubles.append(f"You have no permission to read {os.path.basename(name)}.")
    return frames, troubles, others, companions


def _nothing(path: Path, troubles: list[str], others: list[str]) -> FileProblem:
    if troubles:
        return BrokenFile(troubles[0], hint="Copy or export the series again.")
    if others:
        return UnsupportedImage(f"{path} holds DICOM files but no images. {others[0]}",
                                hint="Give a file or folder of the scan itself.")  # fmt: skip
    return NotAnImage(f"{path} holds no images.", hint="Give a folder of DICOM files, or a single image file.")


def _listed(stacks: list[Stack], path: Path, troubles: list[str]) -> list[Series]:
    """Return each stack as something to open, with the UIDs of its study and series."""

    def order(stack: Stack) -> tuple[str, int, str]:
        file = stack.volumes[0][0].file
        return file.study, file.number if file.number is not None else 1 << 30, file.series

    grey = [stack for stack in stacks if not why_not(stack.volumes[0][0].file)]
    left_out = len(stacks) - len(grey)
    stacks = sorted(grey or stacks, key=order)
    belongs = groups([stack.volumes[0][0].file for stack in stacks])
    found: list[Series] = []
    seen: Counter[str] = Counter()
    for stack in stacks:
        file = stack.volumes[0][0].file
        group = belongs[file.study]
        title = ": ".join((*(", ".join(group),) * bool(group), _title(stack)))
        seen[title] += 1
        if seen[title] > 1:
            title = f"{title} ({seen[title]})"
        if grey and left_out:
            stack.warnings.append(f"{left_out} sets of images that are not grey values (screenshots) were left out.")
        if troubles:
            stack.warnings.append(f"{len(troubles)} files could not be read: {troubles[0]}")
        found.append((file.study, file.series, _found(stack, title, path, group)))
    return found


def _found(stack: Stack, title: str, path: Path, group: tuple[str, ...]) -> Found:
    file = stack.volumes[0][0].file
    unequal = bool(stack.problem) and len(stack.volumes[0]) > 1 and not why_not(file)
    return Found(
        title, lambda: _open(stack, title, path), file.number, stack.shape, stack.problem or why_not(file), stack.part,
        grid=None if stack.problem else _grid(stack),
        resampled=(lambda: _resampled(stack, title, path)) if unequal else None,
        group=group, who=who(file),
    )  # fmt: skip


def _grid(stack: Stack) -> Grid | None:
    first = stack.volumes[0][0]
    try:
        return Grid((first.columns, first.rows, len(stack.volumes[0])), stack.affine)
    except GeometryProblem:
        return None  # opening it tells why


def _title(stack: Stack) -> str:
    """Return number, description and size: what a person knows a series by. No patient data."""
    file = stack.volumes[0][0].file
    words = [str(file.number)] if file.number is not None else []
    words += [file.title or file.modality, stack.label, "×".join(str(n) for n in stack.shape)]
    return " ".join(word for word in words if word)


def _open(stack: Stack, title: str, path: Path) -> Volume:
    if stack.problem:
        raise GeometryProblem(f"'{title}' does not make one volume. {stack.problem}", hint=_HINT_PARTS)
    first = stack.volumes[0][0]
    grid = Grid((first.columns, first.rows, len(stack.volumes[0])), stack.affine)
    return Volume(read_stack(stack), grid, (), stack.frames, _origin(stack, title, path))


def _resampled(stack: Stack, title: str, path: Path) -> Volume:
    """Open a stack of unequal steps on equal ones."""
    data, affine, told = resampled(stack)
    origin = _origin(stack, title, path)
    # What a table tells slice by slice is no longer true, and no file stands behind a made-up slice.
    fields = {key: value for key, value in origin.fields.items() if not key.startswith("precise")}
    origin = replace(origin, path="", fields=fields, warnings=(*origin.warnings, told))
    i, j, k = (int(n) for n in data.shape[:3])
    volume = Volume(data, Grid((i, j, k), affine), (), stack.frames, origin)
    return volume.after(Step("resampled to equal slice steps", facts={"slices before": len(stack.volumes[0])}))


def _origin(stack: Stack, title: str, path: Path) -> Origin:
    first = stack.volumes[0][0]
    told = list(dict.fromkeys(stack.warnings))
    if first.kind != "magnitude":
        told.append(f"This is the {first.kind} part of a complex image, not its magnitude.")
    if first.file.colour == "MONOCHROME1":
        told.append("The scan is meant to be shown inverted (MONOCHROME1); its values were kept.")
    fields: dict[str, object] = {
        "series_number": first.file.number,
        "modality": first.file.modality,
        "part": first.kind,
        "image_type": first.types,
    }
    return Origin(title, "dicom", str(path), {**fields, **fields_of(stack.volumes)}, tuple(told))


def read(path: Path) -> tuple[Volume, ...]:
    """Read every volume of a DICOM file's series or of a folder (see `survey`)."""
    return tuple(found.open() for found in survey(path) if not found.problem)


FORMATS = (Format("dicom", "DICOM", (".dcm", ".ima"), mine, read, folders=True, survey=survey),)
