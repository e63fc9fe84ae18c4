"""The demo without a window: mask, history and a picture of three planes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from napari_mri import tasks
from napari_mri.cli.progress import running, warn
from napari_mri.core.history import Order
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.files import load, save


def demo_files(scan_path: str | None, out: str) -> tuple[Path, ...]:
    """Skull-strip a scan (the sample by default) and write mask, sidecar and PNG.

    Returns
    -------
    tuple of Path
        The mask, its sidecar and the picture.
    """
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
    picture.write_bytes(png(three_planes(scan.frame(0), mask.frame(0))))
    click.echo(f"{mask.history[-1].action}: {mask.frame(0).volume_ml():.0f} ml", err=True)
    return written, *sorted(folder.glob("brain_mask*.json")), picture


def three_planes(scan: Volume, mask: Labels) -> NDArray[np.uint8]:
    """Draw axial, coronal and sagittal slices through the mask's middle with its outline, in true proportions.

    Radiological view: the patient's left is on the right of the picture.

    Returns
    -------
    ndarray, (H, W, 3) uint8
    """
    seen, drawn = scan.turned("LPS"), mask.turned("LPS").data > 0
    places = np.argwhere(drawn)
    middle = places.mean(0).round().astype(int) if len(places) else np.asarray(seen.grid.shape) // 2
    values = seen.data.astype(np.float32)
    low, high = np.percentile(values, [1, 99.5])
    grey = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    pictures = []
    for axis in (2, 1, 0):
        flat = np.take(grey, middle[axis], axis=axis).T
        edge = _outline(np.take(drawn, middle[axis], axis=axis).T)
        across, down = [s for n, s in enumerate(seen.spacing) if n != axis]
        picture = np.repeat(flat[..., None] * 255, 3, axis=2)
        picture[edge] = (255, 80, 40)
        if axis != 2:
            picture = picture[::-1]  # superior at the top
        pictures.append(_scaled(picture.astype(np.uint8), down, across))
    height = max(p.shape[0] for p in pictures)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 8), (0, 0))) for p in pictures]
    return np.concatenate(padded, axis=1)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.asarray(mask & ~core)


def _scaled(picture: NDArray[np.uint8], down: float, across: float) -> NDArray[np.uint8]:
    """Repeat pixels so that one picture pixel is 0.5 mm both ways."""
    rows = (np.arange(round(picture.shape[0] * down / 0.5)) * 0.5 / down).astype(int).clip(max=picture.shape[0] - 1)
    columns = (np.arange(round(picture.shape[1] * across / 0.5)) * 0.5 / across).astype(int).clip(max=picture.shape[1] - 1)
    return picture[rows][:, columns]


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) uint8 picture as a PNG file."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
