"""The slice network: scales with its input, blind to a constant, rebuilt from its tensors."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from napari_mri.nets.superres import (  # noqa: E402
    FACTS,
    PARTS,
    Informed,
    SliceNet,
    as_product,
    facts,
    from_state,
    turned,
    turned_back,
)


def net() -> SliceNet:
    torch.manual_seed(3)
    made = SliceNet(16, 2)
    for kernel in made.parameters():  # as if trained: nothing is left at zero
        torch.nn.init.normal_(kernel, std=0.05)
    return made.eval()


def told() -> torch.Tensor:
    return torch.tensor([facts(4.0, 4.0, False)])


def test_shape_and_facts():
    assert net()(torch.randn(1, 1, 5, 12, 14), told()).shape == (1, PARTS, 5, 12, 14)
    assert len(facts(1.5, 12.0, True)) == FACTS
    assert facts(8.0, 8.0, False) != facts(8.0, 8.0, True)


@torch.no_grad()
def test_brighter_in_brighter_out_and_a_constant_is_not_seen():
    x = torch.randn(1, 1, 5, 12, 14)
    answer = net()(x, told())
    assert answer.abs().max() > 1e-4
    assert torch.allclose(net()(3 * x, told()), 3 * answer, atol=1e-4)
    assert torch.allclose(net()(x + 10, told()), answer, atol=1e-3)


@torch.no_grad()
def test_what_it_is_told_matters():
    x = torch.randn(1, 1, 5, 12, 14)
    other = torch.tensor([facts(2.0, 3.0, True)])
    assert not torch.allclose(net()(x, told()), net()(x, other), atol=1e-3)


@torch.no_grad()
def test_it_is_rebuilt_from_its_tensors():
    again = from_state(net().state_dict())
    assert (again.width, again.depth) == (16, 2)
    x = torch.randn(1, 1, 5, 12, 14)
    assert torch.equal(again(x, told()), net()(x, told()))


def test_an_untrained_net_adds_nothing():
    assert SliceNet(16, 1)(torch.randn(1, 1, 4, 8, 8), told()).abs().max() == 0


@torch.no_grad()
def test_the_first_layer_of_a_gpu_is_the_same_convolution():
    x, kernel = torch.randn(2, 4, 7, 8, 9), torch.randn(6, 4, 3, 3, 3)
    assert torch.allclose(as_product(x, kernel), torch.nn.functional.conv3d(x, kernel), atol=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_turned_and_back_is_what_it_was(number):
    stack = torch.randn(3, 4, 5)
    parts = turned(stack, number).expand(PARTS, *turned(stack, number).shape)
    assert torch.equal(turned_back(parts, number)[0], stack)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_on_a_gpu_no_tensor_of_another_device_comes_in():
    known = facts(4.0, 4.0, False)
    with FakeTensorMode(allow_non_fake_inputs=False), torch.device("cuda"):
        informed = Informed(SliceNet(16, 1), known, True)
        found = informed(torch.ones(1, 1, 5, 12, 14, device="cuda"))
    assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.float32, (1, PARTS, 5, 12, 14))
