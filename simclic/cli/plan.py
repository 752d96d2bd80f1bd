"""simclic plan: the jobs that exhibits ask for, which of them are missing, and what those will cost."""

import argparse
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from simclic.cli import add_exhibits_argument, add_place_arguments, expand_path, print_line
from simclic.errors import InputError
from simclic.experiment import DECODE, ComputeOptions, load
from simclic.text import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from simclic.experiment import Suite
    from simclic.schedule.cost import Target
    from simclic.schedule.plan import Plan
    from simclic.schedule.plan_cost import PlanCost

MAX_JOBS, MAX_ABSENT = 8, 3  # that are listed


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic plan`."""
    parser.set_defaults(verb=plan)
    add_exhibits_argument(parser)
    add_place_arguments(parser)
    text = "the profile of the cluster that would run it, such as slurm/gpu.toml (this machine)"
    parser.add_argument("--on", type=expand_path, metavar="PROFILE", help=text)
    parser.add_argument("--decode", choices=DECODE, help="as in `simclic run` (what the profile says, else once)")
    parser.add_argument("--watch-on", metavar="NAME", help="as in `simclic run` (what the profile says, else the run's own)")
    text = "show the jobs of one cell and why they are not done; name it by words such as 'table2 noise cifar10'"
    parser.add_argument("--why", metavar="CELL", help=text)
    text = "a budget such as '200 GPU-h': propose the exhibits that decide most of the paper's claims within it"
    parser.add_argument("--within", metavar="HOURS", help=text)
    parser.add_argument("--json", action="store_true", help="for programs")


def plan(arguments: argparse.Namespace) -> int:
    """Print what the exhibits ask for, what of it is missing, and what that will cost."""
    from simclic.schedule import plan as planning
    from simclic.schedule import plan_cost

    suites = [load(path) for path in arguments.exhibits]
    if arguments.why is not None:
        return _explain_cell(arguments, suites)
    job_plan = planning.plan(suites, arguments.runs, arguments.data, verify=False)  # this has to be quick; report and run verify
    costs = plan_cost.price_plan(job_plan, arguments.runs, arguments.data, _read_target(arguments))
    if arguments.within is not None:
        return _propose_within(arguments, suites, job_plan, costs)
    if arguments.json:
        print(json.dumps(plan_cost.as_json(job_plan, costs), indent=1))
        return 0
    console, absent = wide_console(), list(job_plan.absent.values())
    _print_lines(console, job_plan, costs)
    _print_costs(console, job_plan, costs)
    for problem in absent[:MAX_ABSENT]:
        print_line(console, problem)
    if len(absent) > MAX_ABSENT:
        print_line(console, f"{len(absent) - MAX_ABSENT} more data sets or weights are missing; list them with --json")
    for job, reason in job_plan.job_problems.items():
        console.print(f"{job}: {reason}", highlight=False, markup=False, soft_wrap=True, style="red")
    return 0


def wide_console() -> "Console":
    """Return a console that breaks no line of a table where it need not fit a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def _explain_cell(arguments: argparse.Namespace, suites: "list[Suite]") -> int:
    """Print which jobs fill a cell and their states."""
    from simclic.schedule.why import explain_cells

    explanation = explain_cells(suites, arguments.runs, arguments.data, arguments.why)
    if arguments.json:
        print(json.dumps(explanation.as_json(), indent=1))
        return 0
    for line in explanation.format_lines():
        wide_console().print(line, highlight=False, soft_wrap=True)
    return 0


def _propose_within(arguments: argparse.Namespace, suites: "list[Suite]", job_plan: "Plan", costs: "PlanCost") -> int:
    """Print what fits into a budget and which claims it decides."""
    from rich.table import Column, Table

    from simclic.report.budget import propose_budget

    target, unit, total = costs.target, costs.target.unit, 0.0
    limit = parse_budget(arguments.within, unit)
    proposal = propose_budget(limit, suites, job_plan, costs)
    if arguments.json:
        steps = [{"parts": [str(p) for p in s.parts], "hours": s.hours, "claims": sorted(s.claims)} for s in proposal.steps]
        out = [{"part": str(part), "hours": None if math.isnan(hours) else hours} for part, hours in proposal.out]
        values = {"limit": limit, "hours": proposal.hours, "steps": steps, "out": out, "open": sorted(proposal.open)}
        print(json.dumps(values, indent=1))
        return 0
    console = wide_console()
    table = Table("what", Column(unit, justify="right"), Column("in all", justify="right"), "claims that it decides")
    for step in proposal.steps:
        total += step.hours
        claims = ", ".join(sorted(step.claims)) or "·"
        table.add_row("\n".join(map(str, step.parts)), _format_hours(step.hours), _format_hours(total), claims)
    console.print(table, markup=False)
    for part, hours in proposal.out:
        price = "no price: a damaged file, or images that are not here" if math.isnan(hours) else f"{_format_hours(hours)} {unit}"
        print_line(console, f"does not fit: {part} ({price})")
    if proposal.open:
        print_line(console, f"claims that stay undecided: {', '.join(sorted(proposal.open))}")
    print_line(console, f"{_format_hours(proposal.hours)} of {limit:g} {unit} on {target.name} ({target.kind})")
    return 0


def _read_target(arguments: argparse.Namespace) -> "Target":
    """Return what to price for: a profile, or this machine. Raise InputError for a bad profile or a wrong option."""
    from simclic.schedule import cost, profile

    options = {name: value for name in ("decode", "watch_on") if (value := getattr(arguments, name)) is not None}
    ComputeOptions(**options)  # checks them
    target = profile.price_target(profile.read_profile(arguments.on)) if arguments.on else cost.this_machine()
    return replace(target, **options)


def _print_lines(console: "Console", job_plan: "Plan", costs: "PlanCost") -> None:
    """Print a table of exhibits by stage, and the totals."""
    from rich.table import Column, Table

    words = ("asked", "shared", "done", "failed", "missing")
    numbers = (Column(word, justify="right", no_wrap=True) for word in (*words, _unit(costs).removeprefix("of ")))
    table = Table(Column("exhibit", no_wrap=True), Column("stage", no_wrap=True), *numbers)
    for group in (job_plan.lines, job_plan.sum_stages()):
        for line in group:
            counts = [f"{count:,}" if (count := getattr(line, word)) else "·" for word in words]
            hours = costs.hours_of(line.jobs)
            table.add_row(line.exhibit, line.stage, *counts, _format_cost(hours, costs) if hours else "·")
        table.add_section()
    console.print(table)


def _print_costs(console: "Console", job_plan: "Plan", costs: "PlanCost") -> None:
    """Print the largest jobs, then the sums and where the prices are from."""
    if costs.unpriced_jobs:
        print_line(console, f"no price for {len(costs.unpriced_jobs)} jobs: their images are not here")
    if not costs.prices:
        print_line(console, "nothing else is left to do" if costs.unpriced_jobs else "nothing is left to do")
        return
    print_line(console, "largest:")
    for name, price in sorted(costs.prices.items(), key=lambda item: -item[1].seconds)[:MAX_JOBS]:
        print_line(
            console, f"  {format_seconds(price.seconds):>9}  {name}  ({', '.join(job_plan.exhibits[name])}; {price.source})"
        )
    target, unit = costs.target, _unit(costs)
    sources = (
        f"{_format_cost(costs.device_hours(s), costs)} {unit} {source}" for source, s in sorted(costs.seconds_by_source.items())
    )
    wall = f"{format_seconds(costs.wall_seconds)} with {target.jobs_at_once} jobs at a time, without waiting in a queue"
    print_line(
        console, f"{_format_cost(costs.device_hours(costs.seconds), costs)} {unit} on {target.name} ({target.kind}), {wall}"
    )
    print_line(
        console,
        f"disk: {format_bytes(costs.disk_after)} more at the end, at most {format_bytes(costs.disk_during)} while it runs",
    )
    print_line(console, "prices: " + "; ".join(sources))


def _unit(costs: "PlanCost") -> str:
    """Return the unit of all costs of a plan: device hours, or time if all together take less than an hour."""
    unit = costs.target.unit
    return unit if costs.device_hours(costs.seconds) >= 1 else f"of {unit.removesuffix('-h')} time"


def _format_cost(hours: float, costs: "PlanCost") -> str:
    """Return device hours in the unit that `_unit` returns."""
    return _format_hours(hours) if costs.device_hours(costs.seconds) >= 1 else format_seconds(3600 * hours)


def _format_hours(hours: float) -> str:
    """Return hours with two digits after the point below ten and none from a hundred."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 0.01 else "< 0.01"


def parse_budget(text: str, unit: str) -> float:
    """Return the hours of a budget such as "200 GPU-h". Raise InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GPU-?h|core-?h|h)?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise InputError(f"--within {text!r} is not a budget; write it as in --within '200 {unit}'")
    given_unit = (match[2] or "h").lower().replace("-", "")
    if given_unit not in ("h", unit.lower().replace("-", "")):
        raise InputError(
            f"--within {text!r}: this target counts {unit}; write --within '{match[1]} {unit}', or choose another --on PROFILE"
        )
    return float(match[1])
