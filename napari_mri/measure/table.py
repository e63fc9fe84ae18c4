"""Figures as rows of plain values, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from napari_mri.core.errors import FileProblem

Row = dict[str, Any]


def rows_of(records: Iterable[Any]) -> list[Row]:
    """Turn measure records (dataclasses) into flat rows; a record within a record lends its columns."""
    rows = []
    for record in records:
        row: Row = {}
        for key, value in (
            asdict(record) if is_dataclass(record) and not isinstance(record, type) else dict(record)
        ).items():
            row.update(value if isinstance(value, Mapping) else {key: value})
        rows.append(row)
    return rows


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header line; what is not a number (NaN) is an empty cell."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    page = io.StringIO()
    writer = csv.DictWriter(page, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return page.getvalue()


def json_text(content: Any) -> str:
    """Return rows, or tables of rows by name, as JSON; what is not a number (NaN) is null."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(text: str, path: Path | str) -> Path:
    """Write a text whole or not at all.

    Raises
    ------
    FileProblem
        If the disk or the folder does not take it.
    """
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as page:
            page.write(text)
            page.flush()
            os.fsync(page.fileno())
        os.replace(page.name, path)
    except OSError as error:
        raise FileProblem(f"{path} cannot be written: {error.strerror}.", hint="Choose another folder.") from error
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        # Enough digits that nothing measured is lost, without the tail of the binary fraction.
        return "" if not math.isfinite(value) else f"{value:.10g}"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
