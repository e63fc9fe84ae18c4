"""Measure clicking: a simulated user points at structures and corrects the largest error, click after click.

``python -m benchmarks.prompts synthetic`` heads held back from training, every structure of at least 0.5 ml; ``--trained``
                                           the other heads
``python -m benchmarks.prompts real``      real scans with labels (``NAPARI_MRI_TEST_DATA``)
``python -m benchmarks.prompts time``      from click to mask on a 256 x 256 x 256 head at 1 mm; ``--device cuda`` on a GPU
``python -m benchmarks.prompts sam``       SAM's session against the bare SamPredictor, random weights; its cache
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import napari_mri as mri
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume

CLICKS = (1, 3, 5, 10)
LEAST_ML = 0.5
COMPARED = 8
"""Rounds of clicks whose masks are compared with the CPU's."""


@dataclass(frozen=True)
class Structure:
    """One thing to segment: a scan, the truth (I, J, K) bool, a name, and whether it is part of the brain."""

    scan: Volume
    truth: np.ndarray
    name: str
    brain: bool = True


def deepest(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the voxel (3,) farthest from the border of a mask, and how far."""
    from scipy.ndimage import distance_transform_edt

    at = np.argwhere(mask)
    low, high = at.min(axis=0), at.max(axis=0) + 1
    part = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 1)
    depth = distance_transform_edt(part)
    spot = np.array(np.unravel_index(int(depth.argmax()), depth.shape))
    return spot - 1 + low, float(depth.max())


def next_click(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """Return the middle of the largest error, and whether it belongs to the object; None if there is no error."""
    from scipy.ndimage import label

    best: tuple[int, np.ndarray, bool] | None = None
    for error, positive in ((truth & ~found, True), (found & ~truth, False)):
        if not error.any():
            continue
        pieces, _ = label(error)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        size = int(sizes.max())
        if best is None or size > best[0]:
            best = (size, pieces == sizes.argmax(), positive)
    return None if best is None else (deepest(best[1])[0], best[2])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return 2|A and B| / (|A| + |B|)."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def play(session: Any, thing: Structure, clicks: int) -> list[float]:
    """Return the Dice after each click."""
    grid = thing.scan.grid
    spot: np.ndarray | None = deepest(thing.truth)[0]
    positive = True
    prompts, scores = mri.Prompts(), []
    for _ in range(clicks):
        if spot is not None:
            prompts = prompts.plus(mri.Point(tuple(grid.to_patient(spot)), positive))
            found = session.answer(prompts).data > 0
        scores.append(dice(found, thing.truth))
        following = next_click(thing.truth, found)
        spot, positive = following if following else (None, True)
    return scores


def boxed(session: Any, thing: Structure) -> float:
    """Return the Dice of the tight box around the truth, without a click."""
    at = np.argwhere(thing.truth)
    ends = thing.scan.grid.to_patient(np.array([at.min(axis=0) - 0.5, at.max(axis=0) + 0.5]))
    return dice(session.answer(mri.Prompts((mri.Box(tuple(ends[0]), tuple(ends[1])),))).data > 0, thing.truth)


def synthetic(
    spacing: float, scenes: int, seed: int, physics: float = 0.5, trained: bool = False
) -> Iterator[list[Structure]]:
    """Yield the structures of painted heads whose label maps were held back; `physics` as of `training.synth.Recipe`.

    `trained` takes as many of the other label maps as there are scenes, drawn at random.
    """
    from training.click_sessions import structures
    from training.paths import CACHE, DATA
    from training.synth import Recipe, load_heads, make_sample
    from training.train_click3d import HELD_BACK, training_heads

    heads = load_heads(DATA, CACHE, HELD_BACK)
    if trained:
        heads = training_heads()
        np.random.default_rng(seed).shuffle(heads)
    recipe = Recipe(
        spacing=(spacing, spacing), extent=((190, 200), (220, 230), (190, 200)),
        stripped=0, defaced=0, cavities=0, cropped=0, dropout=0, lesions=0,
        physics=physics,
    )  # fmt: skip
    for number in range(scenes):
        head = heads[number % len(heads)]
        fine = (spacing,) * 3
        sample = make_sample(head, recipe, seed + number, (fine[0], fine[1], fine[2]))
        labels = sample.labels.numpy()
        scan = Volume(sample.image.numpy(), Grid.plain(labels.shape, fine))
        yield [
            Structure(scan, truth, f"{head.name}/{value} {head.tissue[value]}", head.inside[value])
            for value, truth in structures(labels, head, spacing, LEAST_ML)
        ]


def thinned(thing: Structure, finest: float) -> Structure:
    """Return a structure on every n-th voxel, so that no spacing is much below `finest` mm; 0 leaves it alone."""
    grid = thing.scan.grid
    steps = [max(1, int(finest / s + 1e-3)) for s in grid.spacing]
    if max(steps) == 1:
        return thing
    some = tuple(slice(None, None, n) for n in steps)
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] * steps
    truth = thing.truth[some]
    scan = Volume(np.ascontiguousarray(thing.scan.data[some]), Grid(truth.shape, affine))
    return Structure(scan, truth, thing.name, thing.brain)


def real(only: str = "", finest: float = 0.0) -> Iterator[list[Structure]]:
    """Yield real scans with labels whose name holds `only`."""
    folder = Path(os.environ.get("NAPARI_MRI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    pairs = {
        "Colin27 brain": ("head_t1_colin27/ch2.nii.gz", "head_t1_colin27/ch2_brainmask.nii.gz"),
        "spine T1 cord": ("spine_and_4d/t1_t1w.nii.gz", "spine_and_4d/t1_t1w_seg-manual.nii.gz"),
        "spine T2 cord": ("spine_and_4d/t2_t2.nii.gz", "spine_and_4d/t2_t2_seg-manual.nii.gz"),
        "spine T2 painted lesion": (
            "spine_and_4d/t2_t2_fake_lesion.nii.gz", "spine_and_4d/t2_t2_fake_lesion_lesion_seg.nii.gz",
        ),
        "spine T2* cord": ("spine_and_4d/t2s_t2s.nii.gz", "spine_and_4d/t2s_t2s_seg.nii.gz"),
    }  # fmt: skip
    for kind in ("T1W", "T2W", "FLAIR"):
        start = f"head_ms_multicontrast/patient01/{kind}"
        pairs[f"MS {kind} brain"] = (f"{start}.nii.gz", f"{start}_brainmask.nii.gz")
    for name, (scan, mask) in pairs.items():
        if only not in name:
            continue
        if not (folder / scan).is_file():
            print(f"{name}: not here")
            continue
        volume = mri.load(folder / scan)
        truth = mri.load_labels(folder / mask).data > 0
        yield [thinned(Structure(volume, truth, name, "brain" in name), finest)]


def measure(
    groups: Iterator[list[Structure]], models: list[str], most: int, seed: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Play every structure with every model."""
    rows = []
    rng = np.random.default_rng(seed)
    for things in groups:
        chosen = (
            things if most <= 0 or len(things) <= most else [things[n] for n in rng.permutation(len(things))[:most]]
        )
        for model in models:
            with mri.open_session(things[0].scan, model=model, device=device) as session:
                for thing in chosen:
                    scores = play(session, thing, CLICKS[-1])
                    row = {
                        "model": model, "name": thing.name, "brain": thing.brain, "box": boxed(session, thing),
                        "ml": float(thing.truth.sum() * thing.scan.grid.voxel_ml), "dice": scores,
                    }  # fmt: skip
                    rows.append(row)
                    after = " ".join(f"{scores[n - 1]:.3f}" for n in CLICKS)
                    print(f"{model:8} {thing.name:26} {row['ml']:8.1f} ml  {after}  box {row['box']:.3f}", flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over structures, per model."""
    found: dict[str, Any] = {}
    for model in sorted({row["model"] for row in rows}):
        for part, chosen in (("brain", [r for r in rows if r["brain"]]), ("all", rows)):
            own = [row for row in chosen if row["model"] == model]
            if own:
                found[f"{model} {part}"] = {
                    "structures": len(own),
                    **{f"after {n}": round(float(np.mean([r["dice"][n - 1] for r in own])), 3) for n in CLICKS},
                    "box": round(float(np.mean([r["box"] for r in own])), 3),
                }
    return found


def timing(model: str, rounds: int, device: str = "auto") -> dict[str, Any]:
    """Return seconds from click to mask, first and later clicks, on a head in a 256-cube at 1 mm.

    On a graphics processor also the lowest Dice between its masks and those of the CPU for the same clicks, and memory.
    """
    import torch

    from napari_mri.phantom import head

    affine = np.eye(4)
    affine[:3, 3] = -128
    scan, labels = head(Grid((256, 256, 256), affine))
    spots = [tuple(scan.grid.to_patient(deepest(labels.data == value)[0])) for value in np.unique(labels.data)[1:7]]
    first, later, first_cpu, later_cpu = [], [], [], []
    asked: list[tuple[mri.Prompts, np.ndarray]] = []
    began = time.perf_counter()
    with mri.open_session(scan, model=model, device=device) as session:
        opened = time.perf_counter() - began
        session.answer(mri.Prompts((mri.Point(spots[0]),)))  # the first ever call warms up
        for n in range(rounds):
            rng = np.random.default_rng(n)
            spot = tuple(float(v) for v in np.add(spots[n % len(spots)], rng.uniform(-2, 2, 3)))
            prompts = mri.Prompts((mri.Point(spot),))
            for k in range(4):
                began, cpu = time.perf_counter(), time.process_time()
                mask = session.answer(prompts)
                (later if k else first).append(time.perf_counter() - began)
                (later_cpu if k else first_cpu).append(time.process_time() - cpu)
                if n < COMPARED:
                    asked.append((prompts, mask.data > 0))
                off = tuple(v + 3.0 * (k + 1) for v in spot)
                prompts = prompts.plus(mri.Point(off, k % 2 == 1))
    alike: dict[str, Any] = {}
    if device == "cuda":
        alike = {"gpu": torch.cuda.get_device_name(), "GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)}
        with mri.open_session(scan, model=model, device="cpu") as session:
            alike["lowest Dice"] = round(min(dice(session.answer(p).data > 0, mask) for p, mask in asked), 5)
    return {
        "model": model, **alike, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "open": round(opened, 3),
        **{
            f"{name} p{q}": round(float(np.percentile(values, q)), 4)
            for name, values in (("first", first), ("later", later), ("first cpu", first_cpu), ("later cpu", later_cpu))
            for q in (50, 95)
        },
    }  # fmt: skip


def sam(size: str, rounds: int) -> dict[str, Any]:
    """Return agreement and time of a SAM session against the bare predictor: same weights, same slices, each plane.

    Random weights do as well as trained ones here: what is compared is the road, not the answer.
    """
    import tempfile

    import torch
    from safetensors.torch import save_file
    from segment_anything import SamPredictor

    from napari_mri.engine.embeddings import Embeddings
    from napari_mri.models._sam_slices import PLANES, Plane, window_of
    from napari_mri.nets import sam as nets
    from napari_mri.phantom import head

    scan, _ = head()
    window = window_of(scan.data)
    net = nets.tiny(3) if size == "tiny" else nets.random_weights(nets.Shape(), 3)
    rows: dict[str, Any] = {"sam": size, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sam.safetensors"
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, file)
        bare = SamPredictor(net)
        bare.transform.target_length = net.image_encoder.img_size
        os.environ["XDG_CACHE_HOME"] = folder  # a cache of its own: what was encoded before must not help
        ours_cpu, bare_cpu, again, disk = [], [], [], []
        for name, axis in PLANES.items():
            plane, middle = Plane(scan.grid, axis), np.asarray(scan.grid.shape) // 2
            params = {"checkpoint": str(file), "profile": "sam", "plane": name, "reach": 0.0}
            with mri.open_session(scan, model="sam", device="cpu", **params) as session:
                for n in range(rounds):
                    voxel = middle + np.eye(3, dtype=int)[axis] * (n + 1)
                    prompts = mri.Prompts((mri.Point(tuple(scan.grid.to_patient(voxel))),))
                    # In turns and the other first every second time: the machine is not always equally busy.
                    for who in ("ours", "bare") if n % 2 else ("bare", "ours"):
                        began = time.process_time()
                        if who == "ours":
                            mask = session.answer(prompts)
                            ours_cpu.append(time.process_time() - began)
                        else:
                            bare.set_image(plane.picture(scan.data, int(voxel[axis]), window))
                            found, _, _ = bare.predict(plane.to_picture(voxel), np.array([1]), multimask_output=False)
                            bare_cpu.append(time.process_time() - began)
                    mine, theirs = np.take(mask.data, voxel[axis], axis=axis) > 0, plane.home(found[0])
                    both, either = int((mine & theirs).sum()), int((mine | theirs).sum())
                    rows[f"{name} IoU"] = min(rows.get(f"{name} IoU", 1.0), both / max(1, either))
                    count = session._inner.encoded
                    began = time.perf_counter()
                    session.answer(prompts)
                    again.append(time.perf_counter() - began)
                    rows["encoder calls on a slice seen before"] = session._inner.encoded - count
        cold = Embeddings()
        for path in cold.place.glob("*.npy"):
            began = time.perf_counter()
            assert cold.get(path.stem) is not None
            disk.append(time.perf_counter() - began)
    return rows | {
        "cpu s a new slice": round(float(np.median(ours_cpu)), 3),
        "bare predictor": round(float(np.median(bare_cpu)), 3),
        "ratio": round(float(np.median(np.array(ours_cpu) / np.array(bare_cpu))), 3),
        "s a slice seen before, median": round(float(np.median(again)), 4),
        "ms an embedding from disk, median": round(float(np.median(disk)) * 1000, 2),
        "ms an embedding from disk, p95": round(float(np.percentile(disk, 95)) * 1000, 2),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure and print; the figures go to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("synthetic", "real", "time", "sam"))
    parser.add_argument("--models", nargs="+", default=["click3d", "grow"])
    parser.add_argument("--spacing", type=float, default=1.5, help="of the painted heads, mm")
    parser.add_argument("--scenes", type=int, default=6, help="painted heads")
    parser.add_argument("--physics", type=float, default=0.5, help="share of painted heads in the contrasts of real sequences")
    parser.add_argument("--trained", action="store_true", help="heads that were trained on instead: to choose rules by")
    parser.add_argument("--most", type=int, default=0, help="structures of a head, drawn at random; 0 takes all")
    parser.add_argument("--only", default="", help="real scans whose name holds this")
    parser.add_argument("--finest", type=float, default=0.0, help="real scans are thinned to about this spacing, mm")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sam", nargs="+", default=["tiny", "vit_b"], choices=("tiny", "vit_b"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="", help="cpu, cuda or mps; by default the quickest for time, else cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    if args.what == "time":
        result: dict[str, Any] = {"time": [timing(model, args.rounds, args.device or "auto") for model in args.models]}
    elif args.what == "sam":
        result = {"sam": [sam(size, args.rounds) for size in args.sam]}
    else:
        painted = (args.spacing, args.scenes, args.seed, args.physics, args.trained)
        groups = real(args.only, args.finest) if args.what == "real" else synthetic(*painted)
        rows = measure(groups, args.models, args.most, args.seed, args.device or "cpu")
        result = {"summary": summary(rows), "rows": rows}
    print(json.dumps(result.get("summary", result), indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
