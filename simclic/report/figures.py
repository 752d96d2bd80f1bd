"""Draw a Figure from results: PDF, SVG, PNG, and a CSV of its points."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from simclic import data
from simclic.experiment import Figure, Job, Protocol
from simclic.report.escape import escape_csv
from simclic.report.pictures import METADATA, write_pictures
from simclic.report.results import Results, keep_comparable
from simclic.report.search import select_shown

BARS_NOTE = "Bars: one standard deviation over seeds; with one seed, one standard error over the test images."
# Lines also differ in marker and dashes, for grey print and colour-blind readers.
LINE_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1))), ("<", (0, (3, 1, 1, 1))), (">", (0, (1, 1))))
LONGEST_NAME = 40  # characters of a line's name in a legend beside the panels
Line = tuple[str, list[float], list[float], list[float]]  # label, x, errors, bars
POINT_COLUMNS = ["protocol", "line", "x", "error", "bar", "seeds", "runs"]


def compute_points(figure: Figure, results: Results) -> pd.DataFrame:
    """Return one row per point: protocol, line, x, mean error, bar, seeds, and the names of its runs.

    bar: standard deviation over seeds; with one seed, the standard error over the test images, sqrt(e (100 - e) / n).
    """
    points: list[tuple[Any, ...]] = []
    labels = list(dict.fromkeys(run.label for run in figure.runs))  # as declared; values of a field are sorted

    def order(cell: tuple[tuple[Any, Protocol], list[Job]]) -> tuple[Any, ...]:
        ((line, x), protocol), _ = cell
        return figure.plain_protocols.index(protocol), labels.index(line) if figure.lines == "label" else line, x

    for ((line, x), protocol), jobs in sorted(figure.group_by_place(select_shown(figure, results)).items(), key=order):
        if rows := keep_comparable(results.rows_of(jobs)):
            errors, tests = [row["error"] for row in rows], rows[0]["sizes"]["test"]
            error = fmean(errors)
            bar = stdev(errors) if len(errors) > 1 else (error * (100 - error) / tests) ** 0.5
            names = " ".join(row["name"] for row in rows)
            points.append((protocol.title, line, x, error, bar, len(errors), names))
    return pd.DataFrame(points, columns=POINT_COLUMNS)


def draw_figure(figure: Figure, drawn: pd.DataFrame, folder: Path) -> list[str]:
    """Write NAME.pdf, .svg, .png and .csv of these points. Return their names."""
    panels = [
        (protocol.title, _list_lines(figure, drawn[drawn["protocol"] == protocol.title])) for protocol in figure.plain_protocols
    ]
    pictures = write_pictures(folder / figure.name, tuple(METADATA), draw_panels, panels, figure.xlabel or figure.x, figure.logx)
    words = drawn.select_dtypes(exclude="number").columns
    drawn = drawn.assign(**{name: drawn[name].map(escape_csv) for name in words})
    drawn.to_csv(folder / f"{figure.name}.csv", index=False, float_format="%.6g")
    return [*(path.name for path in pictures), f"{figure.name}.csv"]


def _list_lines(figure: Figure, drawn: pd.DataFrame) -> list[Line]:
    return [
        (format_line_label(figure, line), rows["x"].tolist(), rows["error"].tolist(), rows["bar"].tolist())
        for line, rows in drawn.groupby("line", sort=False)
    ]


def format_line_label(figure: Figure, line: object) -> str:
    """Return the legend of a line: a data set as printed, a row label, or the value of another field with its name."""
    if figure.lines == "label":
        return str(line)
    return data.title(str(line)) if figure.lines == "dataset" else f"{line} {figure.lines.replace('_', ' ')}"


def draw_panels(canvas: Any, panels: Sequence[tuple[str, list[Line]]], xlabel: str, logx: bool) -> None:
    """Draw the lines of each protocol, given with its title, into a panel of their own."""
    from matplotlib import rc_context

    most = max((lines for _, lines in panels), key=len)
    beside = len(most) > len(LINE_STYLES)  # a legend of so many lines would hide them
    canvas.set_size_inches(4.2 * len(panels) + 2.8 * beside, max(3.4, 0.2 * len(most) * beside))
    with rc_context({"text.parse_math": False}):  # a name may hold anything
        axes = canvas.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, lines) in zip(axes, panels, strict=True):
            ax.set_title(title)
            ax.set_xlabel(xlabel)
            _draw_lines(ax, lines, logx)
            if lines and not beside:
                ax.legend().set_in_layout(False)  # a long name would leave no room for the axes
        axes[0].set_ylabel("Test error (%)")
        if beside:
            ax = axes[[lines for _, lines in panels].index(most)]
            handles, names = ax.get_legend_handles_labels()
            shown = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
            canvas.legend(handles, shown, loc="outside right upper", fontsize=9)


def _draw_lines(ax: Any, lines: list[Line], logx: bool) -> None:
    if not lines:
        ax.text(0.5, 0.5, "nothing run yet", ha="center", va="center", transform=ax.transAxes)
        return
    for i, (label, xs, errors, bars) in enumerate(lines):
        turn, n = i // len(LINE_STYLES), len(LINE_STYLES)  # colours begin again: other dashes and markers with each
        marker, dashes = LINE_STYLES[(i + 3 * turn) % n][0], LINE_STYLES[(i + turn) % n][1]
        ax.errorbar(xs, errors, yerr=bars, marker=marker, linestyle=dashes, label=label)
    if logx:
        ax.set_xscale("log")
    ticks = sorted({x for _, xs, _, _ in lines for x in xs})
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.xaxis.minorticks_off()
    ax.set_ylim(0, 1.1 * max(error + bar for _, _, errors, bars in lines for error, bar in zip(errors, bars, strict=True)))
