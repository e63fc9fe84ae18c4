"""A script that opens a widget hands over a stand-in for the viewer: each widget works on the viewer itself."""

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from npe2 import PluginManager

from napari_mri.gui import layers as bridge
from napari_mri.gui.window import bare
from tests.scans import GRIDS, head

PLUGIN = "napari-mri-workbench"


def titles():
    manifest = PluginManager.instance().get_manifest(PLUGIN)
    return [widget.display_name for widget in manifest.contributions.widgets]


def test_each_widget_opened_by_a_script_knows_the_viewer_itself(window):
    assert len(titles()) > 5
    for title in titles():
        _, widget = window.window.add_plugin_dock_widget(PLUGIN, title, tabify=True)
        assert type(getattr(widget, "_viewer", window)) is type(window), title


def test_layers_added_later_are_known_and_shown_in_three_planes(window, qtbot):
    _, planes = window.window.add_plugin_dock_widget(PLUGIN, "Three planes")
    _, clicks = window.window.add_plugin_dock_widget(PLUGIN, "Click to segment")
    layer = window.add_layer(bridge.to_layer(head(GRIDS["oblique"])))
    assert window.scene.camera.orientation2d == ("up", "left")
    assert clicks.scan.layer is layer
    assert not planes.inside


def test_a_viewer_is_its_own(window):
    assert bare(window) is window
