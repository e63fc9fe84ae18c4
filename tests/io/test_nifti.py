import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.errors import BrokenFile, FileProblem, GeometryProblem, MriError, UnsupportedImage
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.files import load, load_labels, save
from tests.scans import GRIDS, grid_of, head, marker


def saved(path, data, affine=None, edit=None, kind=nib.Nifti1Image):
    image = kind(data, np.eye(4) if affine is None else affine)
    if edit is not None:
        edit(image.header)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", "i1", "u4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_nibabel_wrote_is_read_alike(tmp_path, kind, ending, dtype, order):
    data = np.random.default_rng(0).integers(0, 100, (5, 7, 3)).astype(order + dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(data.dtype)
    image = kind(data, GRIDS["oblique"].affine, header)
    nib.save(image, tmp_path / f"a{ending}")
    scan = load(tmp_path / f"a{ending}")
    want = nib.load(tmp_path / f"a{ending}")
    assert scan.data.dtype == np.dtype(dtype)
    assert scan.data.dtype.isnative
    np.testing.assert_array_equal(scan.data, np.asarray(want.dataobj))
    np.testing.assert_array_equal(scan.affine, want.affine)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_missing_and_single_axes(tmp_path, shape):
    scan = load(saved(tmp_path / "a.nii.gz", np.ones(shape, np.float32)))
    assert scan.data.shape == (*shape, 1)[:3]
    assert ("single slice" in " ".join(scan.origin.warnings)) == (scan.data.shape[2] == 1)


def test_four_dimensions_and_time(tmp_path):
    def edit(header):
        header.set_xyzt_units("mm", "msec")
        header["pixdim"][4] = 2500

    scan = load(saved(tmp_path / "a.nii", np.zeros((4, 5, 6, 3), np.int16), edit=edit))
    assert scan.frames == Frames("time", 2500.0, "ms")
    save(scan, tmp_path / "b.nii.gz")
    header = nib.load(tmp_path / "b.nii.gz").header
    assert header.get_xyzt_units() == ("mm", "msec")
    assert header["pixdim"][4] == 2500


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [(2.5, -3.0, "f4"), (2.0, -1024.0, "i2"), (1.0, 0.0, "i2"), (0.0, 5.0, "i2"), (float("nan"), 1.0, "i2")],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_scaling(tmp_path, slope, inter, dtype, ending):
    path = saved(tmp_path / f"a{ending}", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    raw = bytearray(gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes())
    raw[112:120] = struct.pack("<2f", slope, inter)
    path.write_bytes(gzip.compress(bytes(raw)) if ending == ".nii.gz" else bytes(raw))
    scan = load(path)
    assert scan.data.dtype == np.dtype(dtype)
    np.testing.assert_allclose(scan.data, nib.load(path).get_fdata(), rtol=1e-6)


def test_a_plain_file_is_mapped_not_read(tmp_path):
    scan = load(saved(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32)))
    assert isinstance(scan.data, np.memmap)


@given(st.sampled_from(sorted(GRIDS)), st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.int64]))
@settings(max_examples=20, deadline=None)
def test_round_trip_is_bit_for_bit(tmp_path_factory, name, dtype):
    path = tmp_path_factory.mktemp("n") / "a.nii.gz"
    scan = Volume(np.random.default_rng(1).integers(0, 99, GRIDS[name].shape).astype(dtype), GRIDS[name])
    save(scan, path)
    back = load(path)
    assert back.data.dtype == dtype
    np.testing.assert_array_equal(back.data, scan.data)
    assert back.grid.same(scan.grid, 1e-4)
    np.testing.assert_array_equal(nib.load(path).affine, back.affine)


def test_header_facts_survive_a_rewrite_to_the_bit(tmp_path):
    def edit(header):
        header["descrip"] = b"acquired on a Tuesday"
        header.set_intent("z score", name="z")
        header.set_xyzt_units("mm", "sec")
        header["cal_max"], header["toffset"] = 5.0, 1.5
        header.set_qform(GRIDS["flipped"].affine, 3)
        header.set_sform(GRIDS["oblique"].affine, 4)
        header.set_slope_inter(1, 0)

    path = saved(tmp_path / "a.nii", np.ones(GRIDS["oblique"].shape, np.float32), GRIDS["oblique"].affine, edit)
    save(load(path), tmp_path / "b.nii")
    old, new = nib.load(path).header, nib.load(tmp_path / "b.nii").header
    for key in (
        "descrip",
        "intent_code",
        "intent_name",
        "xyzt_units",
        "cal_max",
        "toffset",
        "pixdim",
        "datatype",
        "qform_code",
        "sform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "srow_x",
        "srow_y",
        "srow_z",
    ):
        np.testing.assert_array_equal(old[key], new[key], err_msg=key)


