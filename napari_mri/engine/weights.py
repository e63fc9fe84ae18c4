"""Files of trained numbers: found, checked by sha256, loaded without running any code in them."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mri.core.errors import MissingExtra, WeightsProblem
from napari_mri.core.model import Weights

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""Weights trained by this project, in the package."""

STEP = ".step"
"""Ends the name of what stands beside a tensor kept as bytes: what one of them is worth, float32."""


def folder() -> Path:
    """Return the user's weights folder: ``NAPARI_MRI_WEIGHTS``, or one in the user's cache."""
    given = os.environ.get("NAPARI_MRI_WEIGHTS")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "napari_mri" / "weights"


def offline() -> bool:
    """Tell whether the user forbade any download (``NAPARI_MRI_OFFLINE=1``)."""
    return os.environ.get("NAPARI_MRI_OFFLINE", "").strip().lower() in ("1", "true", "yes")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow_sha(file)


def _slow_sha(file: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    sha = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        sha.update(part)
    return sha.hexdigest()


def place(weights: Weights) -> Path:
    """Return where the file is, or would be."""
    return (SHIPPED if weights.shipped else folder()) / weights.file


def is_there(weights: Weights) -> bool:
    """Tell whether the file exists (its content is checked when it is used)."""
    return place(weights).is_file()


_checked: dict[tuple[str, int, int], str] = {}


def checked(weights: Weights) -> tuple[Path, str]:
    """Return the path and the sha256 of a weights file whose content is the expected one.

    Raises
    ------
    WeightsProblem
        If the file is missing or its content is another.
    """
    path = place(weights)
    if not path.is_file():
        way = (
            "This version comes without them: train them by the recipe in training/, or choose another model."
            if weights.shipped
            else f"Run 'napari-mri models fetch', or put the file into {folder()}."
        )
        raise WeightsProblem(f"The weights {weights.file} are not here.", hint=way)
    stat = path.stat()
    key = (str(path), stat.st_mtime_ns, stat.st_size)
    if key not in _checked:
        _checked[key] = sha256_of(path)
    found = _checked[key]
    if weights.sha256 and found != weights.sha256:
        raise WeightsProblem(
            f"The weights {weights.file} are not the expected ones (sha256 {found[:12]}…, "
            f"expected {weights.sha256[:12]}…).",
            hint="The file may be cut off or another version: remove it and fetch it again.",
        )
    return path, found


def fetch(weights: Weights, report: Callable[[float, str], None] | None = None) -> Path:
    """Download a weights file once, check it, and return its path. Only ever called on request.

    Raises
    ------
    WeightsProblem
        Offline mode, no known address, a failing connection (30 s), or a wrong checksum.
    """
    if is_there(weights):
        return checked(weights)[0]
    if not weights.url or not weights.url.startswith("https://"):
        raise WeightsProblem(
            f"No address is known for {weights.file}.", hint=f"Put the file into {folder()} yourself."
        )
    if offline():
        raise WeightsProblem(
            f"{weights.file} is not here and downloads are switched off.",
            hint=f"Unset NAPARI_MRI_OFFLINE, or put the file into {folder()}.",
        )
    path = place(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(weights.url, timeout=30) as answer, part.open("wb") as file:
            total, done = int(answer.headers.get("Content-Length") or weights.size or 0), 0
            while block := answer.read(1 << 20):
                file.write(block)
                done += len(block)
                if report:
                    report(done / total if total else 0.0, f"{weights.file}: {done / 1e6:.0f} MB")
        if weights.sha256 and sha256_of(part) != weights.sha256:
            raise WeightsProblem(f"What came from {weights.url} is not {weights.file} (wrong sha256).")
        part.replace(path)
    except (urllib.error.URLError, OSError) as error:
        raise WeightsProblem(
            f"{weights.file} could not be fetched: {error}.", hint=f"Check the connection, or put the file into {folder()}."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def load_arrays(path: Path) -> dict[str, Any]:
    """Load a safetensors file without torch.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    WeightsProblem
        If the file is damaged.
    MissingExtra
        If safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtra("Learned models need safetensors.", hint="pip install safetensors") from error
    return _sound(path, load_file, SafetensorError)


def _sound(path: Path, load_file: Callable[[Path], dict[str, Any]], broken: type[Exception]) -> dict[str, Any]:
    """Load tensors; those kept as bytes become float32."""
    try:
        found = dict(load_file(path))
    except (broken, OSError) as error:
        raise WeightsProblem(f"{path.name} is no sound safetensors file: {error}.") from error
    for name in [name.removesuffix(STEP) for name in found if name.endswith(STEP)]:
        if name in found:
            found[name] = found[name] * found.pop(name + STEP)
    return found


def load(path: Path) -> dict[str, Any]:
    """Load a state dict from safetensors, or from a torch file without running code in it.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    WeightsProblem
        If the file is damaged or holds anything but tensors and plain containers.
    MissingExtra
        If torch or safetensors is not installed.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra(
            f"Learned models need {error.name}.", hint="pip install 'napari-mri-workbench[models]'"
        ) from error
    if path.suffix == ".safetensors":
        return _sound(path, load_file, SafetensorError)
    import pickle

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsProblem(
            f"{path.name} cannot be loaded safely: it is damaged, or would run code when opened.",
            hint="Convert it to safetensors where you trust it.",
        ) from error
    if not isinstance(found, dict):
        raise WeightsProblem(f"{path.name} holds no table of tensors.")
    return found
