"""The verbs. `python -m simclic VERB --help` says what each one takes."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.spec import InputError, Suite, load

if TYPE_CHECKING:
    from rich.console import Console

    from simclic.data.check import Checked
    from simclic.plan import Line, Plan


def main(words: list[str] | None = None) -> int:
    """Carry out one verb. Returns the exit code: 0 all well, 1 something failed, 2 the user's mistake, 130 Ctrl-C."""
    arguments = parser().parse_args(words)
    try:
        return int(arguments.verb(arguments))
    except InputError as e:
        print("\n".join(f"error: {line}" for line in str(e).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1  # whoever read our output has gone


def parser() -> argparse.ArgumentParser:
    """The command line. No flag changes a Run: they say where things are, never what is measured."""
    top = argparse.ArgumentParser(prog="simclic", description="Reproduce, check and go beyond the SimCLIC paper.")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb, text in (
        (plan, "jobs asked, shared, done and missing"),
        (run, "do what is missing on this machine, then report"),
        (status, "done, missing, and what failed and why"),
        (report, "tables and figures from whatever is done"),
    ):
        p = verbs.add_parser(verb.__name__, help=text, description=text)
        p.set_defaults(verb=verb)
        p.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
        p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs and results lie (%(default)s)")
        p.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the data sets lie (%(default)s)")
        if verb in (run, report):
            p.add_argument(
                "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where the report goes (%(default)s)"
            )
        else:
            p.add_argument("--json", action="store_true", help="for programs")
    p = verbs.add_parser("data", help="the data sets: list, check, prepare", description="the data sets")
    kinds = p.add_subparsers(metavar="list | check | prepare", required=True)
    for verb, text in (
        (data_list, "the table of facts, and what is on disk"),
        (data_check, "is a data set whole? reads and decodes every file; exit code 0 only if it is"),
        (data_prepare, "download what can be downloaded, then decode once for all runs"),
    ):
        p = kinds.add_parser(verb.__name__.removeprefix("data_"), help=text, description=text)
        p.set_defaults(verb=verb)
        if verb is not data_list:
            p.add_argument("names", nargs="+", metavar="NAME", help="as in `simclic data list`, or a folder of your own images")
        p.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the data sets lie (%(default)s)")
        if verb is data_prepare:
            p.add_argument("--size", type=int, default=224, help="pixels along each side (%(default)s; CIFAR stays as it is)")
        else:
            p.add_argument("--json", action="store_true", help="for programs")
    return top


def plan(arguments: argparse.Namespace) -> int:
    """What the exhibits ask for and what of it is missing."""
    made = _planned(arguments, _suites(arguments))
    if arguments.json:
        print(json.dumps(made.as_json(), indent=1))
        return 0
    console = _console()
    _print_lines(console, made.lines, made.totals())
    _print_reasons(console, made)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """As plan, without what is shared; exit code 1 if anything failed."""
    made = _planned(arguments, _suites(arguments))
    if arguments.json:
        print(json.dumps(made.as_json(), indent=1))
    else:
        console = _console()
        for line in made.totals():
            text = f"{line.done} of {line.done + line.failed + line.missing} done"
            console.print(
                f"{line.stage or 'all':10} {text}" + (f", [red]{line.failed} failed[/red]" if line.failed else ""),
                highlight=False,
            )
        _print_reasons(console, made)
    return int(bool(made.reasons))


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, then report. One failure does not stop the rest."""
    from simclic import files, launch
    from simclic.plan import runnable

    suites = _suites(arguments)
    made = _planned(arguments, suites)
    ready = runnable(made)
    files.writable(arguments.runs, "--runs")
    _check_out(suites, arguments)
    console = _console()
    for problem in dict.fromkeys((*made.absent.values(), *made.broken.values())):
        print(f"error: {problem}", file=sys.stderr)
    outcome = launch.here(ready, arguments.runs, arguments.data, console) if ready else launch.Outcome()
    if not ready and not made.absent:
        console.print("nothing to train" + ("" if made.reasons else ": every result is there"), highlight=False)
    for reason in sorted(set(outcome.failures.values())):
        those = [name for name, why in outcome.failures.items() if why == reason]
        more = f" ({len(those)} runs)" if len(those) > 1 else f" ({those[0]})"
        print(f"error: {reason}{more}", file=sys.stderr)
    for name, trace in outcome.crashes.items():
        print(f"\n{name}: {trace}", file=sys.stderr)
    _render(suites, arguments, console, silent=tuple(made.broken.values()))
    return int(bool(outcome.failures or made.absent or made.broken))


def report(arguments: argparse.Namespace) -> int:
    """Render what is there; exit code 1 if a result file cannot be trusted."""
    suites = _suites(arguments)
    broken = _planned(arguments, suites).broken
    _check_out(suites, arguments)
    return _render(suites, arguments, _console()) or int(bool(broken))


def data_list(arguments: argparse.Namespace) -> int:
    """The table of facts, with what is on disk."""
    from dataclasses import asdict

    from rich.table import Table

    from simclic.data import FACTS, decoded, missing

    rows = {}
    for name, f in FACTS.items():
        made = [str(path) for path in decoded.made(name, arguments.data)]
        rows[name] = {**asdict(f), "missing": missing(name, arguments.data), "decoded": made}
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table("name", "classes", "train", "val", "test", "metric", "split", "folder", "here", "decoded")
    for name, f in FACTS.items():
        here = "yes" if not rows[name]["missing"] else "in part" if (arguments.data / f.home).exists() else "no"
        sizes = ", ".join(sorted({Path(path).stem.rsplit("-", 2)[-2] for path in rows[name]["decoded"]}, key=int))
        table.add_row(name, str(f.classes), *(f"{n:,}" for n in f.sizes), f.metric, f.rule, f.home, here, sizes)
    console = _console()
    console.print(table)
    console.print("Normalised with ImageNet's mean and deviation, digits with their own. Expected files and archives: --json.")
    return 0


def data_check(arguments: argparse.Namespace) -> int:
    """Everything that is wrong with each data set; exit code 1 if anything is."""
    from dataclasses import asdict

    from simclic.data import facts
    from simclic.data.check import check
    from simclic.progress import shown

    for name in arguments.names:
        facts(name)  # no data set is read before all names are known to be right
    console, found = _console(stderr=True), []
    for name in arguments.names:
        with shown(console) as tell:
            found.append(check(name, arguments.data, tell))
    if arguments.json:
        print(json.dumps({c.name: {**asdict(c), "whole": c.whole} for c in found}, indent=1))
    else:
        for checked in found:
            _print_checked(_console(), checked)
    for problem in (p for checked in found for p in checked.problems):
        print(f"error: {problem}", file=sys.stderr)
    return int(not all(checked.whole for checked in found))


def data_prepare(arguments: argparse.Namespace) -> int:
    """Download, verify, unpack, decode; one data set's mistake does not stop the next."""
    from simclic.data import FACTS, facts, folder, load
    from simclic.progress import shown
    from simclic.spec.fields import checked

    checked("image_size", arguments.size, int)
    for name in arguments.names:
        if not folder.is_path(name):
            facts(name)
    console, failed = _console(), False
    for name in arguments.names:
        try:
            if name in FACTS:
                from simclic.data.fetch import fetch

                fetch(name, arguments.data, lambda text: console.print(text, highlight=False, soft_wrap=True))
            with shown(console) as tell:
                made = load(name, "ericsson", arguments.data, arguments.size, tell=tell)
        except InputError as e:
            print("\n".join(f"error: {line}" for line in str(e).splitlines()), file=sys.stderr)
            failed = True
            continue
        n, _, height, width = made.images.shape
        console.print(f"{name}: {n:,} images of {width} x {height}, ready; data {made.digest}", highlight=False, soft_wrap=True)
    return int(failed)


def _suites(arguments: argparse.Namespace) -> list[Suite]:
    return [load(path) for path in arguments.exhibits]


def _planned(arguments: argparse.Namespace, suites: list[Suite]) -> "Plan":
    from simclic import plan as planning

    return planning.plan(suites, arguments.runs, arguments.data)


def _check_out(suites: list[Suite], arguments: argparse.Namespace) -> None:
    """Raise InputError if the report could not be written, before anything is trained for it."""
    from simclic import files

    for suite in suites:
        files.writable(arguments.out / suite.name, "--out")


def _render(suites: list[Suite], arguments: argparse.Namespace, console: "Console", silent: tuple[str, ...] = ()) -> int:
    """Write the report; tell what is wrong with result files, except what was told already (`silent`)."""
    from simclic.report import render

    pages, problems = render(suites, arguments.runs, arguments.out)
    for problem in (p for p in problems if p not in silent):
        print(f"error: {problem}", file=sys.stderr)
    for page in pages:
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return int(bool(problems))


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def _print_checked(console: "Console", checked: "Checked") -> None:
    """What was found, in a few lines; what is wrong is printed as errors."""
    sizes = ", ".join(f"{part} {n:,}" for part, n in checked.sizes.items() if part != "fit")
    console.print(
        f"[bold]{checked.title}[/bold]: {checked.images:,} images; {sizes or 'not read'}", highlight=False, soft_wrap=True
    )
    for part in ("train", "val", "test") if checked.classes else ():
        counts = {kind: parts.get(part, 0) for kind, parts in checked.classes.items()}
        few, many = min(counts, key=lambda k: counts[k]), max(counts, key=lambda k: counts[k])
        text = f"  {part:5} {counts[few]:,} ({few}) to {counts[many]:,} ({many}) of each of {len(counts)} classes"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for remark in checked.remarks[:10]:
        console.print(f"  {remark}", highlight=False, markup=False, soft_wrap=True)
    if len(checked.remarks) > 10:
        console.print(f"  and {len(checked.remarks) - 10:,} remarks more: --json", highlight=False)
    if checked.digests:
        told = ", ".join(f"{digest} under the split {rule}" for rule, digest in checked.digests.items())
        console.print(f"  data {told}", highlight=False, soft_wrap=True)
    if checked.whole:
        console.print("  whole", highlight=False)


def _print_lines(console: "Console", lines: "list[Line]", totals: "list[Line]") -> None:
    from rich.table import Table

    table = Table("exhibit", "stage", "asked", "shared", "done", "failed", "missing")
    for column in table.columns[2:]:
        column.justify = "right"
    for group in (lines, totals):
        for line in group:
            counts = (line.asked, line.shared, line.done, line.failed, line.missing)
            table.add_row(line.exhibit, line.stage, *(f"{n:,}" if n else "·" for n in counts))
        table.add_section()
    console.print(table)


def _print_reasons(console: "Console", made: "Plan") -> None:
    for problem in made.absent.values():
        console.print(problem, highlight=False, soft_wrap=True)
    for job, reason in made.reasons.items():
        console.print(f"[red]{job}[/red]: {reason}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
