"""Gradients flow through the blocks of the U-Net."""

import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets.unet import Block  # noqa: E402


def test_gradients_flow_as_before():
    torch.manual_seed(1)
    block = Block(4, 4)
    image = torch.randn(1, 4, 6, 6, 6, requires_grad=True)
    block(image).square().sum().backward()
    assert image.grad.abs().max() > 0
    assert block.conv.weight.grad.abs().max() > 0
