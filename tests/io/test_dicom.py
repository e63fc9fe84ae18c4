"""Classic series: order, geometry, scaling, choosing, and what is refused; pydicom writes them."""

import math

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from napari_mri.core.errors import (
    BrokenFile,
    FileProblem,
    GeometryProblem,
    MriError,
    NotAnImage,
    SeveralSeries,
    UnsupportedImage,
)
from napari_mri.io.files import load, load_all, survey
from tests.io.series import at_same_place, header, ramp, set_pixels, write_series
from tests.scans import GRIDS, grid_of

SHAPE = (11, 13, 7)


def grid(name="oblique"):
    source = GRIDS[name]
    return grid_of(SHAPE, (1.5, 0.8, 3.0), source.axes, (12.0, -7.0, 18.0) if name == "oblique" else (0, 0, 0))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_a_series_stands_where_it_was_written(tmp_path, name, dtype):
    data = ramp(SHAPE, dtype)
    write_series(tmp_path / "s", data, grid(name))
    scan = load(tmp_path / "s")
    assert scan.data.dtype == dtype
    assert scan.origin.format == "dicom"
    assert scan.origin.warnings == ()
    at_same_place(scan, data, grid(name))


def test_nested_folders_and_strange_files_do_not_matter(tmp_path):
    data = ramp(SHAPE)
    paths = write_series(tmp_path / "s", data, grid())
    (tmp_path / "s" / "deep" / "er").mkdir(parents=True)
    for path in paths[::2]:
        path.rename(tmp_path / "s" / "deep" / "er" / path.name)
    (tmp_path / "s" / "notes.txt").write_text("hello")
    (tmp_path / "s" / "empty").write_bytes(b"")
    (tmp_path / "s" / "._00001").write_bytes(b"junk")
    at_same_place(load(tmp_path / "s"), data, grid())


def test_one_file_stands_for_its_series_only(tmp_path):
    data = ramp(SHAPE)
    first = write_series(tmp_path, data, grid())
    write_series(tmp_path, ramp(SHAPE, seed=9), grid(), start=100)
    at_same_place(load(first[3]), data, grid())


def test_titles_tell_number_name_and_size_and_no_patient(tmp_path):
    write_series(tmp_path, ramp(SHAPE), grid())
    scan = load(tmp_path)
    assert scan.title == "3 T1 MPRAGE 11×13×7"
    kept = repr((scan.title, dict(scan.origin.fields), scan.origin.warnings))
    for secret in ("Doe", "SECRET", "19700102"):
        assert secret not in kept


def number_as(value, name="T1 MPRAGE"):
    def edit(ds, k):
        ds.SeriesNumber, ds.SeriesDescription = value, name

    return edit


def test_several_series_are_listed_and_chosen(tmp_path):
    one, two = ramp(SHAPE), ramp(SHAPE, seed=4)
    write_series(tmp_path / "a", one, grid(), number_as(3))
    write_series(tmp_path / "b", two, grid(), number_as(14, "T2 TSE"))
    with pytest.raises(SeveralSeries) as caught:
        load(tmp_path)
    assert sorted(name.split(": ")[1] for name in caught.value.names) == ["14 T2 TSE 11×13×7", "3 T1 MPRAGE 11×13×7"]
    assert "--series" in caught.value.hint
    for choice in (14, "14", "T2 tse", "t2"):
        at_same_place(load(tmp_path, series=choice), two, grid())
    with pytest.raises(SeveralSeries, match="No series"):
        load(tmp_path, series="FLAIR")
    assert [len(v.data.shape) for v in load_all(tmp_path)] == [3, 3]


def test_orientations_of_a_localizer_are_kept_apart(tmp_path):
    series = {}
    for n, axes in enumerate(("LPS", "LIP", "PIR")):

        def edit(ds, k, n=n):
            ds.SeriesInstanceUID, ds.StudyInstanceUID = "1.2.3", "1.2"
            ds.SeriesDescription = "localizer"

        series[axes] = ramp((11, 11, 3), seed=n)
        write_series(tmp_path, series[axes], grid_of((11, 11, 3), (2, 2, 9), axes), edit, start=100 * n)
    found = survey(tmp_path)
    assert sorted(one.title for one in found) == [f"3 localizer {p} 11×11×3" for p in ("axial", "coronal", "sagittal")]
    for volume in load_all(tmp_path):
        assert volume.data.shape == (11, 11, 3)


