"""The command line does what Python does, tells errors in one sentence, and leaves no half file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import napari_mri as mri
from napari_mri.cli import main
from napari_mri.core.history import Step
from tests.scans import GRIDS, dice, head


@pytest.fixture
def scan_file(tmp_path):
    return mri.save(head(GRIDS["oblique"], np.int16), tmp_path / "head.nii.gz")


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)


def test_skullstrip_writes_the_mask_of_the_api_on_the_scans_grid(scan_file, tmp_path):
    done = call("skullstrip", scan_file, tmp_path / "mask.nii.gz", "--model", "threshold", "--border", 2)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "mask.nii.gz")
    mask = mri.load_labels(tmp_path / "mask.nii.gz")
    scan = mri.load(scan_file)
    assert mask.grid.same(scan.grid)
    assert np.array_equal(mask.data, mri.skullstrip(scan, model="threshold", border=2).data)
    assert mask.history[-1].order.params["border"] == 2


def test_brain_image_is_zero_outside_the_mask(scan_file, tmp_path):
    done = call("skullstrip", scan_file, tmp_path / "m.nii", "--brain", tmp_path / "b.nii", "--model", "threshold")
    assert done.exit_code == 0, done.stderr
    mask, brain, scan = (mri.load(p).data for p in (tmp_path / "m.nii", tmp_path / "b.nii", scan_file))
    assert np.array_equal(brain, np.where(mask > 0, scan, 0))


def test_replay_finds_the_scan_and_gives_the_same_voxels(scan_file, tmp_path):
    call("skullstrip", scan_file, tmp_path / "mask.nii.gz", "--model", "threshold", "--cut", 5)
    done = call("replay", tmp_path / "mask.json")
    assert done.exit_code == 0, done.stderr
    assert "Same voxels" in done.stdout
    again = call("replay", tmp_path / "mask.json", scan_file, tmp_path / "again.nii.gz")
    assert again.exit_code == 0
    assert dice(mri.load(tmp_path / "mask.nii.gz").data, mri.load(tmp_path / "again.nii.gz").data) == 1


def test_replay_says_no_for_another_scan(scan_file, tmp_path):
    call("skullstrip", scan_file, tmp_path / "mask.nii.gz", "--model", "threshold")
    other = mri.save(head(GRIDS["oblique"], np.int16, seed=5), tmp_path / "other.nii.gz")
    done = call("replay", tmp_path / "mask.json", other, tmp_path / "x.nii.gz")
    assert done.exit_code == 1
    assert "not the scan" in done.stderr
    assert not (tmp_path / "x.nii.gz").exists()


def test_replay_sees_a_mask_that_was_changed(scan_file, tmp_path):
    call("skullstrip", scan_file, tmp_path / "mask.nii.gz", "--model", "threshold")
    sidecar = (tmp_path / "mask.json").read_text()
    mask = mri.load_labels(tmp_path / "mask.nii.gz")
    mri.save(mask.with_labels(1 - mask.data), tmp_path / "mask.nii.gz", sidecar=False)
    (tmp_path / "mask.json").write_text(sidecar)
    done = call("replay", tmp_path / "mask.json", scan_file)
    assert done.exit_code == 1
    assert "DIFFER" in done.stdout


def test_replay_knows_a_mask_that_its_format_keeps_a_part_of(scan_file, tmp_path):
    pytest.importorskip("highdicom")
    call("skullstrip", scan_file, tmp_path / "mask.seg.dcm", "--model", "threshold")
    assert mri.load_labels(tmp_path / "mask.seg.dcm").grid.shape != mri.load(scan_file).grid.shape
    done = call("replay", tmp_path / "mask.json")
    assert done.exit_code == 0, done.output
    assert "Same voxels" in done.stdout
    sidecar = (tmp_path / "mask.json").read_text()
    mask = mri.load_labels(tmp_path / "mask.seg.dcm")
    mri.save(mask.with_labels(mask.data * (np.arange(mask.data.shape[2]) > 3)), tmp_path / "mask.seg.dcm")
    (tmp_path / "mask.json").write_text(sidecar)
    assert "DIFFER" in call("replay", tmp_path / "mask.json").stdout


def test_replay_tells_that_a_by_product_is_none_of_its_results(scan_file, tmp_path):
    call("skullstrip", scan_file, tmp_path / "m.nii", "--brain", tmp_path / "b.nii", "--model", "threshold")
    done = call("replay", tmp_path / "b.json", scan_file, tmp_path / "x.nii")
    assert done.exit_code == 1
    assert "'brain by threshold' came along" in done.stderr
    assert not (tmp_path / "x.nii").exists()
    assert "Same voxels" in call("replay", tmp_path / "m.json").stdout


def test_replay_tells_that_edits_are_not_made_again(scan_file, tmp_path):
    call("skullstrip", scan_file, tmp_path / "m.nii", "--model", "threshold")
    call("edit", "margin", tmp_path / "m.nii", tmp_path / "mm.nii")
    done = call("replay", tmp_path / "mm.json")
    assert done.exit_code == 1
    assert "in mm.json is an edit, which cannot be made again" in done.stderr
    assert "'skullstrip by threshold' before it can: replay m.json" in done.stderr
    (tmp_path / "m.json").unlink()
    assert "Only runs of models can" in call("replay", tmp_path / "mm.json").stderr
    mask = mri.load_labels(tmp_path / "mm.nii")
    mri.save(replace(mask, history=(*mask.history[:1], Step("edited by hand: Brush 1"))), tmp_path / "hand.nii")
    done = call("replay", tmp_path / "hand.json", scan_file, tmp_path / "again.nii")
    assert done.exit_code == 0
    assert "not made again: edited by hand: Brush 1." in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["skullstrip", "{scan}"], 2, "Missing argument"),
        (["skullstrip", "{scan}", "{tmp}/m.nii", "--border", "lots"], 2, "--border"),
        (["skullstrip", "{scan}", "{tmp}/m.nii", "--border", "900"], 2, "--border"),
        (["skullstrip", "{scan}", "{tmp}/m.nii", "--no-such"], 2, "No such option"),
        (["skullstrip", "{scan}", "{tmp}/m.nii", "--model", "nobody"], 1, "no model 'nobody'"),
        (["skullstrip", "{scan}", "{tmp}/m.foo"], 1, "format of 'm.foo'"),
        (["skullstrip", "{scan}", "{tmp}/none/m.nii"], 1, "folder"),
        (["skullstrip", "{scan}", "{scan}"], 1, "is the scan itself"),
        (["skullstrip", "{tmp}/nothing.nii", "{tmp}/m.nii"], 1, "There is no file"),
        (["models", "show", "nobody"], 1, "no model 'nobody'"),
        (["replay", "{scan}"], 1, "not a history"),
        (["replay", "{tmp}/nothing.json"], 1, "There is no file"),
        (["replay", "{tmp}"], 1, "is a folder"),
        (["convert", "{scan}", "{tmp}"], 1, "is a folder"),
        (["info", "{tmp}/nothing"], 1, "There is no file"),
        (["nonsense"], 2, "No such command"),
        (["segment", "{scan}", "{tmp}/m.nii", "--point", "1,2"], 1, "not 3 numbers"),
    ],
)
def test_errors_are_one_sentence_and_the_right_code(scan_file, tmp_path, args, code, says):
    before = sorted(p.name for p in tmp_path.iterdir())
    done = call(*(a.format(scan=scan_file, tmp=tmp_path) for a in args))
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_info_tells_shape_spacing_and_place(scan_file):
    (row,) = json.loads(call("info", scan_file, "--json").stdout)
    scan = mri.load(scan_file)
    assert row["shape"] == list(scan.data.shape)
    assert np.allclose(row["affine"], scan.affine)
    assert row["axes"] == scan.grid.axes
    assert "oblique" in call("info", scan_file).stdout


def test_convert_keeps_voxels_and_place(scan_file, tmp_path):
    assert call("convert", scan_file, tmp_path / "copy.nii").exit_code == 0
    scan, copy = mri.load(scan_file), mri.load(tmp_path / "copy.nii")
    assert copy.grid.same(scan.grid)
    assert np.array_equal(copy.data, scan.data)
    assert copy.data.dtype == scan.data.dtype


def test_models_list_and_show():
    listed = json.loads(call("models", "list", "--json").stdout)
    assert {"skullstrip"} <= {row["task"] for row in listed}
    shown = call("models", "show", "threshold").stdout
    assert "--border" in shown
    assert "BSD" in shown


def test_help_shows_the_flags_of_the_chosen_model():
    assert "--border" in call("skullstrip", "--model", "threshold", "--help").stdout
    assert "--border" not in call("denoise", "--help").stdout


def test_ctrl_c_stops_cleanly_and_leaves_no_file(tmp_path):
    model = tmp_path / "plug" / "slowpoke.py"
    model.parent.mkdir()
    model.write_text(
        "import time\nfrom napari_mri.core.model import DENOISE, Card, Model\n"
        "def run(scan, p, rt):\n    for n in range(600):\n        time.sleep(0.05); rt.report(n / 600, 'waiting')\n    return scan\n"
        "MODELS = (Model(Card('slowpoke', DENOISE, 'Slow'), run=run),)\n"
    )
    scan = mri.save(head(GRIDS["plain"]), tmp_path / "head.nii")
    code = (
        "import sys; from napari_mri import models; models.__path__.append(sys.argv.pop(1)); "
        "from napari_mri.cli import main; main()"
    )
    args = [sys.executable, "-c", code, str(model.parent), "denoise", str(scan), str(tmp_path / "out.nii"), "--model", "slowpoke"]
    process = subprocess.Popen(args, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    line = process.stderr.readline()  # progress is told every few seconds where there is no terminal
    assert "waiting" in line
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 1
    assert "Nothing was changed" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*out*"))


def test_whoever_ends_the_program_while_it_writes_finds_no_half_file(scan_file, tmp_path):
    code = (
        "import os, signal, time; from napari_mri.io import atomic; "
        "atomic._flush = lambda part: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(9)); "
        "from napari_mri.cli import main; main()"
    )
    args = [sys.executable, "-c", code, "convert", str(scan_file), str(tmp_path / "out.nii")]
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143
    assert "Stopped." in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*"))


def test_a_by_product_that_is_not_there_is_told_and_the_mask_kept(scan_file, tmp_path):
    done = call("skullstrip", scan_file, tmp_path / "m.nii", "--model", "threshold", "--extra", "nonsense", tmp_path / "x.nii")
    assert done.exit_code == 1
    assert "no 'nonsense'" in done.stderr
    assert (tmp_path / "m.nii").exists()
    assert not (tmp_path / "x.nii").exists()


def test_edit_corrects_a_label_file_and_keeps_its_place(tmp_path):
    scan = head(GRIDS["oblique"])
    data = (scan.data > 300).astype(np.uint8)
    data[0, 0, 0] = 1
    mri.save(scan.with_labels(data, {1: "tissue"}), tmp_path / "m.nii.gz")
    done = call("edit", "drop-islands", tmp_path / "m.nii.gz", tmp_path / "m.nii.gz", "--below-ml", 1)
    assert done.exit_code == 0, done.stderr
    labels = mri.load_labels(tmp_path / "m.nii.gz")
    assert labels.data[0, 0, 0] == 0
    assert labels.names[1] == "tissue"
    assert labels.grid.same(scan.grid)
    assert labels.history[-1].order.model == "drop_islands"


def test_edit_never_changes_a_locked_label(tmp_path):
    scan = head(GRIDS["plain"])
    data = (scan.data > 300).astype(np.uint8) + (scan.data > 600).astype(np.uint8)
    mri.save(scan.with_labels(data), tmp_path / "m.nii")
    done = call("edit", "margin", tmp_path / "m.nii", tmp_path / "out.nii", "--label", 1, "--mm", 8, "--locked", "2")
    assert done.exit_code == 0, done.stderr
    after = mri.load_labels(tmp_path / "out.nii").data
    assert np.array_equal(after == 2, data == 2)
    assert (after == 1).sum() > (data == 1).sum()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["no-such-tool", "{m}", "{m}"], 2, "No such command"),
        (["smooth", "{m}", "{m}", "--locked", "x"], 1, "label values"),
        (["threshold-inside", "{m}", "{m}"], 2, "--scan"),
        (["smooth", "{m}", "{m}", "--window", "1", "2"], 1, "needs the scan"),
    ],
)
def test_edit_refuses_what_cannot_be(tmp_path, args, code, says):
    scan = head(GRIDS["plain"])
    path = mri.save(scan.with_labels(scan.data > 300), tmp_path / "m.nii")
    before = path.read_bytes()
    done = call("edit", *(a.format(m=path) for a in args))
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert path.read_bytes() == before


def test_measure_tells_volume_agreement_and_writes_tables_and_report(tmp_path):
    scan = head(GRIDS["oblique"]).titled("SECRET^NAME")
    first, second = scan.with_labels(scan.data > 300, {1: "tissue"}), scan.with_labels(scan.data > 450)
    mri.save(scan, tmp_path / "scan.nii")
    mri.save(first, tmp_path / "a.nii")
    mri.save(second, tmp_path / "b.nii")
    args = ["measure", tmp_path / "a.nii", "--against", tmp_path / "b.nii", "--scan", tmp_path / "scan.nii"]
    done = call(*args, "--json", "--csv", tmp_path / "t.csv", "--report", tmp_path / "t.html", "--lesions", "isles")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["volumes"][0]["ml"] == pytest.approx(first.volume_ml(1))
    assert found["agreement"][0]["dice"] == pytest.approx(dice(first.data, second.data))
    assert "tissue" in (tmp_path / "t.csv").read_text()
    assert (tmp_path / "t_agreement.csv").exists()
    assert "SECRET" not in (tmp_path / "t.html").read_text()
    assert "ml" in call(*args).stdout


def test_measure_refuses_masks_on_other_grids(tmp_path):
    for name in ("plain", "oblique"):
        scan = head(GRIDS[name])
        mri.save(scan.with_labels(scan.data > 300), tmp_path / f"{name}.nii")
    done = call("measure", tmp_path / "plain.nii", "--against", tmp_path / "oblique.nii")
    assert done.exit_code == 1
    assert "different grids" in done.stderr


def test_demo_without_a_window_writes_mask_history_and_picture(tmp_path, scan_file):
    done = call("demo", scan_file, "--no-window", "--out", tmp_path / "demo")
    assert done.exit_code == 0, done.stderr
    files = sorted(p.name for p in (tmp_path / "demo").iterdir())
    assert files == ["brain_mask.json", "brain_mask.nii.gz", "brain_mask.png"]
    assert mri.load(tmp_path / "demo" / "brain_mask.nii.gz").grid.same(mri.load(scan_file).grid)
    assert (tmp_path / "demo" / "brain_mask.png").read_bytes().startswith(b"\x89PNG")
