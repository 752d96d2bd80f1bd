"""The progress of many Runs."""

import time

from rich.console import Console
from rich.text import Text

from simclic.progress import make_bar
from simclic.text import count_noun, terminal_safe


class RunProgress:
    """A progress bar on a terminal; elsewhere a line whenever a Run ends."""

    def __init__(self, console: Console, total: float, jobs: int):
        self.console, self.total, self.jobs, self.ended, self.started = console, total, jobs, 0.0, time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task(f"0 of {jobs} encoders", total=total)

    def __enter__(self) -> "RunProgress":
        if self.console.is_terminal:
            self.bar.start()
        else:
            self.console.print(f"{count_noun(self.jobs, 'encoder')} to go; the first lines follow in a moment")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update_bar(self, partly: float, count: int) -> None:
        """Update the bar. partly: the price of the finished shares of the running processes. count: Runs that have ended."""
        self.bar.update(self.task, completed=self.ended + partly, description=f"{count} of {self.jobs} encoders")

    def print_ended(self, name: str, price: float, text: str, kind: str = "") -> None:
        """Print a line about a Run that has ended. kind: of a failure, in red."""
        self.ended += price
        elapsed = time.monotonic() - self.started
        seconds_left = elapsed * max(0.0, self.total - self.ended) / self.ended  # sums of prices differ by rounding
        left = f"[{self.ended / self.total:4.0%}, {elapsed:.0f} s, about {seconds_left:.0f} s left] "
        line = Text(f"{'' if self.console.is_terminal else left}{name}: ").append(kind, "red").append(terminal_safe(text))
        self.console.print(line, soft_wrap=True)
