"""The widget "Three planes": axial, coronal and sagittal beside napari's canvas, in one grid with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import (
    QBoxLayout,
    QButtonGroup,
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_mri.gui import settings
from napari_mri.gui.choices import Links
from napari_mri.gui.napari_private import centre_of, native_of
from napari_mri.gui.planes_canvas import PlaneView
from napari_mri.gui.planes_desk import AXIAL, CORONAL, SAGITTAL, Desk, Plane
from napari_mri.gui.planes_layers import Pictures
from napari_mri.gui.planes_overlay import Glass
from napari_mri.gui.status import sentence
from napari_mri.gui.window import bare, watch

LAYOUT = "layout of the planes"
"""Under this name the layout is remembered."""
BIG, QUAD, ROW = "One big", "2 × 2", "Three in a row"
LAYOUTS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    BIG: {"napari": (0, 0, 3, 1), "axial": (0, 1, 1, 1), "coronal": (1, 1, 1, 1), "sagittal": (2, 1, 1, 1)},
    QUAD: {"napari": (0, 0, 1, 1), "coronal": (0, 1, 1, 1), "axial": (1, 0, 1, 1), "sagittal": (1, 1, 1, 1)},
    ROW: {"axial": (0, 0, 1, 1), "coronal": (0, 1, 1, 1), "sagittal": (0, 2, 1, 1)},
}
"""Row, column, rows, columns of each view; what is not named is hidden and costs nothing."""
WIDTHS = {BIG: (5, 2), QUAD: (1, 1), ROW: (1, 1, 1)}
_STATUS_MS = 40


class Room(QWidget):
    """The grid in the middle of the window: napari's own viewer and the three planes, and a line of status.

    Parameters
    ----------
    views : dict of str to QWidget
        The planes by name.
    """

    def __init__(self, views: dict[str, PlaneView]) -> None:
        super().__init__()
        self._planes = dict(views)
        self._napari: Callable[[], QWidget | None] = lambda: None
        self.status = QLabel()
        self.status.setMinimumWidth(100)
        self.status.setAccessibleName("under the cursor")
        self._grid = QGridLayout()
        self._grid.setSpacing(3)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(2)
        whole.addLayout(self._grid, 1)
        whole.addWidget(self.status)

    def move_in(self, viewer: ViewerModel) -> bool:
        """Take the middle of the window, napari's viewer as one of four; False if the window is built otherwise."""
        found = centre_of(viewer)
        if found is None:
            return False
        layout, inner = found
        self._napari = ref(inner)  # napari's widget goes when napari lets go of it
        layout.insertWidget(layout.indexOf(inner), self, 1)
        layout.removeWidget(inner)
        return True

    def move_out(self) -> None:
        """Give the middle of the window back to napari."""
        inner, parent = self._napari(), self.parentWidget()
        home = parent.layout() if parent is not None else None
        if inner is not None and isinstance(home, QBoxLayout):
            self._grid.removeWidget(inner)
            home.insertWidget(home.indexOf(self), inner)
            inner.show()
            home.removeWidget(self)
        self.setParent(None)
        self.deleteLater()

    def arrange(self, layout: str, alone: str | None = None) -> None:
        """Lay the views out; `alone` names one that gets all the room."""
        places = {alone: (0, 0, 1, 1)} if alone else LAYOUTS[layout]
        inner = self._napari()
        views: dict[str, QWidget] = {**self._planes} | ({"napari": inner} if inner is not None else {})
        for view in views.values():
            self._grid.removeWidget(view)
        for name, view in views.items():
            if name in places:
                self._grid.addWidget(view, *places[name])
            elif view.parentWidget() is not self:
                view.setParent(self)
            view.setVisible(name in places)
        widths = (1,) if alone else WIDTHS[layout]
        for n in range(3):
            self._grid.setColumnStretch(n, widths[n] if n < len(widths) else 0)
            used = any(row <= n < row + rows for row, _, rows, _ in places.values())
            self._grid.setRowStretch(n, int(used))


