"""What may be deleted below runs/ and data/prepared, why, and how much that frees. No torch.

Whatever is needed, in use, recent or unrecognised stays, and so does what lies behind a link.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from simclic import data, files
from simclic.data import decoded, manifest
from simclic.data.fetch import abandoned_downloads
from simclic.data.folder import is_path
from simclic.errors import InputError
from simclic.experiment import Job, JobState, OnFeatures, Run, Suite
from simclic.experiment.baselines import IMPORTED, imported_path
from simclic.experiment.names import is_file, split_part
from simclic.schedule import records, snapshot
from simclic.schedule.deletable import Deletion, Garbage, Item, Kind, files_below, is_folder, is_old, list_folder, make_item
from simclic.schedule.state import job_state
from simclic.store.claim import Busy, hold_claim, is_claim, is_claimed
from simclic.store.run_files import FileKind, StoredFile
from simclic.store.run_folder import RunFolder, run_folders

Claim = Callable[[], AbstractContextManager[object]]


def find_garbage(suites: list[Suite], runs: Path, root: Path) -> Garbage:
    """Return what may go below `runs` and of the data below `root`, the safest first.

    Without suites everything is taken to be needed: features, decoded data and runs stay. Raise InputError for an unknown data
    set, PermissionError for a folder that may not be read.
    """
    garbage, order = Garbage(), list(Kind)
    store = _Inventory(suites, runs, root, garbage)
    for place in store.places:
        try:
            garbage.items += store.list_items(place, garbage)
        except FileNotFoundError:
            garbage.leave_alone(place, "is being changed; run: simclic gc again")
    garbage.items.sort(key=lambda item: order.index(item.kind))
    return garbage


def delete_items(chosen: list[Item], suites: list[Suite], runs: Path, root: Path) -> Deletion:
    """Claim each place, list it again, and delete the chosen items that did not change."""
    deletion, store, by_place = Deletion(), _Inventory(suites, runs, root, Garbage()), dict[Path, list[Item]]()
    for item in chosen:
        by_place.setdefault(item.place, []).append(item)
    for place, items in by_place.items():
        try:
            store.delete_in_place(place, items, deletion)
        except Busy as e:
            deletion.skipped.append(str(e))
        except FileNotFoundError:
            deletion.skipped.append(f"{place}: was moved or deleted by another process")
        except OSError as e:
            deletion.problems.append(f"{place}: cannot be written ({e.strerror})")
    return deletion


class _Inventory:
    """The folders that may hold garbage, and what is needed by exhibits, processes and waiting jobs.

    places: folder -> the function that lists its items, and the claim to hold while they are deleted. needed: the Runs that
    are asked for or in use; None if all are. needed_names: of their folders, and of the folders that they start from.
    """

    def __init__(self, suites: list[Suite], runs: Path, root: Path, garbage: Garbage):
        self.runs, self.root, self.garbage = runs, root, garbage
        self.folders = {folder.path: folder for folder in run_folders(runs)}
        self.places: dict[Path, tuple[Callable[[Path, Garbage], Iterator[Item]], Claim]] = {
            runs / ".launches": (self._list_launch_items, partial(hold_claim, runs / ".launches", "submitting")),
            **{path: (self._list_run_items, folder.claim_work) for path, folder in self.folders.items()},
            imported_path(runs, "").parent: (self._list_imported_weights, nullcontext),
            runs: (lambda at, _: (make_item(p, Kind.LEFTOVERS, at) for p in list_folder(at)
                                  if files.intended_name(p) == "probe" and is_old(p)), nullcontext),
            manifest.prepared_folder(root): (self._list_decoded_data, nullcontext),
            root: (lambda at, _: (make_item(p, Kind.LEFTOVERS, at, files_below(p))
                                  for p in abandoned_downloads(at)), nullcontext),
        }  # fmt: skip
        self.launches = records.LaunchOverview(runs)
        if self.launches.slurm_problem:
            garbage.leave_alone(runs / ".launches", f"{self.launches.slurm_problem}; what waits and runs is not known")
        self.jobs_by_run: dict[str, list[Job]] = {}
        for job in (job for suite in suites for job in suite.jobs):
            self.jobs_by_run.setdefault(job.run.name, []).append(job)
        self.runs_at_work = {folder.name: folder.recorded_fields for folder in self.folders.values() if folder.is_at_work}
        for launch in filter(self.launches.may_run, self.launches.readable):
            self.runs_at_work |= self.launches.unfinished_runs(launch)
        self.needed: list[Run] | None = None
        with suppress(InputError):
            if suites and all(self.runs_at_work.values()):
                self.needed = [*(jobs[0].run for jobs in self.jobs_by_run.values()), *map(Run.known, self.runs_at_work.values())]
        if suites and self.needed is None:
            garbage.leave_alone(runs, "a job in progress belongs to another version; all runs are kept")
        self.needed_names = {name for run in self.needed or () for name in (run.name, *_start_run_names(run, runs))}

    def list_items(self, place: Path, garbage: Garbage) -> list[Item]:
        """Return what may be deleted in one place."""
        if place not in (self.runs, self.root) and place.is_symlink():
            garbage.leave_alone(place, "a link: what lies behind it is left alone")
            return []
        return list(self.places[place][0](place, garbage))

    def delete_in_place(self, place: Path, items: list[Item], deletion: Deletion) -> None:
        """Delete in one place. Raise Busy if a process is at work there, OSError if it cannot be claimed."""
        if place not in (self.runs, self.root) and place.is_symlink():
            deletion.skipped.append(f"{place}: has become a link")
            return
        claims = [item for item in items if item.kind == Kind.LEFTOVERS and is_claim(item.path)]
        for item in claims:
            if not item.path.parent.is_symlink():
                with hold_claim(item.path.parent, item.path.stem):  # takes over what is dead, and lets it go
                    deletion.files |= item.files
        others = [item for item in items if item not in claims]
        with self.places[place][1]() if others else nullcontext():
            now = {
                (item.kind, *file)
                for item in (self.list_items(place, Garbage()) if others else ())
                for file in item.files.items()
            }
            for kind, path, stamp in ((item.kind, *file) for item in others for file in item.files.items()):
                if (kind, path, stamp) in now:
                    deletion.delete_file(path, stamp)
                else:
                    deletion.skipped.append(f"{path}: changed since it was listed")
        for item in others:  # after our own claim, which lay in it
            for folder in sorted((item.path, *item.path.rglob("*")), reverse=True) if is_folder(item.path) else ():
                with suppress(OSError):  # something is left in it, or it is no folder
                    folder.rmdir()

    def _list_run_items(self, place: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield the deletable parts of a run folder; nothing while a process works on it or a job waits for it."""
        folder = self.folders[place]
        if folder.name in self.runs_at_work or folder.is_at_work:
            garbage.leave_alone(place, "a process is at work on it, or a waiting job will be")
            return
        stored = list(folder.list_files())
        kinds = {file.path: kind for file in stored if (kind := self._deletable_kind(folder, file, garbage))}
        yield from (make_item(path, kind, place) for path, kind in kinds.items())
        if self.needed is None or folder.name in self.needed_names:
            return
        if not folder.is_known:
            garbage.leave_alone(place, "no run of this version under its own name")
            return
        own = [file.path for file in stored if file.kind is not FileKind.UNRECOGNISED and file.path not in kinds]
        yield make_item(place, Kind.RUNS, place, own, results=len(folder.result_paths()))

    def _deletable_kind(self, folder: RunFolder, file: StoredFile, garbage: Garbage) -> Kind | None:
        """Return the kind under which a file may be deleted while its Run stays; None if it may not."""
        if file.kind is FileKind.LEFTOVER:
            return Kind.LEFTOVERS if is_old(file.path) or not files.intended_name(file.path) else None
        if file.kind is FileKind.RECOMPUTABLE and self._are_features_read(folder, file.path):
            garbage.feature_images += sum(data.facts(self._find_readers(folder, file.path)[0].dataset).sizes)
            return Kind.FEATURES
        return Kind.DAMAGED if file.kind is FileKind.DAMAGED else None

    def _are_features_read(self, folder: RunFolder, path: Path) -> bool:
        """Return whether all results that read these features are done, and the images are here to compute them again."""
        readers = self._find_readers(folder, path)
        with suppress(InputError, OSError):
            done = readers and all(job_state(job, self.runs).state == JobState.DONE for job in readers)
            return bool(done) and not data.explain_missing(readers[0].dataset, self.root)
        return False

    def _find_readers(self, folder: RunFolder, path: Path) -> list[Job]:
        """Return the results that read a file of features."""
        jobs = self.jobs_by_run.get(folder.name, [])
        return [job for job in jobs if isinstance(job.protocol, OnFeatures) and folder.features_path(job.protocol) == path]

    def _list_imported_weights(self, folder: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield imported weights from which no needed Run starts, and unfinished ones."""
        used = {run.init for run in self.needed or ()}
        for path in list_folder(folder):
            if files.intended_name(path).endswith(".safetensors") and is_old(path):
                yield make_item(path, Kind.LEFTOVERS, folder)
            elif self.needed is not None and any(path == imported_path(self.runs, n) and n not in used for n in IMPORTED):
                yield make_item(path, Kind.RUNS, folder)

    def _list_decoded_data(self, folder: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield decoded images that no needed Run sees, once they are an hour old, and unfinished ones.

        Images of a needed size stay even if they were decoded from other files: to tell them apart, all would have to be read.
        """
        needed = {size for run in self.needed or () for size in self._list_image_sizes(run)}
        for stored in decoded.list_stored(self.root):
            if not is_old(stored.path, 3600) or stored.path.lstat().st_uid != os.getuid():
                continue  # what other users decoded they may need
            if not stored.finished or not stored.path.with_suffix(".npy").exists():
                yield make_item(stored.path, Kind.LEFTOVERS, folder)
            elif self.needed is not None and not {(stored.stem, stored.size), (stored.stem, "")} & needed:
                yield make_item(stored.path, Kind.DATA, folder)

    def _list_image_sizes(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield the data set and size of the images that a Run sees, as decoded files name them; "" stands for every size."""
        for job in (Job(run), *self.jobs_by_run.get(run.name, ())):
            name = job.dataset
            stem, stored = manifest.file_stem(name), None if is_path(name) else data.facts(name).stored
            if run.name in self.runs_at_work:
                yield (stem, "")
            yield from ((stem, str(side)) for side in ([stored] if stored else [side for side, _ in job.image_sides]))

    def _list_launch_items(self, place: Path, garbage: Garbage) -> Iterator[Item]:
        """Yield launches whose jobs are all done, except the newest, and copies of code that nothing will run.

        `status` still reads the launch of an open job and the log of a failed one; --retry-failed reads the newest profile.
        """
        if is_claimed(place, "submitting"):
            garbage.leave_alone(place, "somebody is submitting")
            return
        logs = " ".join(log for folder in self.folders.values() for log in folder.failure_logs())
        finished = {
            launch.folder for launch in self.launches.readable[:-1]
            if not self.launches.may_run(launch) and not self.launches.unfinished_runs(launch) and launch.folder.name not in logs
        }  # fmt: skip
        for folder in finished:
            yield make_item(folder, Kind.LAUNCHES, place, filter(partial(records.is_launch_file, folder), files_below(folder)))
        remaining = [launch for launch in self.launches.readable if launch.folder not in finished]
        for folder in (
            place,
            *(folder for launch in remaining for folder in (launch.folder, *filter(is_folder, list_folder(launch.folder)))),
        ):
            for path in list_folder(folder):
                dead = path.stem in records.CLAIMS and is_claim(path) and not is_claimed(folder, path.stem)
                if dead or (files.intended_name(path).endswith(".json") and is_old(path)):
                    yield make_item(path, Kind.LEFTOVERS, place)
        yield from self._list_code_copies(place, {launch.code for launch in remaining}, garbage)

    def _list_code_copies(self, place: Path, used: Collection[Path], garbage: Garbage) -> Iterator[Item]:
        """Yield copies of code that no launch uses, unfinished launches and copies, and folders of killed questions."""
        copies, all_readable = list[Path](), True
        for path in filter(is_folder, list_folder(place)):
            if path in self.launches.unreadable:
                if records.is_submitted(path):
                    garbage.leave_alone(path, "its launch.json cannot be read; all copies of code are kept")
                    all_readable = False
                elif is_old(path):
                    yield make_item(path, Kind.LEFTOVERS, place, filter(partial(records.is_launch_file, path), files_below(path)))
            elif (snapshot.is_draft(path) and is_old(path)) or (records.is_question_folder(path) and is_old(path, 24 * 3600)):
                yield make_item(path, Kind.LEFTOVERS, place, files_below(path))
            elif records.is_question_folder(path):
                garbage.leave_alone(path, "may be in use; all copies of code are kept")
                all_readable = False
            elif snapshot.is_copy(path) and path not in used and is_old(path):
                copies.append(path)
        for path in copies if all_readable else ():
            yield make_item(path, Kind.LAUNCHES, place, filter(snapshot.own_files(path).__contains__, files_below(path)))


def _start_run_names(run: Run, runs: Path) -> Iterator[str]:
    """Yield the name of the Run whose file another Run starts from."""
    with suppress(ValueError, IndexError):
        if is_file(run.init):
            yield Path(split_part(run.init)[0]).expanduser().resolve().relative_to(runs.resolve()).parts[0]
