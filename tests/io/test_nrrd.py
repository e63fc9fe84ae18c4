"""NRRD: scans, Slicer's segmentations, and headers that lie. SimpleITK is the independent reader."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.errors import (
    BrokenFile,
    FileProblem,
    GeometryProblem,
    MriError,
    OutOfMemory,
    UnsupportedImage,
)
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.files import load, load_labels, save
from napari_mri.io.layered import SEGMENTS, is_layered
from tests.scans import GRIDS, head, marker

HEADER = """NRRD0004
type: {type}
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (1,0,0) (0,1,0) (0,0,2)
kinds: domain domain domain
endian: {endian}
encoding: {encoding}
space origin: (10,20,30)
{more}
"""


def written(path, body, encoding="raw", kind="short", endian="little", more=""):
    text = HEADER.format(type=kind, endian=endian, encoding=encoding, more=more).rstrip("\n")
    path.write_bytes(text.encode() + b"\n\n" + body)
    return path


def itk_affine(image):
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("name", GRIDS)
def test_simpleitk_reads_what_we_write_at_the_same_place(tmp_path, name):
    scan = head(GRIDS[name], np.int16)
    image = sitk.ReadImage(str(save(scan, tmp_path / "a.nrrd")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, scan.data)
    np.testing.assert_allclose(itk_affine(image), scan.affine, atol=1e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_we_read_what_simpleitk_writes_at_the_same_place(tmp_path, packed):
    image = sitk.GetImageFromArray(np.arange(4 * 3 * 5, dtype=np.float32).reshape(5, 3, 4))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 3.0, 44.0))
    image.SetDirection((0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), packed)
    scan = load(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(scan.data, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(scan.affine, itk_affine(image), atol=1e-9)


VALUES = np.arange(24, dtype=np.int16).reshape((4, 3, 2), order="F") - 5


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii", "hex"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_encoding(tmp_path, encoding, endian):
    import bz2

    raw = VALUES.astype(">i2" if endian == "big" else "<i2").tobytes(order="F")
    text = " ".join(map(str, VALUES.ravel("F"))).encode()
    body = {
        "raw": raw,
        "gzip": gzip.compress(raw),
        "bzip2": bz2.compress(raw),
        "ascii": text,
        "hex": raw.hex().encode(),
    }
    scan = load(written(tmp_path / "a.nrrd", body[encoding], encoding, endian=endian))
    np.testing.assert_array_equal(scan.data, VALUES)
    assert scan.data.dtype == np.int16
    np.testing.assert_allclose(scan.grid.to_patient((0, 0, 0)), (-10, -20, 30))


def test_voxels_in_a_file_beside(tmp_path):
    (tmp_path / "a.raw").write_bytes(VALUES.tobytes(order="F"))
    np.testing.assert_array_equal(
        load(written(tmp_path / "a.nhdr", b"", more="data file: a.raw\n")).data, VALUES
    )


@pytest.mark.parametrize("target", ["../a.raw", "/etc/passwd", "C:\\a.raw", "sub/../../a.raw", "..\\a.raw"])
def test_a_file_outside_the_folder_is_not_followed(tmp_path, target):
    (tmp_path / "a.raw").write_bytes(VALUES.tobytes(order="F"))
    (tmp_path / "in").mkdir()
    with pytest.raises(FileProblem, match="outside its own folder"):
        load(written(tmp_path / "in" / "a.nhdr", b"", more=f"data file: {target}\n"))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes(order="F"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "secret.raw")
    with pytest.raises(FileProblem, match="link"):
        load(written(tmp_path / "in" / "a.nhdr", b"", more="data file: a.raw\n"))


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("sizes: 4 3 2", "sizes: 4 3", BrokenFile),
        ("sizes: 4 3 2", "sizes: 4 3 0", BrokenFile),
        ("sizes: 4 3 2", "sizes: 4 3 -2", BrokenFile),
        ("sizes: 4 3 2", "sizes: 99999 99999 99999", BrokenFile),
        ("dimension: 3", "dimension: three", BrokenFile),
        ("type: short", "type: block", UnsupportedImage),
        ("endian: little", "endian: middle", BrokenFile),
        ("encoding: raw", "encoding: rot13", UnsupportedImage),
        ("(1,0,0) (0,1,0) (0,0,2)", "(1,0,0) (0,1,0) (1,1,0)", GeometryProblem),
        ("(1,0,0) (0,1,0) (0,0,2)", "(1,0,0) (0,1,0) (0,0,inf)", GeometryProblem),
        ("(1,0,0) (0,1,0) (0,0,2)", "(1,0,0) (0,1,0)", BrokenFile),
        ("(1,0,0) (0,1,0) (0,0,2)", "(1,0) (0,1) none", MriError),
        ("kinds: domain domain domain", "kinds: complex domain domain", BrokenFile),
    ],
)
def test_headers_that_lie(tmp_path, old, new, error):
    path = written(tmp_path / "a.nrrd", VALUES.tobytes(order="F"))
    text = path.read_bytes().replace(old.encode(), new.encode())
    if "complex" in new:  # a complex axis has no direction
        text = text.replace(b"(1,0,0) (0,1,0) (0,0,2)", b"none (0,1,0) (0,0,2)")
        error = UnsupportedImage
    path.write_bytes(text)
    with pytest.raises(error):
        load(path)


def test_a_promise_larger_than_the_file_takes_no_memory(tmp_path):
    body = gzip.compress(bytes(1000))
    path = written(tmp_path / "a.nrrd", body, "gzip")
    path.write_bytes(path.read_bytes().replace(b"sizes: 4 3 2", b"sizes: 40000 30000 20000"))
    with pytest.raises((BrokenFile, OutOfMemory), match="lies about its size"):
        load(path)


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_cut_off_voxels(tmp_path, cut):
    for encoding, body in (
        ("raw", VALUES.tobytes(order="F")),
        ("gzip", gzip.compress(VALUES.tobytes(order="F"))),
    ):
        path = written(tmp_path / "a.nrrd", body[: max(0, len(body) - cut)], encoding)
        if encoding == "gzip" and cut == 1:
            continue  # the checksum is gone, every voxel is there
        with pytest.raises(BrokenFile):
            load(path)


def test_a_damaged_checksum_is_told(tmp_path):
    body = bytearray(gzip.compress(VALUES.tobytes(order="F")))
    body[-6] ^= 0xFF
    with pytest.raises(BrokenFile, match="unpacked"):
        load(written(tmp_path / "a.nrrd", bytes(body), "gzip"))


def test_no_geometry_is_told(tmp_path):
    path = written(tmp_path / "a.nrrd", VALUES.tobytes(order="F"))
    text = path.read_bytes()
    for line in (
        b"space: left-posterior-superior\n",
        b"space directions: (1,0,0) (0,1,0) (0,0,2)\n",
        b"space origin: (10,20,30)\n",
    ):
        text = text.replace(line, b"")
    path.write_bytes(text)
    assert "no geometry" in " ".join(load(path).origin.warnings)


def test_segments_keep_names_colours_values_and_ids(tmp_path):
    labels = replace(marker(GRIDS["oblique"], 4), colors={4: (1.0, 0.5, 0.0)})
    back = load_labels(save(labels, tmp_path / "a.seg.nrrd", sidecar=False))
    np.testing.assert_array_equal(back.data, labels.data)
    assert dict(back.names) == {4: "block", 5: "corner"}
    assert back.colors[4] == pytest.approx((1.0, 0.5, 0.0))
    again = load_labels(save(back, tmp_path / "b.seg.nrrd", sidecar=False))
    assert again.origin.fields["segments"][4]["ID"] == back.origin.fields["segments"][4]["ID"]


def layers():
    grid = GRIDS["anisotropic"]
    data = np.zeros((*grid.shape, 2), np.uint8)
    data[3:9, 3:9, 3:9, 0] = 1
    data[6:12, 6:12, 6:12, 1] = 2
    data[0, 0, 0, 0] = 4
    return Labels(data, grid, frames=SEGMENTS, names={1: "a", 2: "b", 4: "c"})


def test_overlapping_segments_survive(tmp_path):
    labels = layers()
    back = load_labels(save(labels, tmp_path / "a.seg.nrrd"))
    assert is_layered(back)
    for value in (1, 2, 4):
        np.testing.assert_array_equal((back.data == value).any(axis=3), (labels.data == value).any(axis=3))
    assert dict(back.names) == dict(labels.names)


def test_layers_that_do_not_overlap_come_as_one_map(tmp_path):
    labels = layers()
    data = labels.data.copy()
    data[..., 1][data[..., 0] > 0] = 0
    back = load_labels(save(replace(labels, data=data), tmp_path / "a.seg.nrrd"))
    assert back.data.ndim == 3
    np.testing.assert_array_equal(back.data, data.max(axis=3))


def test_a_segmentation_takes_neither_grey_values_nor_time(tmp_path):
    scan = head(GRIDS["plain"])
    with pytest.raises(UnsupportedImage, match="holds labels"):
        save(scan, tmp_path / "a.seg.nrrd")
    moving = Labels(np.zeros((*scan.grid.shape, 3), np.uint8), scan.grid, frames=Frames("time", 1.0, "s"))
    with pytest.raises(UnsupportedImage, match="not for time"):
        save(moving, tmp_path / "a.seg.nrrd")
    assert not list(tmp_path.iterdir())


def test_time_comes_back(tmp_path):
    grid = GRIDS["flipped"]
    scan = Volume(
        np.random.default_rng(0).random((*grid.shape, 3)).astype("f4"), grid, frames=Frames("time", 2.5, "s")
    )
    back = load(save(scan, tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(back.data, scan.data)
    assert (back.frames.kind, back.frames.step, back.frames.unit) == ("time", 2.5, "s")
    assert sitk.ReadImage(str(tmp_path / "a.nrrd")).GetNumberOfComponentsPerPixel() == 3


def test_names_with_line_breaks_and_marks_come_back(tmp_path):
    labels = replace(marker(GRIDS["plain"]), names={1: 'a\\b\nc := d "e"', 2: "Läsion ✓"})
    assert dict(load_labels(save(labels, tmp_path / "a.seg.nrrd", sidecar=False)).names) == dict(labels.names)


def test_dcmqi_label_maps_agree_with_simpleitk(data_dir):
    files = sorted((data_dir / "dicom_seg").glob("*.nrrd"))
    assert files
    for path in files:
        image = sitk.ReadImage(str(path))
        ours = load(path)
        np.testing.assert_array_equal(ours.data, sitk.GetArrayFromImage(image).T)
        np.testing.assert_allclose(ours.affine, itk_affine(image), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_header_ends_in_a_volume_or_a_sentence(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "a.nrrd"
    path.write_bytes(b"NRRD0004\n" + junk + b"\n\n" + bytes(64))
    with pytest.raises(MriError):
        load(path)


@pytest.mark.parametrize("value", [-1, 0, 1 << 40])
def test_label_values_out_of_range(tmp_path, value):
    path = save(layers(), tmp_path / "a.seg.nrrd")
    text = path.read_bytes().replace(b"Segment2_LabelValue:=4", f"Segment2_LabelValue:={value}".encode())
    path.write_bytes(text)
    back = load_labels(path)
    assert "numbered anew" in " ".join(back.origin.warnings)
    assert set(back.names) == {1, 2, 3}
    one = save(marker(GRIDS["plain"]), tmp_path / "b.seg.nrrd")
    one.write_bytes(one.read_bytes().replace(b"_LabelValue:=2", f"_LabelValue:={value}".encode()))
    with pytest.raises(BrokenFile, match="out of range"):
        load(one)


def test_a_series_of_one_plane_opens_as_one_slice(tmp_path):
    data = np.arange(4 * 5 * 3, dtype="u1").reshape(5, 4, 3)  # as it lies in the file: the last axis first
    head = (
        b"NRRD0005\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 4 5\nencoding: raw\n"
        b"kinds: list domain domain\nspace directions: none (1,0,0) (0,2,0)\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(head + data.tobytes())
    scan = load(tmp_path / "a.nrrd")
    assert scan.data.shape == (4, 5, 1, 3)
    np.testing.assert_array_equal(scan.data[:, :, 0], data.transpose(1, 0, 2))
