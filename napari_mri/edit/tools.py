"""The tool box: every correction tool under one roof, in the order a menu shows them."""

from __future__ import annotations

from napari_mri.core.errors import BadOption
from napari_mri.edit.guard import Guard, compose

# The order of these lines is the order of the menu.
from napari_mri.edit.pieces import drop_islands, fill_holes, largest_piece  # isort: skip
from napari_mri.edit.shape import smooth  # isort: skip
from napari_mri.edit.margin import margin  # isort: skip
from napari_mri.edit.logic import intersect, minus, threshold_inside, union  # isort: skip
from napari_mri.edit.slices import copy_slice, interpolate_slices  # isort: skip
from napari_mri.edit.border import snap_to_edge, split_touching  # isort: skip
from napari_mri.edit.mirror import mirror  # isort: skip
from napari_mri.edit.tool import TOOLS, Tool  # isort: skip

__all__ = [
    "TOOLS", "Guard", "Tool", "compose", "copy_slice", "drop_islands", "fill_holes", "find_tool", "interpolate_slices",
    "intersect", "largest_piece", "margin", "minus", "mirror", "smooth", "snap_to_edge", "split_touching",
    "threshold_inside", "union",
]  # fmt: skip


def find_tool(name: str) -> Tool:
    """Return the tool of that name; ``-`` and ``_`` are the same.

    Raises
    ------
    BadOption
        If there is none; the hint lists what there is.
    """
    wanted = name.replace("-", "_").lower()
    if wanted not in TOOLS:
        raise BadOption(f"There is no tool '{name}'.", hint=f"Tools: {', '.join(TOOLS)}.")
    return TOOLS[wanted]
