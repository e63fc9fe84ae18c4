"""The optimiser of kernels: it levels singular values, and learns."""

import pytest

torch = pytest.importorskip("torch")

from training.muon import Muon, orthogonal  # noqa: E402


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonal_levels_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(*shape)))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.4


def test_muon_learns_a_matrix() -> None:
    torch.manual_seed(0)
    truth = torch.randn(4, 6)
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    optimiser = Muon([weight], lr=0.05, decay=0.0)
    for _ in range(150):
        optimiser.zero_grad()
        ((weight - truth) ** 2).sum().backward()
        optimiser.step()
    assert float((weight - truth).detach().abs().max()) < 0.3
