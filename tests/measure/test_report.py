"""The page holds what it must, fetches nothing, and its pictures show the right side of the patient."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from napari_mri.core.errors import GridMismatch
from napari_mri.core.history import Order, Step
from napari_mri.core.volume import Labels
from napari_mri.measure.picture import color_of, png, three_planes
from napari_mri.measure.report import Extras, html_report, tables
from tests.scans import GRIDS, blob, head


def _read(code: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(code)))


def test_png_is_read_back_by_another_program() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 29, 3)).astype(np.uint8)
    assert np.array_equal(_read(png(pixels)), pixels)


@pytest.mark.parametrize("name", GRIDS)
def test_pictures_show_the_patient_the_radiological_way(name: str) -> None:
    grid = GRIDS[name]
    # label 1 lies right, front and high of label 2
    data = np.zeros(grid.shape, np.uint8)
    data[blob(grid, (24, 20, 26), (12, 12, 12))] = 1
    data[blob(grid, (-16, -34, -4), (12, 12, 12))] = 2
    labels = Labels(data, grid, colors={2: (0.0, 1.0, 0.0)})

    def middle(plane: str, label: int, at: tuple[float, float, float]) -> np.ndarray:
        picture = three_planes(labels, head(grid), width=200, at=at)[plane]
        assert max(picture.shape[:2]) == 200
        return np.argwhere((picture == color_of(label, labels.colors)).all(-1)).mean(0)

    here, there = (24.0, 20.0, 26.0), (-16.0, -34.0, -4.0)
    for plane in ("axial", "coronal", "sagittal"):
        one, two = middle(plane, 1, here), middle(plane, 2, there)
        assert one[0] < two[0] - 5, "front and head are up"
        assert one[1] < two[1] - 5, "the patient's right, and the front, are left"


def test_the_page_is_whole_and_fetches_nothing() -> None:
    grid = GRIDS["oblique"]
    labels = Labels(blob(grid).astype(np.uint8), grid, names={1: "brain <b>&"}).after(
        Step("skullstrip by net", Order("skullstrip", "net", {"level": 0.5}), warnings=("it touches the border",))
    )
    against = Labels(blob(grid, radii=(36, 44, 33)).astype(np.uint8), grid)
    page = html_report(labels, Extras(head(grid), against, "isles", "Case <1>"))

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.sources: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("img", "meta", "br"):
                self.open.append(tag)
            self.sources += [value or "" for key, value in attrs if key in ("src", "href")]

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
    assert "<script" not in page
    assert "http" not in page
    assert "Case &lt;1&gt;" in page
    assert "brain &lt;b&gt;&amp;" in page
    for word in ("skullstrip by net", "level 0.5", "it touches the border", "ISLES", "hd95", "volumes".capitalize()):
        assert word in page
    assert len(page) < 500_000
    picture = _read(base64.b64decode(re.findall(r"base64,([^']+)'", page)[0]))
    assert picture.std() > 20


def test_empty_labels_and_a_foreign_scan() -> None:
    grid = GRIDS["plain"]
    empty = Labels(np.zeros(grid.shape, np.uint8), grid)
    assert "no labelled voxel" in html_report(empty)
    assert "No history" in html_report(empty)
    assert tables(empty) == {"volumes": []}
    with pytest.raises(GridMismatch):
        html_report(empty, Extras(head(GRIDS["flipped"])))
