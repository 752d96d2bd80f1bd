"""simclic run and simclic report: do what is missing on this machine, and render whatever is there."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import how, places, print_errors, reports, say, stopped
from simclic.experiment import How, Suite, load

if TYPE_CHECKING:
    from simclic.schedule.plan import Plan


def add_run(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic run`."""
    add_report(parser)
    how(parser)
    parser.set_defaults(verb=run)


def add_report(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic report`."""
    parser.set_defaults(verb=report)
    parser.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
    places(parser)
    reports(parser, "report")


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, then report. One failure does not stop the rest."""
    from rich.console import Console

    from simclic import files
    from simclic.schedule.plan import list_runnable_results
    from simclic.schedule.processes import Outcome, run_locally
    from simclic.schedule.work import WorkerOptions

    suites, made = _plan(arguments, verify=True)
    ready = list_runnable_results(made)
    files.writable(arguments.runs, "--runs")
    _check_out(suites, arguments)
    console = Console()
    print_errors([*made.absent.values(), *made.broken_jobs.values()])
    outcome = Outcome()
    if ready:
        outcome = run_locally(ready, WorkerOptions(arguments.runs, arguments.data, How.of(arguments)), console)
    if outcome.signal:
        return stopped(outcome.signal)
    if not ready and not made.absent:
        say(console, "nothing to train" + ("" if made.job_problems else ": every result is there"))
    told = outcome.failures | outcome.elsewhere
    for reason in sorted(set(told.values())):
        names = [name for name, why in told.items() if why == reason]
        print_errors([f"{reason} ({names[0] if len(names) == 1 else f'{len(names)} runs'})"])
    for name, trace in outcome.crashes.items():
        print(f"\n{name}: {trace}", file=sys.stderr)
    _render(suites, arguments, printed=tuple(made.broken_jobs.values()))
    return int(bool(told or made.absent or made.broken_jobs))


def report(arguments: argparse.Namespace) -> int:
    """Render what is there; exit code 1 if a result file cannot be trusted."""
    suites, made = _plan(arguments, verify=False)  # reading the results verifies them
    _check_out(suites, arguments)
    return _render(suites, arguments) or int(bool(made.broken_jobs))


def _plan(arguments: argparse.Namespace, verify: bool) -> "tuple[list[Suite], Plan]":
    from simclic.schedule.plan import plan

    suites = [load(path) for path in arguments.exhibits]
    return suites, plan(suites, arguments.runs, arguments.data, verify)


def _check_out(suites: list[Suite], arguments: argparse.Namespace) -> None:
    """Raise InputError if the report could not be written, before anything is trained for it."""
    from simclic import files

    for suite in suites:
        files.writable(arguments.out / suite.name, "--out")


def _render(suites: list[Suite], arguments: argparse.Namespace, printed: tuple[str, ...] = ()) -> int:
    """Write the report. Print what is wrong with result files, except what was printed before."""
    from rich.console import Console

    from simclic.report import render

    pages, problems = render(suites, arguments.runs, arguments.out)
    print_errors([problem for problem in problems if problem not in printed])
    for page in pages:
        say(Console(), f"report: {page}")
    return int(bool(problems))
