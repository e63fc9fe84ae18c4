"""Batches made by other processes: each has its number, an earlier one comes again, and nothing stays behind."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from training import crowd  # noqa: E402


def made(number):
    return torch.full((2, 3), number), torch.full((1,), number % 2 == 0)


def test_batches_come_by_number_and_the_folder_is_gone_after(tmp_path, monkeypatch):
    monkeypatch.setattr(crowd.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(crowd, "ROOM", 1 << 60)  # no memory shared between processes is that large
    stream = crowd.batches(made, 1, 5, "cpu")
    found = list(itertools.islice(stream, 12))
    new = [batch for batch, fresh in found if fresh]
    assert [int(batch[0][0, 0]) for batch in new] == list(range(5, 5 + len(new)))
    assert len(new) >= 8, "none comes again before there are a few"
    for batch, _ in found:
        assert [(tuple(part.shape), part.dtype) for part in batch] == [((2, 3), torch.int64), ((1,), torch.bool)]
        assert bool(batch[1]) == (int(batch[0][0, 0]) % 2 == 0)
    assert len(list(tmp_path.iterdir())) == 1
    stream.close()
    assert not list(tmp_path.iterdir())
