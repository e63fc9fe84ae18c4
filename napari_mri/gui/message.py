"""A box in a widget for what must not be overlooked: warnings in amber, errors in red."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

_COLOURS = {"warning": ("#4a3a10", "#ffd479"), "error": ("#4d1f1f", "#ff9e9e"), "good": ("#1e3d27", "#a8e6b4")}


class Message(QLabel):
    """Empty and invisible until there is something to say; the text can be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setVisible(False)

    def show_error(self, sentence: str) -> None:
        """Show what went wrong."""
        self._show("error", sentence)

    def show_good(self, sentence: str) -> None:
        """Show what went well."""
        self._show("good", sentence)

    def show_warnings(self, sentences: Iterable[str]) -> None:
        """Show what may be wrong with a result, one line each."""
        lines = [f"⚠ {sentence}" for sentence in sentences]
        self._show("warning", "\n".join(lines)) if lines else self.clear()

    def _show(self, kind: str, text: str) -> None:
        back, front = _COLOURS[kind]
        self.setStyleSheet(f"background: {back}; color: {front}; border-radius: 4px; padding: 6px;")
        self.setText(text)
        self.setVisible(True)

    def clear(self) -> None:
        """Take the message away."""
        super().clear()
        self.setVisible(False)
