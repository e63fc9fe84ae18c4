"""Every option of a model becomes a field that cannot hold a bad value."""

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from napari_mri import registry
from napari_mri.core.model import knobs
from tests.gui.slow_models import Params


@pytest.fixture
def form(qtbot):
    from napari_mri.gui.form import Form

    made = Form(knobs(Params))
    yield made
    made.deleteLater()
    qtbot.wait(10)


def test_defaults_and_changes(form):
    assert Params(**form.values()) == Params()
    changed = {"level": 0.25, "rounds": 7, "kind": "hard", "border": -1.5, "strict": True}
    for name, value in changed.items():
        form.set_value(name, value)
    assert form.values() == changed


def test_what_was_set_is_set_again_when_the_same_options_come_back(form):
    form.set_value("rounds", 7)
    form.set_value("kind", "hard")
    form.show_knobs(knobs(Params)[:1])
    form.set_value("level", 0.25)
    form.show_knobs(())
    form.show_knobs(knobs(Params))
    assert Params(**form.values()) == Params(rounds=7, kind="hard")
    form.show_knobs(knobs(Params)[:1])
    assert form.values() == {"level": 0.25}


def test_out_of_range_is_held_back(form):
    form.set_value("rounds", 99)
    assert form.values()["rounds"] == 9
    form.set_value("level", -3)
    assert form.values()["level"] == 0.0


def test_units_and_sentences_are_shown(form):
    assert form.field("border").suffix() == " mm"
    assert "Grow by this much." in form.field("border").toolTip()


def test_every_default_of_every_model_fits_its_field(form):
    for listed in registry.list_models():
        if listed.model is not None:
            form.show_knobs(listed.model.knobs)
            listed.model.settings(form.values())
            for knob in listed.model.knobs:
                assert form.values()[knob.name] == pytest.approx(knob.default), (listed.name, knob.name)


def test_an_empty_form_is_not_seen(form):
    form.show_knobs(())
    assert form.values() == {}
    assert not form.isVisible()


@pytest.mark.parametrize(
    ("name", "unit", "title"),
    [("below_ml", "ml", "Below"), ("csf", "", "CSF"), ("up_to_ml", "ml", "Up to"), ("border", "mm", "Border")],
)
def test_titles(name, unit, title):
    from napari_mri.core.model import Knob
    from napari_mri.gui.form import title_of

    assert title_of(Knob(name, float, 0.0, "", None, None, unit, ())) == title
