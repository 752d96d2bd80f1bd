"""Why a cell of an exhibit is empty, and what else a reader must know of the results in it."""

from pathlib import Path
from statistics import fmean

from simclic.data import title
from simclic.experiment import METHODS, Exhibit, Linear, Run
from simclic.files import Broken
from simclic.report.results import Results, keep_comparable
from simclic.report.search import select_shown
from simclic.report.tables import Failures
from simclic.store.run_folder import RunFolder


def list_notes(exhibit: Exhibit, results: Results, failures: Failures, command: str) -> list[str]:
    """Return all notes: other data in pre-training, missing results and how to get them, mixed data, collapsed encoders,
    unsolved and superseded probes, and what methods need said."""
    return [
        *list_pretraining_data(exhibit), *list_missing(exhibit, results, failures, command), *list_mixed_data(exhibit, results),
        *list_chosen_on_val(exhibit, results), *list_further_errors(exhibit, results), *list_collapsed(exhibit, results),
        *list_unconverged(exhibit, results), *list_superseded(exhibit, results), *list_method_notes(exhibit, results),
    ]  # fmt: skip


def list_pretraining_data(exhibit: Exhibit) -> list[str]:
    """Return on what encoders were pre-trained that are evaluated on other data sets."""
    pairs: dict[str, dict[str, None]] = {}
    for job in exhibit.jobs:
        if job.dataset != job.run.dataset:
            pairs.setdefault(title(job.run.dataset), {})[title(job.dataset)] = None
    return [f"evaluated on {', '.join(on)}: encoders whose data set is {trained}" for trained, on in pairs.items()]


def list_chosen_on_val(exhibit: Exhibit, results: Results) -> list[str]:
    """Return a line if there are errors under the split that reports on what it chooses on."""
    if any(row["split"] == "paper" for row in results.rows_of(exhibit.jobs)):
        return ["split paper: these errors are on val, on which settings are chosen"]
    return []


def list_method_notes(exhibit: Exhibit, results: Results) -> list[str]:
    """Return what a reader must know of the methods that have a number in the exhibit."""
    trained = [METHODS[name] for name in dict.fromkeys(row["method"] for row in results.rows_of(exhibit.jobs)) if name in METHODS]
    return [f"{method.title}: {method.note}" for method in trained if method.note]


def list_further_errors(exhibit: Exhibit, results: Results) -> list[str]:
    """Return the top-5 errors of ImageNet, each the mean over the seeds of a cell, as far as their cells have a number."""
    axes = (exhibit.layout,) if isinstance(exhibit.layout, str) else exhibit.layout
    lines = []
    for jobs in exhibit.group_by_place(select_shown(exhibit, results)).values():
        if rows := [row for row in keep_comparable(results.rows_of(jobs)) if row["top-5"] != ""]:
            run = jobs[0].evaluated
            values = [f"{name} {getattr(run, name)}" for name in axes if name not in ("dataset", "label")]
            cell = ", ".join([title(run.dataset), rows[0]["title"].lower(), run.label, *values])
            lines.append(f"top-5 error: {cell}: {fmean(row['top-5'] for row in rows):.2f}")
    return lines


def find_failures(exhibit: Exhibit, runs: Path) -> dict[str, str]:
    """Return why Runs failed or cannot be read, by their names."""
    failures = {run.name: _read_failure(runs, run) for run in dict.fromkeys(exhibit.runs)}
    return {name: why for name, why in failures.items() if why}


def list_missing(exhibit: Exhibit, results: Results, failures: Failures, command: str) -> list[str]:
    """Return why results are missing, without repetition: a broken file, a failure, or that nobody ran it yet."""
    stored = results.frame_of(exhibit.jobs)
    there = set(stored["name"] + "/" + stored["protocol"])
    missing = [job.run.name for job in exhibit.jobs if job.name not in there]
    reasons_found = list(dict.fromkeys(stored.loc[stored["problem"] != "", "problem"]))
    reasons_found += [f"{name}: {failures[name]}" for name in dict.fromkeys(missing) if name in failures]
    waiting = sum(name not in failures for name in missing)
    return reasons_found + ([f"{waiting} of {len(exhibit.jobs)} results are missing; {command}"] if waiting else [])


def list_mixed_data(exhibit: Exhibit, results: Results) -> list[str]:
    """Return where one exhibit holds results, or encoders, from different data: data set, digests, and whose they are."""
    stored = results.frame_of(exhibit.jobs)
    stored = stored[stored["error"].notna()]
    notes = []
    for name, column, rows_of, what in (
        ("on", "data", stored, "results are from"),
        ("dataset", "trained_data", stored[stored["trained_data"] != ""], "encoders were pre-trained on"),
    ):
        for (dataset, split, _), rows in rows_of.groupby([name, "split", "difficult"], sort=False):
            digests = rows.groupby(column, sort=False)["label"].agg(lambda m: ", ".join(dict.fromkeys(m)))
            if len(digests) > 1:
                parts = "; ".join(f"{digest}: {methods}" for digest, methods in digests.items())
                notes.append(f"{title(str(dataset))}, split {split}: these {what} different data and do not compare ({parts})")
    return notes


def list_collapsed(exhibit: Exhibit, results: Results) -> list[str]:
    """Return the Runs whose representation collapsed, and the sign of it: a finding, not a failure."""
    stored = results.frame_of(exhibit.jobs)
    stored = stored[stored["collapsed"].fillna("") != ""].drop_duplicates("name")
    return [f"collapsed: {name}, {why}" for name, why in zip(stored["name"], stored["collapsed"], strict=True)]


def list_unconverged(exhibit: Exhibit, results: Results) -> list[str]:
    """Return the Runs whose converged linear probe was not solved at every l2: their errors may be slightly off."""
    converged = [job for job in exhibit.jobs if isinstance(job.protocol, Linear) and job.protocol.solver == "converged"]
    stored = results.frame_of(converged)
    stored = stored[stored["unconverged"] > 0]
    return [f"not converged: {name}, at {n} values of l2" for name, n in zip(stored["name"], stored["unconverged"], strict=True)]


def list_superseded(exhibit: Exhibit, results: Results) -> list[str]:
    """Return a note on each as-published probe that version 0.1.0 stopped by another rule than the source's."""
    stored = results.frame_of(exhibit.jobs)
    stored = stored[stored["superseded"].astype(bool)]
    return [
        f"superseded: {name}, its as-published probe was stopped by the rule of version 0.1.0 and does not compare with newer "
        f"ones; delete its {protocol}.json to measure it again"
        for name, protocol in zip(stored["name"], stored["protocol"], strict=True)
    ]


def _read_failure(runs: Path, run: Run) -> str:
    folder = RunFolder(runs, run)
    try:
        folder.check_run_json()
    except Broken as e:
        return str(e)
    return folder.failure_text()
