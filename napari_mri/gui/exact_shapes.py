"""napari's layer of boxes and lines, mended: shapes are seen on every slice, whatever its millimetre, and drawing can be ended."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from napari.layers import Shapes as NapariShapes
from napari.layers.shapes._shape_list import ShapeList

ON_SLICE = 0.5
"""mm: what lies so near to a slice is drawn on it."""


def _span(shape: Any) -> Any:
    """Return the first and last place (2, P) of a shape along the axes that are not displayed."""
    return np.asarray(shape._bounding_box)[:, shape.dims_not_displayed]


class _ExactList(ShapeList):
    """napari rounds the slice of a shape to a whole number (of a rectangle even down), and shows it on no other."""

    @property
    def slice_keys(self) -> Any:
        return np.array([_span(shape) for shape in self.shapes])

    @cached_property
    def _visible_shapes(self) -> list[tuple[int, Any]]:
        here = np.asarray(self.slice_key)
        shapes = list(enumerate(self.shapes))
        return [(n, s) for n, s in shapes if (np.abs(_span(s) - here) < ON_SLICE).all()] if here.size else shapes


class Shapes(NapariShapes):  # the name by which napari knows icons and files
    """As napari's, in millimetres of the window."""

    @property
    def _data_view(self) -> ShapeList:
        return self.__dict__["_exact"]

    @_data_view.setter
    def _data_view(self, shapes: ShapeList) -> None:
        if type(shapes) is ShapeList:
            shapes.__class__ = _ExactList
        self.__dict__["_exact"] = shapes

    @property
    def unfinished(self) -> bool:
        """Whether the last shape is still being drawn."""
        return bool(self._is_creating)

    def rest(self) -> None:
        """End the drawing of a shape; one that is too short for its kind goes."""
        if self._is_creating:
            self._finish_drawing()

    def _finish_drawing(self, event: Any = None) -> None:
        drawing = self.unfinished
        super()._finish_drawing(event)
        if drawing:  # napari tells of the shape before it is one
            self.events.features()
        if len(self.features) > self.nshapes:  # napari takes such a shape away and leaves its row
            self.features = self.features.iloc[: self.nshapes]
