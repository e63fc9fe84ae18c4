"""Sound files to start from: small ones by our own writers, and real ones where they are present."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.files import save
from napari_mri.io.layered import SEGMENTS

_LARGEST = 150_000
_REAL = ("dicom_seg", "dicom_vendor_slices", "dicom_malformed", "dicom_siemens_mosaic", "spine_and_4d")


def made() -> dict[str, bytes]:
    """Return files by our own writers: name -> content."""
    affine = np.array([[-1.1, 0.1, 0.0, 12.0], [0.1, 0.9, 0.3, -7.0], [0.0, -0.3, 2.1, 4.0], [0, 0, 0, 1.0]])
    grid = Grid((11, 9, 5), affine)
    square = Grid((11, 9, 5), np.diag([-1.1, 0.9, 2.1, 1.0]))
    rng = np.random.default_rng(0)
    scan = Volume(rng.integers(-500, 3000, grid.shape).astype(np.int16), grid)
    moving = Volume(
        rng.normal(size=(*grid.shape, 3)).astype(np.float32), grid, frames=Frames("time", 2.0, "s")
    )
    labels = Labels(
        rng.integers(0, 4, grid.shape).astype(np.uint8), square, names={1: "one", 2: "two", 3: "three"}
    )
    both = np.stack([labels.data == 1, (labels.data > 0) * 2], axis=-1).astype(np.uint8)
    layers = replace(labels, data=both, frames=SEGMENTS)
    found: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        wanted = [
            (scan, ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mgh", "a.mgz")),
            (moving, ("m.nii", "m.nrrd", "m.mha", "m.mgz")),
            (labels, ("l.nii.gz", "l.seg.nrrd", "l.seg.dcm", "l.rtstruct.dcm", "l.surf.gii", "l.stl")),
            (layers, ("o.seg.nrrd", "o.seg.dcm")),
        ]
        for volume, names in wanted:
            for name in names:
                found[name] = save(volume, place / name, sidecar=False).read_bytes()
        found |= _by_hand(scan.data)
    return found


def _by_hand(data: np.ndarray) -> dict[str, bytes]:
    """Return files of kinds that are read and not written."""
    raw = np.asfortranarray(data).tobytes(order="F")
    nrrd = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 11 9 5\n"
        "space directions: (1,0,0) (0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        "space origin: (0,0,0)\n\n"
    )
    mha = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\nDimSize = 11 9 5\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    text = (nrrd.replace("encoding: raw", "encoding: ascii")).encode() + " ".join(
        map(str, data.ravel("F"))
    ).encode()
    return {"raw.nrrd": nrrd.encode() + raw, "text.nrrd": text, "raw.mha": mha.encode() + raw, **_dicom(data)}


def _dicom(data: np.ndarray) -> dict[str, bytes]:
    """Return small DICOM images: classic, and enhanced with two frames."""
    import io

    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

    found = {}
    for name, syntax in (("explicit.dcm", ExplicitVRLittleEndian), ("implicit.dcm", ImplicitVRLittleEndian)):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", generate_uid(entropy_srcs=[name])
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.PatientName = "MR", 3, 1, "A^B"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.9, 1.1], 2.1
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 9, 11, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelData = data[:, :, 0].T.tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        out = io.BytesIO()
        ds.save_as(out, enforce_file_format=True)
        found[name] = out.getvalue()
    return found


def real() -> dict[str, bytes]:
    """Return small real files: name -> content; empty where there are none."""
    given = os.environ.get("NAPARI_MRI_TEST_DATA")
    root = Path(given) if given else Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    found: dict[str, bytes] = {}
    for folder in _REAL:
        seen: dict[Path, int] = {}
        for path in sorted((root / folder).rglob("*")) if (root / folder).is_dir() else ():
            small = (
                path.is_file()
                and path.stat().st_size <= _LARGEST
                and path.suffix not in (".md", ".json", ".txt")
            )
            if small and seen.get(path.parent, 0) < 2:
                seen[path.parent] = seen.get(path.parent, 0) + 1
                found[str(path.relative_to(root)).replace(os.sep, "_")] = path.read_bytes()
    return found
