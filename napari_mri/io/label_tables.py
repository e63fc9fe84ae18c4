"""Reads and writes tables of label names and colours: ITK-SNAP, 3D Slicer, FreeSurfer, BIDS."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_mri.core.errors import BrokenFile, FileProblem
from napari_mri.core.volume import Labels
from napari_mri.io.atomic import atomic_path
from napari_mri.io.colors import Rgb, bytes_of, hex_of, rgb_of_hex, some_color

_SNAP = re.compile(r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+\d+\s+\d+\s+"([^"]*)"\s*$')
_ROW = re.compile(r"^\s*(\d+)\s+(.+?)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)(?:\s+\d+)?\s*$")
_MOST_BYTES = 20_000_000


@dataclass(frozen=True)
class LabelTable:
    """Names and colours of label values.

    Parameters
    ----------
    names : mapping of int to str
    colors : mapping of int to (r, g, b) in [0, 1]
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, Rgb] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Labels) -> LabelTable:
        """Return the table of labels: a name and a colour for every value that occurs or is named."""
        values = sorted({*labels.values, *labels.names})
        names = {value: labels.names.get(value) or f"Label {value}" for value in values}
        return cls(
            names, {value: labels.colors.get(value) or some_color(value) for value in values if value > 0}
        )


def with_table(labels: Labels, table: LabelTable) -> Labels:
    """Return labels with the names and colours of a table; the values stay what they are."""
    names = {value: name for value, name in table.names.items() if value != 0}
    return replace(labels, names={**labels.names, **names}, colors={**labels.colors, **table.colors})


def read_table(path: Path | str) -> LabelTable:
    """Read a table, whichever of the four it is.

    Parameters
    ----------
    path : Path
        ITK-SNAP's label description, a colour table of Slicer or FreeSurfer, or a BIDS `dseg.tsv`.

    Raises
    ------
    BrokenFile
        If no line of it makes sense as one of them.
    FileProblem
        If it cannot be read.
    """
    place = Path(path)
    try:
        if place.stat().st_size > _MOST_BYTES:
            raise BrokenFile(f"{place.name} is too large for a table of labels.")
        text = place.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise FileProblem(f"Cannot read {place}: {error.strerror or error}.") from error
    names: dict[int, str] = {}
    colors: dict[int, Rgb] = {}
    for value, name, color in _rows(text):
        names[value] = name
        if color is not None:
            colors[value] = color
    if not names:
        raise BrokenFile(
            f"{place.name} is not a table of labels.",
            hint="ITK-SNAP label descriptions, Slicer and FreeSurfer colour tables and BIDS dseg.tsv are read.",
        )
    return LabelTable(names, colors)


def _rows(text: str) -> Iterator[tuple[int, str, Rgb | None]]:
    lines = text.splitlines()
    if lines and "\t" in lines[0] and "index" in lines[0].lower().split("\t"):
        yield from _bids_rows(text)
        return
    for line in lines:
        if line.lstrip().startswith("#") or not line.strip():
            continue
        snap, row = _SNAP.match(line), _ROW.match(line)
        if snap:
            yield int(snap[1]), snap[6], _from_bytes(snap[2], snap[3], snap[4])
        elif row:
            yield int(row[1]), row[2], _from_bytes(row[3], row[4], row[5])


def _bids_rows(text: str) -> Iterator[tuple[int, str, Rgb | None]]:
    for record in csv.DictReader(io.StringIO(text), delimiter="\t"):
        row = {(key or "").lower(): value or "" for key, value in record.items() if isinstance(value, str)}
        try:
            value = int(float(row.get("index", "")))
        except (ValueError, OverflowError):
            continue
        yield (
            value,
            row.get("name") or row.get("abbreviation") or f"Label {value}",
            rgb_of_hex(row.get("color", "")),
        )


def _from_bytes(red: str, green: str, blue: str) -> Rgb:
    parts = [min(255, int(part[:4])) / 255 for part in (red, green, blue)]
    return parts[0], parts[1], parts[2]


def write_table(table: LabelTable, path: Path | str, kind: str) -> None:
    """Write a table.

    Parameters
    ----------
    table : LabelTable
    path : Path
    kind : str
        ``"itksnap"``, ``"slicer"``, ``"freesurfer"`` or ``"bids"``.

    Raises
    ------
    FileProblem
        If the kind is unknown or the disk says no.
    """
    if kind not in _WRITERS:
        raise FileProblem(f"There is no table of kind '{kind}'.", hint=f"Use one of {', '.join(_WRITERS)}.")
    lines = _WRITERS[kind](table)
    with atomic_path(Path(path)) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _named(table: LabelTable) -> list[tuple[int, str, tuple[int, int, int]]]:
    rows = [
        (value, name, bytes_of(table.colors.get(value) or some_color(value)))
        for value, name in table.names.items()
    ]
    return sorted(row for row in rows if row[0] > 0)


def _itksnap(table: LabelTable) -> list[str]:
    rows = [(0, "Clear Label", (0, 0, 0)), *_named(table)]
    return ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"] + [
        f'{value:5d}   {r:3d}  {g:3d}  {b:3d}  {int(value > 0):3d}  {int(value > 0)}  {int(value > 0)}    "{_flat(name)}"'
        for value, name, (r, g, b) in rows
    ]


def _slicer(table: LabelTable) -> list[str]:
    rows = [(0, "Background", (0, 0, 0)), *_named(table)]
    return ["# Color table file", "# label name R G B A"] + [
        f"{value} {re.sub(r'[ ]', '_', _flat(name))} {r} {g} {b} {255 if value else 0}"
        for value, name, (r, g, b) in rows
    ]


def _freesurfer(table: LabelTable) -> list[str]:
    rows = [(0, "Unknown", (0, 0, 0)), *_named(table)]
    return [f"{'#No.':<6}{'Label Name:':<40} R   G   B   A"] + [
        f"{value:<6d}{re.sub(r'[ ]', '-', _flat(name)):<40} {r:<3d} {g:<3d} {b:<3d} 0"
        for value, name, (r, g, b) in rows
    ]


def _bids(table: LabelTable) -> list[str]:
    rows = [(0, "Background", (0, 0, 0)), *_named(table)]
    return ["index\tname\tcolor"] + [
        f"{v}\t{_flat(name)}\t{hex_of([c / 255 for c in rgb])}" for v, name, rgb in rows
    ]


def _flat(name: str) -> str:
    return re.sub(r"[\t\r\n\"]+", " ", name).strip() or "-"


_WRITERS: dict[str, Callable[[LabelTable], list[str]]] = {
    "itksnap": _itksnap, "slicer": _slicer, "freesurfer": _freesurfer, "bids": _bids,
}  # fmt: skip


def beside(path: Path) -> LabelTable | None:
    """Return the table that lies beside a label map, where one does.

    Looked for, in this order: `STEM.tsv` (BIDS), `STEM.label`, `STEM.txt`, `STEM.ctbl`, and
    `desc-…_dseg.tsv` or `dseg.tsv` for a whole BIDS folder.

    Parameters
    ----------
    path : Path
        The label map.
    """
    stem = re.sub(r"(\.seg)?\.(nii|nii\.gz|nrrd|mha|mhd|mgz|mgh)$", "", path.name, flags=re.I)
    names = [f"{stem}{ending}" for ending in (".tsv", ".label", ".txt", ".ctbl")]
    if stem.endswith("_dseg"):
        names.append("dseg.tsv")
    for name in names:
        place = path.with_name(name)
        if place != path and place.is_file():
            try:
                return read_table(place)
            except FileProblem:
                continue
    return None