def test_a_missing_slice_is_refused_and_its_parts_open(tmp_path):
    data = ramp((11, 13, 9))
    whole = grid_of((11, 13, 9), (1.5, 0.8, 3.0))

    def edit(ds, k):
        if k == 5:
            raise StopIteration

    write_series(tmp_path, data, whole, edit)
    with pytest.raises(GeometryProblem, match="missing") as caught:
        load(tmp_path)
    assert "6.00 mm" in str(caught.value)
    parts = load_all(tmp_path)
    assert [part.data.shape[2] for part in parts] == [5, 3]
    at_same_place(parts[0], data[:, :, :5], whole.cropped((0, 0, 0), (11, 13, 5)))
    at_same_place(load(tmp_path, series="part 2"), data[:, :, 6:], whole.cropped((0, 0, 6), (11, 13, 9)))


def moved(offsets):
    def edit(ds, k):
        x, y, z = map(float, ds.ImagePositionPatient)
        dx, dz = offsets(k)
        ds.ImagePositionPatient = [f"{x + dx:.6f}", f"{y:.6f}", f"{z + dz:.6f}"]

    return edit


def test_unequal_spacing_is_refused_and_rounding_is_not(tmp_path):
    plain = grid_of(SHAPE, (1.5, 0.8, 3.0), "LPS")
    write_series(tmp_path / "bad", ramp(SHAPE), plain, moved(lambda k: (0, k * k * 0.4)))
    with pytest.raises(GeometryProblem, match="spaced unequally"):
        load(tmp_path / "bad")
    write_series(tmp_path / "fair", ramp(SHAPE), plain, moved(lambda k: (0, 0.1 * (k % 2))))
    assert "equal spacing" in load(tmp_path / "fair").origin.warnings[0]
    write_series(tmp_path / "good", ramp(SHAPE), plain, moved(lambda k: (0, 0.004 * (k % 2))))
    assert load(tmp_path / "good").origin.warnings == ()


def test_gantry_tilt_gives_a_sheared_grid_that_says_so(tmp_path):
    plain = grid_of(SHAPE, (1.5, 0.8, 3.0), "LPS")
    write_series(tmp_path, ramp(SHAPE), plain, moved(lambda k: (0.5 * k, 0)))
    scan = load(tmp_path)
    assert scan.grid.sheared
    assert "tilt" in scan.origin.warnings[0]
    last = scan.grid.to_patient((0, 0, 6)) - plain.to_patient((0, 0, 6))
    np.testing.assert_allclose(last, (-3.0, 0, 0), atol=1e-4)


def test_the_same_images_twice_are_taken_once(tmp_path):
    data = ramp(SHAPE)
    for path in write_series(tmp_path, data, grid()):
        path.with_name("copy_" + path.name).write_bytes(path.read_bytes())
    scan = load(tmp_path)
    at_same_place(scan, data, grid())
    assert "twice" in scan.origin.warnings[0]


def test_two_images_at_each_place_that_nothing_tells_apart_are_refused(tmp_path):
    def edit(ds, k):
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.InstanceNumber = "1.2.3", "1.2", 1

    write_series(tmp_path, ramp(SHAPE), grid(), edit)
    write_series(tmp_path, ramp(SHAPE, seed=8), grid(), edit, start=100)
    with pytest.raises(GeometryProblem, match="nothing in the headers tells them apart"):
        load(tmp_path)


def frames(tmp_path, volumes, tell):
    for t, data in enumerate(volumes):

        def edit(ds, k, t=t):
            ds.SeriesInstanceUID, ds.StudyInstanceUID = "1.2.3", "1.2"
            tell(ds, t, k)

        write_series(tmp_path, data, grid(), edit, start=1000 * t)


VOLUMES = [ramp(SHAPE, seed=n) for n in range(3)]


