"""Saves the labels of the Labels widget, and a report on them, off the window's thread."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.entry import Entry
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import Edits, edits_of
from napari_mri.gui.files import named
from napari_mri.gui.label_table import in_ml
from napari_mri.io import files
from napari_mri.io.formats import all_formats

if TYPE_CHECKING:
    from napari_mri.gui.labels_widget import LabelsWidget


class LabelsSaver:
    """Asks for names of files, writes them, and tells the log what is safe now.

    Parameters
    ----------
    desk : LabelsWidget
    """

    def __init__(self, desk: LabelsWidget) -> None:
        self._desk = desk

    def ask(self) -> None:
        """Ask for a file name and save there."""
        if self._desk.layer is None:
            return
        able = [fmt for fmt in all_formats() if fmt.write is not None and "labels" in fmt.holds]
        kinds = ";;".join(f"{fmt.title} ({' '.join('*' + ending for ending in fmt.endings)})" for fmt in able)
        path = str(QFileDialog.getSaveFileName(self._desk, "Save labels", str(self.suggested_path()), kinds)[0])
        if path:
            self.save_to(path)

    def suggested_path(self, ending: str = ".nii.gz") -> Path:
        """Return a file name made of the layer's, in the folder of the scan."""
        image, layer = self._desk.scan.layer, self._desk.layer
        record = bridge.shown(image) if image is not None else None
        path = Path(record.volume.origin.path) if record is not None and record.volume.origin.path else Path.home()
        folder = path if path.is_dir() else path.parent
        words = re.findall(r"[\w.-]+", layer.name if layer is not None else "labels")
        return folder / ("_".join(words) + ending)

    def save_to(self, path: str | Path) -> None:
        """Save the labels on the grid of their scan, whole or not at all."""
        desk = self._desk
        desk.message.clear()
        edits = edits_of(desk.layer)
        try:
            labels, place = desk.frozen(), named(path)
        except MriError as error:
            desk.message.show_error(str(error))
            return
        top = None if edits is None else edits.top
        desk.start(lambda rt: (files.save(labels, place), labels, edits, top), self._on_saved)

    def _on_saved(self, made: tuple[Path, Labels, Edits | None, Entry | None]) -> None:
        path, labels, edits, top = made
        if edits is not None:
            edits.saved(top)
        if labels.data.any():
            count = len(labels.values)
            what = "1 label" if count == 1 else f"{count} labels"
            self._desk.message.show_good(f"Saved {path}\n{what}, {in_ml(labels.volume_ml())}.")
        else:
            self._desk.message.show_warnings([f"Saved {path}, but it is empty: no voxel is marked."])

    # ---------------------------------------------------------------------------------- report

    def ask_report(self) -> None:
        """Ask for a file name and write a report there."""
        if self._desk.layer is None:
            return
        suggested = str(self.suggested_path("_report.html"))
        path = str(QFileDialog.getSaveFileName(self._desk, "Save a report", suggested, "Web page (*.html)")[0])
        if path:
            self.report_to(path)

    def report_to(self, path: str | Path) -> None:
        """Write a one-page report: pictures, volumes, grey values, agreement with a second mask, history."""
        desk = self._desk
        desk.message.clear()
        try:
            labels = desk.frozen()
            scan = desk.grey_values(labels)
            against = self._second(labels)
        except MriError as error:
            desk.message.show_error(str(error))
            return
        desk.start(lambda rt: _report(Path(path), labels, scan, against), self._on_reported)

    def _second(self, labels: Labels) -> Labels | None:
        """Return the second rater's labels, if such are chosen under "Look next"."""
        layer = self._desk.doubt.source.layer
        if layer is None or layer is self._desk.layer or not hasattr(layer, "selected_label"):
            return None
        other = bridge.labels_of(layer, self._desk._viewer.layers)
        return other if other.grid.same(labels.grid) else None

    def _on_reported(self, path: Path) -> None:
        self._desk.message.show_good(f"Wrote {path}. Open it in a browser; print it for a PDF.")


def _report(path: Path, labels: Labels, scan: Volume | None, against: Labels | None) -> Any:
    from napari_mri.io.atomic import atomic_path
    from napari_mri.measure.report import Extras, html_report

    place = path if path.suffix.lower() in (".html", ".htm") else path.with_name(path.name + ".html")
    page = html_report(labels, Extras(scan=scan, against=against, title="Labels"))
    with atomic_path(place) as part:
        part.write_text(page, encoding="utf-8")
    return place
