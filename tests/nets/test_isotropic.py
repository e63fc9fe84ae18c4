"""The halving network: scales with scan and noise together, knows its noise, rebuilt from its tensors."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets.isotropic import Halved, HalvingNet, from_state  # noqa: E402

SIZE = (8, 16, 2, 2, 2)


def net() -> HalvingNet:
    torch.manual_seed(3)
    made = HalvingNet(*SIZE)
    for kernel in made.parameters():  # as if trained: nothing is left at zero
        torch.nn.init.normal_(kernel, std=0.05)
    return made.eval()


def level(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value)


@torch.no_grad()
def test_eight_halves_a_voxel_that_scale_with_scan_and_noise():
    x = torch.rand(1, 1, 9, 12, 10)
    answer = net()(x, level(0.05))
    assert answer.shape == (1, 8, 9, 12, 10)
    assert answer.abs().max() > 1e-4
    assert torch.allclose(net()(3 * x, level(0.15)), 3 * answer, atol=1e-4)


@torch.no_grad()
def test_what_it_is_told_of_the_noise_matters_and_may_be_a_map():
    x = torch.rand(1, 1, 9, 12, 10)
    assert not torch.allclose(net()(x, level(0.0)), net()(x, level(0.05)), atol=1e-4)
    assert torch.equal(net()(x, level(0.05).expand_as(x)), net()(x, level(0.05)))
    pair = torch.cat([x, torch.full_like(x, 0.05)], 1)
    assert torch.allclose(Halved(net())(pair), net()(x, level(0.05)), atol=1e-6)


@torch.no_grad()
def test_it_is_rebuilt_from_its_tensors():
    again = from_state(net().state_dict())
    assert again.size == SIZE
    x = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(again(x, level(0.02)), net()(x, level(0.02)))


def test_an_untrained_net_adds_nothing():
    assert HalvingNet(*SIZE)(torch.rand(1, 1, 8, 8, 8), level(0.01)).abs().max() == 0
