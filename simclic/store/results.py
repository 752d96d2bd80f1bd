"""Where things lie on disk: artefacts in, one tidy DataFrame out.

runs/<dataset>-<kind>-<hash>/ holds run.json (every field), pretrain.json beside backbone.safetensors, and one JSON per result
with its predictions beside it. Each file has one writer, is written to a temporary name, fsynced and renamed, and carries
a SHA-256 of its own content. A file that is not whole is reported, never read as a number and never overwritten.
"""

import hashlib
import io
import json
import math
import os
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import files, slurm
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Protocol, Run
from simclic.provenance import provenance
from simclic.weights import init_weights as start

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SCHEMA = 1
PARTIAL = 2  # of what is finished of a result; changed with how its rows are computed, too
LOG = "SIMCLIC_LOG"  # the environment's word for the file that a process's messages go to
DIVERGED = "diverged:"  # how the reason of a failure begins that is a finding

RUNS, Broken, read_json, write_json = files.RUNS, files.Broken, files.read_json, files.write_json

Scored = tuple[dict[str, Any], "np.ndarray", "np.ndarray"]  # what a result records; truth and scores of the test images

# What a result must hold, and of what kind.
RESULT: dict[str, type | tuple[type, ...]] = {
    "schema": int, "run": dict, "stage": str, "protocol": dict, "error": (int, float), "metric": str, "chosen": dict,
    "curve": list, "sizes": dict, "data": str, "seconds": (int, float), "device": str, "threads": int, "versions": dict,
    "commit": str, "predictions": str, "predictions_sha256": str,
}  # fmt: skip

# Which of that goes into the table of all results, after what names it.
NAMES = ("name", "label", "stage", "protocol", "title")
KEPT = ("error", "metric", "chosen", "sizes", "data", "seconds", "device", "threads", "versions", "commit")
WHERE = ("job", "node", "collapsed")  # what not every result holds


def folder(runs: Path, run: Run) -> Path:
    """Where a Run's artefacts lie."""
    return runs / run.name


def enter(runs: Path, run: Run, data: str) -> Path:
    """The Run's folder, made if need be, with run.json in it: every field, the data's digest, commit and versions.

    Raises InputError if a run.json is there that says otherwise, or if the folder cannot be written.
    """
    path = folder(runs, run)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not agrees(runs, run, data):
            write_json(path / "run.json", {"schema": SCHEMA, "run": run.values, "data": data, **provenance()})
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror}); choose another place with --runs DIR") from e
    return path


def agrees(runs: Path, run: Run, data: str = "") -> bool:
    """Is there a run.json for this Run? Raises InputError if there is one that disagrees, naming each field, and Broken if the
    file it started from is another one by now."""
    path = folder(runs, run) / "run.json"
    if (found := recorded(path)) is None:
        return False
    there = found.get("run")
    if not isinstance(there, dict):
        raise Broken(f"{path}: has no 'run'; move the folder away to run it again")
    differ = run.differences(there)
    if data and found.get("data") != data:
        differ.append(f"data {found.get('data')!r} there, {data!r} here")
    if differ:
        raise InputError(
            f"{path}: another experiment under the same name: {'; '.join(differ)}; move the folder away or use another --runs DIR"
        )
    if start.located(run.init, runs):
        start.unchanged(run.init, read_json(path.with_name("pretrain.json"), verify=False) or {}, path.parent)
    return True


