"""Each format that can write must give back what it took: place, values, type, names.

The cases come from the formats themselves, so a new one is tested by being listed.
"""

from itertools import permutations, product

import numpy as np
import pytest

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Frames, Labels, Volume
from napari_mri.io.files import load, load_labels, save
from napari_mri.io.formats import all_formats
from tests.scans import grid_of

OUTLINES = {"rtstruct", "surface"}  # they keep contours, not voxels: nothing to compare one by one
WRITERS = [
    pytest.param(fmt, ending, id=f"{fmt.name}{ending}")
    for fmt in all_formats()
    if fmt.write and fmt.name not in OUTLINES
    for ending in fmt.endings
]
TURNS = ["".join(turn) for order in permutations(range(3)) for turn in product(*(("RL", "AP", "SI")[n] for n in order))]
GRIDS = {
    **{turn: grid_of((5, 7, 4), (1.0, 1.0, 1.0), turn) for turn in TURNS},
    "oblique": grid_of((5, 7, 4), (1.1, 0.9, 1.3), "LSA", (13.0, -8.0, 21.0)),
    "anisotropic": grid_of((9, 6, 3), (0.47, 0.61, 6.5), "LPS", (4.0, 0.0, -3.0)),
}
ARRAYS = ["uint8", "int16", "uint16", "int32", "float32", "float64"]


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    bounds = np.iinfo(dtype)
    return rng.integers(max(bounds.min, -30000), min(bounds.max, 30000), shape).astype(dtype)


def alike(have, want):
    """Assert that two volumes hold the same values at the same places, in whatever storage order."""
    a, b = have.turned("RAS"), want.turned("RAS")
    assert a.data.shape == b.data.shape
    assert a.grid.same(b.grid, 1e-3), (a.grid, b.grid)
    np.testing.assert_array_equal(a.data, b.data)


def grey(fmt, ending):
    """Tell whether an ending of a format takes grey values; ``.seg.nrrd`` is for labels only."""
    return "volume" in fmt.kept_by(ending)


def test_there_are_48_orientations():
    assert len(set(TURNS)) == 48


@pytest.mark.parametrize(("fmt", "ending"), WRITERS)
@pytest.mark.parametrize("name", GRIDS)
def test_every_orientation_comes_back(tmp_path, fmt, ending, name):
    path = tmp_path / f"scan{ending}"
    if "labels" in fmt.holds:
        labels = Labels(
            (values(GRIDS[name].shape, "int16") % 5).astype(np.uint8), GRIDS[name], names={1: "one", 4: "four"}
        )
        save(labels, path)
        alike(load_labels(path), labels)
    if grey(fmt, ending):
        scan = Volume(values(GRIDS[name].shape, "int16"), GRIDS[name])
        save(scan, path)
        alike(load(path), scan)


@pytest.mark.parametrize(("fmt", "ending"), WRITERS)
@pytest.mark.parametrize("dtype", ARRAYS)
def test_every_type_comes_back_or_is_refused(tmp_path, fmt, ending, dtype):
    if not grey(fmt, ending):
        pytest.skip("holds labels only")
    scan = Volume(values(GRIDS["oblique"].shape, dtype), GRIDS["oblique"])
    try:
        save(scan, tmp_path / f"a{ending}")
    except MriError:
        assert not list(tmp_path.iterdir())
        return
    back = load(tmp_path / f"a{ending}")
    if back.data.dtype == np.float32 != scan.data.dtype:  # a format without float64 rounds to what it has
        scan = scan.with_data(scan.data.astype(np.float32))
    alike(back, scan)


@pytest.mark.parametrize(("fmt", "ending"), WRITERS)
def test_four_dimensions_come_back_or_are_refused(tmp_path, fmt, ending):
    grid = GRIDS["oblique"]
    scan = Volume(values((*grid.shape, 3), "int16"), grid, frames=Frames("time", 2.0, "s"))
    labels = Labels((scan.data % 3).astype(np.uint8), grid, frames=scan.frames, names={1: "one", 2: "two"})
    for volume in (scan if grey(fmt, ending) else labels, labels if "labels" in fmt.holds else scan):
        layers_only = ending.startswith(".seg") and isinstance(volume, Labels)
        if layers_only:
            continue
        if "4d" in fmt.holds:
            save(volume, tmp_path / f"a{ending}")
            alike(load(tmp_path / f"a{ending}"), volume)
        else:
            with pytest.raises(MriError):
                save(volume, tmp_path / f"a{ending}")
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fmt", "ending"), WRITERS)
def test_names_come_back(tmp_path, fmt, ending):
    if not {"labels", "names"} <= fmt.holds:
        pytest.skip("holds no names")
    grid = GRIDS["anisotropic"]
    labels = Labels((values(grid.shape, "int16") % 5).astype(np.uint8), grid, names={1: "grey matter", 4: "tumour"})
    save(labels, tmp_path / f"a{ending}", sidecar=False)
    back = load_labels(tmp_path / f"a{ending}")
    assert {value: back.names[value] for value in (1, 4)} == {1: "grey matter", 4: "tumour"}


def test_what_is_no_volume_is_not_saved(tmp_path):
    scan = Volume(np.zeros(GRIDS["oblique"].shape), GRIDS["oblique"])
    with pytest.raises(MriError, match="save needs a Volume, not ndarray") as told:
        save(scan.data, tmp_path / "a.nii")
    assert "scan.with_data" in told.value.hint
    with pytest.raises(MriError, match="the volume first, then the path"):
        save(tmp_path / "a.nii", scan)
    with pytest.raises(MriError, match="is a folder"):
        save(scan, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fmt", all_formats(), ids=lambda fmt: fmt.name)
def test_every_format_refuses_noise(tmp_path, fmt):
    rng = np.random.default_rng(0)
    for n, ending in enumerate(fmt.endings):
        path = tmp_path / f"{n}{ending}"
        for size in (0, 1, 131, 400, 5000):
            path.write_bytes(rng.integers(0, 256, size).astype(np.uint8).tobytes())
            with pytest.raises(MriError):
                load(path)
