"""The halving trainer: voxels are measured as scanners do, at the right places, and a few steps already teach something."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_mri.core.grid import Grid  # noqa: E402
from napari_mri.measure.consistency import slicing  # noqa: E402
from napari_mri.nets.isotropic import HalvingNet  # noqa: E402
from tests.training.test_train_superres import bank  # noqa: E402
from training import train_isotropic as trainer  # noqa: E402


@pytest.mark.parametrize("name", ["box", "gaussian", "cut", "soft"])
def test_large_voxels_stand_where_two_small_ones_meet(name):
    made = {
        "box": lambda: trainer.box(48),
        "gaussian": lambda: trainer.gaussian(48, 1.1),
        "cut": lambda: trainer.kspace(48, 0.0),
        "soft": lambda: trainer.kspace(48, 0.8),
    }[name]()
    place = torch.arange(48.0)
    wave = torch.cos(0.2 * place)  # slow enough that every way keeps its place
    seen = made @ wave
    wanted = torch.cos(0.2 * (2 * torch.arange(24.0) + 0.5))
    shrunk = float((seen * wanted)[6:-6].sum() / (wanted * wanted)[6:-6].sum())
    assert torch.allclose(made.sum(1), torch.ones(24), atol=1e-5)
    assert 0.9 < shrunk < 1.01
    assert torch.allclose(seen[6:-6], shrunk * wanted[6:-6], atol=0.01)


def test_the_mean_of_two_is_the_packages_own_box():
    fine = torch.rand(6, 8, 10)
    grid = Grid.plain(tuple(fine.shape))
    model = slicing(grid.respaced((2, 2, 2)), grid)
    mine = trainer.along(fine, (trainer.box(6), trainer.box(8), trainer.box(10)))
    assert np.allclose(mine.numpy(), model.sampled(fine.numpy()), atol=1e-6)


def test_the_middle_of_k_space_keeps_slow_waves_and_drops_quick_ones():
    place = torch.arange(48.0) + 0.5
    cut = trainer.kspace(48, 0.0)
    for wave, kept in ((20, True), (28, False)):
        line = torch.cos(torch.pi * wave * place / 48)
        assert (float((cut @ line).abs().max()) > 0.9) is kept


def test_noise_is_a_magnitudes_and_told_nearly_right():
    air = torch.zeros(4, 1, 16, 16, 16)
    scan, told = trainer.measured(air, torch.Generator().manual_seed(1), 0.04)
    assert scan.min() >= 0
    assert float(scan.mean()) == pytest.approx(0.04 * np.sqrt(np.pi / 2), rel=0.02)
    assert torch.allclose(told, torch.tensor(0.04), rtol=0.2)
    levels = [trainer.level_of(torch.Generator().manual_seed(n)) for n in range(200)]
    assert 0.15 < np.mean(np.array(levels) == 0) < 0.35
    assert 0.4 < np.mean(np.array(levels) < 0.01) < 0.6
    assert max(levels) <= trainer.NOISIEST


def test_an_untrained_net_is_the_spline_and_costs_what_the_spline_costs():
    gen = torch.Generator().manual_seed(0)
    fine = torch.rand(2, 1, 24, 24, 24)
    scan, told = trainer.measured(fine, gen, 0.0)
    with torch.no_grad():
        plain, answer = trainer.refined(HalvingNet(8, 8, 1, 1, 1), scan, told, False)
    assert torch.equal(plain, answer)
    assert float(trainer.loss_of(answer, plain, fine)) == pytest.approx(1.0, abs=0.02)
    assert float(trainer.loss_of(fine, plain, fine)) == 0


def test_training_learns_keeps_and_goes_on(tmp_path):
    shelf = bank(tmp_path)
    plan = trainer.Schedule(minutes=1, batch=2, side=24, bank=2, rate=0.02, size=(8, 8, 1, 1, 1))
    args = trainer.parse(["--cache", str(tmp_path), "--device", "cpu"])
    run, losses = trainer.Training(args, plan), []
    run.half = False
    for _ in range(60):
        gen = torch.Generator().manual_seed(4)  # one piece over and over
        losses.append(run.take(shelf.pieces(plan.batch, plan.side, gen), gen, 0.0))
    assert np.mean(losses[-10:]) < 0.95 * losses[0]
    run.keep()
    again = trainer.Training(args, plan)
    assert again.step == 60
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), run.net.parameters(), strict=True))
    trainer.export(run.average, tmp_path / "out", {"name": "x"})
    told = ["--cache", str(tmp_path), "--run", "other", "--init", str(tmp_path / "out" / "isotropic.safetensors")]
    fresh = trainer.Training(trainer.parse([*told, "--device", "cpu"]), trainer.SCHEDULES["cpu"])
    assert fresh.step == 0
    assert fresh.net.size == plan.size


def test_the_judge_learns_to_tell_blurred_voxels_from_real_ones():
    from training.train_sharper import Judge, apart

    torch.manual_seed(0)
    judge = Judge(8)
    optimiser = torch.optim.Adam(judge.parameters(), lr=3e-3)
    plain = torch.zeros(4, 1, 32, 32, 32)
    losses = []
    for _ in range(12):
        real = 0.1 * torch.randn(plain.shape)
        blurred = torch.nn.functional.avg_pool3d(real, 3, 1, 1)
        loss = apart(judge(real, plain), judge(blurred, plain))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[0] == pytest.approx(0.69, abs=0.05)  # at first it cannot tell
    assert losses[-1] < 0.6
    assert apart(torch.full((3,), 5.0), torch.full((3,), -5.0)) < 0.01 < apart(torch.zeros(3), torch.zeros(3))
