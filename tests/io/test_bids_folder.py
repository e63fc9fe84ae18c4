"""BIDS folders: scans, with what was derived from each."""

import numpy as np
import pytest

from napari_mri.core.errors import SeveralSeries
from napari_mri.core.volume import Labels
from napari_mri.io.bids import save_derivative
from napari_mri.io.files import load, load_all, save, survey
from tests.scans import GRIDS, head


@pytest.fixture
def dataset(tmp_path):
    scan = head(GRIDS["plain"], np.int16)
    for sub in ("01", "02"):
        folder = tmp_path / f"sub-{sub}" / "anat"
        folder.mkdir(parents=True)
        save(scan, folder / f"sub-{sub}_T1w.nii.gz", sidecar=False)
    own = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    labels = scan.with_labels((scan.data > 300).astype(np.uint8) * 4, {4: "brain tissue"})
    save_derivative(labels, own, "tissue", "dseg")
    return tmp_path


def test_scans_are_listed_with_their_derivatives(dataset):
    found = survey(dataset)
    assert [one.title for one in found] == ["sub-01_T1w", "sub-01_T1w · tissue dseg (napari_mri)", "sub-02_T1w"]
    assert [one.labels for one in found] == [False, True, False]
    assert found[0].group == ("sub-01",)
    with pytest.raises(SeveralSeries):
        load(dataset)


@pytest.mark.parametrize("place", ["sub-01", "sub-01/anat"])
def test_a_subject_opens_with_its_labels_named(dataset, place):
    scan, labels = load_all(dataset / place)
    assert isinstance(labels, Labels)
    assert labels.names[4] == "brain tissue"
    assert labels.values == (4,)
    assert labels.grid.same(scan.grid)
    assert not isinstance(load(dataset / place), Labels)


def test_other_folders_are_not_taken_for_bids(tmp_path):
    save(head(GRIDS["plain"]), tmp_path / "sub-like.nii.gz", sidecar=False)
    assert survey(tmp_path)[0].title == "sub-like.nii.gz"
