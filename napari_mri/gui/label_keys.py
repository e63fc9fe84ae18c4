"""Keys of a Labels layer while it is chosen in the Labels widget: 1 to 9 for labels, D for the next doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ReferenceType, ref

from napari.layers import Labels as LabelsLayer

DIGITS = "123456789"
POLYGON, NEXT, BACK = "O", "D", "Shift-D"


class LabelKeys:
    """Binds keys to one layer at a time, and lets go of them.

    They stand before napari's own keys of that layer only; other layers keep theirs.

    Parameters
    ----------
    choose : callable
        ``choose(row)``, counted from 0.
    step : callable
        ``step(by)``: go to the next (1) or the last (-1) place of doubt.
    """

    def __init__(self, choose: Callable[[int], None], step: Callable[[int], None]) -> None:
        self._choose, self._step = choose, step
        self._layer: ReferenceType[LabelsLayer] | None = None
        self._bound: list[str] = []

    def follow(self, layer: LabelsLayer | None, *, digits: bool = True) -> None:
        """Bind the keys to a layer, and to no other."""
        self.let_go()
        if layer is None:
            return
        self._layer = ref(layer)
        self._bind(layer, NEXT, lambda: self._step(1))
        self._bind(layer, BACK, lambda: self._step(-1))
        if digits:
            for row, key in enumerate(DIGITS):
                self._bind(layer, key, lambda row=row: self._choose(row))
            here = ref(layer)
            self._bind(layer, POLYGON, lambda: setattr(here(), "mode", "polygon"))

    def _bind(self, layer: LabelsLayer, key: str, call: Callable[[], None]) -> None:
        layer.bind_key(key, lambda _: call(), overwrite=True)
        self._bound.append(key)

    def let_go(self, *_: Any) -> None:
        """Give the keys back to napari."""
        layer = None if self._layer is None else self._layer()
        if layer is not None:
            for key in self._bound:
                layer.bind_key(key, None, overwrite=True)
        self._layer, self._bound = None, []
