"""simclic run and simclic report: compute missing results on this machine, and write the report."""

import argparse
import sys
from typing import TYPE_CHECKING

from simclic.cli import (
    add_compute_arguments,
    add_exhibits_argument,
    add_out_argument,
    add_place_arguments,
    print_errors,
    print_line,
    report_stopped,
)
from simclic.experiment import ComputeOptions, Suite, load

if TYPE_CHECKING:
    from simclic.schedule.plan import Plan


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic run`."""
    add_report(parser)
    add_compute_arguments(parser)
    parser.set_defaults(verb=run_exhibits)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic report`."""
    parser.set_defaults(verb=report_exhibits)
    add_exhibits_argument(parser)
    add_place_arguments(parser)
    add_out_argument(parser, "report")


def run_exhibits(arguments: argparse.Namespace) -> int:
    """Compute the missing results, then write the report. One failure does not stop the rest."""
    from rich.console import Console

    from simclic.schedule.data_digest import list_changed_folders
    from simclic.schedule.plan import check_watched, list_runnable_results
    from simclic.schedule.processes import Outcome, run_locally
    from simclic.schedule.work import WorkerOptions
    from simclic.store.record import check_writable_store

    suites, plan = _load_plan(arguments, verify=True)
    ready, compute = list_runnable_results(plan), ComputeOptions.from_arguments(arguments)
    check_watched(plan, arguments.data, compute.watch_on)
    check_writable_store(arguments.runs)
    _check_out(suites, arguments)
    console = Console()
    print_errors([*plan.absent.values(), *plan.broken_jobs.values()])
    outcome = Outcome()
    if ready:
        outcome = run_locally(ready, WorkerOptions(arguments.runs, arguments.data, compute), console)
    if outcome.signal:
        return report_stopped(outcome.signal)
    if not ready and not plan.absent:
        print_line(console, "nothing to train" + ("" if plan.job_problems else ": every result is there"))
    for line in list_changed_folders([job for suite in suites for job in suite.jobs], arguments.runs, arguments.data):
        print_line(console, f"note: {line}")
    failures = outcome.failures | outcome.postponed
    for reason in sorted(set(failures.values())):
        names = [name for name, why in failures.items() if why == reason]
        print_errors([f"{reason} ({names[0] if len(names) == 1 else f'{len(names)} runs'})"])
    for name, trace in outcome.crashes.items():
        print(f"\n{name}: {trace}", file=sys.stderr)
    _render_report(suites, arguments, printed=tuple(plan.broken_jobs.values()))
    return int(bool(failures or plan.absent or plan.broken_jobs))


def report_exhibits(arguments: argparse.Namespace) -> int:
    """Write the report of the existing results. Return 1 if a result file is broken."""
    suites, plan = _load_plan(arguments, verify=False)  # reading the results verifies them
    _check_out(suites, arguments)
    return _render_report(suites, arguments) or int(bool(plan.broken_jobs))


def _load_plan(arguments: argparse.Namespace, verify: bool) -> "tuple[list[Suite], Plan]":
    from simclic.schedule.plan import plan

    suites = [load(path) for path in arguments.exhibits]
    return suites, plan(suites, arguments.runs, arguments.data, verify)


def _check_out(suites: list[Suite], arguments: argparse.Namespace) -> None:
    """Raise InputError if the report cannot be written, before anything is trained for it."""
    from simclic import files

    for suite in suites:
        files.check_writable(arguments.out / suite.name, "--out")


def _render_report(suites: list[Suite], arguments: argparse.Namespace, printed: tuple[str, ...] = ()) -> int:
    """Write the report and print the problems of result files, except those in `printed`."""
    from rich.console import Console

    from simclic.report import render
    from simclic.store.record import read_record

    pages, problems = render(suites, arguments.runs, arguments.out)
    print_errors([problem for problem in problems if problem not in printed])
    recorded = " (recorded results)" if read_record(arguments.runs) else ""
    for page in pages:
        print_line(Console(), f"report: {page}{recorded}")
    return int(bool(problems))
