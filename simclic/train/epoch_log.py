"""The log of a training, a row per epoch."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simclic import files
from simclic.store.run_folder import RunFolder


class EpochLog:
    """The log of a training: log.jsonl with one row per epoch, and TensorBoard's if that is installed.

    before: epochs done; later rows, which a training that was killed wrote, are removed. writes: false for ranks that never do.
    """

    def __init__(self, folder: RunFolder, before: int, writes: bool = True):
        self.path, self.last_row = folder.log_path, dict[str, Any]()
        if not writes:
            return
        self.tensorboard = _open_tensorboard(folder.path, before)
        lines = self.path.read_text().splitlines()[:before] if self.path.is_file() else []
        files.write_bytes(self.path, "".join(line + "\n" for line in lines).encode())
        if lines:
            self.last_row = json.loads(lines[-1])

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Append the row of an epoch."""
        self.last_row = row
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")
            f.flush()
            os.fsync(f.fileno())  # a later checkpoint must not outlive this row
        if self.tensorboard:
            for name in (n for n, value in row.items() if n != "epoch" and value is not None):
                self.tensorboard.add_scalar(name, row[name], row["epoch"])
            self.tensorboard.flush()


def _open_tensorboard(folder: Path, before: int) -> Any:
    """Return a TensorBoard writer for the epochs after `before`, or None if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=before + 1)
