"""One result as a picture: a linear probe's error against l2, or the grid of a fine-tuning."""

from pathlib import Path
from typing import Any

from simclic.report.finetune_grid import build_grid_table
from simclic.report.pictures import write_pictures


def draw_result(result: dict[str, Any], title: str, stem: Path) -> list[Path]:
    """Write stem.svg and stem.png, a probe's error against l2 or a fine-tuning grid. Return their paths."""
    return write_pictures(stem, ("svg", "png"), _draw_grid if result["stage"] == "finetune" else _draw_probe, result, title)


def _draw_probe(canvas: Any, result: dict[str, Any], title: str) -> None:
    """Draw validation error against l2, and the chosen value; values that did not converge are open circles."""
    canvas.set_size_inches(6.8, 4.2)
    ax = canvas.subplots()
    curve, chosen, error = sorted(result["curve"], key=lambda row: row["l2"]), result["chosen"], result["error"]
    dot: dict[str, Any] = {"marker": "o", "markersize": 3.5, "color": "C0"}
    ax.plot([row["l2"] for row in curve], [row["error"] for row in curve], label="validation", **dot)
    if stopped := [(row["l2"], row["error"]) for row in curve if not row["converged"]]:
        ax.plot(*zip(*stopped, strict=True), ls="", markerfacecolor="white", label="stopped before it converged", **dot)
    label = f"chosen, {chosen['l2']:.3g}"
    ax.plot(chosen["l2"], chosen["val_error"], ls="", marker="D", markersize=7, color="C1", label=label)
    ax.axhline(error, linestyle="--", linewidth=1, color="C2", label=f"test, after the refit: {error:.2f} %")
    ax.set_xscale("log")
    ax.set_xlabel("l2 (on half the squared weights, beside the summed loss)")
    ax.set_ylabel(f"Error, {result['metric']} (%)")
    ax.set_ylim(0, 1.08 * max(*(row["error"] for row in curve), error))
    ax.set_title(title, parse_math=False)  # a file's name may hold anything
    ax.legend()


def _draw_grid(canvas: Any, result: dict[str, Any], title: str) -> None:
    """Draw the error on val under each learning rate and weight decay. Every cell has its number, so colours are not needed."""
    from matplotlib.patches import Rectangle

    grid = build_grid_table(result)
    wide, high = len(grid.decays), len(grid.rows)
    canvas.set_size_inches(1.8 + 0.9 * wide, 1.9 + 0.5 * high)
    ax = canvas.subplots()
    shades = [[float("nan") if c.heat is None else c.heat for c in cells] for _, cells in grid.rows]
    ax.imshow(shades, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")  # the darkest still lets black digits be read
    for y, (_, cells) in enumerate(grid.rows):
        for x, c in enumerate(cells):
            ax.text(x, y, c.text, ha="center", va="center", fontsize=11, fontweight="bold" if c.chosen else "normal")
            if c.chosen:
                ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, linewidth=2, zorder=3))
    ax.set_xticks(range(wide), grid.decays)
    ax.set_yticks(range(high), [lr for lr, _ in grid.rows])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_xlabel("weight decay")
    ax.set_ylabel("learning rate")
    line = f"error on val ({result['metric']}, %); framed: chosen, on test after the refit {result['error']:.2f} %"
    ax.set_title(f"{title}\n{line}", parse_math=False)
