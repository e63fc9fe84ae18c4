"""Toy models for the window's tests: quick, slow, deaf to Cancel, failing, and one that cannot run here."""

import time
from dataclasses import dataclass

import numpy as np

from napari_mri.core.errors import MriError
from napari_mri.core.model import DENOISE, SKULLSTRIP, Card, Model, NoParams, Wants, knob
from napari_mri.core.volume import Volume

ANY = Wants(axes="RAS", min_slices=1)


@dataclass(frozen=True)
class Params:
    level: float = knob(0.5, "How bright the brain is.", low=0.0, high=1.0)
    rounds: int = knob(3, "How often.", low=1, high=9)
    kind: str = knob("soft", "Which way.", choices=("soft", "hard"))
    border: float = knob(0.0, "Grow by this much.", low=-5.0, high=5.0, unit="mm")
    strict: bool = knob(False, "Whether to be strict.")


def quick(scan, p, rt):
    rt.report(0.5, "thinking")
    rt.warn("This is a toy.")
    rt.offer("distance", scan.with_data(np.zeros(scan.data.shape, np.float32)))
    return scan.with_labels(scan.data > p.level * scan.data.max(), {1: "brain"})


def slow(scan, p, rt):
    for n in range(400):
        rt.report(n / 400, f"tile {n}")
        time.sleep(0.02)
    return scan.with_labels(scan.data > 0)


def deaf(scan, p, rt):
    time.sleep(2.5)
    return scan.with_labels(scan.data > 0)


def failing(scan, p, rt):
    raise MriError("The toy broke.", hint="Use another one.")


def buggy(scan, p, rt):
    raise KeyError("nothing")


def painter(scan: Volume, p, rt):
    return scan.with_data(scan.data + 1)


def card(name, task=SKULLSTRIP, **more):
    return Card(name, task, name.capitalize(), says=f"The {name} toy.", wants=ANY, **more)


MODELS = (
    Model(card("quick", rank=9), Params, quick),
    Model(card("slow"), NoParams, slow),
    Model(card("deaf"), NoParams, deaf),
    Model(card("failing"), NoParams, failing),
    Model(card("buggy"), NoParams, buggy),
    Model(card("absent", needs=("no_such_package",), rank=99), NoParams, slow),
    Model(card("painter", DENOISE, invents=True, rank=-1), NoParams, painter),
)
