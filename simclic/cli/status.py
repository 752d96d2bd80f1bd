"""simclic status: which jobs are done, running, queued, waiting or failed, and why."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import add_exhibits_argument, add_place_arguments, expand_path
from simclic.experiment import load
from simclic.text import format_seconds

if TYPE_CHECKING:
    from rich.console import Console, Group

    from simclic.schedule.state import State, States

WATCH_SECONDS = 5  # seconds between updates
MAX_LINES = 12  # of one state
REASONS = {  # Slurm's reasons to wait, in plain words
    "Priority": "for jobs with higher priority (Priority)",
    "Resources": "for free resources (Resources)",
    "Dependency": "for the job that it depends on (Dependency)",
    "DependencyNeverSatisfied": "for ever: the job that it depends on has failed; submit again",
    "JobArrayTaskLimit": "for other tasks of its array: the profile limits how many run at a time (JobArrayTaskLimit)",
    "BeginTime": "for its start time, which Slurm sets after a requeue (BeginTime)",
    "None": "for Slurm to consider it",
}


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic status`."""
    parser.set_defaults(verb=print_status)
    add_exhibits_argument(parser)
    add_place_arguments(parser)
    parser.add_argument("--watch", action="store_true", help=f"update every {WATCH_SECONDS} seconds until nothing runs or waits")
    parser.add_argument("--retry-failed", action="store_true", help="submit failed jobs and those that wait for them again")
    parser.add_argument(
        "--on", type=expand_path, metavar="PROFILE", help="with --retry-failed: the profile (that of the last launch)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_status(arguments: argparse.Namespace) -> int:
    """Print the state of all jobs. Return 1 if any job failed."""
    from rich.console import Console

    from simclic.schedule.state import read_states

    suites, console = [load(path) for path in arguments.exhibits], Console()
    if arguments.retry_failed:
        from simclic.cli import submit

        return submit.submit_exhibits(arguments, retry=True)
    states = read_states(suites, arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps(format_json(states), indent=1))
    elif arguments.watch:
        states = _watch_status(console, arguments, states)
    else:
        console.print(draw_status(states), soft_wrap=True)
    return int(any(job.status_word == "failed" for job in states.jobs.values()))


def _watch_status(console: "Console", arguments: argparse.Namespace, states: "States") -> "States":
    """Print the status until nothing runs or waits: in place on a terminal, elsewhere a line for each change."""
    from contextlib import nullcontext

    from rich.live import Live

    from simclic.schedule.state import read_states

    suites, shown = [load(path) for path in arguments.exhibits], None
    with Live(draw_status(states), console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            counts = states.count_states(states.jobs)
            if live:
                live.update(draw_status(states), refresh=True)
            elif counts != shown:
                console.print(", ".join(f"{n} {word}" for word, n in counts.items() if n), highlight=False)
            shown = counts
            if not counts["running"] + counts["queued"] + counts["unknown"]:
                break
            time.sleep(WATCH_SECONDS)
            states = read_states(suites, arguments.runs, arguments.data)
    if not live:
        console.print(draw_status(states), soft_wrap=True)
    return states


def format_json(states: "States") -> dict[str, object]:
    """Return what --json prints."""
    lines = [{"exhibit": exhibit, "stage": stage, **states.count_states(keys)} for (exhibit, stage), keys in states.lines.items()]
    return {
        "lines": lines, "total": states.count_states(states.jobs), "silent": states.silent,
        "jobs": [_job_json(job) for job in states.jobs.values() if job.status_word != "done"],
    }  # fmt: skip


def _job_json(job: "State") -> dict[str, object]:
    return {
        "protocol": job.protocol.name if job.protocol else "", "run": job.run.name, "stage": job.stage, "word": job.status_word,
        "why": job.reason, "note": job.note, "left": job.seconds_left, "speed": job.speed, "job": job.job_id, "node": job.node,
        "log": job.log,
    }  # fmt: skip


def draw_status(states: "States") -> "Group":
    """Return a table of counts, then the jobs that run, wait or failed."""
    from rich.console import Group
    from rich.text import Text

    parts: list[object] = [_counts_table(states)]
    jobs = list(states.jobs.values())
    for word, line in (
        ("running", _running_line),
        ("queued", None),
        ("waiting", None),
        ("missing", None),
        ("stopped", _ended_line),
        ("failed", _ended_line),
    ):
        shown = [job for job in jobs if job.status_word == word and (job.reason or word != "missing")]
        if not shown:
            continue
        lines = [line(job) for job in shown] if line else _waiting_lines(shown)
        parts.append(Text(f"\n{word}", style="bold red" if word == "failed" else "bold"))
        parts += [Text(text) for text in lines[:MAX_LINES]]
        if len(lines) > MAX_LINES:
            parts.append(Text(f"  and {len(lines) - MAX_LINES:,} more: --json"))
    hints = {
        "stopped": "to continue stopped jobs: simclic submit ... --on PROFILE, or simclic run ...",
        "failed": "to try failed jobs again: simclic run ..., or simclic status ... --retry-failed if they were submitted",
    }
    parts += [Text(f"\n{hint}") for word, hint in hints.items() if any(job.status_word == word for job in jobs)]
    parts += [Text(f"\nunknown: {text}", style="yellow") for text in states.silent]
    return Group(*parts)  # type: ignore[arg-type]


def _counts_table(states: "States") -> object:
    from rich.table import Table

    from simclic.schedule.state import SHOWN

    total = states.count_states(states.jobs)
    words = [word for word in SHOWN if total[word] or word in ("done", "missing")]
    table = Table("exhibit", "stage", *words)
    for column in table.columns[2:]:
        column.justify = "right"
    for (exhibit, stage), keys in states.lines.items():
        counts = states.count_states(keys)
        table.add_row(exhibit, stage, *(f"{counts[word]:,}" if counts[word] else "·" for word in words))
    table.add_section()
    table.add_row("all, each job once", "", *(f"{total[word]:,}" if total[word] else "·" for word in words))
    return table


def _running_line(job: "State") -> str:
    speed = f", {job.speed:,.0f} images/s" if job.speed else ""
    time_left = f", about {format_seconds(job.seconds_left)} left" if job.seconds_left is not None else ""
    return f"  {job.stage} {job.run.name}: {job.note or 'starting'}{speed}{time_left}{_format_place(job)}"


def _ended_line(job: "State") -> str:
    return f"  {job.stage} {job.run.name}: {job.reason}{_format_place(job)}" + _log_tail(job)


def _waiting_lines(jobs: "list[State]") -> list[str]:
    """Return a line for each reason to wait, with the jobs that share it."""
    names_by_wait: dict[tuple[str, str, str], list[str]] = {}
    for job in jobs:
        names_by_wait.setdefault((job.stage, job.reason, job.note), []).append(job.run.name)
    lines = []
    for (stage, why, note), runs in names_by_wait.items():
        which = runs[0] if len(runs) == 1 else f"of {len(runs):,} runs"
        lines.append(f"  {stage} {which}: {REASONS.get(why, why)}{note and f'; {note}'}")
    return lines


def _format_place(job: "State") -> str:
    places = [f"job {job.job_id}" if job.job_id[:1].isdigit() else job.job_id, f"on {job.node}" if job.node else ""]
    text = " ".join(place for place in places if place)
    return f" ({text})" if text else ""


def _log_tail(job: "State") -> str:
    """Return the last lines of a job's log, and its path."""
    path = Path(job.log) if job.log else None
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - 4000))
        lines = [line for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n    | {line[:200]}" for line in lines[-3:]) + f"\n    {path}"
