"""What a job will take, best source first: finished runs of like kind, what was calibrated, a stated guess."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from simclic import store
from simclic.cost import amounts
from simclic.cost.rates import Coefficients, Rates, Target, calibrated
from simclic.spec import Finetune, Linear, Protocol, Run

ENOUGH = 20  # finished jobs of one kind; more would not be told apart from these
LOOKED = 300  # folders at most in which they are looked for


class Price(NamedTuple):
    """Seconds of one process, and where that is from. besides: what of it no record will tell, starting and keeping features."""

    seconds: float
    source: str
    besides: float = 0.0


class Kind(NamedTuple):
    """Jobs whose times are in proportion to what they amount to."""

    stage: str  # "pretrain", "linear" with its solver, "finetune"
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
        seconds, kind = record.get("seconds"), kind_of(run, protocol)
        if not seconds or not self.target.like(str(record.get("device"))) or (protocol is None and not run.epochs):
            return
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        if count < ENOUGH:
            self.learned[kind] = (was + seconds, would + self.base(run, protocol).seconds, count + 1)

    def search(self, kinds: Iterable[Kind]) -> None:
        """Look for finished jobs of these kinds among all runs."""
        wanted = set(kinds) - set(self.learned)
        for folder in sorted(self.runs.glob("[!.]*/"))[:LOOKED] if wanted else ():
            try:
                values = (store.read_json(folder / "run.json", verify=False) or {}).get("run", {})
                if not any((values.get("backbone"), values.get("image_size")) == (k.backbone, k.image_size) for k in wanted):
                    continue
                run = Run.known(values)
                made = store.read_json(folder / "pretrain.json", verify=False)
                if made and kind_of(run, None) in wanted:
                    self.learn(run, None, made)
                for path in folder.glob("[lf]*-*.json"):
                    protocol = Finetune if path.stem.startswith("finetune-") else Linear
                    found = store.read_json(path, verify=False) or {}
                    if found.get("stage") == protocol.stage:
                        self._learn(run, protocol.parse(found["protocol"]), found, wanted)
            except store.Broken:
                continue

    def _learn(self, run: Run, protocol: Protocol, record: Mapping[str, Any], wanted: set[Kind]) -> None:
        if kind_of(run, protocol) in wanted:
            self.learn(run, protocol, record)

    def base(self, run: Run, protocol: Protocol | None) -> Price:
        """What a job would take by calibration, or by guess: what its record calls seconds, so without its start."""
        kind = kind_of(run, protocol)
        coefficients, source = self.rates.of(run.backbone, run.image_size, kind.precision)
        done = amounts.encoder(run) if protocol is None else amounts.result(run, protocol)
        return Price(dot(coefficients, {k: v for k, v in done.items() if k != "start"}), source)

    def of(self, run: Run, protocol: Protocol | None) -> Price:
        """What a job will take. An encoder's price has its process's start in it."""
        base, kind = self.base(run, protocol), kind_of(run, protocol)
        coefficients, _ = self.rates.of(run.backbone, run.image_size, kind.precision)
        begun = coefficients["start"] if protocol is None else 0.0
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        if not would:
            return Price(base.seconds + begun, base.source, begun)
        return Price(base.seconds * was / would + begun, f"as {count} finished" if count > 1 else "as one finished", begun)

    def features(self, run: Run, protocol: Linear) -> Price:
        """What the pass takes that keeps the features of all images, once for an encoder."""
        coefficients, source = self.rates.of(run.backbone, run.image_size, protocol.features)
        return Price(dot(coefficients, amounts.features(run)), source)


def kind_of(run: Run, protocol: Protocol | None) -> Kind:
    """The kind of a job; a protocol of None means the encoder."""
    if isinstance(protocol, Linear):
        return Kind(f"linear {protocol.solver}", run.backbone, run.image_size, protocol.features)
    if protocol:
        return Kind("finetune", run.backbone, run.image_size, protocol.precision)
    return Kind("pretrain", run.backbone, run.image_size, run.precision if run.epochs else "float32")


def dot(coefficients: Coefficients, done: amounts.Amounts) -> float:
    """Seconds that some amounts take."""
    return sum(coefficients[k] * v for k, v in done.items())


__all__ = ["Coefficients", "Kind", "Price", "Prices", "Rates", "dot", "kind_of"]
