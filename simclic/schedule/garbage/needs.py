"""What is needed: what exhibits ask for, and what processes and jobs are at work on."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from simclic.errors import InputError
from simclic.experiment import Protocol, Run, Suite
from simclic.experiment.run import is_file
from simclic.schedule.garbage.entries import Garbage, at_work, listed, record
from simclic.schedule.garbage.launches import launches


class Needs:
    """As of now. place, root, folders: where runs and data lie, and each Run. asked: by exhibits, by the name of the Run.

    busy: the fields of Runs that are at work or wait for it, by name.
    runs: both, with their protocols where these are known; None if everything is taken to be needed. names: of these, and of
    Runs that one of them starts from.
    """

    def __init__(self, suites: list[Suite], place: Path, root: Path, garbage: Garbage):
        self.place, self.root, self.folders = place, root, dict.fromkeys(_folders(place))
        self.asked: dict[str, tuple[Run, list[Protocol]]] = {}
        for job in (job for suite in suites for job in suite.jobs):
            self.asked.setdefault(job.run.name, (job.run, []))[1].extend((job.protocol,) if job.protocol else ())
        self.busy: dict[str, Any] = {path.name: record(path / "run.json").get("run") for path in self.folders if at_work(path)}
        for one in launches(place, garbage):
            self.busy |= {job["name"]: job["run"] for job in (one.open if one.alive is not False else ())}
        self.runs: list[tuple[Run, list[Protocol] | None]] | None = None
        try:
            if suites:
                self.runs = [*self.asked.values(), *((Run.known(values), None) for values in self.busy.values())]
        except (InputError, AttributeError):
            garbage.stays(place, "work is in progress that this version does not know; everything is taken to be needed")
        self.names = {name for run, _ in self.runs or () for name in (run.name, *_starts(run, place))}


def _folders(runs: Path) -> list[Path]:
    """The folders of Runs."""
    return [path for path in listed(runs) if path.is_dir() and not path.name.startswith(".") and path.name != "imported"]


def _starts(run: Run, runs: Path) -> Iterator[str]:
    """The Run in whose folder the file lies that another one starts from."""
    with suppress(ValueError, IndexError):
        if is_file(run.init):
            yield Path(run.init).expanduser().resolve().relative_to(runs.resolve()).parts[0]
