"""Options are told once and checked everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from napari_mri.core.errors import BadOption
from napari_mri.core.model import DENOISE, Card, Model, knob


@dataclass(frozen=True)
class Params:
    size: int = knob(3, "Edge of the neighbourhood.", low=1, high=9, unit="voxels")
    level: float = knob(0.5, "Threshold.", low=0, high=1)
    kind: str = knob("a", "Kind.", choices=("a", "b"))
    fast: bool = knob(True, "Be quick.")


MODEL = Model(Card("toy", DENOISE, "Toy"), Params, run=lambda scan, p, rt: scan)


def test_knobs_tell_all():
    size = MODEL.knobs[0]
    assert (size.name, size.type, size.default, size.low, size.high, size.unit) == ("size", int, 3, 1, 9, "voxels")


def test_settings_fill_in_defaults_and_convert():
    assert MODEL.settings({"size": 4.0, "kind": "b"}) == Params(4, 0.5, "b", True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 0}, "must lie in 1 to 9 voxels"),
        ({"size": 3.5}, "takes a whole number"),
        ({"size": "many"}, "takes a whole number"),
        ({"level": float("nan")}, "must lie in"),
        ({"level": None}, "takes a number"),
        ({"kind": "c"}, "one of a, b"),
        ({"fast": "yes"}, "true or false"),
        ({"sise": 3}, "no option 'sise'"),
    ],
)
def test_bad_options_are_refused_with_the_flag_and_the_range(given, says):
    with pytest.raises(BadOption, match=says):
        MODEL.settings(given)
