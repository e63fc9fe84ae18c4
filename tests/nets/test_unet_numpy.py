"""The network without torch answers as the network with it."""

import subprocess
import sys

import numpy as np
import pytest

from napari_mri.nets.unet_numpy import FoldedUNet

torch = pytest.importorskip("torch")
from napari_mri.nets import unet  # noqa: E402


@pytest.mark.parametrize(("widths", "depths"), [((24, 48, 96, 128), (0, 1, 1, 1)), ((8, 16), (2, 1)), ((16,), (0,))])
def test_it_answers_as_torch_does(widths, depths):
    torch.manual_seed(1)
    net = unet.FoldedUNet(1, 2, widths, depths).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn_like(value) * (0.2 if value.ndim > 1 else 1.0))
    image = np.random.default_rng(2).normal(2, 3, (32, 16, 48)).astype(np.float32)
    with torch.inference_mode():
        want = net(torch.from_numpy(image)[None, None])[0].numpy()
    bare = FoldedUNet({name: value.numpy() for name, value in net.state_dict().items()})
    assert bare.multiple == net.multiple
    np.testing.assert_allclose(bare(image), want, atol=2e-4 * np.abs(want).max())


def test_the_network_of_anatomy_answers_as_with_torch_too():
    from napari_mri.nets.anatomy import Anatomy as Net
    from napari_mri.nets.unet_numpy import Anatomy

    torch.manual_seed(3)
    net = Net().eval()
    image = np.random.default_rng(2).uniform(0, 1, (32, 16, 48)).astype(np.float32)
    with torch.inference_mode():
        want = net(torch.from_numpy(image)[None, None])[0].numpy()
    found = Anatomy({name: value.numpy() for name, value in net.state_dict().items()})(image)
    np.testing.assert_allclose(found, want, atol=2e-4 * np.abs(want).max())


def test_skull_stripping_does_not_load_torch():
    code = (
        "import sys, napari_mri as mri\n"
        "from napari_mri.phantom import head\n"
        "from napari_mri.core.grid import Grid\n"
        "scan, labels = head(Grid.plain((48, 56, 48), (4.0, 4.0, 4.0)))\n"
        "mask = mri.skullstrip(scan, device='cpu')\n"
        "assert mask.history[-1].order.model == 'skullnet', mask.history\n"
        "assert 'torch' not in sys.modules\n"
        "print(int(mask.data.sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 1000