def test_labels_lie_on_the_scan_bit_for_bit(tmp_path):
    def edit(header):
        header.set_qform(GRIDS["oblique"].affine, 1)
        header.set_sform(None, 0)
        header.set_intent("z score")
        header["cal_max"] = 900

    grid = GRIDS["oblique"]
    path = saved(tmp_path / "a.nii.gz", np.ones(grid.shape, np.float32), grid.affine, edit)
    scan = load(path)
    save(scan.with_labels(scan.data.astype(np.int64) * 3, {3: "brain"}), tmp_path / "m.nii.gz")
    old, new = nib.load(path), nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(old.affine, new.affine)
    assert [int(new.header[k]) for k in ("qform_code", "sform_code")] == [1, 0]
    assert new.get_data_dtype() == np.uint8
    assert int(new.header["intent_code"]) == 0
    assert float(new.header["cal_max"]) == 0


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((0, 255), "u1"), ((0, 256), "u2"), ((0, 70000), "u4"), ((-1, 5), "i1"), ((-1, 200), "i2"), ((-40000, 1), "i4")],
)
def test_labels_take_the_smallest_type(tmp_path, values, dtype):
    data = np.zeros((3, 3, 3), np.int64)
    data[0, 0, :2] = values
    save(Labels(data, grid_of((3, 3, 3), (1, 1, 1))), tmp_path / "m.nii")
    assert nib.load(tmp_path / "m.nii").get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(load_labels(tmp_path / "m.nii").data, data)


def test_names_and_colours_stay_even_without_the_sidecar(tmp_path):
    labels = marker(GRIDS["permuted"], 40)
    labels = Labels(labels.data, labels.grid, names={40: "Gliom ü", 41: "œdème"}, colors={40: (1.0, 0.5, 0.0)})
    save(labels, tmp_path / "m.nii.gz", sidecar=False)
    back = load(tmp_path / "m.nii.gz")
    assert isinstance(back, Labels)
    assert dict(back.names) == {40: "Gliom ü", 41: "œdème"}
    assert dict(back.colors) == {40: (1.0, 0.5, 0.0)}
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj), labels.data)


def test_equal_volumes_give_equal_files(tmp_path):
    for name in ("a", "b"):
        save(head(GRIDS["plain"], np.int16), tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_turned_volume_is_written_where_it_stands(tmp_path):
    path = saved(tmp_path / "a.nii", np.ones(GRIDS["oblique"].shape, np.int16), GRIDS["oblique"].affine)
    turned = load(path).turned("LPS")
    save(turned, tmp_path / "b.nii")
    assert load(tmp_path / "b.nii").grid.same(turned.grid, 1e-3)


def test_float_masks_of_whole_numbers_are_labels_others_are_not(tmp_path):
    labels = load_labels(saved(tmp_path / "a.nii.gz", np.array([[[0.0, 1.0, 4.0]]], np.float32)))
    assert labels.values == (1, 4)
    for bad in (0.5, np.nan, np.inf):
        with pytest.raises(UnsupportedImage, match="not a label map"):
            load_labels(saved(tmp_path / "b.nii.gz", np.array([[[0.0, 1.0, bad]]], np.float32)))


def test_gradients_of_fsl_are_read_and_written(tmp_path):
    path = saved(tmp_path / "d.nii.gz", np.zeros((3, 3, 3, 2), np.int16))
    (tmp_path / "d.bval").write_text("0 1000\n")
    (tmp_path / "d.bvec").write_text("0 1\n0 0\n0 0\n")
    scan = load(path)
    assert scan.frames.kind == "diffusion"
    assert scan.frames.bvals == (0.0, 1000.0)
    assert scan.frames.bvecs == ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    save(scan, tmp_path / "e.nii.gz")
    assert load(tmp_path / "e.nii.gz").frames == scan.frames
    (tmp_path / "d.bval").write_text("0 1000 2000\n")
    assert load(path).frames.kind != "diffusion"


def test_no_geometry_is_told(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), None, header)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "a.nii")
    scan = load(tmp_path / "a.nii")
    assert scan.spacing == (2, 3, 4)
    assert "no geometry" in scan.origin.warnings[0]
    np.testing.assert_array_equal(scan.affine, nib.load(tmp_path / "a.nii").affine)


