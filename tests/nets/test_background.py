"""Air is laid onto the noise floor; weak signal beside it is not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets.background import settled  # noqa: E402
from napari_mri.nets.means import mean, mean_of_nine  # noqa: E402

FLOOR = 1.5


def test_a_mean_of_nine_is_one() -> None:
    volume = torch.rand((24, 20, 22), generator=torch.Generator().manual_seed(0))
    inner = (slice(4, -4),) * 3
    assert torch.allclose(mean_of_nine(volume)[inner], mean(volume, 9)[inner], atol=1e-5)


def test_what_is_left_in_air_goes_and_weak_signal_stays() -> None:
    gen = torch.Generator().manual_seed(1)
    truth = torch.full((40, 24, 24), FLOOR)
    truth[20:] += 0.3  # of signal 0.8 sigma or so
    image = truth + torch.randn(truth.shape, generator=gen)
    clean = truth + 0.1 * torch.randn(truth.shape, generator=gen)
    answer = settled(clean, image, FLOOR)
    assert float((answer[:14] - FLOOR).abs().clamp(min=0).mean()) < 0.01
    assert float((answer[26:] - truth[26:]).mean()) > -0.03
    assert bool((answer >= FLOOR - 1e-6).all())


def test_bright_voxels_are_not_touched() -> None:
    image = FLOOR + 5 + torch.randn((12, 12, 12), generator=torch.Generator().manual_seed(2))
    clean = torch.full((12, 12, 12), FLOOR + 5)
    assert torch.equal(settled(clean, image, FLOOR), clean)
