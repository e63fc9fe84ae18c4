"""One page to keep or to print: pictures, volumes, agreement, and how the labels came to be."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from napari_mri.core.history import Step
from napari_mri.core.volume import Labels, Volume
from napari_mri.measure import asymmetry as sides
from napari_mri.measure import lesions as spots
from napari_mri.measure import overlap as pairs
from napari_mri.measure.picture import PLANES, color_of, png, three_planes
from napari_mri.measure.table import Row, rows_of
from napari_mri.measure.volumes import volumes

_STYLE = """
@page { size: A4; margin: 12mm }
body { font: 13px/1.4 system-ui, sans-serif; color: #222; max-width: 1020px; margin: 16px auto; padding: 0 12px }
h1 { font-size: 20px; margin: 0 0 2px } h2 { font-size: 15px; margin: 16px 0 4px } p { margin: 4px 0 }
.small { color: #555; font-size: 12px } .warn { color: #a33 }
.row { display: flex; gap: 10px; flex-wrap: wrap } figure { margin: 0; background: #000; position: relative }
figure img { display: block; width: 320px } figcaption { background: #fff; font-size: 12px }
figure span { position: absolute; color: #ff8; font: bold 13px sans-serif }
table { border-collapse: collapse; font-size: 12px } td, th { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } i.dot { display: inline-block; width: 10px; height: 10px; margin-right: 5px }
"""


@dataclass(frozen=True)
class Extras:
    """What a report may hold beside the labels.

    Parameters
    ----------
    scan : Volume, optional
        On the same grid: pictures and grey values.
    against : Labels, optional
        A reference on the same grid: agreement.
    lesions : str
        A key of `lesions.DEFINITIONS` for lesion-wise agreement; empty for none.
    title : str
        Headline. Nothing of the files' names is written unless it is given here.
    """

    scan: Volume | None = None
    against: Labels | None = None
    lesions: str = ""
    title: str = "Labels"


def tables(labels: Labels, extras: Extras | None = None) -> dict[str, list[Row]]:
    """Return every table of the report as rows by name: what the JSON and CSV files hold."""
    extras = extras or Extras()
    found = {"volumes": rows_of(volumes(labels, extras.scan))}
    uneven = rows_of(sides.asymmetry_of_pairs(labels))
    if uneven:
        found["asymmetry"] = uneven
    if extras.against is not None:
        found["agreement"] = rows_of(pairs.compare(labels, extras.against))
        if extras.lesions:
            found["lesions"] = rows_of([spots.compare_lesions(labels, extras.against, definition=extras.lesions)])
    return found


def html_report(labels: Labels, extras: Extras | None = None, found: Mapping[str, list[Row]] | None = None) -> str:
    """Return a self-contained HTML page: no script, nothing fetched, pictures within.

    Parameters
    ----------
    labels : Labels
    extras : Extras, optional
    found : mapping of str to rows, optional
        What `tables` gave for the same labels and extras, so that it is not measured again.

    Raises
    ------
    GridMismatch
        If scan or reference lie on another grid.
    """
    extras = extras or Extras()
    found = tables(labels, extras) if found is None else found
    told = _definitions(found, extras)
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{escape(extras.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(extras.title)}</h1>",
        f"<p class='small'>{escape(repr(labels.grid))}. For research; not a diagnosis.</p>",
        _pictures(labels, extras.scan),
        *(f"<h2>{escape(name.capitalize())}</h2>{_table(name, rows, labels)}" for name, rows in found.items()),
        "<h2>How it came to be</h2>",
        _history(labels.history),
        "<p class='small'>", " ".join(f"<b>{escape(k)}</b>: {escape(v)}" for k, v in told.items()), "</p>",
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _pictures(labels: Labels, scan: Volume | None) -> str:
    figures = []
    for name, pixels in three_planes(labels, scan).items():
        _, (top, bottom), (left, right) = PLANES[name]
        code = base64.b64encode(png(pixels)).decode("ascii")
        middle = "left:50%;transform:translateX(-50%)"
        side = "top:45%"
        figures.append(
            f"<figure><img alt='{name} slice' src='data:image/png;base64,{code}'>"
            f"<span style='{middle};top:2px'>{top}</span><span style='{middle};bottom:20px'>{bottom}</span>"
            f"<span style='left:4px;{side}'>{left}</span><span style='right:4px;{side}'>{right}</span>"
            f"<figcaption>{name}</figcaption></figure>"
        )
    return f"<div class='row'>{''.join(figures)}</div>"


def _table(name: str, rows: list[Row], labels: Labels) -> str:
    if not rows:
        return "<p class='warn'>There is no labelled voxel.</p>"
    # A column without a single figure tells nothing on paper; the CSV has it.
    columns = [key for key in rows[0] if any(not _blank(row.get(key)) for row in rows)]
    if name == "volumes" and labels.n_frames == 1:
        columns.remove("frame")
    lines = ["".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)]
    for row in rows:
        cells = [f"<td>{escape(_shown(row.get(column)))}</td>" for column in columns]
        if name == "volumes":
            r, g, b = color_of(int(row["label"]), labels.colors)
            cells[0] = cells[0].replace("<td>", f"<td><i class='dot' style='background:rgb({r},{g},{b})'></i>", 1)
        lines.append("".join(cells))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _history(steps: Iterable[Step]) -> str:
    lines = []
    for step in steps:
        facts = ", ".join(f"{key} {_shown(value)}" for key, value in _flat(step.order.params if step.order else {}))
        warned = "".join(f"<br><span class='warn'>{escape(sentence)}</span>" for sentence in step.warnings)
        lines.append(
            f"<li>{escape(step.action)}{f' <span class=small>({escape(facts)})</span>' if facts else ''}{warned}</li>"
        )
    return f"<ol>{''.join(lines)}</ol>" if lines else "<p>No history is known.</p>"


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in facts.items() if isinstance(value, (str, int, float, bool))]


def _definitions(found: Mapping[str, Any], extras: Extras) -> dict[str, str]:
    told = {"ml": "voxels × voxel volume."}
    if "agreement" in found:
        told |= pairs.DEFINITIONS
    if "lesions" in found:
        told["lesions"] = spots.DEFINITIONS[extras.lesions]
    if "asymmetry" in found:
        told["asymmetry"] = sides.DEFINITION
    return told


def _blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> str:
    if _blank(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
