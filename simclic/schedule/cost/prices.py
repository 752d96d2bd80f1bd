"""What a job will take, best source first: finished runs of like kind, what was calibrated, a stated guess."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Linear, Protocol, Run
from simclic.files import read_json
from simclic.schedule.cost import amounts
from simclic.schedule.cost.rates import Coefficients, Target, calibrated
from simclic.store.run_folder import run_folders

ENOUGH = 20  # finished jobs of one kind; more would not be told apart from these
LOOKED = 1000  # folders at most in which they are looked for


class Price(NamedTuple):
    """Seconds of one process, and where that is from. besides: what of it no record will tell, starting and keeping features."""

    seconds: float
    source: str
    besides: float = 0.0


class Kind(NamedTuple):
    """Jobs whose times are in proportion to what they amount to."""

    stage: str  # "pretrain" with its method, "linear" with its solver, "finetune"
    backbone: str
    image_size: int
    precision: str


class Prices:
    """Prices of jobs on one target. runs: where finished runs and calibrations lie."""

    def __init__(self, runs: Path, target: Target) -> None:
        self.runs, self.target, self.rates = runs, target, calibrated(runs, target)
        self.learned: dict[Kind, tuple[float, float, int]] = {}  # seconds as they were, as they would be priced, and of how many

    def learn(self, run: Run, protocol: Protocol | None, record: Mapping[str, Any]) -> None:
        """Take what a finished job took, if it was on a device of the kind that is asked for."""
        seconds, kind = record.get("seconds", 0), kind_of(run, protocol)
        good = isinstance(seconds, int | float) and seconds > 0
        if not good or kind.stage == "calibrate" or not self.target.like(str(record.get("device"))):
            return
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        if count < ENOUGH:
            self.learned[kind] = (was + seconds, would + self.base(run, protocol).seconds, count + 1)

    def search(self, kinds: Iterable[Kind]) -> None:
        """Look for finished jobs of these kinds among all runs. A folder or file that is not of this version teaches nothing."""
        wanted = set(kinds) - set(self.learned)
        for folder in run_folders(self.runs)[:LOOKED] if wanted else ():
            with suppress(InputError, LookupError, TypeError, AttributeError):
                values = folder.recorded_fields
                if not any((values["backbone"], values["image_size"]) == (k.backbone, k.image_size) for k in wanted):
                    continue
                run = Run.known(values)
                made = folder.encoder_record(verify=False)
                if made and kind_of(run, None) in wanted:
                    self.learn(run, None, made)
                for path in folder.result_paths():
                    with suppress(InputError, LookupError, TypeError, AttributeError):
                        found = read_json(path, verify=False) or {}
                        self._learn(run, PROTOCOLS[found["stage"]].parse(found["protocol"]), found, wanted)

    def _learn(self, run: Run, protocol: Protocol, record: Mapping[str, Any], wanted: set[Kind]) -> None:
        if kind_of(run, protocol) in wanted:
            self.learn(run, protocol, record)

    def base(self, run: Run, protocol: Protocol | None) -> Price:
        """What a job would take by calibration, or by guess: what its record calls seconds, so without its start."""
        done = amounts.encoder(run) if protocol is None else amounts.result(run, protocol)
        return self._priced(run, kind_of(run, protocol).precision, {k: v for k, v in done.items() if k != "start"})

    def of(self, run: Run, protocol: Protocol | None) -> Price:
        """What a job will take. An encoder's price has its process's start in it."""
        base, kind = self.base(run, protocol), kind_of(run, protocol)
        begun = self._priced(run, kind.precision, {"start": 1}).seconds if protocol is None else 0.0
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        if not would:
            return Price(base.seconds + begun, base.source, begun)
        return Price(base.seconds * was / would + begun, f"as {count} finished" if count > 1 else "as one finished", begun)

    def features(self, run: Run, protocol: Linear) -> Price:
        """What the pass takes that keeps the features of all images, once for an encoder."""
        return self._priced(run, protocol.features, amounts.features(run))

    def _priced(self, run: Run, precision: str, done: amounts.Amounts) -> Price:
        coefficients, source = self.rates.of(run.backbone, run.image_size, precision, done)
        return Price(dot(coefficients, done), source)


def kind_of(run: Run, protocol: Protocol | None) -> Kind:
    """The kind of a job; a protocol of None means the encoder."""
    if isinstance(protocol, Linear):
        return Kind(f"linear {protocol.solver}", run.backbone, run.image_size, protocol.features)
    if protocol:
        return Kind("finetune", run.backbone, run.image_size, protocol.precision)
    stage, precision = (f"pretrain {run.method}", run.precision) if run.epochs else ("calibrate", "float32")
    return Kind(stage, run.backbone, run.image_size, precision)


def dot(coefficients: Coefficients, done: amounts.Amounts) -> float:
    """Seconds that some amounts take."""
    return sum(coefficients[k] * v for k, v in done.items())
