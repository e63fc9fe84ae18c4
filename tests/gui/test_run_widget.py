"""Running a model in a real window."""

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri import registry
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Origin, Volume
from napari_mri.gui import layers as bridge
from tests.gui import slow_models
from tests.scans import GRIDS, head


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "_found", lambda: slow_models.MODELS)


def titled(volume, title="T1"):
    return Volume(volume.data, volume.grid, origin=Origin(title=title))


@pytest.fixture
def run(window):
    from napari_mri.gui.run_widget import RunWidget

    window.add_layer(bridge.to_layer(titled(head(GRIDS["oblique"]))))
    widget = RunWidget(window)
    window.window.add_dock_widget(widget, name="Run a model")
    return widget


def choose(run, name):
    row = next(n for n in range(run.model.count()) if run.model.itemData(n).name == name)
    run.model.setCurrentIndex(row)


def texts(combo):
    return [combo.itemText(n) for n in range(combo.count())]


def test_what_can_be_chosen(run):
    assert texts(run.task) == ["Skull-strip", "Denoise", "Super-resolution"]
    assert run.chosen.card.name == "quick"  # the best that can run, not the best
    row = next(n for n in range(run.model.count()) if run.model.itemData(n).name == "absent")
    assert not run.model.model().item(row).isEnabled()
    assert "no_such_package" in run.model.itemData(row, 3)  # 3: the tool tip
    assert run.form.values() == {"level": 0.5, "rounds": 3, "kind": "soft", "border": 0.0, "strict": False}
    assert run.device.currentData() == "auto"


def test_a_task_without_models_says_so(run):
    run.task.setCurrentIndex(run.task.findData("superres"))
    assert run.chosen is None
    assert not run.run_button.isEnabled()
    assert "No model" in run.says.text()


def test_the_result_is_a_layer_named_for_its_maker(run, window, qtbot):
    run.form.set_value("level", 0.3)
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert [layer.name for layer in window.layers] == ["T1", "T1 · distance · quick", "T1 · brain mask · quick"]
    assert not window.layers[1].visible
    assert run.scan.layer is window.layers[0]  # not the by-product
    assert "This is a toy." in run.message.text()
    assert run.message.isVisible()
    labels = bridge.labels_of(window.layers[2], window.layers)
    scan = bridge.volume_of(window.layers[0])
    assert labels.grid.same(scan.grid)
    np.testing.assert_array_equal(labels.data, scan.data > 0.3 * scan.data.max())
    assert labels.history[-1].order.params["level"] == 0.3
    assert run.run_button.isEnabled()
    assert not run.stop_button.isVisible()


def test_a_model_that_invents_says_so_in_the_name(run, window, qtbot):
    run.task.setCurrentIndex(run.task.findData("denoise"))
    assert run.chosen.card.name == "painter"
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert window.layers[-1].name == "T1 · denoised · painter (may invent texture)"


def noisy(sigma, shape=(40, 44, 36)):
    """A bright ball in air, with the noise of a magnitude image."""
    away = sum((x - n / 2) ** 2 for x, n in zip(np.ogrid[tuple(slice(n) for n in shape)], shape, strict=True))
    rng = np.random.default_rng(0)
    ball = np.where(away < 15**2, 1000.0, 0.0)
    image = np.hypot(ball + sigma * rng.normal(size=shape), sigma * rng.normal(size=shape)).astype(np.float32)
    return Volume(image, Grid.plain(shape), origin=Origin(title="noisy"))


def test_the_noise_is_told_before_a_run(run, window, qtbot):
    run.task.setCurrentIndex(run.task.findData("denoise"))
    window.add_layer(bridge.to_layer(noisy(50.0)))
    assert run.noise.isVisible()
    qtbot.waitUntil(lambda: not run.noise.looking, timeout=60_000)
    sigma = float(run.noise.text().split("σ = ")[1].split(",")[0])
    assert sigma == pytest.approx(50, rel=0.06)
    assert "Rician" in run.noise.text()
    assert "trusted" not in run.noise.text()
    run.task.setCurrentIndex(run.task.findData("skullstrip"))
    assert not run.noise.isVisible()


def test_a_noise_figure_one_cannot_trust_says_why(run, window, qtbot):
    run.task.setCurrentIndex(run.task.findData("denoise"))
    smooth = noisy(50.0)
    window.add_layer(bridge.to_layer(smooth.with_data(gaussian_filter(smooth.data, 0.8))))
    qtbot.waitUntil(lambda: not run.noise.looking, timeout=60_000)
    assert "Not to be trusted: Neighbouring voxels resemble each other" in run.noise.text()


def test_the_window_may_close_while_the_noise_is_looked_at(run, window, qtbot, monkeypatch):
    from napari_mri.gui import noise_line

    go_on = threading.Event()
    found = noise_line.noise.Noise(1.0, 1.0, "rician", "background", 1.0, 1.0, True)
    monkeypatch.setattr(noise_line.noise, "estimate", lambda volume: (go_on.wait(60), found)[1])
    run.task.setCurrentIndex(run.task.findData("denoise"))
    assert run.noise.looking
    window.close()
    assert [t for t in threading.enumerate() if t.name == "napari-mri noise"]  # nobody waited for it
    go_on.set()


