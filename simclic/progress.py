"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Tell = Callable[[float, str], None]  # called with the finished share (0-1) and a short note


def make_bar(console: "Console") -> "Progress":
    """Return a progress bar with percentage, elapsed time and time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    return Progress(*columns, TextColumn("about"), remaining, TextColumn("left"), console=console, speed_estimate_period=600)


@contextmanager
def show_progress(console: "Console", every: float = 20) -> Iterator[Tell]:
    """Show the progress of one piece of work. Yield the function to call. every: seconds between lines without a terminal."""
    started = last = time.monotonic()
    with make_bar(console) if console.is_terminal else nullcontext() as progress:
        task = progress.add_task("", total=1.0) if progress else None

        def tell(share: float, note: str) -> None:
            nonlocal last
            if progress and task is not None:
                progress.update(task, completed=share, description=note)
            elif share and time.monotonic() - last > every:
                last = time.monotonic()
                seconds_left = (last - started) * (1 - share) / share
                console.print(
                    f"[{share:4.0%}, {last - started:.0f} s, about {seconds_left:.0f} s left] {note}",
                    highlight=False,
                    markup=False,
                )

        yield tell
