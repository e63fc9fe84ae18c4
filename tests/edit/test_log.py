"""The edit log gives back every voxel, whatever was painted, undone, torn or refused by the disk."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import napari_mri.edit.log as log_file
from napari_mri.core.errors import BrokenFile, FileProblem, GridMismatch
from napari_mri.edit.journal import MAGIC, read_records
from napari_mri.edit.log import EditLog
from napari_mri.edit.packed import apply, pack, region_of

SHAPE = (23, 31, 17)


def _random_edit(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    new = array.copy()
    low = [int(rng.integers(0, n)) for n in array.shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, array.shape, strict=True)]
    box = tuple(map(slice, low, high))
    kind = rng.integers(5)
    part = new[box]
    if kind == 0:
        part[...] = rng.integers(0, 4)
    elif kind == 1:
        part[rng.random(part.shape) < 0.1] = rng.integers(0, 200)
    elif kind == 2:
        part[...] = rng.integers(0, 5, part.shape)
    elif kind == 3:
        part[...] = rng.integers(0, 255, part.shape)
    else:
        part[part == part.flat[0]] = 9
    return new


def _edited(log: EditLog, array: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    for n in range(count):
        new = _random_edit(array, rng)
        log.record(f"edit {n}", None, array, new)
        array = new
    return array


@given(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]).flatmap(
        lambda t: st.tuples(
            *[arrays.arrays(t, st.shared(arrays.array_shapes(min_dims=3, max_dims=4, max_side=6), key="s"))] * 2
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_packing_is_exact_both_ways(pair: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = pair
    packed, count = pack(tuple(slice(0, n) for n in before.shape), before, after)
    assert count == (before != after).sum()
    if not count:
        assert packed == b""
        return
    array = before.copy()
    assert apply(packed, array) == region_of(packed, array.ndim)
    assert np.array_equal(array, after)
    apply(packed, array, backwards=True)
    assert np.array_equal(array, before)


def test_packing_refuses_what_is_cut_or_does_not_fit() -> None:
    before, after = np.zeros(SHAPE, np.uint8), np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint8)
    packed, _ = pack(tuple(slice(0, n) for n in SHAPE), before, after)
    with pytest.raises(BrokenFile):
        apply(packed[: len(packed) // 2], before.copy())
    with pytest.raises(BrokenFile, match="outside"):
        apply(packed, before[:-1].copy())


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_edits_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 3, SHAPE).astype(np.uint8)
    log = EditLog(SHAPE, np.uint8)
    log.begin(start)
    array = _edited(log, start.copy(), rng, 1000)
    assert np.array_equal(log.replay(), array)
    end, steps = array.copy(), log.position
    while log.undo(array):
        pass
    assert np.array_equal(array, start)
    while log.redo(array):
        pass
    assert np.array_equal(array, end)
    assert log.position == steps
    log.go_to(array, steps // 2)
    assert np.array_equal(array, log.replay())


def test_memory_comes_back_when_all_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a file, steps beyond the budget live on the disk; at full size the budget is 64 MB.
    monkeypatch.setattr(log_file, "KEEP_BYTES", 50_000)
    shape = (96, 128, 128)
    rng = np.random.default_rng(0)
    with EditLog(shape, np.uint8, tmp_path / "a.mrilog") as log:
        array = np.zeros(shape, np.uint8)
        for n in range(20):  # warm: caches of zlib, numpy, threads
            array[n, n:40, n:40] += 1
            log.record("warm", None, np.zeros_like(array), array) if n == 0 else None
        log.go_to(array, 0)
        array[...] = 0
        gc.collect()
        tracemalloc.start()
        big = np.ones(shape, np.uint8)  # what is measured against: one label array
        base = tracemalloc.get_traced_memory()[0]
        for n in range(1000):
            k, i, j = int(rng.integers(96)), *rng.integers(0, 100, 2)
            region = (slice(k, k + 1), slice(i, i + 25), slice(j, j + 25))
            before = array[region].copy()
            array[region] = np.where(rng.random(before.shape) < 0.5, n % 5 + 1, before)
            log.record("Brush", region, before, array[region])
        while log.undo(array):
            pass
        log.flush()
        log.record("one more", (slice(0, 1),) * 3, array[:1, :1, :1], array[:1, :1, :1] + 1)  # the redo branch goes
        log.undo(array)
        log.flush()
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert not array.any()
        assert big.any()
        assert now <= base + 0.05 * big.nbytes


def test_undo_is_recorded_and_recovery_gives_the_very_state(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "b.mrilog"
    log = EditLog(SHAPE, np.int32, path, author="J", facts={"title": "T1"})
    array = np.zeros(SHAPE, np.int32)
    for _ in range(300):
        choice = rng.random()
        if choice < 0.3:
            log.undo(array)
        elif choice < 0.45:
            log.redo(array)
        else:
            new = _random_edit(array, rng)
            log.record("edit", None, array, new, facts={"order": {"task": "edit"}})
            array = new
    log.note("prompt", {"marks": [{"kind": "point"}]})
    assert log.close()
    found = EditLog.recover(path)
    assert np.array_equal(found.array, array)
    assert found.array.dtype == np.int32
    assert found.notes == ()
    assert found.log.position == log.position
    assert [(e.kind, e.voxels, e.region) for e in found.log.steps] == [(e.kind, e.voxels, e.region) for e in log.steps]
    assert [e.name for e in found.log.steps] == [e.name for e in log.steps]
    assert found.log.notes[0]["kind"] == "prompt"
    assert found.log.facts == {"title": "T1"}
    assert found.log.author == "J"
    # and it goes on: undo, paint, close, recover again
    found.log.undo(found.array)
    new = _random_edit(found.array, rng)
    found.log.record("more", None, found.array, new)
    found.log.close()
    again = EditLog.recover(path)
    assert np.array_equal(again.array, new)
    assert again.log.steps[-1].name == "more"
    while again.log.undo(again.array):
        pass
    assert not again.array.any()
    again.log.close()


def test_a_torn_tail_is_cut_off_at_every_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "c.mrilog"
    log = EditLog(SHAPE, np.uint8, path)
    states = [np.zeros(SHAPE, np.uint8)]
    for n in range(4):
        states.append(_random_edit(states[-1], rng))
        log.record(f"edit {n}", None, states[-2], states[-1])
    log.close()
    whole = path.read_bytes()
    records, good, size = read_records(path)
    assert good == size == len(whole)
    ends = [record.place + len(record.body) for record in records]
    for length in [*rng.integers(ends[0], len(whole), 60), ends[0], ends[2], len(whole) - 1]:
        path.write_bytes(whole[:length])
        found = EditLog.recover(path)
        kept = sum(end <= length for end in ends) - 1
        assert np.array_equal(found.array, states[kept])
        assert bool(found.notes) == (length not in ends)
        found.log.close()
        assert path.stat().st_size == ends[kept]
    for _ in range(40):  # a flipped bit anywhere ends the log before it, and never changes a voxel
        damaged = bytearray(whole)
        damaged[int(rng.integers(ends[0], len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        found = EditLog.recover(path)
        assert any(np.array_equal(found.array, state) for state in states[:-1])
        assert "unfinished" in found.notes[0]
        found.log.close()


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.mrilog"
    for content in (b"", b"hello", MAGIC, MAGIC + b"REC:" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(BrokenFile):
            EditLog.recover(path)
    with pytest.raises(FileProblem):
        EditLog.recover(tmp_path / "none.mrilog")
    with pytest.raises(FileProblem, match="already"):
        EditLog(SHAPE, np.uint8, path)


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_two_windows_cannot_write_one_log(tmp_path: Path) -> None:
    path = tmp_path / "e.mrilog"
    with EditLog(SHAPE, np.uint8, path) as log:
        assert log.flush()
        with pytest.raises(FileProblem, match="another window"):
            EditLog.recover(path)
    EditLog.recover(path).log.close()


def test_written_within_a_second_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "f.mrilog"
    with EditLog(SHAPE, np.uint8, path) as log:
        log.record("Brush", None, np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8))
        limit = time.monotonic() + 1.0
        while time.monotonic() < limit:
            with contextlib.suppress(FileProblem):  # not there yet, or just being begun
                if len(read_records(path)[0]) == 2:
                    break
            time.sleep(0.01)
        assert len(read_records(path)[0]) == 2


def test_a_folder_that_cannot_be_written_warns_once_and_painting_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told: list[str] = []
    log = EditLog(SHAPE, np.uint8, tmp_path / "file" / "g.mrilog", on_warning=told.append)
    rng = np.random.default_rng(0)
    array = _edited(log, np.zeros(SHAPE, np.uint8), rng, 30)
    assert not log.flush(0.5)
    assert log.trouble
    assert len(told) == 1
    assert "go on painting" in told[0]
    while log.undo(array):
        pass
    assert not array.any()
    assert not log.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_full_disk_warns_and_the_file_is_whole_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr("napari_mri.edit.journal._RETRY_SECONDS", 0.1)
    told: list[str] = []
    path = tmp_path / "h.mrilog"
    log = EditLog(SHAPE, np.uint8, path, on_warning=told.append)
    rng = np.random.default_rng(1)
    array = _edited(log, np.zeros(SHAPE, np.uint8), rng, 5)
    assert log.flush()
    sound = array.copy()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 200, hard))
    try:
        array = _edited(log, array, rng, 40)
        assert not log.flush(1.0)
        assert len(told) == 1
        assert len(read_records(path)[0]) >= 6, "what was safe stays safe"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.flush(5.0)
    assert "again" in told[-1]
    assert log.close()
    found = EditLog.recover(path)
    assert np.array_equal(found.array, array)
    assert not np.array_equal(found.array, sound)
    found.log.close()


def test_the_start_is_packed_by_the_writing_thread(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    start = rng.integers(0, 5, SHAPE).astype(np.uint8)
    array = start.copy()
    with EditLog(SHAPE, np.uint8, tmp_path / "s.mrilog") as log:
        log.begin(array)
        array[:3] = 9  # what comes later must not get into the snapshot
        log.record("Brush", (slice(0, 3), slice(None), slice(None)), start[:3], array[:3])
        assert np.array_equal(log.replay(), array)  # before or after it was written
        assert log.steps[0].voxels == np.count_nonzero(start)
        assert log.flush()
        assert np.array_equal(log.replay(), array)
        assert log.undo(array) is not None
        assert log.undo(array) is None
        assert np.array_equal(array, start)
    found = EditLog.recover(tmp_path / "s.mrilog")
    assert np.array_equal(found.array, start)
    assert [entry.kind for entry in found.log.steps] == ["start", "stroke"]
    found.log.close()


def test_a_start_that_leaves_the_memory_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "KEEP_BYTES", 100)
    start = np.random.default_rng(7).integers(0, 200, SHAPE).astype(np.uint8)
    with EditLog(SHAPE, np.uint8, tmp_path / "r.mrilog") as log:
        log.begin(start)
        assert log.flush()
        log.record("Brush", (slice(0, 1),) * 3, start[:1, :1, :1], start[:1, :1, :1] + 1)
        assert log.steps[0]._packed is None
        now = start.copy()
        now[0, 0, 0] += 1
        assert np.array_equal(log.replay(), now)


def test_a_layer_may_get_a_wider_type(tmp_path: Path) -> None:
    path = tmp_path / "w.mrilog"
    log = EditLog(SHAPE, np.uint8, path)
    array = np.zeros(SHAPE, np.uint8)
    array[:4] = 200
    log.record("Brush", None, np.zeros(SHAPE, np.uint8), array)
    with pytest.raises(GridMismatch, match="fit"):
        log.widen(np.int8)
    log.widen(np.uint16)
    array = array.astype(np.uint16)
    before = array.copy()
    array[4:8] = 700
    log.record("Brush", None, before, array)
    end = array.copy()
    log.go_to(array, 0)
    assert not array.any()
    log.go_to(array, 2)
    assert np.array_equal(array, end)
    assert log.close()
    found = EditLog.recover(path)
    assert found.array.dtype == np.uint16
    assert np.array_equal(found.array, end)
    found.log.close()


@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.int16, np.int32]))
@settings(max_examples=100, deadline=None)
def test_a_step_tells_what_each_label_gained(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    before = rng.integers(0, 4 if seed % 2 else 100, (5, 6, 7)).astype(dtype)
    after = np.where(rng.random(before.shape) < 0.3, rng.integers(0, 40, before.shape), before).astype(dtype)
    log = EditLog(before.shape, dtype)
    entry = log.record("edit", None, before, after)
    values = np.union1d(before, after)
    gained = {int(v): int((after == v).sum() - (before == v).sum()) for v in values}
    assert ({} if entry is None else log.tally(entry)) == {v: n for v, n in gained.items() if n}


def test_what_a_maker_tells_of_a_step_stands_in_the_history(tmp_path: Path) -> None:
    whole, path = np.zeros(SHAPE, np.uint8), tmp_path / "n.mrilog"
    order = {"task": "edit", "model": "smooth", "params": {"mm": 2.0}}
    told = {"action": "Smooth", "order": order, "facts": {"changed_voxels": 5}}
    log = EditLog(SHAPE, np.uint8, path)
    log.record("Edit", None, whole, whole + 1, kind="edit")
    log.name_last("Smooth", "tool", {"step": told})
    log.record("odd", None, whole + 1, whole, kind="tool", facts={"step": "none"})
    log.close()
    found = EditLog.recover(path).log
    found.close()
    for one in (log, found):
        first, second = one.history()
        assert first.action == "Smooth"
        assert first.order is not None
        assert first.order.to_json() == order
        assert first.facts["changed_voxels"] == 5
        assert first.facts["kind"] == "tool"
        assert second.order is None


def test_names_history_and_the_redo_branch() -> None:
    log = EditLog(SHAPE, np.uint8)
    array = np.zeros(SHAPE, np.uint8)
    log.record("Brush", (slice(0, 1),) * 3, array[:1, :1, :1], array[:1, :1, :1] + 1)
    array[0, 0, 0] = 1
    log.record(
        "Smooth", (slice(1, 2),) * 3, array[1:2, 1:2, 1:2], array[1:2, 1:2, 1:2] + 2, kind="tool", facts={"mm": 2.0}
    )
    array[1, 1, 1] = 2
    assert [step.action for step in log.history()] == ["edited by hand: Brush", "Smooth"]
    assert log.history()[1].facts["mm"] == 2.0
    assert str(log.undo(array)) == "Smooth"
    assert [step.action for step in log.history()] == ["edited by hand: Brush"]
    assert log.record("none", None, array, array.copy()) is None
    assert len(log.steps) == 2, "an edit that changes nothing keeps the redo branch"
    log.record("Fill", (slice(2, 3),) * 3, array[2:3, 2:3, 2:3], array[2:3, 2:3, 2:3] + 5)
    assert [str(entry) for entry in log.steps] == ["Brush", "Fill"]
    assert log.redo(array) is None


def test_wrong_arrays_are_refused() -> None:
    log = EditLog(SHAPE, np.uint8)
    whole = np.zeros(SHAPE, np.uint8)
    log.record("Brush", None, whole, whole + 1)
    with pytest.raises(GridMismatch):
        log.record("x", (slice(0, 2),) * 3, whole, whole + 1)
    with pytest.raises(GridMismatch, match="new log"):
        log.undo(whole.astype(np.int32))
    with pytest.raises(GridMismatch):
        log.undo(whole[:-1])


def test_a_large_change_is_small_and_quick_to_undo() -> None:
    shape = (192, 256, 256)
    index = np.indices(shape, sparse=True)
    ball = sum((axis - c) ** 2 for axis, c in zip(index, (96, 128, 128), strict=True)) <= 114**2
    assert ball.sum() > 5_900_000
    before = np.zeros(shape, np.uint8)
    after = np.where(ball, 1 + (index[0] // 30 + index[1] // 40).astype(np.uint8), 0).astype(np.uint8)
    log = EditLog(shape, np.uint8)
    log.record("Model", None, before, after, kind="model")
    assert log.nbytes <= 6e6
    array, times = after.copy(), []
    for _ in range(3):
        begin = time.perf_counter()
        log.undo(array)
        middle = time.perf_counter()
        assert not array.any()
        checked = time.perf_counter()
        log.redo(array)
        end = time.perf_counter()
        times.append(end - begin - (checked - middle))
    assert np.array_equal(array, after)
    # both together, so twice the 150 ms of one
    assert min(times) < 0.3 * (4 if os.environ.get("CI") else 1)


def test_brush_strokes_take_less_than_a_byte_a_voxel() -> None:
    rng = np.random.default_rng(2)
    yy, xx = np.mgrid[:256, :256]
    log = EditLog((20, 256, 256), np.uint8)
    array = np.zeros(log.shape, np.uint8)
    voxels = 0
    for _ in range(60):
        k, place, speed = int(rng.integers(20)), rng.uniform(40, 216, 2), rng.normal(0, 3, 2)
        new = array[k : k + 1].copy()
        for _ in range(15):
            place, speed = place + speed, speed + rng.normal(0, 1, 2)
            new[0, (yy - place[0]) ** 2 + (xx - place[1]) ** 2 <= 25] = rng.integers(1, 4)
        entry = log.record("Brush", (slice(k, k + 1), slice(None), slice(None)), array[k : k + 1], new)
        array[k : k + 1] = new
        voxels += entry.voxels if entry else 0
    assert log.nbytes <= voxels
