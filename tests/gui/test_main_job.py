"""The main job in a real window: open a DICOM folder, skull-strip, paint, undo, save, reload, compare."""

import tarfile

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError, reason="there is no Qt binding (extra 'all')")

from napari_mri.gui import layers as bridge
from napari_mri.gui.labels_widget import LabelsWidget
from napari_mri.gui.run_widget import RunWidget
from napari_mri.io.files import load

PLUGIN = "napari-mri-workbench"


@pytest.fixture(scope="session")
def dicom_folder(data_dir, tmp_path_factory):
    """A real classic series of 192 files, unpacked."""
    packed = data_dir / "dicom_siemens_t1_classic" / "SAG-anon.tar.xz"
    if not packed.is_file():
        pytest.skip(f"{packed.name} is not among the test data")
    place = tmp_path_factory.mktemp("dicom")
    with tarfile.open(packed) as archive:
        archive.extractall(place, filter="data")
    return place


def stroke(layer, centre, radius):
    """One brush stroke of three dabs, as the mouse makes them."""
    layer.mode = "paint"
    layer.brush_size = radius
    with layer.block_history():
        for step in (0, 2, 4):
            layer.paint((centre[0], centre[1] + step, centre[2]), layer.selected_label)


@pytest.fixture
def nifti_file(data_dir):
    """A real head in NIfTI."""
    path = data_dir / "head_t1_colin27" / "ch2.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the test data")
    return path


@pytest.mark.parametrize("kind", ["dicom_folder", "nifti_file"])
def test_the_main_job(window, qtbot, kind, request, tmp_path):
    window.open(str(request.getfixturevalue(kind)), plugin=PLUGIN)
    assert len(window.layers) == 1
    image = window.layers[0]
    scan = bridge.volume_of(image)
    assert window.scene.camera.orientation2d == ("up", "left")

    run = RunWidget(window)
    window.window.add_dock_widget(run, name="Run a model")
    assert run.scan.layer is image
    assert run.task.currentData() == "skullstrip"
    index = [run.model.itemData(n).name for n in range(run.model.count())].index("threshold")
    run.model.setCurrentIndex(index)
    run.run()
    assert not run.run_button.isEnabled()
    qtbot.waitUntil(lambda: len(window.layers) == 2, timeout=120_000)
    mask = window.layers[1]
    assert mask.name.endswith("· brain mask · threshold")
    before = bridge.labels_of(mask, window.layers)
    assert 500 < before.volume_ml() < 2500

    desk = LabelsWidget(window)
    window.window.add_dock_widget(desk, name="Labels")
    assert desk.labels.layer is mask
    assert desk.scan.layer is image
    middle = np.array(mask.data.shape) // 2
    mask.selected_label = 2
    states = [mask.data.copy()]
    for n in range(3):
        stroke(mask, middle + np.array([10 * n, 0, 0]), 7)
        states.append(mask.data.copy())
    desk.correct.undo()
    np.testing.assert_array_equal(mask.data, states[2])

    path = tmp_path / "mask.nii.gz"
    desk.save_to(path)
    qtbot.waitUntil(lambda: path.exists() and not desk._job.running, timeout=60_000)
    assert "Saved" in desk.message.text()
    saved = load(path)
    assert saved.grid.same(scan.grid, tolerance=1e-3)
    # Voxel by voxel, by way of the window: shown again, the reloaded file is the very picture.
    again = bridge.to_layer(bridge_labels(saved), bridge.frame_of(window.layers))
    np.testing.assert_array_equal(again.data, states[2])
    assert any(step.order and step.order.model == "threshold" for step in saved.history)
    assert saved.history[-1].action.startswith("edited by hand: ")

    window.layers.selection = {mask}
    written = window.layers.save(str(tmp_path / "by_menu.nii.gz"), selected=True, plugin=PLUGIN)
    np.testing.assert_array_equal(load(written[0]).data, saved.data)


def bridge_labels(volume):
    from napari_mri.io.files import as_labels

    return as_labels(volume)
