"""The widget that writes a layer for other programs: which format, and whether it tells whose scan it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice
from napari_mri.gui.message import Message
from napari_mri.gui.window import bare, watch
from napari_mri.gui.worker import EDITS, Job
from napari_mri.io.export import export, unkept
from napari_mri.io.formats import Format, all_formats

WHOSE = {
    "without": "Leave the person out",
    "nameless": "Leave out titles, texts and history too",
    "patient": "Carry the person along (DICOM SEG)",
}
SAYS = {
    "without": "No name, number or date of the patient is written. A DICOM SEG or RTSTRUCT still points to its series.",
    "nameless": "Nothing points back to the scan: no title, no header texts, no history, no UID of the series.",
    "patient": "Name, number and dates of the patient are copied from the scan's DICOM files, as an archive needs them.",
}


class ExportWidget(QWidget):
    """Write a layer in any format, without the person unless that is asked for.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        self._job: Job | None = None
        watch(napari_viewer)
        self.layer = LayerChoice(napari_viewer, (Image, LabelsLayer), "open a scan first")  # type: ignore[arg-type]
        self.format, self.whose = QComboBox(), QComboBox()
        for key, title in WHOSE.items():
            self.whose.addItem(title, key)
        self.says, self.message = QLabel(), Message()
        self.says.setWordWrap(True)
        self.button = QPushButton("Export …")
        form = QFormLayout()
        for title, widget in (("Layer", self.layer), ("Format", self.format), ("Whose scan", self.whose)):
            form.addRow(title, widget)
        whole = QVBoxLayout(self)
        whole.addLayout(form)
        for widget in (self.says, self.button, self.message):
            whole.addWidget(widget)
        whole.addStretch(1)
        self.layer.changed.connect(self._refresh)
        self.format.currentIndexChanged.connect(self._tell)
        self.whose.currentIndexChanged.connect(self._tell)
        self.button.clicked.connect(self.ask)
        self._refresh()

    def _refresh(self) -> None:
        """Offer the formats that can hold the chosen layer."""
        layer = self.layer.layer
        before = self.format.currentText()
        need = "labels" if isinstance(layer, LabelsLayer) else "volume"
        self.format.blockSignals(True)
        self.format.clear()
        for fmt in all_formats():
            if fmt.write is None or layer is None:
                continue
            for ending in dict.fromkeys(fmt.endings):
                if need in fmt.kept_by(ending):
                    self.format.addItem(f"{fmt.title} ({ending})", (fmt, ending))
        self.format.setCurrentIndex(max(0, self.format.findText(before)))
        self.format.blockSignals(False)
        self._tell()

    def _tell(self, *_: Any) -> None:
        chosen: tuple[Format, str] | None = self.format.currentData()
        able = chosen is not None and chosen[0].name == "dicom-seg"
        item = self.whose.model().item(list(WHOSE).index("patient"))
        item.setEnabled(able)
        if not able and self.whose.currentData() == "patient":
            self.whose.setCurrentIndex(0)
        self.says.setText(SAYS[self.whose.currentData()])
        self.button.setEnabled(chosen is not None and self._job is None)

    def ask(self) -> None:
        """Ask for a file name and write there."""
        layer, chosen = self.layer.layer, self.format.currentData()
        if layer is None or chosen is None:
            return
        stem = "_".join(re.findall(r"[\w-]+", layer.name)) or "export"
        path = self.ask_path(str(Path.home() / (stem + chosen[1])), f"{chosen[0].title} (*{chosen[1]})")
        if path:
            self.write(path if path.lower().endswith(chosen[1]) else path + chosen[1])

    def ask_path(self, suggested: str, kinds: str) -> str:
        """Ask for a file name; an empty one means the user thought better of it."""
        return str(QFileDialog.getSaveFileName(self, "Export", suggested, kinds)[0])

    def write(self, path: str) -> None:
        """Write the chosen layer to a path, off the window's thread."""
        layer, whose = self.layer.layer, self.whose.currentData()
        self.message.clear()
        try:
            volume = self._volume(layer)
        except MriError as error:
            self.message.show_error(str(error))
            return
        doubts = [*unkept(volume, path)]
        if isinstance(volume, Labels) and not volume.data.any():
            doubts.append("No voxel is marked.")

        def work(rt: Any) -> tuple[Path, list[str]]:
            from napari_mri.io.deidentified import nameless

            one = nameless(volume) if whose == "nameless" else volume
            return export(one, path, patient=whose == "patient", sidecar=whose != "nameless"), doubts

        self._job = Job(work, lane=EDITS)
        self._job.done.connect(self._on_done)
        self._job.failed.connect(self._on_failed)
        self._job.stopped.connect(self._on_failed)
        self.destroyed.connect(self._job.abandon)
        self._job.start()
        self._tell()

    def _volume(self, layer: Any) -> Volume:
        if isinstance(layer, LabelsLayer):
            return bridge.labels_of(layer, self._viewer.layers)
        return bridge.volume_of(layer, self._viewer.layers)

    def _on_done(self, made: tuple[Path, list[str]]) -> None:
        self._job = None
        path, doubts = made
        if doubts:
            self.message.show_warnings([f"Written to {path}.", *doubts])
        else:
            self.message.show_good(f"Written to {path}.")
        self._tell()

    def _on_failed(self, sentence: str) -> None:
        self._job = None
        self.message.show_error(sentence)
        self._tell()
