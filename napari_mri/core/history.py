"""What was done to a volume: orders given, and the steps that came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from napari_mri.core.errors import MriError

Kind = TypeVar("Kind")


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


@dataclass(frozen=True)
class Order:
    """One wish of the user: a button press, a command line, a batch row, a line of history.

    Parameters
    ----------
    task : str
        Name of the task, e.g. ``"skullstrip"``.
    model : str
        Name of the model.
    params : mapping of str to plain values
        The model's options that differ from nothing: every option is written out.
    """

    task: str
    model: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", _frozen(self.params))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {"task": self.task, "model": self.model, "params": dict(self.params)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Order:
        """Rebuild an order from `to_json`."""
        return cls(str(record["task"]), str(record["model"]), dict(record.get("params", {})))

    def __reduce__(self) -> tuple[Any, ...]:
        return Order, (self.task, self.model, dict(self.params))


@dataclass(frozen=True)
class Step:
    """One thing that happened to a volume, in words and in facts.

    Parameters
    ----------
    action : str
        What a person calls it, e.g. ``"skullstrip by skullnet"`` or ``"edited by hand"``.
    order : Order, optional
        The order that can be given again to repeat it.
    facts : mapping of str to plain values
        Device, seconds, versions, weights' sha256, fingerprint of the input, … No patient data.
    warnings : tuple of str
        Sentences the user was shown.
    """

    action: str
    order: Order | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", _frozen(self.facts))

    def fact(self, name: str, kind: type[Kind], default: Kind) -> Kind:
        """Return a fact, or a default where it is not told.

        Raises
        ------
        MriError
            If what is told is of another kind: the history was damaged, or written by hand.
        """
        value = self.facts.get(name, default)
        if not isinstance(value, kind):
            raise MriError(
                f"The history of '{self.action}' is damaged: what it tells as '{name}' makes no sense.",
                hint="Give the .json as it was saved.",
            )
        return value

    def by_product(self, action: str) -> Step:
        """Return the step of what came along with a run: its facts, but not its order, which gives the result."""
        return Step(action, None, self.facts, self.warnings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        record: dict[str, Any] = {"action": self.action}
        if self.order is not None:
            record["order"] = self.order.to_json()
        if self.facts:
            record["facts"] = dict(self.facts)
        if self.warnings:
            record["warnings"] = list(self.warnings)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Step:
        """Rebuild a step from `to_json`."""
        order = record.get("order")
        return cls(
            str(record.get("action", "?")),
            Order.from_json(order) if order else None,
            dict(record.get("facts", {})),
            tuple(record.get("warnings", ())),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Step, (self.action, self.order, dict(self.facts), self.warnings)
