"""Sampling and its inverse on tensors: what numpy says, to rounding, and nothing of another device in between."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from napari_mri.core.grid import Grid  # noqa: E402
from napari_mri.measure.consistency import along_axes as numpys  # noqa: E402
from napari_mri.measure.consistency import slicing  # noqa: E402
from napari_mri.nets import slices  # noqa: E402

FINE = Grid.plain((12, 10, 24), (1.0, 1.0, 1.0))
WAYS = [
    slicing(FINE.respaced((1, 1, 4)), FINE),
    slicing(FINE.respaced((2, 1, 3)), FINE, (2, 1, 4.5), "gaussian"),
    slicing(FINE.respaced((1, 1, 6)), FINE, (1, 1, 2.0)),  # gaps
]


@pytest.mark.parametrize("model", WAYS, ids=["box", "gaussian", "gaps"])
def test_tensors_get_what_arrays_get(model):
    rng = np.random.default_rng(0)
    fine = rng.random(FINE.shape, dtype=np.float32) * 100
    scan = model.sampled(rng.random(FINE.shape, dtype=np.float32) * 100)
    sample, spread = slices.lines_on("cpu", model.matrices), slices.lines_on("cpu", model.spread())
    there, measured = torch.from_numpy(fine), torch.from_numpy(scan)
    assert np.allclose(slices.along_axes(there, sample), numpys(fine, model.matrices), atol=1e-4)
    found = slices.corrected(there, measured, sample, spread)
    assert np.allclose(found, model.corrected(fine, scan), atol=1e-2)
    assert np.allclose(slices.scaled(there, measured, sample), model.scaled(fine, scan), atol=1e-2)
    assert np.array_equal(there, fine)


def test_no_tensor_of_another_device_comes_in():
    model = WAYS[1]
    with FakeTensorMode(allow_non_fake_inputs=False):
        sample, spread = ([None if m is None else torch.ones(m.shape, device="cuda") for m in line]
                          for line in (model.matrices, model.spread()))  # fmt: skip
        fine, scan = torch.ones(FINE.shape, device="cuda"), torch.ones(model.scan.shape, device="cuda")
        assert slices.corrected(fine, scan, sample, spread).device.type == "cuda"
        back = [None if m is None else m.T for m in sample]
        share = slices.along_axes(scan, back)
        found = slices.factors(scan, slices.along_axes(fine, sample), back, share)
        assert (found.device.type, found.shape) == ("cuda", FINE.shape)
