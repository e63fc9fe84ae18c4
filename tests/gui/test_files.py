"""napari's door to files: reader, writers, manifest, series dialog."""

from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari.components import ViewerModel

from napari_mri.core.errors import Cancelled, FileProblem, GridMismatch
from napari_mri.core.volume import Labels, Origin, Volume
from napari_mri.gui import files
from napari_mri.gui import layers as bridge
from napari_mri.io.files import load, save
from napari_mri.io.formats import Found, all_formats
from tests.scans import GRIDS, head, marker

PLUGIN = "napari-mri-workbench"
NOT_OPENED = ("matlab", "hdf5", "npy", "twix", "pfile", "philips-raw")
"""Written only, or known only to tell the user what they are: napari need not ask us about them."""


def manifest():
    from npe2 import PluginManifest

    return PluginManifest.from_file(Path(files.__file__).parent.parent / "napari.yaml")


def test_the_manifest_is_valid_and_everything_it_names_exists():
    found = manifest()
    for command in found.contributions.commands:
        module, name = command.python_name.split(":")
        if "widget" in module:
            source = Path(import_module("napari_mri").__file__).parent / "gui" / f"{module.split('.')[-1]}.py"
            assert f"class {name}(" in source.read_text()
        else:
            assert callable(getattr(import_module(module), name))


def test_every_format_that_is_read_has_a_pattern():
    patterns = manifest().contributions.readers[0].filename_patterns
    for fmt in all_formats():
        for ending in () if fmt.name in NOT_OPENED else fmt.endings:
            assert any(fnmatch(f"scan{ending}", pattern) for pattern in patterns), ending


@pytest.mark.parametrize("name", ["IM-0001-0001", "I00001", "1.2.840.113619.2.44", "MR000012"])
def test_usual_names_of_dicom_files_without_an_ending_are_seen(name):
    patterns = manifest().contributions.readers[0].filename_patterns
    assert any(fnmatch(name, pattern) for pattern in patterns)
    assert not any(fnmatch("photo.png", pattern) for pattern in patterns)


def test_the_reader_declines_what_is_no_image(tmp_path):
    path = tmp_path / "notes12"
    path.write_text("nothing to see")
    assert files.get_reader(str(path)) is None
    (tmp_path / "empty").mkdir()
    assert files.get_reader(str(tmp_path / "empty")) is None


def test_a_broken_file_is_ours_and_says_why(tmp_path):
    path = tmp_path / "scan.nii.gz"
    save(head(GRIDS["plain"]), path)
    path.write_bytes(path.read_bytes()[:2000])
    reader = files.get_reader(str(path))
    assert reader is not None
    with pytest.raises(FileProblem):
        reader(str(path))


@pytest.mark.parametrize("name", GRIDS)
def test_read_and_write_without_a_window(name, tmp_path):
    scan = head(GRIDS[name])
    save(scan, tmp_path / "scan.nii.gz")
    [(data, facts, kind)] = files.read(str(tmp_path / "scan.nii.gz"))
    assert kind == "image"
    [written] = files.write_image(str(tmp_path / "again.nii.gz"), data, facts)
    again = load(written)
    np.testing.assert_array_equal(again.data, scan.data)
    assert again.grid.same(scan.grid, 1e-4)


def test_a_new_label_layer_is_written_on_its_scan(tmp_path, monkeypatch):
    import napari

    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    scan = head(GRIDS["oblique"], np.int16)
    save(scan, tmp_path / "scan.nii.gz")
    for data, facts, kind in files.read(str(tmp_path / "scan.nii.gz")):
        getattr(viewer, f"add_{kind}")(data, **facts)
    viewer._new_labels()
    layer = viewer.layers[-1]
    layer.data[3:9, 5:8, 2:20] = 3
    [written] = files.write_labels(str(tmp_path / "mask"), *layer.as_layer_data_tuple()[:2])
    assert written.endswith("mask.nii.gz")
    mask, source = load(written), load(tmp_path / "scan.nii.gz")
    assert mask.grid.same(source.grid, 1e-6)
    assert mask.data.dtype == np.uint8
    assert np.count_nonzero(mask.data) == 6 * 3 * 18
    import nibabel

    ours, theirs = (nibabel.load(tmp_path / n).header for n in ("mask.nii.gz", "scan.nii.gz"))
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert ours[code] == theirs[code]
    np.testing.assert_array_equal(ours.get_best_affine(), theirs.get_best_affine())


