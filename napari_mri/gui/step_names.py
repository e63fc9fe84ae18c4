"""What steps are called: strokes in the history list, and runs of strokes in a sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_mri.core.history import Step

_MODES = {"paint": "Brush", "erase": "Eraser", "fill": "Fill", "polygon": "Polygon"}
_BY_HAND = "edited by hand"


def stroke_name(layer: Labels, item: Sequence[Any], *, called: bool) -> tuple[str, str]:
    """Return name and kind of a step that napari's paint event told of.

    Parameters
    ----------
    layer : napari Labels
    item : sequence
        What the event carries (see `napari_private_labels.changed`).
    called : bool
        Whether somebody set voxels by a single call: no stroke, whatever the layer's mode.
    """
    if called:
        return "Edit", "edit"
    values: set[int] = set()
    for atom in item:
        values.update(np.unique(atom.new_value if hasattr(atom, "new_value") else atom[2]).tolist())
    tool = _MODES.get(str(layer.mode), "Brush")
    kind = "fill" if tool == "Fill" else "stroke"
    if values == {int(layer.colormap.background_value)}:
        return ("Eraser" if tool == "Brush" else tool if tool == "Eraser" else f"{tool}, erasing"), kind
    return (f"{tool} {values.pop()}" if len(values) == 1 else tool), kind


def merged(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return steps with each run of strokes told in one line: which, how many, when, voxels."""
    lines: list[Step] = []
    run: list[Step] = []
    for step in steps:
        if step.facts.get("kind") in ("stroke", "fill"):
            run.append(step)
            continue
        lines += _line(run)
        run = []
        if step.facts.get("kind") != "start":  # what was opened tells its own history
            lines.append(step)
    return (*lines, *_line(run))


def _line(run: list[Step]) -> list[Step]:
    if not run:
        return []
    names: dict[str, int] = {}
    for step in run:
        name = step.action.removeprefix(f"{_BY_HAND}: ")
        names[name] = names.get(name, 0) + 1
    told = ", ".join(name if n == 1 else f"{name} × {n}" for name, n in names.items())
    facts = {
        "kind": "stroke", "steps": len(run), "voxels": sum(int(step.facts.get("voxels", 0)) for step in run),
        "from": run[0].facts.get("time", ""), "to": run[-1].facts.get("time", ""),
    }  # fmt: skip
    return [Step(f"{_BY_HAND}: {told}", facts=facts)]
