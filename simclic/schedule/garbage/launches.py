"""What may go below runs/.launches: records that nobody reads any more, and copies of code that nothing will run.

status reads the record of a job that is not done and the log of one that failed, --retry-failed the profile of the last launch.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simclic import slurm
from simclic.schedule.garbage.entries import (
    CLAIM,
    DAY,
    LAUNCHES,
    LEFT,
    Entry,
    Garbage,
    entry,
    is_folder,
    listed,
    live,
    old,
    record,
    tree,
    unfinished,
)

NAME, ARRAY = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}"), r"(?:pretrain|linear|finetune|all)-\d+"
CODE, DRAFT = re.compile(r"code-[0-9a-f]{16}"), re.compile(r"\.code\.[0-9a-f]{8}")
ASKING = re.compile(r"(doctor|calibrate)-[0-9a-f]{8}")  # whose jobs run a copy of code that no launch names
BEGUN = re.compile(rf"(launch|owner|submitting|local|{ARRAY}|task-\d+)\.json")
HELD = re.compile(  # what a launch's folder holds: ours, and submitit's
    rf"(launch|owner|{ARRAY})\.json|({ARRAY}/)?\.[^/]+\.json\.[0-9a-f]{{8}}|{ARRAY}/(task-\d+\.json|log\.err|[0-9a-f]{{32}}\.pkl"
    r"|\.submission_file_[0-9a-f]{32}\.sh|\d+(_\d+)?_(submission\.sh|submitted\.pkl|\d+_(result\.pkl|log\.(err|out)))(\.save_tmp)?)"
)


class Launch(NamedTuple):
    """One call of submit. alive: may a job of it wait or run; None if Slurm does not tell. open: its jobs that are not done."""

    folder: Path
    code: str
    alive: bool | None
    open: list[dict[str, Any]]


def launches(runs: Path, garbage: Garbage) -> list[Launch]:
    """Every launch whose record can be read, the oldest first."""
    read = {p: record(p / "launch.json") for p in listed(runs / ".launches") if NAME.fullmatch(p.name) and is_folder(p)}
    remote = any(values.get("cluster", "local") != "local" for values in read.values())
    titles, found = _queue(runs, garbage) if remote else set(), list[Launch]()
    for folder, values in read.items():
        with suppress(KeyError, TypeError):  # of another version
            arrays, here = values["arrays"], values["cluster"] == "local"
            waits = None if titles is None else any(f"simclic-{folder.name}-{array['name']}" in titles for array in arrays)
            jobs = [job for array in arrays for task in array["tasks"] for job in task]
            left = [job for job in jobs if not _done(runs / job["name"], job)]
            found.append(Launch(folder, values["code"], live(folder / "owner.json") if here else waits, left))
    return found


def _queue(runs: Path, garbage: Garbage) -> set[str] | None:
    """What the jobs are called that wait or run; None if Slurm does not answer."""
    try:
        return {job.name for job in slurm.queue().values()}
    except slurm.Silent as e:
        garbage.stays(runs / ".launches", f"{e}; what waits and runs is not known")
        return None


def _done(folder: Path, job: dict[str, Any]) -> bool:
    """Is there all that a job was to make of a Run?"""
    return all((folder / f"{name}.json").exists() for name in ("pretrain", *(p["name"] for p in job["protocols"])))


def look(runs: Path, garbage: Garbage) -> list[Entry]:
    """What may go. Nothing while somebody submits."""
    place = runs / ".launches"
    if live(place / "submitting.json"):
        return garbage.stays(place, "somebody is submitting")
    known = launches(runs, garbage)
    logs = " ".join(str(record(path).get("log")) for path in runs.glob("*/failed-*.json"))
    over = [one for one in known[:-1] if one.alive is False and not one.open and one.folder.name not in logs]
    found = [file for one in over for file in _all(one.folder, LAUNCHES, place)]
    for one in known:
        if one not in over:
            arrays = [path for path in listed(one.folder) if is_folder(path)]
            found += [file for folder in (one.folder, *arrays) for file in _left(folder, place)]
    return (
        found
        + _left(place, place)
        + _others(place, {one.folder for one in known}, {one.code for one in known if one not in over}, garbage)
    )


def _left(folder: Path, place: Path) -> list[Entry]:
    """Claims of processes that are gone, and what was never finished."""
    dead = [path for path in listed(folder) if CLAIM.fullmatch(path.name) and not live(path)]
    return [entry(path, LEFT, place) for path in (*dead, *(p for p in listed(folder) if unfinished(p, BEGUN)))]


def _others(place: Path, known: set[Path], used: set[str], garbage: Garbage) -> list[Entry]:
    """Copies of code that nothing names; folders of launches and copies that were never finished; of probes that were killed."""
    found, code, sure = list[Entry](), list[Path](), True
    for path in (path for path in listed(place) if is_folder(path) and path not in known):
        if NAME.fullmatch(path.name) and (path / "launch.json").exists():
            garbage.stays(path, "its launch.json cannot be read here; so no copy of the code goes")
            sure = False
        elif NAME.fullmatch(path.name) and old(path):
            found += _all(path, LEFT, place)
        elif (DRAFT.fullmatch(path.name) and old(path)) or (ASKING.fullmatch(path.name) and old(path, DAY)):
            found += tree(path, lambda inside: True, LEFT, place)
        elif ASKING.fullmatch(path.name):
            garbage.stays(path, "may be at work; so no copy of the code goes")
            sure = False
        elif CODE.fullmatch(path.name) and path.name not in used and old(path):
            code.append(path)
    return found + [file for path in code if sure for file in _copy(path, place)]


def _all(folder: Path, kind: str, place: Path) -> list[Entry]:
    return tree(folder, lambda path: bool(HELD.fullmatch(path.relative_to(folder).as_posix())), kind, place)


def _copy(folder: Path, place: Path) -> list[Entry]:
    """A copy of the code: what SHA256SUMS lists, and what Python compiled from it."""
    sums = folder / "SHA256SUMS"
    names = [line.split("  ", 1)[-1] for line in (sums.read_text().splitlines() if sums.is_file() else ())]
    ours = {sums, folder / "simclic/COMMIT", *(folder / "simclic" / name for name in names)}
    return tree(
        folder, lambda path: path in ours or (path.suffix == ".pyc" and path.parent.name == "__pycache__"), LAUNCHES, place
    )
