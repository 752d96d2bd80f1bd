"""All results in a runs folder as one table, a row each."""

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Run
from simclic.store.result_file import CLASSES, is_superseded, trained_data
from simclic.store.run_folder import RunFolder, run_folders

if TYPE_CHECKING:
    import pandas as pd

# The columns of a result, after the columns that name it.
NAMES = ("name", "label", "stage", "protocol", "title", "on")
RECORDED = ("error", "metric", "chosen", "sizes", "data", "seconds", "device", "threads", "versions", "commit")
OPTIONAL = ("job", "node", "collapsed", "top-5", CLASSES)  # fields that old results do not have


def results(runs: Path = files.RUNS, rows: list[dict[str, Any]] | None = None) -> "pd.DataFrame":
    """Return every result as one row: the fields of its Run, `name`, `label`, `stage`, `protocol` with its `title`, the data set
    that it is measured `on` and its fields (`how`), `error`, `chosen`, the number of l2 values that did not converge, whether its
    solver is superseded, the digest of other data that its encoder was trained on, and its origin.

    A broken file becomes a row with `problem` set and no error. rows: those of `list_result_rows`, if they were read before.
    """
    import pandas as pd

    more = ("how", "unconverged", "superseded", "trained_data", "problem", "path")
    names = [*NAMES, *(f.name for f in fields(Run)), *RECORDED, *OPTIONAL, *more]
    return pd.DataFrame(list_result_rows(runs) if rows is None else rows, columns=names)


def list_result_rows(runs: Path = files.RUNS) -> list[dict[str, Any]]:
    """Return the rows of `results` as dicts; the row of a broken file has fewer fields."""
    return [_result_row(folder, path) for folder in run_folders(runs) for path in folder.result_paths()]


def _result_row(folder: RunFolder, path: Path) -> dict[str, Any]:
    try:
        run, protocol, result = folder.read_any_result(path)
    except InputError as e:
        return {
            "name": folder.name, "stage": path.stem.split("-")[0], "protocol": path.stem, "title": "", "on": "",
            "error": math.nan, **dict.fromkeys(OPTIONAL, ""), "how": {}, "unconverged": 0, "superseded": False,
            "trained_data": "", "problem": str(e), "path": str(path),
        }  # fmt: skip
    row = dict(
        zip(NAMES, (run.name, run.label, protocol.stage, protocol.name, protocol.title, protocol.on or run.dataset), strict=True)
    )
    return {
        **row, **run.values, **{k: result[k] for k in RECORDED}, **{k: result.get(k, "") for k in OPTIONAL},
        "how": protocol.values, "unconverged": result.get("unconverged", 0), "superseded": is_superseded(protocol, result),
        "trained_data": trained_data(folder.run_record(), run, protocol), "problem": "", "path": str(path),
    }  # fmt: skip
