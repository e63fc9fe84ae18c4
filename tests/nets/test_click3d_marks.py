"""What the click network is told of marks is the same on a graphics processor."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

torch = pytest.importorskip("torch")

from napari_mri.nets import click3d, click3d_marks  # noqa: E402


@pytest.mark.parametrize("inside", [0, 1, 9])
@pytest.mark.parametrize("outside", [0, 2])
def test_marks_are_told_as_on_a_cpu(inside, outside):
    rng = np.random.default_rng(inside)
    shape = (32, 48, 40)
    image = torch.from_numpy(gaussian_filter(rng.normal(size=shape), 1.5).astype(np.float32) * 6)
    marks = [torch.from_numpy((rng.random((n, 3)) * (33, 48, 41) - 0.5).astype(np.float32)) for n in (inside, outside)]
    box = torch.tensor([[2.0, 3, 4], [20, 30, 22]]) if not inside else None
    before = torch.rand(shape) if outside else None
    told = click3d.Pointed(*marks, box, before)
    for plain, other in zip(click3d.encode(image, told, 1.3), click3d_marks.encode(image, told, 1.3), strict=True):
        np.testing.assert_allclose(other.numpy(), plain.numpy(), atol=2e-5)
