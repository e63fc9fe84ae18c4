"""Train the promptable network: `python -m training.train_click3d --minutes 90`.

Everything it sees is synthetic. A second process paints scenes; the trainer keeps many episodes going, so that
each step holds first clicks and late corrections side by side, and every forward pass is also a lesson.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing
from torch.nn import functional as F

from napari_mri.engine.device import half_is_quick
from napari_mri.nets.click3d import Click3D
from training.click_tasks import KINDS, UNKNOWN, Episode, Scene, choose_object, extents, make_scene
from training.muon import Muon
from training.paths import CACHE, DATA
from training.synth import Head, load_heads

HELD_BACK = ("16", "17", "19")
"""Heads never trained on; the benchmark's synthetic heads are made of them."""
SCHEDULES: dict[str, dict[str, Any]] = {
    "cpu": {"scene": 96, "side": 48, "batch": 8, "rate": 0.02, "pool": 500, "renew": 3},
    "gpu": {"scene": 128, "side": 64, "batch": 32, "rate": 0.02, "pool": 4000, "renew": 1},
}


def training_heads() -> list[Head]:
    """Return the heads that are trained on."""
    return load_heads(DATA, CACHE, tuple(f"{n:02d}" for n in range(1, 21) if f"{n:02d}" not in HELD_BACK))


def paint_scenes(queue: Any, side: int, seed: int, ahead: int) -> None:
    """Fill the queue with scenes, for ever; runs in its own process."""
    torch.set_num_threads(1)
    heads = training_heads()
    known = [extents(head) for head in heads]
    number = seed
    while True:
        which = number % len(heads)
        scene = make_scene(heads[which], known[which], side, number)
        queue.put((scene.image.numpy(), scene.labels.numpy(), scene.spacing, scene.base, scene.inside, scene.whole))
        number += ahead


def dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """One minus soft Dice, per sample: (B, 1, I, J, K) twice to (B,)."""
    p = torch.sigmoid(logits)
    both = (p * truth).sum((1, 2, 3, 4))
    return 1 - (2 * both + 1) / (p.sum((1, 2, 3, 4)) + truth.sum((1, 2, 3, 4)) + 1)


