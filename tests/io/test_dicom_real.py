"""Scanners' own files against conversions made by another program."""

import hashlib
import json
import tarfile

import nibabel as nib
import numpy as np
import pytest

from napari_mri.core.errors import SeveralSeries, UnsupportedImage
from napari_mri.io.files import load, load_all

VENDORS = (
    "ge_anatomical", "ge_dti", "ge_fmri", "siemens_anatomical", "philips_anatomical", "philips_dti", "philips_fmri",
    "philips_enhanced_fmri", "hitachi_anatomical", "hyperfine_anatomical", "generic_compressed_j2k",
    "generic_compressed_jpeg", "generic_compressed_jpegls", "generic_compressed_rle",
    "generic_anatomical_002_non_isotropic",
)  # fmt: skip


def compare(scan, reference):
    """Every voxel's centre within 0.01 mm and every intensity equal, whatever the storage order."""
    want = nib.as_closest_canonical(nib.load(reference))
    have = scan.turned("RAS")
    values = np.asarray(want.dataobj)
    assert have.data.shape == values.shape
    ends = np.array(np.meshgrid(*([0, n - 1] for n in have.data.shape[:3]))).reshape(3, -1).T
    apart = have.grid.to_patient(ends) - (ends @ want.affine[:3, :3].T + want.affine[:3, 3])
    assert np.abs(apart).max() < 0.01
    if have.data.dtype.kind == "f":
        np.testing.assert_allclose(have.data, values, rtol=1e-6)
    else:
        np.testing.assert_array_equal(have.data, values)
    if scan.frames is not None:
        assert scan.frames.step == pytest.approx(float(want.header["pixdim"][4]), rel=1e-5)


@pytest.mark.parametrize("name", VENDORS)
def test_vendors(data_dir, name):
    folder = data_dir / "dicom_vendor_slices"
    reference = folder / f"{name}.nii.gz"
    compare(load(folder / name), reference if reference.exists() else folder / "generic_compressed_j2k.nii.gz")


def test_colour_is_refused(data_dir):
    with pytest.raises(UnsupportedImage, match="colours"):
        load(data_dir / "dicom_vendor_slices" / "generic_rgb")


def test_b_values_and_directions(data_dir):
    folder = data_dir / "dicom_vendor_slices"
    for name in ("ge_dti", "philips_dti"):
        scan = load(folder / name)
        assert scan.frames.kind == "diffusion"
        np.testing.assert_allclose(scan.frames.bvals, np.loadtxt(folder / f"{name}.bval"))
    # The reference keeps Philips' vectors along the patient; here they must turn into them (LPS).
    vectors = np.loadtxt(folder / "philips_dti.bvec").T
    for told, patient in zip(scan.frames.bvecs, vectors, strict=True):
        back = scan.grid.directions @ (np.asarray(told) * (-1, 1, 1)) * (-1, -1, 1)
        np.testing.assert_allclose(back, patient, atol=np.radians(0.1))


@pytest.mark.parametrize(
    ("folder", "archive", "reference"),
    [("dicom_ge_fmri_classic", "mr_0004.tar.xz", "ref_DCM2NIIX_regression_test_4.nii.gz")],
)
def test_a_time_series_in_150_files(data_dir, tmp_path, folder, archive, reference):
    with tarfile.open(data_dir / folder / archive) as tar:
        tar.extractall(tmp_path, filter="data")
    compare(load(tmp_path), data_dir / folder / reference)


def test_a_mosaic(data_dir):
    folder = data_dir / "dicom_siemens_mosaic"
    compare(load(folder / "mr_0003"), folder / "ref_EPI_PE=AP_3.nii.gz")


def expected(scan, folder):
    facts = next(iter(json.loads(next(folder.glob("expected*.json")).read_text())["volumes"].values()))
    have = scan.turned("RAS")
    assert list(have.data.shape) == facts["shape"]
    np.testing.assert_allclose(have.affine, facts["affine_ras"], atol=5e-4)
    sha = hashlib.sha256(np.ascontiguousarray(have.data, dtype="<i2").tobytes()).hexdigest()
    assert sha == facts["sha256_voxels_canonical_ras_int16_C"]


def test_a_whole_head_in_192_files(data_dir, tmp_path):
    folder = data_dir / "dicom_siemens_t1_classic"
    with tarfile.open(folder / "SAG-anon.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    expected(load(tmp_path), folder)
    one = sorted(p for p in tmp_path.rglob("*") if p.is_file())[17]
    expected(load(one), folder)


def test_a_whole_head_in_one_enhanced_file(data_dir):
    expected(load(data_dir / "dicom_siemens_enhanced" / "5_anat-T1w_acq-tfl"), data_dir / "dicom_siemens_enhanced")


def test_malformed_folders_say_what_is_wrong(data_dir):
    folder = data_dir / "dicom_malformed"
    two = load(folder / "slicecount")
    assert "only 2 slices" in two.origin.warnings[0]
    compare(two, folder / "slicecount_ground_truth.nii.gz")
    with pytest.raises(SeveralSeries) as caught:
        load(folder / "sliceorientation")
    assert len(caught.value.names) == 2
    assert {volume.data.shape[2] for volume in load_all(folder / "sliceorientation")} == {2}


def test_segmentation_objects_are_not_taken_for_scans(data_dir):
    scan = load(data_dir / "dicom_seg" / "ct-3slice")
    assert scan.data.shape == (512, 512, 3)
    assert scan.data.min() < -500
