"""Writes labels as DICOM SEG through highdicom, pointing at the series they were drawn on."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GeometryProblem, MissingExtra, MriError, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.colors import lab_of_rgb
from napari_mri.io.dicom_bytes import walk_file
from napari_mri.io.dicom_header import numbers, short, text, whole
from napari_mri.io.layered import check_still, is_layered, segments_of
from napari_mri.io.lps import turned_affine, turned_points
from napari_mri.io.unquoted import unquoted

ENDINGS = (".seg.dcm", ".dcm")
VALUE = "label value {}"
ROOM = 64
"""Characters of a name that DICOM takes."""
UNICODE = "ISO_IR 192"
_WANTED = frozenset(
    (0x0020000E, 0x00200011, 0x00200032, 0x00200037, 0x00280008, 0x00280010, 0x00280011, 0x00080016)
)
_MOST_FILES = 20_000
_NOT_SOURCES = ("1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.481", "1.2.840.10008.5.1.4.1.1.88")
_PERSON = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName",
    "StudyDate", "StudyTime", "StudyID",
)  # fmt: skip
_KEPT = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "SeriesNumber", "InstanceNumber", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "NumberOfFrames", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence", "DimensionOrganizationSequence",
)  # fmt: skip


def write(volume: Volume, path: Path) -> None:
    """Write labels as a binary DICOM SEG without the patient's name, number or dates.

    Study, series and frame of reference are those of the scan, where its files are still where it
    was read from, so that a viewer lays the segmentation on its images. See `write_seg` for more.
    """
    if not isinstance(volume, Labels):
        raise UnsupportedImage(
            "DICOM SEG holds labels, not grey values.", hint="Is it a mask? Then take it as labels. Else save as .nii.gz."
        )
    write_seg(volume, path)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave Python's search for circles of garbage until a segmentation of thousands of small parts is written."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@unquoted()
@_uncollected()
def write_seg(labels: Labels, path: Path, source: Path | None = None, *, patient: bool = False) -> None:
    """Write labels as a binary DICOM SEG.

    Segments are numbered 1, 2, 3 … as the standard demands; the label value itself goes into the
    segment's description, from where `seg_dicom.read` takes it back.

    Parameters
    ----------
    labels : Labels
        One map, or layers of overlapping segments.
    path : Path
        The file to write.
    source : Path, optional
        File or folder of the scan; default: where the labels' scan was read from.
    patient : bool
        Whether to carry over the patient's name, number and birth date, which a hospital's archive
        needs to file it. Off unless asked for.

    Raises
    ------
    MissingExtra
        Without highdicom.
    UnsupportedImage
        If there is nothing in the labels, or they change over time.
    GeometryProblem
        If the grid is sheared, which DICOM SEG cannot tell.
    """
    try:
        import highdicom as hd
    except ImportError as error:
        raise MissingExtra(
            "DICOM SEG needs highdicom.", hint="pip install napari-mri-workbench[formats]"
        ) from error
    if labels.grid.sheared:
        raise GeometryProblem("DICOM SEG cannot hold a sheared grid (gantry tilt).", hint="Save as .nii.gz.")
    check_still(labels)
    # Empty planes at both ends are not written, so they need not be looked at frame by frame.
    planes = np.flatnonzero(labels.data.any(axis=tuple(n for n in range(labels.data.ndim) if n != 2)))
    if not len(planes):
        raise UnsupportedImage("There is no label to write: DICOM SEG needs one segment at least.")
    found = source_images(labels.grid, source or place_of(labels), labels.origin.fields.get("series_number"))
    images = [stripped(image) for image in found] or [_stand_in(labels.grid)]
    first, last = int(planes[0]), int(planes[-1]) + 1
    labels = replace(
        labels,
        data=labels.data[:, :, first:last],
        grid=labels.grid.cropped((0, 0, first), (*labels.grid.shape[:2], last)),
    )
    values = _present(labels.data)
    stored = _array(labels, values)
    described = [_described(hd, n, value, labels) for n, value in enumerate(values, 1)]
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=_volume(hd, stored, labels.grid, images[0].FrameOfReferenceUID),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=(int(images[0].get("SeriesNumber") or 0) + 1000) % 100_000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="napari-mri-workbench",
        manufacturer_model_name="napari_mri",
        software_versions=_version(),
        device_serial_number="0",
        content_label="SEGMENTATION",
    )
    seg.SeriesDescription = "Segmentation"
    seg.SpecificCharacterSet = UNICODE
    if not found:
        _without_references(seg)
    if patient and found:
        _sign(seg, found[0])
    seg.save_as(path, enforce_file_format=True)


def place_of(labels: Labels) -> Path | None:
    """Return where the scan under some labels was read from, if it was DICOM."""
    if labels.origin.format not in ("dicom", "dicom-seg") or not labels.origin.path:
        return None
    return Path(labels.origin.path)


def source_images(grid: Grid, place: Path | None, series_number: Any = None) -> list[Any]:
    """Find the images a grid was read from, as headers without pixels, one a plane.

    Parameters
    ----------
    grid : Grid
    place : Path or None
        A file (its folder is searched) or a folder, searched with those below it.
    series_number : int, optional
        Chooses among several series on the same grid.

    Returns
    -------
    list of pydicom datasets
        Of one series, sorted along the slices; empty if none fits.
    """
    if place is None or not place.exists():
        return []
    from pydicom import dcmread

    series: dict[str, dict[Any, str]] = defaultdict(dict)
    numbered: dict[str, int] = {}
    for name in _files(place):
        try:
            head = walk_file(name, _WANTED)
        except (MriError, OSError):
            continue
        if head is None or not head.pixels_tag or text(head, 0x00080016).startswith(_NOT_SOURCES):
            continue
        uid = text(head, 0x0020000E)
        number = whole(head, 0x00200011)
        plane: Any = None
        if whole(head, 0x00280008, 1) > 1:
            plane = "all" if series_number is not None and number == series_number else None
        else:
            sides = short(head, 0x00280011, 0), short(head, 0x00280010, 0)
            plane = _plane(grid, numbers(head, 0x00200032), numbers(head, 0x00200037), sides)
        if plane is not None:
            series[uid].setdefault(plane, name)
            numbered[uid] = number
    if not series:
        return []
    best = max(series, key=lambda uid: (numbered[uid] == series_number, len(series[uid])))
    chosen = [name for _, name in sorted(series[best].items(), key=lambda item: str(item[0]).zfill(8))]
    return [dcmread(name, stop_before_pixels=True) for name in chosen]


def _files(place: Path) -> list[str]:
    if not place.is_dir():
        return [str(p) for p in sorted(place.parent.iterdir()) if p.is_file()][:_MOST_FILES]
    found: list[str] = []
    for where, _, names in os.walk(place):
        found += [os.path.join(where, name) for name in sorted(names)]
        if len(found) > _MOST_FILES:
            break
    return found[:_MOST_FILES]


def _plane(
    grid: Grid, position: tuple[float, ...], turn: tuple[float, ...], sides: tuple[int, int]
) -> int | None:
    """Return which plane of the grid an image is, or None if it is none of them."""
    if len(position) != 3 or len(turn) != 6:
        return None
    normal = turned_points(np.cross(turn[:3], turn[3:]))
    axis = int(np.argmax(np.abs(grid.directions.T @ normal)))
    if sorted(sides) != sorted(n for at, n in enumerate(grid.shape) if at != axis):
        return None
    corner = grid.to_voxels(turned_points(position))
    plane = round(float(corner[axis]))
    ends = [at in (0, grid.shape[n] - 1) for n, at in enumerate(np.round(corner).astype(int)) if n != axis]
    near = float(np.abs(corner - np.round(corner)).max()) < 0.1
    return plane if near and all(ends) and 0 <= plane < grid.shape[axis] else None


def stripped(image: Any) -> Any:
    """Return a header with what places an image and nothing about the person."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    stripped = Dataset()
    for keyword in _KEPT:
        if keyword in image:
            stripped[keyword] = image[keyword]
    for keyword in _PERSON:
        setattr(stripped, keyword, "")
    if not stripped.get("FrameOfReferenceUID"):
        stripped.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(stripped.SeriesInstanceUID)])
    return stripped


