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
from napari_mri.io import files
from napari_mri.io.formats import Found, all_formats

_LABEL_NAME = re.compile(r"(^|[-_. ])(mask|label|seg|dseg|roi|aseg|aparc|lesion)s?([-_. ]|$)|segmentation", re.I)
MOST_VALUES = 256
"""A file named like labels with more different values than this is taken for a scan all the same."""

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
    for one in paths:
        volumes.extend(_chosen(files.survey(one)))
    if viewer is not None:
        watch(viewer)
    tell(volumes)
    return tuples(volumes, () if viewer is None else viewer.layers)


def tuples(volumes: Iterable[Volume], layers: Iterable[Any] = ()) -> list[LayerTuple]:
    """Make the layer tuples of volumes that open together, in one frame."""
    frame = bridge.frame_of(layers)
    made = []
    for volume in volumes:
        one = bridge.to_tuple(as_it_looks(volume), frame)
        frame = frame or one[1]["metadata"][bridge.KEY].placing.frame
        made.append(one)
    return made or [(None,)]  # type: ignore[list-item]  # napari's word for "nothing to add"


def _chosen(found: tuple[Found, ...]) -> tuple[Volume, ...]:
    usable = tuple(one for one in found if not one.problem)
    if len(found) == 1 or not usable:
        return (found[0].open(),)
    return ask(found)


def ask(found: tuple[Found, ...]) -> tuple[Volume, ...]:
    """Let the user choose among several series; without a window all are opened."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return tuple(one.open() for one in found if not one.problem)
    from napari_mri.gui.series_dialog import SeriesDialog

    return SeriesDialog.ask(found)


def as_it_looks(volume: Volume) -> Volume:
    """Return labels if a file of whole numbers is evidently a label map, else the volume itself."""
    if isinstance(volume, Labels) or volume.data.ndim != 3:
        return volume
    sample = volume.data[tuple(slice(None, None, max(1, n // 48)) for n in volume.data.shape)]
    values = np.unique(sample)
    if not np.array_equal(values, np.floor(values)) or values.size == 0 or values[0] < 0:
        return volume
    name = Path(volume.origin.path).name or volume.title
    small_integers = volume.data.dtype.kind in "iu" and values[-1] <= 1
    if small_integers or (_LABEL_NAME.search(name) and values.size <= MOST_VALUES):
        try:
            return files.as_labels(volume)
        except MriError:
            return volume
    return volume


# ------------------------------------------------------------------------------------------ writing


def write_labels(path: str, data: Any, facts: dict[str, Any]) -> list[str]:
    """Write one Labels layer on the grid of its scan (npe2 writer)."""
    layer, layers = _layer_of(data, facts, "labels")
    return [str(save_labels(bridge.labels_of(layer, layers), path))]


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
