"""DICOM SEG: real ones against their NRRD twins, ours against highdicom, damaged ones."""

import shutil
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from napari_mri.core.errors import BrokenFile, GeometryProblem, GridMismatch, MriError, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order, Step
from napari_mri.core.volume import Frames, Labels
from napari_mri.io.colors import lab_of_rgb, rgb_of_lab
from napari_mri.io.files import load, load_labels, save
from napari_mri.io.landing import landed, moved
from napari_mri.io.layered import SEGMENTS, is_layered, segments_of
from napari_mri.io.rtstruct import read_onto
from napari_mri.io.seg_write import write_seg
from tests.io.series import write_series
from tests.scans import GRIDS, blob, grid_of, head, marker

GRID = grid_of((12, 9, 7), (0.9, 1.1, 2.5), "LPS", (8.0, -5.0, 3.0))
PLANTED = (b"Doe", b"Jane", b"SECRET", b"19700102")


@pytest.mark.parametrize(
    ("name", "twins"),
    [
        ("liver", ["liver_seg"]),
        ("sparse-labelmap-noppv", ["sparse_labelmap_noppv_seg"]),
        ("partial_overlaps", ["partial_overlaps-1", "partial_overlaps-2", "partial_overlaps-3"]),
    ],
)
def test_real_segmentations_equal_their_nrrd_twins(data_dir, name, twins):
    labels = load_labels(data_dir / "dicom_seg" / f"{name}.dcm")
    masks = dict(segments_of(labels))
    seen = set()
    for twin in twins:
        other = load(data_dir / "dicom_seg" / f"{twin}.nrrd")
        for value in np.unique(other.data[other.data > 0]):
            seen.add(int(value))
            here = moved(masks[int(value)].view(np.uint8), labels.grid, other.grid)
            np.testing.assert_array_equal(here, other.data == value)
    assert seen == set(masks)


def test_overlapping_real_segments_are_layers(data_dir):
    labels = load_labels(data_dir / "dicom_seg" / "partial_overlaps.dcm")
    assert is_layered(labels)
    assert labels.n_frames < 5
    assert labels.names[2] == "ORANGE"
    red, green, blue = labels.colors[2]
    assert red > green > blue


def highdicom_mask(path, number):
    """Return the patient points (RAS) of one segment, as highdicom reads them."""
    volume = hd.seg.segread(path).get_volume(combine_segments=False)
    index = np.argwhere(volume.array[..., number - 1])
    points = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return points * (-1, -1, 1)


