"""What a run is handed: random draws that other threads do not disturb, and a part of its progress."""

import threading

import pytest

from napari_mri.engine.runtime import LocalRuntime, forget_kept, part_of

torch = pytest.importorskip("torch")


def test_a_net_to_be_trained_is_the_same_whatever_other_threads_load():
    """A session that is opened meanwhile makes a net too, which draws from torch's common generator."""

    def net():
        return torch.nn.Sequential(*(torch.nn.Linear(7, 7) for _ in range(30)))

    rt, other, over = LocalRuntime("cpu", seed=3), LocalRuntime("cpu"), threading.Event()

    def load():
        number = 0
        while not over.is_set():
            other.keep(f"toy {number}", net)
            number += 1

    thread = threading.Thread(target=load)
    first = torch.nn.utils.parameters_to_vector(rt.drawn(net).parameters())
    thread.start()
    try:
        again = [torch.nn.utils.parameters_to_vector(rt.drawn(net).parameters()) for _ in range(200)]
    finally:
        over.set()
        thread.join()
        forget_kept()
    assert all(torch.equal(first, a) for a in again)
    assert not torch.equal(first, torch.nn.utils.parameters_to_vector(LocalRuntime("cpu", seed=4).drawn(net).parameters()))


def test_a_part_of_the_progress():
    told = []
    rt = LocalRuntime("cpu", lambda fraction, text: told.append((round(fraction, 6), text)), seed=5)
    part = part_of(rt, 0.5, 0.75)
    part.report(0.0, "begins")
    part_of(part, 0.5, 1.0).report(0.5, "a part of a part")
    part.report(1.0, "ends")
    assert told == [(0.5, "begins"), (0.6875, "a part of a part"), (0.75, "ends")]
    assert (part.seed, part.device) == (5, "cpu")
