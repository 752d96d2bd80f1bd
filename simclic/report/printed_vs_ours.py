"""Every printed number beside what was run for it: stored, ours, difference, a verdict and its rule."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from simclic.data import FACTS, distinct_title, title
from simclic.experiment import Finetune, Job, Linear, Protocol, Run, Table, evaluated_run
from simclic.experiment.baselines import METHODS, OWN_INPUT
from simclic.report.cell_keys import (
    ASSUMED_SIZES,
    PRINTED_ROWS,
    SOURCE,
    Key,
    group_by_key,
    printed_row_of,
    read_printed_cells,
    read_provenance,
)
from simclic.report.noise import Difference, Measured, subtract_printed
from simclic.report.results import Results, keep_comparable
from simclic.report.search import select_shown
from simclic.report.sheet import DASH
from simclic.report.stored_numbers import column_of, read_stored_numbers, row_of
from simclic.report.tables import Failures
from simclic.text import format_signed

Verdict = Literal["reproduced", "differs", "not comparable", "not run"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "differs", "not comparable", "not run")

VERDICT_RULE = (
    "Reproduced: the difference is within the tolerance. The tolerance of a cell is the half width of the 95 % interval of that "
    "difference. It follows from the number of test images on either side and, if several seeds were run, from their spread, "
    "which is also taken as the spread of the printed number. With one seed it follows from the images alone and is too small. "
    "Two numbers on the same test images are treated as independent, which makes the tolerance too large. By chance, one in "
    "twenty compared cells would differ. Not comparable: our run measures something else than the printed number; the reason "
    "and the difference are shown. As published, a probe stops early: reruns of its source with the training images in another "
    "order differ by 2 to 7 points at single values of l2, which no tolerance counts. benchmarks/as_printed.py runs what "
    "SimCLIC's own rows can be compared with. "
    f"Of these rows {ASSUMED_SIZES}."
)

# What the paper says of SimCLIC's training and evaluation; every other field is a choice where it is silent (see choices).
STATED = (
    "backbone", "image_size", "perturbation", "epochs", "batch_size", "base_lr", "momentum", "weight_decay", "predictor",
    "similarity", "stop_gradient",
)  # fmt: skip
FIELD_WORDS = {"base_lr": "learning rate"}


@dataclass(frozen=True)
class PrintedVsOurs:
    """One printed number and what was run for it. ours: its mean and spread as text. stage: of its protocol."""

    protocol: str
    row: str
    column: str
    stored: str
    verdict: Verdict
    why: str = ""
    ours: str = DASH
    ours_minus_printed: Difference | None = None
    runs: tuple[str, ...] = ()
    images: int = 0
    stage: str = ""

    @property
    def difference(self) -> str:
        """Ours minus printed, in points with a sign."""
        return format_signed(self.ours_minus_printed.points) if self.ours_minus_printed else DASH

    @property
    def tolerance(self) -> str:
        """The difference in points that chance alone explains."""
        compared = self.ours_minus_printed and self.verdict in ("reproduced", "differs")
        return f"{self.ours_minus_printed.within:.2f}" if self.ours_minus_printed and compared else DASH


def compare_with_printed(table: Table, results: Results, baselines: Path, failures: Failures) -> list[PrintedVsOurs]:
    """Return one comparison per printed number of this table and protocol, and per data set that replaces a printed one."""
    if isinstance(table.columns, tuple):
        return list(_compare_details(table, baselines))
    if not (table.paper or table.beside):
        return list(_compare_stored(table, results, baselines, failures))
    exhibit = table.paper or table.beside
    rows = [row for row in read_provenance(baselines) if f"table{row['table']}" == exhibit and row["metric"]]
    if table.beside:
        rows = [row for row in rows if row["row"] in METHODS.values()]
    to_printed = row_of if table.beside else printed_row_of
    printed = read_printed_cells(baselines)
    comparisons, shown = [], select_shown(table, results)
    for protocol in table.plain_protocols:
        jobs = group_by_key(table, [job for job in shown if job.protocol and job.protocol.plain == protocol])
        for row in (row for row in rows if row["protocol"] == protocol.stage):
            key = Key(f"table{row['table']}", row["protocol"], _printed_dataset(row), row["row"])
            # Tables 4-6 may have been moved to another data set than CIFAR10; Table 2 has a column for each.
            ours = [k for k in jobs if to_printed(str(k.at)) == str(key.at)
                    and (k.dataset == key.dataset or table.columns != "dataset")]  # fmt: skip
            comparisons += [_compare_number(row, printed[key], k, jobs[k], results, failures) for k in ours]
            if not ours:
                where = (protocol.title, row["row"], key.dataset, row["printed"])
                comparisons.append(PrintedVsOurs(*where, "not run", _explain_no_run(row), stage=protocol.stage))
    return comparisons


def count_verdicts(comparisons: Sequence[PrintedVsOurs]) -> dict[str, int]:
    """Count printed numbers by verdict. One that was run under two protocols counts once, by the first that compares."""
    verdicts: dict[tuple[str, str, str], list[Verdict]] = {}
    for cell in comparisons:
        verdicts.setdefault((PRINTED_ROWS.get(cell.row, cell.row), cell.column, cell.stage), []).append(cell.verdict)
    rank = {"reproduced": 0, "differs": 0, "not comparable": 1, "not run": 2}
    best = [min(group, key=lambda v: rank[v]) for group in verdicts.values()]
    return {verdict: best.count(verdict) for verdict in VERDICTS}


def _printed_dataset(row: Mapping[str, str]) -> str:
    return row["column"] if row["table"] == "2" else "CIFAR10"


def _explain_no_run(row: Mapping[str, str]) -> str:
    ours = row["row"].startswith("SimCLIC") or row["table"] != "2"
    return "this exhibit does not run it" + ("" if ours else "; benchmarks/baselines.py measures it again")


def _compare_number(
    row: Mapping[str, str], stored: Measured, key: Key, jobs: list[Job], results: Results, failures: Failures
) -> PrintedVsOurs:
    run, protocol = jobs[0].run, jobs[0].protocol
    assert protocol is not None  # an exhibit shows results
    where = (protocol.title, str(key.at) if row["table"] == "2" else row["row"], key.dataset, row["printed"])
    departures, rows = [], keep_comparable(results.rows_of(jobs))
    if rows:
        departures = explain_not_comparable(run, protocol, row, str(rows[0]["metric"]))
        if rows[0]["superseded"] and row["row"] in METHODS.values():
            departures.append("other solver (stopped by another rule than theirs, by version 0.1.0)")
    return _judge_number(where, stored, jobs, departures, results, failures)


def _judge_number(
    where: tuple[str, str, str, str], stored: Measured, jobs: list[Job], departures: list[str], results: Results,
    failures: Failures,
) -> PrintedVsOurs:  # fmt: skip
    """Return the verdict on a printed number. where: protocol, row, column and the number as text. jobs: those of our cell."""
    protocol, rows = jobs[0].protocol, keep_comparable(results.rows_of(jobs))
    assert protocol is not None  # an exhibit shows results
    measured = results.measure_rows(rows)
    if measured is None:
        why = next((failures[job.run.name] for job in jobs if job.run.name in failures), "there is no result yet")
        return PrintedVsOurs(*where, "not run", why, stage=protocol.stage)
    difference = subtract_printed(measured, stored)
    verdict: Verdict = "not comparable" if departures else "differs" if difference.clear else "reproduced"
    spread = f" ± {measured.deviation:.2f}" if len(measured.seeds) > 1 else ""
    return PrintedVsOurs(
        *where, verdict, "; ".join(departures), f"{measured.value:.2f}{spread}", difference,
        tuple(str(r["name"]) for r in rows), measured.images, protocol.stage,
    )  # fmt: skip


def _compare_stored(table: Table, results: Results, baselines: Path, failures: Failures) -> Iterator[PrintedVsOurs]:
    """Yield the numbers that are stored for a table of one's own, under each protocol, beside what was run for them."""
    stored, shown = read_stored_numbers(table, baselines), select_shown(table, results)
    for protocol in table.plain_protocols:
        for number in (n for n in stored.numbers if n.stage == protocol.stage):
            place = (protocol, row_of(number.row), number.column)
            asked = [
                job for job in table.jobs
                if (job.protocol and job.protocol.plain, row_of(job.run.label), column_of(table, job.evaluated)) == place
            ]  # fmt: skip
            where = (protocol.title, number.row, number.column, number.text)
            final = [job for job in shown if job in asked]
            if not final:
                why = f"the search of {table.search} is not finished" if asked else "this exhibit does not run it"
                yield PrintedVsOurs(*where, "not run", why, stage=protocol.stage)
                continue
            printed = number.measured or Measured(float(number.text), 0)
            departures = [number.caveat] if number.caveat else []
            if not number.images:
                departures.append("other images (of the stored number neither the data set nor the split is known)")
            elif final[0].run.split != "ericsson":
                departures.append(f"other split ({final[0].run.split}; the stored number is of the test images)")
            elif number.dataset != title(final[0].dataset):
                departures.append(f"other data set ({title(final[0].dataset)} for {number.dataset})")
            yield _judge_number(where, printed, final, departures, results, failures)


