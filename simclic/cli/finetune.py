"""simclic finetune --weights FILE --dataset NAME: the fine-tuning grid of any encoder, as a table, a picture, a result."""

import argparse
from typing import TYPE_CHECKING, Any

from simclic.cli import how, weights
from simclic.experiment import Finetune, How

if TYPE_CHECKING:
    from rich.console import Console


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic finetune`: they declare a Run that trains nothing, and how it is fine-tuned."""
    parser.set_defaults(verb=finetune)
    weights.ask(parser)
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="of each setting (%(default)s)")
    parser.add_argument("--augment", default="crop+flip", metavar="NAME", help="crop+flip or none (%(default)s)")
    parser.add_argument("--precision", default="bf16", metavar="NAME", help="bf16 or float32 (%(default)s)")
    how(parser)


def finetune(arguments: argparse.Namespace) -> int:
    """Compute the result if it is not there, then show it."""
    protocol = Finetune(steps=arguments.steps, augment=arguments.augment, precision=arguments.precision)
    return weights.told(arguments, weights.encoder(arguments), protocol, _show, How.of(arguments))


def _show(console: "Console", title: str, result: dict[str, Any]) -> None:
    """The grid as a table, and the test error."""
    from rich.markup import escape
    from rich.table import Table

    from simclic.report.heat import heat, short

    grid, chosen = heat(result), result["chosen"]
    table = Table("lr \\ decay", *grid.decays, title=escape(f"{title}: error on val (%)"), title_justify="left", padding=(0, 0))
    for column in table.columns:
        column.justify = "right"
    for lr, cells in grid.rows:
        texts = (
            "div." if cell.text == "diverged" else f"[bold]{cell.text}*[/bold]" if cell.chosen else cell.text for cell in cells
        )
        table.add_row(lr, *texts)
    console.print(table, highlight=False)
    where = f"lr {short(chosen['lr'])}, decay {short(chosen['decay']) if chosen['decay'] else 'none'}"
    basis = f"{result['metric']}, {result['sizes']['test']:,} images, trained again on train + val at {where}"
    console.print(f"test error {result['error']:.2f} % ({basis})", highlight=False, soft_wrap=True)
