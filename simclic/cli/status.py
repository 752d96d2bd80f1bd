"""simclic status: what is done, running, queued, waiting and failed, and why."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import places
from simclic.experiment import load
from simclic.text import format_seconds

if TYPE_CHECKING:
    from rich.console import Console, Group

    from simclic.schedule.state import State
    from simclic.schedule.status import States

EVERY = 5  # seconds between looks
MOST = 12  # lines of one kind


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic status`."""
    parser.set_defaults(verb=status)
    parser.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
    places(parser)
    parser.add_argument("--watch", action="store_true", help=f"look again every {EVERY} seconds, until nothing runs or waits")
    parser.add_argument("--retry-failed", action="store_true", help="submit what failed, and what waits for it, once more")
    parser.add_argument(
        "--on", type=Path, metavar="PROFILE", help="with --retry-failed: where (as it was submitted the last time)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def status(arguments: argparse.Namespace) -> int:
    """Exit code 1 if anything failed."""
    from rich.console import Console

    from simclic.schedule.status import states

    suites, console = [load(path) for path in arguments.exhibits], Console()
    if arguments.retry_failed:
        from simclic.cli import submit

        return submit.submitted(arguments, retry=True)
    told = states(suites, arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps(as_json(told), indent=1))
    elif arguments.watch:
        told = _watched(console, arguments, told)
    else:
        console.print(drawn(told), soft_wrap=True)
    return int(any(job.word == "failed" for job in told.jobs.values()))


def _watched(console: "Console", arguments: argparse.Namespace, told: "States") -> "States":
    """Look again and again; on a terminal in place, elsewhere whenever something has changed."""
    from contextlib import nullcontext

    from rich.live import Live

    from simclic.schedule.status import states

    suites, shown = [load(path) for path in arguments.exhibits], None
    with Live(drawn(told), console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            counts = told.counts(told.jobs)
            if live:
                live.update(drawn(told), refresh=True)
            elif counts != shown:
                console.print(", ".join(f"{n} {word}" for word, n in counts.items() if n), highlight=False)
            shown = counts
            if not counts["running"] + counts["queued"] + counts["unknown"]:
                break
            time.sleep(EVERY)
            told = states(suites, arguments.runs, arguments.data)
    if not live:
        console.print(drawn(told), soft_wrap=True)
    return told


def as_json(told: "States") -> dict[str, object]:
    """For programs."""
    lines = [{"exhibit": exhibit, "stage": stage, **told.counts(keys)} for (exhibit, stage), keys in told.lines.items()]
    return {
        "lines": lines, "total": told.counts(told.jobs), "silent": told.silent,
        "jobs": [_job_json(job) for job in told.jobs.values() if job.word != "done"],
    }  # fmt: skip


def _job_json(job: "State") -> dict[str, object]:
    return {
        "protocol": job.protocol.name if job.protocol else "", "run": job.run.name, "stage": job.stage, "word": job.word,
        "why": job.reason, "note": job.note, "left": job.left, "speed": job.speed, "job": job.job_id, "node": job.node,
        "log": job.log,
    }  # fmt: skip


def drawn(told: "States") -> "Group":
    """A table of counts, then what runs, waits and failed."""
    from rich.console import Group
    from rich.text import Text

    parts: list[object] = [_table(told)]
    jobs = list(told.jobs.values())
    for word, line in (
        ("running", _running),
        ("queued", None),
        ("waiting", None),
        ("missing", None),
        ("stopped", _gone),
        ("failed", _gone),
    ):
        those = [job for job in jobs if job.word == word and (job.reason or word != "missing")]
        if not those:
            continue
        lines = [line(job) for job in those] if line else _grouped(those)
        parts.append(Text(f"\n{word}", style="bold red" if word == "failed" else "bold"))
        parts += [Text(text) for text in lines[:MOST]]
        if len(lines) > MOST:
            parts.append(Text(f"  and {len(lines) - MOST:,} more: --json"))
    hints = {
        "stopped": "what was stopped goes on where it was: simclic submit ... --on PROFILE, or simclic run ...",
        "failed": "to try what failed once more: simclic status ... --retry-failed",
    }
    parts += [Text(f"\n{hint}") for word, hint in hints.items() if any(job.word == word for job in jobs)]
    parts += [Text(f"\nnot known: {text}", style="yellow") for text in told.silent]
    return Group(*parts)  # type: ignore[arg-type]


def _table(told: "States") -> object:
    from rich.table import Table

    from simclic.schedule.status import SHOWN

    total = told.counts(told.jobs)
    words = [word for word in SHOWN if total[word] or word in ("done", "missing")]
    table = Table("exhibit", "stage", *words)
    for column in table.columns[2:]:
        column.justify = "right"
    for (exhibit, stage), keys in told.lines.items():
        counts = told.counts(keys)
        table.add_row(exhibit, stage, *(f"{counts[word]:,}" if counts[word] else "·" for word in words))
    table.add_section()
    table.add_row("all, each job once", "", *(f"{total[word]:,}" if total[word] else "·" for word in words))
    return table


def _running(job: "State") -> str:
    speed = f", {job.speed:,.0f} images/s" if job.speed else ""
    left = f", about {format_seconds(job.left)} left" if job.left is not None else ""
    return f"  {job.stage} {job.run.name}: {job.note or 'starting'}{speed}{left}{_where(job)}"


def _gone(job: "State") -> str:
    return f"  {job.stage} {job.run.name}: {job.reason}{_where(job)}" + _tail(job)


def _grouped(jobs: "list[State]") -> list[str]:
    """Jobs that wait for the same thing, in one line."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        found.setdefault((job.stage, job.reason), []).append(job.run.name)
    lines = []
    for (stage, why), runs in found.items():
        those = runs[0] if len(runs) == 1 else f"of {len(runs):,} runs"
        lines.append(f"  {stage} {those}: {_reason(why)}")
    return lines


def _reason(why: str) -> str:
    """Slurm's reasons, for people."""
    told = {
        "Priority": "others come first (Priority)",
        "Resources": "for a free place (Resources)",
        "Dependency": "for the job that it builds on (Dependency)",
        "DependencyNeverSatisfied": "for ever: the job that it builds on has failed; submit again",
        "JobArrayTaskLimit": "for its own array, which runs as many tasks as the profile allows (JobArrayTaskLimit)",
        "BeginTime": "for the time that Slurm leaves between two starts (BeginTime)",
        "None": "to be looked at by Slurm",
    }
    return told.get(why, why)


def _where(job: "State") -> str:
    places = [f"job {job.job_id}" if job.job_id[:1].isdigit() else job.job_id, f"on {job.node}" if job.node else ""]
    text = " ".join(place for place in places if place)
    return f" ({text})" if text else ""


def _tail(job: "State") -> str:
    """The last lines of its log, and where that is."""
    path = Path(job.log) if job.log else None
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - 4000))
        lines = [line for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n    | {line[:200]}" for line in lines[-3:]) + f"\n    {path}"
