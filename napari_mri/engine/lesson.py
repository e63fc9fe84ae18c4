"""Train a small net on the scan at hand: progress, early stop, the best so far kept, stop that hands it over."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mri.core.errors import Cancelled
from napari_mri.core.model import Runtime

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Plan:
    """How a net is trained within a run.

    Parameters
    ----------
    minutes : float
        Longest time.
    steps : int
        Most steps; whichever ends first.
    rate : float
        Of AdamW, falling to a twentieth along a cosine.
    every : int
        Steps between two judgements.
    patience : int
        Judgements without a better net after which training ends.
    share : (float, float)
        Which part of the run's progress the training is.
    tells : bool
        Whether an end before the last step is told, and why it came.
    """

    minutes: float = 4.0
    steps: int = 600
    rate: float = 2e-3
    every: int = 25
    patience: int = 8
    share: tuple[float, float] = (0.05, 0.85)
    tells: bool = False


def learn(
    net: torch.nn.Module,
    loss: Callable[[torch.nn.Module], torch.Tensor],
    judge: Callable[[torch.nn.Module], float],
    plan: Plan,
    rt: Runtime,
) -> torch.nn.Module:
    """Train a net and return the best of its running averages.

    Parameters
    ----------
    net : torch module
        On the device already; changed in place.
    loss : callable
        Draws a batch and returns its loss. On a GPU it should not wait for it: the steps are queued there, and only
        a judgement waits for them.
    judge : callable
        A figure on fixed pieces, lower is better; called without gradients.
    plan : Plan
    rt : Runtime
        A stop hands over the best so far (where the runtime knows `finish_early`); otherwise it raises.

    Raises
    ------
    Cancelled
        If stop is pressed before the first judgement, or the runtime cannot finish early.
    """
    import torch
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    average = copy.deepcopy(net).requires_grad_(False)
    mine, new = list(average.parameters()), list(net.parameters())
    optimiser = torch.optim.AdamW(new, lr=plan.rate, weight_decay=1e-4, fused=new[0].is_cuda or None)
    best: dict[str, Any] | None = None
    best_figure, waited, figure = math.inf, 0, math.nan
    began = time.monotonic()
    for step in range(plan.steps):
        done = max(step / plan.steps, (time.monotonic() - began) / (60 * plan.minutes))
        low, high = plan.share
        told = f"learning from this scan, step {step}" + (f", error {figure:.4f}" if best is not None else "")
        try:
            rt.report(low + (high - low) * min(done, 1.0), told)
        except Cancelled:
            if best is None or not finish_early(rt):
                raise
            rt.warn(f"Stopped while learning, at step {step}: the result is the best so far.")
            break
        if done >= 1:
            _tell(plan, rt, step, f"its {plan.minutes:g} minutes were over")
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
        optimiser.zero_grad(set_to_none=True)
        value = loss(net)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        keep = min(0.98, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(keep)(mine, new, step)
        if (step + 1) % plan.every == 0:
            with torch.no_grad():
                figure = judge(average)
            if figure < best_figure:
                best_figure, waited, best = figure, 0, copy.deepcopy(average.state_dict())
            else:
                waited += 1
            if waited >= plan.patience:
                _tell(plan, rt, step + 1, "it no longer became better")
                break
    if best is not None:
        average.load_state_dict(best)
    return average.eval()


def _tell(plan: Plan, rt: Runtime, step: int, why: str) -> None:
    if plan.tells and step < plan.steps:
        rt.warn(f"Learning ended at step {step:,} of {plan.steps:,}: {why}.")


def finish_early(rt: Runtime) -> bool:
    """Turn a pressed stop into "finish with the best so far", where the runtime can; a second stop ends the run."""
    settle = getattr(rt, "finish_early", None)
    return bool(settle and settle())
