"""The two sides of a comparison: the results in a folder, or all that were measured at one commit, wherever they lie."""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Protocol, Run
from simclic.store.result_file import is_superseded, trained_data
from simclic.store.run_folder import RunFolder
from simclic.text import terminal_safe

FIELDS = ("error", "metric", "data", "device", "threads", "versions", "commit", "predictions_sha256")
MOST = 6  # commits that an error names

Seed = int | None  # raw pixels have none


@dataclass(frozen=True)
class Result:
    """What a result file says, without its curve. values: its fields of FIELDS. superseded: see is_superseded.

    ranks: on how many the encoder was trained, such as "1", or "2 then 1" if it was resumed on another number.
    """

    path: Path
    run: Run
    protocol: Protocol
    values: dict[str, Any]
    superseded: bool = False
    trained_data: str = ""
    ranks: str = "1"

    @property
    def seed(self) -> Seed:
        """None for raw pixels."""
        return None if self.run.backbone == "pixels" else self.run.seed

    @property
    def cell(self) -> tuple[object, ...]:
        """The key that all seeds of one cell share."""
        return (self.protocol.name, *(value for name, value in self.run.values.items() if name != "seed"))

    @property
    def basis(self) -> tuple[str, str, bool, str]:
        """The values that must be equal for two errors to compare: data digest, metric, version of the solver, and the digest of
        other data that the encoder was trained on."""
        return self.values["data"], self.values["metric"], self.superseded, self.trained_data

    @property
    def bits(self) -> tuple[str, float]:
        """Equal if nothing at all differs in what was found."""
        return self.values["predictions_sha256"], self.values["error"]


@dataclass(frozen=True)
class Side:
    """What is compared with the other. name: as asked. broken: why files are not to be trusted."""

    name: str
    results: tuple[Result, ...]
    broken: tuple[str, ...]

    @property
    def provenance(self) -> dict[str, list[str]]:
        """Commit, device, threads and each version of the measurements, and ranks, the most frequent value first."""
        counters: dict[str, Counter[str]] = {}
        for result in self.results:
            fields = {k: result.values[k] for k in ("commit", "device", "threads")} | {"ranks": result.ranks}
            for name, value in (fields | result.values["versions"]).items():
                counters.setdefault(name, Counter())[str(value)] += 1
        return {name: [value for value, _ in values.most_common()] for name, values in counters.items()}


def read_sides(first: str, second: str, runs: Path) -> tuple[Side, Side]:
    """Return both sides: each word names a folder of results, or a commit whose results lie anywhere below `runs`.

    A commit is anything that git resolves here, or as results record it. With a + behind it: what was measured while files
    differed from it, and nothing else. Raises InputError if a word means nothing, or nothing was measured there.
    """
    measured = {} if all(map(os.path.isdir, (first, second))) else _group_by_commit(runs)
    a, b = (_read_folder(Path(word)) if os.path.isdir(word) else _read_commit(word, measured, runs) for word in (first, second))
    same = os.path.isdir(first) and os.path.isdir(second) and os.path.samefile(first, second)
    return a, replace(a, name=second) if same else b


def _read_folder(folder: Path) -> Side:
    with files.report_unreadable():
        paths = [
            path
            for inner in sorted(folder.iterdir())
            if inner.is_dir()
            for path in sorted(inner.iterdir())
            if _is_result_name(path)
        ]
    if not paths:
        names = " or ".join(f"RUN/{stage}-*.json" for stage in PROTOCOLS)
        near = (path for depth in ("", "*/*/", "*/*/*/", "*/*/*/*/") for path in folder.absolute().glob(f"{depth}*.json"))
        there = next((f"; there are in {terminal_safe(path.parents[1])}" for path in near if _is_result_name(path)), "")
        raise InputError(f"{folder}: holds no results, which are called {names}{there}")
    return Side(str(folder), *_read_results(paths))


