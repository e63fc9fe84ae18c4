"""Half precision where it is quick."""

from __future__ import annotations

import torch


def half_precision(device: torch.device, quick: bool) -> torch.autocast:
    """Return a context in which networks run in half precision: float16 on a GPU, else bfloat16 if that is quick.

    Parameters
    ----------
    device : torch.device
        Of the network's input.
    quick : bool
        Whether this processor is quick in bfloat16, as `engine.device.half_is_quick` tells.
    """
    on_gpu = device.type == "cuda"
    return torch.autocast(device.type, torch.float16 if on_gpu else torch.bfloat16, enabled=on_gpu or quick)
