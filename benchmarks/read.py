"""Measure reading against nibabel, SimpleITK, dcm2niix and pydicom: python -m benchmarks.read [NAME …].

Every row runs ours and its peer in turn, in one process each call of which does the same work; the
figure is the median. dcm2niix also writes what it read, uncompressed, to a folder in memory where
there is one. Memory is the peak of a fresh process that does the read and nothing else.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_mri.io.files import load, survey
from tests.conftest import real_data
from tests.io.series import write_enhanced, write_series
from tests.scans import grid_of

RUNS = 15
SIZE = (256, 256, 192)
Job = Callable[[], object]


def head_like(shape: tuple[int, int, int]) -> np.ndarray:
    """Return int16 voxels that pack about as well as a head: dark air, noisy tissue."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    inside = sum(a * a for a in axes) < 0.55
    noise = np.random.default_rng(0).normal(0, 12, shape)
    tissue = 500 + 150 * np.sin(9 * axes[0]) * np.cos(7 * axes[1]) + noise
    return np.where(inside, tissue, np.abs(noise) * (np.random.default_rng(1).random(shape) < 0.5)).astype(np.int16)


def timed(jobs: dict[str, Job]) -> dict[str, float]:
    """Return the median seconds of each job; the jobs take turns, so a busy moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(RUNS):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def sitk_series(folder: Path) -> Job:
    import SimpleITK

    def job() -> object:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return reader.Execute()

    return job


def sitk_file(path: Path) -> Job:
    import SimpleITK

    return lambda: SimpleITK.ReadImage(str(path))


def dcm2niix(folder: Path, out: Path) -> Job | None:
    if shutil.which("dcm2niix") is None:
        return None
    command = ["dcm2niix", "-z", "n", "-b", "n", "-w", "1", "-f", "x%s", "-o", str(out), str(folder)]
    return lambda: subprocess.run(command, check=False, capture_output=True)


def nibabel_array(path: Path) -> Job:
    import nibabel

    return lambda: np.asarray(nibabel.load(path).dataobj)


def pydicom_headers(folder: Path) -> Job:
    import pydicom

    def job() -> object:
        return [
            pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    return job


def peak_mb(path: Path) -> float:
    """Return the peak resident memory of a fresh process that loads `path`, MB."""
    code = (
        "import sys; from napari_mri.io.files import load; v = load(sys.argv[1]); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )  # not ru_maxrss: a child inherits that of the process that started it
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def row(what: str, jobs: dict[str, Job | None], bounds: dict[str, float]) -> None:
    """Print one row a peer."""
    times = timed({name: job for name, job in jobs.items() if job is not None})
    ours = times.pop("ours")
    for peer, seconds in times.items():
        bound = f"≤ {bounds[peer]:g}" if peer in bounds else ""
        print(
            f"| {what} | {1e3 * ours:.0f} | {peer} {1e3 * seconds:.0f} | {ours / seconds:.2f} | {bound} |", flush=True
        )


def memory_row(what: str, path: Path) -> None:
    voxels = load(path).data.nbytes / 1e6
    print(
        f"| peak memory, {what} ({voxels:.0f} MB of voxels) | {peak_mb(path):.0f} MB | | | ≤ {1.5 * voxels + 120:.0f} MB |",
        flush=True,
    )


def nifti(work: Path) -> None:
    import nibabel

    path = work / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(head_like(SIZE), np.eye(4)), path)
    row(
        f"{'×'.join(map(str, SIZE))} int16 .nii.gz",
        {"ours": lambda: load(path), "nibabel": nibabel_array(path)},
        {"nibabel": 0.6},
    )
    memory_row(".nii.gz", path)


def classic(work: Path) -> None:
    folders = {"192 slices, written here": work / "series"}
    write_series(work / "series", head_like(SIZE), grid_of(SIZE, (0.9, 0.9, 1.0), "LPS"))
    tar = real_data() / "dicom_siemens_t1_classic" / "SAG-anon.tar.xz"
    if tar.exists():
        with tarfile.open(tar) as archive:
            archive.extractall(work / "siemens", filter="data")
        folders["192 slices of a scanner"] = next(
            Path(where) for where, _, names in os.walk(work / "siemens") if len(names) > 100
        )
    for name, folder in folders.items():
        jobs = {
            "ours": lambda f=folder: load(f),
            "SimpleITK": sitk_series(folder),
            "dcm2niix": dcm2niix(folder, work / "out"),
        }
        row(f"classic DICOM, {name}", jobs, {"SimpleITK": 0.35, "dcm2niix": 1.0})
        memory_row(name, folder)


def frames(work: Path) -> None:
    data = np.random.default_rng(0).integers(0, 2000, (96, 96, 30, 40)).astype(np.int16)
    grid = grid_of(data.shape[:3], (2.5, 2.5, 3.0), "LPS")
    cases = {
        "enhanced multi-frame, 30 slices × 40 frames, written here": write_enhanced(
            work / "enhanced" / "a.dcm", data, grid
        )
    }
    real = next((real_data() / "dicom_siemens_enhanced").rglob("*.dcm"), None) or next(
        (
            p
            for p in (real_data() / "dicom_siemens_enhanced").rglob("*")
            if p.is_file() and p.parent.name.startswith("5_")
        ),
        None,
    )
    if real is not None:
        cases["enhanced multi-frame of a scanner"] = real
    for name, path in cases.items():
        jobs = {
            "ours": lambda p=path: load(p),
            "SimpleITK": sitk_file(path),
            "dcm2niix": dcm2niix(path.parent, work / "out"),
        }
        row(name, jobs, {"SimpleITK": 0.7, "dcm2niix": 0.7})
    mosaic = real_data() / "dicom_siemens_mosaic" / "mr_0003"
    if mosaic.is_dir():
        row(
            "mosaic of a scanner",
            {"ours": lambda: load(mosaic), "dcm2niix": dcm2niix(mosaic, work / "out")},
            {"dcm2niix": 0.7},
        )
    tar = real_data() / "dicom_ge_fmri_classic" / "mr_0004.tar.xz"
    if tar.exists():
        with tarfile.open(tar) as archive:
            archive.extractall(work / "ge", filter="data")
        jobs = {"ours": lambda: load(work / "ge"), "dcm2niix": dcm2niix(work / "ge", work / "out")}
        row("4D classic series of a scanner, 150 files", jobs, {"dcm2niix": 0.7})


def listing(work: Path) -> None:
    """5,000 files in 12 series."""
    shape, total = (16, 16, 417), 0
    for n in range(12):
        write_series(
            work / "many" / f"s{n}",
            np.zeros((*shape[:2], min(417, 5000 - total)), np.int16),
            grid_of(shape, (1, 1, 1)),
            seed=n,
        )
        total += 417
    jobs: dict[str, Job | None] = {"ours": lambda: survey(work / "many"), "pydicom": pydicom_headers(work / "many")}
    global RUNS
    before, RUNS = RUNS, 3
    row("list 5,000 files in 12 series", jobs, {"pydicom": 0.5})
    RUNS = before


PARTS = {"nifti": nifti, "classic": classic, "frames": frames, "listing": listing}


def main() -> None:
    print("| what | ours, ms | peer, ms | ratio | target |\n| --- | --- | --- | --- | --- |")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        (Path(name) / "out").mkdir()
        for part in sys.argv[1:] or PARTS:
            PARTS[part](Path(name))


if __name__ == "__main__":
    main()
