"""simclic watch RUN: the curves of a pre-training in the terminal, while it runs and after."""

import argparse
import time
from typing import TYPE_CHECKING

from simclic.cli import found, runs
from simclic.store.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Group

FIRST, LAST = ("loss", "probe", "rank", "spread"), ("lr", "images/s")
HIDDEN = ("epoch", "rank_of")
BLOCKS = "▁▂▃▄▅▆▇█"


def add(parser: argparse.ArgumentParser) -> None:
    """The words after `simclic watch`."""
    parser.set_defaults(verb=watch)
    parser.add_argument("run", metavar="RUN", help="a folder below runs/, or the beginning of its name")
    runs(parser)


def watch(arguments: argparse.Namespace) -> int:
    """On a terminal, until the training has ended or Ctrl-C; elsewhere once."""
    from rich.console import Console
    from rich.live import Live

    path, console = found(arguments.runs, arguments.run), Console()
    folder = RunFolder(path.parent, path.name)
    if not console.is_terminal:
        console.print(drawn(folder, 80))
        return 0
    with Live(drawn(folder, console.width), console=console, auto_refresh=False) as live:
        over = False
        while not over:
            over = bool(_end(folder))  # before drawing, so that the last epoch is drawn
            live.update(drawn(folder, console.width), refresh=True)
            time.sleep(0 if over else 2)
    return 0


def _end(folder: RunFolder) -> str:
    """Return how the training has ended; empty while it may go on."""
    return "done" if folder.has_encoder() else "failed" if folder.failure("pretrain") else ""


def drawn(folder: RunFolder, width: int) -> "Group":
    """One line per curve: its name, its course, its last value."""
    from rich.console import Group
    from rich.text import Text

    rows = folder.log_rows()
    if not rows:
        return Group(Text(f"{folder.name}: no epoch is done yet"))
    title = (
        f"{folder.name}: epoch {rows[-1]['epoch']} of {folder.recorded_fields.get('epochs', '?')}, {_end(folder) or 'running'}"
    )
    watched = (k for k, value in rows[-1].items() if k not in (*FIRST, *LAST, *HIDDEN) and isinstance(value, float))  # by method
    curves = {name: [row[name] for row in rows if row.get(name) is not None] for name in (*FIRST, *watched, *LAST)}
    texts = [f"{name:14}{sparkline(v, max(10, width - 28))} {v[-1]:12.5g}" for name, v in curves.items() if v]
    return Group(Text(title, style="bold"), *(Text(text, no_wrap=True) for text in texts))


def sparkline(values: list[float], width: int) -> str:
    """Values as a row of blocks, lowest to highest; neighbours are averaged where there are more than `width`."""
    count = min(width, len(values))
    bins = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(b) / len(b) for b in bins]
    low, high = min(means), max(means)
    return "".join(BLOCKS[round((m - low) / (high - low) * 7) if high > low else 3] for m in means)
