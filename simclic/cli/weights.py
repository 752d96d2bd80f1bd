"""simclic probe and simclic finetune: evaluate an encoder from a file of weights; print a table, write a picture and a file."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic.cli import add_compute_arguments, add_out_argument, add_place_arguments, print_errors, print_line, report_stopped
from simclic.errors import InputError
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Finetune, Job, Linear, Protocol, Run
from simclic.experiment.baselines import IMPORTED
from simclic.experiment.names import is_file
from simclic.text import count_noun, quote_text

if TYPE_CHECKING:
    from rich.table import Table

BAR_WIDTH = 16  # characters, so that the table fits into 80


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic probe`."""
    _add_arguments(parser, run_probe)
    parser.add_argument("--solver", default="converged", metavar="NAME", help="converged or as-published (%(default)s)")
    text = "float32 or bf16, the backbone's precision (%(default)s)"
    parser.add_argument("--features", default="float32", metavar="NAME", help=text)


def add_finetune(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic finetune`."""
    _add_arguments(parser, run_finetune)
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="of each setting (%(default)s)")
    parser.add_argument("--augment", default="crop+flip", metavar="NAME", help="crop+flip or none (%(default)s)")
    parser.add_argument("--precision", default="bf16", metavar="NAME", help="bf16 or float32 (%(default)s)")
    add_compute_arguments(parser)


def _add_arguments(parser: argparse.ArgumentParser, verb: Any) -> None:
    parser.set_defaults(verb=verb)
    text = "a .safetensors or PyTorch file with torchvision's or timm's key names, or a timm name with its tag"
    parser.add_argument("--weights", required=True, metavar="FILE", help=text)
    text = "as in `simclic data list`, or a folder of your own images"
    parser.add_argument("--dataset", required=True, metavar="NAME", help=text)
    parser.add_argument(
        "--backbone",
        default="resnet50",
        metavar="NAME",
        help="timm name of the backbone that these weights belong to (%(default)s)",
    )
    parser.add_argument("--size", type=int, default=224, metavar="N", help="pixels along each side (%(default)s)")
    parser.add_argument("--split", default="ericsson", metavar="RULE", help="ericsson or paper (%(default)s)")
    add_place_arguments(parser)
    add_out_argument(parser, "picture")
    parser.add_argument("--json", action="store_true", help="for programs")


def run_probe(arguments: argparse.Namespace) -> int:
    """Compute the probe unless it is stored, then print its curve, strongest l2 first, and the test error."""
    return _show_result(arguments, Linear(solver=arguments.solver, features=arguments.features), _fill_curve_table)


def run_finetune(arguments: argparse.Namespace) -> int:
    """Compute the fine-tuning unless it is stored, then print its grid and the test error."""
    protocol = Finetune(steps=arguments.steps, augment=arguments.augment, precision=arguments.precision)
    return _show_result(arguments, protocol, _fill_grid_table, ComputeOptions.from_arguments(arguments))


def _declare_run(arguments: argparse.Namespace) -> Run:
    """Return the Run of these arguments, which trains nothing. Raises InputError for a missing file or a bad value."""
    weights = arguments.weights
    if Path(weights).expanduser().is_file():
        weights = weights if "/" in weights else f"./{weights}"  # a path, whatever it ends with
    elif Path(weights).is_dir():
        raise InputError(f"--weights {weights}: is a folder, not a file of weights")
    elif weights not in IMPORTED and (is_file(weights) or not Path(weights).suffix):
        raise InputError(f"--weights {weights}: no such file; name one, or weights of timm by name and tag")
    return Run(
        dataset=arguments.dataset, split=arguments.split, image_size=arguments.size, backbone=arguments.backbone, init=weights,
        perturbation="none", epochs=0,
    )  # fmt: skip


def _show_result(arguments: argparse.Namespace, protocol: Protocol, fill: Any, options: ComputeOptions = DEFAULT_COMPUTE) -> int:
    """Compute a result unless it is stored, then print it: as JSON, or as a table that `fill` fills, and sentences."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from simclic import data, files, report
    from simclic.schedule.processes import run_locally
    from simclic.schedule.work import WorkerOptions
    from simclic.store.record import check_writable_store
    from simclic.store.run_folder import RunFolder

    run = _declare_run(arguments)
    if problem := data.explain_missing(run.dataset, arguments.data):
        raise InputError(problem)
    check_writable_store(arguments.runs)
    picture_folder = arguments.out / protocol.stage.replace("linear", "probe")
    files.check_writable(picture_folder, "--out")
    console: Console = Console(stderr=arguments.json)
    # A stored result is not computed again, but weights and data are checked: the files may have changed.
    outcome = run_locally([Job(run, protocol)], WorkerOptions(arguments.runs, arguments.data, options), console)
    if outcome.signal:
        return report_stopped(outcome.signal)
    reasons = outcome.failures | outcome.postponed | outcome.crashes
    print_errors(list(reasons.values()))
    folder = RunFolder(arguments.runs, run)
    result = None if reasons else folder.read_result(protocol)
    if result is None:
        return 1
    path = folder.result_path(protocol)
    title = f"{data.title(run.dataset)}: {Path(run.init).name}, {protocol.title.lower()}"
    pictures = report.draw_result(result, title, picture_folder / f"{run.name}-{protocol.name}")
    if arguments.json:
        print(json.dumps({**result, "result": str(path), "pictures": [str(p) for p in pictures]}, indent=1))
        return 0
    table = Table(title=escape(title), title_justify="left")
    choice_text, *more = fill(table, result)
    console.print(table, highlight=False)
    basis = f"{result['metric']}, {result['sizes']['test']:,} images, {choice_text}"
    weights_text = _describe_weights(folder.encoder_record() or {})
    for line in (
        f"test error {result['error']:.2f} % ({basis})",
        *more,
        weights_text,
        f"result: {path}",
        f"picture: {pictures[1]}",
    ):
        print_line(console, line)
    return 0


def _describe_weights(record: dict[str, Any]) -> str:
    """Return which part of the file of weights was used, and which keys were left out. record: of the encoder."""
    from simclic.weights.state_dict import format_first

    part, dropped = record.get("init_part", ""), [quote_text(key) for key in record.get("init_dropped", ())]
    names = f" ({format_first(dropped, ', ')})" if dropped else ""
    place = f"taken from {quote_text(part)}, " if part else ""
    return f"weights: {place}{count_noun(len(dropped), 'key')} left out{names}"


def _fill_curve_table(table: "Table", result: dict[str, Any]) -> list[str]:
    """Fill a table with the errors on val by l2. Return sentences: where the test error is from, and which fits stopped early."""
    curve, chosen = sorted(result["curve"], key=lambda row: -row["l2"]), result["chosen"]["l2"]
    for i, column in enumerate(("l2", "error on val (%)", "", "iterations", "gap", "")):
        table.add_column(column, justify="right" if i in (0, 1, 3, 4) else "left")
    largest = max(row["error"] for row in curve) or 1.0
    for row in curve:
        gap = "" if row["gap"] is None else f"{row['gap']:.1e}"
        marks = ["chosen"] * (row["l2"] == chosen) + ["stopped"] * (not row["converged"])
        bar = "█" * round(BAR_WIDTH * row["error"] / largest)
        style = "bold" if row["l2"] == chosen else None
        table.add_row(f"{row['l2']:.2e}", f"{row['error']:.2f}", bar, f"{row['iterations']}", gap, " ".join(marks), style=style)
    among = "" if result["chosen"]["converged"] else ", the refit among them,"
    stopped = f"{result['unconverged']} of {len(curve) + 1} fits{among} stopped before they converged"
    return [f"after a refit on train + val at l2 = {chosen:.3g}", *([stopped] if result["unconverged"] else [])]


def _fill_grid_table(table: "Table", result: dict[str, Any]) -> list[str]:
    """Fill a table with the errors on val by learning rate and decay. Return where the test error is from."""
    from simclic.report.finetune_grid import build_grid_table, format_short

    grid, chosen = build_grid_table(result), result["chosen"]
    table.title, table.padding = f"{table.title}: error on val (%)", (0, 0)
    for column in ("lr \\ decay", *grid.decays):
        table.add_column(column, justify="right")
    for lr, cells in grid.rows:
        texts = [f"[bold]{cell.text}*[/bold]" if cell.chosen else cell.text.replace("diverged", "div.") for cell in cells]
        table.add_row(lr, *texts)
    decay = format_short(chosen["decay"]) if chosen["decay"] else "none"
    return [f"trained again on train + val at lr {format_short(chosen['lr'])}, decay {decay}"]
