"""napari's reader, writers and sample data: the plugin's door to files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from napari_mri.core.errors import FileProblem, MriError, NotAnImage
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.layers import LayerTuple
from napari_mri.gui.placing import STRAIGHT, Frame
from napari_mri.io import files
from napari_mri.io.conventions import dressed
from napari_mri.io.formats import Found, all_formats
from napari_mri.io.lazy import sample_of
from napari_mri.io.surface_files import is_surface, read_surface
from napari_mri.io.surfaces import Surface
from napari_mri.io.unpack import head_of

_LABEL_NAME = re.compile(r"(^|[-_. ])(mask|label|seg|dseg|roi|aseg|aparc|lesion)s?([-_. ]|$)|segmentation", re.I)
MOST_VALUES = 256
"""A file named like labels with more different values than this is taken for a scan all the same."""

MOST_WITHOUT_ASKING = 5
"""One scan and its segmentations, up to so many, open without a question."""

Chooser = Callable[[tuple[Found, ...]], tuple[Volume, ...]]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerTuple]] | None:
    """Tell napari whether anything at `path` looks like ours (npe2 reader)."""
    paths = [path] if isinstance(path, str) else list(path)
    try:
        for one in paths:
            files.survey(one)
    except NotAnImage:
        return None  # let another plugin try
    except MriError:
        return read  # ours, but broken: reading it tells why
    return read


def read(path: str | list[str]) -> list[LayerTuple]:
    """Read files or folders into layer data tuples.

    If a folder holds several series, a dialog asks which; napari gets a sentence if it is dismissed.
    """
    from napari import current_viewer

    from napari_mri.gui.window import tell, watch

    paths = [path] if isinstance(path, str) else list(path)
    viewer = current_viewer()
    volumes: list[Volume] = []
    surfaces: list[Surface] = []
    for one in paths:
        if is_surface_file(one):
            surfaces.append(read_surface(one))
        else:
            volumes.extend(_chosen(files.survey(one)))
    if viewer is not None:
        watch(viewer)
    tell(volumes)
    if surfaces:
        tell_surfaces(surfaces)
    return tuples(volumes, () if viewer is None else viewer.layers, surfaces)


def tuples(
    volumes: Iterable[Volume], layers: Iterable[Any] = (), surfaces: Iterable[Surface] = ()
) -> list[LayerTuple]:
    """Make the layer tuples of volumes and surfaces that open together, in one frame."""
    frame = bridge.frame_of(layers)
    made = []
    for volume in volumes:
        one = bridge.to_tuple(as_it_looks(volume), frame)
        frame = frame or one[1]["metadata"][bridge.KEY].placing.frame
        made.append(one)
    made += [surface_tuple(surface, frame or STRAIGHT) for surface in surfaces]
    return made or [(None,)]  # type: ignore[list-item]  # napari's word for "nothing to add"


def is_surface_file(path: str | Path) -> bool:
    """Tell whether a path is a surface (STL, OBJ, PLY, GIFTI, FreeSurfer) rather than a volume."""
    place = Path(path).expanduser()
    return place.is_file() and is_surface(place, head_of(place))


def surface_tuple(surface: Surface, frame: Frame) -> LayerTuple:
    """Make a napari surface in the frame of its window: it stands where the volume it outlines does."""
    facts: dict[str, Any] = {
        "name": surface.name or "surface", "units": ("mm",) * 3, "axis_labels": bridge.AXES, "opacity": 0.7,
        "shading": "smooth", "metadata": {bridge.FRAME: frame},
    }  # fmt: skip
    if surface.color is not None:
        facts["vertex_colors"] = np.tile((*surface.color, 1.0), (len(surface.points), 1))
    return (frame.to_world(surface.points), surface.faces), facts, "surface"  # type: ignore[return-value]


def tell_surfaces(surfaces: Iterable[Surface]) -> None:
    """Show what surface files had to be told about."""
    from napari.utils.notifications import show_warning

    for surface in surfaces:
        for sentence in surface.warnings:
            show_warning(f"{surface.name}: {sentence}")


def _chosen(found: tuple[Found, ...]) -> tuple[Volume, ...]:
    usable = tuple(one for one in found if not one.problem)
    if len(found) == 1 or not usable:
        return (found[0].open(),)
    if sum(not one.labels for one in found) == 1 and len(found) <= MOST_WITHOUT_ASKING:
        return _with_its_labels(usable)
    return ask(found)


def _with_its_labels(found: tuple[Found, ...]) -> tuple[Volume, ...]:
    """Open one scan and the few segmentations that belong to it; those that do not open are told."""
    from napari.utils.notifications import show_warning

    opened = []
    for one in found:
        try:
            opened.append(one.open())
        except MriError as error:
            if not one.labels:
                raise
            show_warning(f"{one.title}: {error}")
    return tuple(opened)


def ask(found: tuple[Found, ...]) -> tuple[Volume, ...]:
    """Let the user choose among several series; without a window all are opened."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return tuple(one.open() for one in found if not one.problem)
    from napari_mri.gui.series_dialog import SeriesDialog

    return SeriesDialog.ask(found)


