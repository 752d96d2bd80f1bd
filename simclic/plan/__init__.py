"""Exhibits -> the jobs they need: asked, shared, done, failed, missing. Neither torch nor pandas, so it answers at once."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simclic import data, store
from simclic.spec import Finetune, InputError, Linear, Protocol, Run, Suite
from simclic.spec.methods import not_imported

STAGES = ("pretrain", "calibrate", "linear", "finetune")


@dataclass
class Line:
    """One exhibit and stage. `shared` jobs stand in an earlier line too; of the others, so many are done, failed, missing."""

    exhibit: str
    stage: str
    asked: int = 0
    shared: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0


@dataclass
class Plan:
    """What the exhibits ask for and what is left to do: each Run with the protocols whose result is missing."""

    lines: list[Line] = field(default_factory=list)
    work: list[tuple[Run, tuple[Protocol, ...]]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # job -> why it failed or cannot be read
    broken: dict[str, str] = field(default_factory=dict)  # of those, the jobs whose files cannot be trusted: left alone
    absent: dict[str, str] = field(default_factory=dict)  # data set or starting point -> what of it is not there

    def totals(self) -> list[Line]:
        """One line per stage over all exhibits, and one over everything."""
        stages = [(s, [ln for ln in self.lines if ln.stage == s]) for s in STAGES]
        return [_sum("all", s, lines) for s, lines in stages if lines] + [_sum("all", "", self.lines)]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "lines": [asdict(line) for line in self.lines], "totals": [asdict(line) for line in self.totals()],
            "reasons": self.reasons, "absent": self.absent,
            "missing": [{"run": run.name, "protocols": [p.name for p in protocols]} for run, protocols in self.work],
        }  # fmt: skip


def plan(suites: Iterable[Suite], runs: Path, root: Path) -> Plan:
    """Compare what exhibits ask for with what lies under `runs`; data sets are looked for under `root`.

    Raises InputError for an unknown data set, and for a run.json that disagrees with its Run.
    """
    made, seen, left = Plan(), set[str](), dict[Run, list[Protocol]]()
    for suite in suites:
        for exhibit in suite.exhibits:
            lines = {stage: Line(f"{suite.name} {exhibit.name}".strip(), stage) for stage in STAGES}
            for run, protocol in exhibit.jobs:
                if problem := data.missing(run.dataset, root):
                    made.absent[run.dataset] = problem
                if problem := not_imported(runs, run.init):
                    made.absent[run.init] = problem
                state, reason = look(runs, run, protocol)
                if state in ("missing", "failed") and protocol not in left.setdefault(run, []):
                    left[run].append(protocol)
                _count(lines[protocol.stage], f"{run.name}/{protocol.name}", state, reason, seen, made)
            for run in dict.fromkeys(run for run, _ in exhibit.jobs):
                stage = "pretrain" if run.epochs else "calibrate"
                state, reason = look_at_encoder(runs, run, needed=bool(left.get(run)))
                _count(lines[stage], f"{run.name}/{stage}", state, reason, seen, made)
            made.lines += [line for line in lines.values() if line.asked]
    made.work = [(run, tuple(protocols)) for run, protocols in left.items() if protocols]
    return made


def look(runs: Path, run: Run, protocol: Protocol, verify: bool = True) -> tuple[str, str]:
    """The state of one result (done, failed, broken, missing) and why. verify: as in store.result."""
    try:
        if store.result(runs, run, protocol, verify) is not None:
            return "done", ""
    except store.Broken as e:
        return "broken", str(e)
    reason = store.failure(runs, run, protocol.stage)
    return ("failed", reason) if reason else ("missing", "")


def look_at_encoder(runs: Path, run: Run, needed: bool) -> tuple[str, str]:
    """The state of an encoder; one that no missing result needs counts as done."""
    try:
        store.agrees(runs, run)
        if not needed or store.read_json(store.folder(runs, run) / "pretrain.json") is not None:
            return "done", ""
    except store.Broken as e:
        return "broken", str(e)
    reason = store.failure(runs, run, "pretrain")
    return ("failed", reason) if reason else ("missing", "")


def cost(run: Run, protocols: Iterable[Protocol]) -> float:
    """A rough price, in images that pass through the network and back, for the estimate of what is left."""
    train, val, _ = data.facts(run.dataset).sizes
    small = 1 + 32 / run.batch_size  # a step has a price of its own, whatever its size
    price = run.epochs * (train + val) * small
    for protocol in protocols:
        if isinstance(protocol, Finetune):
            price += (len(protocol.settings) + 1) * protocol.steps * protocol.batch_size
        elif isinstance(protocol, Linear):
            price += (0.1 if protocol.solver == "converged" else 0.5) * protocol.l2_count * (train + val)
    return price


def runnable(made: Plan) -> list[tuple[Run, tuple[Protocol, ...]]]:
    """The work whose data set and starting point are there. Raises InputError if that leaves nothing of what is missing."""
    ready = [(run, ps) for run, ps in made.work if run.dataset not in made.absent and run.init not in made.absent]
    if made.work and not ready:
        raise InputError("\n".join(made.absent.values()))
    return ready


def _count(line: Line, job: str, state: str, reason: str, seen: set[str], made: Plan) -> None:
    line.asked += 1
    if job in seen:
        line.shared += 1
        return
    seen.add(job)
    line.done += state == "done"
    line.failed += state in ("failed", "broken")
    line.missing += state == "missing"
    if reason:
        made.reasons[job] = reason
    if state == "broken":
        made.broken[job] = reason


def _sum(exhibit: str, stage: str, lines: list[Line]) -> Line:
    counts = {k: sum(getattr(ln, k) for ln in lines) for k in ("asked", "shared", "done", "failed", "missing")}
    return Line(exhibit, stage, **counts)