def same_points(one, other):
    assert one.shape == other.shape
    order = [np.lexsort(np.round(points, 2).T) for points in (one, other)]
    np.testing.assert_allclose(one[order[0]], other[order[1]], atol=1e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_highdicom_finds_the_voxels_where_we_put_them(tmp_path, name):
    labels = marker(GRIDS[name], 4)
    save(labels, tmp_path / "a.seg.dcm", sidecar=False)
    for number, value in ((1, 4), (2, 5)):
        want = labels.grid.to_patient(np.argwhere(labels.data == value))
        same_points(highdicom_mask(tmp_path / "a.seg.dcm", number), want)


@pytest.mark.parametrize("name", GRIDS)
def test_values_names_and_places_come_back(tmp_path, name):
    labels = replace(marker(GRIDS[name], 4), colors={4: (0.9, 0.4, 0.1)})
    back = load_labels(save(labels, tmp_path / "a.seg.dcm", sidecar=False))
    home = landed(back, labels)
    np.testing.assert_array_equal(home.data, labels.data)
    assert dict(back.names) == dict(labels.names)
    assert back.colors[4] == pytest.approx((0.9, 0.4, 0.1), abs=1e-3)


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
@pytest.mark.filterwarnings("error")
def test_names_of_any_script_come_back(tmp_path, ending):
    labels = replace(marker(GRIDS["plain"], 4), names={4: "Läsion 脑", 5: "x" * 70})
    path = save(labels, tmp_path / f"a{ending}", sidecar=False)
    assert pydicom.dcmread(path).SpecificCharacterSet == "ISO_IR 192"
    back = read_onto(path, head(GRIDS["plain"])) if ending == ".rtstruct.dcm" else load_labels(path)
    assert dict(back.names) == {4: "Läsion 脑", 5: "x" * 64}


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")])
def test_the_patients_name_is_carried_over_in_another_character_set(tmp_path, charset, name):
    def edit(ds, index):
        ds.SpecificCharacterSet, ds.PatientName, ds.StudyID = charset, name, "ü1" if charset == "ISO_IR 100" else "1"

    write_series(tmp_path / "scan", np.ones(GRID.shape, np.int16), GRID, edit)
    scan = load(tmp_path / "scan")
    write_seg(scan.with_labels(np.ones(GRID.shape, np.uint8), {1: "脑"}), tmp_path / "a.dcm", patient=True)
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert str(seg.PatientName) == name
    assert seg.StudyID == ("ü1" if charset == "ISO_IR 100" else "1")
    assert seg.SegmentSequence[0].SegmentLabel == "脑"


def layers():
    data = np.zeros((*GRID.shape, 2), np.uint8)
    data[2:7, 2:7, 1:4, 0] = 3
    data[5:9, 5:8, 2:6, 1] = 7
    return Labels(data, GRID, frames=SEGMENTS, names={3: "a", 7: "b"})


def test_overlapping_segments_survive(tmp_path):
    labels = layers()
    back = load_labels(save(labels, tmp_path / "a.dcm", sidecar=False))
    home = landed(back, labels)
    assert is_layered(home)
    for (value, mask), (other, want) in zip(segments_of(home), segments_of(labels), strict=True):
        assert value == other
        np.testing.assert_array_equal(mask, want)


def test_fractions_come_as_fractions(tmp_path):
    source = hd_source()
    volume = np.zeros((7, 9, 12, 2), np.float32)
    volume[2:5, 3:6, 4:8, 0] = 0.5
    volume[1, 1, 1, 1] = 1.0
    seg = fractional(source, volume)
    seg.save_as(tmp_path / "f.dcm")
    back = load(tmp_path / "f.dcm")
    assert back.data.dtype == np.float32
    assert back.n_frames == 2
    here = moved(back.data, back.grid, GRID)
    np.testing.assert_allclose(here, volume.transpose(2, 1, 0, 3), atol=1 / 255)
    assert "fractional" in " ".join(back.origin.warnings).lower()


def hd_source():
    from napari_mri.io.seg_write import _stand_in

    return _stand_in(GRID)


def fractional(source, array):
    from pydicom.sr.codedict import codes

    affine = (np.diag([-1, -1, 1, 1]) @ GRID.affine)[:, [2, 1, 0, 3]]
    described = [
        hd.seg.SegmentDescription(n, f"part {n}", codes.SCT.AnatomicalStructure, codes.SCT.Tissue, "MANUAL")
        for n in (1, 2)
    ]
    volume = hd.Volume(
        array, affine, coordinate_system="PATIENT", frame_of_reference_uid=source.FrameOfReferenceUID,
        channels={"SegmentNumber": [1, 2]},
    )  # fmt: skip
    return hd.seg.Segmentation(
        [source], volume, "FRACTIONAL", described, hd.UID(), 1, hd.UID(), 1, "x", "x", "1", "0",
    )  # fmt: skip


def test_the_source_series_is_referred_to_and_no_patient_is_written(tmp_path):
    data = np.arange(np.prod(GRID.shape), dtype=np.int16).reshape(GRID.shape)
    files = write_series(tmp_path / "scan", data, GRID)
    scan = load(tmp_path / "scan")
    labels = scan.with_labels((scan.data > 100).astype(np.uint8), {1: "high"}).after(
        Step("x", Order("segment", "somemodel"))
    )
    path = save(labels, tmp_path / "out" / "a.seg.dcm") if (tmp_path / "out").mkdir() is None else None
    seg, first = hd.seg.segread(path), pydicom.dcmread(files[0])
    assert seg.StudyInstanceUID == first.StudyInstanceUID
    series = seg.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == len(files)
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    for written in (tmp_path / "out").iterdir():
        for secret in PLANTED:
            assert secret not in written.read_bytes(), (written, secret)


def test_the_patient_is_carried_over_only_when_asked_for(tmp_path):
    write_series(tmp_path / "scan", np.ones(GRID.shape, np.int16), GRID)
    scan = load(tmp_path / "scan")
    write_seg(scan.with_labels(np.ones(GRID.shape, np.uint8)), tmp_path / "a.dcm", patient=True)
    assert str(pydicom.dcmread(tmp_path / "a.dcm").PatientName) == "Doe^Jane"
    write_seg(scan.with_labels(np.ones(GRID.shape, np.uint8)), tmp_path / "b.dcm")
    assert pydicom.dcmread(tmp_path / "b.dcm").PatientName == ""


def test_a_real_series_and_its_segmentation(tmp_path, data_dir):
    shutil.copytree(data_dir / "dicom_seg" / "ct-3slice", tmp_path / "ct")
    scan = load(tmp_path / "ct")
    liver = landed(load_labels(data_dir / "dicom_seg" / "liver.dcm"), scan)
    path = save(replace(liver, origin=scan.origin), tmp_path / "a.seg.dcm")
    seg = hd.seg.segread(path)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 3
    uids = {item.SourceImageSequence[0].ReferencedSOPInstanceUID
            for group in seg.PerFrameFunctionalGroupsSequence for item in group.DerivationImageSequence}  # fmt: skip
    assert uids <= {pydicom.dcmread(p).SOPInstanceUID for p in (tmp_path / "ct").iterdir()}
    np.testing.assert_array_equal(landed(load_labels(path), scan).data, liver.data)


def test_what_dicom_seg_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UnsupportedImage):
        save(head(GRIDS["plain"]), tmp_path / "a.seg.dcm")
    with pytest.raises(UnsupportedImage, match="no label"):
        save(Labels(np.zeros(GRID.shape, np.uint8), GRID), tmp_path / "a.seg.dcm")
    moving = Labels(np.ones((*GRID.shape, 2), np.uint8), GRID, frames=Frames("time"))
    with pytest.raises(UnsupportedImage):
        save(moving, tmp_path / "a.seg.dcm")
    affine = GRID.affine.copy()
    affine[:3, 2] += affine[:3, 0]
    with pytest.raises(GeometryProblem, match="sheared"):
        save(Labels(np.ones(GRID.shape, np.uint8), Grid(GRID.shape, affine)), tmp_path / "a.seg.dcm")
    assert not list(tmp_path.iterdir())


