"""Trying a model on a slab, further scans, and the split between scan and result, in a real window."""

import time

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.layers import Image

from napari_mri import registry
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.model import DENOISE, SUPERRES, Card, Model, Wants, knob
from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.placing import Frame
from napari_mri.gui.preview import DEEP_MM, LEAST, MINUTES, MOST_VOXELS, order_for, slab
from tests.gui import slow_models
from tests.scans import GRIDS, head


def _params():
    from dataclasses import make_dataclass

    return make_dataclass("Params", [("minutes", float, knob(4.0, "Longest time.", low=0.0, high=9.0))], frozen=True)


def _finer(scan, p, rt):
    grid = scan.grid.respaced(np.asarray(scan.spacing) / 2)
    return Volume(np.kron(scan.data, np.ones((2, 2, 2), np.float32)), grid)


def _joined(scan, p, rt, others=()):
    rt.warn(f"It was given {len(others)} more.")
    return scan.with_data(scan.data + sum(float(other.data.mean()) for other in others))


MODELS = (
    *slow_models.MODELS,
    Model(Card("finer", SUPERRES, "Finer", says="A toy.", wants=Wants(axes="RAS", min_slices=1), rank=1), _params(), _finer),
    Model(
        Card("joined", DENOISE, "Joined", says="A toy.", wants=Wants(min_slices=1, others=2, least_others=1)),
        run=_joined,
    ),
)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "_found", lambda: MODELS)


def titled(volume, title="T1"):
    return Volume(volume.data, volume.grid, origin=Origin(title=title))


@pytest.fixture
def run(window):
    from napari_mri.gui.run_widget import RunWidget

    window.add_layer(bridge.to_layer(titled(head(GRIDS["anisotropic"]))))
    widget = RunWidget(window)
    window.window.add_dock_widget(widget, name="Run a model")
    return widget


def choose(run, task, name):
    run.task.setCurrentIndex(run.task.findData(task))
    row = next(n for n in range(run.model.count()) if run.model.itemData(n).name == name)
    run.model.setCurrentIndex(row)


def done(run, qtbot):
    qtbot.waitUntil(lambda: not run._job.running, timeout=20_000)


# ---------------------------------------------------------------------------------------- the slab


def test_a_slab_lies_around_the_slice_in_view(window):
    from napari_mri.gui.window import look

    scan = titled(head(GRIDS["oblique"]))
    window.add_layer(bridge.to_layer(scan))
    frame = bridge.frame_of(window.layers)
    for plane, world in (("axial", 0), ("coronal", 1), ("sagittal", 2)):
        look(window, plane)
        for share in (0.1, 0.5, 0.95):
            step = int(window.dims.nsteps[world] * share)
            window.dims.set_current_step(world, step)
            part = slab(scan, window, frame)
            axis = int(np.argmax(np.abs(frame.axes[:, world] @ scan.grid.directions)))
            assert part.grid.shape[axis] == max(LEAST, round(DEEP_MM / scan.spacing[axis]))
            assert [n for a, n in enumerate(part.grid.shape) if a != axis] == [
                n for a, n in enumerate(scan.grid.shape) if a != axis
            ]
            first = np.round(scan.grid.to_voxels(part.grid.to_patient((0, 0, 0)))).astype(int)
            box = tuple(slice(a, a + n) for a, n in zip(first, part.grid.shape, strict=True))
            np.testing.assert_array_equal(part.data, scan.data[box])
            voxel = scan.grid.to_voxels(frame.to_patient(np.asarray(window.dims.point)[-3:]))[axis]
            assert box[axis].start - 0.51 <= voxel <= box[axis].stop - 0.49


def test_a_slab_of_a_large_scan_and_of_a_series_is_small_and_one_volume(window):
    grid = Grid.plain((300, 320, 40), (0.7, 0.7, 4.0))
    data = np.zeros((*grid.shape, 2), np.uint8)
    data[..., 1] = 7
    scan = Volume(data, grid)
    window.add_layer(bridge.to_layer(scan))
    window.dims.set_current_step(0, 1)
    part = slab(scan, window, Frame.of(grid))
    assert part.data.ndim == 3
    assert part.data.max() == part.data.min() == 7
    assert part.data.size <= MOST_VOXELS
    assert part.grid.shape[2] == LEAST


