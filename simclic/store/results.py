"""All results under a folder as one table: a row each, with where it is from."""

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Protocol, Run
from simclic.store.result_file import SCHEMA, Scored
from simclic.store.run_files import DIVERGED, LOG
from simclic.store.run_folder import PARTIAL, RunFolder, run_folders

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["DIVERGED", "LOG", "PARTIAL", "SCHEMA", "Scored", "results", "rows"]

RUNS, Broken, read_json, write_json = files.RUNS, files.Broken, files.read_json, files.write_json

# What of a result goes into the table, after what names it.
NAMES = ("name", "label", "stage", "protocol", "title")
KEPT = ("error", "metric", "chosen", "sizes", "data", "seconds", "device", "threads", "versions", "commit")
WHERE = ("job", "node", "collapsed")  # what not every result holds


def results(runs: Path = RUNS, known: list[dict[str, Any]] | None = None) -> "pd.DataFrame":
    """Every result as one row: all fields of its Run, `name`, `label`, `stage`, `protocol` with its `title` and fields (`how`),
    `error`, `chosen`, how many values of l2 did not converge, and where from.

    A file that cannot be trusted is a row with `problem` set and no error. known: the rows, if they were read before.
    """
    import pandas as pd

    names = [*NAMES, *(f.name for f in fields(Run)), *KEPT, *WHERE, "how", "unconverged", "problem", "path"]
    return pd.DataFrame(rows(runs) if known is None else known, columns=names)


def rows(runs: Path = RUNS) -> list[dict[str, Any]]:
    """The rows of `results` as they were recorded; one that cannot be trusted has what is known of it and no more."""
    return [_row(folder, path) for folder in run_folders(runs) for path in folder.result_paths()]


def _row(folder: RunFolder, path: Path) -> dict[str, Any]:
    try:
        run, protocol, found = folder.read_any_result(path)
    except InputError as e:
        return {
            "name": folder.name, "stage": path.stem.split("-")[0], "protocol": path.stem, "title": "", "error": math.nan,
            **dict.fromkeys(WHERE, ""), "how": {}, "unconverged": 0, "problem": str(e), "path": str(path),
        }  # fmt: skip
    row = dict(zip(NAMES, (run.name, run.label, protocol.stage, protocol.name, protocol.title), strict=True))
    more = {k: found.get(k, "") for k in WHERE} | {"how": protocol.values, "unconverged": found.get("unconverged", 0)}
    return {**row, **run.values, **{k: found[k] for k in KEPT}, **more, "problem": "", "path": str(path)}


# Names from before RunFolder, until nobody uses them any more.


def folder(runs: Path, run: Run) -> Path:
    return RunFolder(runs, run).path


def enter(runs: Path, run: Run, data: str) -> Path:
    return RunFolder(runs, run).create(data).path


def agrees(runs: Path, run: Run, data: str = "") -> bool:
    return RunFolder(runs, run).check_run_json(data)


def result_path(runs: Path, run: Run, protocol: Protocol) -> Path:
    return RunFolder(runs, run).result_path(protocol)


def result(runs: Path, run: Run, protocol: Protocol, verify: bool = True) -> dict[str, Any] | None:
    return RunFolder(runs, run).read_result(protocol, verify)


def read_result(path: Path) -> dict[str, Any] | None:
    return RunFolder(path.parents[1], path.parent.name).read_any_result(path)[2] if path.exists() else None


def write_result(runs: Path, run: Run, protocol: Protocol, scored: Scored, **measured: Any) -> None:
    RunFolder(runs, run).write_result(protocol, scored, **measured)


def partial(runs: Path, run: Run, protocol: Protocol, of: str = "") -> dict[str, Any]:
    return RunFolder(runs, run).partial_result(protocol, of)


def keep(runs: Path, run: Run, protocol: Protocol, of: str, finished: dict[str, Any]) -> None:
    RunFolder(runs, run).write_partial_result(protocol, of, finished)


def predictions(runs: Path, run: str, protocol: str) -> "tuple[np.ndarray, np.ndarray]":
    return RunFolder(runs, run).read_predictions(protocol)


def epochs(folder: Path) -> list[dict[str, Any]]:
    return RunFolder(folder.parent, folder.name).log_rows()


def fail(runs: Path, run: Run, stage: str, reason: str) -> None:
    RunFolder(runs, run).record_failure(stage, reason)


def failure(runs: Path, run: Run, stage: str = "") -> str:
    return RunFolder(runs, run).failure(stage)


def failed(runs: Path, run: Run, stage: str) -> Path:
    return RunFolder(runs, run).failure_path(stage)
