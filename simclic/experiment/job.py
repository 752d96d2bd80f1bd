"""Job: one encoder, or one result of it; and the states that a job can be in."""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from simclic.errors import InputError
from simclic.experiment.names import is_unlabelled
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


@cache
def evaluated_run(run: Run, protocol: Protocol | None) -> Run:
    """Return the Run with the data set that the protocol evaluates on: what its images, their number and its cell depend on."""
    if not protocol or not protocol.on:
        return run
    return replace(run, dataset=protocol.on, difficult=protocol.difficult, views_from="square")  # no views are cut here


@dataclass(frozen=True)
class Job:
    """One result: a Run under a protocol. Without a protocol: the Run's encoder.

    A protocol on the Run's own data set becomes the one without `on`, so that equal jobs have one name. Raise InputError if the
    two say different things of this data set, or if it has no labels.
    """

    run: Run
    protocol: Protocol | None = None

    def __post_init__(self) -> None:
        protocol = self.protocol
        if protocol and protocol.on == self.run.dataset:
            if protocol.difficult not in ("negative", self.run.difficult):
                way_out = f"say it in the Run, as Run(dataset={protocol.on!r}, difficult={protocol.difficult!r})"
                raise InputError(f"difficult={protocol.difficult!r} with on={protocol.on!r}, the Run's own data set; {way_out}")
            object.__setattr__(self, "protocol", protocol.plain)
        if protocol and is_unlabelled(self.dataset):
            example = f"{type(protocol).__name__}(on='digits')"
            raise InputError(f"dataset={self.dataset!r} has no labels to evaluate on; name a data set that has, as in {example}")

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
    def dataset(self) -> str:
        """The data set that this job sees: the one that is evaluated on, or the encoder's own."""
        return (self.protocol and self.protocol.on) or self.run.dataset

    def list_datasets(self, has_encoder: bool) -> tuple[str, ...]:
        """Return the data sets whose images must be there: the encoder's own, unless it is done, and the one that is seen."""
        return tuple(dict.fromkeys((*(() if has_encoder else (self.run.dataset,)), self.dataset)))

    @property
    def evaluated(self) -> Run:
        """See `evaluated_run`."""
        return evaluated_run(self.run, self.protocol)

    @property
    def failure_name(self) -> str:
        """What the recorded failure of this job is called: its stage, or the result's own name if it is on another data set."""
        return "pretrain" if not self.protocol else self.protocol.name if self.protocol.on else self.stage

    @property
    def image_sides(self) -> tuple[tuple[int, bool], ...]:
        """How this job sees images: pixels of the shorter side, and whether they are whole, or squares of it from the centre."""
        run, protocol = self.run, self.protocol
        if not protocol:
            return ((run.whole_side or run.image_size, run.whole_side > 0),)
        resized = [protocol.resize_side(run.image_size)] if isinstance(protocol, Finetune) else []
        return tuple((side, False) for side in dict.fromkeys((run.image_size, *resized)))

    @property
    def encoder(self) -> "Job":
        """The job that makes the encoder of this one."""
        return Job(self.run) if self.protocol else self

    @property
    def is_possible(self) -> bool:
        """Pixels have no weights to fine-tune."""
        return not (self.run.backbone == "pixels" and isinstance(self.protocol, Finetune))
