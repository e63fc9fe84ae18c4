"""What all trainings share: the clock, the step, the checkpoint."""

import pytest

torch = pytest.importorskip("torch")
from training import learner  # noqa: E402
from training.learner import Learner  # noqa: E402


def made(file, **options):
    torch.manual_seed(0)
    nets = [torch.nn.Conv3d(1, 2, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    return Learner(nets[0], nets[1], file, 0.01, **options)


def test_lessons_end_at_the_minutes_given_and_a_sleep_is_not_counted(monkeypatch, tmp_path):
    clock = iter([0.0, 0.0, 6.0, 4000.0, 4006.0, 4050.0, 5000.0, 5000.0])
    monkeypatch.setattr(learner.time, "perf_counter", lambda: next(clock))
    run = made(tmp_path / "last.pt")
    seen, drawn = [], []
    for gen, progress in run.lessons(0.5, 3):
        run.step += 1
        seen.append(round(progress * 30))
        drawn.append(int(torch.randint(1 << 30, (), generator=gen)))
    assert seen == [0, 6, 16, 22, 30]  # seconds of training: the hour asleep counts as ten
    assert len(set(drawn)) == len(drawn)
    assert [p for _, p in run.lessons(0.1, 3)] == [1.0]  # all is spent: one more step, as it was


def test_a_step_goes_down_and_the_checkpoint_brings_it_back(tmp_path):
    run = made(tmp_path / "last.pt", least=2, share=0.05, memory=0.9)
    data = torch.randn(4, 1, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    losses = [run.follow((run.net(data) - 1).square().mean(), 0.5) for _ in range(40)]
    assert losses[-1] < 0.97 * losses[0]
    assert run.adam.param_groups[0]["lr"] == pytest.approx(0.05 * run.muon.param_groups[0]["lr"])
    run.keep()
    again = made(tmp_path / "last.pt", least=2, share=0.05, memory=0.9)
    again.resume()
    assert again.step == 40
    for mine, kept in zip(again.average.parameters(), run.average.parameters(), strict=True):
        assert torch.equal(mine, kept)
    lesson = (run.net(data) - 1).square().mean(), (again.net(data) - 1).square().mean()
    assert run.follow(lesson[0], 0.6) == again.follow(lesson[1], 0.6)
    assert all(torch.equal(a, b) for a, b in zip(run.net.parameters(), again.net.parameters(), strict=True))


def test_kernels_kept_as_bytes_are_half_as_large_and_nearly_the_same(tmp_path):
    from napari_mri.engine.weights import load, load_arrays

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv3d(8, 16, 3), torch.nn.Linear(16, 4))
    with torch.no_grad():
        net[0].weight[3] *= 1000  # one channel far larger than the others takes nothing from them
        net[0].weight[4] = 0
    sizes = []
    for as_bytes in (False, True):
        learner.write_weights(net, tmp_path, "net", {"name": "net"}, as_bytes=as_bytes)
        file = tmp_path / "net.safetensors"
        sizes.append(file.stat().st_size)
        for found in (load(file), {n: torch.from_numpy(v) for n, v in load_arrays(file).items()}):
            assert found.keys() == net.state_dict().keys()
            for name, kernel in net.state_dict().items():
                most = kernel.abs().amax(tuple(range(1, kernel.ndim)), keepdim=True) if kernel.ndim > 1 else kernel.abs()
                assert bool(((found[name].float() - kernel).abs() <= most / (250 if as_bytes else 1000)).all()), name
    assert sizes[1] < 0.7 * sizes[0]
