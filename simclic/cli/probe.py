"""simclic probe --weights FILE --dataset NAME: the linear probe of any encoder, as a table, a picture and a result file."""

import argparse
from typing import TYPE_CHECKING, Any

from simclic.cli import weights
from simclic.experiment import Linear

if TYPE_CHECKING:
    from rich.console import Console

BAR = 16  # characters, so that the table fits into 80


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic probe`: they declare a Run that trains nothing, and how it is probed."""
    parser.set_defaults(verb=probe)
    weights.ask(parser)
    parser.add_argument("--solver", default="converged", metavar="NAME", help="converged or as-published (%(default)s)")
    parser.add_argument(
        "--features", default="float32", metavar="NAME", help="float32 or bf16, the backbone's precision (%(default)s)"
    )


def probe(arguments: argparse.Namespace) -> int:
    """Compute the result if it is not there, then show it."""
    protocol = Linear(solver=arguments.solver, features=arguments.features)
    return weights.told(arguments, weights.encoder(arguments), protocol, _show)


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
