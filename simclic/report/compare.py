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
from simclic.report.noise import LEVEL, Difference, Measured, compute_contributions, compute_difference
from simclic.report.sides import Result, Seed, Side
from simclic.store.run_folder import RunFolder
from simclic.text import format_signed

CHANGED, PERHAPS, WITHIN, IDENTICAL = COMPARED = ("changed", "perhaps", "within noise", "identical")
APART, ONLY_A, ONLY_B = "not compared", "only in A", "only in B"
WORDS = (*COMPARED, APART, ONLY_A, ONLY_B)

ROUNDING = 0.01  # points by which an error may differ from that of its predictions, which are kept in float32


@dataclass(frozen=True)
class Cell:
    """One experiment under one protocol, on both sides. word: one of WORDS. seeds: those compared; left_out: the others, and why.

    a, b: mean errors in percent over these seeds, nan where there is none. difference: B less A, paired over images and seeds.
    adjusted: its p-value after Holm. why: it was not compared; or the errors differ otherwise than the predictions do.
    """

    run: Run
    protocol: Protocol
    word: str
    seeds: tuple[Seed, ...] = ()
    left_out: dict[Seed, str] = field(default_factory=dict)
    a: float = math.nan
    b: float = math.nan
    difference: Difference | None = None
    adjusted: float = math.nan
    why: str = ""

    @property
    def standard_errors(self) -> float:
        """The change in standard errors."""
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
        """The number of cells by status, for all of WORDS."""
        counts = Counter(cell.word for cell in self.cells)
        return {word: counts[word] for word in WORDS}

    @property
    def compared(self) -> int:
        """The number of cells that were compared."""
        return sum(self.counts[word] for word in COMPARED)

    @property
    def tested(self) -> int:
        """Over how many cells Holm corrects: all that were compared but those that are identical."""
        return sum(cell.difference is not None for cell in self.cells)

    @property
    def broken(self) -> dict[str, str]:
        """The reasons why files cannot be trusted, each with its side."""
        both = dict.fromkeys((*self.a.broken, *self.b.broken))
        sides = (("A", self.a.broken), ("B", self.b.broken))
        return {problem: " and ".join(name for name, problems in sides if problem in problems) for problem in both}

    @property
    def differs(self) -> dict[str, tuple[list[str], list[str]]]:
        """In what the sides were not made alike: commit, device, threads, ranks or version -> its values in A and in B."""
        a, b = self.a.provenance, self.b.provenance
        pairs = {name: (a.get(name, []), b.get(name, [])) for name in {**a, **b}}
        return {name: values for name, values in pairs.items() if set(values[0]) != set(values[1])}


def compare_sides(a: Side, b: Side) -> Comparison:
    """Return every cell of either side with its status."""
    cells: dict[tuple[object, ...], tuple[dict[Seed, Result], dict[Seed, Result]]] = {}
    for i, side in enumerate((a, b)):
        for result in side.results:
            cells.setdefault(result.cell, ({}, {}))[i][result.seed] = result
    judged = _assign_words([_compare_seeds(*pair) for pair in cells.values()])
    return Comparison(a, b, tuple(sorted(judged, key=lambda cell: (WORDS.index(cell.word), -cell.standard_errors))))


def _compare_seeds(a: dict[Seed, Result], b: dict[Seed, Result]) -> Cell:
    """Return a cell, its word empty if it has to be judged together with the others."""
    some = next(iter((a or b).values()))
    cell = Cell(some.run, some.protocol, "", a=_mean_error(a.values()), b=_mean_error(b.values()))
    if not a or not b:
        return replace(cell, word=ONLY_A if a else ONLY_B, seeds=tuple(a or b))
    left_out = {seed: ONLY_A for seed in a if seed not in b} | {seed: ONLY_B for seed in b if seed not in a}
    bases = Counter(a[seed].basis for seed in a if seed in b and a[seed].basis == b[seed].basis).most_common(1)
    seeds = [seed for seed in a if seed in b and bases and a[seed].basis == b[seed].basis == bases[0][0]]
    left_out |= {seed: _explain_mismatch(a[seed], b[seed]) for seed in a if seed in b and seed not in seeds}
    if not seeds:
        whys = sorted({why for why in left_out.values() if why not in (ONLY_A, ONLY_B)})
        return replace(cell, word=APART, left_out=left_out, why=", ".join(whys) or "no seed in common")
    pairs = [(a[seed], b[seed]) for seed in seeds]
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    cell = replace(cell, seeds=tuple(seeds), left_out=left_out, a=_mean_error(first), b=_mean_error(second))
    if all(first_result.bits == other.bits for first_result, other in pairs):
        return replace(cell, word=IDENTICAL)
    return _with_difference(cell, first, second)


def _with_difference(cell: Cell, a: Sequence[Result], b: Sequence[Result]) -> Cell:
    change = compute_difference(_measure_seeds(b), _measure_seeds(a))
    if change is None or math.isnan(change.p):
        return replace(cell, word=APART, why="too few images to test")
    recorded = cell.b - cell.a
    if abs(recorded - change.points) > ROUNDING:
        both = f"the errors differ by {format_signed(recorded)}, their predictions by {format_signed(change.points)}"
        return replace(cell, difference=change, why=f"{both}: the metric is computed differently")
    return replace(cell, difference=change)


def _measure_seeds(results: Sequence[Result]) -> Measured:
    """Return what several seeds measured on the same images."""
    seeds = {}
    for result in results:
        truth, scores = RunFolder(result.path.parents[1], result.run).read_predictions(result.protocol.name)
        seeds[result.seed] = compute_contributions(truth, scores, result.values["metric"])
    return Measured(_mean_error(results), len(next(iter(seeds.values()))), seeds, results[0].values["data"])


def _mean_error(results: Iterable[Result]) -> float:
    errors = [result.values["error"] for result in results]
    return float(np.mean(errors)) if errors else math.nan


def _explain_mismatch(a: Result, b: Result) -> str:
    """Return why two results of one seed are not compared."""
    if a.basis == b.basis:
        return "measured on other data, with another metric or by another solver than most seeds"
    if a.superseded != b.superseded:
        return "one as-published probe was stopped by the rule of version 0.1.0, the other by its source's"
    if a.trained_data != b.trained_data:
        return "pre-trained on other data"
    return "other data" if a.values["data"] != b.values["data"] else f"other metric: {a.values['metric']}, {b.values['metric']}"


def _assign_words(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield the cells with their words: changed if p survives Holm or the metric changed, perhaps if p < .05 without Holm."""
    cells = list(cells)
    adjusted = iter(correct_holm([cell.difference.p for cell in cells if cell.difference]))
    for cell in cells:
        if not cell.difference:
            yield cell
            continue
        p = next(adjusted)
        word = CHANGED if p < LEVEL or cell.why else PERHAPS if cell.difference.clear else WITHIN
        yield replace(cell, word=word, adjusted=p)


def correct_holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order: with it, any error at p < .05 has a chance below .05.

    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected
