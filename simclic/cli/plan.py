"""simclic plan: the jobs that exhibits ask for, what is left of them, and what it will cost."""

import argparse
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import places
from simclic.errors import InputError
from simclic.experiment import load
from simclic.text import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from simclic.experiment import Suite
    from simclic.report.budget import Budget
    from simclic.schedule.bill import Bill
    from simclic.schedule.cost import Target
    from simclic.schedule.plan import Line, Plan

LARGEST, ABSENT = 8, 3  # items that are listed


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic plan`."""
    parser.set_defaults(verb=plan)
    parser.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
    places(parser)
    parser.add_argument("--on", type=Path, metavar="PROFILE", help="where it would run, such as slurm/gpu.toml (this machine)")
    text = (
        "which job fills a cell, whether it is done, and if not what is missing or changed; words such as 'table2 noise cifar10'"
    )
    parser.add_argument("--why", metavar="CELL", help=text)
    text = (
        "device hours such as '200 GPU-h': propose what fits, in the order of how many of the paper's claims it decides for one"
    )
    parser.add_argument("--within", metavar="HOURS", help=text)
    parser.add_argument("--json", action="store_true", help="for programs")


def plan(arguments: argparse.Namespace) -> int:
    """What the exhibits ask for, what of it is missing, and what that will cost."""
    from simclic.schedule import bill
    from simclic.schedule import plan as planning

    suites = [load(path) for path in arguments.exhibits]
    if arguments.why is not None:
        return _why(arguments, suites)
    made = planning.plan(suites, arguments.runs, arguments.data, verify=False)  # this has to be quick; report and run verify
    told = bill.bill(made, arguments.runs, arguments.data, target(arguments.on))
    if arguments.within is not None:
        return _within(arguments, suites, made, told)
    if arguments.json:
        print(json.dumps(bill.as_json(made, told), indent=1))
        return 0
    console = wide()
    _print_lines(console, made.lines, made.totals(), told)
    _print_bill(console, made, told)
    for problem in list(made.absent.values())[:ABSENT]:
        console.print(problem, highlight=False, markup=False, soft_wrap=True)
    if len(made.absent) > ABSENT:
        console.print(
            f"and {len(made.absent) - ABSENT} more that are not there yet: --json, or simclic data list", highlight=False
        )
    for job, reason in made.reasons.items():
        console.print(f"{job}: {reason}", highlight=False, markup=False, soft_wrap=True, style="red")
    return 0


def wide() -> "Console":
    """A console that breaks no line of a table where it need not fit a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def _why(arguments: argparse.Namespace, suites: "list[Suite]") -> int:
    """Which jobs fill a cell, and what has become of them."""
    from simclic.schedule.why import explain

    told = explain(suites, arguments.runs, arguments.data, arguments.why)
    if arguments.json:
        print(json.dumps(told.as_json(), indent=1))
    else:
        for line in told.lines():
            wide().print(line, highlight=False, soft_wrap=True)
    return 0


def _within(arguments: argparse.Namespace, suites: "list[Suite]", made: "Plan", told: "Bill") -> int:
    """What fits into the hours given."""
    from simclic.report.budget import propose

    limit = budget(arguments.within, told.target.unit)
    found = propose(limit, suites, made, told)
    if arguments.json:
        steps = [{"parts": [str(p) for p in s.parts], "hours": s.hours, "claims": sorted(s.claims)} for s in found.steps]
        out = [{"part": str(part), "hours": None if math.isnan(hours) else hours} for part, hours in found.out]
        print(
            json.dumps({"limit": limit, "hours": found.hours, "steps": steps, "out": out, "open": sorted(found.open)}, indent=1)
        )
        return 0
    _print_budget(found, told)
    return 0


def _print_budget(found: "Budget", told: "Bill") -> None:
    from rich.table import Table
    from rich.text import Text

    console, unit = wide(), told.target.unit
    table = Table("what", unit, "so far", "claims that it lets be judged")
    for column in table.columns[1:3]:
        column.justify = "right"
    total = 0.0
    for step in found.steps:
        total += step.hours
        what = Text("\n".join(map(str, step.parts)))
        table.add_row(what, _hours(step.hours), _hours(total), ", ".join(sorted(step.claims)) or "·")
    console.print(table)
    for part, hours in found.out:
        price = "no price: a broken file, or images that are elsewhere" if math.isnan(hours) else f"{_hours(hours)} {unit}"
        console.print(f"left out: {part} ({price})", highlight=False, markup=False, soft_wrap=True)
    if found.open:
        console.print(f"not to be judged then: {', '.join(sorted(found.open))}", highlight=False, markup=False, soft_wrap=True)
    said = f"{_hours(found.hours)} of {found.limit:g} {unit} on {told.target.name} ({told.target.kind})"
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def target(on: Path | None) -> "Target":
    """What is priced for: a profile, or this machine. Raises InputError for a bad profile."""
    from simclic.schedule import cost

    if on is None:
        return cost.here()
    from simclic.schedule import profile

    return profile.target(profile.read(on))


def _print_lines(console: "Console", lines: "list[Line]", totals: "list[Line]", told: "Bill") -> None:
    from rich.table import Table

    unit = told.target.unit if told.hours(told.seconds) >= 1 else told.target.unit.removesuffix("-h") + " time"
    table = Table("exhibit", "stage", "asked", "shared", "done", "failed", "missing", unit)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for group in (lines, totals):
        for line in group:
            counts = (line.asked, line.shared, line.done, line.failed, line.missing)
            table.add_row(line.exhibit, line.stage, *(f"{n:,}" if n else "·" for n in counts), _price(told.of(line.jobs), told))
        table.add_section()
    console.print(table)


def _print_bill(console: "Console", made: "Plan", told: "Bill") -> None:
    """The largest items first, then the sums and where the figures are from."""

    if told.unknown:
        console.print(f"no price for {len(told.unknown)} jobs: their images are not here", highlight=False)
    if not told.prices:
        console.print("nothing else is left to do" if told.unknown else "nothing is left to do")
        return
    largest = sorted(told.prices.items(), key=lambda item: -item[1].seconds)[:LARGEST]
    console.print("largest:")
    for name, price in largest:
        exhibits = ", ".join(made.exhibits[name])
        line = f"  {format_seconds(price.seconds):>9}  {name}  ({exhibits}; {price.source})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    where = f"{told.target.atonce} at a time"
    sums = [
        f"{_sum(told.seconds, told)} on {told.target.name} ({told.target.kind}), "
        f"{format_seconds(told.wall)} with {where}, queues aside",
        f"disk: {format_bytes(told.after)} more afterwards, {format_bytes(told.during)} at most while it runs",
        "prices: " + "; ".join(f"{_sum(s, told)} {source}" for source, s in sorted(told.sources.items())),
    ]
    for line in sums:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _price(hours: float, told: "Bill") -> str:
    """Device hours; where all together are less than one, seconds or minutes."""

    if not hours:
        return "·"
    return _hours(hours) if told.hours(told.seconds) >= 1 else format_seconds(3600 * hours)


def _sum(seconds: float, told: "Bill") -> str:
    """Seconds of one process as device hours, or as time where all together are less than an hour."""

    hours, unit = told.hours(seconds), told.target.unit
    if told.hours(told.seconds) >= 1:
        return f"{_hours(hours)} {unit}"
    return f"{format_seconds(3600 * hours)} of a {unit.removesuffix('-h')}"


def _hours(hours: float) -> str:
    """Two digits after the point below ten, none above a hundred."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 0.01 else "< 0.01"


def budget(text: str, unit: str) -> float:
    """Device hours in words such as "200 GPU-h". Raises InputError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GPU-?h|core-?h|h)?\s*", text, re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise InputError(f"--within {text!r} is no budget; say it as in --within '200 {unit}'")
    said = (found[2] or "h").lower().replace("-", "")
    if said not in ("h", unit.lower().replace("-", "")):
        raise InputError(f"--within {text!r}: this target counts {unit}; say --within '{found[1]} {unit}', or name another --on")
    return float(found[1])
