"""De-identification: planted names, numbers and dates are in no byte that is written."""

import datetime

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from napari_mri.core.errors import FileProblem, GridMismatch, UnsupportedImage
from napari_mri.core.volume import Labels
from napari_mri.io.deidentified import deidentify
from napari_mri.io.deidentify import Rules, take_out
from napari_mri.io.face import blur_face
from napari_mri.io.files import load, save
from tests.io.series import write_series
from tests.io.test_seg_dicom import GRID
from tests.scans import GRIDS, blob, head, marker

pytest.importorskip("dicomanonymizer")
SECRETS = (b"Doe", b"Jane", b"SECRET-4711", b"19700102", b"19991231", b"Mercy Hospital", b"ACC-0815", b"Dr^House",
           b"Springfield", b"0555-1234")  # fmt: skip
DATA = np.arange(np.prod(GRID.shape), dtype=np.int16).reshape(GRID.shape)


def planted(ds, number):
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "19991231"
    ds.AcquisitionTime = f"1200{number:02d}.5"
    ds.InstitutionName, ds.AccessionNumber, ds.ReferringPhysicianName = (
        "Mercy Hospital",
        "ACC-0815",
        "Dr^House",
    )
    ds.PatientAddress, ds.PatientTelephoneNumbers = "Springfield", "0555-1234"
    ds.ImageComments = "Mrs. Doe moved her head"
    ds.SequenceName = "doe_special"
    inner = Dataset()
    inner.PatientID, inner.StudyDate, inner.ReferencedSOPInstanceUID = "SECRET-4711", "19991231", "1.2.3.4.5"
    ds.RequestAttributesSequence = Sequence([inner])
    ds.SourceImageSequence = Sequence([inner])
    block = ds.private_block(0x0019, "ACME", create=True)
    block.add_new(0x01, "LO", "Jane Doe")
    siemens = ds.private_block(0x0029, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0C, "IS", "1000")
    ds.file_meta.SourceApplicationEntityTitle = "Mercy Hospital"
    ds.preamble = b"Jane Doe".ljust(128, b"\0")


@pytest.fixture
def series(tmp_path):
    write_series(tmp_path / "Doe_Jane", DATA, GRID, planted)
    return tmp_path / "Doe_Jane"


@pytest.mark.parametrize("shift", [None, -1000])
def test_nothing_planted_is_left_in_any_byte(tmp_path, series, shift):
    assert all(any(secret in p.read_bytes() for p in series.iterdir()) for secret in SECRETS)
    report = deidentify(series, tmp_path / "out", Rules(shift_days=shift))
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(written) == report.written == GRID.shape[2]
    for path in written:
        for secret in SECRETS:
            assert secret.lower() not in path.read_bytes().lower(), secret
            assert secret.decode().lower() not in str(path.relative_to(tmp_path)).lower()
    told = "\n".join(report.lines())
    assert not any(secret.decode().lower() in told.lower() for secret in SECRETS)
    assert "removed PatientAddress" in told
    assert "private" in told


def test_the_image_is_the_same_and_the_files_still_belong_together(tmp_path, series):
    deidentify(series, tmp_path / "out")
    before, after = load(series), load(tmp_path / "out")
    np.testing.assert_array_equal(after.data, before.data)
    assert after.grid.same(before.grid)
    files = [pydicom.dcmread(p) for p in (tmp_path / "out").rglob("*.dcm")]
    assert len({ds.SeriesInstanceUID for ds in files}) == len({ds.StudyInstanceUID for ds in files}) == 1
    assert len({ds.SOPInstanceUID for ds in files}) == len(files)
    assert len({ds.PatientID for ds in files}) == 1
    old = {pydicom.dcmread(p).SeriesInstanceUID for p in series.iterdir()}
    assert files[0].SeriesInstanceUID not in old
    assert files[0].PatientIdentityRemoved == "YES"
    assert files[0].file_meta.MediaStorageSOPInstanceUID == files[0].SOPInstanceUID


def test_the_same_secret_gives_the_same_names_and_another_one_others(tmp_path, series):
    one, two, other = Rules(secret=b"k" * 32), Rules(secret=b"k" * 32), Rules()
    assert one.new_uid("1.2.3") == two.new_uid("1.2.3") != other.new_uid("1.2.3")
    assert one.new_name("SECRET-4711") == two.new_name("SECRET-4711") != one.new_name("SECRET-4712")
    assert len(one.new_uid("1.2.3")) <= 64
    assert "k" * 8 not in repr(one)


