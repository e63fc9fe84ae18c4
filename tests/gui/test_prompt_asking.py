"""Asking about clicks: the model is opened once, whatever is asked meanwhile, and only the newest question is answered."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from qtpy.QtCore import QObject

from napari_mri.core.history import Order
from napari_mri.core.prompts import Point, Prompts
from napari_mri.gui import prompt_asking
from napari_mri.gui.prompt_asking import Asker, Question
from tests.scans import GRIDS, head

ONE, TWO = (Prompts((Point((float(n), 0.0, 0.0)),)) for n in (1, 2))


class Opener:
    """Opens sessions as slowly as a test wishes, and notes what was opened, asked and closed."""

    def __init__(self):
        self.go, self.begun = threading.Event(), threading.Event()
        self.opened, self.asked, self.closed = [], [], []

    def __call__(self, order, scan, rt):
        self.opened.append(order.model)
        self.begun.set()
        while not self.go.wait(0.01):
            rt.report(0.5, "opening")  # raises when it is stopped

        def answer(prompts):
            self.asked.append(prompts)
            return prompts

        rt.warnings = []
        shown = SimpleNamespace(follow=lambda _: None, warnings=[])
        return SimpleNamespace(
            answer=answer, score=None, taken_for="", rt=shown, close=lambda: self.closed.append(order.model)
        )


@pytest.fixture
def opener(monkeypatch):
    made = Opener()
    monkeypatch.setattr(prompt_asking.tasks, "open_session", made)
    yield made
    made.go.set()


@pytest.fixture
def asker(qtbot):
    parent = QObject()
    made = Asker(parent)
    made.answers = []
    made.answered.connect(lambda answer: made.answers.append(answer.labels))
    yield made
    made.stop()
    qtbot.waitUntil(lambda: not made.busy)


SCAN = head(GRIDS["plain"])


def about(prompts, model="grow"):
    return Question(Order("segment", model, {}), SCAN, prompts, "cpu")


def test_it_is_opened_before_anything_is_asked_and_once(asker, opener, qtbot):
    opener.go.set()
    with qtbot.waitSignal(asker.over):
        asker.open(about(ONE))
    assert (opener.opened, opener.asked, asker.answers) == (["grow"], [], [])
    asker.open(about(ONE))
    assert not asker.busy
    with qtbot.waitSignal(asker.over):
        asker.ask(about(TWO))
    assert (opener.opened, asker.answers) == (["grow"], [TWO])


@pytest.mark.parametrize("clicked", [False, True])
def test_clicks_while_it_opens_do_not_begin_it_anew_and_the_last_is_answered(asker, opener, qtbot, clicked):
    (asker.ask if clicked else asker.open)(about(ONE))
    assert opener.begun.wait(5)
    asker.ask(about(ONE))
    asker.ask(about(TWO))
    opener.go.set()
    with qtbot.waitSignal(asker.over):
        pass
    assert opener.opened == ["grow"]
    assert opener.asked == asker.answers == [TWO]


def test_taking_the_click_back_leaves_it_opening(asker, opener, qtbot):
    asker.ask(about(ONE))
    assert opener.begun.wait(5)
    asker.ask(about(TWO))
    asker.rest()
    opener.go.set()
    with qtbot.waitSignal(asker.over):
        pass
    assert asker.session is not None
    assert opener.asked == asker.answers == []


def test_another_model_or_cancel_ends_the_opening(asker, opener, qtbot):
    asker.open(about(ONE))
    assert opener.begun.wait(5)
    asker.ask(about(ONE, "extreme"))
    qtbot.waitUntil(lambda: opener.opened == ["grow", "extreme"])
    with qtbot.waitSignal(asker.over):
        asker.stop()
    assert asker.session is None
    assert asker.answers == []
