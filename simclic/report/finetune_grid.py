"""A fine-tuning grid as a table: validation error per learning rate and weight decay, divergence, and the chosen setting."""

import math
from typing import Any, NamedTuple


class GridCell(NamedTuple):
    """One setting. heat: 0 for the lowest error of the grid, 1 for the highest, None without one. diverged: at which step."""

    text: str
    heat: float | None
    chosen: bool
    diverged: int = 0


class GridTable(NamedTuple):
    """A grid as a table: the weight decay of each column, and a row of cells per learning rate."""

    decays: list[str]
    rows: list[tuple[str, list[GridCell]]]


def build_grid_table(result: dict[str, Any]) -> GridTable:
    """Return the grid of a fine-tuning result in rising order; a setting without a result is an empty cell."""
    curve, chosen = {(row["lr"], row["decay"]): row for row in result["curve"]}, result["chosen"]
    errors = [row["error"] for row in curve.values() if row["error"] is not None]
    low, high = min(errors, default=0.0), max(errors, default=0.0)

    def build_cell(lr: float, decay: float) -> GridCell:
        row = curve.get((lr, decay))
        if row is None:
            return GridCell("", None, False)
        if row["error"] is None:
            return GridCell("diverged", None, False, row.get("diverged") or 0)
        share = math.sqrt((row["error"] - low) / (high - low)) if high > low else 0.0  # makes low errors distinguishable
        return GridCell(f"{row['error']:.2f}", round(share, 3), (lr, decay) == (chosen["lr"], chosen["decay"]))

    rates, decays = (sorted({setting[i] for setting in curve}) for i in (0, 1))
    return GridTable(
        [format_short(d) if d else "none" for d in decays],
        [(format_short(lr), [build_cell(lr, d) for d in decays]) for lr in rates],
    )


def format_short(value: float) -> str:
    """Format with three digits at most: 0.1, 3.16e-05."""
    return f"{value:.3g}"
