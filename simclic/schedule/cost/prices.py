"""How long a job will take: by finished jobs of its kind, else by calibration, else by a stated guess."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simclic.data import lies_in_files
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Finetune, Linear, OnFeatures, Protocol, Run, evaluated_run
from simclic.files import read_json
from simclic.schedule.cost import work_amounts
from simclic.schedule.cost.rates import FOLDER, Price, Rates, Target, gpu_kind, read_rates
from simclic.store.run_folder import run_folders

MAX_LEARNED = 20  # finished jobs of one kind; more would change little
MAX_FOLDERS = 1000  # that are searched for finished jobs
FOREIGN = (InputError, LookupError, TypeError, AttributeError)  # what reading a file of another version may raise


class JobKind(NamedTuple):
    """Jobs whose times are in proportion to their amount of work."""

    stage: str  # "pretrain" with its method, "linear" with its solver, "finetune", "knn"
    backbone: str
    image_size: int
    precision: str


class Prices:
    """Prices of jobs on one target. runs: where finished runs and calibrations lie."""

    def __init__(self, runs: Path, target: Target) -> None:
        self.runs, self.target, self.rates = runs, target, read_rates(runs, target)
        self.learned: dict[JobKind, tuple[float, float, int]] = {}  # measured seconds, seconds by base_price, number of jobs

    def learn_from(self, run: Run, protocol: Protocol | None, record: Mapping[str, Any], kinds: Collection[JobKind] = ()) -> None:
        """Learn from a finished job if it ran on a device of the target's kind. kinds: those to learn; none for all."""
        seconds, kind = record.get("seconds", 0), kind_of(run, protocol)
        useful = isinstance(seconds, int | float) and seconds > 0 and kind.stage != "calibrate" and (kind in kinds or not kinds)
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        if useful and count < MAX_LEARNED and self.target.is_same_kind(str(record.get("device"))):
            ranks = record.get("ranks") or [1]
            self.learned[kind] = (
                was + seconds * self.rates.speed_up(run, int(ranks[-1]))[0],
                would + self.base_price(run, protocol, str(record.get("watch_on") or "")).seconds,
                count + 1,
            )

    def learn_from_runs(self, kinds: Iterable[JobKind]) -> None:
        """Learn from finished jobs of these kinds in all run folders. Files of another version are skipped."""
        wanted = set(kinds) - set(self.learned)
        networks = {(kind.backbone.split()[0], kind.image_size) for kind in wanted}
        for folder in run_folders(self.runs)[:MAX_FOLDERS] if wanted else ():
            with suppress(*FOREIGN):
                values = folder.recorded_fields
                if (values["backbone"], values["image_size"]) not in networks:
                    continue
                run = Run.known(values)
                self.learn_from(run, None, folder.encoder_record(verify=False) or {}, wanted)
                for path in folder.result_paths():
                    with suppress(*FOREIGN):
                        record = read_json(path, verify=False) or {}
                        self.learn_from(run, PROTOCOLS[record["stage"]].parse(record["protocol"]), record, wanted)

    def base_price(self, run: Run, protocol: Protocol | None, watch_on: str = "") -> Price:
        """Return the price of a job by calibration or guess, without the start of its process. watch_on: as in ComputeOptions."""
        return self.rates.price_amounts(run, kind_of(run, protocol).precision, _amounts_without_start(run, protocol, watch_on))

    def price_job(self, run: Run, protocol: Protocol | None) -> Price:
        """Return the price of a job. An encoder's includes the start of its process."""
        base, kind = self.base_price(run, protocol, self.target.watch_on), kind_of(run, protocol)
        start = self.rates.price_amounts(run, kind.precision, {"start": 1}).seconds if protocol is None else 0.0
        was, would, count = self.learned.get(kind, (0.0, 0.0, 0))
        ranks = self.target.ranks if protocol is None and run.epochs else 1
        seconds, source = base.seconds, base.source + self._explain_decoding(run, protocol)
        if would:
            seconds, source = base.seconds * was / would, f"as {count} finished" if count > 1 else "as one finished"
        if ranks > 1:
            times, by = self.rates.speed_up(run, ranks)
            seconds, source = seconds / times, f"{source}; {by}"
        if isinstance(protocol, Finetune) and (count := min(self.target.grid_devices, len(protocol.settings))) > 1:
            parts = self.rates.price_amounts(run, kind.precision, work_amounts.result_amounts(run, protocol, count))
            wall = seconds * parts.seconds / base.seconds
            return Price(wall, f"{source}; the grid in {count} parts", devices=seconds / wall)
        return Price(seconds + start, source, start, ranks)

    def price_features(self, run: Run, protocol: OnFeatures) -> Price:
        """Return the price of computing the features of all images, once for an encoder."""
        price = self.rates.price_amounts(run, protocol.features, work_amounts.feature_amounts(evaluated_run(run, protocol)))
        return price._replace(source=price.source + self._explain_decoding(evaluated_run(run, protocol), None))

    def _explain_decoding(self, run: Run, protocol: Protocol | None) -> str:
        """Return what a guessed or calibrated price leaves out where a job decodes images as it needs them; "" if nothing."""
        decodes = not isinstance(protocol, OnFeatures) and lies_in_files(evaluated_run(run, protocol).dataset)
        return ", without decoding images" if decodes and self.target.decode != "once" else ""


def guess_seconds(run: Run, protocol: Protocol | None) -> float:
    """Return the seconds of a job on a CPU by guesses alone: enough to compare jobs with each other."""
    return Rates(Target(), []).price_amounts(run, "", _amounts_without_start(run, protocol)).seconds


def _amounts_without_start(run: Run, protocol: Protocol | None, watch_on: str = "") -> work_amounts.Amounts:
    """Return the work of a job without the start of its process."""
    done = work_amounts.encoder_work(run, watch_on) if protocol is None else work_amounts.result_amounts(run, protocol)
    return {name: amount for name, amount in done.items() if name != "start"}


def prices_on(runs: Path, device: str) -> Prices:
    """Return prices by the calibration of a device of this name, else by guesses."""
    kind = "cpu" if device == "cpu" else gpu_kind(device)
    for path in sorted((runs / FOLDER).glob("*.json")):
        with suppress(InputError):
            if (read_json(path, verify=False) or {}).get("device") == device:
                return Prices(runs, Target(path.stem, kind))
    return Prices(runs, Target("", kind))  # no calibration has this name


def kind_of(run: Run, protocol: Protocol | None) -> JobKind:
    """Return the kind of a job. protocol: None for the encoder."""
    if isinstance(protocol, Linear):
        return JobKind(f"linear {protocol.solver}", run.network, run.image_size, protocol.features)
    if protocol:
        precision = protocol.precision if isinstance(protocol, Finetune) else protocol.features
        return JobKind(protocol.stage, run.network, run.image_size, precision)
    stage, precision = (f"pretrain {run.method}", run.precision) if run.epochs else ("calibrate", "float32")
    return JobKind(stage, run.network, run.image_size, precision)
