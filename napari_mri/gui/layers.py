"""Volumes to napari layers and back: the only place where napari's axes and ours meet.

Where a layer stands is told by `placing` (read its rule first). A layer made here carries a `Shown`
record: the exact volume, and how it is placed. A layer made by anybody else (napari's "new labels"
button copies the transform of a scan but no metadata) is recognised by its shape, spacing and
offset among the known layers of the window. If several scans could be meant, or none, the answer is
a sentence, not a guess.

napari is loaded, Qt is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels, Origin, Volume
from napari_mri.gui.placing import STRAIGHT, Frame, Placing
from napari_mri.io.lazy import pyramid, sample_of

KEY = "napari_mri"
"""Under this name a layer's metadata holds its `Shown` record."""

FRAME = "napari_mri_frame"
"""Under this name the metadata of a layer without voxels, such as a surface, holds the frame it stands in."""
AXES = ("inferior–superior", "posterior–anterior", "left–right")
TILTED = " (tilted)"
"""Ends the name of a layer that is interpolated for the eye; its exact voxels stay aside."""
_SIZE = re.compile(r" \d+(×\d+)+$")
"""A series is told from its neighbours by its size; a layer's name has no room for it."""
LayerTuple = tuple[NDArray[Any], dict[str, Any], str]

_known: WeakKeyDictionary[Layer, Shown] = WeakKeyDictionary()
_steps: WeakKeyDictionary[Layer, tuple[Step, ...]] = WeakKeyDictionary()
_logs: WeakKeyDictionary[Layer, Teller] = WeakKeyDictionary()


