"""``view`` and ``demo``: the window, or the same without one."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec

import click

from napari_mri.cli.progress import told
from napari_mri.core.errors import MissingExtra, MriError


def has_display() -> bool:
    """Tell whether a window can be opened here."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


@click.command()
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
def view(sources: tuple[str, ...]) -> None:
    """Open scans and masks in napari, each where it lies in the patient."""
    with told(window=True):
        if find_spec("napari") is None:
            raise MissingExtra("The window needs napari.", hint="pip install 'napari-mri-workbench[all]'")
        if not has_display():
            raise MriError("There is no display here.", hint="Use the other verbs, or xvfb-run.")
        import_module("napari_mri.gui.demo").view(sources)  # by name: the faces do not know each other


@click.command()
@click.argument("scan", required=False)
@click.option("--out", metavar="FOLDER", default="napari_mri_demo", show_default=True,
              help="Where to write without a window.")  # fmt: skip
@click.option("--no-window", is_flag=True, help="Write files even where there is a display.")
def demo(scan: str | None, out: str, no_window: bool) -> None:
    """Skull-strip a sample head, or your SCAN, and show the result.

    With a display napari opens with the scan and its brain mask, ready to be corrected. Without one
    the mask, its history and a picture of three planes are written to a folder.
    """
    window = find_spec("napari") is not None and has_display() and not no_window
    with told(window):
        if window:
            import_module("napari_mri.gui.demo").demo(scan)
            return
        from napari_mri.cli._headless import demo_files

        for path in demo_files(scan, out):
            click.echo(str(path))


COMMANDS = {"view": view, "demo": demo}
