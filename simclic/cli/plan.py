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
    from simclic.schedule.cost import Target
    from simclic.schedule.plan import Plan, PlanLine
    from simclic.schedule.plan_cost import PlanCost

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
    from simclic.schedule import plan as planning
    from simclic.schedule import plan_cost

    suites = [load(path) for path in arguments.exhibits]
    if arguments.why is not None:
        return _explain_cell(arguments, suites)
    job_plan = planning.plan(suites, arguments.runs, arguments.data, verify=False)  # this has to be quick; report and run verify
    costs = plan_cost.price_plan(job_plan, arguments.runs, arguments.data, read_target(arguments.on))
    if arguments.within is not None:
        return _propose_within(arguments, suites, job_plan, costs)
    if arguments.json:
        print(json.dumps(plan_cost.as_json(job_plan, costs), indent=1))
        return 0
    console = wide_console()
    _print_lines(console, job_plan.lines, job_plan.sum_stages(), costs)
    _print_costs(console, job_plan, costs)
    for problem in list(job_plan.absent.values())[:ABSENT]:
        console.print(problem, highlight=False, markup=False, soft_wrap=True)
    if len(job_plan.absent) > ABSENT:
        console.print(
            f"and {len(job_plan.absent) - ABSENT} more that are not there yet: --json, or simclic data list", highlight=False
        )
    for job, reason in job_plan.job_problems.items():
        console.print(f"{job}: {reason}", highlight=False, markup=False, soft_wrap=True, style="red")
    return 0


