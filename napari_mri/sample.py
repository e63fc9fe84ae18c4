"""The sample scans: where they are, and how they are written from the phantom."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from napari_mri import phantom
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume

DICOM, NIFTI, LABELS = "head_dicom", "head_flair.nii.gz", "head_flair_labels.nii.gz"
_EDITION = "1"
"""Raised whenever the sample changes, so that an old copy in a cache is not taken for it."""
_DAY, _TIME = "20000101", "120000"


def folder() -> Path:
    """Return the folder of the sample scans.

    It is `sample_data/` beside the package in a checkout. An installed package has none: there the
    same scans are written once into the user's cache, which takes some seconds.
    """
    here = Path(__file__).resolve().parent.parent / "sample_data"
    if _whole(here):
        return here
    cached = _cache() / f"sample-{_EDITION}"
    if not _whole(cached):
        cached.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".sample-", dir=cached.parent))
        try:
            write(fresh)
            shutil.rmtree(cached, ignore_errors=True)
            fresh.rename(cached)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return cached


def dicom_head() -> Path:
    """Return the folder of a T1 head as a DICOM series, slightly oblique."""
    return folder() / DICOM


def nifti_head() -> Path:
    """Return the same head as a FLAIR scan in NIfTI."""
    return folder() / NIFTI


def nifti_labels() -> Path:
    """Return what stands in each voxel of `nifti_head`, in NIfTI."""
    return folder() / LABELS


def _whole(place: Path) -> bool:
    slices = place / DICOM
    return (
        (place / NIFTI).is_file()
        and (place / LABELS).is_file()
        and slices.is_dir()
        and len(list(slices.glob("*.dcm"))) == dicom_grid().shape[2]
    )


def _cache() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "napari_mri"


def dicom_grid() -> Grid:
    """Return the grid of the DICOM series: axial, tilted to the orbits by 9° and turned by 4°, LPS."""
    spacing, shape = np.array([1.4, 1.4, 2.7]), np.array([138, 168, 76])
    tilt, turn = np.radians(9.0), np.radians(4.0)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1.0, -1.0, 1.0]) * spacing
    affine[:3, 3] = np.array([0.0, 2.0, -11.0]) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def write(place: Path) -> None:
    """Write the sample scans into an existing folder; the same bytes each time.

    Parameters
    ----------
    place : Path
        Existing files of the same names are replaced.
    """
    scan, _ = phantom.head(dicom_grid(), "T1", noise=0.02, seed=3)
    _write_series(scan, place / DICOM)
    flair, labels = phantom.head(phantom.default_grid(2.0), "FLAIR", noise=0.02, seed=3)
    _write_nifti(flair, place / NIFTI, "phantom FLAIR")
    _write_nifti(labels, place / LABELS, "phantom labels")


def _write_nifti(volume: Volume, path: Path, says: str) -> None:
    """Write scanner-anatomical NIfTI-1 whose gzip header holds no name and no time."""
    import nibabel

    image: Any = nibabel.Nifti1Image(np.asarray(volume.data), volume.affine)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = says.encode()
    if isinstance(volume, Labels):
        image.header.set_intent("label", name="head")
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(image.to_bytes())


def _uid(what: str) -> str:
    """Return a UUID-derived UID that is a function of a text."""
    return f"2.25.{int(hashlib.sha256(f'napari-mri sample {_EDITION} {what}'.encode()).hexdigest()[:32], 16)}"


def _write_series(scan: Volume, place: Path) -> None:
    """Write one classic MR Image Storage file a slice, explicit little endian."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    common = _common(scan, to_lps @ scan.grid.directions)
    for number in range(scan.grid.shape[2]):
        header = _slice_of(common, number, to_lps @ scan.grid.to_patient((0, 0, number)))
        pixels = np.ascontiguousarray(scan.data[:, :, number].T, dtype="<u2")
        header.SmallestImagePixelValue = int(pixels.min())
        header.LargestImagePixelValue = int(pixels.max())
        header.PixelData = pixels.tobytes()
        header.save_as(place / f"IM{number + 1:04d}.dcm", enforce_file_format=True)


def _number(value: float) -> str:
    """Return a decimal string of at most 16 characters, as DICOM asks."""
    return f"{value:.9f}"[:16]


def _common(scan: Volume, directions: np.ndarray) -> Any:
    """Return what all slices share. There is no patient: every name says so."""
    from pydicom.dataset import Dataset

    shape, spacing = scan.grid.shape, scan.grid.spacing
    head = Dataset()
    head.SpecificCharacterSet = "ISO_IR 100"
    head.ImageType = ["DERIVED", "PRIMARY", "M"]
    head.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    for date in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(head, date, _DAY)
    for time in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(head, time, _TIME)
    head.AccessionNumber = head.ReferringPhysicianName = head.StudyID = head.PatientBirthDate = ""
    head.Modality = "MR"
    head.Manufacturer = "napari-mri phantom"
    head.StudyDescription, head.SeriesDescription = "Phantom head", "T1 axial oblique"
    head.PatientName, head.PatientID, head.PatientSex = "Phantom^Head", "PHANTOM", "O"
    head.PatientIdentityRemoved, head.DeidentificationMethod = "YES", "Made by formula: there is no patient"
    head.ScanningSequence, head.SequenceVariant, head.ScanOptions = ["GR", "IR"], "MP", ""
    head.MRAcquisitionType = "3D"
    head.SliceThickness, head.SpacingBetweenSlices = _number(spacing[2]), _number(spacing[2])
    head.RepetitionTime, head.EchoTime, head.InversionTime = "2300", "3", "1100"
    head.EchoTrainLength, head.FlipAngle, head.MagneticFieldStrength = "1", "9", "1.5"
    head.PatientPosition = "HFS"
    head.StudyInstanceUID, head.SeriesInstanceUID = _uid("study"), _uid("series")
    head.SeriesNumber, head.FrameOfReferenceUID, head.PositionReferenceIndicator = 2, _uid("frame"), ""
    head.ImageOrientationPatient = [_number(v) for v in (*directions[:, 0], *directions[:, 1])]
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.Rows, head.Columns = shape[1], shape[0]
    head.PixelSpacing = [_number(spacing[1]), _number(spacing[0])]
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 16, 16, 15, 0
    head.WindowCenter, head.WindowWidth = "450", "900"
    return head


def _slice_of(common: Any, number: int, position: np.ndarray) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(common.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(_uid(f"slice {number}"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid("implementation"))
    meta.ImplementationVersionName = "NAPARI_MRI"
    header = FileDataset("", common.copy(), preamble=b"\0" * 128, file_meta=meta)
    header.SOPInstanceUID = _uid(f"slice {number}")
    header.InstanceNumber = number + 1
    header.ImagePositionPatient = [_number(v) for v in position]
    return header
