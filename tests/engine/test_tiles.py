"""Tiles: what is cut is put together again, within the memory there is, and can be stopped."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.errors import Cancelled, OutOfMemory
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.engine.tiles import Blend, Tiling, corners, importance, memory_ended, run_net, tiled

SMALL = Tiling((8, 8, 8), 0.5, multiple=4, least=4)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 21)] * 3), st.floats(0, 0.8), st.booleans())
def test_doing_nothing_gives_the_scan_back(shape: tuple[int, int, int], overlap: float, gaussian: bool) -> None:
    data = noise(*shape)
    out = tiled(lambda tile: tile, data, Tiling((8, 5, 7), overlap, gaussian), LocalRuntime("cpu"))
    assert out.mean.shape == (1, *shape)
    assert np.abs(out.mean[0] - data).max() < 1e-5


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(8, 40)] * 3), st.floats(0, 0.9))
def test_tiles_cover_all_and_stay_inside(shape: tuple[int, int, int], overlap: float) -> None:
    seen = np.zeros(shape, bool)
    for corner in corners(shape, (8, 7, 6), overlap):
        assert all(c >= 0 and c + s <= n for c, s, n in zip(corner, (8, 7, 6), shape, strict=True))
        seen[tuple(slice(c, c + s) for c, s in zip(corner, (8, 7, 6), strict=True))] = True
    assert seen.all()


def test_overlap_makes_more_tiles() -> None:
    assert len(corners((32, 32, 32), (8, 8, 8), 0.0)) == 64
    assert len(corners((32, 32, 32), (8, 8, 8), 0.5)) == 7**3


def test_middle_counts_most_and_nothing_counts_zero() -> None:
    weight = importance((9, 9, 9))
    assert weight.argmax() == weight.size // 2
    assert weight.min() > 0
    assert importance((9, 9, 9), gaussian=False).min() == 1


def test_channels_may_change() -> None:
    out = tiled(lambda t: np.concatenate([t, -t, t * 0]), noise(2, 9, 10, 11), SMALL, LocalRuntime("cpu"))
    assert out.mean.shape == (6, 9, 10, 11)


def test_spread_is_zero_where_all_agree_and_the_variance_where_they_do_not() -> None:
    data = noise(13, 13, 13) * 1000
    same = tiled(lambda t: t, data, SMALL, LocalRuntime("cpu"), spread=True)
    assert same.variance is not None
    assert same.variance.max() < 1e-3
    assert np.abs(same.mean[0] - data).max() < 1e-2
    blend = Blend((1, 1, 1, 1), spread=True)
    for value, weight in ((1.0, 1.0), (4.0, 2.0)):
        blend.add((0, 0, 0), np.full((1, 1, 1, 1), value, np.float32), np.full((1, 1, 1), weight, np.float32))
    assert blend.mean().item() == pytest.approx(3.0)
    assert blend.variance().item() == pytest.approx(2.0)


def test_stop_comes_within_one_tile() -> None:
    stop, done = threading.Event(), []

    def slow(tile: np.ndarray) -> np.ndarray:
        done.append(1)
        stop.set()
        return tile

    with pytest.raises(Cancelled):
        tiled(slow, noise(30, 30, 30), SMALL, LocalRuntime("cpu", cancel=stop))
    assert len(done) == 1


def test_progress_goes_up_to_one() -> None:
    told: list[float] = []
    tiled(lambda t: t, noise(20, 9, 9), SMALL, LocalRuntime("cpu", lambda f, _: told.append(f)))
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] == 1.0


def test_tile_is_halved_when_memory_ends() -> None:
    torch = pytest.importorskip("torch")
    sizes: list[tuple[int, ...]] = []

    def hungry(x):
        sizes.append(tuple(x.shape[2:]))
        if x.numel() > 300:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return x * 2

    rt, data = LocalRuntime("cpu"), noise(17, 18, 19)
    out = run_net(hungry, data, Tiling((16, 16, 16), multiple=4, least=4), rt)
    assert np.abs(out.mean[0] - 2 * data).max() < 1e-4
    assert sizes[0] == (16, 16, 16)
    assert np.prod(sizes[-1]) <= 300
    assert len(rt.warnings) >= 1


def test_memory_that_never_suffices_is_a_known_error() -> None:
    pytest.importorskip("torch")

    def never(x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(OutOfMemory) as caught:
        run_net(never, noise(9, 9, 9), SMALL, LocalRuntime("cpu"))
    assert caught.value.hint


def test_other_errors_are_not_taken_for_memory() -> None:
    pytest.importorskip("torch")

    def broken(x):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_net(broken, noise(9, 9, 9), SMALL, LocalRuntime("cpu"))
    assert not memory_ended(ValueError("wrong"))
    assert memory_ended(MemoryError())


def test_module_is_put_in_eval_mode_and_keeps_no_gradient() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.Dropout(0.9)).train()
    data = noise(11, 9, 10)
    one, two = (run_net(net, data, SMALL, LocalRuntime("cpu")).mean for _ in range(2))
    assert not net.training
    assert np.array_equal(one, two)


def test_smallest_tile_is_not_halved() -> None:
    assert Tiling((32, 32, 32), multiple=16, least=32).halved() is None
    assert Tiling((64, 32, 32), multiple=16, least=32).halved().size == (32, 32, 32)


def test_stop_comes_within_one_layer_and_leaves_the_net_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    stop, passed = threading.Event(), []

    class Layer(torch.nn.Module):
        def forward(self, x):
            passed.append(1)
            stop.set()
            return x

    net = torch.nn.Sequential(*(Layer() for _ in range(5)))
    with pytest.raises(Cancelled):
        run_net(net, noise(8, 8, 8), SMALL, LocalRuntime("cpu", cancel=stop))
    assert len(passed) == 1
    stop.clear()
    with torch.inference_mode():
        net(torch.zeros(1, 1, 2, 2, 2))  # no longer watched: the stop that follows from it is nobody's
    assert len(passed) == 6
