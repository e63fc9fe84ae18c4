"""napari's layers, mended: marks are seen on the nearest slice and leave the slider its steps, drawing can be ended."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from napari.layers import Labels as NapariLabels
from napari.layers import Points as NapariPoints
from napari.layers import Shapes as NapariShapes
from napari.layers.points.points import _PointsSlicingState
from napari.layers.shapes._shape_list import ShapeList

FAR = 10_000.0
"""mm: the steps of all scans are finer."""


class _Marks:
    """napari takes the finest scale of all layers for the slider's step, and marks have one of 1 mm."""

    steps = np.ones(3)
    """mm between the slices that marks are made on, along the window's axes: they are drawn on the nearest slice."""

    def lie_on(self, steps: Any) -> None:
        """Be drawn on slices that lie so many mm (3,) apart."""
        if not np.array_equal(self.steps, steps):
            self.steps = np.asarray(steps)
            self._on_steps()
            self.refresh()  # type: ignore[attr-defined]

    def _on_steps(self) -> None:
        """Do what else other steps ask for."""

    @cached_property
    def extent(self) -> Any:
        plain = super().extent  # type: ignore[misc]
        return plain._replace(step=np.full_like(plain.step, FAR))


class Labels(NapariLabels):
    """As napari's, which warns of its developers' affairs when outlines come into a 3D view, where there are none."""

    def _calculate_contour(self, labels: Any, data_slice: Any) -> Any:
        return super()._calculate_contour(labels, data_slice) if labels.ndim < 3 else None


class _Near(_PointsSlicingState):
    def make_slice_request_internal(self, slice_input: Any, data_slice: Any) -> Any:
        # Smaller the farther away they are, as napari draws what lies in a thick slice; none at the next slice.
        left, right = (np.maximum(margin, self.layer.steps) for margin in (data_slice.margin_left, data_slice.margin_right))
        thick = data_slice.copy_with(margin_left=tuple(left), margin_right=tuple(right))
        return super().make_slice_request_internal(slice_input, thick)


class Points(_Marks, NapariPoints):  # type: ignore[misc]  # the name by which napari knows icons and files
    """As napari's, in millimetres of the window."""

    def _get_layer_slicing_state(self, data: Any, cache: bool) -> _Near:
        return _Near(layer=self, data=data, cache=cache)


def _span(shape: Any) -> Any:
    """Return the first and last place (2, P) of a shape along the axes that are not displayed."""
    return np.asarray(shape._bounding_box)[:, shape.dims_not_displayed]


class _ExactList(ShapeList):
    """napari rounds the slice of a shape to a whole number (of a rectangle even down), and shows it on no other."""

    near = np.full(3, 0.5)
    """mm along each axis: what lies so near to a slice is drawn on it."""

    @property
    def slice_keys(self) -> Any:
        return np.array([_span(shape) for shape in self.shapes])

    @cached_property
    def _visible_shapes(self) -> list[tuple[int, Any]]:
        here = np.asarray(self.slice_key)
        shapes = list(enumerate(self.shapes))
        if not here.size:
            return shapes
        return [(n, s) for n, s in shapes if (np.abs(_span(s) - here) < self.near[s.dims_not_displayed]).all()]


class Shapes(_Marks, NapariShapes):  # type: ignore[misc]  # the name by which napari knows icons and files
    """As napari's, in millimetres of the window."""

    @property
    def _data_view(self) -> ShapeList:
        return self.__dict__["_exact"]

    @_data_view.setter
    def _data_view(self, shapes: ShapeList) -> None:
        if type(shapes) is ShapeList:
            shapes.__class__ = _ExactList
        self.__dict__["_exact"] = shapes
        self._on_steps()

    def _on_steps(self) -> None:
        self._data_view.near = np.maximum(0.5, 0.501 * self.steps)  # type: ignore[attr-defined]
        self._data_view._clear_cache()

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
