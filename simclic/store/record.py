"""Records: a store of results without what no report reads (weights, features, scores), small enough to commit."""

import hashlib
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Job, Protocol, Run
from simclic.store.result_file import CLASSES, REDUCED, SCHEMA, reduce_predictions
from simclic.store.run_files import ENCODER, RUN
from simclic.store.run_folder import RunFolder

RECORDS = Path("reports/records")  # the default folder of records
ABOUT = "record.json"  # says of a folder that it is a record, and of what


def read_record(runs: Path) -> dict[str, Any] | None:
    """Return what a record says of itself (exhibits, devices, commits ...), or None if `runs` is no record."""
    return files.read_json(runs / ABOUT)


def check_no_record(runs: Path) -> None:
    """Raise InputError if the folder of --runs is a record."""
    if (runs / ABOUT).exists():
        raise InputError(f"{runs}: is a record, which is only read; choose another place with --runs DIR")


def check_writable_store(runs: Path) -> None:
    """Create the folder of --runs. Raise InputError if it cannot be written, or is a record, which holds no weights."""
    check_no_record(runs)
    files.check_writable(runs, "--runs")


def write_record(folder: Path, runs: Path, jobs: Iterable[Job], about: Mapping[str, Any]) -> int:
    """Write what a report of these jobs needs of the store `runs` into a new folder, whole or not at all. Return its bytes.

    about: what the record says of itself. A folder that already holds exactly this is left alone. Raise InputError if it holds
    anything else, Broken if a result cannot be trusted.
    """
    content = {ABOUT: files.pack_json({"schema": SCHEMA, **about})}
    protocols: dict[Run, list[Protocol]] = {}
    for job in jobs:
        protocols.setdefault(job.run, []).extend([job.protocol] if job.protocol else [])
    for run, asked in protocols.items():
        content |= {f"{run.name}/{name}": payload for name, payload in _collect_files(RunFolder(runs, run), asked).items()}
    if folder.exists():
        _check_same(folder, content)
    else:
        _publish_folder(folder, content)
    return sum(map(len, content.values()))


def _collect_files(folder: RunFolder, protocols: Iterable[Protocol]) -> dict[str, bytes]:
    """Return by name what a report reads of a Run: its fields, its encoder's record and log, its failures without the paths of
    their logs, and the results under these protocols with reduced predictions."""
    paths = (folder.path / RUN, folder.path / ENCODER, folder.log_path)
    content = {path.name: path.read_bytes() for path in paths if path.is_file()}
    for stage in folder.failed_stages():
        content[folder.failure_path(stage).name] = files.pack_json({**folder.failure_record(stage), "log": ""})
    for protocol in protocols:
        if result := folder.read_result(protocol):
            path = folder.result_path(protocol)
            predictions = path.with_suffix(".npz").read_bytes()
            if REDUCED not in result:
                truth, scores = folder.read_predictions(protocol.name)
                predictions = reduce_predictions(truth, scores, result["metric"])
                result = {**result, REDUCED: hashlib.sha256(predictions).hexdigest(), CLASSES: scores.shape[1]}
            content |= {path.name: files.pack_json(result), path.with_suffix(".npz").name: predictions}
    return content


def _check_same(folder: Path, content: Mapping[str, bytes]) -> None:
    """Raise InputError, with a file in which they differ, if the folder holds anything but this content."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    differ = sorted(n for n in {*paths, *content} if n not in paths or n not in content or paths[n].read_bytes() != content[n])
    if differ:
        more = f" and {len(differ) - 1:,} more" if len(differ) > 1 else ""
        raise InputError(f"{folder}: differs from these results in {differ[0]}{more}; choose another name, or delete it first")


def _publish_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    files.check_writable(folder.parent, "--records")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        for name, payload in content.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(temporary / name, payload)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
