"""Rows added to Table 2: new methods, each from a file of numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simclic.data import FACTS, title
from simclic.errors import InputError
from simclic.report.noise import Measured
from simclic.report.number_file import Layout, read_number_file

REQUIRED_KEYS = ("method", "source", "pretrained_on", "split")
TEST_IMAGES = {title(name): FACTS[name].sizes[2] for name in FACTS}


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

    Raises InputError, see read_number_file.
    """
    numbers = read_number_file(path, Layout(REQUIRED_KEYS, tuple(columns), "Table 2"))
    facts = numbers.facts
    tested = facts["split"].lower() == "test"
    unknown_images = "" if tested else ", without p-values, as the number of images is unknown"
    note = f"{facts['method']}: {facts['source']}; pre-trained on {facts['pretrained_on']}; {facts['split']}{unknown_images}"
    return AddedMethod(facts["method"], note, {protocol: row for (protocol,), row in numbers.rows.items()}, tested)
