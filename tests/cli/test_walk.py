"""What a newcomer's walk along the command line stumbled over."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

import napari_mri as mri
from napari_mri import tasks
from napari_mri.cli import main
from napari_mri.core.errors import BadOption, BadPrompt
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure.removal import structure
from tests.io.series import ramp, write_series
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
    for name in ("r.seg.nrrd", "r.stl"):
        done = call(*wish[:2], tmp_path / "o.nii.gz", *wish[2:], "--extra", "residual", tmp_path / name)
        assert "cannot hold grey values" in done.stderr
    assert "cannot hold grey values" in call("denoise", scan, tmp_path / "x.seg.nrrd").stderr
    done = call("skullstrip", scan, tmp_path / "o.nii.gz", "--model", "threshold", "--brain", tmp_path / "b.stl")
    assert "cannot hold grey values" in done.stderr
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
    done = call("convert", tmp_path / "dwi.nii.gz", tmp_path / f"copy{ending}")
    assert ("without b-values" in done.stderr) == told


def two_series(folder):
    """A DICOM folder of two series of one place."""
    grid = grid_of((16, 17, 9), (1.5, 1.5, 4.0), "LPS")
    for number in (1, 2):

        def edit(ds, index, number=number):
            ds.SeriesNumber, ds.SeriesInstanceUID = number, f"1.2.3.{number}"
            ds.SeriesDescription = f"contrast {number}"
            ds.SOPInstanceUID = f"1.2.3.{number}.{index + 1}"

        write_series(folder / str(number), ramp((16, 17, 9)) // number, grid, edit)
    return folder


def test_two_series_of_one_folder_are_refined_together_and_found_again(tmp_path):
    pytest.importorskip("torch")
    folder, out = two_series(tmp_path / "study"), tmp_path / "fine.nii.gz"
    wish = ("superres", folder, folder, out, "--spacing", 1.5, "--steps", 3, "--register", "off")
    assert call(*wish).exit_code == 1  # which of them is not told
    done = call(*wish, "--series", "contrast 2", "--series", "1")
    assert done.exit_code == 0, done.stderr
    facts = mri.load(out).history[-1].facts
    assert facts["input"] == mri.load(folder, series="contrast 2").fingerprint()
    assert facts["others"] == [mri.load(folder, series="contrast 1").fingerprint()]
    again = call("replay", tmp_path / "fine.json")
    assert "Same voxels" in again.stdout, again.stderr
    again = call("replay", tmp_path / "fine.json", folder)
    assert "Same voxels" in again.stdout, again.stderr
    assert call(*wish, *("--series", "1") * 3).exit_code == 2


def test_a_folder_without_the_scan_of_a_result_is_told(tmp_path):
    mri.save(head(GRIDS["plain"]), tmp_path / "head.nii.gz")
    call("skullstrip", tmp_path / "head.nii.gz", tmp_path / "mask.nii.gz", "--model", "threshold")
    done = call("replay", tmp_path / "mask.json", two_series(tmp_path / "study"))
    assert done.exit_code == 1
    assert "None of the series" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--preset", "fast"), "takes 4 scans; at most 3"),
        (("--model", "foo", "--preset", "fast"), "no model 'foo'"),
    ],
)
def test_the_model_is_told_before_the_flags_it_does_not_have(tmp_path, args, says):
    scans = [tmp_path / f"{name}.nii.gz" for name in "abcd"]
    done = call("superres", *scans, tmp_path / "out.nii.gz", *args)
    assert done.exit_code == 1
    assert says in done.stderr
    assert "Hint" in done.stderr


@pytest.mark.parametrize("fact", ["others", "prompts", "weights", "seed", "input"])
def test_a_damaged_history_is_told_in_a_sentence(tmp_path, fact):
    mri.save(head(GRIDS["plain"]), tmp_path / "head.nii.gz")
    call("skullstrip", tmp_path / "head.nii.gz", tmp_path / "mask.nii.gz", "--model", "threshold")
    record = json.loads((tmp_path / "mask.json").read_text())
    record["history"][-1]["facts"][fact] = 0.5
    (tmp_path / "mask.json").write_text(json.dumps(record))
    done = call("replay", tmp_path / "mask.json", tmp_path / "head.nii.gz", tmp_path / "again.nii.gz")
    assert done.exit_code == 1
    assert f"'{fact}' makes no sense" in done.stderr


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "mask", "shape": ["a", 1, 2], "affine": [1], "packed": "x"},
        {"kind": "mask", "shape": [1, 2], "affine": [1], "packed": "x"},
        {"kind": "mask", "shape": [1, 2, 3], "affine": ["b"] * 16, "packed": "x"},
        {"kind": "point", "xyz": [1, 2, {}]},
        {"kind": "box", "low": 3, "high": [1, 2, 3]},
        {"kind": "point"},
        {"kind": "point", "xyz": [0, 0, 10], "positive": "false"},
        {"kind": "box", "low": [0, 0, 0], "high": ["9", 9, 9]},
    ],
)
def test_records_of_marks_that_make_no_sense_are_refused(tmp_path, record):
    scan = mri.save(head(GRIDS["plain"]), tmp_path / "head.nii.gz")
    (tmp_path / "marks.json").write_text(json.dumps([record]))
    done = call("segment", scan, tmp_path / "m.nii.gz", "--scribble", tmp_path / "marks.json", "--model", "grow")
    assert done.exit_code == 1
    assert done.stderr.startswith(("Error: A ", "Error: Whether a point"))


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_what_always_shows_the_object_cannot_be_negative(kind):
    scan = head(GRIDS["plain"])
    turned = {
        "box": mri.Box((-20, -20, -10), (20, 20, 30), positive=False),
        "mask": replace(mri.Mask.of(np.asarray(scan.data) > 1, scan.grid), positive=False),
    }[kind]
    with mri.open_session(scan, model="grow") as session, pytest.raises(BadPrompt, match="cannot be negative"):
        session.answer(mri.Prompts((mri.Point((0, 0, 10)), turned)))


def test_it_is_told_where_every_voxel_is_the_same():
    scan = head(GRIDS["plain"])
    for even in (True, False):
        seen = scan.with_data(np.full_like(scan.data, 7)) if even else scan
        with mri.open_session(seen, model="grow") as session:
            labels = session.answer(mri.Prompts((mri.Point((0, 0, 10)),)))
        assert any("has the same value" in w for w in labels.history[-1].warnings) == even


def test_a_new_grid_does_not_pretend_to_be_the_scanners(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(100, 5, (20, 20, 8)).astype(np.float32), None)
    image.header.set_zooms((1, 1, 4))
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, tmp_path / "bare.nii.gz")
    fine = mri.superres(mri.load(tmp_path / "bare.nii.gz"), model="cubic", spacing=2.0)
    written = nib.load(mri.save(fine, tmp_path / "fine.nii.gz"))
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (2, 2)
    np.testing.assert_allclose(written.affine, fine.affine, atol=1e-5)


def test_a_by_product_tells_what_made_it():
    scan = head(GRIDS["anisotropic"])
    outcome = tasks.run(mri.Order("superres", "cubic", {"spacing": 2.0}), scan)
    step, made = outcome.extras["residual"].history[-1], outcome.result.history[-1]
    assert step.order is None  # it would give the result, not this
    assert step.facts == made.facts
    assert step.warnings == made.warnings


def test_the_network_of_noise_knows_scans_of_mean_zero():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    scan = head(GRIDS["plain"])
    clean = np.asarray(scan.data, np.float32)
    noisy = clean + rng.normal(0, 0.06 * clean.max(), clean.shape).astype(np.float32)
    plain = mri.denoise(scan.with_data(noisy), model="net3d", device="cpu").data
    lowered = mri.denoise(scan.with_data(noisy - np.float32(clean.max())), model="net3d", device="cpu").data + clean.max()
    left = [float(np.sqrt(np.mean((found - clean)[clean > 0.2 * clean.max()] ** 2))) for found in (plain, lowered)]
    assert left[1] < 1.1 * left[0]


@pytest.mark.parametrize(("name", "says"), [("sam", "takes a file of yours (--checkpoint, --encoder)"), ("grow", "needs no weights")])
def test_models_without_weights_of_their_own_say_so(name, says):
    assert says in call("models", "fetch", name).stdout


@pytest.mark.parametrize("late", [True, False])
def test_who_stops_twice_is_told_what_was_begun(tmp_path, monkeypatch, late):
    scan = mri.save(head(GRIDS["plain"]), tmp_path / "head.nii.gz")

    def stopped(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_mri.io.export.export" if late else "napari_mri.tasks.run", stopped)
    done = call("skullstrip", scan, tmp_path / "mask.nii.gz", "--model", "threshold")
    assert done.exit_code == 1
    assert ("mask.nii.gz" in done.stderr) == late
    assert ("Nothing was written" in done.stderr) != late


@pytest.mark.parametrize("model", ["nlpca", "nlm", "net3d", "selfscan"])
def test_noise_below_zero_is_not_rician(model):
    if model == "net3d":
        pytest.importorskip("torch")
    scan = head(GRIDS["plain"])
    with pytest.raises(BadOption, match=r"cannot be Rician: [0-9]+ %"):
        mri.denoise(scan.with_data(np.float32(scan.data) - 500), model=model, kind="rician", sigma=10.0, device="cpu")


def test_it_is_told_when_no_noise_was_found():
    scan = head(GRIDS["plain"])
    even = scan.with_data(np.round(np.float32(scan.data) / 50) * 50)
    for model in ("nlpca", "nlm"):
        outcome = tasks.run(mri.Order("denoise", model, {"strength": 0.0}), scan, LocalRuntime("cpu"))
        assert not any("nothing was changed" in w for w in outcome.warnings), "that was wished"
        tiny = Volume(np.float32(even.data)[:8, :8, :8], even.grid.cropped((0, 0, 0), (8, 8, 8)))
        outcome = tasks.run(mri.Order("denoise", model, {}), tiny, LocalRuntime("cpu"))
        same = np.array_equal(outcome.result.data, tiny.data)
        assert same == any("nothing was changed" in w or "same value" in w for w in outcome.warnings)


def test_every_series_model_offers_the_noise_level():
    for model in ("neighbours", "lowrank"):
        outcome = tasks.run(mri.Order("denoise", model, {}), series(), LocalRuntime("cpu"))
        assert outcome.extras["noise level"].data.shape == (12, 13, 8)
        assert outcome.extras["residual"].data.shape == (12, 13, 8, 6)


@pytest.mark.parametrize(
    ("spacing", "thickness", "says"),
    [
        ((2, 2, 2), 4.0, "was not used"),
        ((2.2, 2.2, 2.0), 3.0, "left-right axis"),
        ((2, 6, 6), 6.0, "front-back axis"),
        ((2, 2, 6), 12.0, "overlap by more than half"),
        ((2, 2, 6), 8.0, ""),
    ],
)
def test_a_thickness_that_may_be_meant_otherwise_is_told(spacing, thickness, says):
    scan = head(grid_of((20, 22, 12), spacing))
    outcome = tasks.run(mri.Order("superres", "cubic", {"spacing": 1.5, "thickness": thickness}), scan, LocalRuntime("cpu"))
    told = [w for w in outcome.warnings if "thick" in w]
    assert any(says in w for w in told) if says else not told


def test_slices_that_overlap_far_give_no_wild_values():
    grid = grid_of((20, 22, 12), (2, 2, 6))
    scan = mri.Volume(np.full(grid.shape, 300, np.float32) + np.arange(12) % 2 * np.float32(10), grid)
    fine = tasks.run(mri.Order("superres", "cubic", {"spacing": 2.0, "thickness": 12.0}), scan, LocalRuntime("cpu")).result.data
    assert 240 < fine.min() < fine.max() < 370  # no such pattern can have been measured
    with pytest.raises(BadOption, match="cannot be 40 mm thick"):
        mri.superres(scan, model="cubic", spacing=2.0, thickness=40.0)


def test_a_box_that_reaches_beyond_the_scan_grows_from_what_is_seen_of_it():
    grid = grid_of((40, 40, 30), (2, 2, 2))
    low, high = grid.corners().min(axis=0), grid.corners().max(axis=0)
    data = np.zeros(grid.shape, np.float32)
    data[8:32, 8:32, 8:24] = 100
    scan = mri.Volume(data, grid)
    found = []
    for room in (0, 60):
        with mri.open_session(scan, model="grow") as session:
            start = (low[0] - room, low[1] + 5, low[2] + 5)
            found.append(session.answer(mri.Prompts((mri.Box(start, tuple(high - 5)),))).data > 0)
    assert found[0].sum() > 0.6 * (data > 0).sum()
    assert (found[0] & found[1]).sum() > 0.95 * (found[0] | found[1]).sum()


@pytest.mark.parametrize(("scans", "flag"), [(("a", "out"), "--variants"), (("a", "b", "out"), "--register")])
def test_help_shows_the_flags_of_the_model_that_takes_so_many_scans(scans, flag):
    pytest.importorskip("torch")
    done = call("superres", *scans, "--help")
    assert done.exit_code == 0
    assert flag in done.stdout
