"""Which of three numbers there is of each system of Table 2: stored, its official checkpoint measured again, trained here."""

from collections.abc import Sequence
from typing import Any

from simclic.data import title
from simclic.experiment import METHODS as TRAINED
from simclic.experiment.baselines import METHODS
from simclic.report.cell_keys import Cells

KINDS = ("encoder", "trained")


def list_three_numbers(rows: Sequence[dict[str, Any]], printed: Cells) -> list[dict[str, str]]:
    """Return for each of the 13 systems the data sets of which there is each number; no rows if only stored ones are there.

    rows: results, with the fields of their Runs. printed: the paper's numbers.
    """
    stored = {(key.at, key.dataset) for key in printed if key.exhibit == "table2"}
    there = dict[tuple[str, str], dict[str, None]]()
    for row in rows:
        kind, name = ("trained", row["method"]) if row["epochs"] else ("encoder", row["init"].removesuffix("-as-stored"))
        there.setdefault((kind, name), {})[title(row["on"])] = None
    if not any(name in METHODS for _, name in there):
        return []
    return [
        {
            "system": system, "stored": describe_data_sets([dataset for at, dataset in stored if at == system]),
            **{kind: describe_data_sets(list(there.get((kind, name), ()))) for kind in KINDS}, "note": TRAINED[name].note,
        }
        for name, system in METHODS.items()
    ]  # fmt: skip


def describe_data_sets(names: list[str]) -> str:
    """Return the names of data sets, or their number if there are many, in words."""
    return f"{len(set(names))} data sets" if len(set(names)) > 2 else ", ".join(sorted(set(names))) or "–"
