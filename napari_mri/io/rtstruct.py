"""Reads and writes DICOM RTSTRUCT: contours on the slices of a scan."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, GridMismatch, MissingExtra, MriError, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Origin, Volume
from napari_mri.io.colors import bytes_of, some_color
from napari_mri.io.dicom_bytes import CHARSET, Elements, inside, walk_file
from napari_mri.io.dicom_header import numbers, text, whole, words
from napari_mri.io.formats import Format
from napari_mri.io.layered import SEGMENTS, Box, segments_of, stacked
from napari_mri.io.lps import turned_points
from napari_mri.io.seg_dicom import sop_class
from napari_mri.io.seg_write import UNICODE, name_of, place_of, source_images, stripped

ENDINGS = (".rtstruct.dcm", ".rtss.dcm")
_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_ROIS, _CONTOURS, _FRAMES = 0x30060020, 0x30060039, 0x30060010
_TOP = frozenset((CHARSET, 0x00080016, 0x0008103E, 0x00200011, 0x30060002, _ROIS, _CONTOURS, _FRAMES))
_ROI = frozenset((CHARSET, 0x30060022, 0x30060026, 0x30060084, 0x3006002A, 0x30060040))
_CONTOUR = frozenset((0x30060042, 0x30060050))
_REFERENCED = frozenset((0x30060012, 0x30060014, 0x0020000E))
_MOST_POINTS = 20_000_000
_OFF = 0.3  # of a voxel: how far a contour may stand off its slice
_AGAIN = "Export it again."


@dataclass(frozen=True)
class Outline:
    """One region: its number, name, colour and its contours, each (N, 3) patient RAS+ mm."""

    number: int
    name: str
    color: tuple[float, float, float] | None
    contours: tuple[NDArray[np.float64], ...]


def mine(path: Path, head: bytes) -> bool:
    """Tell by the SOP class."""
    return sop_class(head) == _CLASS


def outlines(path: Path) -> tuple[str, tuple[str, ...], tuple[Outline, ...]]:
    """Read an RTSTRUCT as it is.

    Returns
    -------
    title : str
    series : tuple of str
        UIDs of the image series that it was drawn on.
    regions : tuple of Outline
        Those with closed contours.

    Raises
    ------
    BrokenFile
    """
    top = walk_file(path, _TOP)
    if top is None or _CONTOURS not in top.values:
        raise BrokenFile(f"{path.name} is an RTSTRUCT without contours.", hint=_AGAIN)
    named = {whole(one, 0x30060022): words(one, 0x30060026) for one in inside(top, _ROIS, _ROI)}
    regions = []
    total = 0
    for one in inside(top, _CONTOURS, _ROI):
        number = whole(one, 0x30060084)
        shapes = []
        for contour in inside(one, 0x30060040, _CONTOUR):
            if text(contour, 0x30060042).upper() not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", ""):
                continue
            flat = np.asarray(numbers(contour, 0x30060050))
            total += flat.size
            if flat.size < 9 or flat.size % 3 or not np.isfinite(flat).all() or total > 3 * _MOST_POINTS:
                if flat.size in (3, 6):
                    continue  # a single point or a line encloses nothing
                raise BrokenFile(
                    f"A contour of '{named.get(number, number)}' in {path.name} is damaged.", hint=_AGAIN
                )
            shapes.append(turned_points(flat.reshape(-1, 3)))
        told = numbers(one, 0x3006002A)
        color = tuple(min(1.0, max(0.0, part / 255)) for part in told) if len(told) == 3 else None
        regions.append(Outline(number, named.get(number) or f"Region {number}", color, tuple(shapes)))  # type: ignore[arg-type]
    title = (
        f"{text(top, 0x00200011)} {words(top, 0x0008103E) or words(top, 0x30060002) or 'contours'}".strip()
    )
    return title, tuple(_series(top)), tuple(regions)


def _series(top: Elements) -> Iterator[str]:
    for frame in inside(top, _FRAMES, _REFERENCED):
        for study in inside(frame, 0x30060012, _REFERENCED):
            for series in inside(study, 0x30060014, _REFERENCED):
                yield text(series, 0x0020000E)


def read(path: Path) -> tuple[Volume, ...]:
    """Read an RTSTRUCT as labels on the scan it was drawn on, which must lie in the same folder.

    Raises
    ------
    UnsupportedImage
        If that scan is not there: contours alone have no voxels.
    """
    _, series, _ = outlines(path)
    scan = _scan_of(path, set(series))
    if scan is None:
        raise UnsupportedImage(
            f"{path.name} holds contours, which need the scan that they were drawn on.",
            hint="Put the scan's DICOM files into the same folder (or a folder below it).",
        )
    return (read_onto(path, scan),)


def _scan_of(path: Path, series: set[str]) -> Volume | None:
    from napari_mri.io.dicom import survey

    seen: set[str] = set()
    for where, _, names in os.walk(path.parent):
        for name in sorted(names)[:20_000]:
            place = Path(where) / name
            try:
                head = walk_file(place, frozenset((0x0020000E, 0x00080016)))
                uid = text(head, 0x0020000E) if head is not None and head.pixels_tag else ""
                if uid in seen or uid not in series:
                    continue
                seen.add(uid)
                found = [one for one in survey(place) if not one.problem]
            except (MriError, OSError):
                continue
            if found:
                return found[0].open()
    return None


def read_onto(path: Path, scan: Volume) -> Labels:
    """Read an RTSTRUCT as labels on the grid of a scan.

    A voxel belongs to a region where its centre lies inside an odd number of the region's contours.

    Parameters
    ----------
    path : Path
    scan : Volume

    Returns
    -------
    Labels
        In layers where regions overlap (see `layered`).

    Raises
    ------
    GridMismatch
        If a contour lies between the scan's slices, or outside of it.
    BrokenFile, MissingExtra
    """
    return read_on(path, scan.grid)


def read_on(path: Path, grid: Grid) -> Labels:
    """Read an RTSTRUCT as labels on a grid (see `read_onto`)."""
    title, _, regions = outlines(path)
    numbers_ = [one.number for one in regions]
    anew = len(set(numbers_)) < len(numbers_) or min(numbers_, default=1) < 1
    told: list[str] = []
    masks: list[tuple[int, Box, NDArray[np.bool_]]] = []
    names, colors = {}, {}
    whole_box: Box = (slice(None), slice(None), slice(None))
    for n, one in enumerate(regions, 1):
        value = n if anew else one.number
        names[value] = one.name
        if one.color is not None:
            colors[value] = one.color
        if not one.contours:
            told.append(f"Region '{one.name}' has no closed contour and is empty.")
            continue
        masks.append((value, whole_box, filled(one, grid, path.name)))
    data = stacked(grid.shape, masks)
    origin = Origin(title, "rtstruct", str(path), {}, tuple(told))
    frames = SEGMENTS if data.ndim == 4 else None
    return Labels(data, grid, (), frames, origin, names, colors)


def filled(outline: Outline, grid: Grid, name: str) -> NDArray[np.bool_]:
    """Return the voxels whose centres the contours of one region enclose, (I, J, K)."""
    try:
        from skimage.draw import polygon
    except ImportError as error:
        raise MissingExtra("Contours need scikit-image.", hint="pip install scikit-image") from error
    mask = np.zeros(grid.shape, np.bool_)
    for contour in outline.contours:
        voxels = grid.to_voxels(contour)
        spread = np.ptp(voxels, axis=0)
        axis = int(np.argmin(spread))
        level = float(voxels[:, axis].mean())
        plane = round(level)
        if spread[axis] > 2 * _OFF or abs(level - plane) > _OFF:
            raise GridMismatch(
                f"A contour of '{outline.name}' in {name} does not lie on a slice of the scan.",
                hint="The contours may belong to another series: give the one that they were drawn on.",
            )
        if not 0 <= plane < grid.shape[axis]:
            raise GridMismatch(
                f"A contour of '{outline.name}' in {name} lies outside the scan.", hint="Give its own scan."
            )
        across = [n for n in range(3) if n != axis]
        sides = grid.shape[across[0]], grid.shape[across[1]]
        rows, columns = polygon(voxels[:, across[0]], voxels[:, across[1]], sides)
        page = np.moveaxis(mask, axis, 0)[plane]
        page[rows, columns] ^= True  # a contour inside another one is a hole
    return mask


def write(volume: Volume, path: Path) -> None:
    """Write labels as RTSTRUCT, without the patient's name, number or dates (see `write_rtstruct`)."""
    if not isinstance(volume, Labels):
        raise UnsupportedImage(
            "RTSTRUCT holds labels, not grey values.", hint="Is it a mask? Then take it as labels. Else save as .nii.gz."
        )
    write_rtstruct(volume, path)


