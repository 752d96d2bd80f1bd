"""Read a file of errors: lines `# key: value` that say where they come from, then a table as a spreadsheet saves it."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simclic.errors import InputError
from simclic.experiment import PROTOCOLS

STAGES = " or ".join(PROTOCOLS)
MIN_NUMBERS = 3  # so many errors are not all below 1 % by chance


@dataclass(frozen=True)
class Layout:
    """What a file of errors must hold.

    facts: the keys that need a line `# key: value`. keys: the first columns, which name a row; of them the first is "protocol".
    texts: further columns that are no numbers and may be missing. table: whose columns of errors these are.
    """

    facts: tuple[str, ...]
    columns: tuple[str, ...]
    table: str
    keys: tuple[str, ...] = ("protocol",)
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class NumberFile:
    """facts: the lines `# key: value`. rows: by key, each column of errors and of texts that the file has."""

    facts: Mapping[str, str]
    rows: Mapping[tuple[str, ...], Mapping[str, str]]


def read_number_file(path: Path, layout: Layout) -> NumberFile:
    """Read errors in percent. Raise InputError, naming the line, unless every fact is there and every number is a percentage.

    Also as spreadsheets save it: parted by semicolons or tabs, with decimal commas, empty cells at the ends, in UTF-16.
    """
    text, keys = _read_text(path), layout.keys
    separator = match[1] if (match := re.search(r'^"?protocol"?[ ]*([;\t])', text, re.MULTILINE)) else ","
    lines = [(n, _split_row(path, n, line, separator)) for n, line in enumerate(text.splitlines(), 1)]
    comments = [separator.join(row).strip() for _, row in lines if row[0].strip().startswith("#")]
    facts = _read_facts(path, comments, separator, layout.facts)
    stripped = [(n, [value.strip() for value in row]) for n, row in lines]
    body = [(n, row) for n, row in stripped if any(row) and not row[0].startswith(("#", "sep="))]
    if not body:
        raise InputError(f"{path}: holds no numbers; its first row is {','.join((*keys, *layout.columns[:3]))},...")
    n, whole_header = body[0]
    where, header = f"{path}:{n}", whole_header[: max(i for i, name in enumerate(whole_header, 1) if name)]
    if len(set(header)) < len(header):
        raise InputError(f"{where}: a column occurs twice; name each column once")
    begins = tuple(header[: len(keys)]) == keys
    unknown = [name for name in header[len(keys) :] if name not in (*layout.columns, *layout.texts)]
    if not begins or unknown:
        first = f"column is not {keys[0]}" if len(keys) == 1 else f"columns are not {', '.join(keys)}"
        what = f"{unknown[0]!r} is not a column of {layout.table}" if begins else f"the first {first}"
        raise InputError(f"{where}: {what}; the columns are {', '.join((*keys, *layout.columns))}")
    if len(body) == 1:
        raise InputError(f"{where}: no row follows; add one that starts with {STAGES}")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    count = len(header) - len(keys)
    for n, cells in body[1:]:
        key, values = tuple(cells[: len(keys)]), cells[len(keys) :]
        is_wrong_width = len(cells) != len(whole_header) or any(values[count:])
        if is_wrong_width or key[0] not in PROTOCOLS or key in rows:
            way = "; write decimals with a point" if separator == "," and len(values) > count else ""
            raise InputError(f"{path}:{n}: expected {STAGES}, each once, followed by {count} values{way}")
        rows[key] = {name: _to_decimal_point(value) for name, value in zip(header[len(keys) :], values, strict=False)}
        _check_errors(f"{path}:{n}", {name: value for name, value in rows[key].items() if name not in layout.texts})
    return NumberFile(facts, rows)


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 or, if it begins as Excel's, UTF-16."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e})") from e
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path}: is not text in UTF-8; save it as CSV UTF-8")
    return text


def _read_facts(path: Path, lines: Sequence[str], separator: str, required: Sequence[str]) -> dict[str, str]:
    """Return the values of the lines `# key: value`. Raise InputError if one of `required` is missing or one occurs twice."""
    pairs = [line[1:].split(":", 1) for line in lines if ":" in line]
    facts = {key.strip(): value.strip(f"{separator} ") for key, value in pairs}
    if len(facts) < len(pairs):
        raise InputError(f"{path}: a '# key: value' line occurs twice; keep one of each")
    for key in required:
        if not facts.get(key):
            raise InputError(f"{path}: {key} is missing; add a line '# {key}: ...'")
    return facts


def _split_row(path: Path, n: int, line: str, separator: str) -> list[str]:
    """Return the cells of a line, at least one."""
    try:
        return next(csv.reader([line], delimiter=separator), []) or [""]
    except csv.Error as e:
        raise InputError(f"{path}:{n}: is not a row of a CSV file ({e})") from e


def _to_decimal_point(value: str) -> str:
    return value.replace(",", ".") if re.fullmatch(r"[0-9]{1,3},[0-9]+", value) else value


def _check_errors(where: str, row: Mapping[str, str]) -> None:
    """Raise InputError unless the values are errors in percent, or empty where there is none."""
    for name, value in row.items():
        if value and not (re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", value) and float(value) <= 100):
            raise InputError(f"{where}: {name}={value!r} is not an error in percent, 0 to 100")
    numbers = [float(value) for value in row.values() if value]
    if not numbers:
        raise InputError(f"{where}: holds no number; remove the row")
    if len(numbers) >= MIN_NUMBERS and max(numbers) <= 1:
        raise InputError(f"{where}: are these fractions? errors are in percent: 5.98, not 0.0598")
