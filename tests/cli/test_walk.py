"""What a newcomer's walk along the command line stumbled over."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

import napari_mri as mri
from napari_mri import tasks
from napari_mri.cli import main
from napari_mri.core.errors import BadPrompt
from napari_mri.core.volume import Frames
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.removal import structure
from tests.scans import GRIDS, grid_of, head


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


def series(bvals=(0.0, 1000.0, 1000.0, 0.0, 1000.0, 1000.0)):
    """A small diffusion series with noise."""
    grid = grid_of((12, 13, 8), (2.0, 2.0, 2.5))
    rng = np.random.default_rng(3)
    data = np.stack([100 * np.exp(-b / 1500) + rng.normal(0, 4, grid.shape) for b in bvals], axis=-1)
    vecs = tuple((0.0, 0.0, 1.0) if b else (0.0, 0.0, 0.0) for b in bvals)
    return mri.Volume(data.astype(np.float32), grid, frames=Frames(kind="diffusion", bvals=bvals, bvecs=vecs))


def bvals_of(scan):
    return () if scan.frames is None else tuple(scan.frames.bvals)


def test_a_diffusion_result_is_replayed_whatever_lies_beside_it(tmp_path):
    mri.save(series(), tmp_path / "dwi.nii.gz")
    made = call("denoise", tmp_path / "dwi.nii.gz", tmp_path / "clean.nii.gz", "--model", "lowrank")
    assert made.exit_code == 0, made.stderr
    assert (tmp_path / "clean.bval").is_file()
    (tmp_path / "clean.csv").write_text("a,b\n1,2\n")
    mri.save(head(GRIDS["plain"]), tmp_path / "clean.mgz", sidecar=False)
    done = call("replay", tmp_path / "clean.json")
    assert done.exit_code == 0, done.stderr
    assert "Same voxels" in done.stdout
    done = call("replay", tmp_path / "clean.json", tmp_path / "dwi.nii.gz", tmp_path / "again.nii.gz")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "again.nii.gz").is_file()


@pytest.mark.parametrize("name", ["a [1].nii.gz", "m.v2.nii.gz"])
def test_a_result_of_any_name_is_found_beside_its_sidecar(tmp_path, name):
    mri.save(head(GRIDS["oblique"], np.int16), tmp_path / "head.nii.gz")
    call("skullstrip", tmp_path / "head.nii.gz", tmp_path / name, "--model", "threshold")
    done = call("replay", tmp_path / name.replace(".nii.gz", ".json"))
    assert "Same voxels" in done.stdout, done.stderr


def test_b_values_of_another_scan_are_not_read_with_a_new_one(tmp_path):
    scan = series()
    plain = replace(scan, frames=None)
    mri.save(scan, tmp_path / "out.nii.gz")
    mri.save(plain, tmp_path / "out.nii.gz")
    assert bvals_of(mri.load(tmp_path / "out.nii.gz")) == ()
    assert (tmp_path / "out.bval.old").read_text().split() == ["0", "1000", "1000", "0", "1000", "1000"]
    mri.save(scan, tmp_path / "out.nii.gz")
    assert bvals_of(mri.load(tmp_path / "out.nii.gz")) == scan.frames.bvals
    mri.save(scan.frame(0), tmp_path / "out.nii")  # one volume has no b-values to be mistaken
    mri.save(plain, tmp_path / "out.nii")  # and these may be those of the other file
    assert bvals_of(mri.load(tmp_path / "out.nii.gz")) == scan.frames.bvals


@pytest.mark.parametrize(
    ("suffix", "text", "says"),
    [
        (".bval", "0 1000 1000", "out.bval holds 3 numbers instead of 6"),
        (".bval", "none", "out.bval cannot be read as numbers"),
        (".bvec", "1 2 3\n4 5 6\n7 8 9", "out.bvec holds 9 numbers instead of 18"),
    ],
)
def test_b_values_that_do_not_fit_are_told(tmp_path, suffix, text, says):
    path = mri.save(series(), tmp_path / "out.nii.gz")
    assert mri.load(path).origin.warnings == ()
    (tmp_path / f"out{suffix}").write_text(text)
    scan = mri.load(path)
    assert any(says in sentence for sentence in scan.origin.warnings)
    assert (bvals_of(scan) == ()) == (suffix == ".bval")
    (tmp_path / f"out{suffix}").unlink()
    assert mri.load(path).origin.warnings == ()


def test_places_that_cannot_be_written_to_are_refused_before_the_work(tmp_path):
    scan = mri.save(head(GRIDS["anisotropic"], np.int16), tmp_path / "head.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    wish = ("superres", scan, "--model", "cubic", "--spacing", 2)
    for target, says in (("folder.nii.gz", "is a folder"), ("out.stl", "cannot hold grey values")):
        done = call(*wish[:2], tmp_path / target, *wish[2:])
        assert done.exit_code == 1
        assert says in done.stderr
    done = call(*wish[:2], tmp_path / "o.nii.gz", *wish[2:], "--extra", "residual", tmp_path / "o.nii.gz")
    assert "Two results would be written to" in done.stderr
    assert not (tmp_path / "o.nii.gz").exists()


def test_a_by_product_that_is_not_made_costs_no_other(tmp_path):
    scan = mri.save(head(GRIDS["anisotropic"], np.int16), tmp_path / "head.nii.gz")
    done = call(
        "superres", scan, tmp_path / "o.nii.gz", "--model", "cubic", "--spacing", 2,
        "--extra", "foo", tmp_path / "f.nii.gz", "--extra", "residual", tmp_path / "r.nii.gz",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "gives no 'foo'" in done.stderr
    assert (tmp_path / "r.nii.gz").is_file()


def test_a_box_beside_the_scan_is_refused():
    scan = head(GRIDS["oblique"])
    with mri.open_session(scan, model="grow") as session:
        session.answer(mri.Prompts((mri.Box((-40, -40, -20), (40, 30, 40)),)))
        with pytest.raises(BadPrompt, match="outside the scan"):
            session.answer(mri.Prompts((mri.Box((500, 500, 500), (510, 510, 510)),)))


def test_a_repeated_run_draws_from_the_seed_of_the_first():
    scan = head(GRIDS["plain"])
    step = tasks.run(mri.Order("skullstrip", "threshold", {}), scan, LocalRuntime("cpu", seed=5)).result.history[-1]
    rt = LocalRuntime("cpu")
    tasks.replay(step, scan, rt)
    assert rt.seed == step.facts["seed"] == 5


def test_it_is_told_when_all_has_gone_with_the_noise():
    rng = np.random.default_rng(0)
    image = np.zeros((30, 30, 30), np.float32)
    image[5:25, 5:25, 5:25] = 100 + rng.normal(0, 1, (20, 20, 20))
    level = np.full(image.shape, 1000, np.float32)
    assert structure(image, np.zeros_like(image), level) == float("inf")
    assert structure(image[:5], np.zeros_like(image[:5]), level[:5]) == 0  # there was nothing


def test_both_forms_of_a_new_grid_tell_one_space(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(100, 5, (20, 20, 8)).astype(np.float32), np.diag([1, 1, 4, 1.0]))
    image.set_qform(np.diag([1, 1, 4, 1.0]), 1)
    image.set_sform(np.array([[1, 0, 0, 9], [0, 1, 0, 8], [0, 0, 4, 7], [0, 0, 0, 1.0]]), 4)
    nib.save(image, tmp_path / "mni.nii.gz")
    fine = mri.superres(mri.load(tmp_path / "mni.nii.gz"), model="cubic", spacing=2.0)
    header = nib.load(mri.save(fine, tmp_path / "fine.nii.gz")).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (4, 4)
    mri.save(mri.load(tmp_path / "mni.nii.gz"), tmp_path / "same.nii.gz")
    header = nib.load(tmp_path / "same.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e9])
def test_grey_values_of_any_unit_are_standardised(unit):
    torch = pytest.importorskip("torch")
    from napari_mri.nets.click3d import standard

    image = torch.from_numpy(np.random.default_rng(1).normal(3, 1, (12, 12, 12)).astype(np.float32))
    torch.testing.assert_close(standard(image * unit), standard(image), atol=1e-3, rtol=1e-3)
    assert not standard(torch.full((4, 4, 4), unit)).any()


@pytest.mark.parametrize("verb", ["denoise", "superres", "skullstrip"])
def test_labels_are_no_scan(tmp_path, verb):
    scan = head(GRIDS["plain"])
    labels = mri.save(scan.with_labels((np.asarray(scan.data) > 1).astype(np.uint8), {1: "brain"}), tmp_path / "labels.nii.gz")
    done = call(verb, labels, tmp_path / "out.nii.gz")
    assert done.exit_code == 1
    assert "these are labels" in done.stderr
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(("ending", "told"), [(".nii.gz", False), (".nrrd", True)])
def test_it_is_told_where_b_values_are_not_kept(tmp_path, ending, told):
    mri.save(series(), tmp_path / "dwi.nii.gz")
    done = call("denoise", tmp_path / "dwi.nii.gz", tmp_path / f"clean{ending}", "--model", "lowrank")
    assert done.exit_code == 0, done.stderr
    assert ("without b-values" in done.stderr) == told
    assert (bvals_of(mri.load(tmp_path / f"clean{ending}")) == ()) == told