def test_a_model_that_learns_learns_for_seconds():
    model = MODELS[-2]
    order = Order("superres", "finer", {"minutes": 4.0})
    assert order_for(model, order).params["minutes"] == MINUTES
    assert order_for(model, Order("superres", "finer", {"minutes": 0.05})).params["minutes"] == 0.05
    assert order_for(model, Order("superres", "finer", {"minutes": 0.0})).params["minutes"] == MINUTES
    assert dict(order_for(model, Order("superres", "finer", {"width": 3})).params) == {"width": 3}


# ------------------------------------------------------------------------------------- in the widget


def test_a_preview_is_one_layer_that_the_next_one_and_the_result_replace(run, window, qtbot):
    from napari_mri.gui.choices import LayerChoice

    choose(run, "superres", "finer")
    assert run.preview_button.isVisible()
    offered = LayerChoice(window, Image, "nothing")  # of another widget, that takes what comes newly
    qtbot.addWidget(offered)
    began = time.monotonic()
    run.preview_button.click()
    assert not run.preview_button.isEnabled()
    done(run, qtbot)
    assert time.monotonic() - began < 10
    first = window.layers[-1]
    assert [layer.name for layer in window.layers] == ["T1", "T1 · super-resolved · finer (preview)"]
    assert "slab around this slice, learned for seconds only" in run.status.text()
    assert run.scan.layer is offered.layer is window.layers[0]
    assert offered.count() == 1
    assert tuple(first.contrast_limits) == tuple(window.layers[0].contrast_limits)
    part = bridge.volume_of(first)
    assert part.history[-1].order.params["minutes"] == MINUTES
    run.preview()
    done(run, qtbot)
    assert len(window.layers) == 2
    assert window.layers[-1] is not first
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert [layer.name for layer in window.layers] == ["T1", "T1 · super-resolved · finer"]


def test_masks_have_no_preview(run):
    run.task.setCurrentIndex(run.task.findData("skullstrip"))
    assert not run.preview_button.isVisible()


def test_scan_left_result_right(run, window, qtbot):
    assert not run.split.isVisible()
    choose(run, "superres", "finer")
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert run.split.isVisible()
    window.layers[0].colormap = "red"
    window.layers[1].colormap = "green"
    window.layers[0].visible = False
    run.split.switch.setChecked(True)
    assert window.layers[0].visible

    def greens(picture):
        middle = picture.shape[1] // 2
        return [int(half[100:-100, :, 1].max()) > 60 for half in (picture[:, : middle - 4], picture[:, middle + 4 :])]

    assert greens(window.screenshot(canvas_only=True, flash=False)) == [False, True]
    run.split.slider.setValue(0)
    assert greens(window.screenshot(canvas_only=True, flash=False)) == [True, True]
    run.split.switch.setChecked(False)
    assert run.split.split is None
    run.split.switch.setChecked(True)
    window.layers.remove(window.layers[1])
    assert not run.split.isVisible()
    assert run.split.split is None


def test_the_window_closes_with_the_split_on(run, window, qtbot):
    choose(run, "superres", "finer")
    with qtbot.waitSignal(run.finished, timeout=20_000):
        run.run()
    run.split.switch.setChecked(True)
    assert run.split.split is not None
    window.close()  # nothing may be raised, and the fixture looks for widgets that are left


def test_further_scans_are_ticked(run, window, qtbot):
    for seed, name in enumerate(("T2", "PD", "FLAIR"), 1):
        scan = titled(head(GRIDS["anisotropic"], seed=seed), name)
        window.add_layer(bridge.to_layer(scan, bridge.frame_of(window.layers)))
    run.scan.choose(window.layers[0])
    assert not run.others.isVisible()
    choose(run, "denoise", "joined")
    assert run.others.isVisible()
    assert [run.others.item(n).text() for n in range(run.others.count())] == ["FLAIR", "PD", "T2"]
    assert not run.run_button.isEnabled()  # it cannot do without one
    run.others.tick(window.layers["PD"])
    assert run.run_button.isEnabled()
    for name in ("T2", "FLAIR"):
        run.others.tick(window.layers[name])
    assert len(run.others.layers) == 2  # the most it takes; the one ticked last stays
    assert window.layers["FLAIR"] in run.others.layers
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert "It was given 2 more." in run.message.text()
    step = bridge.volume_of(window.layers[-1]).history[-1]
    assert len(step.facts["others"]) == 2
    window.layers.remove(window.layers["FLAIR"])
    assert len(run.others.layers) == 1
