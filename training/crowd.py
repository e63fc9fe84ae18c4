"""Examples made by many processes at once: a GPU learns from heads faster than one core can paint them."""

from __future__ import annotations

import multiprocessing as mp
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOM = 8 << 30
"""Bytes that memory shared between processes must have free to be used; else the disk is."""
AHEAD = 6
"""Batches each process makes ahead."""
Batch = tuple[torch.Tensor, ...]


def batches(make: Callable[[int], Batch], workers: int, first: int, device: str) -> Iterator[tuple[Batch, bool]]:
    """Yield batches as they come, each with whether it is new; where none is ready an earlier one comes again.

    Parameters
    ----------
    make : callable
        Gives the batch of a number. It runs in other processes, with one thread.
    workers : int
        Processes. To be called before anything touches a GPU: they are forked.
    first : int
        The number to begin with.
    device : str
        Where the tensors are wanted.
    """
    free = Path("/dev/shm")
    place = free if free.is_dir() and shutil.disk_usage(free).free > ROOM else None
    folder = Path(tempfile.mkdtemp(prefix="heads", dir=place))
    fork = mp.get_context("fork")
    made: Any = fork.Queue(maxsize=AHEAD * workers)
    crowd = [
        fork.Process(target=_work, args=(make, made, folder, first + n, workers), daemon=True) for n in range(workers)
    ]
    for one in crowd:
        one.start()
    return _read(crowd, made, folder, device)


def _work(make: Callable[[int], Batch], made: Any, folder: Path, number: int, stride: int) -> None:
    torch.set_num_threads(1)
    while True:
        names = []
        for n, part in enumerate(make(number)):
            file = folder / f"{number}_{n}.npy"
            np.save(file, part.numpy())
            names.append(str(file))
        made.put(names)
        number += stride


def _read(crowd: list[Any], made: Any, folder: Path, device: str) -> Iterator[tuple[Batch, bool]]:
    ready: queue.Queue[Batch] = queue.Queue(maxsize=4)
    ended = threading.Event()

    def fetch() -> None:
        while not ended.is_set():
            try:
                names = made.get(timeout=1)
            except queue.Empty:
                continue
            arrays = [torch.from_numpy(np.load(name)) for name in names]
            for name in names:
                Path(name).unlink()
            batch = tuple(array.to(device) for array in arrays)
            while not ended.is_set():
                try:
                    ready.put(batch, timeout=1)
                    break
                except queue.Full:
                    continue

    reader = threading.Thread(target=fetch, daemon=True)
    reader.start()
    kept: list[Batch] = []
    draw = np.random.default_rng(0)
    try:
        while True:
            try:
                batch = ready.get(timeout=None if len(kept) < 8 else 0.001)
            except queue.Empty:
                yield kept[int(draw.integers(len(kept)))], False
                continue
            kept = [*kept[-31:], batch]
            yield batch, True
    finally:
        ended.set()
        for one in crowd:
            one.terminate()
            one.join()
        reader.join(timeout=5)
        shutil.rmtree(folder, ignore_errors=True)
