"""The phantom: the same head on every grid, exact labels, signals as the sequences give them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mri import phantom
from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.phantom_anatomy import BRAIN, PARTS
from napari_mri.phantom_canvas import Waves, ellipsoid, places, tube
from tests.scans import grid_of

COARSE = phantom.default_grid(3.0)


@pytest.fixture(scope="module")
def heads() -> dict[str, tuple]:
    return {c: phantom.head(COARSE, c, noise=0.0, bias=0.0) for c in phantom.CONTRASTS}


def median(found: tuple, part: str) -> float:
    scan, labels = found
    return float(np.median(scan.data[labels.data == PARTS.index(part) + 1]))


def test_every_part_is_there_and_named(heads: dict[str, tuple]) -> None:
    labels = phantom.head(phantom.default_grid(2.0), noise=0.0, bias=0.0)[1]
    assert {labels.names[v] for v in labels.values} == set(PARTS)


def test_volumes_are_those_of_a_grown_person(heads: dict[str, tuple]) -> None:
    labels = heads["T1"][1]
    number = {name: value for value, name in labels.names.items()}
    assert 1050 < phantom.brain_mask(labels).volume_ml() < 1600
    assert 350 < labels.volume_ml(number["cortex"]) < 700
    assert 350 < labels.volume_ml(number["white matter"]) < 700
    assert 10 < labels.volume_ml(number["ventricles"]) < 50
    assert 1 < labels.volume_ml(number["lesion"]) < 4


def test_contrasts_order_the_tissues_as_a_radiologist_expects(heads: dict[str, tuple]) -> None:
    t1, t2, flair = (heads[c] for c in ("T1", "T2", "FLAIR"))
    assert median(t1, "fat") > median(t1, "white matter") > median(t1, "cortex") > median(t1, "ventricles")
    assert median(t2, "ventricles") > median(t2, "lesion") > median(t2, "cortex") > median(t2, "white matter")
    assert median(flair, "lesion") > median(flair, "cortex") > median(flair, "white matter")
    assert median(flair, "ventricles") < 0.3 * median(flair, "white matter")
    for found in heads.values():
        assert median(found, "white matter") == pytest.approx(phantom.WHITE_SIGNAL, rel=0.02)
        assert median(found, "skull") < 0.75 * phantom.WHITE_SIGNAL
        assert np.count_nonzero(found[0].data[found[1].data == 0]) < 0.05 * found[0].data.size


@pytest.mark.parametrize("axes", ["LPS", "SRP", "AIL"])
def test_same_head_in_every_storage_order(axes: str) -> None:
    plain = phantom.head(COARSE, noise=0.0, bias=0.0)
    other = phantom.head(COARSE.turned(axes), noise=0.0, bias=0.0)
    for one, two in zip(plain, other, strict=True):
        back = two.turned("RAS")
        # float32 sums differ in the last bit with the order of axes, which may tip a voxel on an outline
        assert np.mean(back.data != one.data) < 1e-3


def test_oblique_grid_shows_the_same_places() -> None:
    """Where a tilted and a plain grid meet within 0.4 mm, they hold the same part."""
    fine, fine_labels = phantom.head(phantom.default_grid(2.0), noise=0.0, bias=0.0)
    tilt = grid_of((47, 53, 31), (3.3, 3.1, 4.7), "LSA", (14, -9, 21), (0, 0, 0))
    labels = phantom.head(tilt, noise=0.0, bias=0.0)[1]
    index = np.argwhere(np.ones(labels.grid.shape, bool))
    voxel = fine.grid.to_voxels(labels.grid.to_patient(index))
    near = (np.abs(voxel - np.rint(voxel)) < 0.1).all(1)
    near &= ((voxel > 0) & (voxel < np.asarray(fine.grid.shape) - 1)).all(1)
    assert near.sum() > 200
    there = np.rint(voxel[near]).astype(int)
    same = labels.data[tuple(index[near].T)] == fine_labels.data[tuple(there.T)]
    assert same.mean() > 0.93


def test_seed_is_all_that_chance_has() -> None:
    one, two = phantom.head(COARSE, seed=5), phantom.head(COARSE, seed=5)
    other = phantom.head(COARSE, seed=6)
    assert one[0].fingerprint() == two[0].fingerprint()
    assert one[1].fingerprint() == two[1].fingerprint()
    assert one[1].fingerprint() != other[1].fingerprint()


def test_noise_is_rician() -> None:
    """In air the magnitude of two Gaussian channels has the mean of a Rayleigh law; in tissue it is Gaussian."""
    scan, labels = phantom.head(COARSE, noise=0.05, bias=0.0)
    sigma = 0.05 * phantom.WHITE_SIGNAL
    clean = phantom.head(COARSE, noise=0.0, bias=0.0)[0].data.astype(float)
    air = scan.data[(labels.data == 0) & (clean == 0)]
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    white = labels.data == 1
    assert (scan.data - clean)[white].std() == pytest.approx(sigma, rel=0.03)


def test_bias_stays_within_what_was_asked() -> None:
    clean = phantom.head(COARSE, noise=0.0, bias=0.0)[0].data.astype(float)
    shaded = phantom.head(COARSE, noise=0.0, bias=0.3)[0].data.astype(float)
    ratio = (shaded / np.maximum(clean, 1))[clean > 300]
    assert 0.69 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.31


def test_lesion_can_be_left_out() -> None:
    with_it, without = phantom.head(COARSE, noise=0, bias=0)[1], phantom.head(COARSE, noise=0, bias=0, lesion=False)[1]
    number = PARTS.index("lesion") + 1
    assert number in with_it.values
    assert number not in without.values
    assert not np.any((with_it.data != without.data) & (with_it.data != number))


def test_brain_mask_holds_brain_only(heads: dict[str, tuple]) -> None:
    labels = heads["T1"][1]
    mask = phantom.brain_mask(labels)
    assert mask.grid.same(labels.grid)
    assert {labels.names[int(v)] for v in np.unique(labels.data[mask.data > 0])} <= set(BRAIN)
    assert not set(BRAIN) & {"skull", "eyes", "cerebrospinal fluid", "spinal cord"}


def test_grid_beside_the_head_is_air() -> None:
    far = Grid.plain((9, 8, 7), (3, 3, 3))
    affine = far.affine.copy()
    affine[:3, 3] = 900
    scan, labels = phantom.head(Grid((9, 8, 7), affine), noise=0.0)
    assert scan.data.max() == 0
    assert labels.data.max() == 0


def test_unknown_contrast_is_refused() -> None:
    with pytest.raises(BadOption, match="T3"):
        phantom.head(COARSE, "T3")


def test_distances_are_millimetres() -> None:
    at = places(Grid.plain((41, 41, 41)), (slice(0, 41),) * 3)
    ball = np.broadcast_to(ellipsoid(at, (20, 20, 20), (10, 10, 10)), (41, 41, 41))
    assert ball[20, 20, 33] == pytest.approx(3.0, abs=0.01)
    assert ball[20, 20, 25] == pytest.approx(-5.0, abs=0.01)
    rod = np.broadcast_to(tube(at, ((10, 20, 20), (30, 20, 20)), (4, 4)), (41, 41, 41))
    assert rod[20, 26, 20] == pytest.approx(2.0, abs=0.01)
    assert rod[36, 20, 20] == pytest.approx(2.0, abs=0.01)


def test_waves_are_the_same_field_line_by_line_and_voxel_by_voxel() -> None:
    waves = Waves.drawn(np.random.default_rng(1), 5, 20.0)
    at = places(grid_of((13, 11, 17), (2, 2, 2)), (slice(0, 13), slice(0, 11), slice(0, 17)))
    full = [np.ascontiguousarray(np.broadcast_to(axis, (13, 11, 17))) for axis in (at.x, at.y, at.z)]
    assert np.abs(waves.at(at.x, at.y, at.z) - waves.at(*full)).max() < 1e-4
    assert np.abs(waves.with_slope(*full)[0] - waves.at(*full)).max() < 1e-5