class Teller(Protocol):
    """What knows the steps that were done to a layer."""

    def history(self) -> tuple[Step, ...]:
        """Return what was done, oldest first."""

    def name_last(self, step: Step) -> None:
        """Hear what the last change was."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What a layer shows.

    Parameters
    ----------
    volume : Volume or Labels
        The exact voxels, as they were when the layer was made.
    placing : Placing
        Where they stand in the window.
    array : ndarray or None
        The array that was handed to napari, to tell an untouched picture from a changed one.
    """

    volume: Volume
    placing: Placing
    array: NDArray[Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Shown:
        """Share the record with a duplicate of the layer: it is frozen, and may be large."""
        return self


@dataclass(frozen=True)
class Place:
    """What napari knows of where a layer stands.

    Parameters
    ----------
    shape : tuple of int
        The last three axes.
    scale, translate : (3,) mm
    bent : bool
        Whether rotation, shear or an extra affine is in play.
    """

    shape: tuple[int, ...]
    scale: NDArray[np.float64]
    translate: NDArray[np.float64]
    bent: bool

    @classmethod
    def of(cls, layer: Layer) -> Place:
        """Read the place off a layer."""
        ends = (layer.rotate, layer.shear, np.asarray(layer.affine))
        return cls._of(np.shape(layer.data), layer.scale, layer.translate, ends)

    @classmethod
    def of_tuple(cls, data: Any, facts: Mapping[str, Any]) -> Place:
        """Read the place off a layer data tuple, as writers are given it."""
        n = np.ndim(data)
        ends = (facts.get("rotate"), facts.get("shear"), facts.get("affine"))
        scale = facts.get("scale", np.ones(n))
        return cls._of(np.shape(data), scale, facts.get("translate", np.zeros(n)), ends)

    @classmethod
    def _of(cls, shape: tuple[int, ...], scale: Any, translate: Any, ends: tuple[Any, Any, Any]) -> Place:
        rotate, shear, affine = ends
        bent = False
        for matrix, neutral in ((rotate, np.eye), (affine, np.eye)):
            if matrix is not None and np.ndim(matrix) == 2:
                bent |= not np.allclose(matrix, neutral(len(matrix)), atol=1e-6)
        bent |= shear is not None and not np.allclose(shear, np.eye(len(shear)) if np.ndim(shear) == 2 else 0)
        return cls(tuple(shape[-3:]), np.asarray(scale)[-3:], np.asarray(translate)[-3:], bool(bent))

    def on(self, placing: Placing) -> bool:
        """Tell whether this is the place of a grid."""
        return not self.bent and len(self.shape) == 3 and placing.fits(self.shape, self.scale, self.translate)


def frame_of(layers: Iterable[Layer]) -> Frame | None:
    """Return the frame of a window: that of its first known layer, or None if it has none."""
    for layer in layers:
        record = shown(layer)
        if record is not None:
            return record.placing.frame
        frame = layer.metadata.get(FRAME)
        if isinstance(frame, Frame):
            return frame
    return None


def shown(layer: Layer) -> Shown | None:
    """Return the record of a layer, or None if it has none or was moved or cut since."""
    record = layer.metadata.get(KEY) or _known.get(layer)
    if not isinstance(record, Shown) or not Place.of(layer).on(record.placing):
        return None
    _known[layer] = record
    return record


def to_tuple(volume: Volume, frame: Frame | None = None, **look: Any) -> LayerTuple:
    """Make a napari layer data tuple of a volume or of labels.

    Parameters
    ----------
    volume : Volume or Labels
    frame : Frame, optional
        The window's (`frame_of`); default the volume's own.
    **look
        Further arguments of the napari layer (name, opacity, …).
    """
    placing = Placing(volume.grid, frame or Frame.of(volume.grid))
    named = isinstance(volume, Labels)
    array = placing.forth(volume.data, labels=named)
    if named:
        array = _paintable(array)
    facts: dict[str, Any] = {
        "name": _SIZE.sub("", volume.title) or ("labels" if named else "scan"),
        "scale": placing.scale,
        "translate": placing.translate,
        "units": ("mm",) * 3,
        "axis_labels": AXES,
    }
    if array.ndim == 4:
        kind = volume.frames.kind if volume.frames is not None else "channel"
        facts["scale"] = np.array([1.0, *placing.scale])
        facts["translate"] = np.array([0.0, *placing.translate])
        facts["units"] = ("pixel", *facts["units"])
        facts["axis_labels"] = (kind, *AXES)
    facts |= _label_look(volume) if isinstance(volume, Labels) else _image_look(volume)
    levels = [array] if named else pyramid(array)
    if len(levels) > 1:
        facts["multiscale"] = True
    facts |= look
    if not placing.exact:
        facts["name"] += TILTED
    facts["metadata"] = {KEY: Shown(volume, placing, array)} | dict(look.get("metadata", {}))
    return levels if len(levels) > 1 else array, facts, "labels" if named else "image"  # type: ignore[return-value]


def to_layer(volume: Volume, frame: Frame | None = None, **look: Any) -> Layer:
    """Make a napari layer of a volume or of labels (see `to_tuple`)."""
    layer = Layer.create(*to_tuple(volume, frame, **look))
    _widen(layer)
    return layer


def _paintable(array: NDArray[Any]) -> NDArray[Any]:
    """Copy labels for painting: the volume they came from stays as it was."""
    return np.array(array, order="C", dtype=array.dtype.newbyteorder("="))


def _image_look(volume: Volume) -> dict[str, Any]:
    sample = sample_of(volume.data)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, (0.5, 99.8)) if sample.size else (0.0, 1.0)
    low = min(low, 0.0) if sample.size and sample.min() >= 0 else low
    return {"colormap": "gray", "contrast_limits": (float(low), float(high) if high > low else float(low) + 1.0)}


def _label_look(labels: Labels) -> dict[str, Any]:
    look: dict[str, Any] = {"opacity": 0.5}
    if labels.names:
        look["features"] = {"index": list(labels.names), "name": list(labels.names.values())}
    if labels.colors:
        from napari.utils.colormaps import DirectLabelColormap

        table: dict[int | None, Any] = {value: (*rgb, 1.0) for value, rgb in labels.colors.items()}
        look["colormap"] = DirectLabelColormap(color_dict={None: (1.0, 1.0, 0.0, 1.0), 0: (0.0, 0.0, 0.0, 0.0)} | table)
    return look


def _widen(layer: Layer) -> None:
    """Let the contrast slider reach every grey value; napari would stop it at the first setting."""
    record = shown(layer)
    if isinstance(layer, Image) and record is not None and record.volume.data.size:
        data = sample_of(record.volume.data, 96)
        low, high = layer.contrast_limits
        with np.errstate(invalid="ignore"):
            layer.contrast_limits_range = (min(low, float(np.nanmin(data))), max(high, float(np.nanmax(data))))


