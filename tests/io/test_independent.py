"""What every writer wrote, as somebody else's reader finds it: each label at its place in patient mm.

48 storage orders, an oblique and an anisotropic grid each.
"""

import struct

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon

from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.files import save
from napari_mri.io.formats import all_formats
from tests.test_every_format import GRIDS

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def labels_on(grid, seed=0):
    data = np.random.default_rng(seed).integers(0, 4, grid.shape).astype(np.uint8)
    data[0, 0, 0] = 5
    return Labels(data, grid, names={1: "one", 5: "five"})


def spots(data, affine):
    """Return (n, 4) patient RAS mm and value of every labelled voxel, in one order."""
    index = np.argwhere(data)
    table = np.column_stack([index @ affine[:3, :3].T + affine[:3, 3], data[tuple(index.T)]])
    return table[np.lexsort(np.round(table, 2).T)]


def same(data, affine, labels):
    have, want = spots(data, affine), spots(labels.data, labels.affine)
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, atol=2e-3)


def by_nibabel(path):
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


def by_simpleitk(path):
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, FLIP @ affine


def by_highdicom(path):
    seg = hd.seg.segread(path)
    volume = seg.get_volume(combine_segments=True)
    told = {one.segment_number: int(one.SegmentDescription.split()[-1]) for one in seg.SegmentSequence}
    values = np.zeros(max(told) + 1, np.uint8)
    values[list(told)] = list(told.values())
    return values[volume.array.astype(int)], FLIP @ volume.affine


READERS = {
    ".nii.gz": by_nibabel, ".nii": by_nibabel, ".nrrd": by_simpleitk, ".seg.nrrd": by_simpleitk, ".mha": by_simpleitk,
    ".mgz": by_nibabel, ".mgh": by_nibabel, ".mgh.gz": None, ".seg.dcm": by_highdicom, ".dcm": by_highdicom,
}  # fmt: skip
"""Somebody else's reader of each ending that keeps voxels; None where nobody else reads that ending."""


def test_every_ending_that_keeps_voxels_has_a_reader_here():
    written = {e for fmt in all_formats() if fmt.write and fmt.name not in ("surface", "rtstruct") for e in fmt.endings}
    assert written == set(READERS)


@pytest.mark.parametrize("ending", [ending for ending, reader in READERS.items() if reader])
def test_voxels_stand_where_we_put_them(tmp_path, ending):
    for n, (name, grid) in enumerate(GRIDS.items()):
        labels = labels_on(grid, n)
        path = save(labels, tmp_path / f"a{ending}", sidecar=False)
        try:
            same(*READERS[ending](path), labels)
        except AssertionError as error:
            raise AssertionError(f"{ending} on {name}") from error


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".mgz"])
def test_masks_of_several_frames_are_found_frame_by_frame(tmp_path, ending):
    grid = GRIDS["oblique"]
    data = np.random.default_rng(0).integers(0, 3, (*grid.shape, 4)).astype(np.uint8)
    path = save(Labels(data, grid, frames=Frames("time", 2.0, "s")), tmp_path / f"a{ending}", sidecar=False)
    if ending in (".nii.gz", ".mgz"):
        have, affine = by_nibabel(path)
    else:
        image = sitk.ReadImage(str(path))
        have = sitk.GetArrayFromImage(image)
        have = have.transpose(2, 1, 0, 3) if image.GetNumberOfComponentsPerPixel() > 1 else have.T
        side = image.GetDimension()
        affine = np.eye(4)
        affine[:3, :3] = (np.reshape(image.GetDirection(), (side, side)) * image.GetSpacing())[:3, :3]
        affine[:3, 3] = image.GetOrigin()[:3]
        affine = FLIP @ affine
    assert have.shape[3] == 4
    for n in range(4):
        same(have[..., n], affine, Labels(data[..., n], grid))


def inside(contours, centres):
    """Return which patient points lie inside an odd number of planar contours, by their own planes."""
    scatter = sum((c - c.mean(0)).T @ (c - c.mean(0)) for c in contours)
    normal = np.linalg.eigh(scatter)[1][:, 0]
    across = np.linalg.svd(normal[None])[2][1:]
    found = np.zeros(len(centres), bool)
    for contour in contours:
        near = np.abs((centres - contour[0]) @ normal) < 0.05
        found[near] ^= Polygon(contour @ across.T).contains_points(centres[near] @ across.T)
    return found


