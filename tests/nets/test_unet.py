"""The quick convolution gives torch's own numbers, and steps aside where gradients are wanted."""

import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets.unet import Block, Conv3d  # noqa: E402


@pytest.mark.parametrize(("ins", "outs", "edge", "stride"), [(1, 3, 5, 1), (16, 16, 32, 1), (8, 24, 7, 2), (32, 8, 9, 1)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_quick_convolution_is_torchs_own(ins, outs, edge, stride, kernel, bias):
    torch.manual_seed(ins)
    quick = Conv3d(ins, outs, kernel, stride=stride, padding=kernel // 2, bias=bias)
    plain = torch.nn.Conv3d(ins, outs, kernel, stride=stride, padding=kernel // 2, bias=bias)
    plain.load_state_dict(quick.state_dict())
    image = torch.randn(2 if edge < 9 else 1, ins, edge, edge + 1, edge + 2)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        with torch.inference_mode():
            found = quick(image.contiguous(memory_format=layout))
            assert torch.allclose(found, plain(image), atol=2e-5)


def test_gradients_flow_as_before():
    torch.manual_seed(1)
    block = Block(4, 4)
    image = torch.randn(1, 4, 6, 6, 6, requires_grad=True)
    block(image).square().sum().backward()
    assert image.grad.abs().max() > 0
    assert block.conv.weight.grad.abs().max() > 0