# ---------------------------------------------------------------------------------------- back home


def volume_of(layer: Layer, layers: Iterable[Layer] = ()) -> Volume:
    """Return the volume an Image layer shows, exact voxels on the exact grid.

    Parameters
    ----------
    layer : napari Image
    layers : iterable of napari layers
        The window's, to know its frame for a layer that did not come from here.

    Raises
    ------
    UnsupportedImage
        For RGB, 2D or 5D layers.
    GridMismatch
        For a layer that was rotated or sheared in napari.
    """
    record = shown(layer)
    data = layer.data
    if record is not None and not isinstance(record.volume, Labels):
        if data is record.array or not record.placing.exact or getattr(layer, "multiscale", False):
            return record.volume
        return record.volume.with_data(record.placing.home(np.asarray(data)))
    if getattr(layer, "rgb", False) or np.ndim(data) not in (3, 4) or getattr(layer, "multiscale", False):
        raise UnsupportedImage(
            f"The layer '{layer.name}' is not a grey-value volume.", hint="Use a 3D or 4D layer without colours."
        )
    placing = _foreign_placing(layer, frame_of(layers) or STRAIGHT)
    guess = f"'{layer.name}' was not opened by MRI Workbench: its place in the patient is taken from its layer."
    origin = Origin(title=layer.name, warnings=(guess,))
    array = np.asarray(data)
    return Volume(placing.home(array), placing.grid, origin=origin)


def _foreign_placing(layer: Layer, frame: Frame) -> Placing:
    """Believe scale and offset of a layer that somebody else made."""
    place = Place.of(layer)
    if place.bent or place.scale.min() <= 0:
        raise GridMismatch(
            f"The layer '{layer.name}' is rotated, sheared or mirrored in napari, so its voxels cannot be told apart.",
            hint="Open the file with MRI Workbench instead.",
        )
    return Placing(_patient_grid(place, frame), frame)


def _patient_grid(place: Place, frame: Frame) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = frame.axes @ np.diag(place.scale)
    affine[:3, 3] = frame.to_patient(place.translate)
    i, j, k = (int(n) for n in place.shape)
    return Grid((i, j, k), affine).turned("RAS")


def labels_of(layer: Layer, layers: Iterable[Layer], scan: Layer | None = None) -> Labels:
    """Return what was drawn in a Labels layer, on the exact grid of its scan.

    Parameters
    ----------
    layer : napari Labels
    layers : iterable of napari layers
        The window's.
    scan : napari Image, optional
        The scan the labels belong to, where the user has said so.

    Raises
    ------
    GridMismatch
        If it lies on no known scan, or on several that store their voxels differently.
    """
    record = record_of(layer, layers, scan)
    base = record.volume
    assert isinstance(base, Labels), "records of drawn layers are made from labels"
    data = record.placing.home(np.asarray(layer.data), base.data if base.data.ndim == np.ndim(layer.data) else None)
    fresh = base.with_labels(data, base.names)
    log = _logs.get(layer)
    logged = () if log is None else log.history()
    history = (*base.history, *_steps.get(layer, ()), *logged)
    result = Labels(data, base.grid, history, fresh.frames, base.origin, base.names, base.colors)
    if not logged and (base.data.shape != data.shape or not np.array_equal(base.data, data)):
        result = result.after(Step("edited by hand"))
    return result.titled(layer.name)


def note(layer: Layer, step: Step) -> None:
    """Remember something that was done to a layer, for the history of what is saved from it."""
    log = _logs.get(layer)
    if log is not None:
        log.name_last(step)
        return
    _steps[layer] = (*_steps.get(layer, ()), step)


def tell_history(layer: Layer, log: Teller) -> None:
    """Let an edit log tell what was done to a layer; it is undone and redone there, too."""
    _logs[layer] = log


