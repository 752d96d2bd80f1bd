"""A table ready to be printed: cells in rows in groups in blocks, with the paper's marks or with marks that images support."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from simclic.experiment import Exhibit
from simclic.report.noise import Measured, compute_difference

DASH = "–"


@dataclass
class Cell:
    """One value. mark: "best", "second" or "". runs: names of the Runs behind it. measure: its noise, if known."""

    text: str = DASH
    value: float = math.nan
    mark: str = ""
    runs: tuple[str, ...] = ()
    measure: Callable[[], Measured | None] = lambda: None


@dataclass
class Row:
    """One line of cells under a name."""

    label: str
    cells: list[Cell]


@dataclass
class Group:
    """Rows under a title that says where they come from.

    rivals: with whom they are compared to be marked: each other, nobody, or those of the group before as well.
    """

    title: str
    rows: list[Row]
    rivals: Literal["own", "none", "before"] = "own"


@dataclass
class Sheet:
    """A table ready to be printed: blocks of groups of rows, one block per stage or protocol."""

    exhibit: Exhibit
    corner: str
    header: list[str]
    blocks: list[tuple[str, list[Group]]]
    remarks: tuple[str, ...] = ()  # what explains its dashes
    apart: bool = False  # whether the paper's rows are left out, as no column is common

    def with_supported_marks(self) -> Self:
        """Return the sheet with every entry marked that is not distinguishable from the best of its column and group."""
        blocks = []
        for heading, groups in self.blocks:
            marked = []
            for before, group in zip([None, *groups], groups, strict=False):
                above = before.rows if before and group.rivals == "before" else []
                rows = group.rows if group.rivals == "none" else mark_supported([*above, *group.rows])[len(above) :]
                marked.append(replace(group, rows=rows))
            blocks.append((heading, marked))
        return replace(self, blocks=blocks)


def mark_best(rows: Sequence[Row]) -> None:
    """Mark best and second best of every column on printed precision, ties included, as Table 2 does."""
    for column in zip(*(row.cells for row in rows), strict=True):
        values = sorted({round(cell.value, 2) for cell in column if math.isfinite(cell.value)})
        for cell in column:
            if math.isfinite(cell.value):
                cell.mark = {0: "best", 1: "second"}.get(values.index(round(cell.value, 2)), "")


def mark_supported(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with every entry marked best that is not distinguishable from the best of its column (see noise).

    An entry of unknown noise shares the mark only if it equals the best in print.
    """
    columns = [_mark_supported_column(column) for column in zip(*(row.cells for row in rows), strict=True)]
    return [Row(row.label, list(cells)) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]


def _mark_supported_column(column: Sequence[Cell]) -> list[Cell]:
    best = min((cell for cell in column if math.isfinite(cell.value)), key=lambda cell: cell.value, default=None)
    if best is None:
        return list(column)
    best_measured, marked = best.measure(), []
    for cell in column:
        shared = round(cell.value, 2) == round(best.value, 2)
        if not shared and math.isfinite(cell.value) and best_measured and (measured := cell.measure()):
            gap = compute_difference(measured, best_measured)
            shared = gap is not None and not gap.clear and not math.isnan(gap.p)
        marked.append(replace(cell, mark="best" if shared else ""))
    return marked
