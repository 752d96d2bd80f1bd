"""Words -> the cells of exhibits that they describe: a cell is all seeds of one place under one protocol."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Exhibit, Figure, Protocol, Run, Suite, Table

FEW = 6  # cells that are explained at once
LISTED = 20  # cells that are named, where there are more
AROUND = "()[]{},;:·/\"'`"  # what may stand around a word


@dataclass
class Cell:
    """One place of an exhibit, or several that show the same jobs. paths: the files that declare them.

    words: everything by which it can be asked for.
    """

    places: list[str]
    paths: list[str]
    jobs: tuple[tuple[Run, Protocol], ...]
    words: set[str]


def find(suites: Iterable[Suite], asked: str) -> list[Cell]:
    """The cells that all words of `asked` describe, or the one of that very title; at most FEW.

    A word counts where it is a word of the description; only if it is none anywhere, where one begins with it, and only if that
    is nowhere either, where it occurs. Raises InputError naming the nearest if there is no such cell, and all if there are many.
    """
    cells, words = list(_cells(suites)), list(_words(asked))
    if not cells:
        raise InputError("these exhibits show no results, so that there is no cell to explain")
    if not words:
        raise InputError("--why '': say which cell, in any order: table2 noise cifar10 linear; or the name of a run")
    titled = [cell for cell in cells if plain(asked).strip() in cell.places]
    known = _index(cells)
    having = [_having(known, word) for word in words]
    found = _merged(titled or [cells[i] for i in sorted(set.intersection(*having))])
    if not found:
        raise InputError(_nearest(cells, known, words, having, asked))
    if len(found) > FEW:
        those = [f"  {cell.places[0]}" for cell in found[:LISTED]]
        more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
        raise InputError("\n".join([f"{plain(repr(asked))} describes {len(found)} cells; add a word:", *those, *more]))
    return found


def plain(text: str) -> str:
    """Text in one line in which nothing moves a terminal's cursor or turns the direction: such characters are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cells(suites: Iterable[Suite]) -> Iterator[Cell]:
    """Every cell of every exhibit, in their order."""
    for suite in suites:
        for exhibit in suite.exhibits:
            places: dict[tuple[object, Protocol], list[Run]] = {}
            for job in exhibit.jobs:
                if job.protocol:
                    places.setdefault((exhibit.cell(job.run), job.protocol), []).append(job.run)
            for (_, protocol), runs in places.items():
                place = (f"{suite.name} {exhibit.title}".strip(), *_row(exhibit, runs[0]), protocol.title)
                words = {*_words(" ".join(place)), exhibit.name, *_words(Path(suite.path).stem), *_of_protocol(protocol)}
                for run in runs:
                    words |= _of_run(run) | set(_words(f"{run.name}/{protocol.name}"))
                title = plain(" · ".join(place))
                yield Cell([title], [suite.path], tuple((run, protocol) for run in runs), words | _bare(exhibit, runs[0]))


def _row(exhibit: Exhibit, run: Run) -> Iterator[str]:
    """What tells a place apart from the others of its exhibit, as it is read."""
    yield run.label
    yield data.title(run.dataset)
    for name in _axes(exhibit):
        value = getattr(run, name)
        label = exhibit.labels.get(value, "") if isinstance(exhibit, Table) else ""
        yield f"{name}={value}" + (f" ({label})" if label and label != str(value) else "")


def _axes(exhibit: Exhibit) -> list[str]:
    """The fields, besides the data set, along which an exhibit spreads its Runs."""
    axes: list[str] = []
    if isinstance(exhibit, Table) and isinstance(exhibit.columns, str):
        axes = [exhibit.columns]
    elif isinstance(exhibit, Figure):
        axes = [exhibit.lines, exhibit.x]
    return [name for name in axes if name != "dataset"]


def _bare(exhibit: Exhibit, run: Run) -> set[str]:
    """The values along an exhibit's axes, without their names."""
    return {word for name in _axes(exhibit) for word in _words(str(getattr(run, name)))}


def _of_run(run: Run) -> set[str]:
    """Words for one Run: its names, and each field that is set."""
    stage = "pretrain" if run.epochs else "calibrate"
    return {*_words(f"{run.dataset} {run.name} {run.name}/{stage}"), *_fields(run)}


def _of_protocol(protocol: Protocol) -> set[str]:
    return {protocol.stage, protocol.name, *_fields(protocol)}


def _fields(spec: Run | Protocol) -> Iterator[str]:
    for name, value in spec.values.items():
        if value is not None:
            yield from _words(f"{name}={value}")


def _words(text: str) -> Iterator[str]:
    """The words of a text, in small letters: "Table 2" is one, and a number reads the same however it was written."""
    for word in re.sub(r"\b(table|figure)\s+(?=\d)", r"\1", text.casefold()).split():
        word = word.strip(AROUND)
        name, equals, value = word.rpartition("=")
        try:
            yield f"{name}{equals}{float(value):.12g}"
        except ValueError:
            if word:
                yield word


Index = dict[str, set[int]]  # word -> the cells that it describes


def _index(cells: list[Cell]) -> Index:
    known: Index = {}
    for i, cell in enumerate(cells):
        for word in cell.words:
            known.setdefault(word, set()).add(i)
    return known


def _having(known: Index, word: str) -> set[int]:
    """The cells that a word describes, see `find`."""
    if word in known:
        return known[word]
    begun = [those for other, those in known.items() if other.startswith(word)]
    return set().union(*(begun or [those for other, those in known.items() if word in other]))


def _merged(cells: list[Cell]) -> list[Cell]:
    """The same, with cells of the same jobs made one."""
    found: dict[frozenset[tuple[Run, Protocol]], Cell] = {}
    for cell in cells:
        first = found.setdefault(frozenset(cell.jobs), cell)
        if first is not cell:
            first.places = list(dict.fromkeys(first.places + cell.places))
            first.paths = list(dict.fromkeys(first.paths + cell.paths))
    return list(found.values())


def _nearest(cells: list[Cell], known: Index, words: list[str], having: list[set[int]], asked: str) -> str:
    """Why nothing was found, in one line: which word nothing is called by, and the cells that most words describe."""
    told, near = [], list(having)
    for i, word in enumerate(words):
        if not having[i]:
            close: list[str] = get_close_matches(word, known, 1)
            near[i] = known[close[0]] if close else set()
            told.append(f"nothing is called {plain(repr(word))}" + (f", did you mean {plain(close[0])}?" if close else ""))
    counts = [sum(i in those for those in near) for i in range(len(cells))]
    best = [cells[i].places[0] for i, n in enumerate(counts) if n == max(counts)][:3] if any(counts) else []
    why = "; ".join(told) or "no cell is described by all of it"
    return f"{plain(repr(asked))}: {why}" + (f"; nearest: {' | '.join(dict.fromkeys(best))}" if best else "")
