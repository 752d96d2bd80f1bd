"""A Figure and the results -> lines in a picture: SVG, PNG, and the CSV of its points."""

from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from simclic import data
from simclic.report.tables import of_jobs
from simclic.spec import Figure

BARS = "Bars: one standard deviation over seeds; with one seed, one standard error over the test images."
MARKERS = "os^Dv<>"  # a line is told by its marker too, not by colour alone


def points(figure: Figure, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per point: protocol, line, x, mean error, bar, seeds.

    bar: standard deviation over seeds; with one seed, the standard error over the test images, sqrt(e (100 - e) / n).
    """
    parts = []
    for protocol in figure.protocols:
        found = of_jobs(frame, [job for job in figure.jobs if job[1] == protocol])
        found = found[found["error"].notna()]
        if found.empty:
            continue
        found = found.assign(tests=[sizes["test"] for sizes in found["sizes"]])
        rows = found.groupby([figure.lines, figure.x]).agg(
            error=("error", "mean"), std=("error", "std"), seeds=("error", "count"), tests=("tests", "first")
        )
        rows["bar"] = rows["std"].fillna((rows["error"] * (100 - rows["error"]) / rows["tests"]) ** 0.5)
        parts.append(rows.reset_index(names=["line", "x"]).assign(protocol=protocol.title))
    columns = ["protocol", "line", "x", "error", "bar", "seeds"]
    drawn = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    return drawn[columns].sort_values(["protocol", "line", "x"], ignore_index=True)


def draw(figure: Figure, frame: pd.DataFrame, folder: Path, style: Path) -> list[str]:
    """Write figureN.svg, .png and .csv. Returns their names."""
    drawn = points(figure, frame)
    with plt.style.context(style), mpl.rc_context({"svg.hashsalt": figure.name}):
        canvas, axes = plt.subplots(1, len(figure.protocols), figsize=(4.2 * len(figure.protocols), 3.2), squeeze=False)
        for ax, protocol in zip(axes[0], figure.protocols, strict=True):
            _panel(ax, figure, drawn[drawn["protocol"] == protocol.title], protocol.title)
        axes[0][0].set_ylabel("Test error (%)")
        canvas.savefig(folder / f"{figure.name}.svg", metadata={"Date": None})
        canvas.savefig(folder / f"{figure.name}.png", metadata={"Software": None})
        plt.close(canvas)
    drawn.to_csv(folder / f"{figure.name}.csv", index=False, float_format="%.6g")
    return [f"{figure.name}.{kind}" for kind in ("svg", "png", "csv")]


def _panel(ax: Axes, figure: Figure, drawn: pd.DataFrame, title: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(figure.xlabel or figure.x)
    if drawn.empty:
        ax.text(0.5, 0.5, "nothing run yet", ha="center", va="center", transform=ax.transAxes)
        return
    for marker, (line, rows) in zip(cycle(MARKERS), drawn.groupby("line"), strict=False):
        label = data.title(str(line)) if figure.lines == "dataset" else f"{line} {figure.lines.replace('_', ' ')}"
        ax.errorbar(rows["x"], rows["error"], yerr=rows["bar"], marker=marker, label=label)
    if figure.logx:
        ax.set_xscale("log")
    ticks = sorted(drawn["x"].unique())
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_ylim(0, 1.1 * (drawn["error"] + drawn["bar"]).max())
    ax.legend()
