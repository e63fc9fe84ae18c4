import json

import nibabel as nib
import numpy as np
import pytest

from napari_mri.core.errors import FileProblem
from napari_mri.core.history import Order, Step
from napari_mri.core.volume import Labels, Origin, Volume
from napari_mri.io.files import load, save
from napari_mri.io.history import read_history
from tests.scans import GRIDS, head, marker

STEP = Step(
    "skullstrip by threshold", Order("skullstrip", "threshold", {"close_mm": 2.0}), {"device": "cpu"}, ("told",)
)


def test_history_comes_back(tmp_path):
    scan = head(GRIDS["oblique"]).after(STEP)
    save(scan, tmp_path / "a.nii.gz")
    assert load(tmp_path / "a.nii.gz").history == (STEP,)
    assert read_history(tmp_path / "a.json") == (STEP,)


def test_the_sidecar_tells_what_was_saved_and_no_names_or_paths(tmp_path):
    secret = tmp_path / "doe_jane"
    secret.mkdir()
    origin = Origin("doe_jane_scan", "nifti", str(secret / "scan.nii"), {"descrip": "doe"})
    labels = Labels(
        np.ones((3, 4, 5), np.uint8), marker(GRIDS["plain"]).grid.cropped((0, 0, 0), (3, 4, 5)), (STEP,), None, origin
    )
    save(labels, secret / "doe_jane_mask.nii.gz")
    text = (secret / "doe_jane_mask.json").read_text()
    record = json.loads(text)
    assert record["fingerprint"] == load(secret / "doe_jane_mask.nii.gz").fingerprint()
    assert record["history"][0]["order"]["model"] == "threshold"
    assert "doe" not in text
    assert str(tmp_path) not in text


def test_a_foreign_json_is_left_alone(tmp_path):
    foreign = '{"EchoTime": 0.003}'
    (tmp_path / "sub-01_T1w.json").write_text(foreign)
    save(head(GRIDS["plain"]).after(STEP), tmp_path / "sub-01_T1w.nii.gz")
    assert (tmp_path / "sub-01_T1w.json").read_text() == foreign
    assert (tmp_path / "sub-01_T1w.history.json").exists()
    assert load(tmp_path / "sub-01_T1w.nii.gz").history == (STEP,)


def test_two_files_of_one_stem_keep_their_own_histories(tmp_path):
    other = Step("denoise by nlm")
    save(head(GRIDS["plain"]).after(STEP), tmp_path / "a.nii.gz")
    save(head(GRIDS["plain"]).after(other), tmp_path / "a.nii")
    assert load(tmp_path / "a.nii.gz").history == (STEP,)
    assert load(tmp_path / "a.nii").history == (other,)


def test_a_history_of_an_older_file_is_not_believed(tmp_path):
    save(head(GRIDS["plain"]).after(STEP), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    scan = load(tmp_path / "a.nii.gz")
    assert scan.history == ()
    assert "older version" in scan.origin.warnings[0]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"napari_mri": 3}', '{"napari_mri": {}, "history": [{"order": 3}]}', "\x00" * 50]
)
def test_a_damaged_sidecar_does_not_stop_the_scan(tmp_path, content):
    save(head(GRIDS["plain"]), tmp_path / "a.nii.gz")
    (tmp_path / "a.json").write_text(content)
    assert load(tmp_path / "a.nii.gz").history == ()


def test_no_sidecar_where_none_is_wanted(tmp_path):
    save(head(GRIDS["plain"]).after(STEP), tmp_path / "a.nii.gz", sidecar=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_read_history_refuses_other_json(tmp_path):
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(FileProblem, match="not a history"):
        read_history(tmp_path / "b.json")


def test_facts_of_numpy_are_written(tmp_path):
    step = Step("x", None, {"dice": np.float32(0.5), "shape": np.array([1, 2]), "deep": {"a": (1, 2)}})
    save(Volume(np.zeros((3, 3, 3)), GRIDS["plain"].cropped((0, 0, 0), (3, 3, 3)), (step,)), tmp_path / "a.nii")
    assert load(tmp_path / "a.nii").history[0].facts["shape"] == [1, 2]
