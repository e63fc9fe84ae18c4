"""The click network's session: zooms, replays, lands on the object on every grid; its weights are the shipped ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mri as mri
from napari_mri.core.errors import BadPrompt, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import weights
from napari_mri.models import click3d
from napari_mri.models._click3d_mend import MARGIN, WIDE, WINDOW, Window, bettered, deep_in, leant, window_of
from napari_mri.models._click3d_rounds import Answer, Rounds, share, told_apart
from napari_mri.models._click3d_zoom import Pyramid, carried, crop_grid
from napari_mri.models._headnet import HEADNET
from napari_mri.models._marks import Pointed
from tests.scans import GRIDS, blob, dice, head

torch = pytest.importorskip("torch")

BRAIN = (4.0, -7.0, 11.0)
CLICK = mri.Point(BRAIN)
here = pytest.mark.skipif(not weights.is_there(click3d.WEIGHTS), reason="the click network was not trained yet")


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """Weights before any training, where the answer is the geodesic one."""
    from safetensors.torch import save_file

    from napari_mri.models import _headnet
    from napari_mri.nets.anatomy import HeadNet
    from napari_mri.nets.click3d import Click3D, Mender

    torch.manual_seed(0)
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    monkeypatch.setattr(_headnet, "HEADNET", replace(HEADNET, sha256=""))
    nothing = HeadNet((8, 8), (0, 0), 8)  # names all of it air
    with torch.no_grad():
        nothing.names.weight.zero_()
        nothing.names.bias.zero_()[:8] = 30.0
    for name, net in (("click3d", Click3D()), ("mender", Mender()), ("headnet", nothing)):
        save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", GRIDS)
def test_clicks_and_corrections_find_the_object_on_every_grid(untrained, name):
    grid = GRIDS[name]
    prompts = mri.Prompts((CLICK, mri.Point((4, -7, 55), False), mri.Point((4, -50, 11))))
    mask = mri.segment(head(grid), prompts, model="click3d", device="cpu")
    assert mask.grid.same(grid)
    assert dice(mask.data, blob(grid, BRAIN, (40, 47, 37))) > 0.85


def test_all_ways_of_pointing_give_a_mask(untrained):
    grid = GRIDS["plain"]
    truth = blob(grid, BRAIN, (40, 47, 37))
    ring = tuple((4 + 30 * np.cos(a), -7 + 34 * np.sin(a), 11.0) for a in np.linspace(0, 6, 16))
    ends = ((-36, -7, 11), (44, -7, 11), (4, -54, 11), (4, 40, 11), (4, -7, -26), (4, -7, 48))
    with mri.open_session(head(grid), model="click3d", device="cpu") as session:
        for mark in (
            CLICK, mri.Scribble(((-20, -7, 11), (25, -7, 11))), mri.Lasso(ring), mri.Extremes(ends),
            mri.Mask.of(truth, grid),
        ):  # fmt: skip
            mask = session.answer(mri.Prompts((mark,)))
            assert dice(mask.data, truth) > 0.4, mark.kind
            assert 0 < session.score <= 1


@pytest.mark.parametrize("name", GRIDS)
def test_a_mask_to_be_made_better_stays_but_for_what_clicks_change(untrained, name):
    grid = GRIDS[name]
    truth = blob(grid, BRAIN, (40, 47, 37))
    place = grid.to_voxels(np.array([[4.0, -7.0, 11.0]])).round().astype(int)[0]
    worse = truth.copy()
    part = tuple(slice(n - 1, n + 2) for n in place)
    worse[part] = False
    crumb = tuple(grid.to_voxels(np.array([-40.0, -50.0, -20.0])).round().astype(int))
    worse[crumb] = True
    given = mri.Mask.of(worse, grid)
    with mri.open_session(head(grid), model="click3d", device="cpu") as session:
        assert np.array_equal(session.answer(mri.Prompts((given,))).data > 0, worse)
        filled = session.answer(mri.Prompts((given, mri.Point(tuple(grid.to_patient(place)))))).data > 0
        assert filled[tuple(place)]
        assert filled[crumb], "a piece of the mask without a mark is the user's, too"
        assert dice(filled, truth) > 0.9
        later = session.answer(mri.Prompts((mri.Point(tuple(grid.to_patient(place))), given))).data > 0
        assert np.array_equal(later, filled)
        beside = mri.Point(tuple(grid.to_patient(crumb)), False)
        cleaned = session.answer(mri.Prompts((given, beside))).data > 0
        assert not cleaned[crumb]
        assert dice(cleaned, worse) > 0.9
        boxed = session.answer(mri.Prompts((given, mri.Box((4, -7, 11), (60, 60, 60))))).data > 0
        assert not boxed[crumb], "a box beside a mask says what of it stays"
        assert 0.05 < boxed.sum() / worse.sum() < 0.6
        assert not (boxed & ~worse).any()
        with pytest.raises(BadPrompt, match="empty"):
            session.answer(mri.Prompts((mri.Mask.of(np.zeros(grid.shape, bool), grid),)))


def test_undo_gives_the_same_mask_again_and_replay_too(untrained):
    from napari_mri import tasks

    scan = head(GRIDS["anisotropic"])
    one = mri.Prompts((CLICK,))
    three = one.plus(mri.Point((4, -7, 55), False), mri.Point((20, -7, 11)))
    with mri.open_session(scan, model="click3d", device="cpu") as session:
        first = session.answer(one)
        last = session.answer(three)
        back = session.answer(one)
    np.testing.assert_array_equal(first.data, back.data)
    again = tasks.replay(last.history[-1], scan).result
    np.testing.assert_array_equal(last.data, again.data)
    at_once = mri.segment(scan, three, model="click3d", device="cpu")
    np.testing.assert_array_equal(last.data, at_once.data)


def test_undo_of_a_hundred_marks_takes_little_memory(untrained):
    import pickle

    scan = head(GRIDS["plain"])
    prompts = mri.Prompts((CLICK,))
    with mri.open_session(scan, model="click3d", device="cpu") as session:
        for n in range(40):
            prompts = prompts.plus(mri.Point((4 + n % 7, -7 + n % 5, 11 + n % 3)))
        session.answer(prompts)
        states = session._inner._states
        assert len(states) >= click3d.LEAST_STATES
        assert len(pickle.dumps([(state.known.bytes, state.shown.bytes) for state in states.values()])) < 1_000_000


def test_a_small_object_in_a_large_scan_is_looked_at_closely(untrained):
    grid = Grid.plain((150, 150, 150))
    index = np.indices(grid.shape).transpose(1, 2, 3, 0)
    small = np.linalg.norm(index - (40, 100, 60), axis=-1) < 8
    scan = Volume((20 + 200.0 * small).astype(np.float32), grid)
    with mri.open_session(scan, model="click3d", device="cpu") as session:
        mask = session.answer(mri.Prompts((mri.Point((40, 100, 60)),)))
        crop = next(iter(session._inner._states.values())).shown.grid
    assert dice(mask.data, small) > 0.7
    assert max(crop.spacing) < 0.8


def test_a_mark_far_away_makes_it_look_anew_but_keeps_a_mask_that_was_given():
    grid = Grid.plain((96, 96, 96))
    near, far = np.array([[30.0, 30, 30]]), np.array([[30.0, 30, 30], [80, 80, 80]])
    none, boxes = np.zeros((0, 3)), np.zeros((0, 2, 2, 2, 3))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[24:37, 24:37, 24:37] = True
    rounds = Rounds(grid, lambda crop: np.zeros(crop.shape, np.float32), 64)
    for drawn in (None, mask):
        asking, found = rounds.play(Pointed(near, none, boxes, drawn), None), None
        while True:
            try:
                found = share(mask, grid, asking.send(found).crop)
            except StopIteration as done:
                before = done.value
                break
        assert max(before.look.shape) * before.look.spacing[0] < 50
        again = next(rounds.play(Pointed(far, none, boxes, drawn), before))
        assert ((again.crop.to_voxels(far) >= 0) & (again.crop.to_voxels(far) < again.crop.shape)).all()
        if drawn is None:
            assert again.before is None
        else:
            assert again.before.sum() * np.prod(again.crop.spacing) > 0.5 * mask.sum()


def test_a_box_begins_with_what_its_brightness_tells():
    away = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0)
    truth = (away < 12) & (np.indices((40, 40, 40))[0] < 22)  # a ball cut in two: its box holds much else
    guess = np.clip(1.5 - away / 12, 0, 1).astype(np.float32)
    image = (3.0 * truth + np.random.default_rng(3).normal(0, 0.4, truth.shape)).astype(np.float32)
    sharper = told_apart(guess, image)
    assert dice(sharper > 0.5, truth) > dice(guess > 0.5, truth) + 0.1
    assert sharper[guess < 0.01].max() < 0.1
    assert np.array_equal(told_apart(guess, np.zeros_like(image)), guess)


def test_a_correction_reaches_as_far_as_it_is_from_the_outline_where_it_is_as_bright():
    image = np.full((40, 40, 40), 0.8, np.float32)
    image[:, :, 25:] = 0.2
    odds = np.full(image.shape, 4.0, np.float32)
    odds[20:] = -4.0  # the outline lies at 19.5
    mm = np.ones(3)
    far, near = leant(odds, image, np.array([13.0, 20, 20]), mm, -1.0), leant(odds, image, np.array([18.0, 20, 20]), mm, -1.0)
    for found, spot in ((far, 13), (near, 18)):
        assert found[spot, 20, 20] == pytest.approx(-MARGIN)
        assert np.array_equal(found[:, :, 32:], odds[:, :, 32:]) or abs(found[:, :, 32:] - odds[:, :, 32:]).max() < 0.2  # dark
    assert far[16, 20, 20] < 0 < near[13, 20, 20]  # seven voxels from the outline reach far, two do not
    assert near[2, 20, 20] > 3.9
    # Likewise for what is missing; and what is right already grows surer, not smaller.
    more = leant(odds, image, np.array([24.0, 20, 20]), mm, 1.0)
    assert more[24, 20, 20] == pytest.approx(MARGIN)
    assert more[39, 20, 20] < 0
    assert leant(odds, image, np.array([5.0, 20, 20]), mm, 1.0).min() >= odds.min()


@here
def test_a_click_far_from_a_named_structure_is_in_the_mask_and_states_stay_small():
    from napari_mri import phantom

    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -96, -115, -100
    scan, _ = phantom.head(Grid((128, 154, 134), affine))
    prompts = mri.Prompts((mri.Point((12.0, -18.0, 8.0)),))
    with mri.open_session(scan, model="click3d", device="cpu") as session:
        first = session.answer(prompts).data > 0
        named = session.taken_for
        assert named
        for spot in ((14.0, -18.0, 9.0), (13.0, -12.0, 8.0), (30.0, 40.0, 40.0)):
            prompts = prompts.plus(mri.Point(spot))
            last = session.answer(prompts).data > 0
        for mark in prompts:
            voxel = tuple(np.rint(scan.grid.to_voxels(np.array(mark.xyz))).astype(int))
            assert last[voxel]
        assert (last & ~first).sum() * scan.grid.voxel_ml < 15  # the far click brings what is near it, not half a head
        states = session._inner._states
        assert sum(s.size for s in states.values()) < 1_000_000
        # A shorter list is answered as before, however much was let go.
        states.clear()
        np.testing.assert_array_equal(session.answer(mri.Prompts(prompts.marks[:1])).data > 0, first)
        np.testing.assert_array_equal(session.answer(prompts).data > 0, last)


@here
def test_without_the_map_of_anatomy_the_answer_is_the_networks_own():
    from napari_mri import phantom

    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -96, -112, -100
    scan, labels = phantom.head(Grid((96, 112, 100), affine))
    value = int(np.unique(labels.data)[3])
    spot = np.argwhere(labels.data == value)[0]
    prompts = mri.Prompts((mri.Point(tuple(scan.grid.to_patient(spot))),))
    with (
        mri.open_session(scan, model="click3d", device="cpu") as session,
        mri.open_session(scan, model="click3d", device="cpu", anatomy=False) as bare,
    ):
        assert session._inner.anatomy is not None
        assert bare._inner.anatomy is None
        assert session.answer(prompts).data.shape == bare.answer(prompts).data.shape == scan.grid.shape
        sure, grid = session._inner.anatomy.names, session._inner.anatomy.grid
        assert sure.shape[1:] == grid.shape
        assert np.abs(sure.sum(axis=0, dtype=int) - 255).max() < 17  # rounding of 32 parts


@here
def test_a_real_brain_is_told_what_its_marks_were_taken_for(data_dir):
    scan = mri.load(data_dir / "head_t1_colin27" / "ch2.nii.gz")
    scan = mri.Volume(np.ascontiguousarray(scan.data[::2, ::2, ::2]), scan.grid.respaced(2 * np.asarray(scan.spacing)))
    left, right, front = (mri.Point(p) for p in ((-12.0, -18.0, 8.0), (12.0, -18.0, 8.0), (-25.0, 45.0, 15.0)))
    with mri.open_session(scan, model="click3d", device="cpu") as session:
        one = session.answer(mri.Prompts((left,)))
        assert session.taken_for == "thalamus, left"
        assert one.history[-1].facts["taken for"] == one.names[1] == "thalamus, left"
        both = session.answer(mri.Prompts((left, right)))
        assert session.taken_for == "thalamus, both sides"
        assert 3 < one.volume_ml() < 15
        assert 1.5 * one.volume_ml() < both.volume_ml() < 4 * one.volume_ml()
        whole = session.answer(mri.Prompts((left, front)))
        assert session.taken_for == "brain"
        assert whole.volume_ml() > 1000
        deep, edge = (mri.Point(p, False) for p in ((20.0, -10.0, 20.0), (-28.0, 58.0, 15.0)))
        less = session.answer(mri.Prompts((left, front, deep)))
        assert session.taken_for == "thalamus, left", "the middle of the brain is denied: so it was not the brain"
        assert less.volume_ml() < 100
        session.answer(mri.Prompts((left, front, edge)))
        assert session.taken_for == "brain"
        beside = mri.Point((-40.0, -18.0, 8.0), False)
        session.answer(mri.Prompts((left, beside, front)))
        assert session.taken_for == "thalamus, left", "who corrects does not mean something else"
        again = session.answer(mri.Prompts((left,)))
        assert session.taken_for == "thalamus, left"
        assert np.array_equal(one.data, again.data)
        session.answer(mri.Prompts((left, mri.Mask.of(one.data, one.grid))))
    with mri.open_session(scan, model="click3d", device="cpu", anatomy=False) as bare:
        bare.answer(mri.Prompts((left,)))
        assert bare.taken_for == ""


def test_refused_are_damaged_weights_and_marks_outside(untrained):
    from napari_mri.engine.runtime import forget_kept

    with pytest.raises(BadPrompt, match="outside the scan"):
        mri.segment(head(GRIDS["plain"]), mri.Prompts((mri.Point((900, 0, 0)),)), model="click3d", device="cpu")
    (untrained / "click3d.safetensors").write_bytes(b"not tensors")
    forget_kept()
    with pytest.raises(WeightsProblem):
        mri.segment(head(GRIDS["plain"]), mri.Prompts((CLICK,)), model="click3d", device="cpu")


def test_the_pyramid_sees_a_straight_ramp_everywhere():
    grid = GRIDS["oblique"]
    index = np.indices(grid.shape).astype(np.float32)
    ramp = index[0] + 2 * index[1] - index[2]
    seen = Pyramid(ramp, grid)
    for spacing in (3.0, 8.0, 13.0):
        target = crop_grid(grid, (8, 8, 8), (22, 22, 22), 2, 64, spacing)
        voxels = grid.to_voxels(target.to_patient(np.indices(target.shape).reshape(3, -1).T)).T
        expected = voxels[0] + 2 * voxels[1] - voxels[2]
        inner = ((voxels.T > 4) & (np.array(grid.shape) - 5 > voxels.T)).all(axis=1)
        assert inner.sum() > 10
        np.testing.assert_allclose(seen.view(target).ravel()[inner], expected[inner], atol=1e-2)


def test_carrying_a_map_agrees_with_general_resampling():
    from napari_mri.engine import fit

    grid = GRIDS["flipped"]
    values = np.random.default_rng(1).random(grid.shape).astype(np.float32)
    target = crop_grid(grid, (5, 6, 7), (20, 21, 22), 16, 64, 2.7)
    np.testing.assert_allclose(carried(values, grid, target), fit.resampled(values, grid, target, order=1), atol=1e-3)


@given(st.tuples(*[st.integers(-20, 20)] * 3), st.tuples(*[st.integers(1, 24)] * 3), st.booleans())
@settings(max_examples=80, deadline=None)
def test_where_voxels_lie_on_voxels_they_are_taken_as_they_are(low, shape, zero_outside):
    from napari_mri.models._click3d_zoom import straight

    grid = GRIDS["oblique"].cropped((0, 0, 0), (11, 8, 9))
    values = np.random.default_rng(3).random(grid.shape).astype(np.float32)
    target = grid.cropped(low, np.add(low, shape))
    found = straight(values, grid, target, zero_outside)
    assert found.shape == shape
    assert not np.shares_memory(found, values)
    index = np.meshgrid(*[np.arange(a, a + n) for a, n in zip(low, shape, strict=True)], indexing="ij")
    held = np.all([(i >= 0) & (i < n) for i, n in zip(index, values.shape, strict=True)], axis=0)
    expected = values[tuple(np.clip(i, 0, n - 1) for i, n in zip(index, values.shape, strict=True))]
    np.testing.assert_array_equal(found, expected * held if zero_outside else expected)


@here
def test_shipped_weights_are_small_and_find_a_toy_brain():
    paths = [weights.place(kind) for kind in (click3d.WEIGHTS, click3d.MENDER)]
    assert sum(path.stat().st_size for path in paths) <= 8_000_000
    assert all(path.with_suffix(".json").is_file() for path in paths)
    scan = head(GRIDS["plain"])
    mask = mri.segment(scan, mri.Prompts((CLICK, mri.Point((4, -7, 55), False))), model="click3d", device="cpu")
    assert dice(mask.data, blob(scan.grid, BRAIN, (40, 47, 37))) > 0.7


@here
def test_on_a_graphics_processor_the_same_marks_give_the_same_mask(monkeypatch):
    from napari_mri import phantom
    from napari_mri.engine import device

    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -96, -112, -100
    scan, labels = phantom.head(Grid((96, 112, 100), affine))
    asked = []
    for value in np.unique(labels.data)[1:7:2]:
        spot = scan.grid.to_patient(np.argwhere(labels.data == value)[10])
        one = mri.Prompts((mri.Point(tuple(spot)),))
        asked += [one, one.plus(mri.Point(tuple(spot + 6), False)), one.plus(mri.Point(tuple(spot + 6)), mri.Point(tuple(spot - 9)))]
    asked.append(mri.Prompts((mri.Box(tuple(spot - 20), tuple(spot + 15)),)))
    ball = scan.with_labels(blob(scan.grid, (0.0, 0.0, 0.0), (20, 20, 20)).astype(np.uint8))
    asked.append(mri.Prompts((mri.Mask.of(ball.data > 0, scan.grid), mri.Point((30.0, 0.0, 0.0)))))
    for anatomy in (True, False):
        with mri.open_session(scan, model="click3d", device="cpu", anatomy=anatomy) as session:
            plain = [session.answer(prompts).data > 0 for prompts in asked]
        with monkeypatch.context() as patch:
            patch.setattr(device, "choose", lambda _="auto": "cpu:0")  # tensors, as on any device but "cpu"
            with mri.open_session(scan, model="click3d", device="cpu", anatomy=anatomy) as session:
                assert isinstance(session._inner.pyramid.levels[0][0], torch.Tensor)
                there = [session.answer(prompts).data > 0 for prompts in asked]
                session._inner._warmed()  # leaves nothing behind
                np.testing.assert_array_equal(session.answer(asked[0]).data > 0, there[0])
        assert min(dice(a, b) for a, b in zip(plain, there, strict=True)) > 0.995


def test_what_leans_is_the_same_as_a_tensor():
    rng = np.random.default_rng(0)
    odds, image = (rng.normal(size=(30, 31, 32)).astype(np.float32) for _ in range(2))
    for spot, sign in ((np.array([3.0, 4, 5]), 1.0), (np.array([29.0, 15, 16]), -1.0)):
        plain = leant(odds, image, spot, np.array([1.0, 1.5, 2.0]), sign)
        there = leant(torch.from_numpy(odds), torch.from_numpy(image), spot, np.array([1.0, 1.5, 2.0]), sign)
        np.testing.assert_allclose(there.numpy(), plain, atol=1e-4)
    all_wrong = np.full((9, 9, 9), -1, np.float32)
    plain = leant(all_wrong, all_wrong, np.full(3, 4.0), np.ones(3), 1.0)
    np.testing.assert_allclose(leant(*[torch.from_numpy(all_wrong)] * 2, np.full(3, 4.0), np.ones(3), 1.0).numpy(), plain, atol=1e-5)


def test_a_window_holds_a_small_object_or_what_is_around_the_newest_marks():
    grid = Grid.plain((120, 100, 90), (1.5, 1.5, 1.5))
    found = np.zeros(grid.shape, np.float32)
    found[40:60, 30:50, 20:45] = 1
    none = np.zeros((0, 3))
    at = lambda *voxels: Pointed(grid.to_patient(np.array(voxels, float).reshape(-1, 3)), none, np.zeros((0, 2, 2, 2, 3)))  # noqa: E731
    for told, side in ((at(), WINDOW), (at((50, 40, 30)), WINDOW), (at((62, 40, 30)), WINDOW), (at((80, 40, 30)), WIDE)):
        window = window_of(Answer(found, grid), told)
        assert window.whole
        assert window.side == side
        assert (window.start <= [40, 30, 20]).all()
        assert (window.start + window.side >= [60, 50, 45]).all()
    found[5:110] = 1
    assert window_of(Answer(found, grid), at()) is None
    for spot in ((12, 40, 30), (60, 10, 80), (108, 99, 89)):
        window = window_of(Answer(found, grid), at(spot))
        assert (window.whole, window.side) == (False, WINDOW)
        assert (window.start + 3 <= spot).all()
        assert (window.start + WINDOW - 3 > spot).all()
    assert window_of(Answer(np.zeros_like(found), grid), at()) is None


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-60, 60)] * 3), st.sampled_from((WINDOW, WIDE)), st.integers(0, 9))
def test_a_better_answer_is_laid_over_another_wherever_its_window_lies(start, side, seed):
    rng = np.random.default_rng(seed)
    look = Grid.plain((30, 60, 44), (1.5, 1.5, 1.5))
    known = Answer(rng.random(look.shape, dtype=np.float32), look)
    window = Window(np.array(start), side, True)
    kept = window.of(known)
    np.testing.assert_allclose(carried(known.found, look, kept.look), kept.found, atol=1e-6)
    np.testing.assert_allclose(bettered(known, kept.found, window).found.sum(), known.found.sum(), rtol=1e-5)
    better = np.ones((side,) * 3, np.float32)
    for answer in (known, Answer(torch.from_numpy(known.found), look)):
        after = bettered(answer, better if answer is known else torch.from_numpy(better), window)
        found = np.asarray(after.found)
        middle = np.rint(after.look.to_voxels(look.to_patient(window.start + side // 2))).astype(int)
        assert found[tuple(middle)] == 1
        back = carried(found, after.look, look)
        off = np.indices(look.shape).T - window.start
        beyond = ((off < 0) | (off >= side)).any(axis=-1).T
        np.testing.assert_allclose(back[beyond], known.found[beyond], atol=1e-6)
        assert (back >= known.found - 1e-6).all()


def test_how_deep_marks_lie_in_an_answer():
    look = Grid.plain((40, 40, 40), (1.0, 2.0, 1.5))
    found = np.zeros(look.shape, np.float32)
    found[10:30, 5:35, 10:30] = 0.9
    for answer in (Answer(found, look), Answer(torch.from_numpy(found), look)):
        assert deep_in(answer, look.to_patient([[20.0, 20, 12]])) == pytest.approx(4.5)
        assert deep_in(answer, look.to_patient([[20.0, 20, 12], [13, 20, 20], [2, 2, 2]])) == pytest.approx(4.5)
        assert deep_in(answer, look.to_patient([[2.0, 2, 2]])) == 0
        assert deep_in(answer, np.zeros((0, 3))) == 0


def test_before_any_training_a_mender_leaves_an_answer_as_it_is():
    from napari_mri.nets.click3d import COARSE, MENDED, Mender, from_state

    torch.manual_seed(0)
    fine, coarse = torch.randn(2, MENDED, 16, 16, 16), torch.randn(2, COARSE, 8, 8, 8)
    fine[:, 1] = torch.rand(2, 16, 16, 16) * 2 - 1
    net = from_state(Mender((8, 16), (1, 1)).state_dict(), Mender)
    found = torch.sigmoid(net(fine, coarse)[:, 0])
    assert float((found - (fine[:, 1] + 1) / 2).abs().max()) < 0.05
    assert bool(((found > 0.5) == (fine[:, 1] > 0)).all())
