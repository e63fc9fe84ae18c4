"""Draw a contact sheet of synthetic heads: `python -m training.contact_sheet --out docs/synthetic_heads.png`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from training.paths import CACHE, DATA


def main(argv: list[str] | None = None) -> None:
    """Draw the sheet: per head a sagittal, a coronal and an axial cut, with both brain surfaces."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from training.synth import Recipe, load_heads, make_sample

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/synthetic_heads.png"))
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--spacing", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    heads = load_heads(args.maps, args.cache)
    recipe = Recipe(spacing=(args.spacing, args.spacing))
    across = 4
    down = -(-args.count // across)
    figure, axes = plt.subplots(down, across * 3, figsize=(across * 6, down * 2.1), facecolor="black")
    spent = 0.0
    for number in range(args.count):
        begin = time.perf_counter()
        sample = make_sample(heads[number % len(heads)], recipe, args.seed + number)
        spent += time.perf_counter() - begin
        image, near = sample.image.numpy(), sample.distance.numpy()
        row, column = divmod(number, across)
        middles = [int(np.median(np.nonzero(near[0] < 0)[a])) if (near[0] < 0).any() else 8 for a in range(3)]
        for cut in range(3):
            shown = axes[row][column * 3 + cut]
            take = [slice(None)] * 3
            take[cut] = middles[cut] + (3 if cut == 0 else 0)
            shown.imshow(image[tuple(take)].T, origin="lower", cmap="gray", vmin=0, vmax=1.1)
            for channel, colour in ((0, "#ff5050"), (1, "#50c8ff")):
                line = near[channel][tuple(take)].T
                if line.min() < 0 < line.max():
                    shown.contour(line, levels=[0], colors=colour, linewidths=0.6)
    for shown in axes.ravel():
        shown.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=55)
    print(f"{args.out}: {args.count} heads, {args.count / spent:.2f} a second")


if __name__ == "__main__":
    main()
