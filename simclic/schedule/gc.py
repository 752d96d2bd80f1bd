"""What may be deleted below runs/ and below data/prepared, why, and how much that frees. Without torch.

Whatever is needed, in use, recent or unrecognised stays, and so does what lies behind a link. What a place holds is asked of its
owner.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from simclic import data, files
from simclic.data import decoded, manifest
from simclic.data.fetch import abandoned_downloads
from simclic.data.folder import is_path
from simclic.errors import InputError
from simclic.experiment import Finetune, Job, JobState, Linear, Run, Suite
from simclic.experiment.baselines import IMPORTED, imported
from simclic.experiment.run import is_file
from simclic.schedule import records, snapshot
from simclic.schedule.items import (
    DAMAGED,
    DATA,
    DAY,
    FEATURES,
    HOUR,
    KINDS,
    LAUNCHES,
    LEFT,
    RUNS,
    Garbage,
    Item,
    Stamp,
    files_below,
    is_folder,
    is_old,
    list_folder,
    make_item,
    stamp_of,
)  # fmt: skip
from simclic.schedule.state import job_state
from simclic.store.claim import Busy, claimed, is_claim, is_claimed
from simclic.store.run_files import FileKind, StoredFile
from simclic.store.run_folder import RunFolder, run_folders


@dataclass
class Gone:
    """What was deleted; what stayed since it changed or is in use, and what could not be deleted, a line each."""

    files: dict[Path, Stamp] = field(default_factory=dict)
    stayed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find(suites: list[Suite], runs: Path, root: Path) -> Garbage:
    """Return what may go below `runs` and of the data below `root`, the safest first.

    Without suites everything is taken to be needed: features, decoded data and runs stay. Raise InputError for an unknown data
    set, PermissionError for a folder that may not be read.
    """
    garbage, order = Garbage(), list(KINDS)
    store = _Store(suites, runs, root, garbage)
    for place in store.places:
        try:
            garbage.items += store.look(place, garbage)
        except FileNotFoundError:
            garbage.keep(place, "changes while it is looked at")
    garbage.items.sort(key=lambda item: order.index(item.kind))
    return garbage


def delete(chosen: list[Item], suites: list[Suite], runs: Path, root: Path) -> Gone:
    """Delete what was found, one place after another: each is claimed and looked at once more, and what changed stays."""
    gone, store, by_place = Gone(), _Store(suites, runs, root, Garbage()), dict[Path, list[Item]]()
    for item in chosen:
        by_place.setdefault(item.place, []).append(item)
    for place, items in by_place.items():
        try:
            store.delete(place, items, gone)
        except Busy as e:
            gone.stayed.append(str(e))
        except FileNotFoundError:
            gone.stayed.append(f"{place}: was moved or deleted meanwhile")
        except OSError as e:
            gone.problems.append(f"{place}: cannot be written ({e.strerror})")
    return gone


Claim = Callable[[], AbstractContextManager[object]]
Look = Callable[[Path, Garbage], Iterator[Item]]


class _Store:
    """The places below runs and data, and what of them is needed: by exhibits, by processes, and by jobs that wait.

    places: each with the function that looks at it and the claim that is taken before anything in it is deleted. needed: the Runs
    asked for or in use; None if everything is taken to be needed. names: of their folders, and of those that one starts from.
    """

    def __init__(self, suites: list[Suite], runs: Path, root: Path, garbage: Garbage):
        self.runs, self.root, self.garbage = runs, root, garbage
        self.folders = {folder.path: folder for folder in run_folders(runs)}
        self.places: dict[Path, tuple[Look, Claim]] = {
            runs / ".launches": (self._launches, partial(claimed, runs / ".launches", "submitting")),
            **{path: (self._run, folder.claim) for path, folder in self.folders.items()},
            imported(runs, "").parent: (self._imported, nullcontext), runs: (self._probes, nullcontext),
            manifest.place(root): (self._prepared, nullcontext), root: (self._downloads, nullcontext),
        }  # fmt: skip
        self.launches = records.Launches(runs)
        if self.launches.silent:
            garbage.keep(runs / ".launches", f"{self.launches.silent}; what waits and runs is not known")
        self.asked: dict[str, list[Job]] = {}
        for job in (job for suite in suites for job in suite.jobs):
            self.asked.setdefault(job.run.name, []).append(job)
        self.busy = {folder.name: folder.recorded_fields for folder in self.folders.values() if folder.is_at_work}
        for launch in filter(self.launches.may_run, self.launches.readable):
            self.busy |= self.launches.unfinished(launch)
        self.needed: list[Run] | None = None
        with suppress(InputError):
            if suites and all(self.busy.values()):
                self.needed = [*(jobs[0].run for jobs in self.asked.values()), *map(Run.known, self.busy.values())]
        if suites and self.needed is None:
            garbage.keep(runs, "work is in progress that this version does not know; everything is taken to be needed")
        self.names = {name for run in self.needed or () for name in (run.name, *_starts(run, runs))}

    def look(self, place: Path, garbage: Garbage) -> list[Item]:
        """Return what may go in one place."""
        if place not in (self.runs, self.root) and place.is_symlink():
            garbage.keep(place, "a link: what lies behind it is left alone")
            return []
        return list(self.places[place][0](place, garbage))

    def delete(self, place: Path, items: list[Item], gone: Gone) -> None:
        """Delete in one place. Raise Busy if somebody is at work there, OSError if that cannot be claimed."""
        if place not in (self.runs, self.root) and place.is_symlink():
            gone.stayed.append(f"{place}: is a link by now")
            return
        claims = [item for item in items if item.kind == LEFT and is_claim(item.path)]
        for item in claims:
            if not item.path.parent.is_symlink():
                with claimed(item.path.parent, item.path.stem):  # takes over what is dead, and lets it go
                    gone.files |= item.files
        others = [item for item in items if item not in claims]
        with self.places[place][1]() if others else nullcontext():
            now = {(item.kind, *file) for item in (self.look(place, Garbage()) if others else ()) for file in item.files.items()}
            for kind, path, stamp in ((item.kind, *file) for item in others for file in item.files.items()):
                if (kind, path, stamp) in now:
                    _unlink(path, stamp, gone)
                else:
                    gone.stayed.append(f"{path}: changed since it was listed")
        for item in others:  # after our own claim, which lay in it
            for folder in sorted((item.path, *item.path.rglob("*")), reverse=True) if is_folder(item.path) else ():
                with suppress(OSError):  # something is left in it, or it is no folder
                    folder.rmdir()

    def _run(self, place: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield what may go of a Run. Nothing while a process is at work on it or a job that is to be done waits."""
        folder = self.folders[place]
        if folder.name in self.busy or folder.is_at_work:
            garbage.keep(place, "a process is at work on it, or a job that waits will be")
            return
        stored = list(folder.files())
        kinds = {file.path: kind for file in stored if (kind := self._kind(folder, file, garbage))}
        yield from (make_item(path, kind, place) for path, kind in kinds.items())
        if self.needed is None or folder.name in self.names:
            return
        if not folder.is_known:
            garbage.keep(place, "no run of this version under its own name")
            return
        own = [file.path for file in stored if file.kind is not FileKind.UNRECOGNISED and file.path not in kinds]
        yield make_item(place, RUNS, place, own, results=len(folder.result_paths()))

    def _kind(self, folder: RunFolder, file: StoredFile, garbage: Garbage) -> str:
        """Return as what a file of a Run may go while the Run stays, or nothing."""
        if file.kind is FileKind.LEFTOVER:
            return LEFT if is_old(file.path) or not files.intended_name(file.path) else ""
        if file.kind is FileKind.RECOMPUTABLE and self._are_read(folder, file.precision):
            garbage.images += sum(data.facts(self.asked[folder.name][0].run.dataset).sizes)
            return FEATURES
        return DAMAGED if file.kind is FileKind.DAMAGED else ""

    def _are_read(self, folder: RunFolder, precision: str) -> bool:
        """Return whether all results asked of a Run have read its features, and its images are here to compute them again."""
        jobs = self.asked.get(folder.name, [])
        readers = [job for job in jobs if isinstance(job.protocol, Linear) and job.protocol.features == precision]
        with suppress(InputError, OSError):
            done = jobs and all(job_state(job, self.runs).state == JobState.DONE for job in readers)
            return bool(done) and not data.missing(jobs[0].run.dataset, self.root)
        return False

    def _imported(self, folder: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield imported weights that no Run starts from which is needed, and what was never finished of any."""
        used = {run.init for run in self.needed or ()}
        for path in list_folder(folder):
            if files.intended_name(path).endswith(".safetensors") and is_old(path):
                yield make_item(path, LEFT, folder)
            elif self.needed is not None and any(path == imported(self.runs, n) and n not in used for n in IMPORTED):
                yield make_item(path, RUNS, folder)

    def _probes(self, folder: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield what was left of trying whether a folder can be written."""
        yield from (make_item(p, LEFT, folder) for p in list_folder(folder) if files.intended_name(p) == "probe" and is_old(p))

    def _downloads(self, root: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield downloads that nobody went on with for a day."""
        for folder in abandoned_downloads(root):
            yield make_item(folder, LEFT, root, files_below(folder))

    def _prepared(self, folder: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield decoded images of data sets and sizes that nobody needs, after an hour, and what was never finished.

        What has a size that is needed and was decoded from other files stays: which is which only reading them all would tell.
        Raise InputError for an unknown data set.
        """
        needed = {size for run in self.needed or () for size in self._sizes(run)}
        for stored in decoded.list_stored(self.root):
            if not is_old(stored.path, HOUR) or stored.path.lstat().st_uid != os.getuid():
                continue  # what other users decoded they may need
            if not stored.finished or not stored.path.with_suffix(".npy").exists():
                yield make_item(stored.path, LEFT, folder)
            elif self.needed is not None and not {(stored.stem, stored.size), (stored.stem, "")} & needed:
                yield make_item(stored.path, DATA, folder)

    def _sizes(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield data set and size of the images that a Run sees, as decoded files name them; no size for all."""
        stem, stored = manifest.stem(run.dataset), None if is_path(run.dataset) else data.facts(run.dataset).stored
        if run.name in self.busy:
            yield (stem, "")
        protocols = [job.protocol for job in self.asked.get(run.name, ())]
        sides = [p.side(run.image_size) for p in protocols if isinstance(p, Finetune)]
        yield from ((stem, str(side)) for side in ([stored] if stored else [run.image_size, *sides]))

    def _launches(self, place: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield launches whose jobs are all done, but not the last, and copies of code that nothing will run.

        status reads the record of a job that is not done and the log of one that failed, --retry-failed the last profile.
        """
        if is_claimed(place, "submitting"):
            garbage.keep(place, "somebody is submitting")
            return
        logs = " ".join(log for folder in self.folders.values() for log in folder.failure_logs())
        over = {
            launch.folder for launch in self.launches.readable[:-1]
            if not self.launches.may_run(launch) and not self.launches.unfinished(launch) and launch.folder.name not in logs
        }  # fmt: skip
        for folder in over:
            yield make_item(folder, LAUNCHES, place, filter(partial(records.is_own_file, folder), files_below(folder)))
        stay = [launch for launch in self.launches.readable if launch.folder not in over]
        for folder in (
            place,
            *(folder for launch in stay for folder in (launch.folder, *filter(is_folder, list_folder(launch.folder)))),
        ):
            for path in list_folder(folder):
                dead = path.stem in records.CLAIMS and is_claim(path) and not is_claimed(folder, path.stem)
                if dead or (files.intended_name(path).endswith(".json") and is_old(path)):
                    yield make_item(path, LEFT, place)
        yield from self._copies(place, {launch.code for launch in stay}, garbage)

    def _copies(self, place: Path, used: Collection[Path], garbage: Garbage) -> Iterator[Item]:
        """Yield copies of code that nothing names; launches and copies that were never finished; questions that were killed."""
        copies, sure = list[Path](), True
        for path in filter(is_folder, list_folder(place)):
            if path in self.launches.unreadable:
                if records.is_written(path):
                    garbage.keep(path, "its launch.json cannot be read here; so no copy of the code goes")
                    sure = False
                elif is_old(path):
                    yield make_item(path, LEFT, place, filter(partial(records.is_own_file, path), files_below(path)))
            elif (snapshot.is_draft(path) and is_old(path)) or (records.is_question_folder(path) and is_old(path, DAY)):
                yield make_item(path, LEFT, place, files_below(path))
            elif records.is_question_folder(path):
                garbage.keep(path, "may be at work; so no copy of the code goes")
                sure = False
            elif snapshot.is_copy(path) and path not in used and is_old(path):
                copies.append(path)
        for path in copies if sure else ():
            yield make_item(path, LAUNCHES, place, filter(snapshot.own_files(path).__contains__, files_below(path)))


def _starts(run: Run, runs: Path) -> Iterator[str]:
    """Yield the name of the Run in whose folder the file lies that another one starts from."""
    with suppress(ValueError, IndexError):
        if is_file(run.init):
            yield Path(run.init).expanduser().resolve().relative_to(runs.resolve()).parts[0]


def _unlink(path: Path, stamp: Stamp, gone: Gone) -> None:
    """Delete one file if it is as it was an instant ago."""
    try:
        if stamp_of(path) == stamp:
            os.unlink(path)
            gone.files[path] = stamp
    except OSError as e:
        gone.problems.append(f"{path}: cannot be deleted ({e.strerror})")
