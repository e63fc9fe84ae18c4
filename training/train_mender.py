"""Train the network that mends answers to clicks: `python -m training.train_mender --minutes 90`.

Other processes paint heads and play the product's own sessions on them (`click_sessions`); what is asked there is
learned from. They answer by the weights that the training has come to.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing
from torch.nn import functional as F

from napari_mri.engine.device import half_is_quick
from napari_mri.nets.click3d import Mender
from training.click_sessions import Lesson, lessons
from training.learner import Learner, write_weights
from training.paths import CACHE
from training.train_click3d import dice_loss, training_heads

MOST = 6000
"""Lessons that are kept at most."""
CARD: dict[str, Any] = {
    "name": "mender",
    "licence": "BSD-3-Clause",
    "data": "Synthetic heads painted from the label maps of SynthSeg (Billot et al., 2023), all but 16, 17 and 19, which are held "
    "back; on them, sessions of the product's own, with a simulated user.",
    "recipe": "training/train_mender.py",
    "limits": "Sees 48 voxels a side around the object or the newest marks. Trained on heads only, for little more than an hour of two "
    "processor cores.",
}  # fmt: skip


def play(queue: Any, first: int, stride: int, weights: Path) -> None:
    """Fill the queue with lessons, for ever; runs in its own process. Answers are those of `weights`, once they are there."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        for some in lessons(training_heads(), first, stride, lambda: weights if weights.exists() else None):
            # As arrays: tensors between processes would be files that are left open.
            queue.put([packed(one) for one in some])


def packed(lesson: Lesson) -> tuple[Any, ...]:
    """Return a lesson as arrays."""
    parts = (lesson.image, lesson.before, lesson.turned, lesson.truth, lesson.inside, lesson.outside, lesson.box)
    return *(None if part is None else part.numpy() for part in parts), lesson.spacing


def unpacked(parts: tuple[Any, ...]) -> Lesson:
    """Return a lesson again."""
    *arrays, spacing = parts
    return Lesson(*(None if part is None else torch.from_numpy(part) for part in arrays), spacing)


