"""simclic submit EXHIBIT... --on PROFILE: put what is missing on a cluster, and return."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import places
from simclic.errors import InputError
from simclic.experiment import load

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
    ready = plan.runnable(made)
    files.writable(arguments.runs, "--runs")
    console, problems = Console(), list(dict.fromkeys((*made.absent.values(), *made.broken.values())))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    told = submit(ready, profile, arguments.runs, arguments.data, retry)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    for array, number in told.arrays:
        many, jobs = len(array.tasks), array.jobs
        about = f", about {array.minutes / 60:.1f} device-hours" if array.minutes else ""
        say(f"{array.stage:9} {jobs:,} jobs in {many:,} task{'s' * (many > 1)}{about}: {number}")
    if told.queued:
        say(f"{told.queued:,} jobs wait or run already")
    if told.later:
        say(f"{told.later:,} jobs wait for encoders that are made elsewhere: submit again once those are there")
    if told.failed and not retry:
        say(f"{told.failed:,} jobs failed before, or wait for one that did: simclic status ... --retry-failed")
    if told.refused:
        left = sum(len(array.tasks) for array in told.left)
        print(f"error: Slurm refused: {told.refused}; {left:,} tasks are left: submit again once that is mended", file=sys.stderr)
    if not told.arrays and not told.refused:
        say(
            "nothing to submit"
            + ("" if told.queued or told.failed or told.later or problems or retry else ": every result is there")
        )
    elif told.arrays:
        say(f"submitted; how it goes: simclic status {' '.join(map(str, arguments.exhibits))}")
    return int(bool(told.refused or problems))


def _profile(arguments: argparse.Namespace) -> "Profile":
    """The profile that was named, or the one of the last launch."""
    from simclic.schedule import profile, records

    if arguments.on:
        return profile.read(arguments.on)
    names = {job.run.name for path in arguments.exhibits for job in load(path).jobs}
    for launch in records.launches(arguments.runs):
        if any(job["name"] in names for task in launch.tasks() for job in task.content):
            return profile.parse(launch.values["profile"], launch.values["words"])
    raise InputError("nothing of this was submitted yet; say where with --on PROFILE")
