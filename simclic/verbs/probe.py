"""simclic probe --weights FILE --dataset NAME: the linear probe of any encoder, as a table, a picture and a result file."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic.spec import InputError, Linear, Run
from simclic.spec.run import is_file
from simclic.verbs import places, stopped

if TYPE_CHECKING:
    from rich.console import Console

BAR = 16  # characters, so that the table fits into 80


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic probe`: they declare a Run that trains nothing, and how it is probed."""
    parser.set_defaults(verb=probe)
    parser.add_argument(
        "--weights", required=True, metavar="FILE",
        help="safetensors, or PyTorch's, read with weights_only; under torchvision's or timm's keys; or a timm name with a tag",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="as in `simclic data list`, or a folder of your own images"
    )
    parser.add_argument("--backbone", default="resnet50", metavar="NAME", help="whose weights these are, in timm (%(default)s)")
    parser.add_argument("--size", type=int, default=224, metavar="N", help="pixels along each side (%(default)s)")
    parser.add_argument("--split", default="ericsson", metavar="RULE", help="ericsson or paper (%(default)s)")
    parser.add_argument("--solver", default="converged", metavar="NAME", help="converged or as-published (%(default)s)")
    parser.add_argument(
        "--features", default="float32", metavar="NAME", help="float32 or bf16, the backbone's precision (%(default)s)"
    )
    places(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where the picture goes (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def probe(arguments: argparse.Namespace) -> int:
    """Compute the result if it is not there, then show it."""
    from rich.console import Console

    from simclic import data, files, launch, report, store

    run, protocol = declared(arguments)
    if problem := data.missing(run.dataset, arguments.data):
        raise InputError(problem)
    files.writable(arguments.runs, "--runs")
    files.writable(arguments.out / "probe", "--out")
    told = Console(stderr=arguments.json)
    # What is there is not computed again, but weights and data are looked at: they may be others by now.
    outcome = launch.here([(run, (protocol,))], arguments.runs, arguments.data, told)
    if outcome.signal:
        return stopped(outcome.signal)
    reasons = outcome.failures | outcome.elsewhere | outcome.crashes
    for why in reasons.values():
        print(f"error: {why}", file=sys.stderr)
    result = store.result(arguments.runs, run, protocol)
    if reasons or result is None:
        return 1
    path = store.result_path(arguments.runs, run, protocol)
    title = f"{data.title(run.dataset)}: {Path(run.init).name}, {protocol.title.lower()}"
    pictures = report.probe(result, title, arguments.out / "probe" / f"{run.name}-{protocol.name}")
    if arguments.json:
        print(json.dumps({**result, "result": str(path), "pictures": [str(p) for p in pictures]}, indent=1))
        return 0
    _show(told, title, result)
    for name, place in (("result", path), ("picture", pictures[1])):
        told.print(f"{name}: {place}", highlight=False, soft_wrap=True, markup=False)
    return 0


def declared(arguments: argparse.Namespace) -> tuple[Run, Linear]:
    """The Run and the protocol that the words declare. Raises InputError if there is no such file, or for a bad value."""
    weights = arguments.weights
    if Path(weights).expanduser().is_file():
        weights = weights if "/" in weights else f"./{weights}"  # a path, whatever it ends with
    elif Path(weights).is_dir():
        raise InputError(f"--weights {weights}: is a folder, not a file of weights")
    elif is_file(weights) or not Path(weights).suffix:
        raise InputError(f"--weights {weights}: no such file; name one, or weights of timm by name and tag")
    run = Run(
        dataset=arguments.dataset, split=arguments.split, image_size=arguments.size, backbone=arguments.backbone, init=weights,
        perturbation="none", epochs=0,
    )  # fmt: skip
    return run, Linear(solver=arguments.solver, features=arguments.features)


def _show(console: "Console", title: str, result: dict[str, Any]) -> None:
    """The curve as a table, strongest l2 first, and the test error."""
    from rich.markup import escape
    from rich.table import Table

    curve, chosen = sorted(result["curve"], key=lambda row: -row["l2"]), result["chosen"]["l2"]
    table = Table("l2", "error on val (%)", "", "iterations", "gap", "", title=escape(title), title_justify="left")
    for column in (0, 1, 3, 4):
        table.columns[column].justify = "right"
    most = max(row["error"] for row in curve) or 1.0
    for row in curve:
        gap = "" if row["gap"] is None else f"{row['gap']:.1e}"
        marks = ["chosen"] * (row["l2"] == chosen) + ["stopped"] * (not row["converged"])
        bar = "█" * round(BAR * row["error"] / most)
        style = "bold" if row["l2"] == chosen else None
        table.add_row(f"{row['l2']:.2e}", f"{row['error']:.2f}", bar, f"{row['iterations']}", gap, " ".join(marks), style=style)
    console.print(table, highlight=False)
    basis = f"{result['metric']}, {result['sizes']['test']:,} images, after a refit on train + val at l2 = {chosen:.3g}"
    console.print(f"test error {result['error']:.2f} % ({basis})", highlight=False, soft_wrap=True)
    if result["unconverged"]:
        among = "" if result["chosen"]["converged"] else ", the refit among them,"
        told = f"{result['unconverged']} of {len(curve) + 1} fits{among} were stopped before they had converged"
        console.print(told, highlight=False, soft_wrap=True)
