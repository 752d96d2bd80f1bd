"""Job: one encoder, or one result of it; and the states that a job can be in."""

from dataclasses import dataclass
from enum import StrEnum

from simclic.experiment.protocol import Finetune, Protocol
from simclic.experiment.run import Run


class JobState(StrEnum):
    """What has become of a job. BROKEN: a file that cannot be trusted, reported as failed and never computed over."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    WAITING = "waiting"
    FAILED = "failed"
    STOPPED = "stopped"
    BROKEN = "broken"
    MISSING = "missing"
    UNKNOWN = "unknown"  # Slurm does not answer


@dataclass(frozen=True)
class Job:
    """One result: a Run under a protocol. Without a protocol: the Run's encoder."""

    run: Run
    protocol: Protocol | None = None

    @property
    def stage(self) -> str:
        """One of pretrain, calibrate, and the stages of PROTOCOLS."""
        return self.protocol.stage if self.protocol else "pretrain" if self.run.epochs else "calibrate"

    @property
    def section(self) -> str:
        """The section of a profile that says what this job asks of a node."""
        return self.protocol.section if self.protocol else "pretrain"

    @property
    def name(self) -> str:
        """The Run's folder, and in it the result or what makes the encoder."""
        return f"{self.run.name}/{self.protocol.name if self.protocol else self.stage}"

    @property
    def encoder(self) -> "Job":
        """The job that makes the encoder of this one."""
        return Job(self.run) if self.protocol else self

    @property
    def is_possible(self) -> bool:
        """Pixels have no weights to fine-tune."""
        return not (self.run.backbone == "pixels" and isinstance(self.protocol, Finetune))
