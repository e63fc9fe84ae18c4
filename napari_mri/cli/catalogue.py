"""``models list | show | fetch``."""

from __future__ import annotations

import json

import click

from napari_mri.cli.progress import Progress, told
from napari_mri.core.errors import UnknownModel
from napari_mri.core.model import TASKS, Model

FILES = ("checkpoint", "encoder")
"""Options that name a file of weights."""


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List, show and fetch models."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(_list)


@models.command("list")
@click.option("--task", type=click.Choice(list(TASKS)), help="Only those of one task.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def _list(task: str | None = None, as_json: bool = False) -> None:
    """List the models, the default of each task first, and say why one cannot be used."""
    with told():
        from napari_mri.registry import list_models

        listed = list_models(task)
    if as_json:
        rows = [{"name": e.name, "task": e.task, "title": e.title, "available": e.available, "reason": e.reason}
                for e in listed]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
        return
    last = ""
    for entry in listed:
        if entry.task != last:
            click.echo(f"{TASKS[entry.task].title if entry.task in TASKS else entry.task}")
            last = entry.task
        click.echo(f"  {entry.name:<14} {entry.title}" + (f"  – {entry.reason}" if entry.reason else ""))


def _named(name: str) -> Model:
    from napari_mri.registry import list_models

    for entry in list_models():
        if entry.name == name and entry.model is not None:
            return entry.model
    names = ", ".join(e.name for e in list_models())
    raise UnknownModel(f"There is no model '{name}'.", hint=f"Models: {names}.")


@models.command("show")
@click.argument("name")
def _show(name: str) -> None:
    """Show the card of a model: what it does, its options, licence and source."""
    with told():
        model = _named(name)
        from napari_mri.engine import weights
        from napari_mri.registry import why_not

        reason = why_not(model)
    card = model.card
    click.echo(f"{card.name} ({card.task.title}): {card.title}")
    rows = {"about": card.says, "licence": card.licence, "source": card.cite, "needs": ", ".join(card.needs),
            "prompts": ", ".join(kind.kind for kind in card.prompts), "state": reason or "ready"}  # fmt: skip
    for label, text in rows.items():
        if text:
            click.echo(f"  {label:<9}{text}")
    for weight in card.weights:
        where = "shipped" if weight.shipped else f"expected at {weights.place(weight)}"
        click.echo(f"  weights  {weight.file} ({where}; {weight.licence or card.licence})")
    for knob in model.knobs:
        limits = "" if knob.low is None and knob.high is None else f" ({knob.low} to {knob.high} {knob.unit})".replace(" )", ")")
        click.echo(f"  --{knob.name.replace('_', '-')} = {knob.default}{limits}: {knob.says}")


@models.command("fetch")
@click.argument("name")
def _fetch(name: str) -> None:
    """Download the weights of a model once, and check them."""
    with told():
        from napari_mri.engine import weights

        model = _named(name)
        if not model.card.weights:
            files = [f"--{knob.name}" for knob in model.knobs if knob.name in FILES]
            click.echo(f"{name} takes a file of yours ({', '.join(files)})." if files else f"{name} needs no weights.")
        progress = Progress()
        for weight in model.card.weights:
            path = weights.fetch(weight, progress)
            progress.close()
            click.echo(str(path))


COMMANDS = {"models": models}
