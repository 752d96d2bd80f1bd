"""simclic watch RUN: the curves of a pre-training in the terminal, while it runs and after."""

import argparse
import time
from typing import TYPE_CHECKING

from simclic.cli import add_runs_argument, find_run_folder
from simclic.experiment import Job, JobState, Run
from simclic.store.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Group

FIRST, LAST = ("loss", "probe", "knn", "rank", "spread"), ("lr", "images/s")
HIDDEN = ("epoch", "rank_of")
REFRESH_SECONDS = 5
UNKNOWN_RUN = "no run of this version"
BLOCKS = "▁▂▃▄▅▆▇█"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic watch`."""
    parser.set_defaults(verb=watch)
    parser.add_argument("run", metavar="RUN", help="a folder below runs/, or the beginning of its name")
    add_runs_argument(parser)


def watch(arguments: argparse.Namespace) -> int:
    """Draw until the training ends or Ctrl-C on a terminal; elsewhere draw once."""
    from rich.console import Console
    from rich.live import Live

    path, console = find_run_folder(arguments.runs, arguments.run), Console()
    folder = RunFolder(path.parent, path.name)
    if not console.is_terminal:
        console.print(draw_curves(folder, 80, state_word(folder)))
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state = state_word(folder)  # before drawing, so that the last epoch is drawn
            live.update(draw_curves(folder, console.width, state), refresh=True)
            if state in (JobState.DONE, JobState.FAILED, UNKNOWN_RUN):
                return 0
            time.sleep(REFRESH_SECONDS)


def state_word(folder: RunFolder) -> str:
    """Return the state of the pre-training in words."""
    from simclic.schedule.state import Queue, job_state

    if not folder.is_known:
        return UNKNOWN_RUN
    job = Job(Run.known(folder.recorded_fields))
    state = job_state(job, folder.runs, Queue(folder.runs, [job]))
    return "nobody is at work on it" if state.state == JobState.MISSING else state.status_word


def draw_curves(folder: RunFolder, width: int, state: str) -> "Group":
    """Return a line per curve: its name, a sparkline, its last value. state: of the training, in words."""
    from rich.console import Group
    from rich.text import Text

    rows = folder.log_rows()
    if not rows:
        return Group(Text(f"{folder.name}: no epoch is done yet"))
    title = f"{folder.name}: epoch {rows[-1]['epoch']} of {folder.recorded_fields.get('epochs', '?')}, {state}"
    watched = (k for k, value in rows[-1].items() if k not in (*FIRST, *LAST, *HIDDEN) and isinstance(value, float))  # by method
    curves = {name: [row[name] for row in rows if row.get(name) is not None] for name in (*FIRST, *watched, *LAST)}
    texts = [f"{name:14}{sparkline(v, max(10, width - 28))} {v[-1]:12.5g}" for name, v in curves.items() if v]
    return Group(Text(title, style="bold"), *(Text(text, no_wrap=True) for text in texts))


def sparkline(values: list[float], width: int) -> str:
    """Return values as a row of blocks, lowest to highest. More than `width` values are averaged to that many."""
    count = min(width, len(values))
    bins = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(b) / len(b) for b in bins]
    low, high = min(means), max(means)
    return "".join(BLOCKS[round((m - low) / (high - low) * 7) if high > low else 3] for m in means)
