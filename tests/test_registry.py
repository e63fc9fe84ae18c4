"""Models are found by their files, a broken one does not take the others down, defaults are sound."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from napari_mri import models, registry
from napari_mri.core.errors import MissingExtra, UnknownModel, WeightsProblem
from napari_mri.core.model import DENOISE, TASKS, Card, Model, Weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A further folder of model files, seen by the registry during one test."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    registry.refresh()
    yield tmp_path
    registry.refresh()
    for name in [n for n in sys.modules if n.startswith("napari_mri.models.zz_")]:
        del sys.modules[name]


GOOD = """
from napari_mri.core.model import DENOISE, Card, Model
MODELS = (Model(Card("zz_copy", DENOISE, "Copy", rank=-1), run=lambda scan, p, rt: scan),)
"""


def test_a_file_is_a_model(folder):
    (folder / "zz_good.py").write_text(GOOD)
    registry.refresh()
    assert registry.find("denoise", "zz_copy").card.title == "Copy"


@pytest.mark.parametrize("text", ["import no_such_package", "1/0", "MODELS = (3,)", "x = ("])
def test_a_broken_file_is_listed_with_its_reason_and_hurts_nobody(folder, text):
    (folder / "zz_bad.py").write_text(text)
    (folder / "zz_good.py").write_text(GOOD)
    registry.refresh()
    broken = [entry for entry in registry.list_models() if entry.name == "zz_bad"]
    assert len(broken) == 1
    assert not broken[0].available
    assert "could not be imported" in broken[0].reason
    assert registry.find("denoise", "zz_copy")


def test_names_are_unique_within_a_task():
    for task in TASKS:
        names = [entry.name for entry in registry.list_models(task)]
        assert len(names) == len(set(names))


def test_every_task_with_models_has_a_default_that_does_not_invent():
    for task in TASKS:
        if any(e.available and e.model.card.rank >= 0 for e in registry.list_models(task)):
            assert not registry.find(task).card.invents


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(UnknownModel, match="threshold"):
        registry.find("skullstrip", "no_such")
    with pytest.raises(UnknownModel, match="skullstrip"):
        registry.list_models("no_such")


def test_missing_packages_and_weights_say_how_to_get_them(monkeypatch):
    card = Card("zz", DENOISE, "Z")
    needy = Model(replace(card, needs=("no_such_package",)), run=lambda *a: a[0])
    heavy = Model(replace(card, name="zw", weights=(Weights("no_such.safetensors"),)), run=lambda *a: a[0])
    monkeypatch.setattr(registry, "_found", lambda: (needy, heavy))
    with pytest.raises(MissingExtra, match="pip install"):
        registry.find("denoise", "zz")
    with pytest.raises(WeightsProblem, match="models fetch"):
        registry.find("denoise", "zw")
    with pytest.raises(UnknownModel, match="can run here"):
        registry.find("denoise")


def test_weights_that_this_version_has_not_trained_yet_are_told(monkeypatch):
    card = Card("zs", DENOISE, "S", weights=(Weights("no_such.safetensors", shipped=True),))
    monkeypatch.setattr(registry, "_found", lambda: (Model(card, run=lambda *a: a[0]),))
    with pytest.raises(WeightsProblem, match="not in this version yet"):
        registry.find("denoise", "zs")
