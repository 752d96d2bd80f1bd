"""simclic calibrate: measure how long work takes on a machine, so that `simclic plan` can price it."""

import argparse
import sys

from simclic.cli import add_place_arguments, expand_path, print_line
from simclic.experiment import load


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic calibrate`."""
    parser.set_defaults(verb=calibrate)
    text = "whose kinds of work are measured, such as benchmarks/table2.py"
    parser.add_argument("exhibits", nargs="+", type=expand_path, metavar="EXHIBIT", help=text)
    add_place_arguments(parser)
    parser.add_argument("--on", type=expand_path, metavar="PROFILE", help="measure on a node of this profile (on this machine)")
    parser.add_argument(
        "--wait", type=float, default=1800, metavar="SECONDS", help="with --on: how long to wait for the job (%(default)s)"
    )


def calibrate(arguments: argparse.Namespace) -> int:
    """Measure the work that the exhibits ask for, and store the rates for simclic plan."""
    from rich.console import Console

    from simclic.progress import show_progress
    from simclic.schedule import calibrate, cost, measure, profile
    from simclic.schedule import plan as planning
    from simclic.store.record import check_writable_store

    suites, console = [load(path) for path in arguments.exhibits], Console()
    check_writable_store(arguments.runs)
    wanted = measure.list_workloads(planning.plan(suites, arguments.runs, arguments.data, verify=False).jobs.values())
    on = profile.read_profile(arguments.on) if arguments.on else None
    target = profile.price_target(on) if on else cost.this_machine()
    try:
        if on and on.cluster == "slurm":
            with console.status("asking Slurm") as status:
                rates, where = calibrate.measure_on_node(on, wanted, arguments.runs, arguments.wait, status.update)
        else:
            with show_progress(console) as tell:
                rates, where = calibrate.measure_here(wanted, tell, *([on.compute] if on else []))
    except KeyboardInterrupt:
        print("\nstopped; nothing was stored", file=sys.stderr)
        return 130
    path = cost.write_rates(arguments.runs, target, rates, where)
    for rate in rates:
        times = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in rate["seconds"].items() if not name.endswith(".cell"))
        print_line(console, f"{rate['backbone']} at {rate['image_size']} pixels, {rate['precision']}: {times}")
        for count, speedup in rate.get("speedups", {}).items():
            print_line(console, f"  {count} ranks pre-train {speedup:.2f} times as fast as one")
    print_line(console, f"measured on {where['processes']} x {where['device']}: {path}")
    return 0