def explain_not_comparable(run: Run, protocol: Protocol, row: Mapping[str, str], metric: str) -> list[str]:
    """Return why an error of ours cannot be compared with a printed number; empty if it can."""
    dataset, name = _printed_dataset(row), protocol.on or run.dataset
    departures = [] if name in FACTS and title(name) == dataset else [f"other data set ({title(name)} for {dataset})"]
    if not departures and metric != row["metric"]:
        departures.append(f"other metric ({metric}, printed: {row['metric']})")
    own = row["row"] in METHODS.values()
    return [
        *departures,
        *(_departures_from_cited(run, protocol, row["row"], dataset) if own else _departures_from_simclic(run, protocol, row)),
    ]


def _departures_from_simclic(run: Run, protocol: Protocol, row: Mapping[str, str]) -> Iterator[str]:
    """Yield departures from SimCLIC's own rows, which are scored on what the paper calls a validation set."""
    if run.split != "paper":
        yield f"other split (scored on test, {run.split}; the paper scores on its validation set)"
    if protocol.on:
        yield f"other training (on {title(run.dataset)}; theirs on the data set itself)"
    if run.method != "simclic":
        yield f"other method ({run.title})"
    if run.init != "random":
        yield f"other start ({run.init})"
    axis = {"2": "perturbation", "4": "predictor", "5": "stop_gradient", "6": "similarity"}.get(row["table"])
    yield from list_departures(run, [name for name in STATED if name != axis])
    yield from _protocol_departures(protocol, ("solver", "tolerance", "iterations", "features"))


