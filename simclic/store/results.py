"""All results under a folder as one table: a row each, with where it is from."""

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Run
from simclic.store.result_file import is_superseded
from simclic.store.run_folder import RunFolder, run_folders

if TYPE_CHECKING:
    import pandas as pd

# What of a result goes into the table, after what names it.
NAMES = ("name", "label", "stage", "protocol", "title")
RECORDED = ("error", "metric", "chosen", "sizes", "data", "seconds", "device", "threads", "versions", "commit")
OPTIONAL = ("job", "node", "collapsed")  # what not every result holds


def results(runs: Path = files.RUNS, rows: list[dict[str, Any]] | None = None) -> "pd.DataFrame":
    """Every result as one row: all fields of its Run, `name`, `label`, `stage`, `protocol` with its `title` and fields (`how`),
    `error`, `chosen`, how many values of l2 did not converge, whether its solver is superseded, and where from.

    A file that cannot be trusted is a row with `problem` set and no error. known: the rows, if they were read before.
    """
    import pandas as pd

    names = [*NAMES, *(f.name for f in fields(Run)), *RECORDED, *OPTIONAL, "how", "unconverged", "superseded", "problem", "path"]
    return pd.DataFrame(list_result_rows(runs) if rows is None else rows, columns=names)


def list_result_rows(runs: Path = files.RUNS) -> list[dict[str, Any]]:
    """The rows of `results` as they were recorded; one that cannot be trusted has what is known of it and no more."""
    return [_result_row(folder, path) for folder in run_folders(runs) for path in folder.result_paths()]


def _result_row(folder: RunFolder, path: Path) -> dict[str, Any]:
    try:
        run, protocol, result = folder.read_any_result(path)
    except InputError as e:
        return {
            "name": folder.name, "stage": path.stem.split("-")[0], "protocol": path.stem, "title": "", "error": math.nan,
            **dict.fromkeys(OPTIONAL, ""), "how": {}, "unconverged": 0, "superseded": False, "problem": str(e), "path": str(path),
        }  # fmt: skip
    row = dict(zip(NAMES, (run.name, run.label, protocol.stage, protocol.name, protocol.title), strict=True))
    more = {k: result.get(k, "") for k in OPTIONAL} | {"how": protocol.values, "unconverged": result.get("unconverged", 0)}
    more["superseded"] = is_superseded(protocol, result)
    return {**row, **run.values, **{k: result[k] for k in RECORDED}, **more, "problem": "", "path": str(path)}