def by_clock(ds, t, k):
    ds.InstanceNumber, ds.AcquisitionTime, ds.RepetitionTime = 1, f"10{t:02d}{3 * k:02d}.250000", "60000"


def by_instance(ds, t, k):
    ds.InstanceNumber, ds.RepetitionTime = 100 - k + 1000 * t, "60000"


def by_temporal(ds, t, k):
    ds.InstanceNumber, ds.TemporalPositionIdentifier, ds.RepetitionTime = 500 - 7 * t - k, t + 1, "60000"


@pytest.mark.parametrize("tell", [by_clock, by_instance, by_temporal])
def test_time_series_are_put_in_order(tmp_path, tell):
    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert scan.data.shape == (*SHAPE, 3)
    assert (scan.frames.kind, scan.frames.step, scan.frames.unit) == ("time", 60.0, "s")
    for t, data in enumerate(VOLUMES):
        at_same_place(scan.frame(t), data, grid())


def test_cine_takes_its_step_from_the_trigger(tmp_path):
    def tell(ds, t, k):
        ds.InstanceNumber, ds.TriggerTime, ds.RepetitionTime, ds.AcquisitionTime = 1, f"{40 * t}", "3.2", "101500"

    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert (scan.frames.kind, scan.frames.unit) == ("time", "s")
    assert math.isclose(scan.frames.step, 0.04)
    at_same_place(scan.frame(2), VOLUMES[2], grid())


def test_echoes_become_frames_with_their_times(tmp_path):
    def tell(ds, t, k):
        ds.EchoTime, ds.InstanceNumber = f"{30 - 10 * t}", 1

    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert scan.frames.kind == "echo"
    assert scan.frames.times == (10.0, 20.0, 30.0)
    at_same_place(scan.frame(0), VOLUMES[2], grid())


def test_phase_and_magnitude_are_kept_apart(tmp_path):
    def tell(ds, t, k):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "MP"[t], "ND"]

    frames(tmp_path, VOLUMES[:2], tell)
    found = survey(tmp_path)
    assert [one.title.split()[3] for one in found] == ["magnitude", "phase"]
    phase = load(tmp_path, series="phase")
    at_same_place(phase, VOLUMES[1], grid())
    assert "phase part" in phase.origin.warnings[0]


def test_a_scan_that_was_stopped_keeps_its_whole_frames(tmp_path):
    def tell(ds, t, k):
        by_temporal(ds, t, k)
        if t == 2 and k > 3:
            raise StopIteration

    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert scan.data.shape == (*SHAPE, 2)
    assert "left out" in scan.origin.warnings[0]
    at_same_place(scan.frame(1), VOLUMES[1], grid())


VECTORS = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.6, 0.0, 0.8)]


@pytest.mark.parametrize("name", GRIDS)
def test_diffusion_directions_turn_with_the_image(tmp_path, name):
    def tell(ds, t, k):
        ds.DiffusionBValue = 1000.0 * (t > 0)
        ds.DiffusionGradientOrientation = list(VECTORS[t])
        ds.InstanceNumber = t * 50 + k

    for t, data in enumerate(VOLUMES):

        def edit(ds, k, t=t):
            ds.SeriesInstanceUID, ds.StudyInstanceUID = "1.2.3", "1.2"
            tell(ds, t, k)

        write_series(tmp_path, data, grid(name), edit, start=1000 * t)
    scan = load(tmp_path)
    assert scan.frames.kind == "diffusion"
    assert scan.frames.bvals == (0.0, 1000.0, 1000.0)
    for volume in (scan, scan.turned("RAS"), scan.turned("LPS"), scan.turned("SAL")):
        mirror = -1.0 if np.linalg.det(volume.affine[:3, :3]) > 0 else 1.0
        for told, vector in zip(volume.frames.bvecs, VECTORS, strict=True):
            back = volume.grid.directions @ (np.asarray(told) * (mirror, 1, 1)) * (-1, -1, 1)
            np.testing.assert_allclose(back, vector, atol=1e-5)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_transfer_syntaxes(tmp_path, syntax):
    data = ramp(SHAPE, np.uint16)

    def edit(ds, k):
        if syntax == RLELossless:
            ds.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
            ds["PixelData"].VR = "OW"
        ds.file_meta.TransferSyntaxUID = syntax

    write_series(tmp_path, data, grid(), edit)
    at_same_place(load(tmp_path), data, grid())


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"), [("1", "0", np.int16), ("1", "-1024", np.int16), ("2.5", "3", np.float32)]
)
def test_rescaling(tmp_path, slope, inter, dtype):
    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = slope, inter

    data = ramp(SHAPE)
    write_series(tmp_path, data, grid(), edit)
    scan = load(tmp_path)
    assert scan.data.dtype == dtype
    at_same_place(scan, (data * float(slope) + float(inter)).astype(dtype), grid())


