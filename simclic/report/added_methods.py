"""Rows that Table 2 can have beside the paper's: new methods from a file of numbers."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simclic.data import FACTS, PAPER, title
from simclic.errors import InputError
from simclic.report.noise import Measured

REQUIRED_KEYS = ("method", "source", "pretrained_on", "split")
MIN_NUMBERS = 3  # numbers in a row that are not all 1 % and less by chance
IMAGENET = 50_000  # its validation images, on which the column of that name is measured
TEST_IMAGES = {title(name): FACTS[name].sizes[2] for name in PAPER} | {"ImageNet": IMAGENET}


@dataclass(frozen=True)
class AddedMethod:
    """A method from baselines/methods/*.csv. rows: protocol -> column as printed in Table 2 -> error in percent, as text.

    tested: were these measured on the test images, so that chance can be told apart?
    """

    name: str
    note: str
    rows: Mapping[str, Mapping[str, str]]
    tested: bool

    def to_measured(self, text: str, column: str) -> Measured | None:
        """What is known of a number's noise; None if on how many images it was measured is not."""
        return Measured(float(text), TEST_IMAGES[column]) if text and self.tested else None


def read_added_methods(folder: Path, columns: Sequence[str], taken: Collection[str] = ()) -> list[AddedMethod]:
    """The methods in a folder, by file name. taken: names of rows that are there already.

    Raises InputError for a file that is not as it should be, or no .csv, or of a method whose name is taken.
    """
    methods: dict[str, AddedMethod] = {}
    for path in sorted(p for p in folder.glob("*") if not p.name.startswith(".")):
        if path.suffix != ".csv" or not path.is_file():
            raise InputError(f"{path}: is no file of a method; they end with .csv, and nothing else lies there")
        method = read_added_method(path, columns)
        if method.name in methods or method.name in taken:
            raise InputError(f"{path}: the table has a row {method.name!r} already; call this method otherwise")
        methods[method.name] = method
    return list(methods.values())


def read_added_method(path: Path, columns: Sequence[str]) -> AddedMethod:
    """A method's file: lines `# key: value` for where the numbers come from, then protocol and columns as Table 2 prints them.

    Raises InputError, naming the line, unless every key of NEEDED is there and every number is a percentage.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read ({e})") from e
    head = [line[1:].split(":", 1) for line in lines if line.startswith("#") and ":" in line]
    facts = {key.strip(): value.strip() for key, value in head}
    if len(facts) < len(head):
        raise InputError(f"{path}: says one thing twice; each '# key: value' stands once")
    for key in REQUIRED_KEYS:
        if not facts.get(key):
            raise InputError(f"{path}: says no {key}; add a line '# {key}: ...'")
    rows: dict[str, dict[str, str]] = {}
    body = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not body:
        raise InputError(f"{path}: holds no numbers; its first row is protocol,{','.join(columns[:3])},...")
    header = _split_row(path, *body[0])
    if len(set(header)) < len(header) or len(body) == 1:
        raise InputError(f"{path}:{body[0][0]}: has a column twice, or no row below it; each stands once, and a row is needed")
    if header[0] != "protocol" or (odd := [name for name in header[1:] if name not in columns]):
        what = f"{odd[0]!r} is no column of Table 2" if header[0] == "protocol" else "its first column is not protocol"
        raise InputError(f"{path}:{body[0][0]}: {what}; they are protocol, {', '.join(columns)}")
    for n, line in body[1:]:
        values = _split_row(path, n, line)
        if len(values) != len(header) or values[0] not in ("linear", "finetune") or values[0] in rows:
            raise InputError(f"{path}:{n}: is no row of linear or finetune with {len(header) - 1} values, each protocol once")
        for name, value in zip(header[1:], values[1:], strict=True):
            if value and not _is_percentage(value):
                raise InputError(f"{path}:{n}: {name}={value!r} is no error in percent, 0 to 100")
        numbers = [float(value) for value in values[1:] if value]
        if not numbers:
            raise InputError(f"{path}:{n}: holds no number; leave the row out")
        if len(numbers) >= MIN_NUMBERS and max(numbers) <= 1:
            raise InputError(f"{path}:{n}: are these fractions? errors are in percent: 5.98, not 0.0598")
        rows[values[0]] = dict(zip(header[1:], values[1:], strict=True))
    tested = facts["split"] == "test"
    unknown = "" if tested else ", so without p-values: how many images these are is not known"
    note = f"{facts['method']}: {facts['source']}; pre-trained on {facts['pretrained_on']}; {facts['split']}{unknown}"
    return AddedMethod(facts["method"], note, rows, tested)


def _split_row(path: Path, n: int, line: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([line]))]
    except csv.Error as e:
        raise InputError(f"{path}:{n}: is no row of a CSV file ({e})") from e


def _is_percentage(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", text)) and float(text) <= 100
