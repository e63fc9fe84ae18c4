"""The simulated user plays by the rules of the product's session, and the questions show what was meant."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets.click3d import COARSE, FINE  # noqa: E402
from training.click_tasks import KINDS, UNKNOWN, Episode, Scene, choose_object, kinds  # noqa: E402

SIDE = 48


def scene(radius: float = 9.0, side: int = 72) -> Scene:
    """A bright ball (class 2) in a dark one (class 1); class 3 is the last of the head, and outside."""
    where = torch.stack(torch.meshgrid(*[torch.arange(side) - side / 2] * 3, indexing="ij")).float()
    away = where.square().sum(0).sqrt()
    labels = (away < 30).to(torch.uint8) + (away < radius).to(torch.uint8)
    labels[:6] = 3
    image = labels.float() + 0.05 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    return Scene(image.half(), labels, 2.0, (0, 1, 2, 3), (False, True, True, False), True)


def played(seed: int, answer) -> tuple[Episode, list[float]]:
    """Play one episode to its end; `answer` makes a probability of the truth. Returns the look's spacings."""
    one = scene()
    gen = torch.Generator().manual_seed(seed)
    episode = Episode(one, one.labels == 2, gen, SIDE)
    looks, going = [], True
    while going:
        fine, coarse = episode.question()
        share, anatomy = episode.wanted()
        assert fine.shape == (FINE, SIDE, SIDE, SIDE)
        assert coarse.shape == (COARSE, SIDE // 2, SIDE // 2, SIDE // 2)
        assert share.shape == (SIDE,) * 3
        assert anatomy.shape == (SIDE // 2,) * 3
        assert torch.isfinite(fine).all()
        looks.append(episode.ask.crop.spacing[0])
        going = episode.answered(answer(share))
        assert len(looks) < 40
    return episode, looks


@pytest.mark.parametrize("seed", range(6))
def test_who_answers_right_is_shown_the_object_closely_and_is_never_corrected(seed):
    episode, looks = played(seed, lambda share: share)
    assert not episode.marks[False]
    assert len(episode.marks[True]) <= 40  # one mark or one scribble, and what half a voxel leaves
    assert looks[-1] < 2.0


@pytest.mark.parametrize("seed", range(6))
def test_who_answers_everything_is_told_what_does_not_belong(seed):
    wrong = [played(s, torch.ones_like)[0] for s in (seed, seed + 100, seed + 200)]
    assert any(episode.marks[False] for episode in wrong if episode.marks)
    for episode in wrong:
        for sign in (True, False):
            for mark in episode.marks[sign]:
                assert episode.truth[tuple(mark)] == sign


def test_the_anatomy_asked_for_is_that_of_the_look():
    one = scene()
    episode = Episode(one, one.labels == 2, torch.Generator().manual_seed(3), SIDE)
    share, anatomy = episode.wanted()
    inner = share[1::2, 1::2, 1::2] > 0.99
    assert inner.any()
    assert (anatomy[inner] == 2).float().mean() > 0.9
    table = kinds(one)
    assert table[:3].tolist() == [0, 1, 2]
    assert (table[4:] == UNKNOWN).all()
    assert int(table.max()) < KINDS


def test_classes_counted_from_the_end_mean_the_same_in_every_head():
    one = scene()
    many = [
        Scene(one.image, one.labels, 2.0, tuple(range(count)), (True,) * count, True) for count in (59, 60)
    ]
    short, long = (kinds(each) for each in many)
    assert short[58] == long[59]
    assert short[36] == long[36]
    assert short[40] == long[41]


def test_nothing_to_click_on_is_said():
    one = scene()
    empty = Scene(one.image, torch.zeros_like(one.labels), 2.0, one.base, one.inside, True)
    assert choose_object(empty, torch.Generator().manual_seed(0)) is None
    assert np.asarray(choose_object(one, torch.Generator().manual_seed(0))).any()