def write_rtstruct(labels: Labels, path: Path, source: Path | None = None) -> None:
    """Write the outlines of labels, half-way between the voxels inside and outside.

    Holes are contours inside contours. The scan's series is referred to where its files are found.

    Parameters
    ----------
    labels : Labels
    path : Path
    source : Path, optional
        File or folder of the scan; default: where the labels' scan was read from.

    Raises
    ------
    UnsupportedImage
        If there is nothing in the labels, or they change over time.
    MissingExtra
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    place = source or place_of(labels)
    images = [
        stripped(image)
        for image in source_images(labels.grid, place, labels.origin.fields.get("series_number"))
    ]
    axis = _slice_axis(labels.grid, images)
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = _CLASS, generate_uid()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName", "OperatorsName", "PositionReferenceIndicator"):  # fmt: skip
        setattr(ds, keyword, "")
    ds.SpecificCharacterSet = UNICODE
    ds.StudyInstanceUID = images[0].StudyInstanceUID if images else generate_uid()
    ds.FrameOfReferenceUID = images[0].FrameOfReferenceUID if images else generate_uid()
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.Modality = generate_uid(), 1001, "RTSTRUCT"
    ds.Manufacturer, ds.ManufacturerModelName = "napari-mri-workbench", "napari_mri"
    ds.SeriesDescription, ds.StructureSetLabel = "Contours", "Contours"
    now = datetime.datetime.now()
    ds.StructureSetDate, ds.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds.InstanceNumber = 1
    if images:
        ds.ReferencedFrameOfReferenceSequence = [_frame_of_reference(images)]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for value, mask in segments_of(labels):
        _add_region(ds, value, labels, _contours(mask, labels.grid, axis))
    if not ds.ROIContourSequence:
        raise UnsupportedImage("There is no label to write.")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


def _slice_axis(grid: Grid, images: list[Any]) -> int:
    """Return the array axis that the images are stacked along, else the one of the thickest step."""
    turn = images[0].get("ImageOrientationPatient") if images else None
    if turn is not None and len(turn) == 6:
        normal = turned_points(np.cross([float(v) for v in turn[:3]], [float(v) for v in turn[3:]]))
        return int(np.argmax(np.abs(grid.directions.T @ normal)))
    steps = np.asarray(grid.spacing)
    return 2 if steps[2] >= steps.max() * 0.99 else int(np.argmax(steps))


def _contours(mask: NDArray[np.bool_], grid: Grid, axis: int) -> Iterator[NDArray[np.float64]]:
    """Yield the closed outlines of a mask, slice by slice, (N, 3) patient RAS+ mm."""
    try:
        from skimage.measure import find_contours
    except ImportError as error:
        raise MissingExtra("Contours need scikit-image.", hint="pip install scikit-image") from error
    across = [n for n in range(3) if n != axis]
    pages = np.moveaxis(mask, axis, 0)
    for plane in np.flatnonzero(pages.any(axis=(1, 2))):
        for line in find_contours(np.pad(pages[plane].astype(np.float32), 1), 0.5):
            voxels = np.empty((len(line) - 1, 3))  # the last point is the first again
            voxels[:, axis] = plane
            voxels[:, across] = line[:-1] - 1
            yield grid.to_patient(voxels)


def _add_region(ds: Any, value: int, labels: Labels, contours: Iterator[NDArray[np.float64]]) -> None:
    from pydicom import Dataset

    roi, shown, seen = Dataset(), Dataset(), Dataset()
    roi.ROINumber = shown.ReferencedROINumber = seen.ReferencedROINumber = seen.ObservationNumber = int(value)
    roi.ReferencedFrameOfReferenceUID = ds.FrameOfReferenceUID
    roi.ROIName = name_of(value, labels)
    by_model = any(step.order is not None for step in labels.history)
    roi.ROIGenerationAlgorithm = "SEMIAUTOMATIC" if by_model else "MANUAL"
    shown.ROIDisplayColor = list(bytes_of(labels.colors.get(value) or some_color(value)))
    shown.ContourSequence = []
    for points in contours:
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(points)
        contour.ContourData = [f"{number:.5f}" for number in turned_points(points).ravel()]
        shown.ContourSequence.append(contour)
    seen.RTROIInterpretedType, seen.ROIInterpreter = "", ""
    ds.StructureSetROISequence.append(roi)
    ds.ROIContourSequence.append(shown)
    ds.RTROIObservationsSequence.append(seen)


def _frame_of_reference(images: list[Any]) -> Any:
    from pydicom import Dataset

    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = (
        "1.2.840.10008.3.1.2.3.1",
        images[0].StudyInstanceUID,
    )
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = []
    for image in images:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ContourImageSequence.append(one)
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    return frame


FORMATS = (
    Format(
        "rtstruct",
        "DICOM RTSTRUCT",
        ENDINGS,
        mine,
        read,
        write,
        holds=frozenset({"labels", "names", "overlap"}),
    ),
)
