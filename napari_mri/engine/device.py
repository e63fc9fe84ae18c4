"""Which processor a model runs on, and how much memory is free there."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from napari_mri.core.errors import BadOption, MissingExtra

DEVICES = ("auto", "cuda", "mps", "cpu")
_GPU_NODES = ("nvidiactl", "nvhost-gpu", "nvgpu", "dxg", "kfd")
"""What Linux shows under /dev for a graphics processor that torch can use: NVIDIA's, its Jetson's, WSL's, AMD's."""


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return find_spec("torch") is not None


def may_have_gpu() -> bool:
    """Tell whether asking torch for a GPU is worth its import of seconds: where none is wired up, it is not."""
    if "torch" in sys.modules or sys.platform != "linux":
        return True
    return any(Path("/dev", name).exists() for name in _GPU_NODES) or any(Path("/dev").glob("nvidia[0-9]*"))


def choose(wish: str = "auto") -> str:
    """Return the device to run on.

    Parameters
    ----------
    wish : str
        ``"auto"`` (CUDA, else MPS, else CPU), ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises
    ------
    BadOption
        For another word, or a device this machine does not have.
    MissingExtra
        If a GPU is asked for and torch is not installed.
    """
    if wish not in DEVICES:
        raise BadOption(f"There is no device '{wish}'.", hint=f"Choose one of {', '.join(DEVICES)}.")
    hide_triton()
    if wish == "cpu" or (wish == "auto" and not (has_torch() and may_have_gpu())):
        return "cpu"
    if not has_torch():
        raise MissingExtra(f"The device '{wish}' needs torch.", hint="pip install 'napari-mri-workbench[models]'")
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[wish]:
        raise BadOption(f"This machine has no usable {wish} device.", hint="Use --device cpu or auto.")
    return wish


def hide_triton() -> None:
    """Keep torch from loading triton into a program that draws by Mesa with LLVM: two LLVMs in one program end it at once.

    torch's optimisers load it, though nothing of ours needs it; from then on importing it is a plain `ImportError`.
    """
    if "triton" in sys.modules or sys.platform != "linux":
        return
    try:
        drawn_by_llvm = "libLLVM" in Path("/proc/self/maps").read_text()
    except OSError:
        return
    if drawn_by_llvm:
        sys.modules["triton"] = None  # type: ignore[assignment]


def half_is_quick(device: str) -> bool:
    """Tell whether bfloat16 is quicker than float32 here: where a processor lacks the instructions it is far slower."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda":
        return True
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return kind == "cpu" and bool(ask and ask())


def free_bytes(device: str) -> int:
    """Return the free memory of a device in bytes (of the main memory for ``"cpu"`` and ``"mps"``)."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told by this system
        return 4 << 30


def processor_name(device: str) -> str:
    """Return what to write into the history about where a result was computed."""
    if device == "cuda":
        import torch

        return f"cuda ({torch.cuda.get_device_name()})"
    return device
