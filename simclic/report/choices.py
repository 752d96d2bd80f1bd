"""Where the paper is silent or contradicts itself: the question, what the paper says, and the field that decides it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

from simclic.data import title
from simclic.experiment import PROTOCOLS, Run, Suite, list_knobs
from simclic.report.noise import Measured, compute_difference, format_p
from simclic.report.results import Results, Row


class Question(NamedTuple):
    """An open question of the paper. names: the fields that decide it. why: the reason for their defaults."""

    question: str
    paper: str
    names: tuple[str, ...]
    why: str


# What no field decides.
FIXED = (
    Question(
        "Caltech101's split",
        "not given",
        (),
        "30 images a class without replacement, the rest test, as the cited protocols describe; the baselines' own list drew "
        "with replacement (2,416 different images of 3,060; 174 of the 584 in val also in train), so it differs from this one",
    ),
    Question(
        "Average precision of VOC2007",
        "not given",
        (),
        "as the cited baselines: 11 points, the one at recall 0 always 1; VOC's own definition gives a slightly higher error",
    ),
    Question(
        "Last batch of an epoch",
        "not given",
        (),
        "left out if incomplete, as SimSiam does; not so in the source of the fine-tuned rows",
    ),
)


def list_questions() -> list[Question]:
    """Return what the fields of Run and of the protocols declare to be open, then what no field decides."""
    declared = [item for spec in (Run, *PROTOCOLS.values()) for item in list_knobs(spec).items()]
    return [Question(k.question, k.paper, (name, *k.also), k.why) for name, k in declared if k.question] + list(FIXED)


def questions_guide() -> str:
    """Return the questions as a table in Markdown, as benchmarks/README.md shows it."""
    rows = [("question", "the paper", "default here, and why", "field")]
    for q in list_questions():
        default = ", ".join(str(_get_default(name)) for name in q.names)
        rows.append((q.question, q.paper, f"{default}: {q.why}" if default else q.why, ", ".join(f"`{n}`" for n in q.names)))
    return _format_markdown(rows)


def fields_guide(spec: type) -> str:
    """Return the fields of Run or of a protocol as a table in Markdown, as benchmarks/README.md shows it."""
    rows = [("field", "default", "what it is", "values")]
    for name, knob in list_knobs(spec).items():
        high = f"{knob.high:g}" if knob.high < inf else "∞"
        span = (
            ""
            if knob.low is None
            else f"{knob.low:g} to {high}"
            if knob.below == inf
            else f"{knob.low:g} to below {knob.below:g}"
        )
        rows.append((f"`{name}`", str(knob.default), knob.what, ", ".join(knob.choices) or span))
    return _format_markdown(rows)


def _format_markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in lines)


SWEPT = ("tau", "p", "eps", "predictor")  # Figures 4-6 and Table 4 show what these change
MOST = 40  # lines for one question


class Change(NamedTuple):
    """What another choice changes in one cell: errors in percent, and their difference."""

    where: str
    choice: str
    error: str
    other: str
    other_error: str
    less: str


def list_choices(suites: Sequence[Suite], results: Results) -> list[dict[str, Any]]:
    """Return one row per question: question, paper, choice (the values that these exhibits use), why, and what other choices
    change where there are runs with them, in whatever exhibit."""
    jobs = [job for suite in suites for job in suite.jobs]
    specs = [spec for job in jobs for spec in (job.run, job.protocol) if spec]
    cells = _group_cells(results)
    asked = {job.name for job in jobs}
    rows = []
    for q in list_questions():
        values_used = []
        for name in q.names:
            used = {getattr(s, name, None) for s in specs if name not in s.unread} - {None}
            values_used.append(f"{name} = {_format_values(name, used)}")
        effects = [] if set(q.names) & set(SWEPT) else list_changes(q.names, cells, asked)
        rows.append({
            "question": q.question, "paper": q.paper, "choice": "; ".join(values_used) or "fixed", "why": q.why,
            "changes": effects[:MOST], "more": len(effects[MOST:]),
        })  # fmt: skip
    return rows


@dataclass
class _Cell:
    """All seeds of one experiment under one protocol. fields: those of its Run, and of its protocol as stage.name."""

    fields: dict[str, Any]
    rows: list[Row]
    results: Results

    @cached_property
    def measured(self) -> Measured:
        measured = self.results.measure_rows(self.rows)
        assert measured is not None  # its rows are those of results
        return measured


def list_changes(names: Sequence[str], cells: Sequence[_Cell], asked: set[str]) -> list[Change]:
    """Return each cell of these exhibits beside the cells that differ from it only in these fields."""
    if not names or not cells:
        return []
    alike: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        if "init" not in names or cell.fields["epochs"]:  # published encoders are no other start of ours
            rest = tuple((k, v) for k, v in cell.fields.items() if k.rpartition(".")[2] not in names)
            alike.setdefault(rest, []).append(cell)
    list_of_changes = []
    for group in (g for g in alike.values() if len(g) > 1):
        first, *others = sorted(group, key=lambda c: (not _is_shown(c, asked), _count_departures(c, names)))
        if _is_shown(first, asked):
            list_of_changes += [change for other in others if (change := _describe_change(first, other))]
    return list_of_changes


def _group_cells(results: Results) -> list[_Cell]:
    names, by_fields = [f.name for f in fields(Run) if f.name != "seed"], dict[tuple[Any, ...], _Cell]()
    for row in results.good_rows:
        values = {n: row[n] for n in names} | {f"{row['stage']}.{k}": v for k, v in row["how"].items()}
        by_fields.setdefault(tuple(values.items()), _Cell(values, [], results)).rows.append(row)
    return list(by_fields.values())


def _is_shown(cell: _Cell, asked: set[str]) -> bool:
    return any(f"{row['name']}/{row['protocol']}" in asked for row in cell.rows)


def _count_departures(cell: _Cell, names: Sequence[str]) -> int:
    """Return in how many of these fields a cell differs from the defaults."""
    return sum(
        v not in (_get_default(k.rpartition(".")[2]), None) for k, v in cell.fields.items() if k.rpartition(".")[2] in names
    )


def _describe_change(cell: _Cell, other: _Cell) -> Change | None:
    differ = [k for k, v in cell.fields.items() if other.fields.get(k, v) != v]
    if not differ or (change := compute_difference(other.measured, cell.measured)) is None:
        return None
    said = [", ".join(f"{k.rpartition('.')[2]} {c.fields[k]}" for k in differ) for c in (cell, other)]
    row = cell.rows[0]
    return Change(
        f"{title(row['on'])}, {row['label']}, {PROTOCOLS[row['stage']].word}",
        said[0], f"{cell.measured.value:.2f}", said[1], f"{other.measured.value:.2f}",
        f"{change.format_points()}, p {format_p(change.p)}",
    )  # fmt: skip


def _format_values(name: str, used: set[Any]) -> str:
    """Return the values that are used, the default first; the default if none is used."""
    default = _get_default(name)
    if not used:
        return f"{default}, which nothing here reads"
    first = [default] if default in used else []
    values = ", ".join(str(v) for v in (*first, *sorted(used - {default}, key=str)))
    return values if first else f"{values} (default {default})"


def _get_default(name: str) -> Any:
    return next(list_knobs(spec)[name].default for spec in (Run, *PROTOCOLS.values()) if name in list_knobs(spec))
