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
        while not ended(folder):
            time.sleep(2)
            live.update(drawn(folder, console.width), refresh=True)
        live.update(drawn(folder, console.width), refresh=True)
    return 0


def ended(folder: RunFolder) -> bool:
    """Is there nothing more to come?"""
    return folder.has_encoder() or bool(folder.failure("pretrain"))


def drawn(folder: RunFolder, width: int) -> "Group":
    """One line per curve: its name, its course, its last value."""
    from rich.console import Group
    from rich.text import Text

    found = folder.log_rows()
    if not found:
        return Group(Text(f"{folder.name}: no epoch is done yet"))
    epochs, last = folder.recorded_fields.get("epochs", "?"), found[-1]
    state = "done" if folder.has_encoder() else "failed" if ended(folder) else "running"
    lines = [Text(f"{folder.name}: epoch {last['epoch']} of {epochs}, {state}", style="bold")]
    watched = (name for name in last if name not in (*FIRST, *LAST, *HIDDEN) and isinstance(last[name], float))  # by the method
    for name in (*FIRST, *watched, *LAST):
        values = [row[name] for row in found if row.get(name) is not None]
        if values:
            lines.append(Text(f"{name:14}{sparkline(values, max(10, width - 28))} {values[-1]:12.5g}", no_wrap=True))
    return Group(*lines)


def sparkline(values: list[float], width: int) -> str:
    """Values as a row of blocks, lowest to highest; neighbours are averaged where there are more than `width`."""
    count = min(width, len(values))
    bins = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(b) / len(b) for b in bins]
    low, high = min(means), max(means)
    return "".join(BLOCKS[round((m - low) / (high - low) * 7) if high > low else 3] for m in means)
