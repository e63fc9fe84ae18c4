"""The tool box: every correction tool under one roof, in the order a menu shows them."""

from __future__ import annotations

from napari_mri.core.errors import BadOption
from napari_mri.edit.guard import Guard, compose
from napari_mri.edit.pieces import drop_islands, fill_holes, largest_piece
from napari_mri.edit.shape import smooth
from napari_mri.edit.tool import TOOLS, Tool

__all__ = [
    "TOOLS", "Guard", "Tool", "compose", "drop_islands", "fill_holes", "find_tool", "largest_piece", "smooth",
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
