"""Several scans on one command line: the last path is the result, and replay finds them all again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'models')")

import napari_mri as mri
from napari_mri.cli.run import _words
from tests.cli.test_cli import call
from tests.scans import grid_of, head


@pytest.fixture
def pair(tmp_path):
    """Save two scans of one place in other planes."""
    grids = [grid_of((24, 24, 6), (4.0, 4.0, 16.0)), grid_of((24, 6, 24), (4.0, 16.0, 4.0), "LPS")]
    return [mri.save(head(grid), tmp_path / f"scan{n}.nii.gz") for n, grid in enumerate(grids)]


def test_two_scans_in_one_result_out_and_again(pair, tmp_path):
    out, second = tmp_path / "fine.nii.gz", tmp_path / "second.nii.gz"
    told = ["--spacing", 4, "--steps", 3, "--register", "off"]
    done = call("superres", *pair, out, *told, "--extra", "second", second)
    assert done.exit_code == 0, done.stderr
    fine = mri.load(out)
    assert np.allclose(fine.spacing, 4)
    assert np.allclose(mri.load(second).spacing, 4)
    step = fine.history[-1]
    assert step.order.model == "inr"
    assert step.facts["input"] == mri.load(pair[0]).fingerprint()
    assert step.facts["others"] == [mri.load(pair[1]).fingerprint()]
    again = call("replay", tmp_path / "fine.json")
    assert again.exit_code == 0, again.stderr
    assert "Same voxels" in again.stdout
    sidecar = (tmp_path / "fine.json").read_text()
    mri.save(fine.with_data(fine.data + 1), out)
    (tmp_path / "fine.json").write_text(sidecar)
    assert "ended by time" in call("replay", tmp_path / "fine.json").stdout
    pair[1].unlink()
    lost = call("replay", tmp_path / "fine.json")
    assert lost.exit_code == 1
    assert "not beside it" in lost.stderr


def test_one_scan_is_refined_as_before_and_too_many_are_refused(pair, tmp_path):
    out = tmp_path / "fine.nii.gz"
    done = call("superres", pair[0], out, "--model", "cubic", "--spacing", 4)
    assert done.exit_code == 0, done.stderr
    refused = call("superres", *pair, tmp_path / "no.nii.gz", "--model", "cubic")
    assert refused.exit_code == 1
    assert "takes one scan" in refused.stderr
    assert not (tmp_path / "no.nii.gz").exists()
    assert call("superres", pair[0]).exit_code == 2
    onto = call("superres", *pair, pair[1])
    assert onto.exit_code in (1, 2)
    assert mri.load(pair[1]).grid.shape == (24, 6, 24)  # a scan is never written over


def test_paths_are_told_from_values_of_flags():
    assert _words(["a", "b", "--spacing", "1", "out"]) == 3
    assert _words(["a", "--spacing=1", "b", "--extra", "second", "s", "out"]) == 3
    assert _words(["--no-consistent", "a", "out"]) == 2
