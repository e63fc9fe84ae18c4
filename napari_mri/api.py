"""The verbs as Python functions: ``mask = mri.skullstrip(scan)``."""

from __future__ import annotations

from typing import Any

from napari_mri import tasks
from napari_mri.core.history import Order
from napari_mri.core.prompts import Prompts
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine.runtime import LocalRuntime


def run(
    task: str, scan: Volume, *others: Volume, model: str = "auto", device: str = "auto", **params: Any
) -> tasks.Outcome:
    """Run any task and return the result with its by-products and warnings.

    Parameters
    ----------
    task : str
        ``"skullstrip"``, ``"denoise"`` or ``"superres"``.
    scan : Volume
    *others : Volume
        Further scans of the patient, for a model that takes them.
    model : str
        Name of a model (see `list_models`), or ``"auto"`` for the best that can run here.
    device : str
        ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``.
    **params
        The model's own options.

    Returns
    -------
    Outcome
        ``.result``, ``.extras`` (by name) and ``.warnings``.

    Raises
    ------
    MriError
        See `napari_mri.tasks.run`.
    """
    return tasks.run(Order(task, model, params), scan, LocalRuntime(device), others)


def _result(task: str, scan: Volume, *others: Volume, model: str, device: str, **params: Any) -> Volume:
    """As `run`, for who looks at the result alone."""
    rt = LocalRuntime(device)
    rt.result_only = True
    return tasks.run(Order(task, model, params), scan, rt, others).result


def skullstrip(scan: Volume, *, model: str = "auto", device: str = "auto", **params: Any) -> Labels:
    """Return the brain mask (1 = brain) of a head scan, on the scan's own grid. Options as in `run`."""
    result = _result("skullstrip", scan, model=model, device=device, **params)
    assert isinstance(result, Labels)
    return result


def denoise(scan: Volume, *, model: str = "auto", device: str = "auto", **params: Any) -> Volume:
    """Return the scan with less noise, on its own grid. Options as in `run`."""
    return _result("denoise", scan, model=model, device=device, **params)


def superres(scan: Volume, *others: Volume, model: str = "auto", device: str = "auto", **params: Any) -> Volume:
    """Return the scan on a finer grid over the same field of view; others help where the model takes them.

    Options as in `run`.
    """
    return _result("superres", scan, *others, model=model, device=device, **params)


def open_session(scan: Volume, *, model: str = "auto", device: str = "auto", **params: Any) -> tasks.ScanSession:
    """Open a prompted model on a scan; use it in a ``with`` block and ask `answer` as often as you like."""
    return tasks.open_session(Order("segment", model, params), scan, LocalRuntime(device))


def segment(
    scan: Volume, prompts: Prompts, *, model: str = "auto", device: str = "auto", **params: Any
) -> Labels:
    """Return the mask (1 = object) for some prompts, on the scan's own grid. Options as in `run`."""
    with open_session(scan, model=model, device=device, **params) as session:
        return session.answer(prompts)
