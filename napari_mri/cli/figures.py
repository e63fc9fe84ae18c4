"""``measure``: volumes of labels, agreement with a second mask, a report on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from napari_mri.cli.progress import told, warn


@click.command()
@click.argument("mask", metavar="MASK")
@click.option("--against", metavar="MASK2", help="A reference on the same grid: Dice, HD95, surface distances.")
@click.option("--scan", metavar="FILE", help="The scan on the same grid: grey values within each label.")
@click.option("--lesions", type=click.Choice(["isles", "brats-glioma", "brats-mets"]), help="Count lesion by lesion as this definition does.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "csv_path", metavar="FILE", help="Write the volumes as CSV (agreement beside it).")
@click.option("--report", "report_path", metavar="FILE.html", help="Write a page with pictures and history.")
def measure(mask: str, as_json: bool, csv_path: str | None, report_path: str | None, **given: str | None) -> None:
    """Tell the volume (ml) of each label in MASK and, with --against, how two masks agree."""
    with told():
        from napari_mri.io.files import load, load_labels
        from napari_mri.measure.report import Extras, html_report, tables
        from napari_mri.measure.table import csv_text, json_text, write_text

        labels = load_labels(mask)
        warn(labels.origin.warnings)
        scan = load(given["scan"]) if given["scan"] else None
        against = load_labels(given["against"]) if given["against"] else None
        extras = Extras(scan, against, given["lesions"] or "")
        found = tables(labels, extras)
        if csv_path:
            first = Path(csv_path)
            for name, rows in found.items():
                target = first if name == "volumes" else first.with_name(f"{first.stem}_{name}{first.suffix}")
                click.echo(str(write_text(csv_text(rows), target)), err=True)
        if report_path:
            click.echo(str(write_text(html_report(labels, extras, found), report_path)), err=True)
        if as_json:
            click.echo(json_text(found), nl=False)
            return
        for name, rows in found.items():
            click.echo(name.capitalize())
            for row in rows or [{}]:
                click.echo("  " + "  ".join(_shown(key, value) for key, value in row.items() if _counts(value)))


def _counts(value: Any) -> bool:
    return value is not None and value != "" and value == value  # NaN is not equal to itself


def _shown(key: str, value: Any) -> str:
    return f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"


COMMANDS = {"measure": measure}
