"""The network of heads: one look gives distances and names, the same by numpy and by torch, mirrored or moved."""

import numpy as np
import pytest

from napari_mri.core.errors import WeightsProblem
from napari_mri.engine import weights
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.models import _headnet
from napari_mri.models._headnet import (
    HEADNET,
    Look,
    OnDevice,
    WithArrays,
    by_numpy,
    by_torch,
    looks_at,
    names_of,
    naming,
)

torch = pytest.importorskip("torch")
from napari_mri.nets.anatomy import NAMES, HeadNet  # noqa: E402

BOX = (slice(5, 20), slice(3, 22), slice(0, 17))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HeadNet((8, 16, 16, 16), (0, 1, 0, 1), 8).eval().requires_grad_(False)


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 1, (25, 30, 18)).astype(np.float32)


def plain(net):
    from napari_mri.nets.unet_numpy import HeadNet as Net

    return Net({name: value.numpy() for name, value in net.state_dict().items()})


def test_by_numpy_and_by_torch_it_is_the_same_network(net, image):
    rt = LocalRuntime("cpu")
    ways = [looks_at(way, image, 4, rt) for way in (plain(net), WithArrays(net))]
    ways.append(looks_at(OnDevice(net), torch.from_numpy(image), 4, rt))
    wanted = [look.surfaces() for look in ways[0]]
    for looks in ways:
        assert [(look.mirrored, look.moved) for look in looks] == [(False, 0), (True, 0), (False, 1), (True, 1)]
        for look, want in zip(looks, wanted, strict=True):
            assert look.surfaces().shape == (2, *image.shape)
            np.testing.assert_allclose(look.surfaces(), want, atol=1e-4)
        with torch.inference_mode():
            names = names_of(looks, BOX)
        assert names.shape == (len(NAMES), 15, 19, 17)
        np.testing.assert_allclose(names, names_of(ways[0], BOX), atol=1e-4)


@pytest.mark.parametrize(("mirrored", "moved"), [(False, 0), (True, 0), (False, 1), (True, 1)])
def test_a_box_is_named_as_in_the_whole(net, image, mirrored, moved):
    look = Look.at(plain(net), image, mirrored, moved)
    whole = look.named(tuple(slice(0, n) for n in image.shape))
    # But for the last digit: products of other widths are summed in another order.
    np.testing.assert_allclose(look.named(BOX), whole[(slice(None), *BOX)], rtol=0, atol=1e-5)
    # The mirror image, or one more voxel of background before it, is what the network was shown.
    shown = np.pad(image[::-1] if mirrored else image, [(moved, 0)] * 3)
    bare = Look.at(plain(net), shown).surfaces()[(slice(None), *[slice(moved, None)] * 3)]
    np.testing.assert_array_equal(look.surfaces(), bare[:, ::-1] if mirrored else bare)


@pytest.mark.parametrize("tensors", [False, True])
def test_distances_are_brought_down_by_what_they_lie_too_high(tensors):
    heights = np.broadcast_to(np.arange(16, dtype=np.float32), (2, 16, 16, 16))

    class Rising:
        def features(self, image):
            return None

        def surfaces(self, features):
            return torch.from_numpy(heights.copy()) if tensors else heights.copy()

    image = np.zeros((12, 14, 15), np.float32)
    found = Look.at(Rising(), torch.from_numpy(image) if tensors else image, mirrored=True).surfaces()
    assert found.shape == (2, 12, 14, 15)
    # What is at height z is said of a place a quarter of a voxel above it.
    assert np.allclose(found[..., 1:], heights[:, :12, :14, 1:15] - 0.25)


def test_weights_that_do_not_fit_are_told(net, tmp_path):
    from safetensors.torch import save_file

    sound = dict(net.state_dict())
    for number, wrong in enumerate(({"names.bias": torch.zeros(7)}, {"up.0.norm.bias": None}, {"stem.conv.weight": None})):
        file = tmp_path / f"{number}.safetensors"
        save_file({name: value for name, value in (sound | wrong).items() if value is not None}, file)
        for load in (by_numpy, lambda path: by_torch(path, "cpu")):
            with pytest.raises(WeightsProblem, match="does not fit"):
                load(file)


@pytest.mark.skipif(not weights.is_there(HEADNET), reason="the weights are not here")
def test_the_shipped_weights_are_those_the_code_names_and_tell_how_far_structures_reach():
    path, _ = weights.checked(HEADNET)
    assert path.stat().st_size == HEADNET.size
    _, key = by_torch(path, "cpu")
    assert key.titles == NAMES
    assert key.beyond is not None
    assert key.beyond.shape == (len(NAMES) + 1, 2, 2)
    ask, _ = naming(LocalRuntime("cpu"))
    assert ask(np.zeros((16, 32, 16), np.float32)).shape == (len(NAMES) + 1, 16, 32, 16)


def test_no_tensor_of_another_device_is_met_on_a_graphics_processor(net, image):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=False), torch.device("cuda"):
        there = HeadNet((8, 16, 16, 16), (0, 1, 0, 1), 8).eval().requires_grad_(False)
        looks = looks_at(OnDevice(there), torch.rand(image.shape, device="cuda"), 2, LocalRuntime("cpu"))
        with torch.inference_mode():
            found = [look.surfaces() for look in looks] + [names_of(looks, BOX)]
    assert {part.device.type for part in found} == {"cuda"}
    assert {part.dtype for part in found} == {torch.float32}


def test_arrays_are_looked_at_without_torch_only_in_a_process_without_it(monkeypatch):
    import sys

    from napari_mri.nets.unet_numpy import HeadNet as Net

    assert isinstance(_headnet.network(LocalRuntime("cpu")), WithArrays)
    monkeypatch.delitem(sys.modules, "torch")
    assert isinstance(_headnet.network(LocalRuntime("cpu")), Net)