class Trainer:
    """Net, its slow average, the episodes and the clock.

    Parameters
    ----------
    args : argparse.Namespace
    """

    def __init__(self, args: argparse.Namespace) -> None:
        plan = SCHEDULES[args.schedule] | ({"rate": args.rate} if args.rate else {})
        self.args, self.plan = args, plan
        self.device = torch.device("cuda" if args.schedule == "gpu" else "cpu")
        torch.manual_seed(args.seed)
        self.gen = torch.Generator().manual_seed(args.seed)
        self.half = half_is_quick(self.device.type)
        self.net = Click3D().to(self.device, memory_format=torch.channels_last_3d)
        self.slow = Click3D().to(self.device)
        self.step, self.spent, self.named = 0, 0.0, 4.0
        if args.init:
            from safetensors.torch import load_file

            self.net.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
        self.slow.load_state_dict(self.net.state_dict())
        # Asked for the anatomy as well, the net learns from every voxel of a look; these heads are not shipped.
        widths = [up.conv.weight.shape[0] for up in reversed(self.net.up)][-2:]
        self.anatomy = torch.nn.ModuleList(torch.nn.Conv3d(width, KINDS, 1) for width in widths).to(self.device)
        kernels = [p for name, p in self.net.named_parameters() if p.ndim > 1 and not name.startswith("prior")]
        self.vectors = [p for name, p in self.net.named_parameters() if p.ndim == 1 or name.startswith("prior")]
        self.muon = Muon(kernels, lr=plan["rate"])
        self.vectors += list(self.anatomy.parameters())
        self.adam = torch.optim.AdamW(self.vectors, lr=0.1 * plan["rate"], weight_decay=0.0)
        self.pool: list[Scene] = []
        self.slots: list[Episode] = []
        self.kept = args.run / "last.pt"
        if args.resume and self.kept.exists():
            state = torch.load(self.kept, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.slow.load_state_dict(state["slow"])
            self.anatomy.load_state_dict(state["anatomy"])
            self.muon.load_state_dict(state["muon"])
            self.adam.load_state_dict(state["adam"])
            self.step, self.spent = state["step"], state["spent"]

    def rate(self) -> float:
        """Learning rate: a short warm-up, then a cosine over the minutes given, whatever the machine's speed."""
        done = min(1.0, self.spent / (self.args.minutes * 60))
        return float(
            self.plan["rate"] * min(1.0, (self.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done) + 0.003)
        )

    def new_episode(self) -> Episode:
        """Start clicking on something."""
        while True:
            scene = self.pool[int(torch.randint(len(self.pool), (), generator=self.gen))]
            mask = choose_object(scene, self.gen)
            if mask is not None:
                return Episode(scene, mask, self.gen, self.plan["side"])

    def feed(self, queue: Any, least: int) -> None:
        """Take one waiting scene into the pool, and more while the pool is smaller than `least`."""
        fresh = int(self.step % self.plan["renew"] == 0 and not queue.empty())
        while len(self.pool) < least or fresh:
            fresh = 0
            image, labels, spacing, base, inside, whole = queue.get()
            scene = Scene(torch.from_numpy(image), torch.from_numpy(labels), spacing, base, inside, whole)
            if len(self.pool) < self.plan["pool"]:
                self.pool.append(scene)
            else:
                self.pool[int(torch.randint(len(self.pool), (), generator=self.gen))] = scene

    def lesson(self) -> tuple[float, list[tuple[int, float]]]:
        """One round of every episode. Returns the loss, and (marks given, Dice) of each."""
        while len(self.slots) < self.plan["batch"]:
            self.slots.append(self.new_episode())
        inputs = [slot.question() for slot in self.slots]
        targets = [slot.wanted() for slot in self.slots]
        fine = torch.stack([pair[0] for pair in inputs]).to(self.device)
        coarse = torch.stack([pair[1] for pair in inputs]).to(self.device)
        truth = torch.stack([pair[0] for pair in targets])[:, None].to(self.device)
        kinds = torch.stack([pair[1] for pair in targets]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            features = self.net.features(fine, coarse)
            logits = self.net.answer(fine, features[-1]).float()
            named = [head(x).float() for head, x in zip(self.anatomy, features[-2:], strict=True)]
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2, 3, 4))
        # The mean over a crop is small for a small object, so it is measured against the object's share.
        share = truth.mean((1, 2, 3, 4)).clamp(0.005, 0.5)
        loss = (dice_loss(logits, truth) + 0.25 * each / share.sqrt()).mean()
        # The coarser features answer for every second voxel.
        asked = (kinds[:, ::2, ::2, ::2], kinds)
        names = [F.cross_entropy(x, k, ignore_index=UNKNOWN) for x, k in zip(named, asked, strict=True)]
        lesson = loss + 0.15 * torch.stack(names).sum()
        self.muon.param_groups[0]["lr"], self.adam.param_groups[0]["lr"] = self.rate(), 0.1 * self.rate()
        self.net.zero_grad(set_to_none=True)
        self.anatomy.zero_grad(set_to_none=True)
        lesson.backward()
        torch.nn.utils.clip_grad_norm_(self.vectors, 1.0)
        self.muon.step()
        self.adam.step()
        self._average()
        probability = torch.sigmoid(logits.detach()).cpu()
        scores = []
        going = []
        for slot, found, true in zip(self.slots, probability, truth.cpu() > 0.5, strict=True):
            both = float(((found[0] > 0.5) & true[0]).sum())
            dice = 2 * both / max(1.0, float((found[0] > 0.5).sum() + true[0].sum()))
            scores.append((len(slot.marks[True]) + len(slot.marks[False]), dice))
            if slot.answered(found[0]):
                going.append(slot)
        self.slots = going
        self.named = 0.97 * self.named + 0.03 * float(names[-1].detach())
        return float(loss.detach()), scores

    def _average(self) -> None:
        keep = min(0.997, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mine, theirs in zip(self.slow.parameters(), self.net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - keep)

    def save(self) -> None:
        """Keep what resuming needs, and the slow net in the product's format."""
        from safetensors.torch import save_file

        state = {
            "net": self.net.state_dict(), "slow": self.slow.state_dict(), "anatomy": self.anatomy.state_dict(), "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(), "step": self.step, "spent": self.spent,
        }  # fmt: skip
        part = self.kept.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.kept)
        half = {key: value.half().contiguous().cpu() for key, value in self.slow.state_dict().items()}
        part = self.args.run / "click3d.part"
        save_file(half, part)
        part.replace(self.args.run / "click3d.safetensors")
        facts = {"steps": self.step, "minutes": round(self.spent / 60, 1), "seed": self.args.seed, **self.plan}
        (self.args.run / "facts.json").write_text(json.dumps(facts, indent=1))


