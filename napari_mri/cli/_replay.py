"""Find the scan and the result that a sidecar speaks of, and make the result again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_mri import tasks
from napari_mri.core.errors import FileProblem, MriError, SeveralSeries
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load, load_all
from napari_mri.io.history import read_history, result_of


def again(sidecar: Path, source: str | None, rt: LocalRuntime) -> tuple[tasks.Outcome, bool | None]:
    """Carry out the last order of a sidecar once more.

    Returns
    -------
    outcome : Outcome
    same : bool or None
        Whether the voxels equal those of the file beside the sidecar; None if there is none, or if it
        was changed by hand afterwards.
    """
    steps = read_history(sidecar)
    ordered = [n for n, step in enumerate(steps) if step.order is not None]
    if not ordered:
        raise MriError(f"{sidecar.name} holds no order that could be carried out again.")
    step = steps[ordered[-1]]
    expected = step.fact("input", str, "")
    scan = _given(source, expected) if source else _beside(sidecar, expected)
    others = [_beside(sidecar, other) for other in tasks.others_of(step)]
    outcome = tasks.replay(step, scan, rt, others)
    before = _result_of(sidecar)
    if before is None or ordered[-1] != len(steps) - 1:
        return outcome, None
    label = step.fact("label", int, 0)
    if label:  # accepted in the window as one of several labels, which may have kept some of its voxels
        return outcome, np.array_equal(before.data == label, outcome.result.data > 0) or None
    return outcome, bool(np.array_equal(before.data, outcome.result.data))


def _result_of(sidecar: Path) -> Volume | None:
    found = result_of(sidecar)
    try:
        return None if found is None else load(found)
    except MriError:
        return None  # a surface, say: there are no voxels to compare


def _given(source: str, expected: str) -> Volume:
    """Read the scan the user names; of several series the one the result was made from."""
    try:
        return load(source)
    except SeveralSeries:
        found = _among(Path(source), expected)
        if found is None:
            raise FileProblem(
                f"None of the series in {source} is the scan the result was made from.", hint="Give the original files."
            ) from None
        return found


def _among(path: Path, expected: str) -> Volume | None:
    """Return the scan of a content in a file or folder, if it is there."""
    try:
        return next((scan for scan in load_all(path) if scan.fingerprint() == expected), None)
    except MriError:
        return None  # no scan


def _beside(sidecar: Path, expected: str) -> Volume:
    for path in sorted(sidecar.parent.iterdir()):
        if path.suffix == ".json" or path.name.startswith("."):
            continue
        scan = _among(path, expected)
        if scan is not None:
            return scan
    raise FileProblem(
        f"A scan that {sidecar.name} speaks of is not beside it.",
        hint="Give it: replay SIDECAR IN OUT; further scans are looked for beside the sidecar.",
    )
