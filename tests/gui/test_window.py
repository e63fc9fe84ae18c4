"""How a window is set up, on a viewer without a window."""

import sys
import types

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.components import ViewerModel

from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui import window
from tests.scans import GRIDS, grid_of, head


@pytest.fixture
def viewer():
    made = ViewerModel()
    window.watch(made)
    return made


def add(viewer, volume):
    return viewer.add_layer(bridge.to_layer(volume, bridge.frame_of(viewer.layers)))


def test_the_first_scan_sets_the_window_up(viewer):
    add(viewer, head(GRIDS["permuted"]))
    assert viewer.scene.camera.orientation2d == ("up", "left")
    assert viewer.dims.order == (0, 1, 2)
    assert viewer.canvas.overlays.scale_bar.visible
    text = viewer.canvas.overlays.text
    assert text.visible
    assert text.text == "Axial · patient's right is on the left"


def test_later_scans_leave_the_users_view_alone(viewer):
    add(viewer, head(GRIDS["plain"]))
    window.look(viewer, "coronal", radiological=False)
    add(viewer, head(GRIDS["flipped"]))
    assert viewer.dims.order == (1, 0, 2)
    assert viewer.scene.camera.orientation2d == ("up", "right")
    assert viewer.canvas.overlays.text.text == "Coronal · patient's right is on the right"


def test_other_programs_images_change_nothing(viewer):
    viewer.add_image(np.zeros((5, 6, 7)))
    assert viewer.scene.camera.orientation2d == ("down", "right")
    assert not viewer.canvas.overlays.text.visible


@pytest.mark.parametrize(
    ("plane", "axes", "words"),
    [
        ("axial", (1, 2), "Axial"),
        ("coronal", (0, 2), "Coronal"),
        ("sagittal", (0, 1), "Sagittal · front is on the left"),
    ],
)
def test_planes(viewer, plane, axes, words):
    """Up and across are the right patient axes, in 3D and with frames before them."""
    add(viewer, head(GRIDS["plain"]))
    window.look(viewer, plane)
    assert viewer.dims.displayed == axes
    assert viewer.canvas.overlays.text.text.startswith(words)
    scan = head(GRIDS["plain"])
    add(viewer, Volume(np.stack([scan.data] * 3, axis=-1), scan.grid))
    window.look(viewer, plane)
    assert viewer.dims.displayed == tuple(a + 1 for a in axes)
    assert viewer.canvas.overlays.text.text.startswith(words)


def test_a_view_that_is_none_of_the_three_claims_nothing(viewer):
    add(viewer, head(GRIDS["plain"]))
    viewer.dims.ndisplay = 3
    assert not viewer.canvas.overlays.text.visible
    viewer.dims.ndisplay = 2
    assert viewer.canvas.overlays.text.visible
    viewer.dims.order = (0, 2, 1)
    assert not viewer.canvas.overlays.text.visible
    viewer.dims.order = (0, 1, 2)
    assert viewer.canvas.overlays.text.visible
    viewer.scene.camera.orientation2d = ("down", "right")
    assert not viewer.canvas.overlays.text.visible


@pytest.mark.parametrize(("axes", "plane"), [("RAS", (1, 2)), ("RSA", (0, 2)), ("ASR", (0, 1))])
def test_a_single_slice_is_looked_at_as_it_was_taken(viewer, axes, plane):
    grid = grid_of((21, 23, 1), (1.0, 1.0, 5.0), axes)
    add(viewer, Volume(np.ones(grid.shape, np.float32), grid))
    assert viewer.dims.displayed == plane


def test_new_labels_are_known_at_once(viewer):
    layer = add(viewer, head(GRIDS["oblique"]))
    viewer.layers.selection.active = layer
    viewer._new_labels()
    drawn = viewer.layers[-1]
    viewer.layers.remove(layer)
    assert bridge.labels_of(drawn, viewer.layers).grid.same(GRIDS["oblique"])


def test_watching_twice_is_watching_once(viewer):
    count = len(viewer.layers.events.inserted.callbacks)
    window.watch(viewer)
    assert len(viewer.layers.events.inserted.callbacks) == count


def test_warnings_of_a_file_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(window, "show_warning", shown.append)
    scan = head(GRIDS["plain"])
    window.tell([Volume(scan.data, scan.grid, origin=Origin(title="T1", warnings=("No geometry.",)))])
    assert shown == ["T1: No geometry."]


@pytest.mark.parametrize(
    ("python", "binding", "unsafe"),
    [
        ((3, 11, 7), "6.12.0", True),
        ((3, 12, 0), "6.12.0", False),
        ((3, 11, 7), "6.11.3", False),
        ((3, 11, 7), None, False),
    ],
)
def test_a_binding_that_kills_the_window_is_told(monkeypatch, python, binding, unsafe):
    monkeypatch.setattr(sys, "version_info", python)
    if binding is None:
        monkeypatch.delitem(sys.modules, "PySide6", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "PySide6", types.SimpleNamespace(__version__=binding))
    assert bool(window.unsafe_binding()) == unsafe
