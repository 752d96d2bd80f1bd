"""simclic submit EXHIBIT... --on PROFILE: submit the missing jobs to a cluster."""

import argparse
import shlex
from typing import TYPE_CHECKING

from simclic.cli import add_exhibits_argument, add_place_arguments, expand_path, print_errors, print_line
from simclic.errors import InputError
from simclic.experiment import load
from simclic.files import place_options
from simclic.text import count_noun

if TYPE_CHECKING:
    from simclic.schedule.profile import Profile


def add_submit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic submit`."""
    parser.set_defaults(verb=submit_exhibits)
    add_exhibits_argument(parser)
    parser.add_argument("--on", type=expand_path, required=True, metavar="PROFILE", help="a file such as slurm/gpu.toml")
    add_place_arguments(parser)


def submit_exhibits(arguments: argparse.Namespace, retry: bool = False) -> int:
    """Submit the missing jobs and print what was submitted. Return 1 if a part of it could not be submitted."""
    from rich.console import Console

    from simclic import data, slurm
    from simclic.schedule import plan
    from simclic.schedule.submit import submit_jobs
    from simclic.store.record import check_writable_store

    suites = [load(path) for path in arguments.exhibits]
    profile = _find_profile(arguments)
    run_plan = plan.plan(suites, arguments.runs, arguments.data)
    ready = plan.list_runnable_results(run_plan)
    plan.check_watched(run_plan, arguments.data, profile.compute.watch_on)
    check_writable_store(arguments.runs)
    problems = list(dict.fromkeys((*run_plan.absent.values(), *run_plan.broken_jobs.values())))
    print_errors(problems)
    for remark in (line for name in run_plan.list_datasets(ready) for line in data.list_remarks(name)):
        print_line(Console(), f"note: {remark}")
    result = submit_jobs(ready, profile, arguments.runs, arguments.data, retry)
    lines = []
    for array, number in result.arrays:
        about = f", about {array.minutes / 60:.1f} device-hours" if array.minutes else ""
        lines.append(f"{array.stage:9} {array.job_count:,} jobs in {count_noun(len(array.tasks), 'task')}{about}: {number}")
    if result.queued:
        lines.append(f"{result.queued:,} jobs wait or run already")
    if result.later:
        lines.append(f"{result.later:,} jobs need encoders that another launch trains: submit again when these are done")
    if result.failed and not retry:
        lines.append(f"{result.failed:,} jobs failed before, or wait for one that did: simclic status ... --retry-failed")
    if result.refused:
        task_count = sum(len(array.tasks) for array in result.not_submitted)
        way = "some of your jobs have ended" if slurm.TOO_MANY.search(result.refused) and result.arrays else "that is mended"
        print_errors([f"Slurm refused: {result.refused}; {task_count:,} tasks are left: submit again once {way}"])
    if result.cut:
        lines.append(f"Slurm took no larger arrays: cut to {count_noun(result.cut, 'task')} each")
    if result.arrays:
        status = shlex.join(["simclic", "status", *map(str, arguments.exhibits), *place_options(arguments.runs)])
        lines.append(f"submitted; to see the progress: {status}")
    elif not result.refused:
        done = not (result.queued or result.failed or result.later or problems or retry)
        lines.append("nothing to submit" + (": every result is there" if done else ""))
    for line in lines:
        print_line(Console(), line)
    return int(bool(result.refused or problems))


def _find_profile(arguments: argparse.Namespace) -> "Profile":
    """Return the profile that --on names, or that of the last launch."""
    from simclic.schedule import profile, records

    if arguments.on:
        return profile.read_profile(arguments.on)
    names = {job.run.name for path in arguments.exhibits for job in load(path).jobs}
    for launch in records.list_launches(arguments.runs):
        if any(job["name"] in names for task in launch.list_tasks() for job in task.content):
            return profile.parse_profile(launch.values["profile"], launch.values["words"])
    raise InputError("none of these jobs was submitted before; simclic run tries them again here, --on PROFILE submits them")
