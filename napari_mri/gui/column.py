"""A column of fields that scrolls where a window is too low for it: two widgets stay usable above each other."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QFrame, QScrollArea, QVBoxLayout, QWidget

LEAST = 200
"""Pixels that are always shown of a column, if it is higher."""


def column(outer: QWidget) -> QVBoxLayout:
    """Return the layout that the content of a widget goes into."""
    around = QVBoxLayout(outer)
    around.setContentsMargins(0, 0, 0, 0)
    inner = QWidget()
    around.addWidget(Column(inner))
    layout = QVBoxLayout(inner)
    layout.setSizeConstraint(QVBoxLayout.SizeConstraint.SetMinimumSize)
    return layout


class Column(QScrollArea):
    """Shows a widget at its whole width, and as much of its height as there is room for.

    Parameters
    ----------
    inner : QWidget
    """

    def __init__(self, inner: QWidget) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.setWidget(inner)
        inner.installEventFilter(self)

    def sizeHint(self) -> QSize:
        """As the content wishes."""
        return self._with_bar(self.widget().sizeHint())

    def minimumSizeHint(self) -> QSize:
        """All of the width that the content needs, and some of the height."""
        least = self._with_bar(self.widget().minimumSizeHint())
        return QSize(least.width(), min(least.height(), LEAST))

    def _with_bar(self, size: QSize) -> QSize:
        edges = self.contentsMargins()
        return QSize(size.width() + edges.left() + edges.right() + self.verticalScrollBar().sizeHint().width(), size.height())

    def showEvent(self, event: QShowEvent) -> None:
        """Ask for room anew: only what is shown knows its font and style."""
        super().showEvent(event)
        self.updateGeometry()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for as much room as the content needs now; the wheel scrolls, and changes only a field that was chosen first."""
        if watched is self.widget():
            if event.type() == QEvent.Type.LayoutRequest:
                self.updateGeometry()
                for kind in (QComboBox, QAbstractSpinBox):
                    for field in self.widget().findChildren(kind):
                        field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                        field.removeEventFilter(self)
                        field.installEventFilter(self)
        elif event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return bool(super().eventFilter(watched, event))
