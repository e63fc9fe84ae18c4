"""MRI Workbench: open a scan, run models on it, correct the labels, save masks that lie exactly on it.

Names are handed on lazily: importing the package loads neither torch, napari nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mri.api import denoise, open_session, run, segment, skullstrip, superres
    from napari_mri.core.errors import MriError
    from napari_mri.core.grid import Grid
    from napari_mri.core.history import Order, Step
    from napari_mri.core.prompts import Box, Extremes, Lasso, Mask, Point, Prompts, Scribble, Slab
    from napari_mri.core.volume import Labels, Volume
    from napari_mri.io.files import load, load_all, load_labels, save
    from napari_mri.registry import list_models

_HOME = {
    "load": "io.files", "load_all": "io.files", "load_labels": "io.files", "save": "io.files",
    "skullstrip": "api", "denoise": "api", "superres": "api", "segment": "api", "open_session": "api", "run": "api",
    "list_models": "registry",
    "Volume": "core.volume", "Labels": "core.volume", "Grid": "core.grid", "Order": "core.history", "Step": "core.history",
    "Prompts": "core.prompts", "Point": "core.prompts", "Box": "core.prompts", "Scribble": "core.prompts",
    "Lasso": "core.prompts", "Extremes": "core.prompts", "Mask": "core.prompts", "Slab": "core.prompts",
    "MriError": "core.errors",
}  # fmt: skip

__all__ = [
    "Box", "Extremes", "Grid", "Labels", "Lasso", "Mask", "MriError", "Order", "Point", "Prompts", "Scribble", "Slab", "Step",
    "Volume",
    "denoise", "list_models", "load", "load_all", "load_labels", "open_session", "run", "save", "segment",
    "skullstrip", "superres",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-mri-workbench")
    if name not in _HOME:
        raise AttributeError(f"module 'napari_mri' has no attribute '{name}'")
    return getattr(import_module(f"napari_mri.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
