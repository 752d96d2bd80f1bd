"""Two sides, each a folder of results or what was measured at one commit: which cells changed beyond noise.

A cell is one experiment, all seeds of it, under one protocol. Hundreds are looked at, so what counts as changed survives Holm's
correction over all that were tested; what predicts the same bits needs no test.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simclic.experiment import Protocol, Run
from simclic.report.noise import LEVEL, Difference, Measured, contributions, difference
from simclic.report.sides import Result, Seed, Side
from simclic.store.run_folder import RunFolder

CHANGED, PERHAPS, WITHIN, IDENTICAL = COMPARED = ("changed", "perhaps", "within noise", "identical")
APART, ONLY_A, ONLY_B = "not compared", "only in A", "only in B"
WORDS = (*COMPARED, APART, ONLY_A, ONLY_B)

ROUNDING = 0.01  # points by which an error may differ from that of its predictions, which are kept in float32


@dataclass(frozen=True)
class Cell:
    """One experiment under one protocol, on both sides. word: one of WORDS. seeds: those compared; left: the others, and why.

    a, b: mean errors in percent over these seeds, nan where there is none. difference: B less A, paired over images and seeds.
    adjusted: its p-value after Holm. why: it was not compared; or the errors differ otherwise than the predictions do.
    """

    run: Run
    protocol: Protocol
    word: str
    seeds: tuple[Seed, ...] = ()
    left: dict[Seed, str] = field(default_factory=dict)
    a: float = math.nan
    b: float = math.nan
    difference: Difference | None = None
    adjusted: float = math.nan
    why: str = ""

    @property
    def size(self) -> float:
        """How large the change is, in standard errors."""
        if self.difference is None or self.why:
            return math.inf if self.word == CHANGED else 0.0
        points, error = abs(self.difference.points), self.difference.error
        return points / error if error else math.inf if points else 0.0


@dataclass(frozen=True)
class Comparison:
    """Both sides and every cell that either has: changed and perhaps first, the largest change before all."""

    a: Side
    b: Side
    cells: tuple[Cell, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are what, for all of WORDS."""
        found = Counter(cell.word for cell in self.cells)
        return {word: found[word] for word in WORDS}

    @property
    def compared(self) -> int:
        """How many cells were compared."""
        return sum(self.counts[word] for word in COMPARED)

    @property
    def tested(self) -> int:
        """Over how many cells Holm corrects: all that were compared but those that are identical."""
        return sum(cell.difference is not None for cell in self.cells)

    @property
    def broken(self) -> dict[str, str]:
        """Why a file is not to be trusted -> of which side it is."""
        both = dict.fromkeys((*self.a.broken, *self.b.broken))
        sides = (("A", self.a.broken), ("B", self.b.broken))
        return {problem: " and ".join(name for name, problems in sides if problem in problems) for problem in both}

    @property
    def differs(self) -> dict[str, tuple[list[str], list[str]]]:
        """In what the sides were not made alike: commit, device, threads or version -> its values in A and in B."""
        a, b = self.a.provenance, self.b.provenance
        pairs = {name: (a.get(name, []), b.get(name, [])) for name in {**a, **b}}
        return {name: those for name, those in pairs.items() if set(those[0]) != set(those[1])}


def compare(a: Side, b: Side) -> Comparison:
    """Every cell of either side, and what has become of it."""
    cells: dict[tuple[object, ...], tuple[dict[Seed, Result], dict[Seed, Result]]] = {}
    for i, side in enumerate((a, b)):
        for result in side.results:
            cells.setdefault(result.cell, ({}, {}))[i][result.seed] = result
    judged = _judged([_cell(*pair) for pair in cells.values()])
    return Comparison(a, b, tuple(sorted(judged, key=lambda cell: (WORDS.index(cell.word), -cell.size))))


def _cell(a: dict[Seed, Result], b: dict[Seed, Result]) -> Cell:
    """A cell, its word left empty if it has to be judged together with the others."""
    some = next(iter((a or b).values()))
    cell = Cell(some.run, some.protocol, "", a=_error(a.values()), b=_error(b.values()))
    if not a or not b:
        return replace(cell, word=ONLY_A if a else ONLY_B, seeds=tuple(a or b))
    left = {seed: ONLY_A for seed in a if seed not in b} | {seed: ONLY_B for seed in b if seed not in a}
    bases = Counter(a[seed].basis for seed in a if seed in b and a[seed].basis == b[seed].basis).most_common(1)
    seeds = [seed for seed in a if seed in b and bases and a[seed].basis == b[seed].basis == bases[0][0]]
    left |= {seed: _other(a[seed], b[seed]) for seed in a if seed in b and seed not in seeds}
    if not seeds:
        whys = sorted({why for why in left.values() if why not in (ONLY_A, ONLY_B)})
        return replace(cell, word=APART, left=left, why=", ".join(whys) or "no seed in common")
    pairs = [(a[seed], b[seed]) for seed in seeds]
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    cell = replace(cell, seeds=tuple(seeds), left=left, a=_error(first), b=_error(second))
    if all(one.bits == other.bits for one, other in pairs):
        return replace(cell, word=IDENTICAL)
    return _tested(cell, first, second)


def _tested(cell: Cell, a: Sequence[Result], b: Sequence[Result]) -> Cell:
    found = difference(_measured(b), _measured(a))
    if found is None or math.isnan(found.p):
        return replace(cell, word=APART, why="too few images to tell")
    recorded = cell.b - cell.a
    if abs(recorded - found.points) > ROUNDING:
        why = f"the errors differ by {recorded:+.2f}, their predictions by {found.points:+.2f}: the metric is computed otherwise"
        return replace(cell, difference=found, why=why)
    return replace(cell, difference=found)


def _measured(results: Sequence[Result]) -> Measured:
    """What several seeds measured on the same images."""
    seeds = {}
    for result in results:
        truth, scores = RunFolder(result.path.parents[1], result.run).read_predictions(result.protocol.name)
        seeds[result.seed] = contributions(truth, scores, result.told["metric"])
    return Measured(_error(results), len(next(iter(seeds.values()))), seeds, results[0].told["data"])


def _error(results: Iterable[Result]) -> float:
    errors = [result.told["error"] for result in results]
    return float(np.mean(errors)) if errors else math.nan


def _other(a: Result, b: Result) -> str:
    """Why two results of one seed are not compared."""
    if a.basis == b.basis:
        return "other data or metric than most seeds"
    return "other data" if a.told["data"] != b.told["data"] else f"other metric: {a.told['metric']}, {b.told['metric']}"


def _judged(cells: Iterable[Cell]) -> Iterator[Cell]:
    """The cells with their words: changed if p survives Holm, or if the metric changed; perhaps if p < .05 without it."""
    cells = list(cells)
    adjusted = iter(holm([cell.difference.p for cell in cells if cell.difference]))
    for cell in cells:
        if not cell.difference:
            yield cell
            continue
        p = next(adjusted)
        word = CHANGED if p < LEVEL or cell.why else PERHAPS if cell.difference.clear else WITHIN
        yield replace(cell, word=word, adjusted=p)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are, in the same order: those below .05 keep the chance of any error below .05.

    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    found, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = highest
    return found
