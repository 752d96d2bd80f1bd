"""Draw a Figure from results: PDF, SVG, PNG, and a CSV of its points."""

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from simclic import data
from simclic.experiment import Figure, Job
from simclic.report.escape import escape_csv
from simclic.report.results import Results, keep_comparable

BARS_NOTE = "Bars: one standard deviation over seeds; with one seed, one standard error over the test images."
# Lines also differ in marker and dashes, for grey print and colour-blind readers.
LINE_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1))), ("<", (0, (3, 1, 1, 1))), (">", (0, (1, 1))))
FORMATS = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}  # no dates, so that the bytes are reproducible
POINT_COLUMNS = ["protocol", "line", "x", "error", "bar", "seeds", "runs"]


def compute_points(figure: Figure, results: Results) -> pd.DataFrame:
    """Return one row per point: protocol, line, x, mean error, bar, seeds, and the names of its runs.

    bar: standard deviation over seeds; with one seed, the standard error over the test images, sqrt(e (100 - e) / n).
    """
    parts = []
    for protocol in figure.protocols:
        cells: dict[Any, list[Job]] = {}
        for job in figure.jobs:
            if job.protocol == protocol:
                cells.setdefault(figure.cell(job.run), []).append(job)
        results_frame = pd.DataFrame([row for jobs in cells.values() for row in keep_comparable(results.rows_of(jobs))])
        if results_frame.empty:
            continue
        results_frame = results_frame.assign(tests=[sizes["test"] for sizes in results_frame["sizes"]])
        rows = results_frame.groupby([figure.lines, figure.x]).agg(
            error=("error", "mean"), std=("error", "std"), seeds=("error", "count"), tests=("tests", "first"),
            runs=("name", " ".join),
        )  # fmt: skip
        rows["bar"] = rows["std"].fillna((rows["error"] * (100 - rows["error"]) / rows["tests"]) ** 0.5)
        rows = rows.reset_index(names=["line", "x"]).sort_values(["line", "x"])
        parts.append(rows.assign(protocol=protocol.title))
    drawn = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=POINT_COLUMNS)
    return drawn[POINT_COLUMNS]


def draw_figure(figure: Figure, drawn: pd.DataFrame, folder: Path, style: Path) -> list[str]:
    """Write NAME.pdf, .svg, .png and .csv of these points. Return their names."""
    salted, plain = mpl.rc_context({"svg.hashsalt": figure.name}), mpl.rc_context({"text.parse_math": False})
    with plt.style.context(style), salted, plain:  # a name may hold anything
        canvas, axes = plt.subplots(1, len(figure.protocols), figsize=(4.2 * len(figure.protocols), 3.4), squeeze=False)
        for ax, protocol in zip(axes[0], figure.protocols, strict=True):
            _draw_panel(ax, figure, drawn[drawn["protocol"] == protocol.title], protocol.title)
        axes[0][0].set_ylabel("Test error (%)")
        for kind, metadata in FORMATS.items():
            canvas.savefig(folder / f"{figure.name}.{kind}", metadata=metadata)
        plt.close(canvas)
    words = drawn.select_dtypes(exclude="number").columns
    drawn = drawn.assign(**{name: drawn[name].map(escape_csv) for name in words})
    drawn.to_csv(folder / f"{figure.name}.csv", index=False, float_format="%.6g")
    return [f"{figure.name}.{kind}" for kind in (*FORMATS, "csv")]


def format_line_label(figure: Figure, line: object) -> str:
    """Return the legend of a line: a data set as printed, or the value of another field with its name."""
    return data.title(str(line)) if figure.lines == "dataset" else f"{line} {figure.lines.replace('_', ' ')}"


def _draw_panel(ax: Axes, figure: Figure, drawn: pd.DataFrame, title: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(figure.xlabel or figure.x)
    if drawn.empty:
        ax.text(0.5, 0.5, "nothing run yet", ha="center", va="center", transform=ax.transAxes)
        return
    for (marker, dashes), (line, rows) in zip(cycle(LINE_STYLES), drawn.groupby("line"), strict=False):
        ax.errorbar(
            rows["x"], rows["error"], yerr=rows["bar"], marker=marker, linestyle=dashes, label=format_line_label(figure, line)
        )
    if figure.logx:
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(drawn["x"].unique())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_ylim(0, 1.1 * (drawn["error"] + drawn["bar"]).max())
    ax.legend().set_in_layout(False)  # a long name would leave no room for the axes