def broken(tmp_path, edit):
    path = save(layers(), tmp_path / "a.dcm", sidecar=False)
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(path)
    return path


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-20]), BrokenFile),
        (lambda ds: setattr(ds, "NumberOfFrames", 1000), BrokenFile),
        (lambda ds: setattr(ds, "Rows", 60000), BrokenFile),
        (lambda ds: ds.__delattr__("PerFrameFunctionalGroupsSequence"), BrokenFile),
        (lambda ds: ds.__delattr__("SharedFunctionalGroupsSequence"), GeometryProblem),
        (lambda ds: ds.__delattr__("PixelData"), BrokenFile),
        (
            lambda ds: setattr(
                ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0],
                "ImagePositionPatient",
                [1e9, 0, 0],
            ),
            MriError,
        ),
        (
            lambda ds: setattr(
                ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0, 1]
            ),
            GeometryProblem,
        ),
    ],
)
def test_damaged_segmentations_get_a_sentence(tmp_path, edit, error):
    with pytest.raises(error):
        load(broken(tmp_path, edit))


def test_landing_moves_and_refuses():
    labels = marker(GRID, 4)
    turned = labels.turned("SRP")
    cropped = replace(turned, data=turned.data, grid=turned.grid)
    np.testing.assert_array_equal(landed(cropped, labels).data, labels.data)
    small = Labels(labels.data[:6, :5, :4], GRID.cropped((0, 0, 0), (6, 5, 4)))
    home = landed(small, labels)
    np.testing.assert_array_equal(home.data[:6, :5, :4], small.data)
    assert not home.data[6:].any()
    half = Grid(
        GRID.shape, GRID.affine @ np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    with pytest.raises(GridMismatch, match="between"):
        landed(Labels(labels.data, half), labels)
    with pytest.raises(GridMismatch, match="mm"):
        landed(marker(grid_of((12, 9, 7), (1, 1, 1))), labels)
    with pytest.raises(GridMismatch, match="outside"):
        landed(labels, Labels(labels.data[:2, :2, :2], GRID.cropped((0, 0, 0), (2, 2, 2))))
    rotated = marker(grid_of((12, 9, 7), (0.9, 1.1, 2.5), "LPS", (0.0, 0.0, 30.0)))
    with pytest.raises(GridMismatch, match="turned by"):
        landed(rotated, labels)


def test_colours_survive_cielab():
    rng = np.random.default_rng(0)
    for color in [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 0, 1), *rng.random((20, 3))]:
        assert rgb_of_lab(lab_of_rgb(color)) == pytest.approx(tuple(color), abs=2e-3)


def test_a_large_blob_is_the_same_for_highdicom(tmp_path):
    grid = GRIDS["oblique"]
    labels = Labels(blob(grid).astype(np.uint8), grid)
    save(labels, tmp_path / "a.dcm", sidecar=False)
    same_points(highdicom_mask(tmp_path / "a.dcm", 1), grid.to_patient(np.argwhere(labels.data)))
