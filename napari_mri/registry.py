"""Which models there are: the files of `models/` and the entry points of other packages."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from napari_mri import models as _folder
from napari_mri.core.errors import MissingExtra, MriError, UnknownModel, WeightsProblem
from napari_mri.core.model import TASKS, Model
from napari_mri.engine import weights

GROUP = "napari_mri.models"
EXTRA_HINT = "pip install 'napari-mri-workbench[models]'"
EXTRAS = {"transformers": "sam2"}
"""Import names that another extra than ``models`` brings."""


@dataclass(frozen=True)
class Listed:
    """A model as it stands in the list, usable or not.

    Parameters
    ----------
    name, task, title : str
    model : Model, optional
        None if its file could not be imported.
    reason : str
        Why it cannot be used now; empty if it can.
    """

    name: str
    task: str
    title: str
    model: Model | None
    reason: str = ""

    @property
    def available(self) -> bool:
        """Whether it can be run now."""
        return not self.reason


@dataclass(frozen=True)
class _Broken:
    name: str
    reason: str


@lru_cache(maxsize=1)
def _found() -> tuple[Model | _Broken, ...]:
    found: list[Model | _Broken] = []
    for entry in pkgutil.iter_modules(_folder.__path__):
        if not entry.name.startswith("_"):
            found.extend(_models_of(entry.name, lambda name=entry.name: import_module(f"{_folder.__name__}.{name}")))
    for point in entry_points(group=GROUP):
        if point.value.split(":")[0] != _folder.__name__:
            found.extend(_models_of(point.name, lambda point=point: _loaded(point)))
    return tuple(found)


def _loaded(point: EntryPoint) -> Any:
    return point.load()


def _models_of(name: str, load: Any) -> Iterator[Model | _Broken]:
    """Yield the models of one file; one that cannot be imported must not take the others down."""
    try:
        offered = load()
        models = tuple(offered() if callable(offered) else getattr(offered, "MODELS", offered))
        wrong = [m for m in models if not isinstance(m, Model)]
        if wrong:
            raise TypeError(f"MODELS holds {wrong[0]!r}")
    except Exception as error:  # noqa: BLE001  (foreign code: whatever it raises is the reason shown)
        yield _Broken(name, f"could not be imported: {type(error).__name__}: {error}")
    else:
        yield from models


def refresh() -> None:
    """Look again, after a package was installed or a model file added."""
    _found.cache_clear()


def why_not(model: Model) -> str:
    """Return the reason a model cannot run now, or an empty text."""
    missing = [name for name in model.card.needs if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS.get(name, "models") for name in missing}))
        return f"needs {', '.join(missing)}: {EXTRA_HINT.replace('models', extras)}"
    unborn = [w.file for w in model.card.weights if w.shipped and not weights.is_there(w)]
    if unborn:
        return f"weights not in this version yet: {', '.join(unborn)} (training/ has the recipe)"
    absent = [w.file for w in model.card.weights if not weights.is_there(w)]
    if absent:
        return f"weights missing: {', '.join(absent)} (napari-mri models fetch {model.card.name})"
    return ""


def list_models(task: str | None = None) -> tuple[Listed, ...]:
    """List the models of a task, or of all, best first; the unusable ones with their reason.

    Raises
    ------
    UnknownModel
        If there is no such task.
    """
    if task is not None and task not in TASKS:
        raise UnknownModel(f"There is no task '{task}'.", hint=f"Tasks: {', '.join(TASKS)}.")
    listed = []
    for item in _found():
        if isinstance(item, _Broken):
            if task is None:
                listed.append((99, 0, Listed(item.name, "?", item.name, None, item.reason)))
        elif task is None or item.card.task.name == task:
            card = item.card
            place = list(TASKS).index(card.task.name)
            listed.append((place, -card.rank, Listed(card.name, card.task.name, card.title, item, why_not(item))))
    return tuple(entry for _, _, entry in sorted(listed, key=lambda e: (e[0], e[1], e[2].name)))


def find(task: str, name: str | None = None, others: int = 0) -> Model:
    """Return a model by name, or the default of a task.

    Parameters
    ----------
    task : str
    name : str, optional
        None or ``"auto"``: the usable model of the highest rank.
    others : int
        How many further scans it is to take along; with some, the best that can, whatever its rank.

    Raises
    ------
    UnknownModel
        If the task has no model of that name.
    MissingExtra, WeightsProblem
        If the model is known but cannot run here.
    """
    listed = list_models(task)
    if name in (None, "", "auto"):
        for entry in listed:
            if not entry.available or entry.model is None:
                continue
            wants = entry.model.card.wants
            fits = wants.least_others <= others <= wants.others
            if fits and (others or entry.model.card.rank >= 0):
                return entry.model
        most = max((e.model.card.wants.others for e in listed if e.available and e.model is not None), default=0)
        if others > most:
            raise UnknownModel(
                f"No model for '{task}' takes {others + 1} scans; at most {most + 1}.", hint="Leave some of them out."
            )
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in listed if e.reason)
        raise UnknownModel(f"No model for '{task}' can run here.", hint=reasons or EXTRA_HINT)
    for entry in listed:
        if entry.name == name and entry.model is not None:
            if not entry.reason:
                return entry.model
            kind: type[MriError] = WeightsProblem if entry.reason.startswith("weights") else MissingExtra
            raise kind(f"The model '{name}' cannot run here.", hint=entry.reason)
    names = ", ".join(e.name for e in listed) or "none"
    raise UnknownModel(f"There is no model '{name}' for '{task}'.", hint=f"Models: {names}.")
