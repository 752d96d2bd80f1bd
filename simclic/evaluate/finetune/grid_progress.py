"""What a grid search keeps on disk: the finished rows of its curve, and a checkpoint of the unfinished bundle."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simclic.evaluate.finetune.member import Setting
from simclic.experiment import Protocol, Run
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint


class GridProgress:
    """The progress of one grid search, in the Run's folder.

    source: identifies data and weights; progress made from another source is ignored. rows: finished rows. resumed: steps at
    which bundles were resumed. members: size of the largest bundle. check_claim: called before each write; raises if another
    process has taken over. part: 0 for the process that leads; others train parts of the grid beside it, in files of their own.
    """

    def __init__(
        self, runs: Path, run: Run, protocol: Protocol, source: str = "", check_claim: Callable[[], None] = lambda: None,
        part: int = 0,
    ):  # fmt: skip
        self.folder, self.protocol, self.source, self.check_claim = RunFolder(runs, run), protocol, source, check_claim
        self.part, self.path = part, self.folder.checkpoint_path(protocol, part)
        self.name = f"{run.name}/{protocol.name}"
        self.folder.delete_unfinished(protocol, part)
        partial = self.folder.read_partial_result(protocol, source, part)
        self.rows, self.resumed, self.members = (partial[k] for k in ("curve", "resumed", "members"))
        self.earlier_seconds = self.written_seconds = partial["seconds"]
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of work so far, in this and earlier processes and in those whose parts were merged: about as many as one alone
        would take. What a process waits for others does not count."""
        return self.earlier_seconds + time.monotonic() - self.started

    @contextmanager
    def stop_clock(self) -> Iterator[None]:
        """Do not count the seconds of this block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.started += time.monotonic() - began

    def add_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write finished rows, then delete the checkpoint of their bundle."""
        self.check_claim()
        self.rows += rows
        self._write_rows()
        self.delete_bundle()

    def _write_rows(self) -> None:
        self.written_seconds = self.seconds
        finished = {"curve": self.rows, "seconds": self.written_seconds, "resumed": self.resumed, "members": self.members}
        self.folder.write_partial_result(self.protocol, self.source, finished, self.part)

    def list_open(self, settings: Iterable[Setting]) -> list[Setting]:
        """Return those of these settings that have no row yet, in order."""
        finished = {(row["lr"], row["decay"]) for row in self.rows}
        return [setting for setting in settings if setting not in finished]

    def merge_parts(self, settings: Iterable[Setting]) -> None:
        """Take over the rows that other processes finished, in the order of all settings, and the seconds of their work."""
        if not (parts := self.folder.list_parts(self.protocol)):
            return
        self.check_claim()
        for part in parts:
            theirs = self.folder.read_partial_result(self.protocol, self.source, part)
            self.rows += theirs["curve"]
            self.earlier_seconds += theirs["seconds"]
            self.resumed, self.members = [*self.resumed, *theirs["resumed"]], max(self.members, theirs["members"])
        self.sort_rows(settings)
        self._write_rows()
        for part in parts:
            self.folder.partial_path(self.protocol, part).unlink(missing_ok=True)

    def sort_rows(self, settings: Iterable[Setting]) -> None:
        """Put the rows in the order of all settings, by which the first of equal errors is chosen."""
        by_setting = {(row["lr"], row["decay"]): row for row in self.rows}
        self.rows = [by_setting[setting] for setting in settings if setting in by_setting]

    def load_bundle(self) -> dict[str, Any] | None:
        """Return the checkpoint of the unfinished bundle, on the CPU, or None. Raises InputError if it is of another Run."""
        content = checkpoint.load(self.path, self.name)
        return content if content and content["of"] == self.source else None

    def save_bundle(self, content: dict[str, Any]) -> None:
        """Write the checkpoint of a bundle. Raises InputError if that fails; the previous checkpoint is then untouched."""
        self.check_claim()
        header = {"run": self.name, "of": self.source, "seconds": self.seconds, "resumed": self.resumed}
        checkpoint.save(self.path, {**content, **header, "seconds_before": self.written_seconds})

    def resume_from(self, content: dict[str, Any]) -> None:
        """Count the time and the resumptions that a loaded checkpoint records."""
        since_rows = content["seconds"] - content.get("seconds_before", self.written_seconds)
        self.earlier_seconds = self.written_seconds + since_rows  # those of other parts may have been merged meanwhile
        self.started = time.monotonic()
        self.resumed = [*content["resumed"], content["step"]]

    def delete_bundle(self) -> None:
        """Delete the checkpoint of the bundle."""
        self.folder.delete_checkpoint(self.protocol, self.part)
