"""The picture of a fine-tuning grid: error on val under each learning rate and weight decay, what diverged, what was chosen."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle


class Cell(NamedTuple):
    """One setting. heat: 0 for the lowest error of the grid, 1 for the highest; None if it diverged, at the step `diverged`."""

    text: str
    heat: float | None
    chosen: bool
    diverged: int = 0


class Heat(NamedTuple):
    """A grid as a table: decays above its columns, and a row per learning rate with a cell for each decay."""

    decays: list[str]
    rows: list[tuple[str, list[Cell]]]


def heat(result: dict[str, Any]) -> Heat:
    """The grid of a fine-tuning result, learning rates and decays rising; a setting that is not there is an empty cell."""
    curve, chosen = {(row["lr"], row["decay"]): row for row in result["curve"]}, result["chosen"]
    errors = [row["error"] for row in curve.values() if row["error"] is not None]
    low, high = min(errors, default=0.0), max(errors, default=0.0)

    def cell(lr: float, decay: float) -> Cell:
        row = curve.get((lr, decay))
        if row is None:
            return Cell("", None, False)
        if row["error"] is None:
            return Cell("diverged", None, False, row.get("diverged") or 0)
        share = math.sqrt((row["error"] - low) / (high - low)) if high > low else 0.0  # so that low errors can be told apart
        return Cell(f"{row['error']:.2f}", round(share, 3), (lr, decay) == (chosen["lr"], chosen["decay"]))

    rates, decays = (sorted({setting[i] for setting in curve}) for i in (0, 1))
    return Heat([short(d) if d else "none" for d in decays], [(short(lr), [cell(lr, d) for d in decays]) for lr in rates])


def short(value: float) -> str:
    """Three digits at most: 0.1, 3.16e-05."""
    return f"{value:.3g}"


def draw(result: dict[str, Any], title: str, stem: Path, style: Path) -> list[Path]:
    """Write stem.svg and stem.png. Every cell has its number, so that nothing hangs on colours. Returns the paths."""
    grid = heat(result)
    wide, high = len(grid.decays), len(grid.rows)
    with plt.style.context(style), mpl.rc_context({"svg.hashsalt": stem.name}):
        canvas, ax = plt.subplots(figsize=(1.6 + 0.72 * wide, 1.7 + 0.42 * high))
        shades = [[float("nan") if c.heat is None else c.heat for c in cells] for _, cells in grid.rows]
        ax.imshow(shades, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")  # the darkest still lets black digits be read
        for y, (_, cells) in enumerate(grid.rows):
            for x, c in enumerate(cells):
                ax.text(x, y, c.text, ha="center", va="center", fontsize=7, fontweight="bold" if c.chosen else "normal")
                if c.chosen:
                    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, linewidth=2, zorder=3))
        ax.set_xticks(range(wide), grid.decays)
        ax.set_yticks(range(high), [lr for lr, _ in grid.rows])
        ax.tick_params(length=0)
        ax.grid(False)
        ax.set_xlabel("weight decay")
        ax.set_ylabel("learning rate")
        told = f"error on val ({result['metric']}, %); framed: chosen, on test after the refit {result['error']:.2f} %"
        ax.set_title(f"{title}\n{told}", parse_math=False)  # a file's name may hold anything
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
        canvas.savefig(paths[0], metadata={"Date": None})
        canvas.savefig(paths[1], metadata={"Software": None})
        plt.close(canvas)
    return paths
