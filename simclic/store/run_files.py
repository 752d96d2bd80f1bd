"""The files of a Run by their names, without what is in them: where each lies, who is at work, and what failed."""

import json
import os
import re
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from simclic import slurm
from simclic.errors import Diverged
from simclic.experiment import PROTOCOLS, Protocol
from simclic.files import Broken, read_json, write_json
from simclic.store import claim
from simclic.store.result_file import SCHEMA

LOG = "SIMCLIC_LOG"  # the environment's variable for the file that a process's messages go to
DIVERGED = "diverged:"  # how the reason of a failure begins that is a finding

RUN, ENCODER, WEIGHTS, EPOCHS, CHECKPOINT = "run.json", "pretrain.json", "backbone.safetensors", "log.jsonl", "checkpoint"
RESULT = rf"(?:{'|'.join(PROTOCOLS)})-[0-9a-f]{{10}}"
FEATURES = re.compile(r"features-(float32|bf16)\.safetensors")
CLAIM = re.compile(rf"owner(?:-{RESULT})?\.json")
UNFINISHED = re.compile(rf"(?:partial-({RESULT})\.json|{CHECKPOINT}-({RESULT})(?:\.previous)?)")  # of no use beside that result
NEEDED = re.compile(
    rf"(?:run|pretrain|failed-[a-z]+|{RESULT})\.json|{RESULT}\.npz|log\.jsonl|backbone\.safetensors"
    r"|tensorboard/events\.out\.tfevents\..+"
)


class FileKind(StrEnum):
    """What a file is to its Run, and so whether it may be deleted.

    NEEDED: results, weights, records, and whatever unfinished work goes on from. RECOMPUTABLE: features, from the encoder and the
    images. LEFTOVER: of a killed process, or of work that is finished: nothing reads it. DAMAGED: set aside as not whole.
    UNRECOGNISED: not ours, and always kept.
    """

    NEEDED = "needed"
    RECOMPUTABLE = "recomputable"
    LEFTOVER = "leftover"
    DAMAGED = "damaged"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True)
class StoredFile:
    """One file of a Run. precision: of features, in which they were computed."""

    path: Path
    kind: FileKind
    precision: str = ""


class RunFiles:
    """Where the files of a Run lie by the name of its folder, who is at work there, and what failed."""

    def __init__(self, runs: Path, name: str):
        self.runs, self.name, self.path = runs, name, runs / name

    def checkpoint_path(self, protocol: Protocol | None = None) -> Path:
        """Return where a training stops and goes on: the encoder's, or the fine-tuning's under a protocol."""
        return self.path / (f"{CHECKPOINT}-{protocol.name}" if protocol else CHECKPOINT)

    def features_path(self, precision: str) -> Path:
        """Return where the frozen features of all images lie, computed in a precision."""
        return self.path / f"features-{precision}.safetensors"

    def result_path(self, protocol: Protocol) -> Path:
        """Return the file of one result; its predictions lie beside it."""
        return self.path / f"{protocol.name}.json"

    def partial_path(self, protocol: Protocol) -> Path:
        """Return the file of what is finished of one result."""
        return self.path / f"partial-{protocol.name}.json"

    @property
    def log_path(self) -> Path:
        """The training's log, a JSON object per epoch. TensorBoard's lies in `tensorboard` beside it."""
        return self.path / EPOCHS

    def log_rows(self) -> list[dict[str, Any]]:
        """Return the epochs in the log, without a line that is being written or damaged."""
        rows = []
        for line in self.log_path.read_text(errors="replace").splitlines() if self.log_path.is_file() else ():
            with suppress(ValueError):
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)]

    def claim_work(self, protocol: Protocol | None = None) -> AbstractContextManager[Any]:
        """Return a context in which this process alone makes the encoder, or the result under a protocol. See store.claim."""
        return claim.hold_claim(self.path, self._claim_name(protocol))

    def find_owner(self, protocol: Protocol | None = None, ask_slurm: bool = True) -> dict[str, Any] | None:
        """Return who makes the encoder, or the result under a protocol, as far as that can be known here; None if nobody does.

        ask_slurm: about a process on another machine; else only processes on this one count.
        """
        return claim.find_owner(self.path, self._claim_name(protocol), ask_slurm)

    def _claim_name(self, protocol: Protocol | None) -> str:
        return f"owner-{protocol.name}" if protocol else "owner"

    @property
    def is_at_work(self) -> bool:
        """Is another process than this one at work here? Yes if the folder may not be read."""
        try:
            return any(claim.is_claimed(self.path, path.stem) for path in list(self.path.iterdir()) if CLAIM.fullmatch(path.name))
        except PermissionError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def failure_path(self, stage: str) -> Path:
        """Return the file that says why a stage failed."""
        return self.path / f"failed-{stage}.json"

    def record_failure(self, stage: str, reason: str | Exception) -> None:
        """Record why a stage did not succeed, for the plan and the tables, and where its log is. A full disk is no error."""
        text = f"{DIVERGED} {reason}" if isinstance(reason, Diverged) else str(reason)
        values = {"schema": SCHEMA, "stage": stage, "reason": text, "job": slurm.current_job(), "log": os.environ.get(LOG, "")}
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.failure_path(stage), values)

    def failure_record(self, stage: str) -> dict[str, Any]:
        """Return stage, reason, job and log of a stage that failed when it was last tried; nothing if it did not."""
        try:
            return read_json(self.failure_path(stage)) or {}
        except Broken as e:
            return {"stage": stage, "reason": str(e)}

    def failure_text(self, stage: str = "") -> str:
        """Return "stage: why" if it failed when it was last tried, or of the first of all stages that did; else nothing."""
        for record in map(self.failure_record, [stage] if stage else self._failed_stages()):
            if record:
                return f"{record.get('stage')}: {record.get('reason')}"
        return ""

    def why_no_encoder(self) -> str:
        """Return why the encoder is not there, as far as that is recorded."""
        return self.failure_text("pretrain").removeprefix("pretrain: ") or f"there is no {ENCODER}"

    def forget_failure(self, stage: str) -> None:
        """Forget an earlier failure: the stage is being tried again."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self.failure_path(stage).unlink()

    def failure_logs(self) -> list[str]:
        """Return the log files that recorded failures name."""
        return [log for record in map(self.failure_record, self._failed_stages()) if (log := record.get("log"))]

    def _failed_stages(self) -> list[str]:
        return [path.stem.split("-", 1)[1] for path in sorted(self.path.glob("failed-*.json"))]


def read_once(path: Path, verify: bool = True) -> dict[str, Any] | None:
    """Return what a JSON file holds, or None if there is none; read once as long as it is the same file, since every result of a
    Run asks for it."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read_version(path, (status.st_ino, status.st_mtime_ns, status.st_size), verify)


@cache
def _read_version(path: Path, version: tuple[int, ...], verify: bool) -> dict[str, Any] | None:
    return read_json(path, verify)
