"""The verbs. `python -m simclic VERB --help` says what each one takes."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import (
    calibrate,
    compare,
    data,
    doctor,
    exports,
    finetune,
    gc,
    how,
    imports,
    places,
    plan,
    probe,
    status,
    stopped,
    submit,
    watch,
)
from simclic.errors import InputError
from simclic.experiment import How, Suite, load

if TYPE_CHECKING:
    from rich.console import Console

    from simclic.schedule.plan import Plan


def main(words: list[str] | None = None) -> int:
    """Carry out one verb. Returns the exit code: 0 all well, 1 something failed, 2 the user's mistake, 130 Ctrl-C."""
    arguments = parser().parse_args(words)
    try:
        return int(arguments.verb(arguments))
    except InputError as e:
        print("\n".join(f"error: {line}" for line in str(e).splitlines()), file=sys.stderr)
        return 2
    except (PermissionError, IsADirectoryError, NotADirectoryError) as e:
        print(f"error: {e.filename}: cannot be read or written ({e.strerror})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return stopped(signal.SIGINT)
    except BrokenPipeError:
        return 1  # whoever read our output has gone


def parser() -> argparse.ArgumentParser:
    """The command line. No flag changes a Run: they say where things are, never what is measured."""
    top = argparse.ArgumentParser(prog="simclic", description="Reproduce, check and go beyond the SimCLIC paper.")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb, text in (
        (run, "do what is missing on this machine, then report"),
        (report, "tables and figures from whatever is done"),
    ):
        p = verbs.add_parser(verb.__name__, help=text, description=text)
        p.set_defaults(verb=verb)
        p.add_argument("exhibits", nargs="+", type=Path, metavar="EXHIBIT", help="a file such as benchmarks/table2.py")
        places(p)
        p.add_argument("--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where the report goes (%(default)s)")
        if verb is run:
            how(p)
    for name, module, text in (
        ("plan", plan, "the jobs: asked, shared, done, missing, and what the rest will cost"),
        ("calibrate", calibrate, "measure how long things take here or on a cluster, so that a plan can be priced"),
        ("gc", gc, "what can be deleted, why, and how much that frees; asks first"),
        ("submit", submit, "the same through Slurm; returns at once"),
        ("status", status, "what is done, running, queued, waiting and failed, and why"),
        ("doctor", doctor, "what works here and on a cluster, and what does not"),
    ):
        module.add(verbs.add_parser(name, help=text, description=text))
    for name, module, text in (
        ("probe", probe, "the linear probe of any encoder, given as a file of weights"),
        ("finetune", finetune, "the fine-tuning grid of any encoder, given as a file of weights"),
        ("import", imports, "a published method's official ResNet-50, to start from"),
        ("export", exports, "a trained backbone, under timm's and torchvision's key names"),
    ):
        module.add(verbs.add_parser(name, help=text, description=text))
    data.add(verbs.add_parser("data", help="the data sets: list, check, prepare", description="the data sets"))
    text = "which cells changed beyond noise between two folders of results, or two commits"
    compare.add(verbs.add_parser("compare", help=text, description=text))
    watch.add(verbs.add_parser("watch", help="the curves of a pre-training", description="the curves of a pre-training"))
    return top


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, then report. One failure does not stop the rest."""
    from simclic import files
    from simclic.schedule import processes as launch
    from simclic.schedule.plan import runnable
    from simclic.schedule.work import WorkerOptions

    suites = _suites(arguments)
    made = _planned(arguments, suites)
    ready = runnable(made)
    files.writable(arguments.runs, "--runs")
    _check_out(suites, arguments)
    console = _console()
    for problem in dict.fromkeys((*made.absent.values(), *made.broken.values())):
        print(f"error: {problem}", file=sys.stderr)
    outcome = launch.Outcome()
    if ready:
        outcome = launch.run_locally(ready, WorkerOptions(arguments.runs, arguments.data, How.of(arguments)), console)
    if outcome.signal:
        return stopped(outcome.signal)
    if not ready and not made.absent:
        console.print("nothing to train" + ("" if made.reasons else ": every result is there"), highlight=False)
    told = outcome.failures | outcome.elsewhere
    for reason in sorted(set(told.values())):
        those = [name for name, why in told.items() if why == reason]
        more = f" ({len(those)} runs)" if len(those) > 1 else f" ({those[0]})"
        print(f"error: {reason}{more}", file=sys.stderr)
    for name, trace in outcome.crashes.items():
        print(f"\n{name}: {trace}", file=sys.stderr)
    _render(suites, arguments, console, silent=tuple(made.broken.values()))
    return int(bool(told or made.absent or made.broken))


def report(arguments: argparse.Namespace) -> int:
    """Render what is there; exit code 1 if a result file cannot be trusted."""
    suites = _suites(arguments)
    broken = _planned(arguments, suites, verify=False).broken  # reading the results verifies them
    _check_out(suites, arguments)
    return _render(suites, arguments, _console()) or int(bool(broken))


def _suites(arguments: argparse.Namespace) -> list[Suite]:
    return [load(path) for path in arguments.exhibits]


def _planned(arguments: argparse.Namespace, suites: list[Suite], verify: bool = True) -> "Plan":
    from simclic.schedule import plan as planning

    return planning.plan(suites, arguments.runs, arguments.data, verify)


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


def _console() -> "Console":
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    sys.exit(main())
