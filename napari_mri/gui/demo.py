"""Opens the window from the command line: on a person's scans, or on the sample with a first mask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer

from napari_mri.core.errors import Cancelled
from napari_mri.gui import files
from napari_mri.gui.labels_widget import LabelsWidget
from napari_mri.gui.run_widget import RunWidget
from napari_mri.gui.window import watch


def view(sources: Iterable[str | Path]) -> None:
    """Open scans and masks in a window, and return when it is closed."""
    import napari

    paths = [str(source) for source in sources]
    viewer = _window()
    try:
        _open(viewer, paths)
    except Cancelled:
        viewer.close()
        return
    napari.run()


def demo(path: str | Path | None = None) -> None:
    """Open a scan (default the sample head), skull-strip it, and leave the person in front of the result.

    Returns when the window is closed.
    """
    import napari

    viewer = _window()
    try:
        run, _ = furnish(viewer, path)
    except Cancelled:
        viewer.close()
        return
    QTimer.singleShot(0, run.run)  # once the window is on the screen
    napari.run()


def furnish(viewer: Any, path: str | Path | None = None) -> tuple[RunWidget, LabelsWidget]:
    """Open a scan and both widgets in a window.

    Parameters
    ----------
    viewer : napari.Viewer
    path : str or Path, optional
        Default the sample head.
    """
    if path is None:
        from napari_mri.sample import dicom_head

        path = dicom_head()
    _open(viewer, [str(path)])
    labels, run = LabelsWidget(viewer), RunWidget(viewer)
    first = viewer.window.add_dock_widget(run, name="Run a model", area="right")
    second = viewer.window.add_dock_widget(labels, name="Labels", area="right", tabify=True)
    QTimer.singleShot(0, first.raise_)  # napari brings the newest to the front
    # The mask is there to be corrected: bring its widget to the front when it comes.
    run.finished.connect(second.raise_)
    return run, labels


def _window() -> Any:
    import napari

    return napari.Viewer(title="MRI Workbench", show_welcome_screen=False)


def _open(viewer: Any, paths: list[str]) -> None:
    """Open files by our own reader, whatever other plugins are installed."""
    watch(viewer)
    for path in paths:
        for data, facts, kind in files.read(path):
            getattr(viewer, f"add_{kind}")(data, **facts)