def _read_commit(word: str, measured: dict[str, list[Path]], runs: Path) -> Side:
    results, broken = _read_results([path for commit in _find_commits(word, measured, runs) for path in measured[commit]])
    first: dict[tuple[str, str], Result] = {}
    for result in results:
        known = first.setdefault((result.run.name, result.protocol.name), result)
        if (known.basis, known.bits) != (result.basis, result.bits):
            raise InputError(
                f"{word}: was measured more than once, and not to the same bits, in {known.path} and {result.path}; "
                "name the folder instead of the commit, or a narrower --runs DIR"
            )
    _, unknown = _read_results(measured.get("", []))
    return Side(word, tuple(first.values()), (*broken, *(f"{problem} (its commit is unknown)" for problem in unknown)))


def _find_commits(word: str, measured: dict[str, list[Path]], runs: Path) -> list[str]:
    """Return the commits, as results record them, that a word means."""
    if word and word in measured:  # such as "unknown", outside git
        return [word]
    base, dirty = word.removesuffix("+"), word.endswith("+")
    full = _resolve_commit(base)
    asked = full or base.lower()
    alike = [c for c in measured if re.fullmatch("[0-9a-f]{7,40}[+]?", c) and _begins(c.rstrip("+"), asked)]
    matching = sorted(c for c in alike if c.endswith("+") == dirty)
    many = [f"{terminal_safe(commit)} ({len(paths):,})" for commit, paths in measured.items() if commit]
    more = f" and {len(many) - MOST} more" if len(many) > MOST else ""
    there = f"results below {runs} are of {', '.join(many[:MOST])}{more}" if many else f"there are no results below {runs}"
    if not full and not alike:
        raise InputError(f"{word!r} is neither a folder nor a commit that git knows here; {there}")
    if not full and len({c[:12] for c in matching}) > 1:
        raise InputError(f"{word}: matches several commits: {', '.join(matching)}; give more characters")
    if not matching:
        other, changes = base + "+" * (not dirty), "without" if dirty else "with"
        way = f"; use {other} for what was measured {changes} uncommitted changes" if alike else ""
        raise InputError(f"{word}: nothing was measured at {(full[:12] or base) + '+' * dirty}; {there}{way}")
    return matching


def _begins(recorded: str, asked: str) -> bool:
    return asked.startswith(recorded) or (len(asked) >= 4 and recorded.startswith(asked))


def _resolve_commit(word: str) -> str:
    """Return the full hash of a commit that git knows in this folder's repository, or ""."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options"]
    try:
        for peel in ("", "^{commit}"):  # behind ":/words" it would be one of the words
            word = subprocess.run([*command, word + peel], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return word


def _group_by_commit(runs: Path) -> dict[str, list[Path]]:
    """Return every result file below a folder by its recorded commit, "" if it records none."""
    by_commit: dict[str, list[Path]] = {}
    for path in _list_result_files(runs):
        try:
            commit = json.loads(path.read_bytes())["commit"]
        except (OSError, ValueError, KeyError, TypeError):
            commit = ""
        by_commit.setdefault(commit if isinstance(commit, str) else "", []).append(path)
    return by_commit


def _list_result_files(root: Path) -> Iterator[Path]:
    """Yield every result file below a folder, in order: each folder once, however many links lead to it; no hidden ones."""
    seen = set()
    for place, folders, names in os.walk(root, followlinks=True, onerror=_unreadable):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(names) if _is_result_name(path := Path(place, name)))


def _unreadable(e: OSError) -> None:
    if not isinstance(e, FileNotFoundError):
        raise InputError(f"{e.filename}: cannot be read ({e.strerror})") from e


def _is_result_name(path: Path) -> bool:
    """Return whether a file has the name of a result."""
    return path.suffix == ".json" and path.name.split("-")[0] in PROTOCOLS


def _read_results(paths: Iterable[Path]) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Return the results in these files, and why other files are not results."""
    results, broken = [], []
    for path in paths:
        try:
            folder = RunFolder(path.parents[1], path.parent.name)
            run, protocol, values = folder.read_any_result(path)
            known = {name: values[name] for name in FIELDS}
            trained = trained_data(folder.run_record(), run, protocol)
            ranks = " then ".join(str(n) for n, _ in groupby((folder.encoder_record() or {}).get("ranks") or [1]))
            results.append(Result(path, run, protocol, known, is_superseded(protocol, values), trained, ranks))
        except InputError as e:
            broken.append(str(e))
    return tuple(results), tuple(broken)
