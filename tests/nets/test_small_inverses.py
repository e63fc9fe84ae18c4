"""Small positive matrices and their inverses, however they are made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from napari_mri.nets import small_inverses  # noqa: E402

WAYS = (small_inverses.by_cholesky, small_inverses.by_triangles, small_inverses.by_blocks)


def positive(n: int, bright: float, many: int = 50) -> torch.Tensor:
    """Products of noise and three strong components, with unit noise's share on the diagonal."""
    gen = torch.Generator().manual_seed(n)
    strong = torch.randn((many, n, 3), generator=gen) @ torch.randn((many, 3, 64), generator=gen)
    group = torch.randn((many, n, 64), generator=gen) + bright * strong
    return group @ group.transpose(1, 2) + 64 * torch.eye(n)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, 2, 11, 12, 23, 44])
def test_a_matrix_and_its_inverse_make_one(way: Callable[[torch.Tensor], torch.Tensor], n: int) -> None:
    matrix = positive(n, 1.0)
    assert torch.allclose(way(matrix) @ matrix, torch.eye(n).expand_as(matrix), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_strong_signal_costs_few_digits(way: Callable[[torch.Tensor], torch.Tensor]) -> None:
    matrix = positive(44, 20.0)
    exact = torch.linalg.inv(matrix.double())
    off = torch.linalg.vector_norm(way(matrix) - exact, dim=(1, 2)) / torch.linalg.vector_norm(exact, dim=(1, 2))
    assert float(off.median()) < 2e-3
    assert float(off.max()) < 2e-2
