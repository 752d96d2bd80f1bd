"""simclic doctor: what works here, and with --on PROFILE on the nodes of a cluster, before anything is queued there."""

import argparse
from pathlib import Path

from simclic.cli import places, say
from simclic.experiment import load


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic doctor`."""
    parser.set_defaults(verb=doctor)
    parser.add_argument("exhibits", nargs="*", type=Path, metavar="EXHIBIT", help="whose data sets have to be there")
    parser.add_argument("--on", type=Path, metavar="PROFILE", help="a file such as slurm/gpu.toml: look at that cluster's nodes")
    places(parser)
    parser.add_argument("--wait", type=float, default=120, metavar="SECONDS", help="for a node to answer (%(default)s)")


def doctor(arguments: argparse.Namespace) -> int:
    """Exit code 1 if something does not work."""
    from rich.console import Console
    from rich.text import Text

    from simclic.schedule import doctor as look
    from simclic.schedule import profile

    datasets = list(dict.fromkeys(job.run.dataset for path in arguments.exhibits for job in load(path).jobs))
    console = Console()
    on = profile.read(arguments.on) if arguments.on else None
    if on and on.cluster == "slurm":
        with console.status("asking Slurm") as status:
            findings = look.cluster(on, arguments.runs, arguments.data, datasets, arguments.wait, status.update)
    else:
        findings = look.machine(arguments.runs, arguments.data, datasets)
    marks = {True: ("  well   ", "green"), False: ("  wrong  ", "red"), None: ("  unsure ", "yellow")}
    for finding in findings:
        way = f"; {finding.way}" if finding.way and finding.well is not True else ""
        console.print(Text.assemble(marks[finding.well], f"{finding.what}: {finding.told}{way}"), soft_wrap=True)
    wrong = sum(finding.well is False for finding in findings)
    say(console, f"{wrong} of {len(findings)} checks failed" if wrong else "all is well")
    return int(bool(wrong))
