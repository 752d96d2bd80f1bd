"""What of a grid outlives its process: rows that are finished, and the checkpoint of the bundle at work."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simclic.experiment import Protocol, Run
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint


class Kept:
    """Beside a Run's other files. of: data and weights that it has to come from; what comes from others is not read.

    rows: those that are finished. resumed: steps at which bundles went on. members: of the largest bundle. still_ours: called
    before anything is written, raises if another process has taken over.
    """

    def __init__(self, runs: Path, run: Run, protocol: Protocol, of: str = "", still_ours: Callable[[], None] = lambda: None):
        self.folder, self.protocol, self.of, self.still_ours = RunFolder(runs, run), protocol, of, still_ours
        self.path = self.folder.checkpoint_path(protocol)
        self.name = f"{run.name}/{protocol.name}"
        self.folder.delete_unfinished(protocol)
        found = self.folder.partial_result(protocol, of)
        self.rows, self.before, self.resumed, self.members = (found[k] for k in ("curve", "seconds", "resumed", "members"))
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time that all of it took, in this process and in those before."""
        return self.before + time.monotonic() - self.began

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Rows that are finished; the checkpoint they came from goes."""
        self.still_ours()
        self.rows += rows
        finished = {"curve": self.rows, "seconds": self.seconds, "resumed": self.resumed, "members": self.members}
        self.folder.write_partial_result(self.protocol, self.of, finished)
        self.drop()

    def load(self) -> dict[str, Any] | None:
        """The bundle that was at work, in the CPU's memory, or None. Raises InputError if the file is of something else."""
        content = checkpoint.load(self.path, self.name)
        return content if content and content["of"] == self.of else None

    def save(self, content: dict[str, Any]) -> None:
        """The bundle at work. Raises InputError if it cannot be written; the one before is then untouched."""
        self.still_ours()
        told = {"run": self.name, "of": self.of, "seconds": self.seconds, "resumed": self.resumed}
        checkpoint.save(self.path, {**content, **told})

    def went_on(self, content: dict[str, Any]) -> None:
        """A bundle goes on from this: what it took until then counts."""
        self.before, self.began = content["seconds"], time.monotonic()
        self.resumed = [*content["resumed"], content["step"]]

    def drop(self) -> None:
        """No bundle is at work any more."""
        self.folder.delete_checkpoint(self.protocol)
