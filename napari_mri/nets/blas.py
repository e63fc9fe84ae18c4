"""Threads of our own in place of those of numpy's BLAS.

OpenBLAS wakes its threads for every small product and lets them spin until the last is done. On a processor that has
other work this takes many times as long as one thread alone; threads that each do many products never wait so.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

NAMES = (("scipy_openblas_", "64_"), ("scipy_openblas_", ""), ("openblas_", "64_"), ("openblas_", ""))
"""Before and after `set_num_threads`, in the builds that numpy comes with."""
Item = TypeVar("Item")
Made = TypeVar("Made")
_lock = threading.Lock()
_held = {"users": 0, "threads": 1}


@contextmanager
def own_threads() -> Iterator[int]:
    """Keep numpy's BLAS to one thread; give the number of threads it had, or 1 where it is not known."""
    found = _library()
    if found is None:
        yield 1
        return
    tell, choose = found
    with _lock:
        if not _held["users"]:
            _held["threads"] = int(tell())
            choose(1)
        _held["users"] += 1
    try:
        yield _held["threads"]
    finally:
        with _lock:
            _held["users"] -= 1
            if not _held["users"]:
                choose(_held["threads"])


def each(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> list[Made]:
    """Do some work for each of some items, in any order; return what it makes of each, in theirs."""
    if threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


@cache
def _library() -> tuple[Any, Any] | None:
    """Return the functions that tell and choose how many threads numpy's BLAS has, if it is an OpenBLAS of its own."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for file in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(file))
            except OSError:
                continue
            for before, after in NAMES:
                tell = getattr(library, f"{before}get_num_threads{after}", None)
                choose = getattr(library, f"{before}set_num_threads{after}", None)
                if tell is not None and choose is not None:
                    return tell, choose
    return None
