"""Work off the window's thread: exactly one ending, quick stops, no thread left."""

import threading
import time

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")
pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError, reason="there is no Qt binding (extra 'all')")

from napari_mri.core.errors import MriError
from napari_mri.gui import worker


class Endings:
    """Collects what a job says."""

    def __init__(self, job):
        self.said = []
        job.done.connect(lambda value: self.said.append(("done", value)))
        job.failed.connect(lambda value: self.said.append(("failed", value)))
        job.stopped.connect(lambda value: self.said.append(("stopped", value)))


def finished(qtbot, work, stop_after=None):
    job = worker.Job(work, "cpu")
    endings = Endings(job)
    job.start()
    if stop_after is not None:
        qtbot.wait(int(1000 * stop_after))
        job.stop()
    qtbot.waitUntil(lambda: bool(endings.said), timeout=10_000)
    assert job.wait(5)
    qtbot.wait(50)
    assert len(endings.said) == 1
    assert not job.running
    return endings.said[0]


def all_end(jobs, qtbot):
    endings = [Endings(job) for job in jobs]
    for job in jobs:
        job.start()
    qtbot.waitUntil(lambda: all(e.said for e in endings), timeout=5000)
    assert [e.said[0][0] for e in endings] == ["done"] * len(jobs)


def test_done_with_its_answer(qtbot):
    here = threading.get_ident()
    how, (value, there) = finished(qtbot, lambda rt: (rt.device, threading.get_ident()))
    assert (how, value) == ("done", "cpu")
    assert there != here


def test_a_known_error_is_its_sentence_and_hint(qtbot):
    def work(rt):
        raise MriError("It broke.", hint="Mend it.")

    assert finished(qtbot, work) == ("failed", "It broke. Mend it.")


def test_an_unknown_error_is_shown_too(qtbot):
    how, text = finished(qtbot, lambda rt: 1 / 0)
    assert how == "failed"
    assert "ZeroDivisionError" in text


def test_stop_at_the_next_report(qtbot):
    def work(rt):
        while True:
            rt.report(0.1, "on and on")
            time.sleep(0.01)

    began = time.monotonic()
    assert finished(qtbot, work, stop_after=0.2)[0] == "stopped"
    assert time.monotonic() - began < 1.2


def test_a_deaf_work_is_let_go_within_a_second(qtbot):
    job = worker.Job(lambda rt: time.sleep(2), "cpu")
    endings = Endings(job)
    job.start()
    qtbot.wait(100)
    job.stop()
    began = time.monotonic()
    qtbot.waitUntil(lambda: bool(endings.said), timeout=3000)
    assert time.monotonic() - began < 1.0
    assert endings.said[0][0] == "stopped"
    assert job.wait(5)
    qtbot.wait(100)
    assert len(endings.said) == 1  # its late answer is not heard


def test_one_at_a_time(qtbot):
    busy = []

    def work(rt):
        busy.append(1)
        assert len(busy) == 1
        time.sleep(0.2)
        busy.pop()

    all_end([worker.Job(work, "cpu") for _ in range(3)], qtbot)


def test_clicks_and_tools_do_not_wait_for_a_run(qtbot):
    all_here = threading.Barrier(3)
    lanes = (worker.RUNS, worker.CLICKS, worker.EDITS)
    all_end([worker.Job(lambda rt: all_here.wait(4), "cpu", lane) for lane in lanes], qtbot)


def test_who_waits_is_told_for_what(qtbot):
    go, told = threading.Event(), []
    first = worker.Job(lambda rt: go.wait(10), "cpu", worker.EDITS)
    second = worker.Job(lambda rt: None, "cpu", worker.EDITS)
    second.told.connect(lambda _, text: told.append(text))
    endings = Endings(second)
    first.start()
    qtbot.waitUntil(lambda: worker.EDITS.at_work is first)
    second.start()
    qtbot.waitUntil(lambda: "waiting for the tool under way to end" in told)
    first.stop()
    qtbot.waitUntil(lambda: "waiting for the stopped tool to wind down" in told)
    assert not endings.said
    go.set()
    qtbot.waitUntil(lambda: bool(endings.said))
    assert endings.said[0][0] == "done"
    assert first.wait(5)
    assert second.wait(5)


def test_an_abandoned_job_says_nothing(qtbot):
    job = worker.Job(lambda rt: time.sleep(0.2), "cpu")
    endings = Endings(job)
    job.start()
    job.abandon()
    assert job.wait(5)
    qtbot.wait(100)
    assert not endings.said


@pytest.mark.parametrize(
    ("fraction", "seconds", "words"),
    [
        (0.0, 50, ""),
        (0.5, 0.4, ""),
        (1.0, 9, ""),
        (0.5, 1.2, "about 1 s left"),
        (0.25, 10, "about 30 s left"),
        (0.1, 60, "about 9 min left"),
        (0.05, 600, "about 3.2 h left"),
    ],
)
def test_time_left(fraction, seconds, words):
    assert worker.time_left(fraction, seconds) == words
