"""BIDS: names, inherited sidecars, and derivatives beside the raw data."""

import json

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, FileProblem
from napari_mri.core.history import Step
from napari_mri.io.bids import BidsName, derivatives_of, root_of, save_derivative, sidecar_of
from napari_mri.io.files import load, load_labels, save
from tests.scans import GRIDS, head, marker


@pytest.fixture
def scan(tmp_path):
    folder = tmp_path / "set" / "sub-01" / "ses-a" / "anat"
    folder.mkdir(parents=True)
    return save(head(GRIDS["oblique"], np.int16), folder / "sub-01_ses-a_T1w.nii.gz", sidecar=False)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("sub-01_ses-a_T1w.nii.gz", True), ("sub-01_task-rest_run-1_bold.nii", True), ("T1w.nii.gz", False),
        ("ses-a_sub-01_T1w.nii.gz", False), ("sub-01_T1w.mha", False), ("sub-01_a_T1w.nii.gz", False),
    ],
)  # fmt: skip
def test_names(name, good):
    found = BidsName.of(name)
    assert (found is not None) is good
    if found is not None:
        assert str(found) == name


def test_sidecars_are_inherited_and_the_nearest_wins(tmp_path, scan):
    root = tmp_path / "set"
    assert root_of(scan) == root
    (root / "T1w.json").write_text('{"EchoTime": 1, "FlipAngle": 8}')
    (root / "T2w.json").write_text('{"Wrong": 1}')
    (scan.parent / "sub-01_ses-a_T1w.json").write_text('{"EchoTime": 3}')
    (scan.parent / "sub-02_T1w.json").write_text('{"Wrong": 2}')
    (root / "sub-01" / "sub-01_T1w.json").write_text("not json")
    assert sidecar_of(scan) == {"EchoTime": 3, "FlipAngle": 8}
    assert sidecar_of(tmp_path / "a.nii.gz") == {}


def test_a_mask_goes_to_the_derivatives_and_is_found_again(tmp_path, scan):
    volume = load(scan)
    mask = volume.with_labels((volume.data > 200).astype(np.uint8)).after(Step("threshold"))
    path = save_derivative(mask, scan, "brain")
    home = tmp_path / "set" / "derivatives" / "napari_mri"
    assert path == home / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_desc-brain_mask.nii.gz"
    np.testing.assert_array_equal(load_labels(path).data, mask.data)
    told = json.loads(path.with_name("sub-01_ses-a_desc-brain_mask.json").read_text())
    assert told["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    assert told["Type"] == "Brain"
    assert told["napari_mri_history"][0]["action"] == "threshold"
    assert json.loads((home / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert derivatives_of(scan) == (path,)


def test_several_labels_get_a_table_of_names(scan):
    path = save_derivative(marker(GRIDS["oblique"], 4), scan, "parts")
    assert path.name == "sub-01_ses-a_desc-parts_dseg.nii.gz"
    assert (
        path.with_name("sub-01_ses-a_desc-parts_dseg.tsv")
        .read_text()
        .splitlines()[2]
        .startswith("4\tblock\t#")
    )


def test_what_is_no_bids_is_refused(tmp_path, scan):
    with pytest.raises(FileProblem, match="BIDS"):
        save_derivative(marker(GRIDS["plain"]), tmp_path / "a.nii.gz", "x")
    with pytest.raises(BadOption):
        save_derivative(marker(GRIDS["plain"]), scan, "../x")
