"""The picture of a linear probe: validation error against l2, and what was chosen."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt


def draw(result: dict[str, Any], title: str, stem: Path, style: Path) -> list[Path]:
    """Write stem.svg and stem.png. Values that did not converge are open circles. Returns the paths."""
    curve, chosen = sorted(result["curve"], key=lambda row: row["l2"]), result["chosen"]
    l2, error = [row["l2"] for row in curve], [row["error"] for row in curve]
    stopped = [row for row in curve if not row["converged"]]
    with plt.style.context(style), mpl.rc_context({"svg.hashsalt": stem.name}):
        canvas, ax = plt.subplots(figsize=(5.6, 3.4))
        ax.plot(l2, error, marker="o", markersize=3.5, color="C0", label="validation")
        if stopped:
            ax.plot(
                [row["l2"] for row in stopped], [row["error"] for row in stopped], linestyle="", marker="o", markersize=3.5,
                color="C0", markerfacecolor="white", label="stopped before it converged",
            )  # fmt: skip
        ax.plot(
            chosen["l2"],
            chosen["val_error"],
            linestyle="",
            marker="D",
            markersize=7,
            color="C1",
            label=f"chosen, {chosen['l2']:.3g}",
        )
        ax.axhline(
            result["error"], linestyle="--", linewidth=1, color="C2", label=f"test, after the refit: {result['error']:.2f} %"
        )
        ax.set_xscale("log")
        ax.set_xlabel("l2 (on half the squared weights, beside the summed loss)")
        ax.set_ylabel(f"Error, {result['metric']} (%)")
        ax.set_ylim(0, 1.08 * max(*error, result["error"]))
        ax.set_title(title, parse_math=False)  # a file's name may hold anything
        ax.legend()
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
        canvas.savefig(paths[0], metadata={"Date": None})
        canvas.savefig(paths[1], metadata={"Software": None})
        plt.close(canvas)
    return paths