def list_departures(run: Run, names: Iterable[str] = STATED) -> Iterator[str]:
    """Yield in which of these fields a Run is not as the paper says of SimCLIC."""
    usual = Run()
    for name in names:
        value, theirs = getattr(run, name), getattr(usual, name)
        if value != theirs:
            yield f"other {FIELD_WORDS.get(name, name.replace('_', ' '))} ({value} for {theirs})"


@cache
def _read_recipes() -> dict[str, tuple[int, int]]:
    """Return epochs and batch size of the cited methods' pre-training, as Table 3 prints them. *: of a re-implementation."""
    rows = csv.DictReader((SOURCE / "baselines/table3.csv").read_text(encoding="utf-8").splitlines())
    return {row["method"].rstrip("*"): (int(row["epochs"]), int(row["batch_size"])) for row in rows}


def _departures_from_cited(run: Run, protocol: Protocol, method: str, dataset: str) -> Iterator[str]:
    """Yield departures from the 13 cited rows, which Ericsson et al. measured."""
    if run.epochs and run.dataset != "imagenet":
        yield f"other training ({run.epochs} epochs on {distinct_title(run.dataset)}; theirs on ImageNet)"
    elif run.epochs:  # the recipes here are those for small images
        epochs, batch = _read_recipes()[method]
        ours = f"{run.epochs} epochs in batches of {run.batch_size}"
        yield f"other training (by the recipe here, {ours}; theirs by its authors', {epochs} in {batch})"
    if run.split != "ericsson":
        yield f"other split ({run.split})"
    elif dataset == "Caltech101":
        yield "other split (their list was drawn with replacement)"
    if not run.epochs and method in PRINTED_ROWS.values() and not run.init.endswith("-as-stored"):
        yield "other start (padded as its authors do; the stored row is not)"
    if not run.epochs and method in OWN_INPUT:
        yield "other input (its red divided by 0.228 as its authors do; the stored row's by 0.229)"
    yield from list_departures(evaluated_run(run, protocol), ("backbone", "image_size", "difficult"))
    if isinstance(protocol, Finetune):
        yield "other protocol (theirs: batch 64, 20 settings, with or without augmentation)"
    elif isinstance(protocol, Linear):
        if protocol.solver != "as-published":
            yield "other solver (theirs stopped after 100 iterations)"
        yield from _protocol_departures(protocol, ("solver", "features"))


def _protocol_departures(protocol: Protocol, free: tuple[str, ...]) -> Iterator[str]:
    """Yield the fields of a protocol that are not as the paper says. free: those on which it is silent."""
    silent = (*free, "on", "decay_over_lr", "augment", "eval_resize", "batch_norm", "precision")
    usual: Protocol = type(protocol)()
    differ = {k: v for k, v in protocol.values.items() if k not in silent and v != getattr(usual, k)}
    if differ:
        yield f"other protocol ({', '.join(f'{k} {v} for {getattr(usual, k)}' for k, v in differ.items())})"


def _compare_details(table: Table, baselines: Path) -> Iterator[PrintedVsOurs]:
    """Yield the cells of Table 3's row of SimCLIC: their words are equal or not."""
    path = baselines / f"{table.paper}.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    (stored,) = [row for row in rows if row["method"].startswith("SimCLIC")][:1] or [dict[str, Any]()]
    for run in (run for run in table.runs if stored and run.method == "simclic"):
        for name in (c for c in table.columns if c in stored):
            theirs, ours = _format_detail(stored[name]), _format_detail(getattr(run, name))
            verdict: Verdict = "reproduced" if ours == theirs else "differs"
            yield PrintedVsOurs(
                "", "SimCLIC", table.labels.get(name, name), theirs, verdict, "" if ours == theirs else "not equal", ours
            )


def _format_detail(value: Any) -> str:
    return {"x": "yes", "": "no", "True": "yes", "False": "no"}.get(str(value), str(value))
