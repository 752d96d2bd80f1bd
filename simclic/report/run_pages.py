"""A page per encoder: its training curves, its fields, and its results."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from simclic import files
from simclic.data import title as data_title
from simclic.experiment import Exhibit, Run
from simclic.report.finetune_grid import build_grid_table
from simclic.report.formats import Site
from simclic.report.results import Results
from simclic.store.run_folder import RunFolder

CURVES = {
    "loss": "loss", "probe": "error of a cheap probe (%)", "knn": "error of kNN on val (%)",
    "rank": "effective rank of z", "spread": "spread of z", "lr": "learning rate",
}  # fmt: skip
NOT_WATCHED = (*CURVES, "epoch", "rank_of", "images/s")  # any other float in the log is something that its method watches
WIDTH, HEIGHT = 260, 110  # of the frame of a panel


def write_run_pages(frame: pd.DataFrame, exhibits: Sequence[Exhibit], results: Results, site: Site) -> list[dict[str, Any]]:
    """Write runs/NAME.html for every encoder behind these results.

    Returns a row for each: name, last epoch, seconds, errors, and whether it collapsed.
    """
    rows, other_seeds = [], _find_other_seeds(frame)
    pages: dict[str, list[tuple[str, str]]] = {}  # name of a Run -> the pages and titles of its exhibits
    for exhibit in exhibits:
        for run_name in dict.fromkeys(job.run.name for job in exhibit.jobs):
            pages.setdefault(run_name, []).append((f"{exhibit.name}.html", exhibit.title))
    for name, group in frame.groupby("name", sort=True):
        folder, broken = RunFolder(results.runs, str(name)), ""
        try:
            record = folder.encoder_record() or {}
            run = (folder.run_record() or {}).get("run", {})
        except files.Broken as e:
            record, run, broken = {}, {}, str(e)
        measured = group.sort_values(["stage", "title"], ascending=[False, True]).to_dict("records")
        measured = [r | {"title": title_result(r["title"], r["how"].get("on", ""))} for r in measured]
        row = {
            "name": name, "last": record.get("last", {}), "seconds": record.get("seconds"),
            "collapsed": record.get("collapsed", ""), "errors": {r["title"]: r["error"] for r in measured},
        }  # fmt: skip
        curves = [(r["stage"], r["title"], files.read_json(Path(r["path"]), verify=False) or {}) for r in measured]
        site.write_page(
            f"runs/{name}.html", "run.html.j2", title=str(name), row=row, run=run, record=record, results=measured, broken=broken,
            panels=build_curve_panels(folder.log_rows()), size=(WIDTH, HEIGHT),
            probes=[build_probe_panel(title, r) for stage, title, r in curves if stage == "linear" and r["curve"]],
            grids=[
                {"title": title, "table": build_grid_table(r), "steps": r["protocol"]["steps"], "metric": r["metric"]}
                for stage, title, r in curves if stage == "finetune"
            ],
            exhibits=pages.get(str(name), []), seeds=other_seeds.get(str(name), []),
        )  # fmt: skip
        rows.append(row)
    return rows


def title_result(title: str, on: str) -> str:
    """Return the title of a protocol, with the data set that it evaluates on if that is not the Run's own."""
    return f"{title}, on {data_title(on)}" if on else title


def _find_other_seeds(frame: pd.DataFrame) -> dict[str, list[tuple[int, str]]]:
    """Return, by the name of a Run, seed and name of the others that differ from it in their seed alone."""
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    names = [f.name for f in fields(Run) if f.name != "seed"]
    for row in frame.drop_duplicates("name").to_dict("records"):
        groups.setdefault(tuple(str(row[n]) for n in names), []).append((int(row["seed"]), str(row["name"])))
    return {name: sorted(pair for pair in group if pair[1] != name) for group in groups.values() for _, name in group}


def build_curve_panels(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a panel per curve: title, points of a line in a frame of WIDTH x HEIGHT, and what its edges stand for.

    Drawn as SVG by the page: matplotlib takes half a second per figure, which is minutes for hundreds of runs.
    """
    panels = []
    watched = {key: key for key, value in log[-1].items() if key not in NOT_WATCHED and isinstance(value, float)} if log else {}
    for key, title in (CURVES | watched).items():
        drawn = [(row["epoch"], row[key]) for row in log if row.get(key) is not None]
        if not drawn:
            continue
        last, is_sparse = log[-1]["epoch"], len(drawn) < len(log)
        drawn = drawn[: -1 : max(1, len(drawn) // WIDTH)] + drawn[-1:]  # a point per pixel
        panels.append(_build_panel(title, [(epoch - 1) / max(1, last - 1) for epoch, _ in drawn], [value for _, value in drawn]))
        panels[-1] |= {"left": "1", "right": f"{last} epochs"}
        panels[-1] |= {"open": [point.split(",") for point in panels[-1]["points"].split()]} if is_sparse else {}
    return panels


def build_probe_panel(title: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the panel of a linear probe: validation error against l2, the chosen l2, and those that did not converge."""
    curve = sorted(result["curve"], key=lambda row: row["l2"])
    low, high = (math.log10(curve[i]["l2"]) for i in (0, -1))
    xs = [(math.log10(row["l2"]) - low) / (high - low or 1) for row in curve]
    panel = _build_panel(title, xs, [row["error"] for row in curve])
    points = [(row, point.split(",")) for row, point in zip(curve, panel["points"].split(), strict=True)]
    chosen = result["chosen"]["l2"]
    return panel | {
        "left": f"{curve[0]['l2']:.0e}", "right": f"l2 = {curve[-1]['l2']:.0e}", "l2": f"{chosen:.3g}",
        "chosen": next((point for row, point in points if row["l2"] == chosen), None),
        "open": [point for row, point in points if row.get("converged") is False],
    }  # fmt: skip


def _build_panel(title: str, xs: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """Return a curve in its frame. xs: from 0, the left edge, to 1."""
    low, high = min(values), max(values)
    ys = [HEIGHT * (1 - (value - low) / (high - low or 1)) for value in values]
    points = " ".join(f"{WIDTH * x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return {"title": title, "points": points, "low": _format_edge(low), "high": _format_edge(high), "open": [], "chosen": None}


def _format_edge(value: float) -> str:
    text = f"{value:z.6g}"
    return text if len(text) <= 8 else f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2g}"
