"""The labels of one layer as a person knows them: name, colour, order, shown or hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import ref

from napari.layers import Labels as LabelsLayer
from napari.utils.colormaps import DirectLabelColormap

from napari_mri.core.volume import Labels
from napari_mri.gui import layers as bridge
from napari_mri.io.colors import Rgb, some_color
from napari_mri.io.label_tables import LabelTable

_OUTSIDE = (1.0, 1.0, 0.0, 1.0)
"""A label that is in no table is yellow: it must not be overlooked."""


class LabelSet:
    """Names, colours, order and visibility; it changes how the layer looks, and what is saved with it.

    Parameters
    ----------
    layer : napari Labels
    """

    def __init__(self, layer: LabelsLayer) -> None:
        self._layer = ref(layer)
        record = bridge.shown(layer)
        known = record.volume if record is not None and isinstance(record.volume, Labels) else None
        self.names: dict[int, str] = {} if known is None else {int(v): n for v, n in known.names.items() if v}
        self.colors: dict[int, Rgb] = {} if known is None else {int(v): c for v, c in known.colors.items() if v}
        self.hidden: set[int] = set()
        self._order: list[int] = list(self.names)
        self._dropped: set[int] = set()

    def values(self, occurring: Iterable[int] = ()) -> list[int]:
        """Return the labels in the order of the table: those it lists, then others that occur."""
        for value in occurring:  # an undo brings a label back that was removed
            self._dropped.discard(value)
            if value not in self._order:
                self._order.append(value)
        return [value for value in self._order if value not in self._dropped]

    def table(self) -> LabelTable:
        """Return the names and colours to be saved."""
        values = self.values()
        names = {value: self.names.get(value) or f"Label {value}" for value in values}
        return LabelTable(names, {value: self.color(value) for value in values})

    def color(self, value: int) -> Rgb:
        """Return the colour a label is drawn in."""
        layer = self._layer()
        if value in self.colors or layer is None:
            return self.colors.get(value, some_color(value))
        if value in self.hidden or isinstance(layer.colormap, DirectLabelColormap):
            return some_color(value)
        drawn = layer.colormap.map(value)
        return float(drawn[0]), float(drawn[1]), float(drawn[2])

    # ------------------------------------------------------------------------------- changing

    def add(self, value: int, name: str = "") -> None:
        """List a label."""
        self.values([value])
        if name:
            self.names[value] = name
        if isinstance(self._colormap(), DirectLabelColormap):
            self.draw()

    def remove(self, value: int) -> None:
        """List a label no longer; its name comes back with it if its removal is undone."""
        self._dropped.add(value)

    def move(self, value: int, by: int) -> None:
        """Move a label up (below 0) or down in the list."""
        values = self.values()
        place = values.index(value)
        values.insert(min(max(place + by, 0), len(values) - 1), values.pop(place))
        self._order = values + [gone for gone in self._order if gone in self._dropped]

    def rename(self, value: int, name: str) -> None:
        """Give a label a name; an empty one takes it away."""
        if name.strip():
            self.names[value] = name.strip()
        else:
            self.names.pop(value, None)

    def paint(self, value: int, color: Rgb) -> None:
        """Give a label a colour."""
        self.colors[value] = color
        self.draw()

    def show(self, value: int, shown: bool) -> None:
        """Show or hide a label."""
        (self.hidden.discard if shown else self.hidden.add)(value)
        self.draw()

    def take(self, table: LabelTable) -> None:
        """Take over names and colours of a table; labels it does not know stay as they are."""
        for value, name in table.names.items():
            if value > 0:
                self.values([value])
                self.names[value] = name
        self.colors.update({value: color for value, color in table.colors.items() if value > 0})
        self.draw()

    def draw(self) -> None:
        """Give the layer the colours of the table; what napari chose for the others is kept."""
        layer = self._layer()
        if layer is None:
            return
        for value in self.values():
            self.colors[value] = self.color(value)
        wanted = {*self.values(), int(layer.selected_label)} - {0}
        table: dict[int | None, tuple[float, ...]] = {None: _OUTSIDE, 0: (0.0, 0.0, 0.0, 0.0)}
        for value in wanted:
            rgb = self.colors.get(value, some_color(value))
            table[value] = (*rgb, 0.0 if value in self.hidden else 1.0)
        layer.colormap = DirectLabelColormap(color_dict=table)

    def know(self, value: int) -> None:
        """Have a colour ready for a label that is about to be painted."""
        colormap = self._colormap()
        if value and isinstance(colormap, DirectLabelColormap) and value not in colormap.color_dict:
            self.draw()

    def _colormap(self) -> object:
        layer = self._layer()
        return None if layer is None else layer.colormap

    def keep(self, record: bridge.Shown) -> Mapping[str, object]:
        """Write names and colours into the layer's record, where writers find them; return them for the log."""
        layer, values = self._layer(), self.values()
        names = {value: self.names[value] for value in values if value in self.names}
        colors = {value: self.colors[value] for value in values if value in self.colors}
        if layer is not None and isinstance(record.volume, Labels):
            bridge.name_labels(layer, record, names, colors)
        return {
            "names": {str(value): name for value, name in names.items()},
            "colors": {str(value): list(color) for value, color in colors.items()},
        }
