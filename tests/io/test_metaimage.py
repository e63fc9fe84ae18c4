"""MetaImage against SimpleITK, and headers that lie."""

import numpy as np
import pytest
import SimpleITK as sitk

from napari_mri.core.errors import BrokenFile, FileProblem, GeometryProblem, MriError, UnsupportedImage
from napari_mri.core.volume import Frames, Volume
from napari_mri.io.files import load, save
from tests.io.test_nrrd import itk_affine
from tests.scans import GRIDS, head

VALUES = np.arange(24, dtype=np.int16).reshape((4, 3, 2), order="F") - 5
HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 10 20 30
ElementSpacing = 1 1 2
DimSize = 4 3 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""


def written(path, text=HEADER, body=None):
    path.write_bytes(text.encode() + (VALUES.tobytes(order="F") if body is None else body))
    return path


@pytest.mark.parametrize("name", GRIDS)
def test_simpleitk_reads_what_we_write_at_the_same_place(tmp_path, name):
    scan = head(GRIDS[name], np.float32)
    image = sitk.ReadImage(str(save(scan, tmp_path / "a.mha")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, scan.data)
    np.testing.assert_allclose(itk_affine(image), scan.affine, atol=1e-6)


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize("packed", [True, False])
def test_we_read_what_simpleitk_writes(tmp_path, ending, packed):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.uint16).reshape(5, 3, 4))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 3.0, 44.0))
    image.SetDirection((0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), packed)
    scan = load(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(scan.data, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(scan.affine, itk_affine(image), atol=1e-9)


def test_vectors_come_as_channels(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((5, 3, 4, 2)), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    scan = load(tmp_path / "a.mha")
    np.testing.assert_array_equal(scan.data, sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3))


def test_four_axes_agree_with_simpleitk(tmp_path):
    grid = GRIDS["oblique"]
    scan = Volume(
        np.random.default_rng(0).random((*grid.shape, 3)).astype("f4"), grid, frames=Frames("time", 2.0, "s")
    )
    image = sitk.ReadImage(str(save(scan, tmp_path / "a.mha")))
    assert image.GetSize() == scan.data.shape
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, scan.data)
    assert image.GetSpacing()[3] == 2.0


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("DimSize = 4 3 2", "DimSize = 4 3", BrokenFile),
        ("DimSize = 4 3 2", "DimSize = 4 3 0", BrokenFile),
        ("DimSize = 4 3 2", "DimSize = 40000 40000 40000", BrokenFile),
        ("NDims = 3", "NDims = x", BrokenFile),
        ("MET_SHORT", "MET_STRING", UnsupportedImage),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 1 0", GeometryProblem),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 nan 1", GeometryProblem),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 0 1 0 1 1 0", GeometryProblem),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0", BrokenFile),
        ("ElementDataFile = LOCAL", "ElementDataFile = ../other.raw", FileProblem),
        ("ElementDataFile = LOCAL", "ElementDataFile = /etc/passwd", FileProblem),
        ("ElementDataFile = LOCAL", "ElementDataFile = LIST", UnsupportedImage),
        ("ElementDataFile = LOCAL\n", "", BrokenFile),
        ("CompressedData = False", "CompressedData = True", BrokenFile),
        ("BinaryData = True", "BinaryData = False", UnsupportedImage),
        ("ElementType = MET_SHORT", "ElementNumberOfChannels = 3\nElementType = MET_UCHAR", UnsupportedImage),
    ],
)
def test_headers_that_lie(tmp_path, old, new, error):
    assert old in HEADER
    with pytest.raises(error):
        load(written(tmp_path / "a.mha", HEADER.replace(old, new)))


def test_cut_off(tmp_path):
    path = written(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MriError, match="lies about its size"):
        load(path)


def test_voxels_at_the_end_of_a_file(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"some header" + VALUES.tobytes(order="F"))
    text = HEADER.replace("ElementDataFile = LOCAL", "HeaderSize = -1\nElementDataFile = a.raw")
    np.testing.assert_array_equal(load(written(tmp_path / "a.mhd", text, b"")).data, VALUES)


def test_no_geometry_is_told(tmp_path):
    text = HEADER.replace("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "").replace("Offset = 10 20 30\n", "")
    assert "no geometry" in " ".join(load(written(tmp_path / "a.mha", text)).origin.warnings)