def name_labels(layer: Layer, record: Shown, names: Mapping[int, str], colors: Mapping[int, Any]) -> None:
    """Give the labels of a layer names and colours, which travel into the files saved from it."""
    assert isinstance(record.volume, Labels), "only labels have names"
    layer.metadata[KEY] = _known[layer] = replace(record, volume=replace(record.volume, names=names, colors=colors))


def record_of(layer: Layer, layers: Iterable[Layer], scan: Layer | None = None) -> Shown:
    """Return the record of a Labels layer, found by its place if it has none (see `labels_of`)."""
    record = shown(layer)
    if record is None or not isinstance(record.volume, Labels) or scan is not None:
        return _taken_from(layer, layers, scan, record)
    return record


def _taken_from(layer: Layer, layers: Iterable[Layer], scan: Layer | None, record: Shown | None) -> Shown:
    """Find the record for a layer without one of its own, or check its own against the scan."""
    if scan is None:  # an image that was turned into labels brings its own record
        return _blank(layer, record or owner(layer, layers))
    home = shown(scan) or Shown(volume_of(scan, layers), _foreign_placing(scan, frame_of(layers) or STRAIGHT))
    if record is not None and isinstance(record.volume, Labels) and record.volume.grid.same(home.volume.grid):
        return record
    if not Place.of(layer).on(home.placing):
        raise GridMismatch(
            f"'{layer.name}' does not lie on the voxels of '{scan.name}'.",
            hint="Pick the scan it was drawn on, or select the scan and press napari's new-labels button.",
        )
    return _blank(layer, home)


def _blank(layer: Layer, home: Shown) -> Shown:
    """Make the record of a layer that began empty on a scan."""
    shape = home.volume.data.shape if np.ndim(layer.data) == 4 else home.volume.grid.shape
    empty = np.broadcast_to(np.zeros((), layer.data.dtype), shape)
    scan = home.volume
    if isinstance(scan, Labels):  # a mask of the same place stands in for a scan that was closed
        return Shown(Labels(empty, scan.grid, (), None, scan.origin), home.placing)
    return Shown(scan.with_labels(empty), home.placing)


def owner(layer: Layer | LayerTuple, layers: Iterable[Layer], prefer: Layer | None = None) -> Shown:
    """Find the scan whose voxels a layer lies on.

    Parameters
    ----------
    layer : napari layer or layer data tuple
    layers : iterable of napari layers
        The window's.
    prefer : napari layer, optional
        The one meant if several fit, such as the one selected when the layer was made.

    Raises
    ------
    GridMismatch
        If no scan fits, or several that store their voxels in different orders or places.
    """
    name = layer[1].get("name", "labels") if isinstance(layer, tuple) else layer.name
    place = Place.of_tuple(*layer[:2]) if isinstance(layer, tuple) else Place.of(layer)
    found: list[tuple[Layer, Shown]] = []
    for other in layers:
        record = shown(other) if other is not layer else None
        if record is not None and place.on(record.placing):
            found.append((other, record))
    for other, record in found:
        if other is prefer:
            return record
    images = [pair for pair in found if not isinstance(pair[1].volume, Labels)]
    candidates = [record for _, record in images or found]
    if not candidates:
        raise GridMismatch(
            f"'{name}' does not lie on the voxels of any open scan, so nobody can tell where it belongs.",
            hint="Select the scan, press napari's new-labels button and draw there.",
        )
    if any(not candidates[0].volume.grid.same(record.volume.grid) for record in candidates[1:]):
        scans = ", ".join(f"'{other.name}'" for other, _ in images or found)
        raise GridMismatch(
            f"'{name}' could belong to any of {scans}, which store their voxels differently.",
            hint="Pick the scan in the Labels widget and save there.",
        )
    return candidates[-1]


# ---------------------------------------------------------------------------------------- a window


def adopt(layer: Layer, layers: Iterable[Layer], prefer: Layer | None = None) -> bool:
    """Remember whose voxels a layer lies on, so that the scan may be closed later.

    Returns whether the layer is known now.
    """
    _widen(layer)
    if shown(layer) is not None:
        return True
    if not isinstance(layer, LabelsLayer):
        return False
    try:
        _known[layer] = _blank(layer, owner(layer, layers, prefer))
    except GridMismatch:
        return False
    return True
