"""A page per encoder: how its training went, epoch by epoch, what it is, and what became of it."""

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from simclic import files, store

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
        errors = dict(zip(results["stage"], results["error"], strict=True))
        row = {"name": name, "last": record.get("last", {}), "seconds": record.get("seconds"), "errors": errors}
        row["collapsed"] = record.get("collapsed", "")
        panels = curves(store.epochs(runs / str(name)))
        (folder / "runs").mkdir(exist_ok=True)
        values = {"title": str(name), "row": row, "run": run, "record": record, "panels": panels, "size": (WIDTH, HEIGHT)}
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
        last, low, high = log[-1]["epoch"], min(v for _, v in drawn), max(v for _, v in drawn)
        xs = [WIDTH * (epoch - 1) / max(1, last - 1) for epoch, _ in drawn]
        ys = [HEIGHT * (1 - (value - low) / (high - low or 1)) for _, value in drawn]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        panels.append({"title": title, "points": points, "low": _short(low), "high": _short(high), "last": last})
    return panels


def _short(value: float) -> str:
    return f"{value:.6g}" if abs(value) >= 1e-3 else f"{value:.2g}"
