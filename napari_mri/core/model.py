"""What a model is: its task, its card, its options, and what it is handed when it runs."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, get_type_hints

from napari_mri.core.errors import BadOption
from napari_mri.core.prompts import Prompts, Slab
from napari_mri.core.volume import Labels, Volume

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Task:
    """A verb of the product.

    Parameters
    ----------
    name : str
        As in the command line and the API.
    title : str
        As on a button.
    gives : str
        ``"labels"`` or ``"volume"``.
    keeps_grid : bool
        Whether the answer must lie on the grid of the scan.
    """

    name: str
    title: str
    gives: str = "volume"
    keeps_grid: bool = True


SKULLSTRIP = Task("skullstrip", "Skull-strip", gives="labels")
DENOISE = Task("denoise", "Denoise")
SUPERRES = Task("superres", "Super-resolution", keeps_grid=False)
SEGMENT = Task("segment", "Click to segment", gives="labels")
TASKS = {task.name: task for task in (SKULLSTRIP, DENOISE, SUPERRES, SEGMENT)}


def knob(
    default: Any,
    says: str,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[Any, ...] = (),
) -> Any:
    """Declare one option of a model, told once: flag, form, API and history read it from here.

    Parameters
    ----------
    default : int, float, bool or str
    says : str
        One sentence for a radiologist.
    low, high : float, optional
        Inclusive range of a number.
    unit : str
        ``"mm"``, ``"voxels"``, …
    choices : tuple
        The allowed values, where they are few.
    """
    facts = {"says": says, "low": low, "high": high, "unit": unit, "choices": tuple(choices)}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Knob:
    """An option as the faces see it (see `knob`)."""

    name: str
    type: type
    default: Any
    says: str
    low: float | None
    high: float | None
    unit: str
    choices: tuple[Any, ...]

    def checked(self, value: Any) -> Any:
        """Return the value in the option's type.

        Raises
        ------
        BadOption
            If it is of another kind, out of range or not among the choices.
        """
        flag = "--" + self.name.replace("_", "-")
        try:
            if self.type is bool:
                if not isinstance(value, bool):
                    raise TypeError
            elif self.type is int and float(value) != int(value):
                raise ValueError
            fit = self.type(value)
        except (TypeError, ValueError, OverflowError):
            raise BadOption(f"{flag} takes {_word(self.type)}, not {value!r}.", hint=self.says) from None
        if self.choices and fit not in self.choices:
            raise BadOption(f"{flag} must be one of {', '.join(map(str, self.choices))}, not {value!r}.")
        number = self.type in (int, float)
        below = number and self.low is not None and not fit >= self.low
        above = number and self.high is not None and not fit <= self.high
        if below or above:
            unit = f" {self.unit}" if self.unit else ""
            raise BadOption(f"{flag} must lie in {self.low} to {self.high}{unit}, not {value}.", hint=self.says)
        return fit


def _word(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, kind.__name__)


def knobs(params: type) -> tuple[Knob, ...]:
    """List the options of a `Params` dataclass in order of declaration."""
    kinds = get_type_hints(params)
    return tuple(
        Knob(
            entry.name,
            kinds[entry.name],
            entry.default,
            entry.metadata.get("says", ""),
            entry.metadata.get("low"),
            entry.metadata.get("high"),
            entry.metadata.get("unit", ""),
            entry.metadata.get("choices", ()),
        )
        for entry in dataclasses.fields(params)
    )


def settings(params: type, given: Mapping[str, Any], owner: str) -> Any:
    """Return a `Params` record from plain values, each in its option's type.

    Parameters
    ----------
    params : type
        Frozen dataclass of `knob` fields.
    given : mapping of str to plain values
    owner : str
        Name of the model or tool, for the message.

    Raises
    ------
    BadOption
        For an unknown option, a wrong kind or a value out of range.
    """
    known = {k.name: k for k in knobs(params)}
    for name in given:
        if name not in known:
            there = ", ".join(known) or "none"
            raise BadOption(f"{owner} has no option '{name}'.", hint=f"Its options: {there}.")
    return params(**{name: known[name].checked(value) for name, value in given.items()})


@dataclass(frozen=True)
class NoParams:
    """For a model without options."""


@dataclass(frozen=True)
class Wants:
    """What a model expects of the scan it is given; `tasks` brings the scan there and the answer home.

    Parameters
    ----------
    axes : str
        Storage order the model is given the scan in (``"RAS"``), or ``""`` for the scan's own.
    min_slices : int
        Smallest side it can work on, voxels; a thinner scan is refused with a sentence.
    frames : bool
        Whether it takes a 4D scan whole; otherwise 4D scans are run frame by frame.
    min_frames : int
        Fewest frames a 4D model can work with.
    others : int
        How many further scans of the patient it can take along; if more than 0, its `run` is given a fourth
        argument: a tuple of them, each in storage order `axes`.
    least_others : int
        How many of these it cannot do without.
    """

    axes: str = "RAS"
    min_slices: int = 3
    frames: bool = False
    min_frames: int = 1
    others: int = 0
    least_others: int = 0


@dataclass(frozen=True)
class Weights:
    """A file of trained numbers.

    Parameters
    ----------
    file : str
        File name in the weights folder of the user, or of the package if `shipped`.
    sha256 : str
        Expected checksum in hex; empty where none is published.
    url : str
        Where `models fetch` gets it; empty where the user brings it.
    licence : str
    shipped : bool
        Whether it comes with the package.
    size : int
        Bytes, 0 if unknown.
    """

    file: str
    sha256: str = ""
    url: str = ""
    licence: str = ""
    shipped: bool = False
    size: int = 0


@dataclass(frozen=True)
class Card:
    """What a person wants to know of a model before trusting it.

    Parameters
    ----------
    name : str
        Short name, unique within the task; also the command-line name.
    task : Task
    title : str
        A few words for a menu.
    says : str
        One or two sentences: what it does, for which scans, and its limits.
    wants : Wants
    prompts : tuple of types
        Kinds of marks it takes (`Point`, `Box`, …).
    needs : tuple of str
        Import names of optional packages.
    weights : tuple of Weights
    licence : str
        Of the model's code and weights.
    cite : str
        Paper or source of the method.
    rank : int
        The default of a task is the available model of the highest rank; below 0 is never a default.
    invents : bool
        Whether it may invent texture; such a model is never the default and its results say so.
    """

    name: str
    task: Task
    title: str
    says: str = ""
    wants: Wants = Wants()
    prompts: tuple[type, ...] = ()
    needs: tuple[str, ...] = ()
    weights: tuple[Weights, ...] = ()
    licence: str = "BSD-3-Clause"
    cite: str = ""
    rank: int = 0
    invents: bool = False


class Runtime(Protocol):
    """What a model is handed when it runs. Tests hand it a toy one."""

    @property
    def device(self) -> str:
        """``"cpu"``, ``"cuda"`` or ``"mps"``."""

    @property
    def seed(self) -> int:
        """Seed for every random draw of the run."""

    def report(self, fraction: float, text: str = "") -> None:
        """Tell the progress, 0 to 1. Raises `Cancelled` when the user pressed stop."""

    def warn(self, sentence: str) -> None:
        """Tell the user something about the result; it enters the history."""

    def wants(self, name: str) -> bool:
        """Tell whether anybody looks at a by-product; one that takes long need not be worked out otherwise."""

    def offer(self, name: str, volume: Volume) -> None:
        """Hand over a by-product on the grid of the scan given to the model (distance map, residual …)."""

    def weights(self, weights: Weights) -> Path:
        """Return the checked file. Raises `WeightsProblem` with the way to get it."""

    def keep(self, key: str, make: Callable[[], Kept]) -> Kept:
        """Return what was kept under `key`, or make and keep it (nets stay warm between runs)."""

    def drawn(self, make: Callable[[], Kept]) -> Kept:
        """Return what `make` draws at random, as a net to be trained: from the seed on, whatever other threads do."""


class Session(ABC):
    """A model opened on one scan: slow once, then quick answers. Use it in a ``with`` block."""

    score: float | None = None
    """How sure the model is of its last answer, 0 to 1; None where it cannot say."""
    taken_for: str = ""
    """What it took the last question for, as "thalamus, left"; empty where it goes by the marks alone."""
    bounds: tuple[Slab, ...] = ()
    """Slices the next answer may lie in. `tasks` cuts the answer to them; a model may spare itself the work beyond."""

    @abstractmethod
    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask (1 = object) for all prompts given so far, on the grid of the scan."""

    def close(self) -> None:  # noqa: B027  (most sessions hold nothing that must be let go)
        """Let go of what the session holds."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Model:
    """A card, its options, and one of two ways to work.

    Parameters
    ----------
    card : Card
    params : type
        Frozen dataclass of `knob` fields.
    run : callable, optional
        ``run(scan, params, rt) -> Volume or Labels``, with a fourth argument if the card wants others. May be
        called from any thread, one at a time.
    open : callable, optional
        ``open(scan, params, rt) -> Session``, for prompted models.
    """

    card: Card
    params: type = NoParams
    run: Callable[..., Volume] | None = None
    open: Callable[[Volume, Any, Runtime], Session] | None = None

    def __post_init__(self) -> None:
        assert (self.run is None) != (self.open is None), f"{self.card.name} needs either run or open"

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The options, in order."""
        return knobs(self.params)

    def settings(self, given: Mapping[str, Any]) -> Any:
        """Return a `params` record from plain values.

        Raises
        ------
        BadOption
            For an unknown option, a wrong kind or a value out of range.
        """
        return settings(self.params, given, self.card.name)
