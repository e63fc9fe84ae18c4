"""Lessons for the network that mends: a user who corrects, what is kept of a session, and what the loss asks for."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("edt")
torch = pytest.importorskip("torch")
from napari_mri.core.grid import Grid  # noqa: E402
from napari_mri.core.volume import Volume  # noqa: E402
from napari_mri.engine.runtime import LocalRuntime  # noqa: E402
from napari_mri.models._click3d_mend import WINDOW  # noqa: E402
from napari_mri.nets.click3d import COARSE, MENDED, Click3D, Mender  # noqa: E402
from training.click_sessions import Lesson, Watched, play, structures, wrong  # noqa: E402
from training.synth import Recipe, build_head, make_sample  # noqa: E402
from training.train_mender import begun, loss_of, packed, unpacked  # noqa: E402

MAPS = Path(os.environ.get("NAPARI_MRI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def lesson(box: bool = False) -> Lesson:
    gen = torch.Generator().manual_seed(0)
    truth = torch.zeros(WINDOW, WINDOW, WINDOW)
    truth[4:20, 10:30, 12:40] = 1
    image = truth + 0.1 * torch.randn(truth.shape, generator=gen)
    marks = torch.tensor([[6.0, 20, 20], [15, 25, 30]]), torch.tensor([[40.0, 20, 20]])
    ends = torch.tensor([[4.0, 10, 12], [19, 29, 39]]) if box else None
    return Lesson(
        image.half(), (truth.roll(2, 0) * 255).to(torch.uint8), (truth * 100).to(torch.int8), truth.half(), *marks, ends, 1.5
    )


@pytest.mark.parametrize("box", [False, True])
def test_a_lesson_may_be_mirrored_and_marks_go_with_it(box):
    one = unpacked(packed(lesson(box)))
    seen = set()
    for seed in range(12):
        fine, coarse, truth = one.inputs(torch.Generator().manual_seed(seed))
        assert fine.shape == (MENDED, WINDOW, WINDOW, WINDOW)
        assert coarse.shape == (COARSE, *(WINDOW // 2,) * 3)
        mirrored = bool(truth[WINDOW - 10, 20, 20])
        seen.add(mirrored)
        at = torch.tensor([WINDOW - 1 - 6 if mirrored else 6, 20, 20])
        assert float(truth[tuple(at)]) == 1
        assert float(coarse[0][tuple(at // 2)]) > 0.8, "the mark lies where the object does"
        assert torch.equal(fine[-1] > 0, truth > 0)
        if box:
            assert float(coarse[4][tuple(at // 2)]) == 1
            assert float(coarse[4].mean()) < 0.2
    assert seen == {True, False}


def test_the_user_points_at_an_error_and_says_what_it_is():
    truth = np.zeros((40, 40, 40), bool)
    truth[5:15, 5:35, 5:35] = True
    for found, positive in ((np.zeros_like(truth), True), (np.ones_like(truth), False)):
        for seed in range(20):
            spot, sign = wrong(truth, found, random.Random(seed))
            assert sign is positive
            assert truth[tuple(spot)] is np.bool_(positive)
    assert wrong(truth, truth, random.Random(0)) is None
    assert wrong(np.zeros_like(truth), np.zeros_like(truth), random.Random(0)) is None


def test_what_was_taken_for_large_weighs_no_more_than_what_is_large():
    truth, before = torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 16, 16, 16)
    truth[..., 7:9, 7:9, 7:9] = 1
    before[..., 2:14, 2:14, 2:14] = 1
    sure = 8 * (before * 2 - 1)
    assert float(loss_of(sure, truth, before)) < 8
    assert float(loss_of(sure, truth, truth)) > 20, "measured against the truth alone, it would"
    assert float(loss_of(8 * (truth * 2 - 1), truth, before)) < 0.1


def test_a_mender_begins_with_the_click_networks_levels_and_changes_nothing(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    click, net = Click3D(), Mender()
    save_file({k: v.contiguous() for k, v in click.state_dict().items()}, tmp_path / "click3d.safetensors")
    begun(net, tmp_path / "click3d.safetensors")
    assert torch.equal(net.down[0][0].conv.weight, click.down[0][0].conv.weight)
    fine, coarse = torch.rand(1, MENDED, 16, 16, 16) * 2 - 1, torch.rand(1, COARSE, 8, 8, 8)
    known = net.features(fine, coarse)[0]
    fine[:, -1] = 0  # what the click network was not told of
    assert torch.equal(net.features(fine, coarse)[0], known)
    assert bool(((net(fine, coarse) > 0) == (fine[:, 1:2] > 0)).all())


def test_a_session_on_a_painted_head_is_kept_as_lessons():
    files = sorted((MAPS / "synthseg_label_maps").glob("*.nii.gz"))
    if not files:
        pytest.skip("the label maps are not here")
    import nibabel

    head = build_head(np.asarray(nibabel.as_closest_canonical(nibabel.load(files[0])).dataobj), "one")
    recipe = Recipe(stripped=0, defaced=0, cavities=0, cropped=0, dropout=0, lesions=0)
    sample = make_sample(head, recipe, 3, (2.0, 2.0, 2.0), ((96, 112, 96), 2.0))
    labels = sample.labels.numpy()
    session = Watched(Volume(sample.image.numpy(), Grid.plain(labels.shape, (2.0,) * 3)), LocalRuntime("cpu"), random.Random(1))
    assert session.anatomy is not None
    every = [truth for _, truth in structures(labels, head, 2.0) if truth.sum() * 0.008 > 3]
    assert len(every) > 10
    with torch.inference_mode():
        for truth in every[3:7]:
            play(session, truth, random.Random(int(truth.sum())))
    assert len(session.lessons) >= 4
    for one in session.lessons:
        assert one.image.shape == one.truth.shape == (WINDOW,) * 3
        inside = one.inside.round().long()
        held = ((inside >= 0) & (inside < WINDOW)).all(dim=1)
        assert all(float(one.truth[tuple(spot)]) > 0 for spot in inside[held])
