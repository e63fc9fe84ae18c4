"""OME-Zarr 0.4 and 0.5, written by zarr: places, channels, resolutions, and what may not be opened."""

import json

import numpy as np
import pytest

from napari_mri.core.errors import BrokenFile, MriError, UnsupportedImage
from napari_mri.core.volume import Labels
from napari_mri.io import omezarr
from napari_mri.io.files import load, load_all, load_labels, survey
from napari_mri.io.lazy import LazyArray

zarr = pytest.importorskip("zarr", reason="zarr is not installed (extra 'formats')")

DATA = np.random.default_rng(0).integers(0, 1000, (3, 2, 10, 14, 12)).astype(np.uint16)
SPACE = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
TOWARDS = {"x": "left-to-right", "y": "anterior-to-posterior", "z": "inferior-to-superior"}


def write(path, data=DATA, axes="tczyx", version="0.4", levels=(1, 2), space=SPACE, **more):
    kind = 2 if version == "0.4" else 3
    group = zarr.open_group(path, mode="w", zarr_format=kind)
    spatial = sum(axis in "zyx" for axis in axes)
    sets = []
    for n, step in enumerate(levels):
        cut = (..., *[slice(None, None, step)] * spatial)
        group.create_array(str(n), data=data[cut], chunks=tuple(min(side, 5) for side in data[cut].shape))
        scale = [1.0] * (len(axes) - spatial) + [3000.0 * step, 2000.0 * step, 1000.0 * step][-spatial:]
        start = [0.0] * (len(axes) - spatial) + [500.0, 600.0, 700.0][-spatial:]
        sets.append(
            {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale},
                                                           {"type": "translation", "translation": start}]}
        )  # fmt: skip
    by_name = {"t": {"name": "t", "type": "time", "unit": "millisecond"}, "c": {"name": "c", "type": "channel"}}
    by_name |= {one["name"]: one for one in space}
    told = {"multiscales": [{"version": version, "axes": [by_name[axis] for axis in axes], "datasets": sets}], **more}
    group.attrs.update(told if kind == 2 else {"ome": {"version": version, **told}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_time_and_places(tmp_path, version):
    path = write(tmp_path / "head.ome.zarr", version=version, omero={"channels": [{"label": "T1"}, {"label": "T2"}]})
    assert [one.title for one in survey(path)] == ["head T1", "head T2"]
    scans = load_all(path)
    for n, scan in enumerate(scans):
        np.testing.assert_array_equal(scan.data, DATA[:, n].transpose(3, 2, 1, 0))
        np.testing.assert_allclose(scan.affine, [[-1, 0, 0, -0.7], [0, -2, 0, -0.6], [0, 0, 3, 0.5], [0, 0, 0, 1]])
        assert (scan.frames.kind, scan.frames.step, scan.frames.unit) == ("time", 1e-3, "s")
        assert "guess" in scan.origin.warnings[0]


def test_orientation_that_the_file_tells_is_believed(tmp_path):
    space = [{**one, "orientation": {"type": "anatomical", "value": TOWARDS[one["name"]]}} for one in SPACE]
    scan = load(write(tmp_path / "a.zarr", DATA[0, 0], "zyx", space=space))
    np.testing.assert_allclose(scan.affine[:3, :3], np.diag([1, -2, 3]))
    assert scan.origin.warnings == ()


def test_a_picture_and_missing_units(tmp_path):
    space = [{"name": axis, "type": "space"} for axis in "yx"]
    scan = load(write(tmp_path / "a.zarr", DATA[0, 0, 0], "yx", space=space))
    np.testing.assert_array_equal(scan.data[..., 0], DATA[0, 0, 0].T)
    assert "mm were taken" in " ".join(scan.origin.warnings)


def test_large_ones_are_lazy_at_their_own_resolutions(tmp_path, monkeypatch):
    monkeypatch.setattr(omezarr, "BIG_BYTES", 100)
    scan = load(write(tmp_path / "a.zarr", DATA[:, :1], "tczyx"))
    assert isinstance(scan.data, LazyArray)
    assert [level.shape for level in scan.data.levels] == [(6, 7, 5, 3)]
    turned = scan.turned("SAR")
    np.testing.assert_array_equal(np.asarray(turned.data[2, ..., 1]), DATA[1, 0, 2][::-1, ::-1])
    assert len(turned.data.levels) == 1
    np.testing.assert_array_equal(np.asarray(scan.data), DATA[:, 0].transpose(3, 2, 1, 0))


def test_labels_inside_have_names_and_colours(tmp_path):
    path = write(tmp_path / "a.zarr", DATA[0, 0], "zyx")
    zarr.open_group(path / "labels", mode="w", zarr_format=2).attrs["labels"] = ["organs"]
    looks = {"colors": [{"label-value": 4, "rgba": [255, 0, 0, 255]}], "properties": [{"label-value": 4, "name": "liver"}]}
    write(path / "labels" / "organs", (DATA[0, 0] % 5).astype(np.uint8), "zyx", **{"image-label": looks})
    scan, labels = load_all(path)
    assert isinstance(labels, Labels)
    assert labels.grid.same(scan.grid)
    assert (labels.names[4], labels.colors[4]) == ("liver", (1.0, 0.0, 0.0))
    np.testing.assert_array_equal(load_labels(path).data, scan.data % 5)
    assert not isinstance(load(path), Labels)


def edited(path, change, name=".zattrs"):
    record = json.loads((path / name).read_text())
    change(record)
    (path / name).write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("change", "name", "error"),
    [
        (lambda r: r["multiscales"][0]["datasets"][0].update(path="../../outside"), ".zattrs", BrokenFile),
        (lambda r: r["multiscales"][0]["datasets"][0].update(path="/etc"), ".zattrs", BrokenFile),
        (lambda r: r["multiscales"][0]["datasets"][0]["coordinateTransformations"].append({"type": "affine"}), ".zattrs", MriError),
        (lambda r: r["multiscales"][0].update(datasets=[]), ".zattrs", BrokenFile),
        (lambda r: r["multiscales"][0].update(axes=[{"name": "q"}] * 3), ".zattrs", UnsupportedImage),
        (lambda r: r.update(multiscales=7), ".zattrs", BrokenFile),
        (lambda r: r.clear(), ".zattrs", UnsupportedImage),
        (lambda r: r.update(plate={}), ".zattrs", UnsupportedImage),
        (lambda r: r.update(filters=[{"id": "pickle"}]), "0/.zarray", UnsupportedImage),
        (lambda r: r.update(compressor={"id": "json2"}), "0/.zarray", UnsupportedImage),
        (lambda r: r.update(dtype="|O"), "0/.zarray", UnsupportedImage),
        (lambda r: r.update(shape=[1]), "0/.zarray", BrokenFile),
        (lambda r: r.update(chunks=[10**6] * 3), "0/.zarray", BrokenFile),
    ],
)
def test_what_lies_is_refused(tmp_path, change, name, error):
    with pytest.raises(error):
        load(edited(write(tmp_path / "a.zarr", DATA[0, 0], "zyx"), change, name))


def test_a_pickle_hidden_in_zarr_3_is_refused(tmp_path):
    def hide(record):
        inner = [{"name": "bytes"}, {"name": "numcodecs.pickle"}]
        record["codecs"] = [{"name": "sharding_indexed", "configuration": {"chunk_shape": [5, 5, 5], "codecs": inner}}]

    path = write(tmp_path / "a.zarr", DATA[0, 0], "zyx", version="0.5")
    with pytest.raises(UnsupportedImage, match="pickle"):
        load(edited(path, hide, "0/zarr.json"))


def test_damaged_pieces_and_junk(tmp_path):
    path = write(tmp_path / "a.zarr", DATA[0, 0], "zyx")
    (path / "0" / "0.0.0").write_bytes(b"junk")
    with pytest.raises(BrokenFile):
        load(path)
    (path / ".zattrs").write_text("{")
    with pytest.raises(BrokenFile):
        load(path)
    promised = write(tmp_path / "b.zarr", DATA[0, 0], "zyx")
    huge = edited(promised, lambda r: r.update(shape=[10**7, 10**7, 10**4]), "0/.zarray")
    scan = load(huge)  # nothing is read yet
    with pytest.raises(MriError):
        np.asarray(scan.data)


def test_scrambled_folders_end_in_a_volume_or_a_sentence(tmp_path):
    rng = np.random.default_rng(0)
    good = {v: write(tmp_path / f"{v}.zarr", DATA[0, 0], "zyx", version=v) for v in ("0.4", "0.5")}
    opened = 0
    for n in range(160):
        path = good["0.4" if n % 2 else "0.5"]
        files = sorted(one for one in path.rglob("*") if one.is_file())
        victim = files[int(rng.integers(len(files)))]
        before = victim.read_bytes()
        raw = bytearray(before)
        for at in rng.integers(0, max(1, len(raw)), rng.integers(1, 6)):
            raw[at] = rng.choice([0, 34, 48, 57, 91, 123, 255, int(rng.integers(256))])
        victim.write_bytes(bytes(raw[: len(raw) if n % 5 else int(rng.integers(len(raw)))]))
        try:
            for volume in load_all(path):
                assert np.asarray(volume.data).ndim == 3
                opened += 1
        except MriError:
            pass
        victim.write_bytes(before)
    assert opened > 10
    assert load(path).data.shape == (12, 14, 10)
