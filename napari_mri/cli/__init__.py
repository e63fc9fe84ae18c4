"""The command line: ``napari-mri VERB …``, the same verbs as in napari and in Python."""

from __future__ import annotations

from importlib import import_module

import click

_VERBS = {
    "skullstrip": "run", "denoise": "run", "superres": "run", "segment": "prompted", "edit": "edit",
    "convert": "files", "info": "files", "deidentify": "deidentify", "measure": "figures", "models": "catalogue", "replay": "run",
    "view": "window", "demo": "window",
}  # fmt: skip
_SAYS = {
    "skullstrip": "Find the brain in a head scan.",
    "denoise": "Take noise out of a scan.",
    "superres": "Make thick slices thin.",
    "segment": "Segment what points, boxes or scribbles show.",
    "edit": "Correct labels: islands, holes, smoothing, margins, …",
    "convert": "Read a scan and write it in another format.",
    "info": "Tell what is in a file or folder.",
    "deidentify": "Copy scans without the person.",
    "measure": "Volumes of labels, and how two masks agree.",
    "models": "List, show and fetch models.",
    "replay": "Make a result again from its sidecar.",
    "view": "Open scans in napari.",
    "demo": "See the main job on a sample head, or on your scan.",
}


class _Lazy(click.Group):
    """Verbs whose code is imported when they are asked for, so that --help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = import_module(f"napari_mri.cli.{_VERBS[cmd_name]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, _SAYS[name]) for name in _VERBS])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="napari-mri-workbench", prog_name="napari-mri")
def main() -> None:
    """MRI Workbench: models and label tools for MR scans, on this machine only.

    Scans are DICOM folders or files, NIfTI and more. Results lie exactly on the scan they came from;
    a .json beside each tells how it was made.
    """


