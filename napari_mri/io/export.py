"""Writes a result for somebody else's program: nothing about the patient unless it is asked for."""

from __future__ import annotations

from pathlib import Path

from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels, Volume
from napari_mri.io.atomic import atomic_path
from napari_mri.io.files import save, writer_of
from napari_mri.io.seg_write import ROOM


def export(volume: Volume, path: str | Path, *, patient: bool = False, sidecar: bool = True) -> Path:
    """Save in the format that the ending tells, with or without whose it is.

    Parameters
    ----------
    volume : Volume or Labels
    path : str or Path
    patient : bool
        Whether a DICOM SEG carries over the patient's name, number and dates from the scan it was
        drawn on, as an archive needs them to file it. Off unless asked for.
    sidecar : bool
        Whether the history goes beside it (see `files.save`).

    Raises
    ------
    BadOption
        If `patient` is asked of a format that holds no patient.
    """
    place = Path(path).expanduser()
    fmt, _ = writer_of(place)
    if not patient:
        return save(volume, place, sidecar=sidecar)
    if fmt.name != "dicom-seg" or not isinstance(volume, Labels):
        raise BadOption(
            f"{fmt.title} holds no patient's name here; only a DICOM SEG of labels can carry it.",
            hint="Save as .seg.dcm, or leave the patient out.",
        )
    from napari_mri.io.seg_write import write_seg

    with atomic_path(place) as part:
        write_seg(volume, part, patient=True)
    return place


def unkept(volume: Volume, path: str | Path) -> tuple[str, ...]:
    """Return, in sentences, what the format of `path` does not keep of a volume."""
    fmt, _ = writer_of(Path(path))
    told = []
    if fmt.name != "nifti" and volume.frames is not None and volume.frames.bvals:
        told.append(f"{fmt.title} is written without b-values: save as .nii.gz to keep them.")
    if fmt.name in ("dicom-seg", "rtstruct") and isinstance(volume, Labels):
        long = {value: name for value, name in volume.names.items() if len(name) > ROOM}
        cut = ", ".join(f"'{long[value]}'" for value in (volume.values if long else ()) if value in long)
        if cut:
            told.append(f"{fmt.title} has room for {ROOM} characters of a name; these were cut: {cut}.")
    return tuple(told)
