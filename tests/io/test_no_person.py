"""Every byte that leaves is searched for the planted patient: exports, sidecars, logs, caches, what the commands print."""

import gzip
import json
import logging
import os
import re
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from napari_mri.cli import main
from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels
from napari_mri.io.bids import save_derivative
from napari_mri.io.deidentified import deidentify
from napari_mri.io.export import export
from napari_mri.io.files import load, load_all, save
from napari_mri.io.formats import all_formats
from tests.io.series import ramp, write_series
from tests.scans import grid_of

GRID = grid_of((24, 22, 20), (2.0, 2.0, 2.5), "LPS", (8.0, -5.0, 3.0))
PLANTED = {
    "PatientName": "Zebulon^Quimby", "PatientID": "QQ-7731-X", "PatientBirthDate": "19430917", "StudyDate": "20111213",
    "StudyTime": "074159", "AccessionNumber": "ACC90210", "InstitutionName": "Larkspur Clinic",
    "ReferringPhysicianName": "Wexford^Una", "PatientComments": "lives in Oddington", "StationName": "MRZZ9",
    "DeviceSerialNumber": "SN55512", "OperatorsName": "Yttriel^Olo",
}  # fmt: skip
WORDS = sorted({word for value in PLANTED.values() for word in re.split(r"[\^ ]", value) if len(word) > 4})
ISO = ["1943-09-17", "2011-12-13"]


@pytest.fixture
def scan(tmp_path):
    def edit(ds, k):
        for key, value in PLANTED.items():
            setattr(ds, key, value)

    folder = tmp_path / "in" / "Quimby"
    write_series(folder, ramp(GRID.shape), GRID, edit)
    return load(folder)


def contents(path):
    """Yield the bytes of a file, and what is packed in them."""
    raw = path.read_bytes()
    yield raw
    for at in [m.start() for m in re.finditer(rb"\x1f\x8b\x08", raw)][:3]:
        try:
            yield zlib.decompressobj(31).decompress(raw[at:])
        except zlib.error:
            continue
    if raw[128:132] == b"DICM":
        yield str(pydicom.dcmread(path)).encode()


def leaks(path):
    words = [*WORDS, *ISO]
    return [word for content in contents(path) for word in words if word.lower().encode() in content.lower()]


def written(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_clean(folder, at_least):
    files = written(folder)
    assert len(files) >= at_least
    for path in files:
        assert not leaks(path), (path.name, leaks(path))
        told = str(path.relative_to(folder)).lower()
        assert not any(word.lower() in told for word in WORDS), told


def test_the_search_would_find_them(tmp_path, scan):
    source = next(iter(written(tmp_path / "in")))
    assert set(leaks(source)) >= set(WORDS) - {"Clinic"}
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps({"by": "ZEBULON"}).encode()))
    assert leaks(tmp_path / "x.json.gz") == ["Zebulon"]


def test_exports_and_sidecars(tmp_path, scan, caplog):
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    out.mkdir()
    labels = scan.with_labels((scan.data % 7 == 0).astype(np.uint8) + (scan.data > 3900), {1: "a", 2: "b"})
    count = 0
    for fmt in all_formats():
        for n, ending in enumerate(fmt.endings if fmt.write else ()):
            for what, volume in (("labels", labels), ("volume", scan)):
                if what in fmt.holds and not (what == "volume" and ending.startswith(".seg")):
                    save(volume, out / f"{what}-{fmt.name}-{n}{ending}")
                    count += 1
    raw = tmp_path / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    raw.parent.mkdir(parents=True)
    save(scan, raw)
    save_derivative(labels, raw, "test")
    assert_clean(out, 2 * count - 4)
    assert_clean(tmp_path / "bids", 4)
    logged = [r for r in caplog.records if r.name.startswith("napari_mri")]  # others log paths that they open
    assert not any(word.lower() in r.getMessage().lower() for r in logged for word in [*WORDS, *ISO])


def test_segmentations_that_come_back_from_the_folder_of_the_scan(tmp_path, scan):
    labels = scan.with_labels((scan.data % 7 == 0).astype(np.uint8))
    save(labels, tmp_path / "in" / "Quimby" / "x.seg.dcm", sidecar=False)
    found = [one for one in load_all(tmp_path / "in") if isinstance(one, Labels)]
    out = tmp_path / "out"
    out.mkdir()
    for ending in (".nii.gz", ".seg.nrrd", ".rtstruct.dcm", ".seg.dcm", ".ply"):
        save(found[0], out / f"a{ending}")
    assert_clean(out, 9)