def export(run: Path, target: Path) -> None:
    """Put the slow net of a run in the package, and its steps and checksum on the card beside it."""
    import hashlib

    facts = json.loads((run / "facts.json").read_text())
    raw = (run / "click3d.safetensors").read_bytes()
    target.write_bytes(raw)
    card_file = target.with_suffix(".json")
    card = json.loads(card_file.read_text()) if card_file.exists() else {"name": "click3d"}
    card |= {"sha256": hashlib.sha256(raw).hexdigest()} | {k: facts[k] for k in ("seed", "steps", "minutes", "batch")}
    card["figures"] = {}  # those of other weights: measure again with benchmarks/prompts.py
    card_file.write_text(json.dumps(card, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Train for some minutes; resumable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cpu")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--rate", type=float, help="highest learning rate, instead of the schedule's")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path)
    parser.add_argument("--painters", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--run", type=Path, default=CACHE.parent / "runs" / "click3d")
    parser.add_argument("--export", type=Path, help="put what a run has so far here, and train no further")
    args = parser.parse_args(argv)
    if args.export:
        export(args.run, args.export)
        return
    args.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    trainer = Trainer(args)
    around = multiprocessing.get_context("spawn")
    queue = around.Queue(maxsize=4)
    seed = 1000 + args.seed + 100_000 * trainer.step
    painters = [
        around.Process(target=paint_scenes, args=(queue, trainer.plan["scene"], seed + n, args.painters), daemon=True)
        for n in range(args.painters)
    ]
    for painter in painters:
        painter.start()
    trainer.feed(queue, least=24)
    saved = time.monotonic()
    recent: list[tuple[int, float]] = []
    losses: list[float] = []
    while trainer.spent < args.minutes * 60:
        began = time.monotonic()
        # Painting costs about as much as a step: the pool grows early, and is renewed slowly later.
        trainer.feed(queue, least=min(24 + trainer.step // 4, 200))
        loss, scores = trainer.lesson()
        trainer.step += 1
        trainer.spent += time.monotonic() - began
        losses.append(loss)
        recent += scores
        if trainer.step % 25 == 0:
            table = " ".join(
                f"{low}{'+' if low == 5 else ''}:{sum(d for d, _ in found) / len(found):.3f}"
                for low, high in ((0, 0), (1, 1), (2, 2), (3, 4), (5, 999))
                if (found := [(d, n) for n, d in recent if low <= n <= high])
            )
            clock = time.strftime("%H:%M:%S")
            print(
                f"{clock} step {trainer.step} {trainer.spent / 60:.1f} min loss {sum(losses) / len(losses):.3f} "
                f"dice {table} anatomy {trainer.named:.2f} pool {len(trainer.pool)} rate {trainer.rate():.1e}",
                flush=True,
            )
            recent, losses = [], []
        if time.monotonic() - saved > 180:
            trainer.save()
            saved = time.monotonic()
    trainer.save()
    for painter in painters:
        painter.terminate()


if __name__ == "__main__":
    main()
