"""What may go of a Run: what others left in its folder, features that nobody needs any more, or all of it."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from simclic import data
from simclic.errors import InputError
from simclic.experiment import Linear, Run
from simclic.experiment.baselines import IMPORTED
from simclic.schedule.garbage.entries import (
    CLAIM,
    DAMAGED,
    FEATURES,
    LEFT,
    RUNS,
    TEMPORARY,
    Entry,
    Garbage,
    at_work,
    entry,
    is_folder,
    listed,
    record,
    tree,
    unfinished,
)
from simclic.schedule.garbage.needs import Needs
from simclic.store import results as store

RESULT = r"(?:linear|finetune)-[0-9a-f]{10}"
OURS = re.compile(  # what a Run's folder holds
    rf"(run|pretrain|failed-[a-z]+|owner(-{RESULT})?|(partial-)?{RESULT})\.json|{RESULT}\.npz|log\.jsonl|backbone\.safetensors"
    rf"|features-(float32|bf16)\.safetensors|checkpoint(-{RESULT})?(\.previous|\.damaged)?|tensorboard/events\.out\.tfevents\..+"
)
BESIDE = re.compile(rf"partial-({RESULT})\.json|checkpoint-({RESULT})(?:\.previous)?")  # of no use once that result is there
WEIGHTS = re.compile(r"(.+)\.safetensors")


def look(folder: Path, needs: Needs, garbage: Garbage) -> list[Entry]:
    """What may go of the Run in a folder. Nothing while a process is at work on it or a job that is to be done waits."""
    if folder.name in needs.busy or at_work(folder):
        return garbage.stays(folder, "a process is at work on it, or a job that waits will be")
    kinds = {path: kind for path in listed(folder) if not is_folder(path) and (kind := _kind(path, needs, garbage))}
    found = [entry(path, kind, folder) for path, kind in kinds.items()]
    if needs.runs is None or folder.name in needs.names:
        return found
    if not _known(folder):
        garbage.stays(folder, "no run of this version under its own name")
        return found
    everything = tree(folder, lambda p: p in kinds or bool(OURS.fullmatch(p.relative_to(folder).as_posix())), RUNS, folder)
    return found + [one for one in everything if one.path not in kinds]


def _kind(path: Path, needs: Needs, garbage: Garbage) -> str:
    """As what a file may go while its Run stays, or nothing. Nobody is at work on the Run."""
    folder, name = path.parent, path.name
    if TEMPORARY.fullmatch(name):
        return LEFT if unfinished(path, OURS) else ""
    if CLAIM.fullmatch(name):
        return LEFT
    if beside := BESIDE.fullmatch(name):
        return LEFT if _whole(folder / f"{beside[1] or beside[2]}.json") else ""
    if name in ("checkpoint", "checkpoint.previous"):
        return LEFT if _made(folder, verify=True) else ""
    if name.endswith(".damaged"):
        return DAMAGED if OURS.fullmatch(name) else ""
    if name.startswith("features-") and OURS.fullmatch(name):
        return FEATURES if _unread(folder, name.split(".")[0].removeprefix("features-"), needs, garbage) else ""
    return ""


def _whole(result: Path) -> bool:
    """Is a result there that can be trusted?"""
    with suppress(InputError, OSError):
        return store.read_result(result) is not None
    return False


def _made(folder: Path, verify: bool = False) -> bool:
    """Is the encoder of a Run there? verify: and its weights those that were written."""
    made, path = record(folder / "pretrain.json"), folder / "backbone.safetensors"
    if not made or not path.is_file():
        return False
    return not verify or hashlib.sha256(path.read_bytes()).hexdigest() == made["backbone_sha256"]


def _unread(folder: Path, precision: str, needs: Needs, garbage: Garbage) -> bool:
    """Does nobody need the features of a Run any more that is asked for, and can they be computed again?"""
    run, protocols = needs.asked.get(folder.name, (None, []))
    readers = [p for p in protocols if isinstance(p, Linear) and p.features == precision]
    try:
        if run is None or any(store.result(needs.place, run, p) is None for p in readers):
            return False
        if not _made(folder) or data.missing(run.dataset, needs.root):
            return False
        garbage.images += sum(data.facts(run.dataset).sizes)
        return True
    except (InputError, OSError):
        return False


def _known(folder: Path) -> bool:
    """Does a folder hold the Run after which it is called?"""
    try:
        return Run.known(record(folder / "run.json")["run"]).name == folder.name
    except (InputError, KeyError, AttributeError):
        return False


def imported(place: Path, needs: Needs) -> list[Entry]:
    """Imported weights that no Run starts from which is needed, and what was never finished of one."""
    used = {run.init for run, _ in needs.runs or ()}
    found = [entry(path, LEFT, place) for path in listed(place) if unfinished(path, WEIGHTS)]
    if needs.runs is None:
        return found
    kept = [path for path in listed(place) if path.suffix == ".safetensors" and path.stem in IMPORTED and not is_folder(path)]
    return found + [entry(path, RUNS, place) for path in kept if path.stem not in used]
