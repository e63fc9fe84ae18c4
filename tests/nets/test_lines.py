"""Functions given by corners: what torch looks up is what numpy looks up."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_mri.measure import rician  # noqa: E402
from napari_mri.nets.lines import along  # noqa: E402


def test_it_is_what_numpy_interpolates() -> None:
    at, gives = np.array([-1.0, 0.0, 2.0, 5.0]), np.array([3.0, -1.0, 0.5, 0.25])
    values = np.linspace(-3, 7, 1001, dtype=np.float32).reshape(7, 11, 13)
    assert np.allclose(along(torch.from_numpy(values), at, gives).numpy(), np.interp(values, at, gives), atol=1e-6)


@pytest.mark.parametrize("line", [rician.stable_line(), rician.signal_line(), rician.signal_line(0.3)])
def test_the_lines_of_rician_noise_hold_in_single_precision(line: tuple[np.ndarray, np.ndarray]) -> None:
    values = np.concatenate([np.linspace(-4, 30, 5000), [1e3, 1e6]]).astype(np.float32)
    exact = np.interp(values.astype(np.float64), *line)
    # Where signal begins to rise from the noise floor the way back is steep.
    assert np.allclose(along(torch.from_numpy(values), *line).numpy(), exact, rtol=1e-6, atol=1e-4)
