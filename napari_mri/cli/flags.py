"""Grow command-line flags from the options that models and tools declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from napari_mri.core.model import Knob

_ROOM = 6


def flag(knob: Knob) -> click.Option:
    """Return the flag of one option: type, range, default, unit and sentence as declared."""
    name = "--" + knob.name.replace("_", "-")
    says = knob.says + (f" [{knob.unit}]" if knob.unit else "")
    kind: Any = None
    if knob.choices:
        kind = click.Choice([str(choice) for choice in knob.choices])
    elif knob.type is int:
        kind = click.IntRange(_int(knob.low), _int(knob.high))
    elif knob.type is float:
        kind = click.FloatRange(knob.low, knob.high)
    elif knob.type is bool:
        pair = f"{name}/--no-{name[2:]}"
        return click.Option([pair], default=knob.default, help=says, show_default=True)
    else:
        kind = str
    shown = knob.default not in ("", None)
    return click.Option([name], type=kind, default=knob.default, help=says, show_default=shown)


def _int(value: float | None) -> int | None:
    return None if value is None else int(value)


def picked(knobs: Iterable[Knob], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of these options in their own types, as given on the command line or by default."""
    found: dict[str, Any] = {}
    for knob in knobs:
        value = values[knob.name]
        if knob.choices:  # click hands a choice back as text
            value = next(choice for choice in knob.choices if str(choice) == str(value))
        found[knob.name] = value
    return found


def word_after(args: Sequence[str], name: str) -> str | None:
    """Return the value of ``--name VALUE`` or ``--name=VALUE`` in raw arguments, if given."""
    for place, arg in enumerate(args):
        if arg == name and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(name + "="):
            return arg.split("=", 1)[1]
    return None


class GrownCommand(click.Command):
    """A command with further flags that depend on a word among its arguments (the model's name).

    Parameters
    ----------
    grow : callable
        ``grow(args) -> (knobs, epilog)``: the further options for these raw arguments, and a line
        for the help page.
    """

    def __init__(self, *args: Any, grow: Callable[[Sequence[str]], tuple[tuple[Knob, ...], str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grow = grow

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look up the further flags, then parse as usual."""
        ctx.meta["napari_mri.knobs"], self.epilog = self._grow(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the grown ones."""
        own = super().get_params(ctx)
        taken = {name for param in own for name in param.opts}
        grown = [flag(knob) for knob in ctx.meta.get("napari_mri.knobs", ())]
        return [*own[:-1], *(g for g in grown if not taken & set(g.opts)), *own[-1:]]
