"""``convert`` and ``info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from napari_mri.cli.progress import told, warn
from napari_mri.cli.run import check_target, write
from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels, Volume


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--series", help="Which series of a DICOM folder (number or part of its name).")
@click.option("--labels", is_flag=True, help="Take IN as labels: whole numbers that have names.")
@click.option("--scan", metavar="FILE", help="Put IN on the voxels of this scan: masks, contours, NumPy arrays.")
@click.option("--resample", is_flag=True, help="Resample DICOM slices that are spaced unequally to equal steps.")
@click.option("--philips", type=click.Choice(["display", "precise"]), default="display", show_default=True,
              help="Which values of a Philips scan.")  # fmt: skip
@click.option("--nameless", is_flag=True, help="Leave out titles, header texts and history: nothing that tells whose it is.")
@click.option("--patient", is_flag=True, help="Carry the patient's name and number into a DICOM SEG, for an archive.")
def convert(source: str, target: str, **wish: Any) -> None:
    """Read IN (any format) and write it to OUT in the format of OUT's ending."""
    with told():
        check_target(target, source)
        if wish["nameless"] and wish["patient"]:
            raise BadOption("--nameless and --patient exclude each other.", hint="Give one of them.")
        volume = opened(source, **{key: wish[key] for key in ("series", "labels", "scan", "resample", "philips")})
        warn(volume.origin.warnings)
        if wish["nameless"]:
            from napari_mri.io.deidentified import nameless

            volume = nameless(volume)
        write(volume, target, patient=wish["patient"], sidecar=not wish["nameless"])


def opened(
    source: str, *, series: str | None, labels: bool, scan: str | None, resample: bool, philips: str
) -> Volume:
    """Open what `convert` is given, on the voxels of a scan where one is named."""
    from napari_mri.io.files import load, load_labels

    if scan is not None:
        from napari_mri.io.landing import onto

        return onto(Path(source), load(scan, series=series))
    if labels:
        return load_labels(source, series=series)
    return load(source, series=series, resample=resample, philips=philips)


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
    if "values" in volume.origin.fields:
        found["values"] = f"Philips, {volume.origin.fields['values']}"
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
        if "values" in row:
            click.echo(f"  values are {row['values']}; convert --philips precise writes the others")
        if "frames" in row:
            click.echo(f"  frames {row['frames']}")
        if "labels" in row:
            click.echo(f"  labels {row['labels']}")
        for action in row.get("history", ()):
            click.echo(f"  history: {action}")
        warn(volume.origin.warnings)


COMMANDS = {"convert": convert, "info": info}
