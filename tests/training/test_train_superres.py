"""The slice trainer: slices are measured as the package describes them, and a few steps already teach something."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_mri.core.grid import Grid  # noqa: E402
from napari_mri.measure.consistency import slicing  # noqa: E402
from napari_mri.nets.superres import SliceNet, facts  # noqa: E402
from training import train_superres as trainer  # noqa: E402
from training.train_denoise import Bank  # noqa: E402


def bank(folder) -> Bank:
    gen = torch.Generator().manual_seed(2)
    for number in range(2):
        coarse = torch.rand((1, 1, 12, 12, 12), generator=gen)
        volume = torch.nn.functional.interpolate(coarse, size=(84, 84, 84), mode="nearest")[0, 0]
        np.save(folder / f"{number:05d}.npy", volume.half().numpy())
    made = Bank(folder)
    made.refresh()
    return made


@pytest.mark.parametrize(("distance", "thickness", "gaussian"), [(4.0, 4.0, False), (2.6, 2.0, True), (5.0, 7.0, False)])
def test_slices_are_measured_and_corrected_as_the_package_does(distance, thickness, gaussian):
    way = trainer.slices(6, distance, thickness, gaussian)
    scan = Grid.plain((3, 4, 6), (1.0, 1.0, distance))
    model = slicing(scan, scan.respaced((1, 1, 1)), (1, 1, thickness), "gaussian" if gaussian else "box")
    fine = np.random.default_rng(1).random(model.fine.shape).astype(np.float32)
    seen = model.sampled(fine)
    assert np.allclose(way.sample.numpy() @ fine[0, 0], seen[0, 0], atol=1e-5)
    other = np.zeros_like(fine)
    found = way.corrected(torch.from_numpy(other), torch.from_numpy(seen)).numpy()
    assert np.allclose(found, model.corrected(other, seen), atol=1e-4)


def test_drawn_slices_keep_to_what_the_card_says():
    gen = torch.Generator().manual_seed(0)
    for _ in range(30):
        way = trainer.draw(5, gen)
        assert 1.5 <= 2 ** (3 * way.told[0]) <= 8.001
        assert way.read.shape == (len(way.spline), 40)


def test_noise_is_a_magnitudes_and_can_be_none():
    way = trainer.slices(5, 4.0, 4.0)
    fine = torch.rand(4, 6, 6, 20)
    assert torch.allclose(trainer.measured(fine, way, torch.Generator().manual_seed(1), 0.0), fine @ way.sample.T)
    assert trainer.measured(0 * fine, way, torch.Generator().manual_seed(1)).min() >= 0


def test_an_untrained_net_is_the_spline_and_costs_what_the_spline_costs():
    way = trainer.slices(5, 4.0, 4.0)
    fine = torch.rand(2, 24, 24, 20)
    scan = fine @ way.sample.T
    answer = trainer.refined(SliceNet(8, 1), scan, way)
    assert torch.allclose(answer, scan @ way.spline.T)
    assert float(trainer.loss_of(answer, scan, fine, way)) == pytest.approx(1.5, abs=1e-2)
    assert float(trainer.loss_of(fine, scan, fine, way)) < 1e-4


def test_training_learns_keeps_and_goes_on(tmp_path):
    shelf = bank(tmp_path)
    plan = trainer.Schedule(minutes=1, batch=2, side=20, slices=5, width=8, depth=1, rate=0.02, bank=2)
    args = trainer.parse(["--cache", str(tmp_path), "--device", "cpu"])
    run = trainer.Training(args, plan)
    way, losses = trainer.slices(5, 4.0, 4.0), []
    for _ in range(40):
        gen = torch.Generator().manual_seed(4)  # one piece over and over
        fine = trainer.pieces(shelf, plan.batch, plan.side, 20, gen)
        losses.append(run.take(fine, way, gen, 0.0))
    assert np.mean(losses[-10:]) < 0.95 * losses[0]
    run.keep()
    again = trainer.Training(trainer.parse(["--cache", str(tmp_path), "--device", "cpu", "--resume"]), plan)
    assert again.step == 40
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), run.net.parameters(), strict=True))
    trainer.export(run.average, tmp_path / "out", {"name": "x"})
    from safetensors.torch import load_file

    state = load_file(tmp_path / "out" / "superres.safetensors")
    assert set(state) == set(run.net.state_dict())
    fresh = trainer.Training(trainer.parse(["--cache", str(tmp_path), "--init", str(tmp_path / "out" / "superres.safetensors")]), plan)
    assert fresh.step == 0
    assert fresh.net.width == 8


def test_a_deeper_network_answers_the_same_until_it_learns():
    torch.manual_seed(0)
    net = SliceNet(8, 2)
    torch.nn.init.normal_(net.head.weight)
    deeper = trainer.deepened(net, 4)
    scan, told = torch.rand(1, 1, 5, 12, 12), torch.tensor([facts(4.0, 4.0, False)])
    assert deeper.depth == 4
    assert torch.allclose(net(scan, told), deeper(scan, told))
    deeper(scan, told).square().sum().backward()
    assert deeper.blocks[3].second.weight.grad.abs().max() > 0
    assert trainer.deepened(net, 1).depth == 2
