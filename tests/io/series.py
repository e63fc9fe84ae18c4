"""Writes small DICOM series as scanners do, for tests and benchmarks; pydicom is the independent writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_mri.core.grid import Grid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
Edit = Callable[[Dataset, int], None]


def header(sop_class: str = MR, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Return a data set with file meta information and planted patient data."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Doe^Jane", "SECRET-4711", "19700102"
    ds.Modality, ds.Manufacturer = "MR", "Acme"
    ds.SeriesNumber, ds.SeriesDescription = 3, "T1 MPRAGE"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    return ds


def lps(grid: Grid) -> np.ndarray:
    """Return the grid's affine in DICOM's LPS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine


def text(values) -> list[str]:
    """Return decimal strings of at most 16 characters, as the standard wants them."""
    return [f"{v:.10g}"[:16] for v in values]


def set_pixels(ds: Dataset, page: np.ndarray) -> None:
    """Write one (rows, columns) integer array."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = page.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = page.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(page.dtype.kind == "i")
    ds.PixelData = page.tobytes()


def write_series(
    folder: Path, data: np.ndarray, grid: Grid, edit: Edit | None = None, *, seed: int = 5, start: int = 0
) -> list[Path]:
    """Write (I, J, K) integers as classic slices under meaningless names; I are columns, J rows.

    Parameters
    ----------
    folder : Path
    data : (I, J, K) integers
    grid : Grid
    edit : callable, optional
        ``edit(ds, k)`` changes slice k before it is written; raising StopIteration leaves it out.
    seed : int
        File names and instance numbers are shuffled with it, so that neither tells the order.
    start : int
        First number of the file names.

    Returns
    -------
    list of Path
        In the order of slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    affine = lps(grid)
    study, series = generate_uid(), generate_uid()
    shuffled = np.random.default_rng(seed).permutation(data.shape[2])
    paths = []
    for k in range(data.shape[2]):
        ds = header()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.InstanceNumber = int(shuffled[k]) + 1
        ds.ImageOrientationPatient = text([*(affine[:3, 0] / grid.spacing[0]), *(affine[:3, 1] / grid.spacing[1])])
        ds.ImagePositionPatient = text(affine[:3, 2] * k + affine[:3, 3])
        ds.PixelSpacing = text([grid.spacing[1], grid.spacing[0]])
        ds.SliceThickness = f"{grid.spacing[2]:.10g}"
        set_pixels(ds, np.ascontiguousarray(data[:, :, k].T))
        try:
            if edit is not None:
                edit(ds, k)
        except StopIteration:
            continue
        path = folder / f"{start + int(shuffled[k]):05d}"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(path: Path, data: np.ndarray, grid: Grid, edit: Edit | None = None, *, seed: int = 5) -> Path:
    """Write (I, J, K) or (I, J, K, T) integers as one enhanced multi-frame file, its frames shuffled.

    ``edit(item, n)`` changes the functional groups of the n-th frame of (t, k) order.
    """
    volumes = data if data.ndim == 4 else data[..., None]
    affine = lps(grid)
    ds = header(ENHANCED_MR)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    pages, groups = [], []
    for t in range(volumes.shape[3]):
        for k in range(volumes.shape[2]):
            item = Dataset()
            item.PlanePositionSequence = [Dataset()]
            item.PlanePositionSequence[0].ImagePositionPatient = text(affine[:3, 2] * k + affine[:3, 3])
            item.FrameContentSequence = [Dataset()]
            item.FrameContentSequence[0].TemporalPositionIndex = t + 1
            item.FrameContentSequence[0].StackID = "1"
            if edit is not None:
                edit(item, len(groups))
            groups.append(item)
            pages.append(volumes[:, :, k, t].T)
    shuffled = np.random.default_rng(seed).permutation(len(pages))
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [Dataset()], [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = text(
        [*(affine[:3, 0] / grid.spacing[0]), *(affine[:3, 1] / grid.spacing[1])]
    )
    shared.PixelMeasuresSequence[0].PixelSpacing = text([grid.spacing[1], grid.spacing[0]])
    shared.PixelMeasuresSequence[0].SliceThickness = f"{grid.spacing[2]:.10g}"
    shared.MRTimingAndRelatedParametersSequence = [Dataset()]
    shared.MRTimingAndRelatedParametersSequence[0].RepetitionTime = "2500"
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [groups[n] for n in shuffled]
    set_pixels(ds, np.ascontiguousarray(np.stack([pages[n] for n in shuffled])))
    ds.NumberOfFrames = len(pages)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def ramp(shape: tuple[int, ...], dtype=np.int16, seed: int = 1) -> np.ndarray:
    """Return noise with a corner that no flip leaves in place."""
    data = np.random.default_rng(seed).integers(0, 3000, shape).astype(dtype)
    data[:3, :2, :1] = min(4000, np.iinfo(dtype).max)
    return data


def at_same_place(volume, data: np.ndarray, grid: Grid) -> None:
    """Assert that a volume holds `data` at the patient positions of `grid`, in whatever storage order."""
    have, want = volume.turned("RAS"), type(volume)(data, grid).turned("RAS")
    assert have.data.shape == want.data.shape
    assert have.grid.same(want.grid, 0.01)
    np.testing.assert_array_equal(have.data, want.data)
