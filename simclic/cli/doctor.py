"""simclic doctor: what works here, and with --on PROFILE on the nodes of a cluster, before anything is queued there."""

import argparse
from pathlib import Path

from simclic.cli import add_place_arguments, print_line
from simclic.experiment import load


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic doctor`."""
    parser.set_defaults(verb=run_doctor)
    parser.add_argument("exhibits", nargs="*", type=Path, metavar="EXHIBIT", help="whose data sets have to be there")
    parser.add_argument("--on", type=Path, metavar="PROFILE", help="a file such as slurm/gpu.toml: look at that cluster's nodes")
    add_place_arguments(parser)
    parser.add_argument("--wait", type=float, default=120, metavar="SECONDS", help="for a node to answer (%(default)s)")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Exit code 1 if something does not work."""
    from rich.console import Console
    from rich.text import Text

    from simclic.schedule import doctor as look
    from simclic.schedule import profile

    datasets = list(dict.fromkeys(job.run.dataset for path in arguments.exhibits for job in load(path).jobs))
    console = Console()
    on = profile.read_profile(arguments.on) if arguments.on else None
    if on and on.cluster == "slurm":
        with console.status("asking Slurm") as status:
            findings = look.check_cluster(on, arguments.runs, arguments.data, datasets, arguments.wait, status.update)
    else:
        findings = look.check_machine(arguments.runs, arguments.data, datasets)
    marks = {True: ("  well   ", "green"), False: ("  wrong  ", "red"), None: ("  unsure ", "yellow")}
    for finding in findings:
        way = f"; {finding.way}" if finding.way and finding.passed is not True else ""
        console.print(Text.assemble(marks[finding.passed], f"{finding.what}: {finding.text}{way}"), soft_wrap=True)
    wrong = sum(finding.passed is False for finding in findings)
    print_line(console, f"{wrong} of {len(findings)} checks failed" if wrong else "all is well")
    return int(bool(wrong))
