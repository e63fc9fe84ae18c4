"""``skullstrip``, ``denoise``, ``superres`` and ``replay``: run a model, write its result."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_mri.cli.flags import GrownCommand, picked, word_after
from napari_mri.cli.progress import begins, running, told, warn
from napari_mri.core.errors import FileProblem, UnknownModel, UnsupportedImage
from napari_mri.core.history import Order
from napari_mri.core.model import TASKS, Knob
from napari_mri.core.volume import Volume

if TYPE_CHECKING:
    from napari_mri.tasks import Outcome

SEVERAL = ("superres",)
"""Tasks with a model that takes further scans along."""
DEVICES = click.Choice(["auto", "cuda", "mps", "cpu"])


def grow_model(task: str) -> Callable[[Sequence[str]], tuple[tuple[Knob, ...], str]]:
    """Return the function that finds the flags of the model named among raw arguments."""

    def grow(args: Sequence[str]) -> tuple[tuple[Knob, ...], str]:
        from napari_mri import registry

        wish = word_after(args, "--model") or "auto"
        listed = registry.list_models(task)
        names = ", ".join(entry.name for entry in listed)
        model = next((entry.model for entry in listed if entry.name == wish), None)
        if model is None:
            several = max(0, _words(args) - 2) if task in SEVERAL else 0
            try:
                model = registry.find(task, wish, several)
            except UnknownModel:
                if "--help" in args:
                    return (), f"Models: {names}."
                with told():  # before flags that only a model knows are called unknown
                    raise
        return model.knobs, f"Flags of the model '{model.card.name}' are shown. All models: {names}."

    return grow


def _words(args: Sequence[str]) -> int:
    """Count the arguments that are neither flags nor, as far as can be told, their values."""
    named = [n for n, arg in enumerate(args) if arg.startswith("--") and "=" not in arg and not arg.startswith("--no-")]
    taken = {n + 1 for n in named} | {n + 2 for n in named if args[n] == "--extra"}
    return sum(not arg.startswith("--") and n not in taken for n, arg in enumerate(args))


def read(path: str, series: str | None) -> Volume:
    """Read one scan and tell its warnings."""
    from napari_mri.io.files import load

    scan = load(path, series=series)
    warn(scan.origin.warnings)
    return scan


def read_all(paths: Sequence[str], series: Sequence[str]) -> list[Volume]:
    """Read scans and tell their warnings; the n-th series is one of the n-th folder among them, or of the n-th file."""
    folders = [n for n, path in enumerate(paths) if Path(path).is_dir()] or list(range(len(paths)))
    if len(series) > len(folders):
        raise click.UsageError(f"{len(series)} series are named for {len(folders)} folders or files.")
    chosen = dict(zip(folders, series, strict=False))
    return [read(path, chosen.get(n)) for n, path in enumerate(paths)]


def check_target(target: str, *sources: str, holds: str = "") -> None:
    """Refuse, before any work, a place the result could not be written to.

    Parameters
    ----------
    target, sources : str
    holds : str
        What the result is, ``"labels"`` or ``"volume"``, if that is known.

    Raises
    ------
    FileProblem
        If its format or folder does not exist, or it is a folder, or one of the scans.
    UnsupportedImage
        If its format cannot hold the result.
    """
    from napari_mri.io.files import writer_of

    path = Path(target)
    fmt, ending = writer_of(path)
    if holds and holds not in fmt.kept_by(ending):
        what = "labels" if holds == "labels" else "grey values"
        raise UnsupportedImage(f"A {ending} file cannot hold {what} ({path.name}).", hint="Save as .nii.gz.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileProblem(f"The folder of {target} does not exist.", hint="Make it first, or choose another.")
    if not os.access(folder, os.W_OK):
        raise FileProblem(f"Nothing can be written to {folder}.", hint="Choose another folder.")
    for source in sources:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise FileProblem(f"{target} is the scan itself.", hint="Give the result another name.")


def write(volume: Volume, target: str, *, patient: bool = False, sidecar: bool = True) -> None:
    """Write a result (see `export`), say where it is and what its format does not keep."""
    from napari_mri.io.export import export, unkept

    begins(target)
    click.echo(str(export(volume, target, patient=patient, sidecar=sidecar)))
    warn(unkept(volume, target))


def _brain(scan: Volume, mask: Volume) -> Volume:
    """Return the scan with all but the brain set to 0."""
    step = mask.history[-1]
    assert step.order is not None
    return scan.with_data(scan.data * (mask.data != 0)).after(step.by_product(f"brain by {step.order.model}"))


def _run(task: str, target: str, model: str, device: str, series: str | tuple[str, ...] | None, **rest: Any) -> None:
    source, *more = rest["sources"] if task in SEVERAL else (rest["source"],)
    ctx = click.get_current_context()
    params = picked(ctx.meta["napari_mri.knobs"], rest)
    with told(), running(device) as rt:
        from napari_mri import tasks

        rt.result_only = not rest.get("extra")
        targets = [target, *filter(None, (rest.get("brain"),)), *(path for _, path in rest.get("extra") or ())]
        for path in targets:
            mask = path == target and task == "skullstrip"
            check_target(path, source, *more, holds="labels" if mask else "volume")
            if sum(Path(path).absolute() == Path(other).absolute() for other in targets) > 1:
                raise FileProblem(f"Two results would be written to {path}.", hint="Give each a name of its own.")
        scan, *others = read_all([source, *more], series if isinstance(series, tuple) else [series] if series else [])
        outcome = tasks.run(Order(task, model, params), scan, rt, others)
        warn(outcome.warnings)
        write(outcome.result, target)
        if rest.get("brain"):
            write(_brain(scan, outcome.result), rest["brain"])
        extras = rest.get("extra") or ()
        for name, path in extras:
            if name in outcome.extras:
                write(outcome.extras[name], path)
        lacking = [name for name, _ in extras if name not in outcome.extras]
        if lacking:
            there = ", ".join(outcome.extras) or "none"
            raise FileProblem(f"The model gives no '{lacking[0]}'.", hint=f"By-products of this run: {there}.")


def _command(task: str) -> click.Command:
    params: list[click.Parameter] = [
        click.Argument(["sources"], metavar="IN [IN2 …]", nargs=-1, required=True)
        if task in SEVERAL
        else click.Argument(["source"], metavar="IN"),
        click.Argument(["target"], metavar="OUT"),
        click.Option(["--model"], default="auto", show_default=True, help="Name of the model."),
        click.Option(["--device"], type=DEVICES, default="auto", show_default=True, help="Where to compute."),
        click.Option(["--series"], multiple=task in SEVERAL, help="Which series of a DICOM folder (number or part of its name)"
                     + ("; once for each folder, in their order." if task in SEVERAL else ".")),
        click.Option(["--extra"], type=(str, str), multiple=True, metavar="NAME FILE",
                     help="Write a by-product (distance, uncertainty, residual, …) as well."),
    ]  # fmt: skip
    if task == "skullstrip":
        params.append(click.Option(["--brain"], metavar="FILE", help="Write the scan with all but the brain set to 0."))
    says = {
        "skullstrip": "Find the brain in the head scan IN and write its mask to OUT.",
        "denoise": "Take the noise out of the scan IN and write the result to OUT.",
        "superres": "Write the scan IN on a finer grid to OUT. Further scans of the patient help, where the model "
        "takes them (inr: other contrasts or planes; dynamic: a static scan of the same place).",
    }[task]
    return GrownCommand(
        name=task, params=params, callback=functools.partial(_run, task), help=says, grow=grow_model(task)
    )


@click.command()
@click.argument("sidecar")
@click.argument("source", metavar="[IN]", required=False)
@click.argument("target", metavar="[OUT]", required=False)
@click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where to compute.")
def replay(sidecar: str, source: str | None, target: str | None, device: str) -> None:
    """Carry out the order in SIDECAR again, on the scan IN, and write the result to OUT.

    Without IN, the scan is looked for beside the sidecar by its content. Without OUT, the result is
    compared with the one beside the sidecar and nothing is written.
    """
    with told(), running(device) as rt:
        from napari_mri.cli._replay import again

        if target:
            check_target(target, *filter(None, (source,)))
        outcome, same = again(Path(sidecar), source, rt)
        warn(outcome.warnings)
        if target:
            write(outcome.result, target)
        if same is not None:
            click.echo("Same voxels as before." if same else f"The voxels DIFFER from those beside the sidecar.{_why(outcome)}")
            if not same:
                raise click.exceptions.Exit(1)
        elif not target:
            click.echo("Done; give OUT to keep the result.")


def _why(outcome: Outcome) -> str:
    """Return what may have made a repeated run differ, if it is known of its model."""
    order = outcome.result.history[-1].order
    by_time = order is not None and "minutes" in order.params
    return " Learning that was ended by time (--minutes) cannot be repeated exactly: give --steps." if by_time else ""


COMMANDS = {**{task: _command(task) for task in TASKS if task != "segment"}, "replay": replay}
