"""Find the scan and the result that a sidecar speaks of, and make the result again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mri import tasks
from napari_mri.core.errors import FileProblem, GridMismatch, MriError, SeveralSeries
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.io.files import load, load_all
from napari_mri.io.history import read_history, result_of
from napari_mri.io.landing import landed


def again(sidecar: Path, source: str | None, rt: LocalRuntime) -> tuple[tasks.Outcome, bool | None]:
    """Carry out the last order of a sidecar once more.

    Returns
    -------
    outcome : Outcome
    same : bool or None
        Whether the voxels equal those of the file beside the sidecar; None if there is none, or if it
        was changed by hand afterwards, which is told among the warnings.
    """
    steps = read_history(sidecar)
    last = _last_run(sidecar, steps)
    step, later = steps[last], steps[last + 1 :]
    expected = step.fact("input", str, "")
    scan = _given(source, expected) if source else _beside(sidecar, expected)
    others = [_beside(sidecar, other) for other in tasks.others_of(step)]
    outcome = tasks.replay(step, scan, rt, others)
    if later:
        more = f"; {len(later) - 3} more" if len(later) > 3 else ""
        told = f"What came afterwards is not made again: {'; '.join(step.action for step in later[:3])}{more}."
        return replace(outcome, warnings=(*outcome.warnings, told)), None
    before = _result_of(sidecar, outcome.result)
    if before is None:
        return outcome, None
    label = step.fact("label", int, 0)
    if label:  # accepted in the window as one of several labels, which may have kept some of its voxels
        return outcome, np.array_equal(before.data == label, outcome.result.data > 0) or None
    return outcome, bool(np.array_equal(before.data, outcome.result.data))


def _last_run(sidecar: Path, steps: tuple[Step, ...]) -> int:
    """Return which step is the last that a model made, or tell why the file cannot be made again."""
    last = max((n for n, step in enumerate(steps) if step.order is not None and step.order.task != "edit"), default=-1)
    edit = next((step for step in steps[last + 1 :] if step.order is not None), None)
    if edit is not None:
        raise MriError(
            f"'{edit.action}' in {sidecar.name} is an edit, which cannot be made again.", hint=_before(sidecar, steps[: last + 1])
        )
    along = next((step for step in steps[last + 1 :] if "input" in step.facts), None)
    if along is not None:
        raise MriError(
            f"'{along.action}' came along with a result and is not made again by itself.", hint="Give the .json of that result."
        )
    if last < 0:
        raise MriError(f"{sidecar.name} holds no order that could be carried out again.", hint="Only runs of models can.")
    return last


def _before(sidecar: Path, steps: tuple[Step, ...]) -> str:
    """Return the hint that tells what could be made again before an edit."""
    for other in sorted(sidecar.parent.glob("*.json")):
        with suppress(FileProblem):
            if steps and read_history(other) == steps:
                return f"'{steps[-1].action}' before it can: replay {other.name}."
    return "Only runs of models can, each from the .json of its own result."


def _result_of(sidecar: Path, again: Volume) -> Volume | None:
    """Return what was saved before; labels on the grid they were made on, of which some formats keep a part."""
    found = result_of(sidecar)
    try:
        before = None if found is None else load(found)
    except MriError:
        return None  # a surface, say: there are no voxels to compare
    if isinstance(before, Labels) and isinstance(again, Labels):
        with suppress(GridMismatch):  # then they differ
            return landed(before, again)
    return before


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
