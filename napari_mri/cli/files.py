"""``convert`` and ``info``."""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from napari_mri.cli.progress import told, warn
from napari_mri.cli.run import check_target, read, write
from napari_mri.core.volume import Labels, Volume


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--series", help="Which series of a DICOM folder (number or part of its name).")
def convert(source: str, target: str, series: str | None) -> None:
    """Read IN (any format) and write it to OUT in the format of OUT's ending."""
    with told():
        check_target(target, source)
        write(read(source, series), target)


def facts(volume: Volume) -> dict[str, Any]:
    """Return what a person asks of a volume, as plain values. No patient data."""
    grid = volume.grid
    sample = np.asarray(volume.data)
    found: dict[str, Any] = {
        "title": volume.title, "format": volume.origin.format, "kind": type(volume).__name__.lower(),
        "shape": list(volume.data.shape), "spacing_mm": [round(s, 6) for s in grid.spacing], "axes": grid.axes,
        "obliquity_deg": round(grid.obliquity, 3), "affine": grid.affine.tolist(), "dtype": str(volume.data.dtype),
        "size_mm": [round(s, 3) for s in grid.size_mm], "centre_mm": [round(float(c), 3) for c in grid.centre],
    }  # fmt: skip
    if sample.dtype.kind in "biuf":
        found["range"] = [float(sample.min()), float(sample.max())]
    if volume.frames is not None:
        frames = volume.frames
        found["frames"] = {"kind": frames.kind, "count": volume.n_frames, "step": frames.step, "unit": frames.unit}
        if frames.bvals:
            found["frames"]["bvals"] = sorted(set(frames.bvals))
    if isinstance(volume, Labels):
        found["labels"] = {value: volume.names.get(value, "") for value in volume.values}
    if volume.origin.warnings:
        found["warnings"] = list(volume.origin.warnings)
    if volume.history:
        found["history"] = [step.action for step in volume.history]
    return found


@click.command()
@click.argument("source", metavar="IN")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(source: str, as_json: bool) -> None:
    """Tell what is in the file or folder IN: every series, where it lies, what it holds."""
    with told():
        from napari_mri.io.files import load_all

        volumes = load_all(source)
        rows = [facts(volume) for volume in volumes]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for volume, row in zip(volumes, rows, strict=True):
        click.echo(repr(volume))
        low, high = row.get("range", (0, 0))
        click.echo(f"  values {low:g} to {high:g}; middle at {row['centre_mm']} mm (RAS+); {row['size_mm']} mm")
        if "frames" in row:
            click.echo(f"  frames {row['frames']}")
        if "labels" in row:
            click.echo(f"  labels {row['labels']}")
        for action in row.get("history", ()):
            click.echo(f"  history: {action}")
        warn(volume.origin.warnings)


COMMANDS = {"convert": convert, "info": info}