def test_microns_become_millimetres(tmp_path):
    path = saved(
        tmp_path / "a.nii", np.ones((4, 5, 6), np.int16), np.diag([50, 50, 80, 1]), lambda h: h.set_xyzt_units("micron")
    )
    scan = load(path)
    np.testing.assert_allclose(scan.spacing, (0.05, 0.05, 0.08))
    save(scan, tmp_path / "b.nii")
    np.testing.assert_allclose(load(tmp_path / "b.nii").affine, scan.affine, atol=1e-6)


def hacked(path, *changes):
    saved(path, np.ones((4, 5, 6), np.int16))
    raw = bytearray(path.read_bytes())
    for at, kind, *values in changes:
        raw[at : at + struct.calcsize("<" + kind)] = struct.pack("<" + kind, *values)
    path.write_bytes(bytes(raw))
    return path


BAD = {
    "pixdim zero": (GeometryProblem, [(80, "f", 0.0), (252, "2h", 1, 0)]),
    "pixdim negative": (GeometryProblem, [(80, "f", -2.0), (252, "2h", 1, 0)]),
    "pixdim nan": (GeometryProblem, [(80, "f", float("nan")), (252, "2h", 0, 0)]),
    "affine nan": (GeometryProblem, [(280, "f", float("nan"))]),
    "affine inf": (GeometryProblem, [(292, "f", float("inf"))]),
    "affine flat": (GeometryProblem, [(280, "4f", 0, 0, 0, 0)]),
    "quaternion": (GeometryProblem, [(256, "3f", 3, 3, 3), (252, "2h", 1, 0)]),
    "no axes": (BrokenFile, [(40, "h", 0)]),
    "nine axes": (BrokenFile, [(40, "h", 9)]),
    "no voxels": (BrokenFile, [(42, "h", 0)]),
    "negative side": (BrokenFile, [(42, "h", -4)]),
    "huge": (BrokenFile, [(42, "3h", 30000, 30000, 30000)]),
    "too long": (BrokenFile, [(46, "h", 7)]),
    "five axes": (UnsupportedImage, [(40, "6h", 5, 2, 5, 3, 2, 2)]),
    "type": (UnsupportedImage, [(70, "h", 1)]),
    "unknown type": (UnsupportedImage, [(70, "h", 9999)]),
    "offset nan": (BrokenFile, [(108, "f", float("nan"))]),
    "offset far": (BrokenFile, [(108, "f", 1e15)]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_is_refused_with_a_sentence(tmp_path, name, packed):
    error, changes = BAD[name]
    path = hacked(tmp_path / "a.nii", *changes)
    if packed:
        packed_path = tmp_path / "a.nii.gz"
        packed_path.write_bytes(gzip.compress(path.read_bytes()))
        path = packed_path
    with pytest.raises(error) as caught:
        load(path)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_is_refused(tmp_path, dtype):
    with pytest.raises(UnsupportedImage, match="magnitude"):
        load(saved(tmp_path / "a.nii", np.ones((3, 3, 3), dtype)))


def test_rgb_is_refused(tmp_path):
    rgb = np.zeros((3, 3, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(UnsupportedImage, match="colours"):
        load(saved(tmp_path / "a.nii.gz", rgb))


def test_every_cut_of_a_packed_file_is_told(tmp_path):
    whole = saved(
        tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (20, 20, 20)).astype(np.int16)
    ).read_bytes()
    for length in (0, 1, 2, 5, 20, 100, len(whole) // 2, len(whole) - 9, len(whole) - 4, len(whole) - 1):
        (tmp_path / "b.nii.gz").write_bytes(whole[:length])
        with pytest.raises(FileProblem):
            load(tmp_path / "b.nii.gz")


def test_a_wrong_checksum_is_told(tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.ones((20, 20, 20), np.int16))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(BrokenFile, match="checksum"):
        load(path)


@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_scrambled_header_never_crashes(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("f") / "a.nii"
    raw = bytearray(hacked(path).read_bytes())
    for at, value in changes:
        raw[at] = value
    path.write_bytes(bytes(raw))
    try:
        assert load(path).data.ndim in (3, 4)
    except MriError:
        return


def test_a_pair_opens_by_either_file(tmp_path):
    image = nib.Nifti1Pair(np.arange(60, dtype=np.int16).reshape(3, 4, 5), GRIDS["oblique"].affine)
    nib.save(image, tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        np.testing.assert_array_equal(load(tmp_path / name).data, np.asarray(image.dataobj))
    (tmp_path / "a.img").unlink()
    with pytest.raises(BrokenFile, match="not there"):
        load(tmp_path / "a.hdr")