def test_a_layer_that_lies_nowhere_is_not_written(tmp_path, monkeypatch):
    import napari

    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    with pytest.raises(GridMismatch):
        files.write_labels(str(tmp_path / "mask.nii.gz"), np.zeros((4, 5, 6), np.uint8), {"name": "lost"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.nii", "m.nii"),
        ("m.nii.gz", "m.nii.gz"),
        ("m", "m.nii.gz"),
        ("m_v1.2", "m_v1.2.nii.gz"),
        ("m.NII.GZ", "m.NII.GZ"),
    ],
)
def test_endings(name, expected):
    assert files.named(name).name == expected


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_endings_that_lose_the_place_are_refused(name):
    with pytest.raises(FileProblem, match=r"\.nii\.gz"):
        files.named(name)


def named(volume, name):
    return Volume(volume.data, volume.grid, origin=Origin(title=name, path=f"/somewhere/{name}.nii.gz"))


@pytest.mark.parametrize(
    ("volume", "is_labels"),
    [
        (named(head(GRIDS["plain"]), "T1_mask"), False),  # grey values, whatever the name
        (named(marker(GRIDS["plain"]), "T1"), False),  # 0, 1, 2 and no hint: could be anything
        (named(marker(GRIDS["plain"]), "sub-1_dseg"), True),
        (named(marker(GRIDS["plain"]), "brain_mask"), True),
        (named(Volume((head(GRIDS["plain"]).data > 300).astype(np.uint8), GRIDS["plain"]), "x"), True),
        (named(Volume((head(GRIDS["plain"]).data > 300).astype(np.float32), GRIDS["plain"]), "seg"), True),
        (named(Volume((head(GRIDS["plain"]).data > 300).astype(np.float32), GRIDS["plain"]), "T1"), False),
        (named(Volume(np.full(GRIDS["plain"].shape, 0.5, np.float32), GRIDS["plain"]), "mask"), False),
        (named(Volume(np.full(GRIDS["plain"].shape, np.nan, np.float32), GRIDS["plain"]), "mask"), False),
    ],
)
def test_label_maps_are_known_by_their_values_and_name(volume, is_labels):
    assert isinstance(files.as_it_looks(volume), Labels) == is_labels


def series():
    scans = [named(head(GRIDS[n]), n) for n in ("plain", "oblique")]
    broken = Found("9 localizer", lambda: pytest.fail("opened"), problem="Slices in three directions.")

    def bad():
        raise FileProblem("It is cut off.")

    return (
        *(Found(f"{k} {s.title}", lambda s=s: s, number=k, shape=s.data.shape) for k, s in enumerate(scans, 1)),
        broken,
        Found("7 damaged", bad),
    )


@pytest.fixture
def dialog(qtbot):
    from napari_mri.gui.series_dialog import SeriesDialog

    made = SeriesDialog(series())
    qtbot.waitUntil(lambda: "cut off" in made.list.item(3).text(), timeout=10_000)
    yield made
    made._pictures.stop()
    made.deleteLater()
    qtbot.wait(20)


def test_the_dialog_ticks_what_can_be_opened(dialog):
    assert dialog.ticked == (0, 1)
    assert "three directions" in dialog.list.item(2).text()
    dialog.tick(False)
    assert dialog.ticked == ()
    assert not dialog.buttons.button(dialog.buttons.StandardButton.Open).isEnabled()
    dialog.tick(True)
    assert dialog.ticked == (0, 1)
    volumes = dialog.volumes()
    assert [v.title for v in volumes] == ["plain", "oblique"]


def test_several_series_are_asked_for(monkeypatch, qtbot, tmp_path):
    from napari_mri.gui.series_dialog import SeriesDialog

    monkeypatch.setattr(files.files, "survey", lambda path: series())
    monkeypatch.setattr(
        SeriesDialog,
        "exec",
        lambda self: self.tick(False) or self.list.item(1).setCheckState(self.list.item(0).checkState().Checked) or 1,
    )
    tuples = files.read("somewhere")
    assert [facts["name"] for _, facts, _ in tuples] == ["oblique"]
    monkeypatch.setattr(SeriesDialog, "exec", lambda self: 0)
    with pytest.raises(Cancelled):
        files.read("somewhere")


