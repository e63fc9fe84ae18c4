"""Train the sharper twin of the halving network: `python -m training.train_sharper --minutes 30`.

A second network learns to tell real fine voxels from answered ones, and the first one to be taken for real, beside
the L1 loss it was trained with (a relativistic average GAN). That brings back the strength of fine detail which a
mean of all likely answers lacks, and so also detail that was never there. It begins from the weights of
`train_isotropic`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from napari_mri.engine.device import half_is_quick
from napari_mri.nets.isotropic import HalvingNet, from_state
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.train_denoise import Bank
from training.train_isotropic import CARD, RIM, SCHEDULES, loss_of, measured, refined, validate
from training.train_superres import held_back

SHIPPED = Path(__file__).resolve().parents[1] / "napari_mri" / "weights" / "isotropic.safetensors"


class Judge(nn.Module):
    """Tells real fine voxels from answered ones, patch by patch, beside the spline they were made from.

    Parameters
    ----------
    width : int
        Channels after the first layer.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (2, width, 2 * width, 3 * width)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv3d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths)
        )
        self.head = spectral_norm(nn.Conv3d(widths[-1], 1, 3, padding=1))

    def forward(self, fine: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) twice to logits (B, 1, I/8, J/8, K/8); above 0 it looks real."""
        inner = (..., *(slice(RIM, -RIM),) * 3)
        # What the spline lacks is small beside the picture itself, and is what is judged.
        x = torch.cat([8 * (fine - plain), plain], 1)[inner].contiguous(memory_format=torch.channels_last_3d)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.head(x)


def apart(higher: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Return the loss of telling two kinds apart, each against the mean of the other (Jolicoeur-Martineau 2019)."""
    above = F.softplus(-(higher - lower.mean())).mean()
    return 0.5 * (above + F.softplus(lower - higher.mean()).mean())


@torch.no_grad()
def detail(net: torch.nn.Module, bank: Bank, device: str) -> float:
    """Return the strength of fine detail on held-back heads, answered by true; 1 is as strong as it should be."""
    half, found = half_is_quick(device), []
    gen = torch.Generator().manual_seed(7)
    kernel = torch.zeros(1, 1, 3, 3, 3)
    kernel[0, 0, 1, 1] = kernel[0, 0, 1, :, 1] = kernel[0, 0, :, 1, 1] = -1.0
    kernel[0, 0, 1, 1, 1] = 6.0
    for _, volume in sorted(bank.held.items())[:4]:
        low = [(n - 64) // 2 for n in volume.shape]
        fine = volume[tuple(slice(a, a + 64) for a in low)].float()[None, None]
        scan, told = measured(fine, gen, 0.0)
        _, answer = refined(net, scan.to(device), told.to(device), half)
        strength = [F.conv3d(x.cpu(), kernel)[..., RIM:-RIM, RIM:-RIM, RIM:-RIM].std() for x in (answer, fine)]
        found.append(float(strength[0] / strength[1]))
    return round(float(np.mean(found)), 3)


def main(argv: list[str] | None = None) -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cpu")
    parser.add_argument("--init", type=Path, default=SHIPPED, help="weights of the network trained with L1 alone")
    parser.add_argument("--weight", type=float, default=0.1, help="of looking real beside being right")
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="sharper", help="checkpoints go to CACHE/RUN")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="processor cores, where there is no GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--export", type=Path, default=None, help="folder for the weights")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads if args.device == "cpu" else torch.get_num_threads())
    torch.manual_seed(args.seed)
    from safetensors.torch import load_file

    start = {k: v.float() for k, v in load_file(args.init).items()}
    nets = [from_state(start).to(args.device).to(memory_format=torch.channels_last_3d) for _ in range(2)]
    run: Learner[HalvingNet] = Learner(nets[0], nets[1], args.cache / args.run / "last.pt", args.rate)
    run.resume()
    judge = Judge().to(args.device).to(memory_format=torch.channels_last_3d)
    other = torch.optim.Adam(judge.parameters(), lr=3e-4, betas=(0.5, 0.99))
    half, plan = half_is_quick(args.device), SCHEDULES[args.schedule]
    bank = Bank(args.cache / "denoise_bank")
    if not bank.refresh():
        raise SystemExit("There is no bank of volumes yet: run training.train_isotropic first.")
    held = held_back(args.cache / "superres_held", args.maps, args.cache)
    losses: list[tuple[float, float]] = []
    for gen, progress in run.lessons(args.minutes, args.seed):
        fine = bank.pieces(plan.batch, plan.side, gen)
        scan, told = (part.to(args.device) for part in measured(fine, gen))
        fine = fine.to(args.device)
        plain, answer = refined(run.net, scan, told, half)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=half):
            real = judge(fine, plain)
            found = judge(answer.detach(), plain)
        known = apart(real.float(), found.float())
        other.zero_grad(set_to_none=True)
        known.backward()
        other.step()
        judge.requires_grad_(False)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=half):
            taken = apart(judge(answer, plain).float(), judge(fine, plain).float())
        judge.requires_grad_(True)
        # The judge learns alone for a while, or its first opinions would spoil the net.
        weight = args.weight * min(1.0, max(0.0, (run.step - 50) / 150))
        total = run.follow(loss_of(answer, plain, fine) + weight * taken, progress)
        losses.append((total, float(known.detach())))
        if run.step % 25 == 0:
            mean = np.mean(losses[-100:], axis=0)
            print(f"{run.step} {run.spent / 60:.1f} min loss {mean[0]:.4f} judge {mean[1]:.4f}", flush=True)
        if run.step % args.every == 0 or progress >= 1:
            run.keep()
            figures: dict[str, Any] = {
                **validate(run.average, held, args.device),
                "detail": detail(run.average, held, args.device),
            }
            print(f"{run.step} {figures}", flush=True)
            if args.export is not None:
                facts = {"steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed}
                told_by = {"name": "isotropic_x2, sharper", "recipe": "training/train_sharper.py, L1 and a judge"}
                write_weights(run.average, args.export, "isotropic_sharper", CARD | told_by | facts | figures)


if __name__ == "__main__":
    main()