def _sign(seg: Any, image: Any) -> None:
    """Carry over whose scan it is."""
    for keyword in _PERSON:
        if image.get(keyword):
            setattr(seg, keyword, image.get(keyword))


def _stand_in(grid: Grid) -> Any:
    """Return the header of an image that is nowhere, for labels whose scan was no DICOM."""
    from pydicom import Dataset
    from pydicom.uid import MRImageStorage, generate_uid

    image = Dataset()
    image.SOPClassUID = MRImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, keyword, generate_uid())
    image.Modality, image.SeriesNumber, image.InstanceNumber = "MR", 0, 1
    image.Rows, image.Columns = grid.shape[1], grid.shape[0]
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [1, 1], 1
    return stripped(image)


def _without_references(seg: Any) -> None:
    """Take out every pointer to the stand-in."""
    others = "StudiesContainingOtherReferencedInstancesSequence"
    for keyword in ("ReferencedSeriesSequence", "SourceImageSequence", others):
        if keyword in seg:
            delattr(seg, keyword)
    for group in (*seg.PerFrameFunctionalGroupsSequence, *seg.SharedFunctionalGroupsSequence):
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence


def _present(data: NDArray[Any]) -> tuple[int, ...]:
    """Return the values that occur but 0; counted, where that is quicker than sorting a whole volume."""
    if data.dtype in (np.uint8, np.uint16):
        counts = np.bincount(data.ravel(order="K"), minlength=2)
        return tuple(int(value) for value in np.flatnonzero(counts) if value)
    return tuple(int(value) for value in np.unique(data) if value)


