"""MGH and MGZ against nibabel, and Analyze against nibabel."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from napari_mri.core.errors import BrokenFile, GeometryProblem, MriError, UnsupportedImage
from napari_mri.core.volume import Frames, Volume
from napari_mri.io.files import load, save
from tests.scans import GRIDS, head


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ending", [".mgz", ".mgh"])
def test_nibabel_reads_what_we_write(tmp_path, name, ending):
    scan = head(GRIDS[name], np.int16)
    image = nib.load(save(scan, tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(image.dataobj, scan.data)
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-4)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_we_read_what_nibabel_writes(tmp_path, dtype):
    grid = GRIDS["oblique"]
    scan = head(grid, dtype)
    nib.save(nib.MGHImage(np.clip(scan.data, 0, 255).astype(dtype), grid.affine), tmp_path / "a.mgz")
    back, image = load(tmp_path / "a.mgz"), nib.load(tmp_path / "a.mgz")
    np.testing.assert_array_equal(back.data, image.dataobj)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-4)


def test_repetition_time_comes_back(tmp_path):
    grid = GRIDS["plain"]
    scan = Volume(np.zeros((*grid.shape, 2), np.float32), grid, frames=Frames("time", 2.5, "s"))
    back = load(save(scan, tmp_path / "a.mgz"))
    assert (back.frames.kind, back.frames.step, back.frames.unit) == ("time", 2500.0, "ms")


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    grid = GRIDS["plain"]
    data = np.zeros(grid.shape, np.int64)
    data[0, 0, 0] = 1 << 40
    with pytest.raises(UnsupportedImage, match="32 bits"):
        save(Volume(data, grid), tmp_path / "a.mgz")


def test_cut_off_and_damaged(tmp_path):
    raw = save(head(GRIDS["plain"], np.int16), tmp_path / "a.mgh").read_bytes()
    for size in (100, 283, 300, len(raw) - 2000):
        (tmp_path / "b.mgh").write_bytes(raw[:size])
        with pytest.raises(MriError):
            load(tmp_path / "b.mgh")
        (tmp_path / "b.mgz").write_bytes(gzip.compress(raw[:size]))
        with pytest.raises(MriError):
            load(tmp_path / "b.mgz")
    packed = gzip.compress(raw)
    (tmp_path / "c.mgz").write_bytes(packed[:-200])
    with pytest.raises(BrokenFile):
        load(tmp_path / "c.mgz")


def test_zero_spacing_and_no_orientation(tmp_path):
    raw = bytearray(save(head(GRIDS["plain"], np.int16), tmp_path / "a.mgh").read_bytes())
    raw[30:34] = bytes(4)
    (tmp_path / "b.mgh").write_bytes(raw)
    with pytest.raises(GeometryProblem, match="more than zero"):
        load(tmp_path / "b.mgh")
    raw[28:30] = bytes(2)
    (tmp_path / "c.mgh").write_bytes(raw)
    scan = load(tmp_path / "c.mgh")
    assert "no geometry" in " ".join(scan.origin.warnings)
    assert scan.grid.axes == "LIA"
    assert scan.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("given", [".hdr", ".img"])
def test_analyze_agrees_with_nibabel_and_warns(tmp_path, order, given):
    grid = GRIDS["anisotropic"]
    header = nib.Spm99AnalyzeHeader(endianness=order)
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.int16)
    header.set_zooms(grid.spacing)
    header["origin"][:3] = (5, 6, 7)
    data = head(grid, np.int16).data
    (tmp_path / "a.hdr").write_bytes(header.binaryblock)
    (tmp_path / "a.img").write_bytes(data.astype(order + "i2").tobytes(order="F"))
    scan, image = load(tmp_path / f"a{given}"), nib.Spm99AnalyzeImage.from_filename(tmp_path / "a.img")
    np.testing.assert_array_equal(scan.data, image.dataobj)
    np.testing.assert_allclose(scan.affine, image.affine, atol=1e-5)
    assert "no orientation" in " ".join(scan.origin.warnings)


def test_analyze_without_its_other_half(tmp_path):
    header = nib.AnalyzeHeader()
    header.set_data_shape((4, 3, 2))
    (tmp_path / "a.hdr").write_bytes(header.binaryblock)
    with pytest.raises(BrokenFile, match="not there"):
        load(tmp_path / "a.hdr")
    (tmp_path / "a.img").write_bytes(bytes(5))
    with pytest.raises(BrokenFile, match="lies about its size"):
        load(tmp_path / "a.hdr")
