"""The demo without a window: mask, history and a picture of three planes."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from napari_mri import tasks
from napari_mri.cli.progress import running, warn
from napari_mri.core.history import Order
from napari_mri.core.volume import Labels
from napari_mri.io.files import load, save


def demo_files(scan_path: str | None, out: str) -> tuple[Path, ...]:
    """Skull-strip a scan (the sample by default) and write mask, sidecar and PNG.

    Returns
    -------
    tuple of Path
        The mask, its sidecar and the picture.
    """
    from napari_mri.measure.picture import png, three_planes
    from napari_mri.sample import nifti_head

    scan = load(scan_path or nifti_head())
    warn(scan.origin.warnings)
    with running() as rt:
        outcome = tasks.run(Order("skullstrip", "auto"), scan, rt)
    warn(outcome.warnings)
    mask = outcome.result
    assert isinstance(mask, Labels)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written = save(mask, folder / "brain_mask.nii.gz")
    picture = folder / "brain_mask.png"
    picture.write_bytes(png(side_by_side(three_planes(mask, scan, width=480))))
    click.echo(f"{mask.history[-1].action}: {mask.frame(0).volume_ml():.0f} ml", err=True)
    return written, *sorted(folder.glob("brain_mask*.json")), picture


def side_by_side(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Return RGB pictures in one row, on black, each (H, W, 3) uint8."""
    high = max(picture.shape[0] for picture in pictures.values())
    padded = [np.pad(p, ((0, high - p.shape[0]), (0, 8), (0, 0))) for p in pictures.values()]
    return np.concatenate(padded, axis=1)