def _array(labels: Labels, values: tuple[int, ...]) -> NDArray[Any]:
    """Return (planes, rows, columns) numbered 1, 2, 3 …, with an axis of segments where they overlap."""
    if is_layered(labels):
        return np.stack([mask.T for _, mask in segments_of(labels)], axis=-1).astype(np.uint8)
    kind = np.dtype(np.uint8 if len(values) < 256 else np.uint16)
    pages = np.ascontiguousarray(labels.data.T)
    if values == tuple(range(1, len(values) + 1)):
        return pages.astype(kind, copy=False)
    if values[0] > 0 and values[-1] < 1 << 20:
        table: NDArray[Any] = np.zeros(values[-1] + 1, kind)
        table[list(values)] = range(1, len(values) + 1)
        return np.asarray(table[pages])
    numbered = np.searchsorted(values, pages.ravel()).reshape(pages.shape) + 1
    return np.where(pages == 0, 0, numbered).astype(kind)


def _volume(hd: Any, stored: NDArray[Any], grid: Grid, frame_of_reference: str) -> Any:
    """Return highdicom's volume: its axes are plane, row, column, ours the other way round; LPS."""
    affine = turned_affine(grid.affine)[:, [2, 1, 0, 3]]
    channels = {"SegmentNumber": list(range(1, stored.shape[3] + 1))} if stored.ndim == 4 else None
    return hd.Volume(
        stored,
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference,
        channels=channels,
    )


def name_of(value: int, labels: Labels) -> str:
    """Return what a DICOM file calls a label: its name, cut to the characters there is room for."""
    return (labels.names.get(value) or f"Label {value}")[:ROOM]


def _described(hd: Any, number: int, value: int, labels: Labels) -> Any:
    from pydicom.sr.codedict import codes

    name = name_of(value, labels)
    how, kind = _made_by(hd, labels)
    color = labels.colors.get(value)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=_property(codes, name),
        algorithm_type=how,
        algorithm_identification=kind,
    )
    segment.SegmentDescription = VALUE.format(value)
    if color is not None:
        segment.RecommendedDisplayCIELabValue = list(lab_of_rgb(color))
    return segment


def _property(codes: Any, name: str) -> Any:
    """Return the coded concept that a label's name means, else the one that says "tissue"."""
    known: Mapping[str, Any] = {
        "brain": codes.SCT.Brain, "liver": codes.SCT.Liver, "spleen": codes.SCT.Spleen, "kidney": codes.SCT.Kidney,
        "heart": codes.SCT.Heart, "prostate": codes.SCT.Prostate, "lesion": codes.SCT.Lesion, "bone": codes.SCT.Bone,
        "pancreas": codes.SCT.Pancreas, "stomach": codes.SCT.Stomach, "aorta": codes.SCT.Aorta,
    }  # fmt: skip
    return known.get(name.strip().lower(), codes.SCT.Tissue)


def _made_by(hd: Any, labels: Labels) -> tuple[str, Any]:
    """Return how the labels came about: by hand, or with a model, which is then named."""
    from pydicom.sr.codedict import codes

    model = next((step.order.model for step in reversed(labels.history) if step.order is not None), "")
    if not model:
        return "MANUAL", None
    return "SEMIAUTOMATIC", hd.AlgorithmIdentificationSequence(
        name=model[:ROOM], version=_version(), family=codes.DCM.ArtificialIntelligence
    )


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("napari-mri-workbench")
    except metadata.PackageNotFoundError:
        return "unknown"
