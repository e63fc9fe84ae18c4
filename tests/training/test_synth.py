"""The generator: same seed same head, image and target from one warp, every fault within bounds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("edt")
torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.synth import Head, Recipe, build_head, degrade, make_sample, make_samples, normalise, paint  # noqa: E402
from training.synth.degrade import acquire, along, crop_field, ghost, sampling, wrap  # noqa: E402
from training.synth.geometry import Pose, commonest, place, points, sample_pose  # noqa: E402
from training.synth.heads import brain_masks  # noqa: E402
from training.synth.paint import look_by_chance, look_by_physics  # noqa: E402


def ball_head() -> np.ndarray:
    """A head of nested balls, with a neck, in FreeSurfer ids at 1 mm."""
    i, j, k = np.indices((100, 112, 120)).astype(float)
    r = np.sqrt((i - 50) ** 2 + (j - 56) ** 2 + (k - 70) ** 2)
    out = np.zeros(r.shape, np.int32)
    neck = ((i - 50) ** 2 + (j - 56) ** 2 < 20**2) & (k < 70)
    out[neck | (r < 46)] = 507
    out[r < 43] = 515
    out[r < 38] = 24
    out[r < 34] = 3
    out[r < 26] = 2
    out[(r < 26) & (i > 50)] = 41
    out[(r < 33) & (k < 45)] = 8
    out[((i - 50) ** 2 + (j - 56) ** 2 < 5**2) & (k < 60)] = 16
    return out


@pytest.fixture(scope="module")
def head() -> Head:
    return build_head(ball_head(), "ball")


SMALL = Recipe(spacing=(3.0, 3.0), extent=((96, 120), (96, 120), (96, 120)))


def test_brain_masks_nest_and_end_below_the_cerebellum() -> None:
    labels = ball_head()
    whole, alone = brain_masks(labels)
    assert (whole | alone).sum() == whole.sum(), "the brain lies within its fluid"
    assert whole.sum() > 1.1 * alone.sum()
    lowest = np.nonzero((labels == 8).any((0, 1)))[0][0]
    assert np.nonzero(whole.any((0, 1)))[0][0] >= lowest - 7, "the cord is cut off"
    assert labels[50, 56, lowest - 9] == 16, "though the map's stem goes on"


def test_distance_is_in_mm_and_negative_inside(head: Head) -> None:
    middle = [round(c / 2) for c in head.centre]
    radius = -float(head.distance[0][tuple(middle)])
    assert 33 < radius < 40
    assert float(head.distance[1][tuple(middle)]) > -radius - 1e-3


def test_left_and_right_share_a_base_and_skull_is_split_by_depth(head: Head) -> None:
    assert head.tissue[0] == "air"
    assert any(base < index for index, base in enumerate(head.base) if head.inside[index]), "41 shares with 2"
    assert head.tissue.count("bone") == 3


def test_same_seed_same_sample_other_seed_another(head: Head) -> None:
    one, two, three = (make_sample(head, SMALL, seed) for seed in (5, 5, 6))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.distance, two.distance)
    assert one.image.shape != three.image.shape or not torch.equal(one.image, three.image)


def test_the_first_of_several_looks_is_the_sample_of_its_seed_and_all_stand_alike(head: Head) -> None:
    one, (first, second) = make_sample(head, SMALL, 5), make_samples(head, SMALL, 5, 2)
    for name in ("image", "distance", "labels", "seen"):
        assert torch.equal(getattr(one, name), getattr(first, name))
    assert torch.equal(first.labels, second.labels)
    assert not torch.equal(first.image, second.image)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_sample_is_finite_and_in_range(head: Head, seed: int) -> None:
    sample = make_sample(head, SMALL, seed)
    assert all(n % 16 == 0 for n in sample.image.shape)
    assert torch.isfinite(sample.image).all()
    assert torch.isfinite(sample.distance).all()
    assert 0 <= float(sample.image.min()) <= float(sample.image.max()) <= 1.5
    assert sample.distance.shape == (2, *sample.image.shape)


def test_target_follows_the_labels_through_the_warp(head: Head) -> None:
    for seed in range(4):
        gen = torch.Generator().manual_seed(seed)
        pose = sample_pose(head, (48, 48, 48), (2.0, 2.0, 2.0), gen, strength=0.7)
        layers, distance, _ = place(head, pose, gen, parts=1)
        inside = torch.tensor(head.inside)[layers[0].long()]
        clear = distance[0].abs() > 3.0
        wrong = ((distance[0] < 0) != inside) & clear & (layers[0] > 0)
        # The stem below the cut is brain tissue by label and not by target: the only allowed difference.
        assert float(wrong.float().sum() / inside.sum()) < 0.03


def test_scaling_by_two_doubles_the_distance(head: Head) -> None:
    zero = torch.zeros(3, 24, 24, 24)
    found = []
    for scale in (1.0, 1.5):
        pose = Pose((48, 48, 48), (3.0,) * 3, torch.eye(3) / scale, torch.tensor(head.centre), zero, None)
        found.append(place(head, pose, torch.Generator(), parts=1)[1][0])
    line = [f[24, 24, 24:].numpy() for f in found]
    edge = [int(np.argmax(v > 0)) for v in line]
    assert edge[1] > 1.3 * edge[0]
    slope = np.diff(line[1])[edge[1] - 3 : edge[1] + 3] / 3.0
    assert np.allclose(slope, 1.0, atol=0.2), "still mm per mm after stretching"


def test_neck_goes_on_below_the_map_only_when_asked(head: Head) -> None:
    zero = torch.zeros(3, 24, 24, 24)
    low = torch.tensor([head.centre[0], head.centre[1], -20.0])
    for neck, there in ((-0.002, True), (None, False)):
        pose = Pose((16, 16, 16), (1.0,) * 3, torch.eye(3), low, zero, neck)
        layers, distance, _ = place(head, pose, torch.Generator(), parts=1)
        assert bool((layers[0] > 0).any()) is there
        assert float(distance.min()) > 0, "what is added is never brain"


def test_partial_volume_lies_between_neighbours(head: Head) -> None:
    pose = sample_pose(head, (32, 32, 32), (3.0,) * 3, torch.Generator().manual_seed(1), 0.0)
    layers, _, _ = place(head, pose, torch.Generator().manual_seed(1), parts=5)
    differ = torch.stack(layers).float().std(0) > 0
    assert 0.02 < float(differ.float().mean()) < 0.6


@pytest.mark.parametrize("parts", [1, 3, 5, 9])
def test_points_of_a_voxel_lie_about_its_middle_and_within_it(parts: int) -> None:
    found = points(parts, torch.Generator().manual_seed(parts))
    assert found.shape == (parts, 3)
    assert torch.allclose(found[0], torch.zeros(3)), "the first is the middle"
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-6)
    assert parts == 1 or 0.2 < float(found[1:].abs().mean()) < 0.4
    with pytest.raises(ValueError, match="1, 3, 5 or 9"):
        points(4, torch.Generator())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_the_commonest_class_of_each_voxel_is_found(seed: int, count: int) -> None:
    layers = list(torch.randint(0, 4, (count, 4, 5, 6), generator=torch.Generator().manual_seed(seed)).to(torch.uint8))
    found = commonest(layers)
    each = torch.stack([torch.stack(layers).eq(value).sum(0) for value in range(4)])
    most = each.amax(0)
    assert torch.equal(each.gather(0, found.long()[None])[0], most)
    first = layers[0].long()[None]
    ties = each.gather(0, first)[0] == most
    assert torch.equal(found[ties], layers[0][ties]), "of equals that of the first"


def test_what_is_painted_lies_where_its_labels_lie(head: Head) -> None:
    offs = []
    for seed in range(6):
        gen = torch.Generator().manual_seed(seed)
        pose = sample_pose(head, (48, 48, 48), (2.5,) * 3, gen, 0.5)
        layers, _, _ = place(head, pose, gen)
        share, mask = (torch.stack(layers) == 1).float().mean(0), (commonest(layers) == 1).float()
        axes = torch.stack(torch.meshgrid(*[torch.arange(48.0)] * 3, indexing="ij"))
        offs.append([float((axes[a] * share).sum() / share.sum() - (axes[a] * mask).sum() / mask.sum()) for a in range(3)])
    assert np.abs(np.mean(offs, axis=0)).max() < 0.02, "voxels"


def test_slices_shown_as_blocks_stay_where_they_are() -> None:
    image = torch.zeros(1, 1, 61)
    image[..., 30] = 1
    middles = []
    for seed in range(40):
        found = acquire(image.expand(4, 4, 61), (1.0, 1.0, 1.0), (1.0, 1.0, 4.0), 0.0, torch.Generator().manual_seed(seed))
        middles.append(float((found[0, 0] * torch.arange(61.0)).sum() / found[0, 0].sum()))
    assert np.abs(np.array(middles) - 30).max() < 2.1, "at most half a slice"
    assert abs(np.mean(middles) - 30) < 0.4


def test_looks_are_per_class_and_positive(head: Head) -> None:
    for seed in range(20):
        gen = torch.Generator().manual_seed(seed)
        for make in (look_by_chance, look_by_physics):
            look = make(head, gen)
            assert look.mean.shape == (len(head.tissue),)
            assert torch.isfinite(look.mean).all()
            assert float(look.mean.min()) >= 0


def test_physics_knows_t1_from_t2(head: Head) -> None:
    from training.synth.paint import PHYSICS, _signal

    t1 = {"tr": 500.0, "te": 10.0, "r2_extra": 0.0}
    t2 = {"tr": 5000.0, "te": 100.0, "r2_extra": 0.0}
    assert _signal("t1", PHYSICS["wm"], t1) > _signal("t1", PHYSICS["csf"], t1)
    assert _signal("t2", PHYSICS["csf"], t2) > _signal("t2", PHYSICS["gm"], t2) > _signal("t2", PHYSICS["wm"], t2)
    flair = {"tr": 9000.0, "te": 110.0, "ti": 2500.0, "r2_extra": 0.0}
    assert _signal("flair", PHYSICS["csf"], flair) < 0.3 * _signal("flair", PHYSICS["gm"], flair)


def test_paint_leaves_air_dark_by_physics(head: Head) -> None:
    layers = [head.labels]
    image = paint(layers, head, torch.Generator().manual_seed(3), physics=1.0)
    assert float(image[head.labels == 0].mean()) < 0.05
    assert image.shape == head.labels.shape


@pytest.mark.parametrize("profile", ["box", "gauss", "sinc"])
@pytest.mark.parametrize("step", [2.5, 6.0])
def test_slices_keep_a_constant_and_blur_an_edge(profile: str, step: float) -> None:
    down, up = sampling(64, 1.0, step, step, 0.3, profile)
    flat = torch.full((64, 3, 2), 0.7)
    assert torch.allclose(along(along(flat, down, 0), up, 0), flat, atol=1e-4)
    edge = torch.zeros(3, 2, 64)
    edge[..., 32:] = 1
    out = along(along(edge, down, 2), up, 2)
    assert out.shape == edge.shape
    assert 0.2 < float(out[0, 0, 30:34].mean()) < 0.8
    assert float(out[0, 0, 8]) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_is_the_same_on_every_axis(axis: int) -> None:
    matrix = torch.randn(5, 8)
    image = torch.randn(8, 8, 8)
    expected = torch.tensordot(matrix, image.movedim(axis, 0), dims=1).movedim(0, axis)
    assert torch.allclose(along(image, matrix, axis), expected, atol=1e-4)


def test_degrade_at_zero_strength_and_fine_voxels_changes_nothing() -> None:
    image = torch.rand(20, 21, 22)
    same = degrade(image, (2.0, 2.0, 2.0), torch.Generator().manual_seed(0), strength=0.0, size=(1.0, 1.0, 1.0))
    assert torch.allclose(same, image)
    other = degrade(image, (2.0, 2.0, 2.0), torch.Generator().manual_seed(0), strength=1.0, size=(1.0, 1.0, 6.0))
    assert not torch.allclose(other, image, atol=0.05)


def test_faults_keep_the_shape_and_do_something() -> None:
    image = torch.zeros(24, 26, 28)
    image[8:16, 8:18, 8:20] = 1
    gen = torch.Generator().manual_seed(2)
    for fault in (ghost, wrap):
        out = fault(image, gen)
        assert out.shape == image.shape
        assert torch.isfinite(out).all()
    seen = crop_field((24, 26, 28), (2.0, 2.0, 2.0), gen)
    assert seen.dtype == torch.bool
    assert 0.1 < float(seen.float().mean()) < 1


@given(scale=st.floats(0.01, 1000), shift=st.floats(-500, 500))
@settings(max_examples=20, deadline=None)
def test_normalise_forgets_scale_and_shift(scale: float, shift: float) -> None:
    image = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)) ** 3
    assert torch.allclose(normalise(image * scale + shift), normalise(image), atol=2e-2)


def test_stripped_heads_have_no_scalp_and_a_target_that_fits(head: Head) -> None:
    recipe = Recipe(spacing=(3.0, 3.0), extent=SMALL.extent, stripped=1.0, strength=0.0, cropped=0, defaced=0)
    sample = make_sample(head, recipe, 1)
    assert float(sample.clean[sample.distance[0] > 6].max()) == 0
    plain = make_sample(head, Recipe(spacing=(3.0, 3.0), extent=SMALL.extent, stripped=0.0, strength=0.0), 1)
    assert float(plain.clean[plain.distance[0] > 6].max()) > 0
