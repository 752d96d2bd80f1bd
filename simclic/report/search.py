"""A search in an exhibit: of the values of one field that meet in a cell, the one with the lowest error on val is shown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from simclic.data import title
from simclic.experiment import Exhibit, Figure, Job, Protocol, Run
from simclic.report.results import Results, keep_comparable
from simclic.report.time_spent import sum_seconds
from simclic.store.run_files import DIVERGED
from simclic.store.run_folder import RunFolder
from simclic.text import format_seconds


@dataclass(frozen=True)
class Choice:
    """The search in one cell under one protocol.

    jobs: those of the chosen value, all seeds; none before a value is complete. value: the chosen one. values: all that are
    searched, in the order of their declaration. done: how many are complete: each seed has a result, or one diverged.
    """

    jobs: tuple[Job, ...]
    value: Any = None
    values: tuple[Any, ...] = ()
    done: int = 0

    @property
    def is_final(self) -> bool:
        """Whether all values are complete, so that the choice cannot change."""
        return self.done == len(self.values)

    @property
    def is_at_end(self) -> bool:
        """Whether the chosen value is the smallest or the largest of several, so that a better one may lie outside."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        return len(numbers) == len(self.values) > 1 and self.value in (min(numbers), max(numbers))


def choose_value(results: Results, jobs: Sequence[Job], search: str) -> Choice:
    """Choose between the values of the field `search` among the jobs of one cell under one protocol, never by an error on test.

    The value with the lowest mean error on val over its seeds is chosen; of equal ones the first. Without a search all jobs are.
    """
    if not search:
        return Choice(tuple(jobs))
    rows = {f"{row['name']}/{row['protocol']}": row for row in keep_comparable(results.rows_of(jobs))}
    by_value: dict[Any, list[Job]] = {}
    for job in jobs:
        by_value.setdefault(getattr(job.run, search), []).append(job)
    if len(by_value) < 2:
        return Choice(tuple(jobs))
    errors, diverged = {}, 0
    for value, seeds in by_value.items():
        on_val = [_val_error(rows[job.name]) for job in seeds if job.name in rows]
        if len(on_val) == len(seeds) and None not in on_val:
            errors[value] = fmean(error for error in on_val if error is not None)
        else:
            diverged += any(has_diverged(results, job) for job in seeds if job.name not in rows)
    best = min(errors, key=lambda value: errors[value], default=None)
    chosen = tuple(by_value[best]) if errors else ()
    return Choice(chosen, best, tuple(by_value), len(errors) + diverged)


def _val_error(row: dict[str, Any]) -> float | None:
    """Return the error on val by which a result chose its own settings."""
    error = row["chosen"].get("val_error")
    return float(error) if isinstance(error, int | float) else None


def has_diverged(results: Results, job: Job) -> bool:
    """Return whether the training of a job's encoder, or the job itself, diverged."""
    folder = RunFolder(results.runs, job.run)
    return any(DIVERGED in folder.failure_text(name) for name in ("pretrain", job.failure_name))


def choose_values(exhibit: Exhibit, results: Results) -> dict[tuple[Any, Protocol], Choice]:
    """Return the choice in each cell under each protocol of an exhibit that searches."""
    cells = exhibit.group_by_place(exhibit.jobs)
    return {place: choose_value(results, jobs, exhibit.search) for place, jobs in cells.items()}


def select_shown(exhibit: Exhibit, results: Results, jobs: Iterable[Job] | None = None) -> tuple[Job, ...]:
    """Return the jobs whose numbers an exhibit shows as final: all of them, or those of the values that a finished search chose.

    jobs: some of the exhibit's, by default all.
    """
    jobs = exhibit.jobs if jobs is None else tuple(jobs)
    if not exhibit.search:
        return jobs
    shown = {job for choice in choose_values(exhibit, results).values() if choice.is_final for job in choice.jobs}
    return tuple(job for job in jobs if job in shown)


def list_search_notes(exhibit: Exhibit, results: Results) -> Iterator[str]:
    """Yield what a search chose under each protocol, that choices lie at an end of the range, what is missing, and its cost."""
    if not exhibit.search:
        return
    choices = {place: choice for place, choice in choose_values(exhibit, results).items() if choice.values}
    name = exhibit.search
    for protocol in exhibit.plain_protocols:
        final = [c for (_, p), c in choices.items() if p == protocol and c.is_final and c.jobs]
        if final:
            yield f"{protocol.title}: {name} {_describe_rule(exhibit)}: {_join_places(exhibit, final)}"
    if any(choice.is_at_end and choice.is_final for choice in choices.values()):
        yield f"*: at an end of the values of {name} that were tried; a better one may lie outside"
    if unfinished := sum(not choice.is_final for choice in choices.values()):
        shown = (
            "has no point"
            if isinstance(exhibit, Figure)
            else "says how many values have been run, as in (1 of 3), and has no rank"
        )
        yield f"the search of {name} is not finished for {unfinished} of {len(choices)} numbers; such a number {shown}"
    chosen = dict.fromkeys(job for choice in choices.values() if choice.is_final for job in choice.jobs)
    searched = [job for job in exhibit.jobs if job.run.values[name] is not None and name not in job.run.unread]
    if spent := sum_seconds(searched, results):
        done = f"the values of {name} that are done" if unfinished else f"all values of {name}"
        needed = format_seconds(sum_seconds(chosen, results))
        yield f"measured time of {done}: {format_seconds(spent)}; of the chosen values alone: {needed}"


def _describe_rule(exhibit: Exhibit) -> str:
    same = {run.split for run in exhibit.runs} == {"paper"}
    return "chosen by the error on val" + (", on the images that are reported on" if same else ", never on test")


def _join_places(exhibit: Exhibit, choices: Sequence[Choice]) -> str:
    """Return "BYOL 0.3; DINO 0.1 (CIFAR10), 0.3 (DTD)": places are named where one method chose several values. *: at an end."""
    by_label: dict[str, dict[str, list[str]]] = {}
    for choice in choices:
        run = choice.jobs[0].evaluated
        value = _format_value(choice.value) + "*" * choice.is_at_end
        by_label.setdefault(run.label, {}).setdefault(value, []).append(_format_place(exhibit, run))
    axis = _axis_of(exhibit)
    name = "" if axis == "dataset" else f"{axis.replace('_', ' ')} "
    parts = []
    for label, values in by_label.items():
        named = len(values) > 1
        parts.append(f"{label} " + ", ".join(v + f" ({name}{', '.join(at)})" * named for v, at in values.items()))
    return "; ".join(parts)


def _axis_of(exhibit: Exhibit) -> str:
    """Return along what an exhibit spreads the numbers of one method."""
    axis = exhibit.x if isinstance(exhibit, Figure) else getattr(exhibit, "columns", "dataset")
    return axis if isinstance(axis, str) else "dataset"


def _format_place(exhibit: Exhibit, run: Run) -> str:
    axis = _axis_of(exhibit)
    return title(run.dataset) if axis == "dataset" else _format_value(getattr(run, axis))


def _format_value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
