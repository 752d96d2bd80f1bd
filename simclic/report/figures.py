"""A Figure and the results -> lines in a picture: SVG, PNG, and the CSV of its points."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from simclic.data import FACTS
from simclic.report.tables import of_jobs
from simclic.spec import Figure

MARKERS = "os^Dv<>"  # a line is told by its marker too, not by colour alone


def points(figure: Figure, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per point: protocol, line, x, mean error, standard deviation over seeds, seeds."""
    parts = []
    for protocol in figure.protocols:
        found = of_jobs(frame, [job for job in figure.jobs if job[1] == protocol])
        found = found[found["error"].notna()]
        if found.empty:
            continue
        rows = found.groupby([figure.lines, figure.x])["error"].agg(["mean", "std", "count"]).reset_index()
        parts.append(rows.assign(protocol=protocol.title))
    columns = {figure.lines: "line", figure.x: "x", "mean": "error", "std": "std", "count": "seeds"}
    named = pd.concat(parts).rename(columns=columns) if parts else pd.DataFrame(columns=[*columns.values(), "protocol"])
    return named[["protocol", "line", "x", "error", "std", "seeds"]].sort_values(["protocol", "line", "x"], ignore_index=True)


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
    for marker, (line, rows) in zip(MARKERS, drawn.groupby("line"), strict=False):
        label = FACTS[str(line)].title if figure.lines == "dataset" else f"{line} {figure.lines.replace('_', ' ')}"
        ax.errorbar(
            rows["x"],
            rows["error"],
            yerr=rows["std"].fillna(0) if (rows["seeds"] > 1).any() else None,
            marker=marker,
            label=label,
        )
    if figure.logx:
        ax.set_xscale("log")
    ticks = sorted(drawn["x"].unique())
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_ylim(bottom=0)
    ax.legend()
