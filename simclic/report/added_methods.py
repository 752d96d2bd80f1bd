"""Rows added to Table 2: new methods, each from a file of numbers."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simclic.data import FACTS, PAPER, title
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS
from simclic.report.noise import Measured

STAGES = " or ".join(PROTOCOLS)
REQUIRED_KEYS = ("method", "source", "pretrained_on", "split")
MIN_NUMBERS = 3  # so many errors are not all below 1 % by chance
IMAGENET = 50_000  # its validation images, on which the column of that name is measured
TEST_IMAGES = {title(name): FACTS[name].sizes[2] for name in PAPER} | {"ImageNet": IMAGENET}


@dataclass(frozen=True)
class AddedMethod:
    """A method from baselines/methods/*.csv. rows: protocol -> printed column of Table 2 -> error in percent, as text.

    tested: whether these are errors on the test images, whose number is known.
    """

    name: str
    note: str
    rows: Mapping[str, Mapping[str, str]]
    tested: bool

    def to_measured(self, text: str, column: str) -> Measured | None:
        """Return a number with its number of images, or None if that is unknown."""
        return Measured(float(text), TEST_IMAGES[column]) if text and self.tested else None


def read_added_methods(folder: Path, columns: Sequence[str], taken: Collection[str] = ()) -> list[AddedMethod]:
    """Return the methods in a folder, by file name. taken: names of rows that the table has already.

    Raises InputError for a file that is not .csv or is malformed, and for a name that is taken.
    """
    methods: dict[str, AddedMethod] = {}
    for path in sorted(p for p in folder.glob("*") if not p.name.startswith(".")):
        if path.suffix != ".csv" or not path.is_file():
            raise InputError(f"{path}: is not a .csv file; keep only .csv files of methods in this folder")
        method = read_added_method(path, columns)
        if method.name in methods or method.name in taken:
            raise InputError(f"{path}: the table has a row {method.name!r} already; give this method another name")
        methods[method.name] = method
    return list(methods.values())


def read_added_method(path: Path, columns: Sequence[str]) -> AddedMethod:
    """Read a method: lines `# key: value` that say where its numbers come from, then protocol and columns as in Table 2.

    Also as spreadsheets save it: parted by semicolons or tabs, with decimal commas, empty cells at the ends, in UTF-16. Raises
    InputError, naming the line, unless every key of REQUIRED_KEYS is there and every number is a percentage.
    """
    text = _read_text(path)
    separator = match[1] if (match := re.search(r'^"?protocol"?[ ]*([;\t])', text, re.MULTILINE)) else ","
    lines = [(n, _split_row(path, n, line, separator)) for n, line in enumerate(text.splitlines(), 1)]
    facts = _read_facts(path, [separator.join(row).strip() for _, row in lines if row[0].strip().startswith("#")], separator)
    stripped = [(n, [value.strip() for value in row]) for n, row in lines]
    body = [(n, row) for n, row in stripped if any(row) and not row[0].startswith(("#", "sep="))]
    if not body:
        raise InputError(f"{path}: holds no numbers; its first row is protocol,{','.join(columns[:3])},...")
    n, whole_header = body[0]
    where, header = f"{path}:{n}", whole_header[: max(i for i, name in enumerate(whole_header, 1) if name)]
    if len(set(header)) < len(header):
        raise InputError(f"{where}: a column occurs twice; name each column once")
    if header[0] != "protocol" or (unknown := [name for name in header[1:] if name not in columns]):
        what = f"{unknown[0]!r} is not a column of Table 2" if header[0] == "protocol" else "the first column is not protocol"
        raise InputError(f"{where}: {what}; the columns are protocol, {', '.join(columns)}")
    if len(body) == 1:
        raise InputError(f"{where}: no row follows; add one that starts with {STAGES}")
    rows: dict[str, dict[str, str]] = {}
    count = len(header) - 1
    for n, (protocol, *values) in body[1:]:
        is_wrong_width = len(values) != len(whole_header) - 1 or any(values[count:])
        if is_wrong_width or protocol not in PROTOCOLS or protocol in rows:
            way = "; write decimals with a point" if separator == "," and len(values) > count else ""
            raise InputError(f"{path}:{n}: expected {STAGES}, each once, followed by {count} values{way}")
        rows[protocol] = {name: _to_decimal_point(value) for name, value in zip(header[1:], values, strict=False)}
        _check_errors(f"{path}:{n}", rows[protocol])
    tested = facts["split"].lower() == "test"
    unknown_images = "" if tested else ", without p-values, as the number of images is unknown"
    note = f"{facts['method']}: {facts['source']}; pre-trained on {facts['pretrained_on']}; {facts['split']}{unknown_images}"
    return AddedMethod(facts["method"], note, rows, tested)


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


def _read_facts(path: Path, lines: Sequence[str], separator: str) -> dict[str, str]:
    """Return the values of the lines `# key: value`."""
    pairs = [line[1:].split(":", 1) for line in lines if ":" in line]
    facts = {key.strip(): value.strip(f"{separator} ") for key, value in pairs}
    if len(facts) < len(pairs):
        raise InputError(f"{path}: a '# key: value' line occurs twice; keep one of each")
    for key in REQUIRED_KEYS:
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
