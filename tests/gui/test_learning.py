"""Models that learn from the scan work in a program that draws by software: triton must not be loaded into it."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")

CODE = """
import napari, numpy as np, torch
from napari_mri.engine import lesson
from napari_mri.engine.runtime import LocalRuntime
viewer = napari.Viewer()
viewer.add_image(np.zeros((5, 50, 50)))
for _ in range(20):
    napari.qt.get_qapp().processEvents()
viewer.screenshot()
rt = LocalRuntime("cpu")
rt.device
net = torch.nn.Linear(2, 1)
x = torch.ones(4, 2)
plan = lesson.Plan(1.0, 3, 1e-2, every=1, patience=5)
lesson.learn(net, lambda n: (n(x) ** 2).mean(), lambda n: float((n(x) ** 2).mean()), plan, rt)
print("learned")
"""


def test_learning_beside_an_open_window(qtbot):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert "learned" in done.stdout, done.stderr[-2000:]
