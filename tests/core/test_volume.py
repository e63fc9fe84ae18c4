"""Volumes keep their place, labels are whole numbers, fingerprints tell voxels and grids apart."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, GeometryProblem, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order, Step
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from tests.scans import GRIDS, head, marker


def test_array_must_fit_the_grid():
    grid = GRIDS["plain"]
    with pytest.raises(GridMismatch, match="does not lie"):
        Volume(np.zeros(np.add(grid.shape, 1)), grid)
    with pytest.raises(GridMismatch):
        head(grid).with_data(np.zeros((2, 2, 2)))
    with pytest.raises(GridMismatch):
        Volume(np.zeros((*grid.shape, 2, 2)), grid)


@pytest.mark.parametrize("name", GRIDS)
def test_turned_volume_is_the_same_in_the_patient(name):
    scan = head(GRIDS[name])
    turned = scan.turned("PIR")
    place = scan.grid.to_patient((3, 5, 7))
    voxel = tuple(np.rint(turned.grid.to_voxels(place)).astype(int))
    assert turned.data[voxel] == scan.data[3, 5, 7]


def test_labels_refuse_fractions_and_take_bools():
    grid = GRIDS["plain"]
    with pytest.raises(GeometryProblem, match="whole numbers"):
        Labels(np.zeros(grid.shape, np.float32), grid)
    made = Labels(np.ones(grid.shape, bool), grid)
    assert made.data.dtype == np.uint8
    assert made.values == (1,)


def test_volume_in_ml():
    labels = marker(Grid.plain((10, 10, 10), (1, 2, 3)))
    assert labels.volume_ml(1) == pytest.approx(6 * 6e-3)
    assert labels.volume_ml() == pytest.approx(7 * 6e-3)
    assert labels.volume_ml(9) == 0


def test_answers_keep_place_history_and_origin():
    scan = head(GRIDS["oblique"]).after(Step("opened")).titled("3 T1")
    labels = scan.with_labels(scan.data > 100, {1: "brain"})
    assert labels.grid is scan.grid
    assert labels.history == scan.history
    assert labels.title == "3 T1"
    assert labels.names[1] == "brain"
    with pytest.raises(TypeError):
        labels.names[1] = "other"


def test_frames_survive_only_where_they_fit():
    grid = Grid.plain((4, 5, 6))
    frames = Frames("time", 2.0, "s")
    scan = Volume(np.zeros((4, 5, 6, 7)), grid, frames=frames)
    assert scan.n_frames == 7
    assert scan.with_data(np.ones((4, 5, 6, 7))).frames == frames
    assert scan.with_data(np.ones((4, 5, 6, 3))).frames is None
    assert scan.frame(2).data.shape == (4, 5, 6)
    with pytest.raises(GeometryProblem, match="without a single frame"):
        Volume(np.zeros((4, 5, 6, 0)), grid)


def test_fingerprint_sees_voxels_type_and_grid_but_not_byte_order_or_layout():
    scan = head(GRIDS["oblique"], np.int16)
    print_ = scan.fingerprint()
    assert scan.with_data(scan.data.astype(">i2")).fingerprint() == print_
    assert scan.with_data(np.asfortranarray(scan.data)).fingerprint() == print_
    assert scan.with_data(scan.data.astype(np.int32)).fingerprint() != print_
    changed = scan.data.copy()
    changed[0, 0, 0] += 1
    assert scan.with_data(changed).fingerprint() != print_
    affine = scan.affine.copy()
    affine[0, 3] += 1e-3
    assert Volume(scan.data, Grid(scan.grid.shape, affine)).fingerprint() != print_


def test_repr_tells_what_matters_and_no_history():
    text = repr(marker(GRIDS["anisotropic"]).titled("mask"))
    assert text.startswith("Labels('mask', Grid(47×51×17")
    assert "history" not in text


def test_the_volume_of_a_label_goes_by_value_or_name():
    labels = marker(GRIDS["plain"])
    assert labels.volume_ml("block") == labels.volume_ml(1) > labels.volume_ml("corner") == labels.volume_ml(2) > 0
    assert labels.volume_ml() == pytest.approx(labels.volume_ml(1) + labels.volume_ml(2))
    with pytest.raises(BadOption, match="No label is called 'brain'") as told:
        labels.volume_ml("brain")
    assert "'block', 'corner'" in told.value.hint


def test_volumes_travel_between_processes():
    labels = marker(GRIDS["oblique"]).after(Step("x", Order("a", "b", {"c": 1}), {"d": 2}, ("w",)))
    there = pickle.loads(pickle.dumps(labels))
    assert there.fingerprint() == labels.fingerprint()
    assert there.names == labels.names
    assert there.history == labels.history


def test_steps_and_orders_survive_json():
    step = Step("x", Order("a", "b", {"c": 1.5}), {"d": [1, 2]}, ("w",))
    assert Step.from_json(step.to_json()) == step
    assert Step.from_json({"action": "y"}) == Step("y")


def test_an_origin_cannot_be_changed():
    origin = Origin(fields={"a": 1})
    with pytest.raises(TypeError):
        origin.fields["a"] = 2
