"""The files of a Run by name: their paths, who works on them, and recorded failures."""

import hashlib
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
from simclic.experiment import PROTOCOLS, OnFeatures, Protocol
from simclic.experiment.names import make_slug
from simclic.files import Broken, read_json, write_json
from simclic.store import claim
from simclic.store.result_file import SCHEMA

LOG = "SIMCLIC_LOG"  # the environment variable with the path of this process's log
DIVERGED = "diverged:"  # the first word of a failure that is a finding, not a mistake

RUN, ENCODER, WEIGHTS, EPOCHS, CHECKPOINT = "run.json", "pretrain.json", "backbone.safetensors", "log.jsonl", "checkpoint"
RESULT = rf"(?:{'|'.join(PROTOCOLS)})-[0-9a-f]{{10}}"
FEATURES = re.compile(r"features-(?:float32|bf16)(?:-[a-z0-9_.-]+)?\.safetensors")
CLAIM = re.compile(rf"owner(?:-{RESULT})?\.json")
UNFINISHED = re.compile(
    rf"(?:partial-({RESULT})(?:-\d+)?\.json|{CHECKPOINT}-({RESULT})(?:-\d+)?(?:\.previous)?)"
)  # useless beside that result
NEEDED = re.compile(
    rf"(?:run|pretrain|failed-(?:[a-z]+|{RESULT})|{RESULT})\.json|{RESULT}\.npz|log\.jsonl|backbone\.safetensors"
    r"|tensorboard/events\.out\.tfevents\..+"
)


class FileKind(StrEnum):
    """What a file of a Run is, which decides whether it may be deleted.

    NEEDED: results, weights, records, and checkpoints of unfinished work. RECOMPUTABLE: features, computed from the encoder and
    the images. LEFTOVER: left by a killed process or by finished work; nothing reads it. DAMAGED: a broken checkpoint that was
    renamed. UNRECOGNISED: no file of this package; it is always kept.
    """

    NEEDED = "needed"
    RECOMPUTABLE = "recomputable"
    LEFTOVER = "leftover"
    DAMAGED = "damaged"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True)
class StoredFile:
    """One file of a Run."""

    path: Path
    kind: FileKind


class RunFiles:
    """The paths of the files in one Run's folder, the claims in it, and its recorded failures."""

    def __init__(self, runs: Path, name: str):
        self.runs, self.name, self.path = runs, name, runs / name

    def checkpoint_path(self, protocol: Protocol | None = None, part: int = 0) -> Path:
        """Return the path of the checkpoint of the pre-training, or of the fine-tuning under a protocol; see `partial_path`."""
        return self.path / (f"{CHECKPOINT}-{protocol.name}{_part_suffix(part)}" if protocol else CHECKPOINT)

    def features_path(self, protocol: OnFeatures) -> Path:
        """Return the path of the frozen features of all images that a protocol evaluates on, computed in its precision."""
        where = f"-{make_slug(protocol.on)}-{hashlib.sha256(protocol.on.encode()).hexdigest()[:6]}" if protocol.on else ""
        return self.path / f"features-{protocol.features}{where}.safetensors"

    def result_path(self, protocol: Protocol) -> Path:
        """Return the path of one result. Its predictions have the same name with the suffix .npz."""
        return self.path / f"{protocol.name}.json"

    def partial_path(self, protocol: Protocol, part: int = 0) -> Path:
        """Return the path of the finished parts of one result. part: of a process that computes a part beside the first one."""
        return self.path / f"partial-{protocol.name}{_part_suffix(part)}.json"

    def list_parts(self, protocol: Protocol) -> list[int]:
        """Return the numbers of the processes beside the first one that left a part of one result."""
        prefix = f"partial-{protocol.name}-"
        return sorted(int(path.stem.removeprefix(prefix)) for path in self.path.glob(f"{prefix}*.json"))

    @property
    def log_path(self) -> Path:
        """The path of the training log, one JSON object an epoch. The TensorBoard log is in `tensorboard` beside it."""
        return self.path / EPOCHS

    def log_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the training log. Incomplete or damaged lines are skipped."""
        rows = []
        for line in self.log_path.read_text(errors="replace").splitlines() if self.log_path.is_file() else ():
            with suppress(ValueError):
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)]

    def claim_work(self, protocol: Protocol | None = None) -> AbstractContextManager[Any]:
        """Claim the encoder, or the result under a protocol, while the context lasts. See `hold_claim`."""
        return claim.hold_claim(self.path, self._claim_name(protocol))

    def find_owner(self, protocol: Protocol | None = None, ask_slurm: bool = True) -> dict[str, Any] | None:
        """Return the claim of the process that makes the encoder, or the result under a protocol; see `claim.find_owner`."""
        return claim.find_owner(self.path, self._claim_name(protocol), ask_slurm)

    def _claim_name(self, protocol: Protocol | None) -> str:
        return f"owner-{protocol.name}" if protocol else "owner"

    @property
    def is_at_work(self) -> bool:
        """Whether another process works in this folder. True if the folder may not be read."""
        try:
            return any(claim.is_claimed(self.path, path.stem) for path in list(self.path.iterdir()) if CLAIM.fullmatch(path.name))
        except PermissionError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def failure_path(self, stage: str) -> Path:
        """Return the path of the recorded failure of a stage."""
        return self.path / f"failed-{stage}.json"

    def record_failure(self, stage: str, reason: str | Exception) -> None:
        """Record why a stage failed and where its log is, for the plan and the tables. A full disk is not an error."""
        text = f"{DIVERGED} {reason}" if isinstance(reason, Diverged) else str(reason)
        values = {"schema": SCHEMA, "stage": stage, "reason": text, "job": slurm.current_job(), "log": os.environ.get(LOG, "")}
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.failure_path(stage), values)

    def failure_record(self, stage: str) -> dict[str, Any]:
        """Return stage, reason, job and log of the recorded failure of a stage; {} if there is none."""
        try:
            return read_json(self.failure_path(stage)) or {}
        except Broken as e:
            return {"stage": stage, "reason": str(e)}

    def failure_text(self, stage: str = "") -> str:
        """Return "stage: reason" of the recorded failure of a stage, or of the first failed stage; "" if there is none."""
        for record in map(self.failure_record, [stage] if stage else self.failed_stages()):
            if record:
                return f"{record.get('stage')}: {record.get('reason')}"
        return ""

    def why_no_encoder(self) -> str:
        """Return why there is no encoder, as far as that is recorded."""
        return self.failure_text("pretrain").removeprefix("pretrain: ") or f"there is no {ENCODER}"

    def forget_failure(self, stage: str) -> None:
        """Delete the recorded failure of a stage, because the stage is tried again."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self.failure_path(stage).unlink()

    def failure_logs(self) -> list[str]:
        """Return the paths of the logs that recorded failures name."""
        return [log for record in map(self.failure_record, self.failed_stages()) if (log := record.get("log"))]

    def failed_stages(self) -> list[str]:
        """Return the stages that have a recorded failure."""
        return [path.stem.split("-", 1)[1] for path in sorted(self.path.glob("failed-*.json"))]


def _part_suffix(part: int) -> str:
    return f"-{part}" if part else ""


def read_once(path: Path, verify: bool = True) -> dict[str, Any] | None:
    """Return the content of a JSON file, or None if there is none. An unchanged file is read only once."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read_version(path, (status.st_ino, status.st_mtime_ns, status.st_size), verify)


@cache
def _read_version(path: Path, version: tuple[int, ...], verify: bool) -> dict[str, Any] | None:
    return read_json(path, verify)
