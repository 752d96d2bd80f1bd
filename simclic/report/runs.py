"""A page per encoder: how its training went, epoch by epoch, what it is, and what became of it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from simclic import files, store
from simclic.report.heat import heat

CURVES = {
    "loss": "loss", "probe": "error of a cheap probe (%)", "rank": "effective rank of z", "spread": "spread of z",
    "cos(z, g(z))": "cos(z, g(z))", "lr": "learning rate",
}  # fmt: skip
WIDTH, HEIGHT = 260, 110  # of a panel's frame


def pages(found: pd.DataFrame, runs: Path, folder: Path, html: Environment) -> list[dict[str, Any]]:
    """Write runs/NAME.html for every encoder behind these results.

    Returns a row for each: name, last epoch, seconds, errors, and whether it collapsed.
    """
    rows = []
    for name, results in found.groupby("name", sort=True):
        try:
            record = store.read_json(runs / str(name) / "pretrain.json") or {}
            run = (store.read_json(runs / str(name) / "run.json") or {}).get("run", {})
        except store.Broken:
            record, run = {}, {}
        results = results.sort_values(["stage", "title"], ascending=[False, True])
        errors = dict(zip(results["title"], results["error"], strict=True))
        row = {"name": name, "last": record.get("last", {}), "seconds": record.get("seconds"), "errors": errors}
        row["collapsed"] = record.get("collapsed", "")
        panels = curves(store.epochs(runs / str(name)))
        linear = results[results["stage"] == "linear"]
        probes = [probe(title, Path(path)) for title, path in zip(linear["title"], linear["path"], strict=True)]
        probes = [panel for panel in probes if panel]
        tuned = results[results["stage"] == "finetune"]
        heats = [grid(title, Path(path)) for title, path in zip(tuned["title"], tuned["path"], strict=True)]
        (folder / "runs").mkdir(exist_ok=True)
        values = {
            "title": str(name),
            "row": row,
            "run": run,
            "record": record,
            "panels": panels,
            "probes": probes,
            "heats": heats,
            "size": (WIDTH, HEIGHT),
        }
        page = html.get_template("run.html.j2").render(values)
        files.write_bytes(folder / "runs" / f"{name}.html", page.encode())
        rows.append(row)
    return rows


def curves(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A panel per curve: title, points of a line in a frame of WIDTH x HEIGHT, and what its edges stand for.

    A figure of matplotlib takes half a second each; hundreds of runs would make a report of seconds one of minutes.
    """
    panels = []
    for key, title in CURVES.items():
        drawn = [(row["epoch"], row[key]) for row in log if row.get(key) is not None]
        if not drawn:
            continue
        last = log[-1]["epoch"]
        panels.append(_panel(title, [(epoch - 1) / max(1, last - 1) for epoch, _ in drawn], [value for _, value in drawn]))
        panels[-1] |= {"left": "1", "right": f"{last} epochs"}
    return panels


def probe(title: str, path: Path) -> dict[str, Any] | None:
    """The panel of a linear probe: validation error against l2, the value that was chosen, and those that did not converge."""
    found = store.read_json(path, verify=False) or {}
    curve = sorted(found["curve"], key=lambda row: row["l2"])
    if not curve:
        return None
    low, high = (math.log10(curve[i]["l2"]) for i in (0, -1))
    panel = _panel(title, [(math.log10(row["l2"]) - low) / (high - low or 1) for row in curve], [row["error"] for row in curve])
    rows = list(zip(curve, panel["points"].split(), strict=True))
    chosen = found["chosen"]["l2"]
    return panel | {
        "left": f"{curve[0]['l2']:.0e}", "right": f"l2 = {curve[-1]['l2']:.0e}", "l2": f"{chosen:.3g}",
        "chosen": next((p.split(",") for row, p in rows if row["l2"] == chosen), None),
        "open": [p.split(",") for row, p in rows if row.get("converged") is False],
    }  # fmt: skip


def grid(title: str, path: Path) -> dict[str, Any]:
    """The heat map of a fine-tuning grid, as a table whose cells are shaded."""
    found = store.read_json(path, verify=False) or {}
    return {"title": title, "heat": heat(found), "steps": found["protocol"]["steps"], "metric": found["metric"]}


def _panel(title: str, xs: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """A curve in its frame. xs: from 0, the left edge, to 1."""
    low, high = min(values), max(values)
    ys = [HEIGHT * (1 - (value - low) / (high - low or 1)) for value in values]
    points = " ".join(f"{WIDTH * x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return {"title": title, "points": points, "low": _short(low), "high": _short(high), "open": [], "chosen": None}


def _short(value: float) -> str:
    return f"{value:.6g}" if abs(value) >= 1e-3 else f"{value:.2g}"