def test_contours_enclose_the_voxels_in_mm(tmp_path):
    for name, grid in GRIDS.items():
        data = np.zeros(grid.shape, np.uint8)
        data[1:4, 1:4, 1:3] = 2
        data[2, 2, 1] = 0  # a hole
        data[0, 0, 2] = 2
        ds = pydicom.dcmread(save(Labels(data, grid), tmp_path / "a.rtstruct.dcm", sidecar=False))
        contours = [np.reshape(c.ContourData, (-1, 3)).astype(float) * (-1, -1, 1)
                    for c in ds.ROIContourSequence[0].ContourSequence]  # fmt: skip
        centres = grid.to_patient(np.argwhere(np.ones(grid.shape)))
        np.testing.assert_array_equal(inside(contours, centres), data.ravel() == 2, err_msg=name)


def triangles(path):
    """Return (n, 3, 3) corners, read by nibabel or by the plainest parser of the format."""
    raw = path.read_bytes()
    if path.suffix == ".gii":
        points, faces = (one.data for one in nibabel.load(path).darrays)
    elif path.suffix in (".white", ".pial"):
        points, faces = nibabel.freesurfer.read_geometry(path)
    elif path.suffix == ".stl":
        (count,) = struct.unpack_from("<I", raw, 80)
        return np.array([struct.unpack_from("<9f", raw, 84 + 50 * n + 12) for n in range(count)]).reshape(-1, 3, 3)
    elif path.suffix == ".obj":
        rows = [line.split() for line in raw.decode().splitlines()]
        points = np.array([row[1:] for row in rows if row and row[0] == "v"], float)
        faces = np.array([row[1:] for row in rows if row and row[0] == "f"], int) - 1
    else:
        head, body = raw.split(b"end_header\n", 1)
        counts = [int(line.split()[-1]) for line in head.splitlines() if line.startswith(b"element")]
        points = np.array([struct.unpack_from("<3f", body, 15 * n) for n in range(counts[0])])
        faces = np.array([struct.unpack_from("<B3i", body, 15 * counts[0] + 13 * n)[1:] for n in range(counts[1])])
    return np.asarray(points)[faces]


@pytest.mark.parametrize("ending", [".stl", ".obj", ".ply", ".surf.gii", ".gii", ".white", ".pial"])
def test_surfaces_enclose_the_labels_in_mm(tmp_path, ending):
    for name, small in GRIDS.items():
        affine = small.affine.copy()
        affine[:3, 3] = (12.0, -30.0, 45.0)
        grid = type(small)((14, 15, 12), affine)
        data = np.zeros(grid.shape, np.uint8)
        data[3:11, 4:10, 2:9] = 1
        path = save(Labels(data, grid), tmp_path / f"a{ending}", sidecar=False)
        corners = triangles(path)
        signed = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        want = data.sum() * grid.voxel_ml * 1000
        assert signed.sum() == pytest.approx(want, rel=0.08), name
        middle = (signed[:, None] * corners.sum(axis=1) / 4).sum(axis=0) / signed.sum()
        expected = grid.to_patient(np.argwhere(data)).mean(axis=0)
        np.testing.assert_allclose(middle, expected, atol=0.1 * max(grid.spacing), err_msg=name)


def test_the_comparison_would_notice_a_flip():
    grid = GRIDS["LPS"]
    labels = labels_on(grid)
    with pytest.raises(AssertionError):
        same(labels.data[::-1], labels.affine, labels)
    with pytest.raises(AssertionError):
        same(labels.data, FLIP @ labels.affine, labels)


def test_grey_values_stand_where_we_put_them(tmp_path):
    for ending in (".nii.gz", ".nrrd", ".mha", ".mgz"):
        for grid in (GRIDS["oblique"], GRIDS["anisotropic"], GRIDS["SPL"]):
            scan = Volume(np.random.default_rng(0).integers(1, 3000, grid.shape).astype(np.int16), grid)
            have, affine = READERS[ending](save(scan, tmp_path / f"g{ending}", sidecar=False))
            have, want = spots(have, affine), spots(scan.data, grid.affine)
            np.testing.assert_allclose(have, want, atol=2e-3)
