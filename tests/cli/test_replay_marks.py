"""A sidecar with every kind of mark in it gives the same voxels again."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import napari_mri as mri
from napari_mri import registry
from napari_mri.cli._replay import again
from napari_mri.core.prompts import KINDS
from napari_mri.engine.runtime import LocalRuntime
from tests.scans import GRIDS, blob, head

MIDDLE = np.array([4.0, -7.0, 11.0])
shifts = st.tuples(*[st.floats(-6, 6)] * 3).map(lambda s: tuple(float(v) for v in MIDDLE + s))
lines = st.lists(shifts, min_size=1, max_size=4).map(tuple)
marks = st.one_of(
    st.builds(mri.Point, shifts, st.booleans()),
    st.builds(lambda p, r: mri.Box(tuple(p - r), tuple(p + r)), shifts.map(np.array), st.floats(12, 40)),
    st.builds(mri.Scribble, lines, st.booleans()),
    st.builds(mri.Lasso, st.just(tuple(tuple(MIDDLE + v) for v in ((-9, -9, 0), (9, -9, 0), (9, 9, 0), (-9, 9, 0))))),
    st.builds(lambda low, high: mri.Slab((0, 0, 1), low, high), st.floats(-40, 0), st.floats(20, 60)),
)


def every_kind(scan):
    ends = ((-36, -7, 11), (44, -7, 11), (4, -54, 11), (4, 40, 11), (4, -7, -26), (4, -7, 48))
    rough = mri.Mask.of(blob(scan.grid, MIDDLE, (20, 20, 20)), scan.grid)
    corners = ((-9, -9, 0), (9, -9, 0), (9, 9, 0), (-9, 9, 0))
    return (
        mri.Slab((0, 0, 1), -20.0, 40.0), rough, mri.Extremes(ends), mri.Box((-36, -54, -26), (44, 40, 48)),
        mri.Lasso(tuple(tuple(MIDDLE + c) for c in corners)), mri.Point(tuple(MIDDLE)),
        mri.Point((4, -7, 60), positive=False), mri.Scribble(((0, -7, 11), (8, -7, 14), (9, -2, 14))),
    )  # fmt: skip


def taken(model, prompts):
    kinds = (*registry.find("segment", model).card.prompts, mri.Slab)
    return mri.Prompts(tuple(mark for mark in prompts if type(mark) in kinds))


def there_and_back(scan, prompts, model, folder):
    mri.save(scan, folder / "scan.nii.gz")
    opened = mri.load(folder / "scan.nii.gz")
    mri.save(mri.segment(opened, taken(model, prompts), model=model, device="cpu"), folder / "mask.nii.gz")
    outcome, same = again(folder / "mask.json", str(folder / "scan.nii.gz"), LocalRuntime("cpu"))
    return same, outcome.result


@pytest.mark.parametrize("name", ["plain", "oblique"])
@pytest.mark.parametrize("model", ["grow", "extreme", "click3d"])
def test_every_kind_of_mark_is_replayed_to_the_same_voxels(model, name, tmp_path):
    listed = {m.name: m for m in registry.list_models("segment")}[model]
    if not listed.available:
        pytest.skip(listed.reason)
    scan = head(GRIDS[name])
    prompts = every_kind(scan)
    assert {type(mark) for mark in prompts} == set(KINDS.values())
    same, result = there_and_back(scan, prompts, model, tmp_path)
    assert same
    assert result.data.any()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(marks, max_size=5))
def test_whatever_is_pointed_at_is_replayed(tmp_path, some):
    prompts = (mri.Point(tuple(MIDDLE)), *some)
    same, _ = there_and_back(head(GRIDS["flipped"]), prompts, "grow", tmp_path)  # contradictions may leave nothing
    assert same
