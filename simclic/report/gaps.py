"""Why a cell of an exhibit is empty, and what else a reader must know of the results in it."""

from pathlib import Path

from simclic.data import title
from simclic.experiment import Exhibit, Linear, Run
from simclic.files import Broken
from simclic.report.results import Results
from simclic.report.tables import Failures
from simclic.store.run_folder import RunFolder


def reasons(exhibit: Exhibit, results: Results, failures: Failures, command: str) -> list[str]:
    """Everything of the kind: what is missing and what fills it, what does not compare, what collapsed, what was not solved."""
    return [
        *gaps(exhibit, results, failures, command), *mixed(exhibit, results), *fallen(exhibit, results),
        *unsolved(exhibit, results),
    ]  # fmt: skip


def failed(exhibit: Exhibit, runs: Path) -> dict[str, str]:
    """By the name of a Run, why it failed or cannot be read."""
    told = {run.name: _failure(runs, run) for run in dict.fromkeys(exhibit.runs)}
    return {name: why for name, why in told.items() if why}


def gaps(exhibit: Exhibit, results: Results, failures: Failures, command: str) -> list[str]:
    """Why results are not there, each reason once: a broken file, a failure, or that nobody ran it yet."""
    found = results.frame_of(exhibit.jobs)
    there = set(found["name"] + "/" + found["protocol"])
    missing = [job.run.name for job in exhibit.jobs if job.name not in there]
    told = list(dict.fromkeys(found.loc[found["problem"] != "", "problem"]))
    told += [f"{name}: {failures[name]}" for name in dict.fromkeys(missing) if name in failures]
    waiting = sum(name not in failures for name in missing)
    return told + ([f"{waiting} of {len(exhibit.jobs)} results are not there yet; {command}"] if waiting else [])


def mixed(exhibit: Exhibit, results: Results) -> list[str]:
    """Where results that were measured on different data stand in one exhibit: data set, digests, and whose they are."""
    found = results.frame_of(exhibit.jobs)
    told = []
    for (dataset, split, _), rows in found[found["error"].notna()].groupby(["dataset", "split", "difficult"], sort=False):
        digests = rows.groupby("data", sort=False)["label"].agg(lambda m: ", ".join(dict.fromkeys(m)))
        if len(digests) > 1:
            those = "; ".join(f"{digest}: {methods}" for digest, methods in digests.items())
            told.append(
                f"{title(str(dataset))}, split {split}: numbers from different data stand here and do not compare ({those})"
            )
    return told


def fallen(exhibit: Exhibit, results: Results) -> list[str]:
    """Whose representation collapsed, and how that shows: a finding, not a failure."""
    found = results.frame_of(exhibit.jobs)
    found = found[found["collapsed"].fillna("") != ""].drop_duplicates("name")
    return [f"collapsed: {name}, {why}" for name, why in zip(found["name"], found["collapsed"], strict=True)]


def unsolved(exhibit: Exhibit, results: Results) -> list[str]:
    """Whose linear probe was not solved at every l2, though its protocol says converged: its number may be a little off."""
    converged = [job for job in exhibit.jobs if isinstance(job.protocol, Linear) and job.protocol.solver == "converged"]
    found = results.frame_of(converged)
    found = found[found["unconverged"] > 0]
    return [f"not converged: {name}, at {n} values of l2" for name, n in zip(found["name"], found["unconverged"], strict=True)]


def _failure(runs: Path, run: Run) -> str:
    folder = RunFolder(runs, run)
    try:
        folder.check_run_json()
    except Broken as e:
        return str(e)
    return folder.failure()
