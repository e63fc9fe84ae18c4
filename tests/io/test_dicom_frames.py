"""Enhanced multi-frame images and mosaics."""

import struct

import numpy as np
import pytest
from pydicom.dataset import Dataset

from napari_mri.core.errors import BrokenFile, MriError
from napari_mri.io.dicom_frames import read_csa
from napari_mri.io.files import load, load_all, survey
from tests.io.series import at_same_place, header, lps, ramp, set_pixels, text, write_enhanced, write_series
from tests.scans import GRIDS, grid_of

SHAPE = (9, 12, 5)


def grid(name="oblique"):
    return grid_of(SHAPE, (1.5, 0.8, 3.0), GRIDS[name].axes, (12.0, -7.0, 18.0) if name == "oblique" else (0, 0, 0))


@pytest.mark.parametrize("name", GRIDS)
def test_an_enhanced_volume_stands_where_it_was_written(tmp_path, name):
    data = ramp(SHAPE, np.uint16)
    scan = load(write_enhanced(tmp_path / "a.dcm", data, grid(name)))
    at_same_place(scan, data, grid(name))


def test_four_dimensions_in_one_file(tmp_path):
    data = ramp((*SHAPE, 4))
    scan = load(write_enhanced(tmp_path / "a.dcm", data, grid()))
    assert (scan.frames.kind, scan.frames.step, scan.frames.unit) == ("time", 2.5, "s")
    for t in range(4):
        at_same_place(scan.frame(t), data[..., t], grid())


def test_frames_are_scaled_each_by_its_own(tmp_path):
    def edit(item, n):
        item.PixelValueTransformationSequence = [Dataset()]
        item.PixelValueTransformationSequence[0].RescaleSlope = str(n + 1)
        item.PixelValueTransformationSequence[0].RescaleIntercept = "5"

    data = ramp(SHAPE)
    scan = load(write_enhanced(tmp_path / "a.dcm", data, grid(), edit))
    at_same_place(scan, data * (np.arange(5) + 1) + 5, grid())


def test_diffusion_and_echoes_in_one_file(tmp_path):
    def weighted(item, n):
        item.MRDiffusionSequence = [Dataset()]
        item.MRDiffusionSequence[0].DiffusionBValue = 0.0 if n < 5 else 700.0
        if n >= 5:
            item.MRDiffusionSequence[0].DiffusionDirectionality = "DIRECTIONAL"
            item.MRDiffusionSequence[0].DiffusionGradientDirectionSequence = [Dataset()]
            item.MRDiffusionSequence[0].DiffusionGradientDirectionSequence[0].DiffusionGradientOrientation = [
                0.0,
                0.6,
                0.8,
            ]

    scan = load(write_enhanced(tmp_path / "d" / "a.dcm", ramp((*SHAPE, 2)), grid(), weighted))
    assert scan.frames.bvals == (0.0, 700.0)
    assert np.isclose(np.linalg.norm(scan.frames.bvecs[1]), 1)

    def echoed(item, n):
        item.MREchoSequence = [Dataset()]
        item.MREchoSequence[0].EffectiveEchoTime = 4.0 if n < 5 else 9.0

    scan = load(write_enhanced(tmp_path / "e" / "a.dcm", ramp((*SHAPE, 2)), grid(), echoed))
    assert scan.frames.kind == "echo"
    assert scan.frames.times == (4.0, 9.0)


def test_two_stacks_in_one_file_are_two_volumes(tmp_path):
    def edit(item, n):
        item.FrameContentSequence[0].StackID = "1" if n % 5 < 2 else "2"
        if n % 5 >= 2:
            x, y, z = map(float, item.PlanePositionSequence[0].ImagePositionPatient)
            item.PlanePositionSequence[0].ImagePositionPatient = [str(x), str(y), str(z + 40.0)]

    plain = grid_of(SHAPE, (1, 1, 3), "LPS")
    path = write_enhanced(tmp_path / "a.dcm", ramp(SHAPE), plain, edit)
    assert [volume.data.shape[2] for volume in load_all(path)] == [2, 3]


def test_undefined_lengths_read_alike(tmp_path):
    data = ramp(SHAPE)
    path = write_enhanced(tmp_path / "a.dcm", data, grid())
    from pydicom import dcmread

    ds = dcmread(path)
    for tag in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        ds[tag].is_undefined_length = True
        for item in ds[tag].value:
            item.is_undefined_length_sequence_item = True
    ds.save_as(tmp_path / "b" if (tmp_path / "b").mkdir() else tmp_path / "b" / "a.dcm")
    at_same_place(load(tmp_path / "b" / "a.dcm"), data, grid())


