"""A page per encoder: how its training went, epoch by epoch, what it is, and what became of it."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from simclic import files
from simclic.experiment import Exhibit, Run
from simclic.report.finetune_grid import build_grid_table
from simclic.report.formats import Site
from simclic.report.results import Results
from simclic.store.run_folder import RunFolder

CURVES = {
    "loss": "loss", "probe": "error of a cheap probe (%)", "rank": "effective rank of z", "spread": "spread of z",
    "lr": "learning rate",
}  # fmt: skip
NOT_WATCHED = (*CURVES, "epoch", "rank_of", "images/s")  # whatever else a row of the log holds, its method watches
WIDTH, HEIGHT = 260, 110  # of a panel's frame


def write_run_pages(frame: pd.DataFrame, exhibits: Sequence[Exhibit], results: Results, site: Site) -> list[dict[str, Any]]:
    """Write runs/NAME.html for every encoder behind these results.

    Returns a row for each: name, last epoch, seconds, errors, and whether it collapsed.
    """
    rows, stands, kin = [], _list_exhibits_by_run(exhibits), _find_other_seeds(frame)
    for name, group in frame.groupby("name", sort=True):
        folder, broken = RunFolder(results.runs, str(name)), ""
        try:
            record = folder.encoder_record() or {}
            run = (folder.run_record() or {}).get("run", {})
        except files.Broken as e:
            record, run, broken = {}, {}, str(e)
        group = group.sort_values(["stage", "title"], ascending=[False, True])
        measured = group.to_dict("records")
        row = {
            "name": name, "last": record.get("last", {}), "seconds": record.get("seconds"),
            "collapsed": record.get("collapsed", ""), "errors": {r["title"]: r["error"] for r in measured},
        }  # fmt: skip
        linear = [r for r in measured if r["stage"] == "linear"]
        tuned = [r for r in measured if r["stage"] == "finetune"]
        site.write_page(
            f"runs/{name}.html", "run.html.j2", title=str(name), row=row, run=run, record=record, results=measured, broken=broken,
            panels=build_curve_panels(folder.log_rows()), size=(WIDTH, HEIGHT),
            probes=[panel for r in linear if (panel := build_probe_panel(r["title"], Path(r["path"])))],
            heats=[read_grid(r["title"], Path(r["path"])) for r in tuned],
            stands=stands.get(str(name), []), seeds=kin.get(str(name), []),
        )  # fmt: skip
        rows.append(row)
    return rows


def _list_exhibits_by_run(exhibits: Sequence[Exhibit]) -> dict[str, list[tuple[str, str]]]:
    """By the name of a Run, the exhibits in which it stands: page and title."""
    pages_by_run: dict[str, list[tuple[str, str]]] = {}
    for exhibit in exhibits:
        for run in dict.fromkeys(job.run for job in exhibit.jobs):
            pages_by_run.setdefault(run.name, []).append((f"{exhibit.name}.html", exhibit.title))
    return pages_by_run


def _find_other_seeds(frame: pd.DataFrame) -> dict[str, list[tuple[int, str]]]:
    """By the name of a Run, the others that differ from it in their seed alone: seed and name."""
    alike: dict[tuple[Any, ...], dict[str, int]] = {}
    names = [f.name for f in fields(Run) if f.name != "seed"]
    for row in frame.drop_duplicates("name").to_dict("records"):
        alike.setdefault(tuple(str(row[n]) for n in names), {})[str(row["name"])] = int(row["seed"])
    return {n: sorted((s, m) for m, s in those.items() if m != n) for those in alike.values() for n in those if len(those) > 1}


def build_curve_panels(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A panel per curve: title, points of a line in a frame of WIDTH x HEIGHT, and what its edges stand for.

    A figure of matplotlib takes half a second each; hundreds of runs would make a report of seconds one of minutes.
    """
    panels = []
    watched = {key: key for key, value in log[-1].items() if key not in NOT_WATCHED and isinstance(value, float)} if log else {}
    for key, title in (CURVES | watched).items():
        drawn = [(row["epoch"], row[key]) for row in log if row.get(key) is not None]
        if not drawn:
            continue
        last = log[-1]["epoch"]
        drawn = drawn[: -1 : max(1, len(drawn) // WIDTH)] + drawn[-1:]  # a point per pixel
        panels.append(_build_panel(title, [(epoch - 1) / max(1, last - 1) for epoch, _ in drawn], [value for _, value in drawn]))
        panels[-1] |= {"left": "1", "right": f"{last} epochs"}
    return panels


def build_probe_panel(title: str, path: Path) -> dict[str, Any] | None:
    """The panel of a linear probe: validation error against l2, the value that was chosen, and those that did not converge."""
    result = files.read_json(path, verify=False) or {}
    curve = sorted(result["curve"], key=lambda row: row["l2"])
    if not curve:
        return None
    low, high = (math.log10(curve[i]["l2"]) for i in (0, -1))
    panel = _build_panel(
        title, [(math.log10(row["l2"]) - low) / (high - low or 1) for row in curve], [row["error"] for row in curve]
    )
    rows = list(zip(curve, panel["points"].split(), strict=True))
    chosen = result["chosen"]["l2"]
    return panel | {
        "left": f"{curve[0]['l2']:.0e}", "right": f"l2 = {curve[-1]['l2']:.0e}", "l2": f"{chosen:.3g}",
        "chosen": next((p.split(",") for row, p in rows if row["l2"] == chosen), None),
        "open": [p.split(",") for row, p in rows if row.get("converged") is False],
    }  # fmt: skip


def read_grid(title: str, path: Path) -> dict[str, Any]:
    """The heat map of a fine-tuning grid, as a table whose cells are shaded."""
    result = files.read_json(path, verify=False) or {}
    return {"title": title, "heat": build_grid_table(result), "steps": result["protocol"]["steps"], "metric": result["metric"]}


def _build_panel(title: str, xs: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """A curve in its frame. xs: from 0, the left edge, to 1."""
    low, high = min(values), max(values)
    ys = [HEIGHT * (1 - (value - low) / (high - low or 1)) for value in values]
    points = " ".join(f"{WIDTH * x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return {"title": title, "points": points, "low": _format_edge(low), "high": _format_edge(high), "open": [], "chosen": None}


def _format_edge(value: float) -> str:
    text = f"{value:.6g}"
    return text if len(text) <= 8 else f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2g}"
