"""``segment``: points, boxes and scribbles in patient millimetres -> a mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from napari_mri.cli.flags import GrownCommand, picked
from napari_mri.cli.progress import running, told, warn
from napari_mri.cli.run import DEVICES, check_target, grow_model, read, write
from napari_mri.core.errors import BadPrompt
from napari_mri.core.history import Order
from napari_mri.core.prompts import Box, Mark, Point, Prompts


def point(text: str) -> Point:
    """Read ``X,Y,Z`` or ``X,Y,Z,-`` (a point outside the object), patient mm, RAS+.

    Raises
    ------
    BadPrompt
    """
    parts = [part.strip() for part in text.split(",")]
    positive = True
    if len(parts) == 4 and parts[3] in ("+", "-"):
        positive = parts.pop() == "+"
    return Point(_numbers(parts, 3, text), positive)  # type: ignore[arg-type]


def box(text: str) -> Box:
    """Read ``X1,Y1,Z1,X2,Y2,Z2``, two opposite corners, patient mm, RAS+.

    Raises
    ------
    BadPrompt
    """
    numbers = _numbers(text.split(","), 6, text)
    return Box(numbers[:3], numbers[3:])  # type: ignore[arg-type]


def _numbers(parts: list[str], count: int, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise BadPrompt(f"'{text}' is not {count} numbers with commas between.", hint="Points: X,Y,Z in mm, RAS+; ',-' for outside.")
    return numbers


def marks_in(path: str) -> tuple[Mark, ...]:
    """Read prompts from a JSON file: a list of records as in a sidecar, or one list of points.

    Raises
    ------
    BadPrompt
    """
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadPrompt(f"{path} cannot be read as prompts: {error}.", hint='Write [{"kind": "scribble", "points": [[x, y, z], …]}].') from None
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = [{"kind": "scribble", "points": found}]
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise BadPrompt(f"{path} holds no list of prompts.", hint='Write [{"kind": "scribble", "points": [[x, y, z], …]}].')
    return Prompts.from_json(found).marks


def _segment(source: str, target: str, model: str, device: str, series: str | None, **rest: Any) -> None:
    ctx = click.get_current_context()
    params = picked(ctx.meta["napari_mri.knobs"], rest)
    with told(), running(device) as rt:
        from napari_mri import tasks

        marks: list[Mark] = [*map(point, rest["point"]), *map(box, rest["box"])]
        for path in rest["scribble"]:
            marks.extend(marks_in(path))
        if not marks:
            raise click.UsageError("Give at least one --point, --box or --scribble.", ctx)
        check_target(target, source, holds="labels")
        scan = read(source, series)
        with tasks.open_session(Order("segment", model, params), scan, rt) as session:
            labels = session.answer(Prompts(tuple(marks)))
        if session.taken_for:
            click.echo(f"Taken for: {session.taken_for}", err=True)
        warn(tuple(rt.warnings))
        write(labels, target)


segment = GrownCommand(
    name="segment",
    params=[
        click.Argument(["source"], metavar="IN"),
        click.Argument(["target"], metavar="OUT"),
        click.Option(["--point"], multiple=True, metavar="X,Y,Z[,-]", help="A click in the object (with ,- outside it)."),
        click.Option(["--box"], multiple=True, metavar="X1,Y1,Z1,X2,Y2,Z2", help="A box around the object."),
        click.Option(["--scribble"], multiple=True, metavar="FILE", help="Prompts in a JSON file."),
        click.Option(["--model"], default="auto", show_default=True, help="Name of the model."),
        click.Option(["--device"], type=DEVICES, default="auto", show_default=True, help="Where to compute."),
        click.Option(["--series"], help="Which series of a DICOM folder (number or part of its name)."),
    ],
    callback=_segment,
    help="Segment in the scan IN what the prompts show and write the mask to OUT. All places are in patient mm, RAS+.",
    grow=grow_model("segment"),
)

COMMANDS = {"segment": segment}
