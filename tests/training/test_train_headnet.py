"""The training of the network of heads: its batches, the state it begins from, and a run from first to last."""

import json

import numpy as np
import pytest

pytest.importorskip("edt")
torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from napari_mri.nets.anatomy import BEYOND, NAMES, HeadNet  # noqa: E402
from napari_mri.nets.unet import fold  # noqa: E402
from tests.training.test_synth import ball_head  # noqa: E402
from training import train_headnet  # noqa: E402
from training.head_tasks import UNKNOWN  # noqa: E402
from training.synth import build_head  # noqa: E402
from training.train_headnet import STEPS, Examples, changed, grown, lesson, main  # noqa: E402


@pytest.fixture(scope="module")
def head():
    return build_head(ball_head(), "ball")


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr(train_headnet, "SPACING", (6.0, 6.0))


def test_some_voxels_of_each_block_are_answered_as_in_the_whole():
    torch.manual_seed(3)
    net = HeadNet((8, 16), (0, 1), 8).eval()
    with torch.no_grad():
        features = net.features(torch.randn(1, 1, 32, 16, 16))
        whole = fold(net.named(features)).reshape(1, len(NAMES) + 1, 8, 16, 8, 8)
        parts = torch.tensor([5, 2])
        some = net.some(features, parts)
    assert some.shape == (1, len(NAMES) + 1, 2, 16, 8, 8)
    assert torch.allclose(some, whole[:, :, parts], atol=1e-5)


def test_a_grown_network_answers_as_the_smaller_one():
    torch.manual_seed(4)
    small = HeadNet((16, 24, 32), (0, 1, 1), 24).eval()
    with torch.no_grad():
        for value in small.parameters():
            value.add_(0.1 * torch.randn_like(value))
    large = HeadNet((24, 40, 48), (1, 1, 2), 32).eval()
    large.load_state_dict(grown(small.state_dict(), large))
    image = torch.rand(1, 1, 32, 16, 24)
    with torch.no_grad():
        before, after = small.features(image), large.features(image)
        assert torch.allclose(small.surfaces(before), large.surfaces(after), atol=1e-4)
        assert torch.allclose(small.named(before), large.named(after), atol=1e-4)
    # All of it can learn: nothing new is fed by nothing.
    after = large.features(image)
    (large.surfaces(after).square().mean() + large.named(after).square().mean()).backward()
    assert all(p.grad is not None for p in large.parameters())
    assert large.down[0][0].norm.weight.grad.abs().max() > 0


def test_batches_follow_from_their_number(head, coarse):
    make = Examples([head], seed=1, batch=4, looks=2)
    image, far, kinds, sides, seen = batch = make(7)
    shape = image.shape[2:]
    assert all(n % 16 == 0 for n in shape)
    assert [tuple(part.shape) for part in batch] == [(4, 1, *shape), (4, 2, *shape), *[(4, *shape)] * 2, (4, 1, *shape)]
    assert [part.dtype for part in batch] == [torch.float16, *[torch.int8] * 3, torch.bool]
    assert int(far.abs().max()) <= 6 * STEPS
    assert all(torch.equal(one, other) for one, other in zip(batch, make(7), strict=True))
    assert not torch.equal(make(8)[0], image) if make(8)[0].shape == image.shape else True
    # One pose is painted twice: the brain stands where it stood, and looks different.
    both = seen[0, 0] & seen[1, 0]
    assert torch.equal(kinds[0][both], kinds[1][both])
    assert not torch.equal(image[0], image[1])
    assert set(sides.unique().tolist()) <= {UNKNOWN, 0, 1}


def test_a_batch_shown_again_is_mirrored_and_its_sides_are_swapped(head, coarse):
    batch = Examples([head], seed=1, batch=2, looks=1)(3)
    image, far, kinds, sides, seen = again = changed(batch, torch.Generator().manual_seed(0))
    assert [(part.shape, part.dtype) for part in again] == [(part.shape, part.dtype) for part in batch]
    for now, before in ((far, batch[1]), (kinds, batch[2]), (seen, batch[4])):
        assert torch.equal(now, before.flip(-3))
    before = batch[3].flip(-3)
    assert torch.equal(sides == UNKNOWN, before == UNKNOWN)
    known = sides != UNKNOWN
    assert torch.equal(sides[known], 1 - before[known])
    assert not torch.equal(image, batch[0].flip(-3))
    assert 0 <= float(image.min()) < float(image.max()) <= 1.5


def test_names_alone_are_learned_where_that_is_asked_for(head, coarse):
    batch = Examples([head], seed=1, batch=2, looks=1)(3)
    for only in (True, False):
        net = HeadNet((8, 16), (0, 1), 8)
        lesson(net, batch, torch.tensor([0, 7]), False, only_names=only).backward()
        learned = {name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None}
        assert ({"tell", "names"} == learned) is only, learned
        assert {"tell", "names"} <= learned


@pytest.mark.slow
def test_training_runs_goes_on_and_exports(tmp_path, coarse):
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("01", "16"):
        image = nibabel.Nifti1Image(ball_head().astype(np.int16), np.eye(4))
        nibabel.save(image, maps / f"training_seg_{name}.nii.gz")
    common = ["--maps", str(maps), "--cache", str(tmp_path / "cache"), "--device", "cpu", "--looks", "1", "--batch", "1"]
    main([*common, "--minutes", "0.02"])
    first = torch.load(tmp_path / "cache" / "headnet" / "last.pt", weights_only=True)
    main([*common, "--minutes", "0.1", "--export", str(tmp_path / "out")])
    second = torch.load(tmp_path / "cache" / "headnet" / "last.pt", weights_only=True)
    assert second["step"] > first["step"] > 0, "it went on and did not begin anew"
    from safetensors.torch import load_file

    state = load_file(tmp_path / "out" / "headnet.safetensors")
    assert state[BEYOND].shape == (len(NAMES) + 1, 2, 2)
    card = json.loads((tmp_path / "out" / "headnet.json").read_text())
    assert card["steps"] == second["step"]
    assert {"structures", "side", "inner skull", "brain", "error_mm", *NAMES} <= card["validation"].keys()
