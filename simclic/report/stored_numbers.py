"""Numbers of others beside an exhibit of one's own: baselines/NAME.csv, for a table with this name."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from simclic.data import FACTS, title
from simclic.experiment import Run, Table
from simclic.experiment.run import TRAINED_HERE
from simclic.report.noise import Measured
from simclic.report.number_file import Layout, NumberFile, read_number_file

REQUIRED_KEYS = ("source", "split")
ROW_TEXTS = ("source", "caveat")  # of one row: where it comes from, and why ours are not comparable with it


@dataclass(frozen=True)
class StoredNumber:
    """An error of others. dataset: as printed. images: the number of test images, 0 if unknown. caveat: why ours do not compare
    with it; "" if they do."""

    stage: str
    row: str
    column: str
    dataset: str
    text: str
    images: int
    source: str
    caveat: str

    @property
    def measured(self) -> Measured | None:
        """The number with its sampling error; None if that is not known."""
        return Measured(float(self.text), self.images) if self.images else None


@dataclass(frozen=True)
class StoredNumbers:
    """All numbers of one file. note: where they come from and what their rows say of themselves."""

    numbers: tuple[StoredNumber, ...] = ()
    note: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Mapping[str, list[str]] = field(default_factory=dict)  # stage -> its rows

    def find(self, stage: str, row: str, column: str) -> StoredNumber | None:
        """Return the number at a place, if there is one."""
        return next((n for n in self.numbers if (n.stage, n.row, n.column) == (stage, row, column)), None)


def read_stored_numbers(table: Table, baselines: Path) -> StoredNumbers:
    """Return the numbers stored for a table of one's own; none for a table of the paper, or without a file.

    Raise InputError for a file that is wrong, see read_number_file. Where columns are not data sets, it names the data set.
    """
    path = baselines / f"{table.name}.csv"
    if table.paper or not isinstance(table.columns, str) or not path.is_file():
        return StoredNumbers()
    columns = tuple(dict.fromkeys(column_of(table, job.evaluated) for job in table.jobs))
    required = REQUIRED_KEYS if table.columns == "dataset" else (*REQUIRED_KEYS, "dataset")
    content = read_number_file(path, Layout(required, columns, table.title, ("protocol", "method"), ROW_TEXTS))
    numbers = tuple(_list_numbers(content, columns))
    rows: dict[str, list[str]] = {}
    for stage, method in content.rows:
        rows.setdefault(stage, []).append(method)
    caveats = {n.caveat: dict.fromkeys(other.row for other in numbers if other.caveat == n.caveat) for n in numbers if n.caveat}
    note = (
        f"As stored: {content.facts['source']}; errors on {content.facts['split']}.",
        *(f"As stored, {', '.join(methods)}: {caveat}." for caveat, methods in caveats.items()),
    )
    return StoredNumbers(numbers, note, tuple(c for c in columns if any(n.column == c for n in numbers)), rows)


def _list_numbers(content: NumberFile, columns: Iterable[str]) -> Iterable[StoredNumber]:
    test_images = {title(name): FACTS[name].sizes[2] for name in FACTS}
    for (stage, method), cells in content.rows.items():
        for column in columns:
            if text := cells.get(column, ""):
                dataset = content.facts.get("dataset", column)
                tested = content.facts["split"].lower() == "test"
                images = test_images.get(dataset, 0) if tested else 0
                source = cells.get("source") or content.facts["source"]
                yield StoredNumber(stage, method, column, dataset, text, images, source, cells.get("caveat", ""))


def column_of(table: Table, run: Run) -> str:
    """Return the heading of the column in which a Run stands."""
    if table.columns == "dataset":
        return title(run.dataset)
    value: Hashable = getattr(run, str(table.columns))
    return table.labels.get(value, str(value))


def row_of(label: str) -> str:
    """Return the method that a row of ours shares with a stored one: both are trained on the same images."""
    return label.removesuffix(TRAINED_HERE)
