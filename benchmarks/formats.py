"""Measures the readers and writers of other formats than NIfTI and DICOM images, against known libraries.

``python -m benchmarks.formats`` prints a table; ``--json FILE`` also keeps the numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.files import load, load_labels, save
from napari_mri.io.formats import all_formats
from napari_mri.io.landing import landed
from napari_mri.io.rtstruct import read_onto


def best(work: Callable[[], Any], rounds: int) -> float:
    """Return the shortest of several runs, seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def in_turns(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the median seconds of two pieces of work done in turns, the other first every second time."""
    times: dict[Any, list[float]] = {one: [], other: []}
    for number in range(rounds):
        for work in (one, other) if number % 2 else (other, one):
            times[work].append(best(work, 1))
    return float(np.median(times[one])), float(np.median(times[other]))


def ten_balls(side: int) -> Labels:
    """Return ten balls, none of which is empty, in a cube of `side` voxels of 1 mm."""
    data = np.zeros((side,) * 3, np.uint8)
    z, y, x = np.ogrid[:side, :side, :side]
    for n in range(10):
        centre = side * (0.15 + 0.075 * n)
        data[(z - centre) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2 < (0.2 * side) ** 2] = n + 1
    return Labels(data, Grid.plain((side,) * 3), names={n: f"part {n}" for n in range(1, 11)})


def seg(folder: Path, side: int, rounds: int) -> list[dict[str, Any]]:
    """Time DICOM SEG against highdicom used plainly, on the same labels."""
    import highdicom as hd

    from napari_mri.io import seg_write

    labels = ten_balls(side)
    ours, plain = folder / "ours.seg.dcm", folder / "plain.dcm"

    def write_plain() -> None:
        source = seg_write._stand_in(labels.grid)
        described = [seg_write._described(hd, n, n, labels) for n in range(1, 11)]
        volume = seg_write._volume(
            hd, np.ascontiguousarray(labels.data.T), labels.grid, source.FrameOfReferenceUID
        )
        made = hd.seg.Segmentation(
            [source], volume, "BINARY", described, hd.UID(), 1, hd.UID(), 1, "x", "x", "1", "0"
        )  # fmt: skip
        made.save_as(plain)

    write_plain()  # highdicom loads its tables once a process
    save(labels, ours, sidecar=False)
    ours_write, theirs_write = in_turns(lambda: save(labels, ours, sidecar=False), write_plain, 5 * rounds)
    ours_read, theirs_read = in_turns(
        lambda: load_labels(ours), lambda: hd.seg.segread(plain).get_volume(combine_segments=True), 3 * rounds
    )
    assert np.array_equal(landed(load_labels(ours), labels).data, labels.data)
    what = f"DICOM SEG, 10 labels on {side}³"
    return [
        {"what": f"{what}, write", "ours_s": ours_write, "other": "highdicom", "other_s": theirs_write},
        {"what": f"{what}, read", "ours_s": ours_read, "other": "highdicom", "other_s": theirs_read},
    ]


def volumes(folder: Path, side: int, rounds: int) -> list[dict[str, Any]]:
    """Time NRRD, MetaImage and MGZ against SimpleITK and nibabel."""
    import nibabel as nib
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.add.outer(np.arange(side), np.arange(side)), np.arange(side))
    scan = Volume((smooth + rng.integers(0, 30, (side,) * 3)).astype(np.int16), Grid.plain((side,) * 3))
    rows = []
    for ending, other, read in (
        (".nrrd", "SimpleITK", lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))),
        (".mha", "SimpleITK", lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))),
        (".mgz", "nibabel", lambda path: np.asarray(nib.load(path).dataobj)),
    ):
        path = save(scan, folder / f"a{ending}", sidecar=False)
        theirs = best(lambda read=read, path=path: read(path), rounds)  # type: ignore[misc]
        mine = best(lambda path=path: np.asarray(load(path).data), rounds)  # type: ignore[misc]
        rows.append(
            {"what": f"{ending} int16 {side}³, read", "ours_s": mine, "other": other, "other_s": theirs}
        )
    return rows


def turned_grids() -> dict[str, Grid]:
    """Return 48 storage orders, an oblique and an anisotropic grid."""
    found = {}
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * signs * 1.0
            affine[:3, 3] = (3, -8, 5)
            found[f"{order}{signs}"] = Grid((7, 5, 4), affine)
    oblique = np.array([[0.9, 0.3, 0.1, 4], [-0.3, 1.0, 0.2, -7], [-0.05, -0.2, 1.9, 2], [0, 0, 0, 1.0]])
    u, _, vt = np.linalg.svd(oblique[:3, :3])
    oblique[:3, :3] = (u @ vt) * (1.1, 0.9, 1.9)
    found["oblique"] = Grid((7, 5, 4), oblique)
    found["anisotropic"] = Grid((9, 8, 3), np.diag([0.47, 0.61, 6.5, 1.0]))
    return found


def round_trips(folder: Path) -> list[dict[str, Any]]:
    """Count the voxels that differ after writing labels in every format and every storage order."""
    rows = []
    for fmt in all_formats():
        if fmt.write is None or "labels" not in fmt.holds or fmt.name == "surface":
            continue
        differ = cases = 0
        for grid in turned_grids().values():
            rng = np.random.default_rng(cases)
            labels = Labels(rng.integers(0, 5, grid.shape).astype(np.uint8), grid)
            path = save(labels, folder / f"a{fmt.endings[0]}", sidecar=False)
            back = read_onto(path, labels) if fmt.name == "rtstruct" else landed(load_labels(path), labels)
            differ += int((back.data != labels.data).sum())
            cases += 1
        rows.append(
            {"what": f"{fmt.title}, round trip in {cases} storage orders", "voxels_that_differ": differ}
        )
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = round_trips(folder)
        rows += volumes(folder, wish.side, wish.rounds)
        rows += seg(folder, wish.side, wish.rounds)
    for row in rows:
        if "ours_s" in row:
            ratio = row["ours_s"] / row["other_s"]
            print(
                f"| {row['what']} | {row['ours_s']:.2f} s | {row['other']} {row['other_s']:.2f} s | {ratio:.2f} |"
            )
        else:
            print(f"| {row['what']} | {row['voxels_that_differ']} voxels differ | | |")
    if wish.json:
        wish.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
