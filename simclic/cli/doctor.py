"""simclic doctor: check this machine, or with --on PROFILE the nodes of a cluster, before work is submitted."""

import argparse

from simclic.cli import add_place_arguments, expand_path, print_line
from simclic.experiment import load


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic doctor`."""
    parser.set_defaults(verb=run_doctor)
    parser.add_argument("exhibits", nargs="*", type=expand_path, metavar="EXHIBIT", help="check the data sets of these exhibits")
    parser.add_argument("--on", type=expand_path, metavar="PROFILE", help="check the nodes of this cluster, as slurm/gpu.toml")
    add_place_arguments(parser)
    parser.add_argument("--wait", type=float, default=120, metavar="SECONDS", help="how long to wait for the nodes (%(default)s)")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the result of each check. Return 1 if a check failed."""
    from rich.console import Console
    from rich.text import Text

    from simclic.schedule import doctor as look
    from simclic.schedule import plan, profile

    suites = [load(path) for path in arguments.exhibits]
    datasets = plan.plan(suites, arguments.runs, arguments.data, verify=False).list_datasets(
        job for s in suites for job in s.jobs
    )
    console = Console()
    on = profile.read_profile(arguments.on) if arguments.on else None
    if on and on.compute.watch_on:
        datasets = list(dict.fromkeys((*datasets, on.compute.watch_on)))
    if on and on.cluster == "slurm":
        with console.status("asking Slurm") as status:
            findings = look.check_cluster(on, arguments.runs, arguments.data, datasets, arguments.wait, status.update)
    else:
        findings = look.check_machine(arguments.runs, arguments.data, datasets, ranks=on.compute.ranks if on else 1)
    marks = {True: ("  ok      ", "green"), False: ("  failed  ", "red"), None: ("  warning ", "yellow")}
    for finding in findings:
        way = f"; {finding.way}" if finding.way and finding.passed is not True else ""
        console.print(Text.assemble(marks[finding.passed], f"{finding.what}: {finding.text}{way}"), soft_wrap=True)
    results, count = [finding.passed for finding in findings], len(findings)
    failed, warnings = results.count(False), results.count(None)
    summary = f"{count - warnings} of {count} checks passed, none failed" if warnings else f"All {count} checks passed"
    print_line(console, f"{failed} of {count} checks failed" if failed else summary)
    return int(failed > 0)
