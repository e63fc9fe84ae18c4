"""Non-local PCA: what becomes of flat, sharp, tiny and clean volumes of unit noise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from napari_mri.nets import nonlocal_pca as pca  # noqa: E402


def blocks(shape: tuple[int, ...] = (26, 25, 23)) -> torch.Tensor:
    """Two bright bodies on a dark ground, 0 to 1."""
    x = torch.zeros(shape)
    x[4:20, 5:18, 3:19] = 0.6
    x[8:14, 9:21, 7:13] = 1.0
    return x


def error(answer: torch.Tensor, truth: torch.Tensor) -> float:
    return float((answer - truth).square().mean().sqrt())


@pytest.mark.parametrize("brightness", [10.0, 30.0, 100.0])
def test_most_of_the_noise_goes_at_every_level(brightness: float) -> None:
    truth = brightness * blocks()
    noisy = truth + torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    assert error(pca.cleaned(noisy), truth) < 0.45


@pytest.mark.parametrize("brightness", [1e3, 1e5, 1e8])
def test_a_volume_without_noise_to_speak_of_is_left_alone(brightness: float) -> None:
    gen = torch.Generator().manual_seed(1)
    texture = torch.nn.functional.avg_pool3d(torch.rand((1, 30, 29, 27), generator=gen), 3, 1)[0]
    truth = brightness * (blocks(tuple(texture.shape)) + texture)
    answer = pca.cleaned(truth)
    assert bool(torch.isfinite(answer).all())
    assert error(answer, truth) < 0.002 * brightness


def test_a_third_stage_helps_where_there_is_much_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = torch.Generator().manual_seed(5)
    truth = 7 * blocks((40, 40, 40))
    noisy = truth + torch.randn(truth.shape, generator=gen)
    thrice = error(pca.cleaned(noisy), truth)
    monkeypatch.setattr(pca, "NOISY", 0.0)
    assert thrice < error(pca.cleaned(noisy), truth)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 13)] * 3), st.booleans())
def test_volumes_of_every_size_come_back_whole(shape: tuple[int, int, int], has_floor: bool) -> None:
    noisy = 20 + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    answer = pca.cleaned(noisy, 1.0 if has_floor else None)
    assert tuple(answer.shape) == shape
    assert bool(torch.isfinite(answer).all())
    assert float((answer - 20).abs().max()) <= float((noisy - 20).abs().max()) + 1e-4


def test_cubes_are_laid_back_where_they_were_taken() -> None:
    volume = torch.rand((9, 7, 8))
    places = [n - pca.SIDE + 1 for n in volume.shape]
    cubes = pca._cubes(volume)
    number = (2 * places[1] + 1) * places[2] + 3
    assert torch.equal(cubes[number], volume[2:6, 1:5, 3:7].reshape(-1))
    total = pca._laid(cubes.reshape(*places, *[pca.SIDE] * 3))
    weight = pca._laid(torch.ones(places))
    assert torch.allclose(total / weight, volume, atol=1e-6)


def test_background_is_averaged_and_no_more() -> None:
    gen = torch.Generator().manual_seed(2)
    noisy = 1.2 + torch.randn((32, 32, 32), generator=gen)
    noisy[:, :, 20:] += 25
    answer = pca.cleaned(noisy, floor=1.2)
    air = answer[4:-4, 4:-4, 4:14]
    assert abs(float(air.mean()) - 1.2) < 0.1
    assert float(air.std()) < 0.25


def test_what_is_flat_stays_as_it_is() -> None:
    flat = torch.full((20, 21, 22), 5.0)
    flat[10:] = 9.0
    assert torch.allclose(pca.cleaned(flat), flat, atol=0.02)


@pytest.mark.parametrize("room", [20 << 30, 64 << 20])
def test_pieces_cut_for_a_gpu_give_what_pieces_cut_for_cores_give(room: int) -> None:
    gen = torch.Generator().manual_seed(4)
    noisy = 1.2 + 12 * blocks((34, 29, 31)) + torch.randn((34, 29, 31), generator=gen)
    cores, gpu = pca.cleaned(noisy, 1.2), pca.cleaned(noisy, 1.2, cut=pca.for_gpu(tuple(noisy.shape), room))
    # Which of two cubes, alike to rounding, is the last of its group may differ.
    assert error(cores, gpu) < 1e-2
    assert not torch.equal(cores, noisy)


def test_little_memory_makes_thin_slabs_and_small_batches() -> None:
    wide, narrow = pca.for_gpu((256, 256, 256), 20 << 30), pca.for_gpu((256, 256, 256), 3 << 30)
    assert wide.cubes[0] > narrow.cubes[0] >= 1
    assert wide.batch > narrow.batch > 1000
    assert pca.for_gpu((512, 512, 512), 1 << 30).cubes[0] == 1  # it cannot be thinner


def test_tiles_hold_each_bright_cube_once_and_none_that_is_dark() -> None:
    bright = torch.rand((7, 6, 5), generator=torch.Generator().manual_seed(1)) > 0.6
    bright[:, 0] = False
    starts = [pca._starts(4 * n + 2, 0) for n in (6, 5, 4)]
    found = torch.zeros_like(bright, dtype=torch.int64)
    for part in pca._tiles((7, 6, 5), (3, 2, 9), bright):
        tile = pca._tile_at(starts, bright, part)
        places = tile.corners + torch.tensor([box.start for box in tile.box]) - pca.REACH
        for place in places.tolist():
            found[tuple(int((begin == at).nonzero()) for begin, at in zip(starts, place, strict=True))] += 1
        assert all(box.stop <= int(begin[-1]) + pca.SIDE + 2 * pca.REACH for box, begin in zip(tile.box, starts, strict=True))
    assert torch.equal(found, bright.long())
