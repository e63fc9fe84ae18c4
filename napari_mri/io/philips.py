"""Philips' two kinds of values: as the console displays them, and precise ones that compare between scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_mri.core.errors import BadOption, UnsupportedImage
from napari_mri.core.volume import Volume
from napari_mri.io.dicom_header import Frame

KINDS = ("display", "precise")


def fields_of(volumes: Sequence[Sequence[Frame]]) -> dict[str, Any]:
    """Return what tells how to turn the display values of a series into precise ones.

    Parameters
    ----------
    volumes : sequence of sequences of Frame
        ``volumes[t][k]`` is slice k of frame t.

    Returns
    -------
    dict
        Empty where the scanner tells no second scale.
    """
    table = [
        [frame.slope * frame.file.scale[0] if frame.file.scale is not None else 0.0 for frame in volume]
        for volume in volumes
    ]
    every = {value for row in table for value in row}
    if not all(np.isfinite(value) and value > 0 for value in every):
        return {}
    first = volumes[0][0]
    assert first.file.scale is not None
    slope, inter = first.file.scale
    return {
        "values": "display", "precise_slope": slope, "precise_inter": inter, "rescale_slope": first.slope,
        "rescale_inter": first.inter,
        "precise_divisor": every.pop() if len(every) == 1 else tuple(tuple(row) for row in table),
    }  # fmt: skip


def precise(volume: Volume) -> Volume:
    """Return the precise ("floating point") values of a Philips scan that was read with display values.

    With stored value R, rescale slope RS and intercept RI and scale slope SS, the console displays
    R × RS + RI, and the precise value is (R × RS + RI) / (RS × SS) (Chenevert et al. 2014,
    Translational Oncology 7:65).

    Raises
    ------
    UnsupportedImage
        If the scan tells no second scale.
    """
    if volume.origin.fields.get("values") == "precise":
        return volume
    divisor = volume.origin.fields.get("precise_divisor")
    if divisor is None:
        raise UnsupportedImage(
            f"'{volume.title}' tells no scale of precise values: it is no Philips scan, or they were removed.",
            hint="Open it with the display values.",
        )
    by_slice = np.asarray(divisor, dtype=np.float64)
    if by_slice.ndim == 2:
        by_slice = by_slice.T if volume.data.ndim == 4 else by_slice[0]
    data = (volume.data / by_slice).astype(np.float32)
    told = "These are Philips' precise values, not those that the console displays."
    fields = {**volume.origin.fields, "values": "precise"}
    origin = replace(volume.origin, fields=fields, warnings=(*volume.origin.warnings, told))
    return replace(volume, data=data, origin=origin)


def as_kind(volume: Volume, kind: str) -> Volume:
    """Return a scan with the kind of values asked for: ``"display"`` or ``"precise"``.

    Raises
    ------
    BadOption
        For another word.
    """
    if kind not in KINDS:
        raise BadOption(f"There are no '{kind}' values.", hint=f"Choose one of {', '.join(KINDS)}.")
    return precise(volume) if kind == "precise" else volume