def loss_of(logits: torch.Tensor, truth: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return one minus soft Dice, and cross-entropy measured against the share of the window that is the object's.

    Parameters
    ----------
    logits, truth, before : (B, 1, I, J, K)
        What was known `before`, 0 to 1, counts as the object's too: what is small in truth and was taken for large would
        weigh more than all others, and teach to make everything smaller.
    """
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2, 3, 4))
    share = torch.maximum(truth, before).mean((1, 2, 3, 4)).clamp(0.005, 0.5)
    return (dice_loss(logits, truth) + each / share.sqrt()).mean()


def dice(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the Dice of each of a batch of masks, (B,)."""
    both = (found & truth).sum((1, 2, 3, 4))
    return (2 * both + 1) / (found.sum((1, 2, 3, 4)) + truth.sum((1, 2, 3, 4)) + 1)


def _batch(pool: list[Lesson], size: int, gen: torch.Generator) -> tuple[torch.Tensor, ...]:
    picks = torch.randint(len(pool), (size,), generator=gen).tolist()
    fine, coarse, truth = (torch.stack(part) for part in zip(*(pool[n].inputs(gen) for n in picks), strict=True))
    return fine, coarse, truth[:, None]


def _taken(queue: Any, pool: list[Lesson], wait: bool) -> list[Lesson]:
    """Return the pool with the lessons that wait, of at least one session if told to `wait`; the oldest go."""
    while wait or not queue.empty():
        pool = [*pool, *(unpacked(one) for one in queue.get())][-MOST:]
        wait = False
    return pool


def main(argv: list[str] | None = None) -> None:
    """Train for some minutes; resumable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="weights to begin with, or those of the click network, whose first levels are")
    parser.add_argument("--players", type=int, default=1, help="processes that play sessions")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", type=Path, default=CACHE.parent / "runs" / "mender")
    parser.add_argument("--export", type=Path, help="folder the weights and their card go to; by default the run's own")
    args = parser.parse_args(argv)
    weights = args.run / "mender.safetensors"
    if not args.resume:
        weights.unlink(missing_ok=True)
    torch.set_num_threads(1)
    # Forked before anything runs in threads or on a GPU.
    around = multiprocessing.get_context("fork")
    queue = around.Queue(maxsize=4)
    first = 1000 * args.seed + (int(time.time()) if args.resume else 0)
    crowd = [
        around.Process(target=play, args=(queue, first + n, args.players, weights), daemon=True) for n in range(args.players)
    ]
    for one in crowd:
        one.start()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net, average = (Mender().to(args.device, memory_format=torch.channels_last_3d) for _ in range(2))
    if args.init is not None:
        begun(net, args.init)
    average.load_state_dict(net.state_dict())
    run = Learner(net, average, args.run / "last.pt", args.rate)
    if args.resume:
        run.resume()
    try:
        _learn(run, queue, args)
    finally:
        for one in crowd:
            one.terminate()
    _write(run, args.export or args.run, args)


def begun(net: Mender, file: Path) -> None:
    """Begin with the weights of a file; of a click network with those tensors that fit: its head and what it was not told stay at nothing."""
    from napari_mri.engine.weights import load

    own, other = net.state_dict(), {name: value.float() for name, value in load(file).items()}
    if all(name in other and other[name].shape == value.shape for name, value in own.items()):
        net.load_state_dict(other)
        return
    stem, fine = other["stem.weight"], other["prior.weight"].shape[1]
    more = own["prior.weight"].shape[1] - fine
    other["stem.weight"] = torch.cat(
        [stem[:, : 8 * fine], stem.new_zeros(stem.shape[0], 8 * more, 1, 1, 1), stem[:, 8 * fine :]], 1
    )
    fits = {n: v for n, v in other.items() if n in own and own[n].shape == v.shape and not n.startswith(("head", "prior"))}
    net.load_state_dict(own | fits)


def _learn(run: Learner[Mender], queue: Any, args: argparse.Namespace) -> None:
    half = half_is_quick(args.device)
    pool: list[Lesson] = []
    for _ in range(2 * args.players):
        pool = _taken(queue, pool, wait=True)
    told: list[tuple[float, float, float]] = []
    kept = time.perf_counter()
    for gen, progress in run.lessons(args.minutes, args.seed):
        pool = _taken(queue, pool, wait=False)
        fine, coarse, truth = (part.to(args.device) for part in _batch(pool, args.batch, gen))
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=half):
            logits = run.net(fine, coarse).float()
        loss = run.follow(loss_of(logits, truth, (fine[:, 1:2] + 1) / 2), progress)
        before, after = (dice(found, truth > 0.5).mean() for found in (fine[:, 1:2] > 0, logits.detach() > 0))
        told.append((loss, float(before), float(after)))
        if run.step % 25 == 0:
            means = [sum(part) / len(told) for part in zip(*told, strict=True)]
            print(
                f"{run.step} {run.spent / 60:.1f} min loss {means[0]:.3f} dice {means[1]:.3f} to {means[2]:.3f}, "
                f"{len(pool)} lessons", flush=True,
            )  # fmt: skip
            told = []
        if progress >= 1 or time.perf_counter() - kept > 150:
            run.keep()
            _write(run, args.run, args)
            kept = time.perf_counter()


def _write(run: Learner[Mender], folder: Path, args: argparse.Namespace) -> None:
    facts = {
        "steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed, "batch": args.batch,
        "optimiser": f"Muon, lr {args.rate}, cosine; Adam for vectors; averaged weights", "device": args.device,
    }  # fmt: skip
    write_weights(run.average, folder, "mender", CARD | facts, as_bytes=True)


if __name__ == "__main__":
    main()
