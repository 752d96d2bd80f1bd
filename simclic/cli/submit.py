"""simclic submit EXHIBIT... --on PROFILE: put what is missing on a cluster, and return."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import places, print_errors, say
from simclic.errors import InputError
from simclic.experiment import load
from simclic.text import count_noun

if TYPE_CHECKING:
    from simclic.schedule.profile import Profile


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic submit`."""
    parser.set_defaults(verb=submitted)
    parser.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
    parser.add_argument("--on", type=Path, required=True, metavar="PROFILE", help="a file such as slurm/gpu.toml")
    places(parser)


def submitted(arguments: argparse.Namespace, retry: bool = False) -> int:
    """Submit, and say what; exit code 1 if a part of it could not be."""
    from rich.console import Console

    from simclic import files
    from simclic.schedule import plan
    from simclic.schedule.submit import submit

    suites = [load(path) for path in arguments.exhibits]
    profile = _profile(arguments)
    made = plan.plan(suites, arguments.runs, arguments.data)
    ready = plan.list_runnable_results(made)
    files.writable(arguments.runs, "--runs")
    problems = list(dict.fromkeys((*made.absent.values(), *made.broken_jobs.values())))
    print_errors(problems)
    told = submit(ready, profile, arguments.runs, arguments.data, retry)
    lines = []
    for array, number in told.arrays:
        about = f", about {array.minutes / 60:.1f} device-hours" if array.minutes else ""
        lines.append(f"{array.stage:9} {array.jobs:,} jobs in {count_noun(len(array.tasks), 'task')}{about}: {number}")
    if told.queued:
        lines.append(f"{told.queued:,} jobs wait or run already")
    if told.later:
        lines.append(f"{told.later:,} jobs wait for encoders that are made elsewhere: submit again once those are there")
    if told.failed and not retry:
        lines.append(f"{told.failed:,} jobs failed before, or wait for one that did: simclic status ... --retry-failed")
    if told.refused:
        left = sum(len(array.tasks) for array in told.left)
        print_errors([f"Slurm refused: {told.refused}; {left:,} tasks are left: submit again once that is mended"])
    if told.arrays:
        lines.append(f"submitted; how it goes: simclic status {' '.join(map(str, arguments.exhibits))}")
    elif not told.refused:
        done = not (told.queued or told.failed or told.later or problems or retry)
        lines.append("nothing to submit" + (": every result is there" if done else ""))
    for line in lines:
        say(Console(), line)
    return int(bool(told.refused or problems))


def _profile(arguments: argparse.Namespace) -> "Profile":
    """The profile that was named, or the one of the last launch."""
    from simclic.schedule import profile, records

    if arguments.on:
        return profile.read(arguments.on)
    names = {job.run.name for path in arguments.exhibits for job in load(path).jobs}
    for launch in records.list_launches(arguments.runs):
        if any(job["name"] in names for task in launch.list_tasks() for job in task.content):
            return profile.parse(launch.values["profile"], launch.values["words"])
    raise InputError("nothing of this was submitted yet; say where with --on PROFILE")
