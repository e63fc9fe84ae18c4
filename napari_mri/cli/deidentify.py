"""``deidentify``: copies without the person, and without a face where asked for."""

from __future__ import annotations

from pathlib import Path

import click

from napari_mri.cli.progress import told
from napari_mri.cli.run import check_target, write


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--name", default="", help="New patient name and number (default: ANON- and six signs).")
@click.option(
    "--shift-days", type=int, help="Shift dates by that many days and keep times, instead of removing both."
)
@click.option("--drop-diffusion", is_flag=True, help="Remove the private elements that tell b-values, too.")
@click.option(
    "--face", is_flag=True, help="Blur the face of a head scan; OUT is then a volume such as .nii.gz."
)
@click.option("--brain", metavar="FILE", help="Brain mask for --face (default: skull-strip first).")
def deidentify(
    source: str,
    target: str,
    name: str,
    shift_days: int | None,
    drop_diffusion: bool,
    face: bool,
    brain: str | None,
) -> None:
    """Write copies of IN (a DICOM folder, or a volume) to OUT without the person, and tell what was removed.

    OUT is a new folder for DICOM. Look at the result before it leaves the house: text inside the
    image and faces are not found by a program.
    """
    with told():
        if face:
            check_target(target, source)
            _without_face(source, target, brain)
            return
        from napari_mri.io.deidentified import deidentify as copy
        from napari_mri.io.deidentify import Rules

        rules = Rules(name=name, shift_days=shift_days, keep_diffusion=not drop_diffusion)
        for line in copy(source, target, rules).lines():
            click.echo(line)


def _without_face(source: str, target: str, brain: str | None) -> None:
    from napari_mri.core.history import Order
    from napari_mri.core.volume import Labels
    from napari_mri.io.deidentified import nameless
    from napari_mri.io.face import blur_face
    from napari_mri.io.files import load, load_labels
    from napari_mri.registry import find
    from napari_mri.tasks import run

    scan = load(source)
    if brain:
        mask = load_labels(brain)
    else:
        found = run(Order("skullstrip", find("skullstrip").card.name), scan).result
        assert isinstance(found, Labels)
        mask = found
    write(nameless(blur_face(scan, mask)), target)
    click.echo(
        f"The face was blurred and the header's free text removed: {Path(target).name}. Look at it before sharing."
    )


COMMANDS = {"deidentify": deidentify}