def test_a_thumbnail_is_upright():
    from napari_mri.gui.series_dialog import thumbnail

    grid = GRIDS["anisotropic"]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    patient = grid.to_patient(index)
    front = thumbnail(Volume(patient[..., 1].astype(np.float32), grid))
    right = thumbnail(Volume(patient[..., 0].astype(np.float32), grid))
    assert front[0].mean() > front[-1].mean()  # front up
    assert right[:, 0].mean() > right[:, -1].mean()  # patient's right on the left


def test_opening_two_scans_keeps_one_frame(tmp_path):
    for name in ("plain", "oblique"):
        save(head(GRIDS[name]), tmp_path / f"{name}.nii.gz")
    made = files.read([str(tmp_path / "oblique.nii.gz"), str(tmp_path / "plain.nii.gz")])
    frames = [facts["metadata"][bridge.KEY].placing.frame for _, facts, _ in made]
    assert frames[0].same(frames[1])
    assert "tilted" in made[1][1]["name"]


def test_surfaces_open_over_their_volume(tmp_path, monkeypatch):
    """In whatever frame the window has: the surface of labels lies around the labels."""
    import napari

    from napari_mri.io.surface_files import write_surface
    from napari_mri.io.surfaces import surfaces_of

    for name in ("oblique", "permuted"):
        viewer = ViewerModel()
        monkeypatch.setattr(napari, "current_viewer", lambda viewer=viewer: viewer)
        labels = head(GRIDS[name]).with_labels(marker(GRIDS[name], 4).data)
        save(head(GRIDS[name]), tmp_path / f"{name}.nii.gz")
        for data, facts, kind in files.read(str(tmp_path / f"{name}.nii.gz")):
            getattr(viewer, f"add_{kind}")(data, **facts)
        write_surface(list(surfaces_of(labels, smooth=0)), tmp_path / "a.ply")
        [(data, facts, kind)] = files.read(str(tmp_path / "a.ply"))
        assert kind == "surface"
        layer = viewer.add_surface(data, **facts)
        record = bridge.shown(viewer.layers[0])
        voxels = record.placing.grid.to_voxels(record.placing.frame.to_patient(layer.data[0]))
        where = np.argwhere(labels.data)
        np.testing.assert_allclose(voxels.min(axis=0), where.min(axis=0) - 0.5, atol=0.02)
        np.testing.assert_allclose(voxels.max(axis=0), where.max(axis=0) + 0.5, atol=0.02)


def test_a_surface_that_opens_first_sets_the_frame():
    from napari_mri.gui.placing import STRAIGHT
    from napari_mri.io.surfaces import Surface

    viewer = ViewerModel()
    surface = Surface(np.eye(3), np.array([[0, 1, 2]]), "tri", (1.0, 0.0, 0.0))
    [(data, facts, _)] = files.tuples([], viewer.layers, [surface])
    viewer.add_surface(data, **facts)
    assert bridge.frame_of(viewer.layers).same(STRAIGHT)
    np.testing.assert_array_equal(data[0], np.eye(3)[:, ::-1])


def test_surfaces_are_ours_and_noise_is_not(tmp_path):
    from napari_mri.io.surface_files import write_surface
    from napari_mri.io.surfaces import Surface

    write_surface(Surface(np.eye(3), np.array([[0, 1, 2]])), tmp_path / "a.stl")
    assert files.get_reader(str(tmp_path / "a.stl")) is files.read
    (tmp_path / "a.obj").write_text("no surface")
    assert files.get_reader(str(tmp_path / "a.obj")) is None or files.get_reader(str(tmp_path / "a.obj")) is files.read


@pytest.mark.parametrize("ending", [".seg.nrrd", ".mha", ".seg.dcm", ".rtstruct.dcm", ".stl", ".obj", ".ply", ".gii"])
def test_napari_saves_labels_in_every_format_of_the_manifest(tmp_path, ending):
    labels = marker(GRIDS["plain"], 4)
    data, facts, _ = bridge.to_tuple(labels)
    assert ending in manifest().contributions.writers[0].filename_extensions
    [written] = files.write_labels(str(tmp_path / f"a{ending}"), data, facts)
    assert Path(written).stat().st_size > 100
    if ending in (".seg.nrrd", ".mha", ".seg.dcm"):
        from napari_mri.io.files import load_labels
        from napari_mri.io.landing import landed

        back = landed(load_labels(written), labels)
        np.testing.assert_array_equal(back.data, labels.data)