def recorded(path: Path) -> dict[str, Any] | None:
    """A run.json, or None if there is none; read once as long as it is the same file, since every result of a Run asks for it."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _run_json(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@cache
def _run_json(path: Path, stamp: tuple[int, ...]) -> dict[str, Any] | None:
    return read_json(path)


def result_path(runs: Path, run: Run, protocol: Protocol) -> Path:
    """The file of one result."""
    return folder(runs, run) / f"{protocol.name}.json"


def result(runs: Path, run: Run, protocol: Protocol, verify: bool = True) -> dict[str, Any] | None:
    """One result, or None if there is none yet. Raises InputError if the file or its run.json is not what it should be.

    verify: compare the SHA-256 of the file and of its predictions, too.
    """
    if not agrees(runs, run):
        return None
    path = result_path(runs, run, protocol)
    found, known = read_result(path, run, protocol, verify), recorded(folder(runs, run) / "run.json") or {}
    if found and found["data"] != known.get("data"):
        raise Broken(f"{path}: was measured on data {found['data']}, run.json beside it says {known.get('data')}")
    return found


def read_result(
    path: Path, run: Run | None = None, protocol: Protocol | None = None, verify: bool = True
) -> dict[str, Any] | None:
    """The result in a file, checked field by field; None if there is no file. Raises Broken otherwise."""
    found = read_json(path, verify)
    if found is None:
        return None
    for key, kind in RESULT.items():
        if not isinstance(found.get(key), kind) or isinstance(found.get(key), bool):
            raise Broken(f"{path}: {key!r} is missing or of the wrong kind")
    if found["schema"] != SCHEMA:
        raise Broken(f"{path}: written in schema {found['schema']}, this version reads {SCHEMA}")
    if not (math.isfinite(found["error"]) and 0 <= found["error"] <= 100):
        raise Broken(f"{path}: error={found['error']!r} is no percentage")
    try:
        run = run or Run.known(found["run"])
        protocol = protocol or PROTOCOLS[found["stage"]].parse(found["protocol"])
    except (InputError, KeyError) as e:
        raise Broken(f"{path}: {e}") from e
    if run.differences(found["run"]) or path.parent.name != run.name:
        raise Broken(f"{path}: belongs to another Run than {path.parent.name}")
    if protocol.differences(found["protocol"]) or path.stem != protocol.name:
        raise Broken(f"{path}: was measured under another protocol than {path.stem}")
    if not isinstance(found["sizes"].get("test"), int):
        raise Broken(f"{path}: does not say on how many test images it was measured")
    predictions = path.with_suffix(".npz")
    whole = _sha256(predictions) == found["predictions_sha256"] if verify else predictions.is_file()
    if found["predictions"] != predictions.name or not whole:
        raise Broken(f"{path}: its predictions {found['predictions']} are missing or altered")
    return found


def write_result(runs: Path, run: Run, protocol: Protocol, scored: Scored, **measured: Any) -> None:
    """Write one result: first its per-sample predictions, then the file that counts.

    scored: the record of the protocol, with truth (N,) or (N, K) and scores (N, K) of the images it was scored on.
    """
    import numpy as np

    values, truth, scores = scored
    path = result_path(runs, run, protocol)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, truth=truth, scores=scores.astype(np.float32))
    predictions = path.with_suffix(".npz")
    payload = buffer.getvalue()
    files.write_bytes(predictions, payload)
    what = {"schema": SCHEMA, "run": run.values, "stage": protocol.stage, "protocol": protocol.values}
    kept = {"predictions": predictions.name, "predictions_sha256": hashlib.sha256(payload).hexdigest()}
    write_json(path, {**what, **values, **measured, **kept, **provenance()})
    path.with_name(f"partial-{path.name}").unlink(missing_ok=True)


def partial(runs: Path, run: Run, protocol: Protocol, of: str = "") -> dict[str, Any]:
    """What processes finished of a result before they were stopped: rows of its curve, the seconds they took, the steps at which
    they themselves had gone on, members at a time. of: what it has to come from; nothing for all.
    """
    nothing: dict[str, Any] = {"curve": [], "seconds": 0.0, "resumed": [], "members": 0}
    try:
        found = read_json(folder(runs, run) / f"partial-{protocol.name}.json")
    except Broken:
        return nothing  # computed again
    return found if found and found.get("schema") == PARTIAL and of in ("", found["of"]) else nothing


def keep(runs: Path, run: Run, protocol: Protocol, of: str, finished: dict[str, Any]) -> None:
    """Keep what `partial` returns; once the result is written it goes."""
    write_json(folder(runs, run) / f"partial-{protocol.name}.json", {"schema": PARTIAL, "of": of, **finished})


def predictions(runs: Path, run: str, protocol: str) -> "tuple[np.ndarray, np.ndarray]":
    """(truth, scores) of a result by the names of its Run and protocol: (N,) int labels, (N, K) scores."""
    import numpy as np

    with np.load(runs / run / f"{protocol}.npz") as arrays:
        return arrays["truth"], arrays["scores"]


def epochs(folder: Path) -> list[dict[str, Any]]:
    """The rows of a Run's log.jsonl, without a line that is being written or damaged."""
    found, path = [], folder / "log.jsonl"
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict) and isinstance(row.get("epoch"), int)]


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
    return [_row(path) for path in sorted(runs.glob("*/*.json")) if path.stem.split("-")[0] in PROTOCOLS]


def _row(path: Path) -> dict[str, Any]:
    stage = path.stem.split("-")[0]
    try:
        found = read_result(path)
        assert found is not None
        run = Run.known(found["run"])
        if not agrees(path.parent.parent, run, found["data"]):
            raise Broken(f"{path}: there is no run.json beside it")
    except InputError as e:
        return {
            "name": path.parent.name, "stage": stage, "protocol": path.stem, "title": "", "error": math.nan,
            **dict.fromkeys(WHERE, ""), "how": {}, "unconverged": 0, "problem": str(e), "path": str(path),
        }  # fmt: skip
    protocol = PROTOCOLS[stage].parse(found["protocol"])
    row = dict(zip(NAMES, (run.name, run.label, stage, path.stem, protocol.title), strict=True))
    told = {k: found.get(k, "") for k in WHERE} | {"how": protocol.values, "unconverged": found.get("unconverged", 0)}
    return {**row, **run.values, **{k: found[k] for k in KEPT}, **told, "problem": "", "path": str(path)}


def fail(runs: Path, run: Run, stage: str, reason: str) -> None:
    """Record why a stage of a Run did not succeed, for the plan and the tables, and where its log is."""
    folder(runs, run).mkdir(parents=True, exist_ok=True)
    values = {"schema": SCHEMA, "stage": stage, "reason": reason, "job": slurm.job(), "log": os.environ.get(LOG, "")}
    write_json(failed(runs, run, stage), values)


def failure(runs: Path, run: Run, stage: str = "") -> str:
    """Why a stage of the Run failed when it was last tried, or the first of all that did; or nothing."""
    for path in [failed(runs, run, stage)] if stage else sorted(folder(runs, run).glob("failed-*.json")):
        try:
            found = read_json(path)
        except Broken as e:
            return str(e)
        if found:
            return f"{found.get('stage')}: {found.get('reason')}"
    return ""


def failed(runs: Path, run: Run, stage: str) -> Path:
    """The file that says why a stage failed."""
    return folder(runs, run) / f"failed-{stage}.json"


def forgive(runs: Path, run: Run, stage: str) -> None:
    """Forget an earlier failure: the stage is being tried again."""
    with suppress(FileNotFoundError, NotADirectoryError):
        failed(runs, run, stage).unlink()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
