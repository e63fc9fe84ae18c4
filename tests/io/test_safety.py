"""Nothing in the reading path can run what a file says; and a short round of the fuzzer."""

import ast
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mri
from fuzz.mutate import damaged
from fuzz.seeds import made
from fuzz.worker import outcome

ROOT = Path(napari_mri.__file__).parent
READING = sorted([*(ROOT / "io").glob("*.py"), *(ROOT / "core").glob("*.py")])
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "subprocess",
    "pty",
    "xml.sax.expatreader",
    "yaml",
}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "os.execv", "os.spawnv", "np.fromfile"}


def dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


@pytest.mark.parametrize("path", READING, ids=lambda path: path.name)
def test_the_reading_path_runs_nothing(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in MODULES
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            assert name not in CALLS, f"{name} in line {node.lineno}"
            if name in ("np.load", "numpy.load"):
                allowed = [key.value for key in node.keywords if key.arg == "allow_pickle"]
                assert allowed, "np.load must say allow_pickle=False"
                assert allowed[0].value is False


def test_the_test_would_notice():
    tree = ast.parse("import pickle\nos.system('x')\nnp.load(f)")
    assert dotted(tree.body[1].value.func) in CALLS
    assert tree.body[0].names[0].name in MODULES


@pytest.fixture(scope="module")
def seeds():
    return made()


def test_the_seeds_are_sound(tmp_path, seeds):
    for name, content in seeds.items():
        (tmp_path / name).write_bytes(content)
        word, details = outcome(tmp_path / name)
        (tmp_path / name).unlink()
        # Contours without their scan are refused, with a sentence.
        assert word == ("refused" if "rtstruct" in name else "volume"), (name, details)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_damaged_files_end_in_a_volume_or_a_sentence(tmp_path_factory, seeds, number):
    rng = random.Random(number)
    name = rng.choice(sorted(seeds))
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / name
    path.write_bytes(damaged(seeds[name], [seeds[rng.choice(sorted(seeds))]], rng))
    word, details = outcome(path)
    path.unlink()
    folder.rmdir()
    assert word in ("volume", "refused"), details


REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*"))


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
def test_inputs_that_once_broke_something(tmp_path, path):
    (tmp_path / path.name).write_bytes(path.read_bytes())
    word, details = outcome(tmp_path / path.name)
    assert word in ("volume", "refused"), details
