"""The quick convolutions give torch's own numbers, and step aside where gradients are wanted."""

from __future__ import annotations

from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from napari_mri.nets import convolution  # noqa: E402
from napari_mri.nets.convolution import Conv3d, by_planes  # noqa: E402
from napari_mri.nets.denoiser import Denoiser, Told  # noqa: E402
from napari_mri.nets.superres import Informed, SliceNet, facts  # noqa: E402
from napari_mri.nets.unet import FoldedUNet  # noqa: E402


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


@settings(deadline=None)
@given(
    batch=st.integers(1, 2),
    ins=st.integers(1, 5),
    outs=st.integers(1, 5),
    shape=st.tuples(*[st.integers(3, 9)] * 3),
    kind=st.sampled_from([(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (3, 1, 0)]),
    bias=st.booleans(),
    at_once=st.sampled_from([1, 1000, 1 << 27]),
)
def test_planes_are_as_good_as_the_volume(batch, ins, outs, shape, kind, bias, at_once):
    side, stride, rim = kind
    torch.manual_seed(ins + outs)
    x, kernel = torch.randn(batch, ins, *shape), torch.randn(outs, ins, side, side, side)
    add = torch.randn(outs) if bias else None
    with patch.object(convolution, "AT_ONCE", at_once):
        found = by_planes(x, kernel, add, (stride, rim))
    torch.testing.assert_close(found, torch.nn.functional.conv3d(x, kernel, add, stride, rim), atol=1e-4, rtol=1e-4)


def test_bfloat16_is_used_where_it_is_asked_for():
    conv = Conv3d(8, 8, 3, padding=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 8, 4, 4, 4)).dtype == torch.bfloat16


class Convolutions(TorchDispatchMode):
    """Notes how many axes each convolution has."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in str(func):
            self.axes.append(args[0].ndim - 2)
        return func(*args, **(kwargs or {}))


KNOWN = facts(4.0, 4.0, False)
NETS = {
    "super-resolution": (lambda: Informed(SliceNet(16, 2), KNOWN), (1, 1, 6, 12, 14)),
    "denoiser": (lambda: Told(Denoiser((8, 16), (1, 1)), True), (1, 2, 16, 16, 16)),
    "head": (lambda: FoldedUNet(widths=(8, 16), depths=(1, 1)).features, (1, 1, 16, 16, 16)),
}


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_gpu_is_asked_for_pictures_unless_it_learns(name, learns):
    make, shape = NETS[name]
    with FakeTensorMode(), torch.device("cuda"), torch.set_grad_enabled(learns), Convolutions() as convolutions:
        answer = make()(torch.empty(shape))
    assert answer.device.type == "cuda"
    assert len(convolutions.axes) > 4
    assert set(convolutions.axes) == ({3} if learns else {2})