def test_slices_scaled_differently_share_one_scale(tmp_path):
    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = f"{1 + 0.5 * k}", "0"

    data = ramp(SHAPE)
    write_series(tmp_path, data, grid(), edit)
    at_same_place(load(tmp_path), (data * (1 + 0.5 * np.arange(SHAPE[2]))).astype(np.float32), grid())


def test_bits_above_the_stored_ones_are_cleared(tmp_path):
    data = ramp(SHAPE, np.uint16) & 0xFFF

    def edit(ds, k):
        ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) | 0x8000).tobytes()
        ds.BitsStored, ds.HighBit = 12, 11

    write_series(tmp_path, data, grid(), edit)
    at_same_place(load(tmp_path), data, grid())


def without(*names):
    def edit(ds, k):
        for name in names:
            delattr(ds, name)

    return edit


def test_no_geometry_opens_with_unit_spacing_and_says_so(tmp_path):
    write_series(
        tmp_path,
        ramp(SHAPE),
        grid(),
        without("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    )
    scan = load(tmp_path)
    assert scan.spacing == (1, 1, 1)
    assert scan.data.shape == SHAPE
    assert "no geometry" in scan.origin.warnings[0]


def test_one_slice_opens_and_says_so(tmp_path):
    write_series(tmp_path, ramp((11, 13, 1)), grid_of((11, 13, 1), (1, 1, 5)))
    scan = load(tmp_path)
    assert scan.data.shape == (11, 13, 1)
    assert scan.spacing[2] == 5
    assert "single slice" in scan.origin.warnings[0]


def test_no_pixels_colours_and_reports_are_refused(tmp_path):
    write_series(tmp_path / "nopix", ramp(SHAPE), grid(), without("PixelData"))
    with pytest.raises(UnsupportedImage, match="no pixel data"):
        load(tmp_path / "nopix")

    def colour(ds, k):
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.PixelData = ds.PixelData * 3

    write_series(tmp_path / "rgb", ramp(SHAPE, np.uint8), grid(), colour)
    with pytest.raises(UnsupportedImage, match="colours"):
        load(tmp_path / "rgb")

    ds = header("1.2.840.10008.5.1.4.1.1.88.11")
    ds.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with pytest.raises(UnsupportedImage, match="not an image"):
        load(tmp_path / "report.dcm")


def test_an_empty_folder_and_other_files_are_refused(tmp_path):
    (tmp_path / "e").mkdir()
    for path in (tmp_path / "e", tmp_path / "note.txt", tmp_path / "gone"):
        if path.suffix:
            path.write_text("hello, I am a note")
        with pytest.raises(FileProblem) as caught:
            load(path)
        assert caught.value.hint
    with pytest.raises(NotAnImage, match="holds no images"):
        load(tmp_path / "e")


def test_every_cut_of_a_slice_is_told_or_leaves_a_volume(tmp_path):
    paths = write_series(tmp_path, ramp(SHAPE), grid())
    raw = paths[2].read_bytes()
    for length in (*range(0, len(raw), 37), len(raw) - 1):
        paths[2].write_bytes(raw[:length])
        with pytest.raises(MriError):  # the middle slice is missing, or cut off
            load(tmp_path)
    paths[2].write_bytes(raw)
    assert load(tmp_path).data.shape == SHAPE


@pytest.mark.parametrize("at", [140, 300, 500])
def test_scrambled_slices_never_crash(tmp_path, at):
    paths = write_series(tmp_path, ramp(SHAPE), grid())
    raw = paths[2].read_bytes()
    rng = np.random.default_rng(at)
    for _ in range(60):
        broken = bytearray(raw)
        for place in rng.integers(at, min(at + 300, len(raw)), 3):
            broken[place] = rng.integers(0, 256)
        paths[2].write_bytes(bytes(broken))
        try:
            for volume in load_all(tmp_path):
                assert np.isfinite(volume.affine).all()
        except MriError:
            continue


def test_a_lie_about_rows_takes_no_memory(tmp_path):
    ds = header()
    set_pixels(ds, ramp((8, 8, 1), np.uint16)[:, :, 0])
    ds.Rows = ds.Columns = 65535
    ds.NumberOfFrames = 2000
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BrokenFile, match="cut off"):
        load(tmp_path / "a.dcm")


def test_a_dicomdir_stands_for_its_folder(tmp_path):
    data = ramp(SHAPE)
    write_series(tmp_path / "IMAGES", data, grid())
    header("1.2.840.10008.1.3.10").save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    at_same_place(load(tmp_path / "DICOMDIR"), data, grid())


def test_paths_in_a_dicomdir_are_not_followed(tmp_path):
    """It stands for its folder: what it points to elsewhere stays closed."""
    inside, outside = ramp(SHAPE), ramp(SHAPE, seed=8)
    write_series(tmp_path / "disc" / "IMAGES", inside, grid())
    secret = write_series(tmp_path / "elsewhere", outside, grid())
    ds = header("1.2.840.10008.1.3.10")
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "elsewhere", secret[0].name]
    absolute = Dataset()
    absolute.DirectoryRecordType, absolute.ReferencedFileID = "IMAGE", str(secret[1])
    ds.DirectoryRecordSequence = [record, absolute]
    ds.save_as(tmp_path / "disc" / "DICOMDIR", enforce_file_format=True)
    found = load_all(tmp_path / "disc" / "DICOMDIR")
    assert len(found) == 1
    at_same_place(found[0], inside, grid())


