"""Raw k-space and arrays: told what they are; a magnitude image inside opens."""

import numpy as np
import pytest
import scipy.io

from napari_mri.core.errors import BrokenFile, MriError, UnsupportedImage
from napari_mri.io.files import load, load_all
from napari_mri.io.rawdata import on_scan
from tests.scans import GRIDS, head

h5py = pytest.importorskip("h5py")
HEADER = (
    b"<ismrmrdHeader><reconSpace><matrixSize><x>32</x><y>24</y><z>1</z></matrixSize>"
    b"<fieldOfView_mm><x>220.8</x><y>165.6</y><z>5</z></fieldOfView_mm></reconSpace></ismrmrdHeader>"
)


def test_fastmri_opens_its_reconstruction(tmp_path):
    image = np.random.default_rng(0).random((4, 24, 32)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.zeros((4, 2, 24, 32), np.complex64)
        file["reconstruction_rss"] = image
        file["ismrmrd_header"] = HEADER
    scan = load(tmp_path / "a.h5")
    np.testing.assert_array_equal(scan.data, image.T)
    np.testing.assert_allclose(scan.spacing, (6.9, 6.9, 5.0))
    assert "left and right are a guess" in scan.origin.warnings[0]


def test_kspace_alone_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.zeros((4, 2, 24, 32), np.complex64)
    with pytest.raises(UnsupportedImage, match="raw k-space") as caught:
        load(tmp_path / "a.h5")
    assert "Reconstruct" in caught.value.hint
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["dataset/xml"] = HEADER
        file["dataset/data"] = np.zeros(3)
    with pytest.raises(UnsupportedImage, match="ISMRMRD"):
        load(tmp_path / "b.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["reconstruction_rss"] = np.ones((4, 24, 32))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reconstruction_rss"] = h5py.ExternalLink("secret.h5", "/reconstruction_rss")
    with pytest.raises(UnsupportedImage):
        load(tmp_path / "a.h5")


def test_damaged_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reconstruction_rss"] = np.ones((4, 24, 32))
    raw = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(raw[: len(raw) // 3])
    with pytest.raises(BrokenFile):
        load(tmp_path / "a.h5")


def test_matlab_files_are_named(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"kspace": np.zeros((3, 3), complex)})
    with pytest.raises(UnsupportedImage, match="MATLAB"):
        load(tmp_path / "a.mat")


def test_siemens_ge_and_philips_raw_data_are_named(tmp_path):
    (tmp_path / "meas.dat").write_bytes((0).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(200))
    (tmp_path / "P12345.7").write_bytes(bytes(200))
    (tmp_path / "x.lab").write_bytes(bytes(200))
    (tmp_path / "x.par").write_bytes(b"# === GENERAL INFORMATION ===\n# === IMAGE INFORMATION ===\n")
    for name, maker in (("meas.dat", "Siemens"), ("P12345.7", "GE"), ("x.lab", "Philips"), ("x.par", "PAR")):
        with pytest.raises(UnsupportedImage, match=maker):
            load(tmp_path / name)


def test_numpy_arrays_open_and_land_on_their_scan(tmp_path):
    scan = head(GRIDS["oblique"], np.int16)
    np.save(tmp_path / "a.npy", scan.data)
    alone = load(tmp_path / "a.npy")
    assert "left and right are a guess" in alone.origin.warnings[0]
    put = on_scan(tmp_path / "a.npy", scan)
    np.testing.assert_array_equal(put.data, scan.data)
    assert put.grid.same(scan.grid)
    np.save(tmp_path / "t.npy", scan.data.T)
    with pytest.raises(UnsupportedImage, match=r"array\.T"):
        on_scan(tmp_path / "t.npy", scan)


def test_objects_complex_and_damaged_arrays_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "c.npy", np.zeros((3, 3, 3), complex))
    np.save(tmp_path / "f.npy", np.zeros((3, 3, 3)))
    (tmp_path / "f.npy").write_bytes((tmp_path / "f.npy").read_bytes()[:150])
    for name in ("o.npy", "c.npy", "f.npy"):
        with pytest.raises(MriError):
            load(tmp_path / name)


def test_several_arrays_in_one_archive(tmp_path):
    np.savez(tmp_path / "a.npz", scan=np.ones((4, 3, 2)), mask=np.zeros((4, 3, 2), np.uint8))
    assert {volume.data.dtype for volume in load_all(tmp_path / "a.npz")} == {np.dtype("f8"), np.dtype("u1")}