class ThreePlanes(QWidget):
    """Three linked planes with napari's canvas, and how they are shown.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self.desk = Desk(napari_viewer, self)
        self.pictures = Pictures(self.desk, self)
        self.views = {plane.name: PlaneView(self.desk, self.pictures, plane) for plane in (AXIAL, CORONAL, SAGITTAL)}
        self.room: Room | None = Room(self.views)
        self.status = self.room.status
        self._alone: str | None = None
        self._cursor: Any = None
        self._lay_out()
        self.inside = not self.room.move_in(napari_viewer)
        """Whether the planes stand in this very widget, the window's middle being out of reach."""
        if self.inside:
            self.layout().insertWidget(0, self.room, 1)
        canvas = native_of(napari_viewer)
        self.glass = Glass(self.desk, canvas) if canvas is not None else None
        self._slow = QTimer(self)
        self._slow.setSingleShot(True)
        self._slow.setInterval(_STATUS_MS)
        self._slow.timeout.connect(self._say)
        self._connect()
        self.desk.linked = self.linked.isChecked()
        self._set_layout(self._layout_name())
        self._on_turned()
        QTimer.singleShot(0, self._settle)
        self.destroyed.connect(_closer(self.room, self.glass))

    def _lay_out(self) -> None:
        self.layouts = QButtonGroup(self)
        choice = QHBoxLayout()
        remembered = settings.recall(LAYOUT, BIG)
        for name in LAYOUTS:
            button = QRadioButton(name)
            button.setChecked(name == (remembered if remembered in LAYOUTS else BIG))
            self.layouts.addButton(button)
            choice.addWidget(button)
        self.side = QPushButton()
        self.side.setCheckable(True)
        self.side.setToolTip("Which side of the screen the patient's right is on; remembered for every window")
        self.cross = QCheckBox("Crosshair")
        self.cross.setChecked(True)
        self.follow = QCheckBox("Follow the cursor")
        self.follow.setToolTip("The planes go through the point under the cursor, without a press")
        self.linked = QCheckBox("One zoom for all")
        self.linked.setChecked(remembered != BIG)
        self.linked.setToolTip("napari's canvas has the same zoom in mm, and shifts with the planes")
        self.fit_button = QPushButton("Fit")
        self.solid = QPushButton("3D")
        self.solid.setCheckable(True)
        self.solid.setToolTip("Show napari's canvas in three dimensions; the planes stay")
        form = QFormLayout()
        form.addRow("Layout", choice)
        form.addRow("Side", self.side)
        ticks, buttons = QVBoxLayout(), QHBoxLayout()
        for tick in (self.cross, self.follow, self.linked):
            ticks.addWidget(tick)
        buttons.addWidget(self.fit_button)
        buttons.addWidget(self.solid)
        hint = QLabel(
            "In a plane: wheel scrolls, Ctrl+wheel zooms, left button moves the point or paints, Shift+left always moves "
            "it, right button sets the contrast, middle button shifts. Double click: this plane alone, and back."
        )
        hint.setWordWrap(True)
        whole = QVBoxLayout(self)
        for part in (form, ticks, buttons):
            whole.addLayout(part)
        whole.addWidget(hint)
        whole.addStretch(0)

    def _connect(self) -> None:
        self.layouts.buttonClicked.connect(lambda button: self.set_layout(button.text()))
        self.side.clicked.connect(self._on_side)
        self.cross.toggled.connect(self._on_ticks)
        self.follow.toggled.connect(self._on_ticks)
        self.linked.toggled.connect(self._on_linked)
        self.fit_button.clicked.connect(self.fit)
        self.solid.clicked.connect(self._on_solid)
        self.desk.turned.connect(self._on_turned)
        self.desk.pointed.connect(self._on_pointed)
        for view in self.views.values():
            view.enlarged.connect(self._on_enlarged)
        self.links = links = Links(self)
        links.connect(self._viewer.layers.events.inserted, self._on_inserted)
        links.connect(self._viewer.cursor.events.position, self._on_napari_cursor)
        self._clicks = _Clicks(self.desk)
        self._viewer.mouse_drag_callbacks.append(self._clicks)
        self.destroyed.connect(_remover(self._viewer, self._clicks))

    # ---------------------------------------------------------------------------------- layout

    def _layout_name(self) -> str:
        return str(self.layouts.checkedButton().text())

    def set_layout(self, name: str) -> None:
        """Arrange the views, here and in the next windows; see `LAYOUTS` for the names."""
        settings.remember(LAYOUT, name)
        self._alone = None
        # A big canvas beside small planes would be mostly empty at their zoom.
        self.linked.setChecked(name != BIG)
        self._set_layout(name)
        QTimer.singleShot(0, self.fit)

    def _set_layout(self, name: str) -> None:
        for button in self.layouts.buttons():
            button.setChecked(button.text() == name)
        if self.room is not None:
            self.room.arrange(name, self._alone)

    def _on_enlarged(self, plane: Plane) -> None:
        self._alone = None if self._alone else plane.name
        self._set_layout(self._layout_name())

    def fit(self) -> None:
        """Show everything, at one zoom for all that is linked."""
        if not self.linked.isChecked() and self.desk.ready:
            self._viewer.reset_view()
        sizes = [(v.plane, v.width(), v.height()) for v in self.views.values() if v.isVisible()]
        if self.glass is not None and self.linked.isChecked() and self.glass.isVisible() and self.glass.plane():
            sizes.append((self.glass.plane(), self.glass.width(), self.glass.height()))
        self.desk.fit(sizes)

    def _settle(self) -> None:
        """Fit once the window has given every view its size."""
        if self.room is not None and self.desk.ready:
            self.fit()

    def _on_inserted(self, event: Any) -> None:
        if self.desk.ready and sum(layer.ndim >= 3 for layer in self._viewer.layers) == 1:
            low, high = self.desk.extent()
            self.desk.go((low + high) / 2)
            QTimer.singleShot(0, self._settle)

    # ---------------------------------------------------------------------------------- switches

    def _on_side(self) -> None:
        self.desk.set_radiological(not self.desk.radiological)

    def _on_turned(self) -> None:
        radiological = self.desk.radiological
        self.side.setChecked(radiological)
        self.side.setText(
            "Radiological: patient's right on the left"
            if radiological
            else "Neurological: patient's right on the right"
        )
        self.solid.setChecked(self._viewer.dims.ndisplay == 3)

    def _on_ticks(self) -> None:
        for view in self.views.values():
            view.crosshair, view.follow = self.cross.isChecked(), self.follow.isChecked()
            view.update()
        self._clicks.follow = self.follow.isChecked()
        if self.glass is not None:
            self.glass.crosshair = self.cross.isChecked()
            self.glass.refresh()

    def _on_linked(self) -> None:
        self.desk.linked = self.linked.isChecked()
        if self.desk.linked:
            self.fit()

    def _on_solid(self) -> None:
        self._viewer.dims.ndisplay = 3 if self.solid.isChecked() else 2

    # ------------------------------------------------------------------------------------ status

    def _on_napari_cursor(self, event: Any = None) -> None:
        world = np.asarray(self._viewer.cursor.position, dtype=float)
        if self._viewer.dims.ndisplay == 2 and world.size == self._viewer.dims.ndim >= 3:
            self._on_pointed(world[-3:])
            if self.follow.isChecked():
                self.desk.go(world[-3:])

    def _on_pointed(self, point: Any) -> None:
        self._cursor = point
        if not self._slow.isActive():
            self._slow.start()

    def _say(self) -> None:
        told = (
            "" if self._cursor is None or not self.desk.ready else sentence(self._viewer, self.desk.world(self._cursor))
        )
        self.status.setText(told)

    # -------------------------------------------------------------------------------------- end

    def event(self, event: QEvent) -> bool:
        """Go from the middle of the window as soon as the dock is closed, not when memory is tidied."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.stop()
            self.deleteLater()
        return bool(super().event(event))

    def stop(self) -> None:
        """Take the planes away and give napari its place back; calling it twice does nothing."""
        room, self.room = getattr(self, "room", None), None
        if room is None:
            return
        _remover(self._viewer, self._clicks)()
        for links in (self.links, self.desk.links, self.pictures.links):
            links.undo()
        self.pictures.stop()
        if self.glass is not None:
            self.glass.stop()
            self.glass = None
        room.move_out()


class _Clicks:
    """A click on napari's canvas moves the shared point, where a click there means nothing else."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.follow = False

    def __call__(self, viewer: ViewerModel, event: Any) -> Any:
        active = viewer.layers.selection.active
        free = active is None or str(active.mode) == "pan_zoom"
        plain = event.button == 1 and not event.modifiers and viewer.dims.ndisplay == 2
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if free and plain and not moved and len(event.position) >= 3:
            self._desk.go(event.position[-3:])


def _remover(viewer: ViewerModel, callback: Any) -> Callable[..., None]:
    def remove(*_: Any) -> None:
        if callback in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(callback)

    return remove


def _closer(room: Room, glass: Glass | None) -> Callable[..., None]:
    """Return what ends the planes when only the widget's C++ half is left."""
    gone: list[bool] = []
    room.destroyed.connect(lambda *_: gone.append(True))

    def close(*_: Any) -> None:
        if not gone:
            room.hide()

    return close
