"""Time the default denoiser on a whole head in 256 x 256 x 256 voxels; `benchmarks.denoise --whole` asks for it.

On processor cores BM4D cleans a piece of the same head in the same run, and processor seconds are compared. On a GPU
seconds by the clock are told, from the scan in memory to the result in memory, each the median of three after a
warm-up; and how near the result of a crop is to that of the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import napari_mri
from benchmarks.denoise import Array, bm4d, brightness, crop, of_model, psnr
from napari_mri import phantom, registry
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure import rician

LEVEL = 0.05
"""Of the noise, in parts of the brightness."""
SIDE = 256


def noisy_head() -> tuple[Array, Array, float]:
    """Return the phantom in the middle of 256 x 256 x 256 voxels of 1 mm, the same with noise, and the noise's sigma."""
    head = np.asarray(phantom.head(phantom.default_grid(), "T1", noise=0.0)[0].data, np.float32)
    clean = np.zeros((SIDE,) * 3, np.float32)
    low = [(SIDE - n) // 2 for n in head.shape]
    clean[tuple(slice(a, a + n) for a, n in zip(low, head.shape, strict=True))] = head
    sigma = LEVEL * brightness(clean)
    return clean, rician.noise_of(np.random.default_rng(7), clean, sigma), sigma


def beside_bm4d() -> dict[str, float]:
    """Processor seconds a million voxels: the default on the whole head, BM4D on a piece of it."""
    _, noisy, sigma = noisy_head()
    took = {}
    for name, apply, scan in (
        ("default", of_model("nlpca"), noisy),
        ("bm4d", bm4d, np.ascontiguousarray(crop(noisy, 80))),
    ):
        apply(scan[:16, :16, :16], sigma)
        began = time.process_time()
        apply(scan, sigma)
        took[name] = round((time.process_time() - began) / scan.size * 1e6, 2)
    return took | {"ratio": round(took["bm4d"] / took["default"], 1)}


def denoised(noisy: Array, sigma: float, device: str) -> Array:
    """Run the default model itself; a sigma of 0 is measured."""
    model = registry.find("denoise", "nlpca")
    assert model.run is not None
    scan = Volume(noisy, Grid.plain(noisy.shape))
    return np.asarray(model.run(scan, model.settings({"sigma": sigma}), LocalRuntime(device)).data)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Median of three by the clock, after a warm-up."""
    return round(median([once(work, device) for _ in range(4)][1:]), 3)


def once(work: Callable[[], Any], device: str) -> float:
    """Seconds by the clock until the device has nothing left to do."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def on_device(device: str, profile: bool = False) -> dict[str, Any]:
    """Seconds of the model, of the whole call and of its inner part, and the agreement with the processor on a crop."""
    import torch

    clean, noisy, sigma = noisy_head()
    cuda = device == "cuda"
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if cuda else device, "shape": list(noisy.shape)}
    found["s_first_call"] = round(once(lambda: denoised(noisy, sigma, device), device), 3)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found["s_sigma_given"] = seconds(lambda: denoised(noisy, sigma, device), device)
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    found["s_sigma_measured"] = seconds(lambda: denoised(noisy, 0.0, device), device)
    scan = Volume(noisy, Grid.plain(noisy.shape))
    found["s_whole_call"] = seconds(lambda: napari_mri.denoise(scan, model="nlpca", device=device), device)
    found |= parts(noisy, sigma, device)
    found |= agreement(crop(clean, 64), np.ascontiguousarray(crop(noisy, 64)), sigma, device)
    if profile:
        print(profiled(lambda: denoised(noisy, sigma, device), device))
    return found


def profiled(work: Callable[[], Any], device: str) -> str:
    """Return tables of where the time of some work goes, that of the processor and that of a GPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        work()
        if cuda:
            torch.cuda.synchronize()
    by = ["self_cpu_time_total", *(["self_device_time_total"] if cuda else [])]
    return "\n".join(seen.key_averages().table(sort_by=one, row_limit=25, max_name_column_width=60) for one in by)


def parts(noisy: Array, sigma: float, device: str) -> dict[str, float]:
    """Seconds of what is done on the device alone, with each way to invert small matrices, and for a smaller memory."""
    import torch

    from napari_mri.nets import nonlocal_pca as pca
    from napari_mri.nets import small_inverses

    even = torch.from_numpy(rician.stabilised(noisy, sigma)).to(device)
    found = {}
    for room in (20, 5):
        for invert in (small_inverses.by_blocks, small_inverses.by_triangles):
            cut = pca.for_gpu(noisy.shape, room << 30)
            cut = pca.Cut(cut.cubes, cut.blocks, cut.batch, invert)

            def work(cut: pca.Cut = cut) -> None:
                pca.cleaned(even, rician.stable_floor(), cut=cut)

            found[f"s_on_device_{invert.__name__}_{room}_gib"] = seconds(work, device)
    return found


def agreement(clean: Array, noisy: Array, sigma: float, device: str) -> dict[str, float]:
    """PSNR of a crop on the device and on the processor, inside the head, and of one against the other (dB)."""
    mask: NDArray[np.bool_] = clean > 0.1 * brightness(clean)
    here, there = denoised(noisy, sigma, "cpu"), denoised(noisy, sigma, device)
    return {
        "psnr_cpu": round(psnr(here, clean, mask), 3),
        "psnr_device": round(psnr(there, clean, mask), 3),
        "psnr_one_to_the_other": round(psnr(there, here, mask), 1),
    }
