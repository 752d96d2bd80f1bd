"""What lies under `runs` already and is almost what is wanted, field by field."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simclic.errors import InputError
from simclic.experiment import Protocol, Run
from simclic.schedule.cell import plain
from simclic.store import results as store

FEW = 6  # fields; what differs in more is another experiment and no help
ELSEWHERE = 2  # as many, of a run on another data set
READ = 400  # folders whose run.json is read, those of the same data set first
SHOWN = 3  # neighbours that are equally near
NOTHING = "nothing"


@dataclass(frozen=True)
class Difference:
    """A field's value in a file and in what is wanted; None with `absent` set if the file does not have the field."""

    name: str
    there: Any
    here: Any
    absent: str = ""  # "there" or "here"

    def __str__(self) -> str:
        there, here = (NOTHING if self.absent == side else _shown(getattr(self, side)) for side in ("there", "here"))
        return f"{plain(self.name)} {there} there, {here} here"


@dataclass(frozen=True)
class Neighbour:
    """A folder or file of another name than what is wanted, and in what it differs: nothing if it is the same, renamed.

    result: a Run's folder has a result under the protocol that is wanted.
    """

    name: str
    differ: tuple[Difference, ...]
    result: bool = False

    def __str__(self) -> str:
        return f"{plain(self.name)}: {listed(self.differ)}" + ("; it has this result" if self.result else "")


@dataclass
class Existing:
    """What the folders of `runs` say of themselves. unread: how many more there are than READ."""

    runs: Path
    folders: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> run.json
    unread: int = 0

    @classmethod
    def read(cls, runs: Path, wanted: Iterable[Run]) -> "Existing":
        """Every run.json that can be trusted."""
        first = tuple({run.name.removesuffix(f"{run.kind}-{run.digest}") for run in wanted})
        names = sorted((p.parent.name for p in runs.glob("*/run.json")), key=lambda name: (not name.startswith(first), name))
        found = {name: recorded(runs / name / "run.json") for name in names[:READ]}
        return cls(runs, {name: values for name, values in found.items() if "run" in values}, len(names[READ:]))

    def near(self, run: Run, protocol: Protocol) -> list[Neighbour]:
        """The folders of other names that differ in the fewest fields, those with the result first. The seed counts least."""
        rated = []
        for name, values in self.folders.items():
            differ = differences(values["run"], run.values)
            names = {d.name for d in differ}
            if name != run.name and len(names) <= (ELSEWHERE if "dataset" in names else FEW):
                has = (self.runs / name / f"{protocol.name}.json").is_file()
                rated.append(((len(names - {"seed"}), "seed" in names, "dataset" in names), Neighbour(name, differ, has)))
        least = min((rate for rate, _ in rated), default=None)
        best = [near for rate, near in rated if rate == least]
        return sorted(best, key=lambda near: not near.result)[:SHOWN]

    def digests(self, run: Run) -> dict[str, int]:
        """How many runs of the same data set and split carry which digest of it."""
        counts: dict[str, int] = {}
        for values in self.folders.values():
            if all(values["run"].get(name) == getattr(run, name) for name in ("dataset", "split")):
                digest = str(values.get("data"))
                counts[digest] = counts.get(digest, 0) + 1
        return counts


def results(runs: Path, run: Run, protocol: Protocol) -> list[Neighbour]:
    """The other results of a Run at the same stage whose protocols differ in the fewest fields."""
    paths = sorted(store.folder(runs, run).glob(f"{protocol.stage}-*.json"))[:READ]
    found = [(path.stem, recorded(path).get("protocol")) for path in paths if path.stem != protocol.name]
    near = [Neighbour(stem, differences(values, protocol.values)) for stem, values in found if isinstance(values, dict)]
    near = [one for one in near if len(one.differ) <= FEW]
    return [one for one in near if len(one.differ) == min(len(other.differ) for other in near)][:SHOWN]


def recorded(path: Path) -> Mapping[str, Any]:
    """What a JSON file holds, if it is there and whole; a `run` that is no table of fields is left out."""
    try:
        found = store.read_json(path) or {}
    except store.Broken:
        return {}
    return {k: v for k, v in found.items() if k != "run" or isinstance(v, dict)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every field that does not have the same value, in the order of `here`."""
    missing = {k: "here" if k in there else "there" for k in {*there} ^ {*here}}
    return tuple(
        Difference(k, there.get(k), here.get(k), missing.get(k, ""))
        for k in dict.fromkeys((*here, *sorted(there)))
        if k in missing or there[k] != here[k]
    )


def listed(differ: Iterable[Difference]) -> str:
    """Differences in one line."""
    return "; ".join(map(str, differ)) or "the same in every field"


def now_called(values: Mapping[str, Any]) -> str:
    """The name that this version gives to the Run of a run.json; empty if it cannot read it as one."""
    try:
        run = Run.known(values)
    except InputError:
        return ""
    return run.name if run.values == values else ""


def _shown(value: Any) -> str:
    text = plain(repr(value))
    return text if len(text) <= 80 else f"{text[:79]}…"