def wide_console() -> "Console":
    """A console that breaks no line of a table where it need not fit a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def _explain_cell(arguments: argparse.Namespace, suites: "list[Suite]") -> int:
    """Which jobs fill a cell, and what has become of them."""
    from simclic.schedule.why import explain_cells

    explanation = explain_cells(suites, arguments.runs, arguments.data, arguments.why)
    if arguments.json:
        print(json.dumps(explanation.as_json(), indent=1))
    else:
        for line in explanation.format_lines():
            wide_console().print(line, highlight=False, soft_wrap=True)
    return 0


def _propose_within(arguments: argparse.Namespace, suites: "list[Suite]", job_plan: "Plan", costs: "PlanCost") -> int:
    """What fits into the hours given."""
    from simclic.report.budget import propose

    limit = parse_budget(arguments.within, costs.target.unit)
    proposal = propose(limit, suites, job_plan, costs)
    if arguments.json:
        steps = [{"parts": [str(p) for p in s.parts], "hours": s.hours, "claims": sorted(s.claims)} for s in proposal.steps]
        out = [{"part": str(part), "hours": None if math.isnan(hours) else hours} for part, hours in proposal.out]
        print(
            json.dumps(
                {"limit": limit, "hours": proposal.hours, "steps": steps, "out": out, "open": sorted(proposal.open)}, indent=1
            )
        )
        return 0
    _print_budget(proposal, costs)
    return 0


def _print_budget(proposal: "Budget", costs: "PlanCost") -> None:
    from rich.table import Table
    from rich.text import Text

    console, unit = wide_console(), costs.target.unit
    table = Table("what", unit, "so far", "claims that it lets be judged")
    for column in table.columns[1:3]:
        column.justify = "right"
    total = 0.0
    for step in proposal.steps:
        total += step.hours
        what = Text("\n".join(map(str, step.parts)))
        table.add_row(what, _format_hours(step.hours), _format_hours(total), ", ".join(sorted(step.claims)) or "·")
    console.print(table)
    for part, hours in proposal.out:
        price = "no price: a broken file, or images that are elsewhere" if math.isnan(hours) else f"{_format_hours(hours)} {unit}"
        console.print(f"left out: {part} ({price})", highlight=False, markup=False, soft_wrap=True)
    if proposal.open:
        console.print(f"not to be judged then: {', '.join(sorted(proposal.open))}", highlight=False, markup=False, soft_wrap=True)
    summary = f"{_format_hours(proposal.hours)} of {proposal.limit:g} {unit} on {costs.target.name} ({costs.target.kind})"
    console.print(summary, highlight=False, markup=False, soft_wrap=True)


def read_target(on: Path | None) -> "Target":
    """What is priced for: a profile, or this machine. Raises InputError for a bad profile."""
    from simclic.schedule import cost

    if on is None:
        return cost.this_machine()
    from simclic.schedule import profile

    return profile.target(profile.read(on))


def _print_lines(console: "Console", lines: "list[PlanLine]", totals: "list[PlanLine]", costs: "PlanCost") -> None:
    from rich.table import Table

    unit = costs.target.unit if costs.device_hours(costs.seconds) >= 1 else costs.target.unit.removesuffix("-h") + " time"
    table = Table("exhibit", "stage", "asked", "shared", "done", "failed", "missing", unit)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for group in (lines, totals):
        for line in group:
            counts = (line.asked, line.shared, line.done, line.failed, line.missing)
            table.add_row(
                line.exhibit,
                line.stage,
                *(f"{n:,}" if n else "·" for n in counts),
                _format_price(costs.hours_of(line.jobs), costs),
            )
        table.add_section()
    console.print(table)


def _print_costs(console: "Console", job_plan: "Plan", costs: "PlanCost") -> None:
    """The largest items first, then the sums and where the figures are from."""

    if costs.unpriced_jobs:
        console.print(f"no price for {len(costs.unpriced_jobs)} jobs: their images are not here", highlight=False)
    if not costs.prices:
        console.print("nothing else is left to do" if costs.unpriced_jobs else "nothing is left to do")
        return
    largest = sorted(costs.prices.items(), key=lambda item: -item[1].seconds)[:LARGEST]
    console.print("largest:")
    for name, price in largest:
        exhibits = ", ".join(job_plan.exhibits[name])
        line = f"  {format_seconds(price.seconds):>9}  {name}  ({exhibits}; {price.source})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    where = f"{costs.target.jobs_at_once} at a time"
    sums = [
        f"{_format_sum(costs.seconds, costs)} on {costs.target.name} ({costs.target.kind}), "
        f"{format_seconds(costs.wall_seconds)} with {where}, queues aside",
        f"disk: {format_bytes(costs.disk_after)} more afterwards, {format_bytes(costs.disk_during)} at most while it runs",
        "prices: " + "; ".join(f"{_format_sum(s, costs)} {source}" for source, s in sorted(costs.seconds_by_source.items())),
    ]
    for line in sums:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _format_price(hours: float, costs: "PlanCost") -> str:
    """Device hours; where all together are less than one, seconds or minutes."""

    if not hours:
        return "·"
    return _format_hours(hours) if costs.device_hours(costs.seconds) >= 1 else format_seconds(3600 * hours)


def _format_sum(seconds: float, costs: "PlanCost") -> str:
    """Seconds of one process as device hours, or as time where all together are less than an hour."""

    hours, unit = costs.device_hours(seconds), costs.target.unit
    if costs.device_hours(costs.seconds) >= 1:
        return f"{_format_hours(hours)} {unit}"
    return f"{format_seconds(3600 * hours)} of a {unit.removesuffix('-h')}"


def _format_hours(hours: float) -> str:
    """Two digits after the point below ten, none above a hundred."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 0.01 else "< 0.01"


def parse_budget(text: str, unit: str) -> float:
    """Device hours in words such as "200 GPU-h". Raises InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GPU-?h|core-?h|h)?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise InputError(f"--within {text!r} is no budget; say it as in --within '200 {unit}'")
    given_unit = (match[2] or "h").lower().replace("-", "")
    if given_unit not in ("h", unit.lower().replace("-", "")):
        raise InputError(f"--within {text!r}: this target counts {unit}; say --within '{match[1]} {unit}', or name another --on")
    return float(match[1])
