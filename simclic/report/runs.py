"""A page per encoder: how its training went, epoch by epoch, what it is, and what became of it."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from simclic import files, store

CURVES = {
    "loss": "loss", "probe": "error of a cheap probe (%)", "rank": "effective rank of z", "spread": "spread of z",
    "cos(z, g(z))": "cos(z, g(z))", "lr": "learning rate",
}  # fmt: skip


def pages(found: pd.DataFrame, runs: Path, folder: Path, style: Path, html: Environment) -> list[dict[str, Any]]:
    """Write runs/NAME.html and .svg for every encoder behind these results.

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
        log = epochs(runs / str(name) / "log.jsonl")
        (folder / "runs").mkdir(exist_ok=True)
        if log:
            curves(log, folder / "runs" / f"{name}.svg", style)
        values = {"title": str(name), "row": row, "run": run, "record": record, "curves": bool(log)}
        page = html.get_template("run.html.j2").render(values)
        files.write_bytes(folder / "runs" / f"{name}.html", page.encode())
        rows.append(row)
    return rows


def epochs(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, without one that is being written."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def curves(log: list[dict[str, Any]], path: Path, style: Path) -> None:
    """Six small panels over the epochs."""
    with plt.style.context(style), mpl.rc_context({"svg.hashsalt": path.stem}):
        canvas, axes = plt.subplots(2, 3, figsize=(9, 4.6))
        for ax, (key, label) in zip(axes.flat, CURVES.items(), strict=True):
            drawn = [(row["epoch"], row[key]) for row in log if row.get(key) is not None]
            if drawn:
                ax.plot(*zip(*drawn, strict=True), marker="o" if len(drawn) < 30 else "")
            ax.set_title(label)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.ticklabel_format(axis="y", useOffset=False)
        for ax in axes[1]:
            ax.set_xlabel("epoch")
        canvas.savefig(path, metadata={"Date": None})
        plt.close(canvas)
