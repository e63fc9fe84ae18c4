"""What stands where, made sharper by how bright it is: on made-up scans whose truth is known."""

import numpy as np
import pytest

from napari_mri.core.grid import Grid
from napari_mri.models._anatomy import BRAIN, Anatomy, Key, _Held
from napari_mri.models._tones import AT_ONCE, Tones, nearest, probable, sharpened, tones_at
from napari_mri.models._tones_device import DeviceTones, tones_on

SHAPE = (48, 40, 36)
LOOKS = (0.0, 0.9, 0.5, 0.7)


def scene(noise=0.05, shade=0.0, seed=0, blur=2.5):
    """Air, an ellipsoid of structure 1 that holds two of 2 and 3; a map of where they are likely, and the scan."""
    from scipy.ndimage import gaussian_filter

    i, j, k = np.indices(SHAPE) - (np.array(SHAPE) / 2)[:, None, None, None]
    truth = np.zeros(SHAPE, np.uint8)
    truth[(i / 20) ** 2 + (j / 16) ** 2 + (k / 15) ** 2 < 1] = 1
    truth[((i - 7) / 6) ** 2 + (j / 8) ** 2 + (k / 7) ** 2 < 1] = 2
    truth[((i + 8) / 5) ** 2 + (j / 9) ** 2 + (k / 6) ** 2 < 1] = 3
    rng = np.random.default_rng(seed)
    image = np.take(LOOKS, truth) * np.exp(shade * (i / SHAPE[0])) + noise * rng.normal(size=SHAPE)
    off = np.roll(truth, (2, 1), (0, 1))  # the map is blurred, and off by two voxels
    maps = np.stack([gaussian_filter((off == n).astype(np.float32), blur) for n in range(4)])
    return truth, maps / maps.sum(axis=0), np.abs(image).astype(np.float32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_brightness_puts_a_blurred_map_right_even_under_shading(shade):
    truth, maps, image = scene(shade=shade)
    before = [dice(maps.argmax(axis=0) == n, truth == n) for n in (1, 2, 3)]
    names, tones = sharpened(maps.copy(), image, 2.0)
    after = [dice(names.argmax(axis=0) == n, truth == n) for n in (1, 2, 3)]
    assert max(before) < 0.9
    assert min(after) > 0.93
    assert names.dtype == np.uint8
    assert np.abs(names.sum(axis=0, dtype=int) - 255).max() < 6
    slope = np.polyfit(np.arange(SHAPE[0]), tones.shade[:, 20, 18], 1)[0] * SHAPE[0]
    assert 0.25 * shade - 0.15 < slope < shade + 0.15  # a smooth field: in a head of 9 cm it follows a part of the way


def test_structures_that_look_alike_stay_where_the_map_has_them():
    truth, maps, _ = scene()
    image = np.where(truth > 0, 0.8, 0.0).astype(np.float32) + 0.02 * np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    names, _ = sharpened(maps.copy(), np.abs(image), 2.0)
    inner = truth > 0
    assert (names.argmax(axis=0) == maps.argmax(axis=0))[inner].mean() > 0.8


def test_nothing_but_air_and_one_value_have_no_tones():
    maps = np.zeros((4, *SHAPE), np.float32)
    maps[0] = 1
    names, tones = sharpened(maps.copy(), np.ones(SHAPE, np.float32), 2.0)
    assert tones is None
    assert names[0].min() == 255
    _, maps, _ = scene()
    assert sharpened(maps, np.ones(SHAPE, np.float32), 2.0)[1] is None


def test_a_finer_look_is_sharper_than_the_map():
    truth, maps, image = scene()
    grid = Grid.plain(SHAPE, (2.0, 2.0, 2.0))
    names, tones = sharpened(maps.copy(), image, 2.0)
    known = Anatomy(names, np.zeros(SHAPE, np.uint8), grid, Key(frozenset()), tones)
    fine = Grid.plain(tuple(2 * n for n in SHAPE), (1.0, 1.0, 1.0))
    near = nearest(fine, np.nonzero(np.ones(fine.shape, bool)), grid).reshape(fine.shape)
    large, big = truth.reshape(-1)[near], image.reshape(-1)[near]
    for number in (2, 3):
        found = known.shown_on((number, 0), fine, big)
        assert found.shape == fine.shape
        assert dice(found > 0.5, large == number) > 0.93
        assert 0 <= found.min() <= found.max() <= 1
    # Without what structures look like it is the map itself.
    bare = Anatomy(names, np.zeros(SHAPE, np.uint8), grid, Key(frozenset()))
    np.testing.assert_allclose(bare.shown_on((2, 0), grid, image), bare.shown((2, 0)), atol=1e-6)


def test_a_mark_tells_which_of_two_tones_a_structure_has():
    torch = pytest.importorskip("torch")
    truth, _, _ = scene()
    off = np.indices(SHAPE) - np.array((24, 20, 18))[:, None, None, None]
    own, other = (((off - np.array((side, 0, 0))[:, None, None, None]) ** 2).sum(axis=0) < 16 for side in (7, -7))
    truth = np.where(own, 3, truth > 0).astype(np.uint8)
    rim = ((off - np.array((0, 11, 6))[:, None, None, None]) ** 2).sum(axis=0) < 16  # what is around it has that tone, too
    image = np.where(other | rim, 0.6, np.where(own, 0.3, np.where(truth > 0, 0.9, 0.0)))
    image = np.abs(image + 0.03 * np.random.default_rng(0).normal(size=SHAPE)).astype(np.float32)
    near = 0.2 * np.exp(-0.5 * (off**2).sum(axis=0) / 5**2) * (truth > 0)  # it may stand on both sides
    maps = np.stack([truth == 0, (truth > 0) - near, np.zeros(SHAPE), near]).astype(np.float32)
    grid = Grid.plain(SHAPE, (2.0, 2.0, 2.0))
    names, tones = sharpened(maps, image, 2.0)
    known = Anatomy(names, np.zeros(SHAPE, np.uint8), grid, Key(frozenset()), tones)
    there = Anatomy(names, np.zeros(SHAPE, np.uint8), grid, Key(frozenset()), tones, device="cpu")
    there.__dict__["_held"] = _Held(names, there.right, DeviceTones.of(tones, "cpu"))
    mark = grid.to_patient(np.argwhere(truth == 3).mean(axis=0))[None]
    plain, told, nothing = (known.shown_on((3, 0), grid, image, marks) for marks in (None, mark, mark[:0]))
    assert dice(plain > 0.5, truth == 3) < 0.75
    assert dice(told > 0.5, truth == 3) > 0.9
    np.testing.assert_array_equal(nothing, plain)
    np.testing.assert_array_equal(*(known.shown_on((BRAIN, 0), grid, image, marks) for marks in (None, mark)))
    on_device = there.shown_on((3, 0), grid, torch.from_numpy(image), mark)
    np.testing.assert_allclose(on_device.numpy(), told, atol=1e-4)
    # Of a large structure there is more to be seen than one mark.
    looks = [tones.marked(1, np.full(27, 0.2, np.float32), np.arange(27), weight).looks[1] for weight in (0.0, 0.1, 0.9)]
    assert np.abs(looks[0] - tones.looks[1]).max() < 1e-7
    assert np.abs(looks[2] - looks[0]).max() > 5 * np.abs(looks[1] - looks[0]).max()
    assert np.allclose([look.sum() for look in looks], 1, atol=1e-3)
    assert known.counts[1] > 5 * known.counts[3]


def test_histograms_follow_a_noisier_grid():
    _, maps, image = scene(noise=0.02)
    _, tones = sharpened(maps, image, 2.0)
    at = np.flatnonzero(tones.share[0].reshape(-1) < 1)
    noisy = np.abs(image.reshape(-1)[at] + 0.15 * np.random.default_rng(3).normal(size=at.size)).astype(np.float32)
    wide = tones.refitted(noisy, at)
    assert isinstance(wide, Tones)
    steps = np.arange(tones.looks.shape[1])

    def spread(looks):
        mean = looks @ steps
        return np.sqrt((looks * (steps - mean[:, None]) ** 2).sum(axis=1))

    assert spread(wide.looks)[1:].mean() > 1.3 * spread(tones.looks)[1:].mean()
    assert (spread(wide.looks) >= spread(tones.looks)).all()


def test_probabilities_add_up():
    logits = np.random.default_rng(0).normal(0, 30, (5, 11, 6, 7)).astype(np.float32)
    found = probable(logits)
    assert found is logits
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def asking(maps):
    flat = maps.reshape(len(maps), -1)
    return lambda at: flat[:, at].astype(np.float32)


def test_what_is_asked_for_is_told_as_in_the_whole():
    _, maps, image = scene(shade=0.4)
    assert image.size > 2 * AT_ONCE, "more than one part"
    _, whole = sharpened(maps.astype(np.float32), image, 2.0)
    wanted = np.sort(np.random.default_rng(4).permutation(image.size)[: AT_ONCE + 500])
    some = tones_at(asking(maps), image, 2.0, 1, wanted)
    np.testing.assert_allclose(some.looks, whole.looks, atol=1e-5)
    np.testing.assert_allclose(some.shade, whole.shade.reshape(-1)[wanted], atol=1e-4)
    share = whole.share.reshape(len(whole.share), -1)[:, wanted]
    np.testing.assert_allclose(some.share, share, atol=1e-3)
    assert (some.share[0] == 1).any(), "air"
    values, own = image.reshape(-1)[wanted], np.arange(256) == 2
    gain = some.gain(values, np.arange(wanted.size), own)
    # A share that lies on the border of what counts as there is rounded in the whole.
    assert np.isclose(gain, whole.gain(values, wanted, own), atol=0.02).mean() > 0.999
    doubtful = some.doubtful(own)
    assert 0.05 < doubtful.mean() < 0.95
    assert not gain[~doubtful].any()
    assert (gain[doubtful] != 0).mean() > 0.9


def test_every_second_voxel_tells_nearly_the_same():
    _, maps, image = scene(shade=0.4)
    every, some = (tones_at(asking(maps), image, 2.0, step, np.arange(image.size)) for step in (1, 2))
    steps = np.arange(every.looks.shape[1])
    means = [tones.looks[1:] @ steps for tones in (every, some)]
    np.testing.assert_allclose(means[0], means[1], atol=6)  # small structures take more from the histogram of all
    assert np.abs(every.shade - some.shade).max() < 0.1
    empty = np.zeros((4, *SHAPE), np.float32)
    empty[0] = 1
    assert tones_at(asking(empty), image, 2.0, 2, np.arange(9)) is None


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("shade", [0.0, 0.4])
def test_tensors_tell_the_same(shade, step):
    torch = pytest.importorskip("torch")
    _, maps, image = scene(shade=shade)
    maps = maps.astype(np.float32)
    tones = tones_at(asking(maps), image, 2.0, step, np.arange(image.size))
    there = tones_on(torch.from_numpy(maps.copy()), torch.from_numpy(image), 2.0, step)
    np.testing.assert_allclose(there.looks.numpy(), tones.looks, atol=1e-5)
    np.testing.assert_allclose(there.shade.numpy().reshape(-1), tones.shade, atol=1e-4)
    rng = np.random.default_rng(5)
    at, values, own = rng.integers(0, image.size, 4000), rng.random(4000, dtype=np.float32), np.arange(256) == 2
    gain = tones.gain(values, at, own)
    for other in (there, DeviceTones.of(tones, "cpu")):
        np.testing.assert_allclose(other.gain(*map(torch.from_numpy, (values, at, own))).numpy(), gain, atol=1e-3)
    refitted = tones.refitted(values, at).looks
    assert np.abs(refitted - tones.looks).max() > 0.01
    np.testing.assert_allclose(there.refitted(torch.from_numpy(values), torch.from_numpy(at)).looks.numpy(), refitted, atol=1e-4)