def test_a_scan_opens_with_its_segmentation_without_a_question(tmp_path):
    from tests.io.series import ramp, write_series
    from tests.scans import grid_of

    grid = grid_of((12, 9, 7), (0.9, 1.1, 2.5), "LPS")
    write_series(tmp_path, ramp(grid.shape), grid)
    scan = load(tmp_path)
    labels = scan.with_labels((scan.data % 7 == 0).astype(np.uint8), {1: "some"})
    save(labels, tmp_path / "a.seg.dcm", sidecar=False)
    made = files.read(str(tmp_path))
    assert [kind for _, _, kind in made] == ["image", "labels"]
    np.testing.assert_allclose(made[0][1]["translate"], made[1][1]["translate"])
    assert made[0][0].shape == made[1][0].shape


def test_names_around_a_label_file_are_shown(tmp_path):
    data = (head(GRIDS["plain"]).data > 300).astype(np.uint8) * 4
    save(Volume(data, GRIDS["plain"]), tmp_path / "x_seg.nii.gz", sidecar=False)
    (tmp_path / "x_seg.tsv").write_text("index\tname\tcolor\n4\ttumour\t#ff0000\n")
    [(_, facts, kind)] = files.read(str(tmp_path / "x_seg.nii.gz"))
    assert kind == "labels"
    assert facts["features"]["name"] == ["tumour"]
    assert tuple(facts["colormap"].color_dict[4][:3]) == (1.0, 0.0, 0.0)


def test_large_scans_are_shown_at_several_resolutions(tmp_path, monkeypatch):
    from napari_mri.io import lazy

    monkeypatch.setattr(lazy, "BIG_BYTES", 1000)
    data = np.zeros((40, 300, 280), np.int16)
    data += np.arange(280, dtype=np.int16)
    data[5, 100, 200] = 999
    path = save(Volume(data, GRIDS["plain"].cropped((0, 0, 0), data.shape)), tmp_path / "big.nii", sidecar=False)
    [(levels, facts, _)] = files.read(str(path))
    assert facts["multiscale"]
    assert [level.shape for level in levels] == [(280, 300, 40), (140, 150, 20)]
    viewer = ViewerModel()
    layer = viewer.add_image(levels, **facts)
    assert bridge.shown(layer) is not None
    back = bridge.volume_of(layer, viewer.layers)
    assert back.data.shape == data.shape
    assert back.data[5, 100, 200] == 999
    viewer._new_labels()
    assert viewer.layers[-1].data.shape == (280, 300, 40)
    assert bridge.labels_of(viewer.layers[-1], viewer.layers).data.shape == data.shape


@pytest.fixture
def clinic(qtbot):
    from napari_mri.gui.series_dialog import SeriesDialog

    asked = []

    def found(n, patient, study):
        def who():
            asked.append(n)
            return f"Roe {patient}"

        scan = named(head(GRIDS["plain"]), f"s{n}")
        return Found(f"{n} scan", lambda: scan, n, scan.data.shape, group=(f"patient {patient}", f"study {study}"), who=who)

    made = SeriesDialog((found(1, 1, 1), found(2, 1, 2), found(3, 2, 3)))
    yield made, asked
    made._pictures.stop()
    made.deleteLater()
    qtbot.wait(20)


def test_names_are_read_only_when_asked_for(clinic):
    dialog, asked = clinic
    assert asked == []
    assert not any("Roe" in dialog.list.item(n).text() for n in range(3))
    dialog.names.setChecked(True)
    assert "Roe 2" in dialog.list.item(2).text()
    dialog.names.setChecked(False)
    assert not any("Roe" in dialog.list.item(n).text() for n in range(3))


def test_patients_and_studies_are_looked_at_one_by_one(clinic):
    dialog, _ = clinic
    choices = [dialog.group.itemText(n) for n in range(dialog.group.count())]
    assert choices[1:4] == ["patient 1", "patient 1, study 1", "patient 1, study 2"]
    dialog.group.setCurrentIndex(choices.index("patient 1"))
    assert dialog.ticked == (0, 1)
    dialog.group.setCurrentIndex(choices.index("patient 2"))
    assert dialog.ticked == (2,)
    assert [v.title for v in dialog.volumes()] == ["s3"]