def test_dates_are_shifted_and_times_kept(series):
    path = next(series.iterdir())
    ds = pydicom.dcmread(path)
    time = ds.AcquisitionTime
    take_out(ds, Rules(shift_days=-40))
    assert ds.StudyDate == (datetime.date(1999, 12, 31) - datetime.timedelta(days=40)).strftime("%Y%m%d")
    assert ds.AcquisitionTime == time
    assert not ds.PatientBirthDate
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"


def test_private_elements_go_and_b_values_stay_if_wished(series):
    for keep in (True, False):
        ds = pydicom.dcmread(next(series.iterdir()))
        take_out(ds, Rules(keep_diffusion=keep))
        left = [element for element in ds if element.tag.is_private and not element.tag.is_private_creator]
        assert [str(element.value) for element in left] == (["1000"] if keep else [])


def test_what_may_show_text_is_flagged_or_stays(tmp_path, series):
    first, second = sorted(series.iterdir())[:2]
    ds = pydicom.dcmread(first)
    ds.BurnedInAnnotation = "YES"
    ds.save_as(first)
    ds = pydicom.dcmread(second)
    ds.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    ds.save_as(second)
    (series / "notes.txt").write_text("Jane Doe")
    (series / "broken.dcm").write_bytes(first.read_bytes()[:400])
    report = deidentify(series, tmp_path / "out")
    assert report.written == GRID.shape[2] - 1
    told = " ".join(report.lines())
    assert "burned into" in told
    assert "look at it" in told
    assert "not DICOM" in told
    assert "damaged" in told or "no SOP instance UID" in told


def test_a_target_in_use_and_an_empty_source_are_refused(tmp_path, series):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(FileProblem, match="not an empty folder"):
        deidentify(series, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileProblem, match="Nothing of"):
        deidentify(tmp_path / "empty", tmp_path / "new")


def test_the_free_text_of_a_nifti_goes(tmp_path):
    import nibabel as nib

    image = nib.Nifti1Image(DATA, GRID.affine)
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"SECRET-4711"))
    nib.save(image, tmp_path / "Doe.nii")
    deidentify(tmp_path / "Doe.nii", tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    assert not any(secret in raw for secret in SECRETS)
    np.testing.assert_array_equal(load(tmp_path / "a.nii").data, DATA)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mgz"])
def test_no_export_and_no_sidecar_tells_the_patient(tmp_path, series, ending):
    scan = load(series)
    out = tmp_path / "out"
    out.mkdir()
    save(scan, out / f"a{ending}")
    save(scan.with_labels((scan.data > 5).astype(np.uint8), {1: "high"}), out / f"b{ending}")
    for path in out.iterdir():
        raw = path.read_bytes()
        if path.suffix in (".gz", ".mgz"):
            import gzip

            raw = gzip.decompress(raw)
        assert not any(secret in raw for secret in SECRETS), path


def test_the_face_goes_and_the_brain_stays(tmp_path):
    grid = GRIDS["plain"]
    scan = head(grid, np.int16)
    brain = Labels(blob(grid, (4, -7, 11), (40, 47, 37)).astype(np.uint8), grid)
    after = blur_face(scan, brain, margin=4.0)
    inside = brain.data > 0
    np.testing.assert_array_equal(after.data[inside], scan.data[inside])
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    changed = grid.to_patient(index)[after.data != scan.data]
    assert len(changed) > 500
    assert changed[:, 1].min() > -12  # in front of the brain's middle only
    assert after.data.dtype == scan.data.dtype
    with pytest.raises(GridMismatch):
        blur_face(scan, marker(GRIDS["oblique"]))
    with pytest.raises(UnsupportedImage, match="too small"):
        blur_face(scan, marker(grid))


def test_a_real_head_loses_its_face(data_dir):
    folder = data_dir / "head_t1_colin27"
    if not folder.is_dir():
        pytest.skip("no head here")
    from napari_mri.io.files import load_labels

    scan, brain = load(folder / "ch2.nii.gz"), load_labels(folder / "ch2_brainmask.nii.gz")
    after = blur_face(scan, brain)
    np.testing.assert_array_equal(after.data[brain.data > 0], scan.data[brain.data > 0])

    def skin(volume):
        """Return how far the skin is from the front of the box, mm, over the eyes and the root of the nose."""
        return np.argmax(np.asarray(volume.data)[:, ::-1] > 25, axis=1).astype(float)[40:140, 15:55]

    assert np.abs(skin(after) - skin(scan)).mean() > 2
