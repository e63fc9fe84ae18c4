"""What `convert` and `info` do only when they are asked."""

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

import napari_mri as mri
from napari_mri.cli import main
from tests.io.series import ramp, write_series
from tests.scans import grid_of

SHAPE = (12, 9, 7)
GRID = grid_of(SHAPE, (0.9, 1.1, 2.5), "LPS", (8.0, -5.0, 3.0))


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path / "scan", ramp(SHAPE), GRID)
    return tmp_path / "scan"


def test_unequal_slices_are_resampled_only_when_asked(tmp_path):
    def edit(ds, k):
        if k == 3:
            raise StopIteration

    write_series(tmp_path / "gap", ramp(SHAPE), GRID, edit)
    refused = call("convert", tmp_path / "gap", tmp_path / "a.nii.gz")
    assert refused.exit_code == 1
    assert "--resample" in refused.stderr
    assert not (tmp_path / "a.nii.gz").exists()
    done = call("convert", tmp_path / "gap", tmp_path / "a.nii.gz", "--resample")
    assert done.exit_code == 0
    assert "were resampled" in done.stderr
    assert mri.load(tmp_path / "a.nii.gz").data.shape == SHAPE
    assert "resampled" in mri.load(tmp_path / "a.nii.gz").history[-1].action


def test_precise_values_are_given_or_refused(tmp_path, folder):
    refused = call("convert", folder, tmp_path / "a.nii.gz", "--philips", "precise")
    assert refused.exit_code == 1
    assert "precise" in refused.stderr

    def edit(ds, k):
        ds.Manufacturer, ds.RescaleSlope, ds.RescaleIntercept = "Philips", "2", "0"
        ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.5)

    write_series(tmp_path / "philips", ramp(SHAPE), GRID, edit)
    assert "Philips, display" in call("info", tmp_path / "philips").stdout
    call("convert", tmp_path / "philips", tmp_path / "d.nii.gz")
    call("convert", tmp_path / "philips", tmp_path / "p.nii.gz", "--philips", "precise")
    display, precise = mri.load(tmp_path / "d.nii.gz"), mri.load(tmp_path / "p.nii.gz")
    np.testing.assert_allclose(precise.data, display.data / (2 * 0.5), rtol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "rtstruct", "turned"])
def test_a_mask_is_put_on_its_scan(tmp_path, folder, kind):
    scan = mri.load(folder)
    labels = scan.with_labels((scan.data % 5 == 0).astype(np.uint8), {1: "x"})
    if kind == "npy":
        np.save(tmp_path / "m.npy", labels.data)
        source = tmp_path / "m.npy"
    elif kind == "rtstruct":
        source = mri.save(labels, tmp_path / "m.rtstruct.dcm")
    else:
        source = mri.save(labels.turned("SPL"), tmp_path / "m.nii.gz")
    done = call("convert", source, tmp_path / "out.nii.gz", "--scan", folder)
    assert done.exit_code == 0, done.stderr
    back = mri.load_labels(tmp_path / "out.nii.gz")
    assert back.grid.same(scan.grid)
    np.testing.assert_array_equal(back.data, labels.data)


@pytest.mark.parametrize("ending", [".seg.dcm", ".rtstruct.dcm"])
def test_names_that_are_cut_are_told(tmp_path, folder, ending):
    scan = mri.load(folder)
    long = "Läsion 脑 " * 9
    mri.save(scan.with_labels((scan.data % 3).astype(np.uint8), {1: long, 2: "short"}), tmp_path / "m.nii.gz")
    done = call("convert", tmp_path / "m.nii.gz", tmp_path / f"out{ending}")
    assert done.exit_code == 0, done.stderr
    assert f"64 characters of a name; these were cut: '{long}'." in done.stderr


def test_a_mask_is_made_again_from_its_folder(tmp_path, folder):
    scan = mri.load(folder)
    place = tuple(scan.grid.centre)
    marks = mri.Prompts((mri.Point(place), mri.Slab((0, 0, 1), place[2] - 3, place[2] + 3)))
    mri.save(mri.segment(scan, marks, model="grow"), tmp_path / "m.seg.dcm")
    assert not mri.load_labels(tmp_path / "m.seg.dcm").grid.same(scan.grid)
    done = call("replay", tmp_path / "m.json", folder)
    assert "Same voxels" in done.stdout, done.output


def test_a_mask_of_another_scan_is_refused(tmp_path, folder):
    np.save(tmp_path / "m.npy", np.ones(SHAPE[::-1], np.uint8))
    refused = call("convert", tmp_path / "m.npy", tmp_path / "out.nii.gz", "--scan", folder)
    assert refused.exit_code == 1
    assert "save array.T" in refused.stderr


def test_whose_scan_it_is_goes_along_only_when_asked(tmp_path, folder):
    scan = mri.load(folder)
    mri.save(scan.with_labels((scan.data % 5 == 0).astype(np.uint8)), folder / "x.seg.dcm")
    for name, flags in (("a", ()), ("b", ("--patient",)), ("c", ("--nameless",))):
        done = call("convert", folder, tmp_path / f"{name}.seg.dcm", "--labels", *flags)
        assert done.exit_code == 0, done.stderr
    read = {name: pydicom.dcmread(tmp_path / f"{name}.seg.dcm") for name in "abc"}
    assert [str(read[name].PatientName) for name in "abc"] == ["", "Doe^Jane", ""]
    study = pydicom.dcmread(next(p for p in folder.iterdir() if p.suffix == "")).StudyInstanceUID
    assert read["a"].StudyInstanceUID == study
    assert read["c"].StudyInstanceUID != study  # nothing to go back by
    assert not (tmp_path / "c.seg.json").exists()
    wrong = call("convert", folder, tmp_path / "d.seg.dcm", "--labels", "--patient", "--nameless")
    assert wrong.exit_code == 1
    wrong = call("convert", folder, tmp_path / "d.nii.gz", "--patient")
    assert wrong.exit_code == 1
    assert "SEG" in wrong.stderr
    assert not (tmp_path / "d.nii.gz").exists()