def test_commands_and_caches(tmp_path, scan):
    folder, out = str(tmp_path / "in" / "Quimby"), tmp_path / "out"
    out.mkdir()
    run = CliRunner()
    said = ""
    orders = [
        ["info", folder], ["info", folder, "--json"],
        ["convert", folder, str(out / "a.nii.gz")], ["convert", folder, str(out / "n.nrrd"), "--nameless"],
        ["skullstrip", folder, str(out / "m.seg.dcm"), "--model", "threshold"],
        ["segment", folder, str(out / "s.nii.gz"), "--model", "grow", "--point", ",".join(map(str, GRID.centre))],
        ["deidentify", folder, str(out / "clean")],
    ]  # fmt: skip
    for order in orders:
        done = run.invoke(main, order)
        assert done.exit_code in (0, 1), (order, done.output, done.exception)
        said += done.output.replace(str(tmp_path), "")
    assert_clean(out, 5)
    # The folder's own name is the user's; nothing else of the person may be printed.
    assert not any(word.lower() in said.replace("in/Quimby", "").lower() for word in [*WORDS, *ISO])
    for place in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        for path in written(Path(os.environ[place])) if Path(os.environ[place]).is_dir() else ():
            assert not leaks(path), path


def test_no_library_quotes_values_of_a_wrong_form(tmp_path, caplog, recwarn):
    """A name in a field for dates is what pydicom warns of, with the value."""
    wrong = {**PLANTED, "PatientBirthDate": "Quimby 1943", "PatientName": "Zebulon" * 20, "PatientAge": "Oddington"}

    def edit(ds, k):
        for key, value in wrong.items():
            setattr(ds, key, value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(tmp_path / "in", ramp(GRID.shape), GRID, edit)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    warnings.simplefilter("always")
    scan = load(tmp_path / "in")
    labels = scan.with_labels((scan.data % 7 == 0).astype(np.uint8))
    export(labels, tmp_path / "in" / "a.seg.dcm", patient=True)
    save(labels, tmp_path / "in" / "a.rtstruct.dcm")
    assert len(load_all(tmp_path / "in")) == 3
    deidentify(tmp_path / "in", tmp_path / "out")
    said = [record.getMessage() for record in caplog.records] + [str(one.message) for one in recwarn]
    assert len(said) > 100  # highdicom tells what it copies
    names = re.compile("|".join(rf"\b{re.escape(word)}" for word in [*WORDS, *ISO] if word != "Clinic"), re.IGNORECASE)
    assert [line for line in said if names.search(line)] == []


def test_the_person_goes_along_only_where_it_was_asked_for(tmp_path, scan):
    labels = scan.with_labels((scan.data % 7 == 0).astype(np.uint8))
    export(labels, tmp_path / "a.seg.dcm")
    export(labels, tmp_path / "b.seg.dcm", patient=True)
    assert leaks(tmp_path / "a.seg.dcm") == []
    assert "Quimby" in leaks(tmp_path / "b.seg.dcm")
    for ending in (".nii.gz", ".rtstruct.dcm", ".stl"):
        with pytest.raises(BadOption, match="holds no patient"):
            export(labels, tmp_path / f"c{ending}", patient=True)
        assert not (tmp_path / f"c{ending}").exists()


def test_nifti_texts_that_others_wrote(tmp_path):
    import nibabel

    image = nibabel.Nifti1Image(np.ones((5, 6, 7), np.int16), np.eye(4))
    image.header["db_name"], image.header["aux_file"] = b"Quimby", b"Zebulon"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"QQ-7731-X"))
    (tmp_path / "in").mkdir()
    nibabel.save(image, tmp_path / "in" / "a.nii")
    out = tmp_path / "out"
    out.mkdir()
    scan = load(tmp_path / "in" / "a.nii")
    save(scan, out / "b.nii.gz")
    save(scan.with_labels(np.ones(scan.data.shape, np.uint8)), out / "c.nii")
    assert_clean(out, 4)
