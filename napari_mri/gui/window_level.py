"""Brightness and contrast as radiologists set them: by dragging, from inside the head, by presets of one's own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from numpy.typing import NDArray

from napari_mri.gui import settings

PRESETS = "window presets"
"""Under this name a person's presets are remembered: contrast, then name, then two numbers."""
CONTRASTS = {
    "FLAIR": r"flair|dark.?fluid",
    "T2*": r"t2.?(\*|star)|swi|swan|gre\b|hemo",
    "ADC": r"adc|appdiff",
    "DWI": r"dwi|diff|dti|trace|b\d{3,4}",
    "MRA": r"tof|mra|angio",
    "BOLD": r"bold|fmri|epi\b|rest",
    "PD": r"\bpd|proton",
    "T1": r"t1|mp2?rage|spgr|bravo|vibe",
    "T2": r"t2|tse|fse|space|haste|ciss|fiesta",
}
"""Contrasts and how scanners and people write them, the special before the plain."""
OTHER = "other"
PIXELS = 260.0
"""A drag of so many pixels makes the window e times wider, or moves its level by one width."""
_SAMPLE = 60
"""Voxels looked at along each axis to learn the grey values of a scan."""


@dataclass(frozen=True)
class Greys:
    """What was learned of a scan's grey values.

    Parameters
    ----------
    low, high : float
        All of them.
    background : float
        The typical value outside the body.
    tissue : float
        The middle value inside; presets are told in multiples of it, so that they suit every scan.
    bright : float
        Only one voxel in two hundred inside is brighter.
    """

    low: float
    high: float
    background: float
    tissue: float
    bright: float

    @classmethod
    def of(cls, data: Any) -> Greys:
        """Learn from a sample of voxels, (…, I, J, K); the first frame stands for all."""
        while np.ndim(data) > 3:
            data = data[0]
        step = tuple(slice(None, None, max(1, n // _SAMPLE)) for n in np.shape(data))
        values = np.asarray(data[step], dtype=np.float64).ravel()
        values = values[np.isfinite(values)]
        if not values.size:
            return cls(0.0, 1.0, 0.0, 0.5, 1.0)
        edge = _otsu(values)
        inside, outside = values[values > edge], values[values <= edge]
        if not inside.size:
            inside = outside
        low, high = float(values.min()), float(values.max())
        background = float(np.median(outside)) if outside.size else low
        return cls(low, high, background, float(np.median(inside)), float(np.percentile(inside, 99.5)))

    def limits(self, low: float, high: float) -> tuple[float, float]:
        """Return grey values of a preset told in multiples of tissue above the background."""
        unit = (self.tissue - self.background) or 1.0
        return self.background + low * unit, self.background + high * unit

    def relative(self, low: float, high: float) -> tuple[float, float]:
        """Return the preset that `limits` turns into these grey values."""
        unit = (self.tissue - self.background) or 1.0
        return (low - self.background) / unit, (high - self.background) / unit


def _otsu(values: NDArray[np.float64]) -> float:
    """Return the grey value that parts two groups best (Otsu 1979)."""
    top = float(np.percentile(values, 99.5))
    count, edges = np.histogram(np.minimum(values, top), bins=128)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)
    above = below[-1] - below
    sums = np.cumsum(count * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    if not np.isfinite(apart).any():  # one grey value only
        return float(values.min())
    return float(edges[1:][int(np.nanargmax(np.where(np.isfinite(apart), apart, -1)))])


BUILT_IN: dict[str, tuple[float, float]] = {
    "Tissue": (0.35, 1.65),
    "Bright things": (0.8, 2.6),
    "Dark things": (0.0, 1.1),
}
"""Presets for every contrast, in multiples of the middle tissue value above the background."""


def automatic(layer: Image) -> tuple[float, float]:
    """Return limits from the background to the brightest of what is inside the head."""
    greys = Greys.of(layer.data)
    return _ordered(greys.background, greys.bright)


def whole(layer: Image) -> tuple[float, float]:
    """Return limits that show every grey value."""
    greys = Greys.of(layer.data)
    return _ordered(greys.low, greys.high)


def contrast_of(layer: Layer) -> str:
    """Guess the contrast of a scan from its name; "other" if the name tells nothing."""
    for name, written in CONTRASTS.items():
        if re.search(written, layer.name, re.IGNORECASE):
            return name
    return OTHER


def presets(contrast: str) -> dict[str, tuple[float, float]]:
    """Return the presets of a contrast: those built in, then the person's own (which may replace them)."""
    own = settings.recall(PRESETS, {}).get(contrast, {})
    if not isinstance(own, dict):
        return dict(BUILT_IN)
    good = {str(name): (float(v[0]), float(v[1])) for name, v in own.items() if _is_pair(v)}
    return BUILT_IN | good


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)


def store(contrast: str, name: str, layer: Image) -> bool:
    """Remember the layer's limits as a preset of a contrast; tells whether it could be written."""
    known = settings.recall(PRESETS, {})
    pair = [round(v, 4) for v in Greys.of(layer.data).relative(*layer.contrast_limits)]
    mine = known.get(contrast)
    return settings.remember(PRESETS, known | {contrast: (mine if isinstance(mine, dict) else {}) | {name: pair}})


def forget(contrast: str, name: str) -> bool:
    """Drop a preset of the person's own."""
    known = settings.recall(PRESETS, {})
    mine = {key: value for key, value in known.get(contrast, {}).items() if key != name}
    return settings.remember(PRESETS, known | {contrast: mine})


def apply(layer: Image, limits: tuple[float, float]) -> None:
    """Show a layer between two grey values, whatever its slider reached before."""
    low, high = _ordered(*limits)
    reach = layer.contrast_limits_range
    layer.contrast_limits_range = (min(low, reach[0]), max(high, reach[1]))
    layer.contrast_limits = (low, high)


def _ordered(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low, low + max(abs(low) * 1e-6, 1e-6))


# ------------------------------------------------------------------------------------- dragging


def meant(viewer: ViewerModel) -> Image | None:
    """Return the scan whose contrast a drag changes: the selected one, else the uppermost seen."""
    active = viewer.layers.selection.active
    if isinstance(active, Image) and not active.rgb:
        return active
    seen = [y for y in viewer.layers if isinstance(y, Image) and y.visible and not y.rgb]
    return seen[-1] if seen else None


class Drag:
    """From press to release: right makes the window wider, up makes the picture brighter.

    Parameters
    ----------
    layer : napari Image
    x, y : float
        Where the press was, in screen pixels.
    """

    def __init__(self, layer: Image, x: float, y: float) -> None:
        self._layer, self._start = layer, (x, y)
        low, high = layer.contrast_limits
        self._level, self._width = (low + high) / 2, float(high - low) or 1.0

    def to(self, x: float, y: float) -> None:
        """Set window and level for the cursor's place now."""
        across, down = x - self._start[0], y - self._start[1]
        width = self._width * math.exp(np.clip(across / PIXELS, -6, 6))
        level = self._level + self._width * down / PIXELS
        apply(self._layer, (level - width / 2, level + width / 2))


def shift_drag(viewer: ViewerModel, event: Any) -> Iterator[None]:
    """Set window and level on napari's canvas by Shift and the left button.

    Only where napari itself does nothing with that: in 2D, while the selected layer is neither drawn into nor moved
    (mode "pan and zoom").
    """
    active = viewer.layers.selection.active
    free = active is None or str(active.mode) == "pan_zoom"
    layer = meant(viewer)
    if "Shift" not in event.modifiers or event.button != 1 or viewer.dims.ndisplay != 2 or not free or layer is None:
        return
    drag = Drag(layer, *event.pos)
    yield
    while event.type == "mouse_move":
        drag.to(*event.pos)
        event.handled = True
        yield
