"""What a grid search keeps on disk: the finished rows of its curve, and a checkpoint of the unfinished bundle."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simclic.experiment import Protocol, Run
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint


class GridProgress:
    """The progress of one grid search, in the Run's folder.

    source: identifies data and weights; progress made from another source is ignored. rows: finished rows. resumed: steps at
    which bundles were resumed. members: size of the largest bundle. check_claim: called before each write; raises if another
    process has taken over.
    """

    def __init__(
        self, runs: Path, run: Run, protocol: Protocol, source: str = "", check_claim: Callable[[], None] = lambda: None
    ):
        self.folder, self.protocol, self.source, self.check_claim = RunFolder(runs, run), protocol, source, check_claim
        self.path, self.name = self.folder.checkpoint_path(protocol), f"{run.name}/{protocol.name}"
        self.folder.delete_unfinished(protocol)
        partial = self.folder.read_partial_result(protocol, source)
        self.rows, self.resumed, self.members = (partial[k] for k in ("curve", "resumed", "members"))
        self.earlier_seconds, self.started = partial["seconds"], time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds spent so far, in this and earlier processes."""
        return self.earlier_seconds + time.monotonic() - self.started

    def add_rows(self, rows: list[dict[str, Any]]) -> None:
        """Write finished rows, then delete the checkpoint of their bundle."""
        self.check_claim()
        self.rows += rows
        finished = {"curve": self.rows, "seconds": self.seconds, "resumed": self.resumed, "members": self.members}
        self.folder.write_partial_result(self.protocol, self.source, finished)
        self.delete_bundle()

    def load_bundle(self) -> dict[str, Any] | None:
        """Return the checkpoint of the unfinished bundle, on the CPU, or None. Raises InputError if it is of another Run."""
        content = checkpoint.load(self.path, self.name)
        return content if content and content["of"] == self.source else None

    def save_bundle(self, content: dict[str, Any]) -> None:
        """Write the checkpoint of a bundle. Raises InputError if that fails; the previous checkpoint is then untouched."""
        self.check_claim()
        header = {"run": self.name, "of": self.source, "seconds": self.seconds, "resumed": self.resumed}
        checkpoint.save(self.path, {**content, **header})

    def resume_from(self, content: dict[str, Any]) -> None:
        """Count the time and the resumptions that a loaded checkpoint records."""
        self.earlier_seconds, self.started = content["seconds"], time.monotonic()
        self.resumed = [*content["resumed"], content["step"]]

    def delete_bundle(self) -> None:
        """Delete the checkpoint of the bundle."""
        self.folder.delete_checkpoint(self.protocol)