def test_fewer_descriptions_than_frames_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", ramp(SHAPE), grid())
    from pydicom import dcmread

    ds = dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[2]
    ds.save_as(path)
    with pytest.raises(BrokenFile, match="describes 4"):
        load(path)


def test_scrambled_functional_groups_never_crash(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", ramp(SHAPE), grid())
    raw = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(150):
        broken = bytearray(raw)
        for place in rng.integers(132, 2500, 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        try:
            survey(path)
            load_all(path)
        except MriError:
            continue


def csa(**tags):
    out = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, values in tags.items():
        out += name.encode().ljust(64, b"\0") + struct.pack("<i4s3I", 1, b"FD", 6, len(values), 77)
        for value in values:
            word = f"{value}".encode() + b"\0"
            out += struct.pack("<4I", len(word), len(word), 77, len(word)) + word.ljust(-(-len(word) // 4) * 4, b"\0")
    return out


def write_mosaic(folder, data, where, *, normal_sign=1, t=0):
    """Lay (I, J, K) out as Siemens does: square tiles, the corner told as if it were one big slice."""
    side = int(np.ceil(np.sqrt(data.shape[2])))
    rows, columns = data.shape[1], data.shape[0]
    page = np.zeros((rows * side, columns * side), data.dtype)
    for k in range(data.shape[2]):
        page[k // side * rows : k // side * rows + rows, k % side * columns : k % side * columns + columns] = data[
            :, :, k
        ].T
    affine = lps(where)
    ds = header()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.InstanceNumber = "1.2", "1.2.3", t + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.RepetitionTime, ds.Manufacturer = "2000", "SIEMENS"
    ds.ImageOrientationPatient = text([*(affine[:3, 0] / where.spacing[0]), *(affine[:3, 1] / where.spacing[1])])
    corner = affine[:3, 3] - affine[:3, 0] * (columns * side - columns) / 2 - affine[:3, 1] * (rows * side - rows) / 2
    ds.ImagePositionPatient = text(corner)
    ds.PixelSpacing, ds.SliceThickness = text([where.spacing[1], where.spacing[0]]), "2"
    ds.SpacingBetweenSlices = f"{where.spacing[2]:.10g}"
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    normal = affine[:3, 2] / where.spacing[2] * normal_sign
    block.add_new(0x10, "OB", csa(NumberOfImagesInMosaic=[data.shape[2]], SliceNormalVector=list(normal)))
    set_pixels(ds, page)
    folder.mkdir(exist_ok=True)
    ds.save_as(folder / f"{t:03d}", enforce_file_format=True)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("count", [4, 5, 7])
def test_a_mosaic_is_cut_into_its_slices(tmp_path, name, count):
    where = grid_of(
        (9, 12, count), (1.5, 0.8, 3.0), GRIDS[name].axes, (12.0, -7.0, 18.0) if name == "oblique" else (0, 0, 0)
    )
    volumes = [ramp((9, 12, count), seed=t) for t in range(3)]
    for t, data in enumerate(volumes):
        write_mosaic(tmp_path / "m", data, where, t=t)
    scan = load(tmp_path / "m")
    assert (scan.frames.kind, scan.frames.step) == ("time", 2.0)
    for t, data in enumerate(volumes):
        at_same_place(scan.frame(t), data, where)


def test_a_mosaic_without_its_private_header_is_refused(tmp_path):
    def edit(ds, k):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    write_series(tmp_path, ramp((8, 8, 1)), grid_of((8, 8, 1), (1, 1, 1)), edit)
    with pytest.raises(BrokenFile, match="mosaic"):
        load(tmp_path)


def test_a_damaged_csa_header_gives_what_it_can():
    whole = csa(NumberOfImagesInMosaic=[5], SliceNormalVector=[0.0, 0.0, 1.0])
    assert read_csa(whole)["SliceNormalVector"] == (0.0, 0.0, 1.0)
    assert read_csa(b"") == {}
    assert read_csa(b"junk" * 10) == {}
    for length in range(len(whole)):
        assert len(read_csa(whole[:length])) <= 2
