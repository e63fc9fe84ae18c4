"""Six clicks on the outline of a lesion are enough."""

import numpy as np
import pytest

import napari_mri as mri
from napari_mri.core.errors import BadPrompt
from napari_mri.core.volume import Volume
from tests.scans import dice, grid_of

GRIDS = {
    "plain": grid_of((45, 41, 39), (1.5, 1.5, 1.5)),
    "oblique": grid_of((45, 41, 39), (1.5, 1.5, 1.5), "LPS", (10.0, -6.0, 14.0)),
    "thick": grid_of((61, 57, 19), (1.0, 1.0, 3.5), "RSA"),
}


def lesion(grid, seed=0):
    """A lumpy ball at four times the noise."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    offset = grid.to_patient(index) - (4.0, -7.0, 11.0)
    radius = np.linalg.norm(offset, axis=-1)
    way = offset / np.maximum(radius, 1e-6)[..., None]
    truth = radius < 12 + 2.5 * np.sin(3 * way[..., 0] + 2) * np.cos(4 * way[..., 1])
    return Volume((100 + 80 * truth + rng.normal(0, 20, grid.shape)).astype(np.float32), grid), truth


def six(truth, grid):
    places = grid.to_patient(np.argwhere(truth))
    found = []
    for axis in range(3):
        found += [tuple(places[places[:, axis].argmin()]), tuple(places[places[:, axis].argmax()])]
    return tuple(found)


@pytest.mark.parametrize("name", GRIDS)
def test_six_points_find_a_noisy_lesion(name):
    scan, truth = lesion(GRIDS[name])
    mask = mri.segment(scan, mri.Prompts((mri.Extremes(six(truth, scan.grid)),)), model="extreme")
    assert mask.grid.same(scan.grid)
    assert dice(mask.data, truth) > 0.85


def test_a_click_outside_takes_a_part_away():
    scan, truth = lesion(GRIDS["plain"])
    first = mri.Prompts((mri.Extremes(six(truth, scan.grid)),))
    before = mri.segment(scan, first, model="extreme")
    spot = (4.0, -7.0, 15.0)
    voxel = tuple(np.rint(scan.grid.to_voxels(spot)).astype(int))
    after = mri.segment(scan, first.plus(mri.Point(spot, False)), model="extreme")
    assert before.data[voxel] == 1
    assert after.data[voxel] == 0


def test_five_points_are_refused_and_points_alone_too():
    with pytest.raises(BadPrompt, match="six"):
        mri.Extremes(((0, 0, 0),) * 5)
    scan, _ = lesion(GRIDS["plain"])
    with pytest.raises(BadPrompt, match="six extreme points"):
        mri.segment(scan, mri.Prompts((mri.Point((4, -7, 11)),)), model="extreme")


def test_extremes_survive_a_sidecar():
    marks = mri.Prompts((mri.Extremes(tuple((float(n), 1.0, 2.0) for n in range(6))),))
    assert mri.Prompts.from_json(marks.to_json()) == marks
