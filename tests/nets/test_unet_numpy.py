"""The network without torch answers as the network with it."""

import subprocess
import sys

import numpy as np
import pytest

from napari_mri.nets.unet_numpy import HeadNet, shapes, structure_of

torch = pytest.importorskip("torch")
from napari_mri.nets import anatomy  # noqa: E402


@pytest.mark.parametrize(
    ("widths", "depths", "wide"),
    [((32, 64, 112, 128), (1, 1, 2, 2), 40), ((24, 48, 96, 128), (0, 1, 1, 1), 32), ((8, 16), (2, 1), 8), ((16,), (0,), 16)],
)
def test_it_answers_as_torch_does(widths, depths, wide):
    torch.manual_seed(1)
    net = anatomy.HeadNet(widths, depths, wide).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn_like(value) * (0.2 if value.ndim > 1 else 1.0))
    image = np.random.default_rng(2).normal(2, 3, (32, 16, 48)).astype(np.float32)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    bare = HeadNet(state)
    assert (bare.widths, bare.depths, structure_of(state)[2]) == (widths, depths, wide)
    assert shapes(widths, depths, wide, 8 * net.outs) == {name: value.shape for name, value in state.items()}
    found = bare.features(image)
    before = found.copy()
    part = (slice(3, 9), slice(0, 8), slice(5, 6))
    with torch.inference_mode():
        features = net.features(torch.from_numpy(image)[None, None])
        want = [net.surfaces(features), net.named(features), net.named(features, part)]
    for got, right in zip((bare.surfaces(found), bare.named(found), bare.named(found, part)), want, strict=True):
        np.testing.assert_allclose(got, right[0].numpy(), atol=2e-4 * float(right.abs().max()))
    named = bare.named(found)
    # But for the last digit: products of other widths are summed in another order.
    np.testing.assert_allclose(bare.named(found, part), named[:, 6:18, :16, 10:12], rtol=0, atol=1e-5)
    voxels = np.random.default_rng(3).integers(0, np.array([[32], [16], [48]]), (3, 200))
    np.testing.assert_allclose(bare.naming(found)(voxels), named[(slice(None), *voxels)], atol=1e-4 * np.abs(named).max())
    assert bare.naming(found)(voxels[:, :0]).shape == (net.outs, 0)
    np.testing.assert_array_equal(found, before, err_msg="answers leave the features as they are")


def test_skull_stripping_does_not_load_torch():
    code = (
        "import sys, napari_mri as mri\n"
        "from napari_mri.phantom import head\n"
        "from napari_mri.core.grid import Grid\n"
        "scan, labels = head(Grid.plain((48, 56, 48), (4.0, 4.0, 4.0)))\n"
        "mask = mri.skullstrip(scan, device='cpu')\n"
        "assert mask.history[-1].order.model == 'skullnet', mask.history\n"
        "assert not {'torch', 'scipy'} & set(sys.modules), 'both take long to import'\n"
        "print(int(mask.data.sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 1000
