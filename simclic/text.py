"""Bytes, seconds and names from outside, as text for a terminal: the only formatters of their kind."""

import codecs
import io
import math
import shlex
import sys
from pathlib import Path

# What stands for our own signs where an encoding lacks them. The blocks of a curve become levels from 1 to 8.
ASCII_SIGNS = dict(zip("·–…│▁▂▃▄▅▆▇█", ".-~|12345678", strict=True)) | {"±": "+-", "∞": "inf"}


def format_bytes(count: float) -> str:
    """Return a number of bytes in decimal units, in three digits at most: "3.1 GB"."""
    count = float(f"{count:.3g}")
    unit = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def format_seconds(seconds: float) -> str:
    """Return a duration in the unit that suits it: "41 s", "12 min", "3.4 h", "5.2 days", "34,800 days"."""
    for limit, part, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / part:.3g} {unit}"
    days = seconds / 86400
    return f"{days:,.0f} days" if days >= 100 else f"{days:.3g} days"


def format_signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, and what rounds to zero without one: "+1.20", "-0.06", "0.00"."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def terminal_safe(text: object, keep: str = "") -> str:
    r"""Return text in which no character moves a cursor, colours a terminal or turns the direction: these read \x1b, \u202e.

    keep: characters that stay although they are not printable, such as a line break.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in str(text))


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural but for 1: "1 cell", "1,234 cells"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_data_command(verb: str, name: str, root: Path) -> str:
    """Return the command that checks or prepares a data set in the folder of the data sets, `root`, to be pasted into a shell."""
    return shlex.join(["simclic", "data", verb, name, "--data", str(root)])


def quote_text(text: object, limit: int = 120) -> str:
    """Return text from a file for a message: safe for a terminal, and cut in the middle if it is longer than `limit`."""
    safe = terminal_safe(text)
    return safe if len(safe) <= limit else f"{safe[: limit // 2]}...{safe[-limit // 3 :]}"


def make_output_encodable() -> None:
    """Let standard output and error show a character that their encoding lacks as one of ASCII_SIGNS or as its code."""
    codecs.register_error("simclic", _encode_sign)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is not
            stream.reconfigure(errors="simclic")


def _encode_sign(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(ASCII_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost), error.end
