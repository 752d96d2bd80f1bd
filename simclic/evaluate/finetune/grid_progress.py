"""What of a grid outlives its process: rows that are finished, and the checkpoint of the bundle at work."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simclic.experiment import Protocol, Run
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint


class GridProgress:
    """Beside a Run's other files. source: data and weights that it has to come from; what comes from others is not read.

    rows: those that are finished. resumed: steps at which bundles went on. members: of the largest bundle. check_claim: called
    before anything is written, raises if another process has taken over.
    """

    def __init__(
        self, runs: Path, run: Run, protocol: Protocol, source: str = "", check_claim: Callable[[], None] = lambda: None
    ):
        self.folder, self.protocol, self.source, self.check_claim = RunFolder(runs, run), protocol, source, check_claim
        self.path = self.folder.checkpoint_path(protocol)
        self.name = f"{run.name}/{protocol.name}"
        self.folder.delete_unfinished(protocol)
        partial = self.folder.partial_result(protocol, source)
        self.rows, self.earlier_seconds, self.resumed, self.members = (
            partial[k] for k in ("curve", "seconds", "resumed", "members")
        )
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time that all of it took, in this process and in those before."""
        return self.earlier_seconds + time.monotonic() - self.started

    def add_rows(self, rows: list[dict[str, Any]]) -> None:
        """Rows that are finished; the checkpoint they came from goes."""
        self.check_claim()
        self.rows += rows
        finished = {"curve": self.rows, "seconds": self.seconds, "resumed": self.resumed, "members": self.members}
        self.folder.write_partial_result(self.protocol, self.source, finished)
        self.delete_checkpoint()

    def load_bundle(self) -> dict[str, Any] | None:
        """The bundle that was at work, in the CPU's memory, or None. Raises InputError if the file is of something else."""
        content = checkpoint.load(self.path, self.name)
        return content if content and content["of"] == self.source else None

    def save_bundle(self, content: dict[str, Any]) -> None:
        """The bundle at work. Raises InputError if it cannot be written; the one before is then untouched."""
        self.check_claim()
        header = {"run": self.name, "of": self.source, "seconds": self.seconds, "resumed": self.resumed}
        checkpoint.save(self.path, {**content, **header})

    def resume_from(self, content: dict[str, Any]) -> None:
        """A bundle goes on from this: what it took until then counts."""
        self.earlier_seconds, self.started = content["seconds"], time.monotonic()
        self.resumed = [*content["resumed"], content["step"]]

    def delete_checkpoint(self) -> None:
        """No bundle is at work any more."""
        self.folder.delete_checkpoint(self.protocol)
