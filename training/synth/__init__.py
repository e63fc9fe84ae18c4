"""Synthetic heads on torch: one deformation, random contrasts, and the faults of real scanners."""

from training.synth.degrade import degrade, normalise
from training.synth.geometry import Pose, place, sample_pose
from training.synth.heads import Head, build_head, load_heads
from training.synth.paint import paint
from training.synth.recipe import Recipe, Sample, draw_grid, make_sample, make_samples

__all__ = [
    "Head",
    "Pose",
    "Recipe",
    "Sample",
    "build_head",
    "degrade",
    "draw_grid",
    "load_heads",
    "make_sample",
    "make_samples",
    "normalise",
    "paint",
    "place",
    "sample_pose",
]
