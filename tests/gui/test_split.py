"""Two layers on one picture, each on its own side of a line."""

import gc
from weakref import ref

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.gui import layers as bridge
from tests.scans import GRIDS, head


@pytest.fixture
def pair(window, qtbot):
    """A scan in red and one in green, over one another."""
    made = [bridge.to_layer(head(GRIDS["plain"]), name=name, colormap=name) for name in ("red", "green")]
    return [window.add_layer(layer) for layer in made]


def colours(window):
    """Return the greatest red and green of the left and of the right half of the picture."""
    picture = window.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    middle = picture.shape[1] // 2
    picture = picture[picture.shape[0] // 4 : -picture.shape[0] // 4]  # without letters and scale bar
    sides = (picture[:, : middle - 3], picture[:, middle + 3 :])
    return [tuple(int(side[..., channel].max() > 60) for channel in (0, 1)) for side in sides]


def test_each_layer_on_its_side(window, pair, qtbot):
    from napari_mri.gui.split import Split

    red, green = pair
    assert colours(window) == [(0, 1), (0, 1)]  # green lies above
    split = Split(window, [red], [green])
    assert colours(window) == [(1, 0), (0, 1)]
    split.move(0.0)
    assert colours(window) == [(0, 1), (0, 1)]
    split.move(2.0)
    assert split.at == 1.0
    assert colours(window) == [(1, 0), (1, 0)]
    split.close()
    split.close()
    assert colours(window) == [(0, 1), (0, 1)]


def test_it_follows_into_3d_and_back_and_a_scrolled_slice(window, pair, qtbot):
    from napari_mri.gui.split import Split

    split = Split(window, [pair[0]], [pair[1]])
    for shown in (3, 2):
        window.dims.ndisplay = shown
        qtbot.wait(50)
        assert colours(window) == [(1, 0), (0, 1)]
    window.dims.set_current_step(0, 9)
    assert colours(window) == [(1, 0), (0, 1)]
    split.close()


def test_a_level_line(window, pair):
    from napari_mri.gui.split import Split

    split = Split(window, [pair[0]], [pair[1]], upright=False)
    picture = window.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    middle = picture.shape[0] // 2
    above, below = picture[middle // 2 : middle - 3], picture[middle + 3 : middle + middle // 2]
    assert above[..., 0].max() > 60
    assert above[..., 1].max() < 60
    assert below[..., 0].max() < 60
    assert below[..., 1].max() > 60
    split.close()


def test_a_third_scan_above_hides_neither(window, pair, qtbot):
    from napari_mri.gui.split_bar import SplitBar

    bar = SplitBar(window)
    qtbot.addWidget(bar)
    white, below = (window.add_layer(bridge.to_layer(head(GRIDS["plain"]), name=name)) for name in ("white", "below"))
    window.layers.move(window.layers.index(below), 0)
    bar.show_pair(*pair)
    bar.switch.setChecked(True)
    for shown in (2, 3, 2):
        window.dims.ndisplay = shown
        qtbot.wait(50)
        assert colours(window) == [(1, 0), (0, 1)]
    assert white.visible
    window.layers.remove(white)
    assert colours(window) == [(1, 0), (0, 1)]
    bar.switch.setChecked(False)
    assert colours(window) == [(0, 1), (0, 1)]
    bar.end()


def test_it_ends_with_a_layer_and_is_let_go(window, pair):
    from napari_mri.gui.split import Split

    split = Split(window, [pair[0]], [pair[1]])
    window.layers.remove(pair[1])
    assert split.closed
    assert colours(window) == [(1, 0), (1, 0)]
    split.move(0.1)  # nothing is left to move
    assert colours(window) == [(1, 0), (1, 0)]
    known = ref(split)
    del split
    gc.collect()
    assert known() is None


def test_a_viewer_without_a_window_is_left_as_it_is():
    from napari.components import ViewerModel

    from napari_mri.gui.split import Split

    viewer = ViewerModel()
    layers = [viewer.add_image(np.zeros((3, 4, 5))) for _ in range(2)]
    split = Split(viewer, layers[:1], layers[1:])
    assert split.closed
    split.close()
