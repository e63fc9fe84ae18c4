"""Threads of our own: BLAS has one while they work, and again what it had after; all of the work is done."""

import threading

import numpy as np
import pytest

from napari_mri.nets import blas
from napari_mri.nets.blas import each, own_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_every_item_is_worked_on_once(threads):
    done = np.zeros(50, int)

    def work(n):
        done[n] += 1

    each(work, range(50), threads)
    assert (done == 1).all()


def test_what_fails_in_a_thread_fails():
    def work(n):
        raise ValueError(n)

    for threads in (1, 2):
        with pytest.raises(ValueError, match="0"):
            each(work, range(3), threads)


def test_threads_of_blas_come_back_when_the_last_user_has_gone():
    if blas._library() is None:
        pytest.skip("numpy's BLAS is another here")
    tell, choose = blas._library()
    before = int(tell())
    try:
        choose(2)
        inside, leave = threading.Event(), threading.Event()

        def other():
            with own_threads():
                inside.set()
                leave.wait(10)

        with own_threads() as threads:
            thread = threading.Thread(target=other)
            thread.start()
            assert inside.wait(10)
            assert (threads, int(tell())) == (2, 1)
        assert int(tell()) == 1, "the other still works"
        leave.set()
        thread.join()
        assert int(tell()) == 2
    finally:
        choose(before)


def test_an_unknown_blas_keeps_its_threads(monkeypatch):
    monkeypatch.setattr(blas, "_library", lambda: None)
    with own_threads() as threads:
        assert threads == 1
