"""Learning within a run: it ends for a reason that is told, and hands over the best of its running averages."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from napari_mri.engine.lesson import Plan, learn  # noqa: E402
from napari_mri.engine.runtime import LocalRuntime  # noqa: E402


def taught(plan: Plan, judge: float | None = None) -> tuple[float, list[str]]:
    torch.manual_seed(0)
    net, rt = torch.nn.Linear(3, 1), LocalRuntime("cpu")
    gen = torch.Generator().manual_seed(0)

    def loss(net: torch.nn.Module) -> torch.Tensor:
        x = torch.rand(64, 3, generator=gen)
        return (net(x)[:, 0] - x.sum(dim=1)).square().mean()

    best = learn(net, loss, lambda net: float(loss(net)) if judge is None else judge, plan, rt)
    return float(loss(best).detach()), rt.warnings


def test_it_learns_to_its_end_and_has_nothing_to_tell():
    error, told = taught(Plan(minutes=60.0, steps=400, rate=5e-2, tells=True))
    assert error < 1e-2
    assert told == []


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan(minutes=1e-9, steps=100, tells=True), "step 0 of 100: its 1e-09 minutes were over"),
        (Plan(minutes=60.0, steps=1000, every=5, patience=3, tells=True), "step 20 of 1,000: it no longer became better"),
    ],
)
def test_an_early_end_is_told(plan, why):
    assert [why in line for line in taught(plan, judge=1.0)[1]] == [True]


def test_where_it_is_not_asked_to_it_tells_nothing():
    assert taught(Plan(minutes=60.0, steps=1000, every=5, patience=3), judge=1.0)[1] == []