def test_names_in_other_alphabets(tmp_path):
    def edit(ds, k):
        ds.SpecificCharacterSet, ds.SeriesDescription = "ISO_IR 192", "頭部 T1"

    write_series(tmp_path, ramp(SHAPE), grid(), edit)
    assert load(tmp_path).title.startswith("3 頭部 T1")


def test_thick_slices_that_overlap_are_not_merged(tmp_path):
    data, close = ramp((6, 5, 9)), grid_of((6, 5, 9), (1, 1, 0.5))

    def edit(ds, k):
        ds.SliceThickness = "20"

    write_series(tmp_path, data, close, edit)
    at_same_place(load(tmp_path), data, close)


def test_positions_that_tremble_in_time_are_one_place(tmp_path):
    def tell(ds, t, k):
        by_temporal(ds, t, k)
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [f"{x:.5f}", f"{y:.5f}", f"{z + 0.02 * t:.5f}"]

    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert scan.data.shape == (*SHAPE, 3)
    np.testing.assert_array_equal(scan.frame(0).turned("RAS").data.sum(), VOLUMES[0].sum())


def test_a_screenshot_beside_the_scan_does_not_ask_which(tmp_path):
    def colour(ds, k):
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.PixelData = ds.PixelData * 3

    data = ramp(SHAPE)
    write_series(tmp_path / "scan", data, grid())
    write_series(tmp_path / "shot", ramp((40, 30, 1), np.uint8), grid_of((40, 30, 1), (1, 1, 1)), colour)
    scan = load(tmp_path)
    at_same_place(scan, data, grid())
    assert "screenshots" in scan.origin.warnings[0]


def test_a_repetition_time_of_one_line_is_no_frame_time(tmp_path):
    def tell(ds, t, k):
        ds.InstanceNumber, ds.TemporalPositionIdentifier, ds.RepetitionTime = 1, t + 1, "3.4"

    frames(tmp_path, VOLUMES, tell)
    scan = load(tmp_path)
    assert (scan.frames.kind, scan.frames.step) == ("time", 0.0)
