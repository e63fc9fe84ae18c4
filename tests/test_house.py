"""The house holds: nothing heavy at import, Qt only in gui/, floors kept, no patient paths in code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import napari_mri

PACKAGE = Path(napari_mri.__file__).parent
HEAVY = ("torch", "monai", "SimpleITK", "napari", "qtpy", "PySide6", "PyQt6", "magicgui", "vispy", "scipy", "dipy")


def modules_after(code: str) -> set[str]:
    """Return the top-level modules loaded in a fresh process after some code."""
    ask = f"{code}\nimport sys, json; print('\\n' + json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import napari_mri",
        "import napari_mri; napari_mri.load, napari_mri.skullstrip, napari_mri.Prompts",
        "import napari_mri; napari_mri.list_models()",
        "from napari_mri.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from napari_mri.cli import main\ntry: main(['models', 'list'])\nexcept SystemExit: pass",
        "from napari_mri.cli import main\ntry: main(['skullstrip', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_loaded(code):
    loaded = modules_after(code)
    assert "napari_mri" in loaded
    assert not loaded & set(HEAVY)


def test_the_check_itself_sees_heavy_modules():
    assert "scipy" in modules_after("import scipy")


def test_every_module_says_its_job_in_its_first_line():
    for path in PACKAGE.rglob("*.py"):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc, f"{path.relative_to(PACKAGE)} has no opening sentence"


def test_names_handed_on_lazily_all_exist():
    for name in napari_mri.__all__:
        assert getattr(napari_mri, name) is not None
    with pytest.raises(AttributeError):
        napari_mri.no_such_name  # noqa: B018


def test_floors_hold():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_no_weights_or_samples_are_too_big():
    total = sum(path.stat().st_size for path in (PACKAGE / "weights").glob("*.safetensors"))
    assert total <= 20e6
    for path in (PACKAGE / "weights").glob("*.safetensors"):
        assert path.with_suffix(".json").is_file(), f"{path.name} has no card"