def as_it_looks(volume: Volume) -> Volume:
    """Return labels, named as the files around them tell, if a file of whole numbers evidently is a label map."""
    if isinstance(volume, Labels):
        return _named(volume)
    if volume.data.ndim != 3:
        return volume
    sample = sample_of(volume.data, 48)
    values = np.unique(sample)
    if not np.array_equal(values, np.floor(values)) or values.size == 0 or values[0] < 0:
        return volume
    name = Path(volume.origin.path).name or volume.title
    small_integers = volume.data.dtype.kind in "iu" and values[-1] <= 1
    if small_integers or (_LABEL_NAME.search(name) and values.size <= MOST_VALUES):
        try:
            return _named(files.as_labels(volume))
        except MriError:
            return volume
    return volume


def _named(labels: Labels) -> Labels:
    path = labels.origin.path
    return dressed(labels, Path(path)) if path and not labels.names and Path(path).is_file() else labels


# ------------------------------------------------------------------------------------------ writing


def write_labels(path: str, data: Any, facts: dict[str, Any]) -> list[str]:
    """Write one Labels layer on the grid of its scan (npe2 writer)."""
    from napari_mri.gui.edit_history import edits_of

    layer, layers = _layer_of(data, facts, "labels")
    edits = edits_of(layer)
    written = [str(save_labels(bridge.labels_of(layer, layers), path))]
    if edits is not None:
        edits.saved(edits.top)
    return written


def write_image(path: str, data: Any, facts: dict[str, Any]) -> list[str]:
    """Write one Image layer with its exact voxels and grid (npe2 writer)."""
    layer, layers = _layer_of(data, facts, "image")
    return [str(files.save(bridge.volume_of(layer, layers), named(path)))]


def save_labels(labels: Labels, path: str | Path) -> Path:
    """Save labels; an empty map is saved too, and said."""
    if not labels.data.any():
        from napari.utils.notifications import show_warning

        show_warning(f"'{labels.title}' is empty: no voxel is marked.")
    return files.save(labels, named(path))


def named(path: str | Path) -> Path:
    """Return the path, with ``.nii.gz`` where it has no known ending."""
    place = Path(path)
    known = [ending for fmt in all_formats() if fmt.write for ending in fmt.endings]
    if any(place.name.lower().endswith(ending) for ending in known):
        return place
    if place.suffix and not place.suffix[1:].isdigit():
        raise FileProblem(
            f"'{place.suffix}' is no format that keeps the place of voxels.", hint=f"Use one of {', '.join(known)}."
        )
    return place.with_name(place.name + ".nii.gz")


def _layer_of(data: Any, facts: dict[str, Any], kind: str) -> tuple[Any, list[Any]]:
    """Find the layer that napari hands over as a tuple; make it where there is no window."""
    from napari import current_viewer
    from napari.layers import Layer

    viewer = current_viewer()
    layers = list(viewer.layers) if viewer is not None else []
    for layer in layers:
        if layer.data is data and layer.name == facts.get("name", layer.name):
            return layer, layers
    return Layer.create(data, dict(facts), kind), layers


# ------------------------------------------------------------------------------------------ samples


def sample_dicom() -> list[LayerTuple]:
    """Open the head that is kept as a DICOM series (npe2 sample data)."""
    from napari_mri.sample import dicom_head

    return read(str(dicom_head()))


def sample_nifti() -> list[LayerTuple]:
    """Open the head that is kept as NIfTI, with its labels (npe2 sample data)."""
    from napari_mri.sample import nifti_head, nifti_labels

    return read([str(nifti_head()), str(nifti_labels())])