def test_scan_and_denoised_scan_share_a_split_picture(run, window, qtbot):
    run.task.setCurrentIndex(run.task.findData("denoise"))
    with qtbot.waitSignal(run.finished, timeout=60_000):
        run.run()
    assert run.split.isVisible()
    assert run.split.pair == (window.layers[0], window.layers[-1])
    run.split.switch.setChecked(True)
    assert run.split.split is not None
    assert not run.split.split.closed


@pytest.mark.parametrize(("name", "words"), [("failing", "The toy broke. Use another one."), ("buggy", "KeyError")])
def test_failures_are_shown(run, window, qtbot, name, words):
    choose(run, name)
    run.run()
    qtbot.waitUntil(lambda: not run._job.running, timeout=10_000)
    assert words in run.message.text()
    assert len(window.layers) == 1
    assert run.run_button.isEnabled()


def test_the_canvas_scrolls_while_a_model_runs(run, window, qtbot):
    def scrolled():
        gaps = []
        for n in range(12):
            began = time.monotonic()
            window.dims.set_current_step(0, n)
            qtbot.wait(10)
            gaps.append(time.monotonic() - began)
        return np.median(gaps)

    idle = scrolled()
    choose(run, "slow")
    run.run()
    qtbot.waitUntil(lambda: run.progress.value() > 0, timeout=10_000)
    busy = scrolled()
    assert run._job.running
    assert "Tile" in run.status.text()
    # Against the idle window, for the machine may be busy with other things; the run itself takes 8 s.
    assert busy < 4 * idle + 0.1
    run.stop()
    qtbot.waitUntil(lambda: not run._job.running, timeout=2000)


@pytest.mark.parametrize("name", ["slow", "deaf"])
def test_cancel_returns_within_a_second(run, window, qtbot, name):
    choose(run, name)
    run.run()
    qtbot.wait(300)
    began = time.monotonic()
    run.stop_button.click()
    qtbot.waitUntil(lambda: run.run_button.isEnabled(), timeout=5000)
    assert time.monotonic() - began < 1.0
    assert "Stopped" in run.status.text()
    assert len(window.layers) == 1
    run._job.wait(5)


def test_after_a_deaf_one_was_stopped_the_next_run_waits_for_it(run, window, qtbot):
    choose(run, "deaf")
    run.run()
    qtbot.wait(100)
    run.stop()
    qtbot.waitUntil(lambda: run.run_button.isEnabled(), timeout=2000)
    choose(run, "quick")
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    assert len(window.layers) == 3


@pytest.mark.parametrize("name", ["slow", "deaf"])
def test_closing_the_window_while_a_model_runs(run, window, qtbot, name):
    choose(run, name)
    run.run()
    qtbot.wait(200)
    job = run._job
    began = time.monotonic()
    window.close()
    assert time.monotonic() - began < 2.0
    qtbot.wait(100)
    assert job.wait(5)
    assert not job.running


def test_python_ends_after_the_window_closed_during_a_run(tmp_path):
    """In a process of its own: the window closes, the event loop ends, Python ends, all in time."""
    from tests.gui.conftest import why_no_window

    if why_no_window():
        pytest.skip(why_no_window())
    script = textwrap.dedent("""
        import napari
        from qtpy.QtCore import QTimer
        from napari_mri import registry
        from tests.gui import slow_models
        from tests.scans import GRIDS, head
        registry._found = lambda: slow_models.MODELS
        from napari_mri.gui import layers
        from napari_mri.gui.run_widget import RunWidget
        viewer = napari.Viewer(show_welcome_screen=False)
        viewer.add_layer(layers.to_layer(head(GRIDS["plain"])))
        run = RunWidget(viewer)
        viewer.window.add_dock_widget(run)
        run.model.setCurrentIndex([run.model.itemData(n).name for n in range(run.model.count())].index("slow"))
        QTimer.singleShot(300, run.run)
        QTimer.singleShot(1200, viewer.close)
        napari.run()
        print("closed")
    """)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "closed" in done.stdout
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60


def test_layers_come_and_go(run, window, qtbot):
    first = window.layers[0]
    other = window.add_layer(bridge.to_layer(titled(head(GRIDS["plain"]), "T2"), bridge.frame_of(window.layers)))
    assert run.scan.layer is other
    window.layers.remove(other)
    assert run.scan.layer is first
    window.layers.clear()
    assert run.scan.layer is None
    assert not run.run_button.isEnabled()


def test_an_image_of_another_program_runs_with_a_warning(run, window, qtbot):
    window.add_image(np.random.default_rng(0).random((12, 13, 14)), scale=(3, 2, 1), name="tif")
    assert run.scan.layer.name == "tif"
    with qtbot.waitSignal(run.finished, timeout=10_000):
        run.run()
    mask = window.layers[-1]
    np.testing.assert_allclose(mask.scale, (3, 2, 1))
    assert mask.data.shape == (12, 13, 14)


def test_an_image_that_is_no_scan_is_refused(run, window):
    window.add_image(np.random.default_rng(0).random((12, 13)), name="flat")
    run.run()
    assert "'flat' is not a grey-value volume" in run.message.text()
