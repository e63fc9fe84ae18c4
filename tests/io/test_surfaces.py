"""Surfaces: closed, smooth, of the right volume, at the right place; nibabel reads what it knows."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_mri.core.errors import BrokenFile, MriError, UnsupportedImage
from napari_mri.core.volume import Labels
from napari_mri.io.files import load, save
from napari_mri.io.freesurfer_surface import scanner_from_tkr
from napari_mri.io.gifti import read_gifti
from napari_mri.io.surface_files import read_surface, write_surface
from napari_mri.io.surfaces import Surface, surface_of, surfaces_of
from tests.scans import GRIDS, blob, head, marker


@pytest.mark.parametrize("name", GRIDS)
def test_a_surface_is_closed_smooth_and_where_the_mask_is(name):
    grid = GRIDS[name]
    mask = blob(grid)
    surface = surface_of(mask, grid)
    assert surface.closed
    assert surface.volume_ml == pytest.approx(mask.sum() * grid.voxel_ml, rel=0.01)
    radius = np.linalg.norm((surface.points - (4, -7, 11)) / (38, 45, 34), axis=1)
    stepped = surface_of(mask, grid, smooth=0)
    rough = np.linalg.norm((stepped.points - (4, -7, 11)) / (38, 45, 34), axis=1)
    assert radius.std() < 0.7 * rough.std()


def test_noise_and_masks_at_the_border_are_closed_too():
    grid = GRIDS["anisotropic"]
    for share in (0.02, 0.5):
        mask = np.random.default_rng(0).random(grid.shape) < share
        surface = surface_of(mask, grid, smooth=3)
        assert surface.closed
        assert surface.volume_ml > 0
    full = surface_of(np.ones(grid.shape, bool), grid, smooth=0)
    assert full.closed


@pytest.mark.parametrize("ending", [".stl", ".obj", ".ply", ".surf.gii", ".white"])
@pytest.mark.parametrize("name", ["plain", "oblique"])
def test_files_come_back_in_mm(tmp_path, ending, name):
    surface = surface_of(blob(GRIDS[name]), GRIDS[name])
    back = read_surface(write_surface(surface, tmp_path / f"a{ending}"))
    assert back.closed
    assert back.volume_ml == pytest.approx(surface.volume_ml, rel=1e-3)
    assert len(back.points) == len(surface.points)
    np.testing.assert_allclose(np.sort(back.points, axis=0), np.sort(surface.points, axis=0), atol=1e-3)


def test_nibabel_reads_gifti_and_freesurfer(tmp_path):
    surface = surface_of(blob(GRIDS["oblique"]), GRIDS["oblique"])
    image = nib.load(write_surface(surface, tmp_path / "a.surf.gii"))
    np.testing.assert_allclose(image.agg_data("pointset"), surface.points, atol=1e-3)
    np.testing.assert_array_equal(image.agg_data("triangle"), surface.faces)
    points, faces, told = nib.freesurfer.read_geometry(
        write_surface(surface, tmp_path / "a.white"), read_metadata=True
    )
    np.testing.assert_allclose(points + told["cras"], surface.points, atol=1e-3)
    np.testing.assert_array_equal(faces, surface.faces)


@pytest.mark.parametrize("name", GRIDS)
def test_freesurfer_frame_is_moved_to_the_scanner(tmp_path, name):
    grid = GRIDS[name]
    image = nib.MGHImage(np.zeros(grid.shape, np.uint8), grid.affine)
    wanted = image.affine @ np.linalg.inv(image.header.get_vox2ras_tkr())
    np.testing.assert_allclose(scanner_from_tkr(grid), wanted, atol=1e-3)
    points = np.random.default_rng(0).random((4, 3)) * 50
    told = {
        "head": np.array([2, 0, 20], dtype=np.int32), "valid": "1  # volume info valid", "filename": "x",
        "volume": grid.shape, "voxelsize": grid.spacing, "xras": grid.directions[:, 0], "yras": grid.directions[:, 1],
        "zras": grid.directions[:, 2], "cras": image.header["Pxyz_c"],
    }  # fmt: skip
    nib.freesurfer.write_geometry(
        tmp_path / "lh.white", points, np.array([[0, 1, 2], [1, 2, 3]]), volume_info=told
    )
    want = points @ wanted[:3, :3].T + wanted[:3, 3]
    np.testing.assert_allclose(read_surface(tmp_path / "lh.white").points, want, atol=1e-3)
    nib.freesurfer.write_geometry(tmp_path / "rh.white", points, np.array([[0, 1, 2]]))
    assert "shifted" in read_surface(tmp_path / "rh.white").warnings[0]


def test_gifti_of_nibabel_with_a_transform(tmp_path):
    points, faces = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)
    shift = np.eye(4)
    shift[:3, 3] = (5, 6, 7)
    system = nib.gifti.GiftiCoordSystem("NIFTI_XFORM_UNKNOWN", "NIFTI_XFORM_SCANNER_ANAT", shift)
    arrays = [
        nib.gifti.GiftiDataArray(points, "NIFTI_INTENT_POINTSET", coordsys=system),
        nib.gifti.GiftiDataArray(faces, "NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / "a.surf.gii")
    np.testing.assert_allclose(read_surface(tmp_path / "a.surf.gii").points, points + np.array((5, 6, 7)))


def test_gifti_neither_expands_entities_nor_follows_files():
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><GIFTI>&a;</GIFTI>'
    with pytest.raises(UnsupportedImage, match="entities"):
        read_gifti(bomb, "x")
    outside = (
        b'<GIFTI><DataArray Intent="NIFTI_INTENT_POINTSET" DataType="NIFTI_TYPE_FLOAT32" Dim0="3" Dim1="3" '
        b'Encoding="ExternalFileBinary" ExternalFileName="/etc/passwd"><Data/></DataArray></GIFTI>'
    )
    with pytest.raises(UnsupportedImage, match="another file"):
        read_gifti(outside, "x")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.stl", b"\0" * 84 + b"x"),
        ("a.stl", b"solid x\n vertex 1 2\nendsolid"),
        ("a.obj", b"v 1 2 3\nf 1 2 9\n"),
        ("a.obj", b"v 1 2 x\nv 1 2 3\nv 1 2 4\nf 1 2 3\n"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nproperty float y\nproperty float z\nend_header\n"),
        ("a.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999\nproperty float x\nproperty float y\n"
                  b"property float z\nelement face 1\nend_header\n"),
        ("a.gii", b"<GIFTI><DataArray"),
        ("lh.white", b"\xff\xff\xfehello\n\n\x7f\xff\xff\xff\x00\x00\x00\x01"),
    ],
)  # fmt: skip
def test_damaged_surfaces_get_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MriError):
        read_surface(tmp_path / name)


def test_labels_are_saved_as_surfaces_and_surfaces_are_no_volumes(tmp_path):
    grid = GRIDS["plain"]
    labels = replace(marker(grid), colors={1: (1, 0, 0)})
    assert [one.name for one in surfaces_of(labels)] == ["block", "corner"]
    path = save(labels, tmp_path / "a.obj", sidecar=False)
    text = path.read_text()
    assert "o block" in text
    assert "o corner" in text
    with pytest.raises(UnsupportedImage, match="surface, not a volume"):
        load(path)
    with pytest.raises(UnsupportedImage):
        save(head(grid), tmp_path / "b.stl")
    with pytest.raises(UnsupportedImage, match="no label"):
        save(Labels(np.zeros(grid.shape, np.uint8), grid), tmp_path / "b.stl")


def test_a_surface_refuses_points_that_are_not_there():
    with pytest.raises(BrokenFile):
        Surface(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(BrokenFile):
        Surface(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    assert not Surface(np.eye(3), np.array([[0, 1, 2]])).closed
