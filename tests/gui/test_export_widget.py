"""The export widget writes what is chosen, where it stands, and without the person unless asked."""

import numpy as np
import pydicom
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri.core.volume import Frames, Volume
from napari_mri.gui import files
from napari_mri.gui import layers as bridge
from napari_mri.gui.export_widget import WHOSE, ExportWidget
from napari_mri.io.files import load, load_labels
from napari_mri.io.landing import landed
from tests.io.series import ramp, write_series
from tests.scans import grid_of

GRID = grid_of((24, 22, 20), (2.0, 2.0, 2.5), "LPS", (8.0, -5.0, 3.0))


@pytest.fixture
def widget(window, qtbot, tmp_path):
    write_series(tmp_path / "scan", ramp(GRID.shape), GRID)
    for data, facts, kind in files.read(str(tmp_path / "scan")):
        getattr(window, f"add_{kind}")(data, **facts)
    made = ExportWidget(window)
    window.window.add_dock_widget(made, name="Export")
    yield made
    window.window.remove_dock_widget(made)
    made.deleteLater()


def choose(widget, ending, whose="without"):
    endings = [widget.format.itemData(n)[1] for n in range(widget.format.count())]
    widget.format.setCurrentIndex(endings.index(ending))
    widget.whose.setCurrentIndex(list(WHOSE).index(whose))


def wrote(widget, qtbot, path):
    widget.write(str(path))
    qtbot.waitUntil(lambda: widget._job is None, timeout=30_000)
    return widget.message.text()


def test_labels_go_out_in_every_way(widget, window, qtbot, tmp_path):
    scan = load(tmp_path / "scan")
    window._new_labels()
    layer = window.layers[-1]
    layer.data[3:9, 5:8, 2:20] = 3
    widget.layer.choose(layer)
    for ending in (".seg.dcm", ".seg.nrrd", ".nii.gz", ".ply"):
        choose(widget, ending)
        assert "Written" in wrote(widget, qtbot, tmp_path / f"a{ending}")
    for ending in (".seg.dcm", ".seg.nrrd", ".nii.gz"):
        assert (landed(load_labels(tmp_path / f"a{ending}"), scan).data == 3).sum() == 6 * 3 * 18
    assert str(pydicom.dcmread(tmp_path / "a.seg.dcm").PatientName) == ""
    choose(widget, ".seg.dcm", "patient")
    wrote(widget, qtbot, tmp_path / "b.seg.dcm")
    assert str(pydicom.dcmread(tmp_path / "b.seg.dcm").PatientName) == "Doe^Jane"
    choose(widget, ".nii.gz")
    assert widget.whose.currentData() == "without"  # only DICOM SEG can carry the person
    assert not widget.whose.model().item(2).isEnabled()
    choose(widget, ".seg.dcm", "nameless")
    wrote(widget, qtbot, tmp_path / "c.seg.dcm")
    assert not (tmp_path / "c.seg.json").exists()
    study = pydicom.dcmread(tmp_path / "b.seg.dcm").StudyInstanceUID
    assert pydicom.dcmread(tmp_path / "c.seg.dcm").StudyInstanceUID != study


def test_a_scan_is_offered_only_what_holds_it_and_trouble_is_told(widget, qtbot, tmp_path):
    endings = [widget.format.itemData(n)[1] for n in range(widget.format.count())]
    assert ".nii.gz" in endings
    assert not {".seg.dcm", ".seg.nrrd", ".stl", ".rtstruct.dcm"} & set(endings)
    assert "no permission" in wrote(widget, qtbot, "/proc/a.nii.gz").lower() or widget.message.text()
    assert "Written" in wrote(widget, qtbot, tmp_path / "scan.nrrd")
    assert "⚠" not in widget.message.text()
    np.testing.assert_array_equal(load(tmp_path / "scan.nrrd").data, load(tmp_path / "scan").data)


def test_an_empty_window_offers_nothing(window):
    made = ExportWidget(window)
    assert made.format.count() == 0
    assert not made.button.isEnabled()
    made.deleteLater()


def test_what_a_format_does_not_keep_is_told(widget, window, qtbot, tmp_path):
    scan = load(tmp_path / "scan")
    frames = Frames("diffusion", bvals=(0.0, 1000.0), bvecs=((0, 0, 0), (1, 0, 0)))
    series = Volume(np.stack([scan.data] * 2, axis=-1), scan.grid, frames=frames)
    widget.layer.choose(window.add_layer(bridge.to_layer(series, bridge.frame_of(window.layers))))
    choose(widget, ".nrrd")
    assert "without b-values" in wrote(widget, qtbot, tmp_path / "series.nrrd")
    choose(widget, ".nii.gz")
    assert "⚠" not in wrote(widget, qtbot, tmp_path / "series.nii.gz")
    labels = scan.with_labels(np.zeros(scan.data.shape, np.uint8), {1: "nothing"})
    widget.layer.choose(window.add_layer(bridge.to_layer(labels, bridge.frame_of(window.layers))))
    choose(widget, ".nii.gz")
    assert "No voxel is marked" in wrote(widget, qtbot, tmp_path / "empty.nii.gz")
