"""Reads DICOM files and folders."""

from __future__ import annotations

from napari_mri.io.formats import Format

FORMATS: tuple[Format, ...] = ()
