"""Launches: one folder per call of submit, readable by its owner alone, with the jobs of each task and their states.

runs/.launches/<launch>/launch.json holds all jobs; <array>.json, once Slurm has accepted an array, its number; <array>/ the
pickles and logs of submitit and a state file for each task. No result is stored here.
"""

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from simclic import files, slurm
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, ComputeOptions, Job, Run
from simclic.provenance import collect_provenance
from simclic.schedule.profile import Profile
from simclic.schedule.task_arrays import Array
from simclic.schedule.work import group_by_run
from simclic.store.claim import is_claimed
from simclic.store.result_file import SCHEMA
from simclic.store.run_folder import RunFolder

NAME, ARRAY = r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}", r"(pretrain|linear|finetune|all)-\d+"  # of a launch's folder and of an array

LOCAL = "local"  # the cluster of a profile that is this machine
CLAIMS = ("owner", "submitting", "local")  # of a launch, of submitting, of work on this machine


@dataclass(frozen=True, eq=False)
class Task:
    """One task of an array: its index, its jobs, and the paths of its state and messages."""

    launch: "Launch"
    array: str
    index: int
    content: tuple[dict[str, Any], ...]

    @property
    def job_names(self) -> tuple[str, ...]:
        """Return the names of its jobs, with those of the encoders that it makes."""
        names = []
        for content in self.content:
            encoder = ["pretrain" if content["run"]["epochs"] else "calibrate"] if self.makes_encoders else []
            names += [f"{content['name']}/{stem}" for stem in (*encoder, *(p["name"] for p in content["protocols"]))]
        return tuple(names)

    @property
    def stage(self) -> str:
        """Return pretrain, linear or finetune; "all" on this machine."""
        return self.array.split("-")[0]

    @property
    def makes_encoders(self) -> bool:
        """Return whether it makes encoders."""
        return self.stage in ("pretrain", "all")

    def parse_jobs(self) -> list[Job]:
        """Return its jobs. Raise InputError if this version of the code gives them other names."""
        jobs = []
        for content in self.content:
            run = Run.parse(content["run"])
            results = [Job(run, PROTOCOLS[p["stage"]].parse(p["fields"])) for p in content["protocols"]]
            names = [f"{content['name']}/{p['name']}" for p in content["protocols"]]
            if run.name != content["name"] or [job.name for job in results] != names:
                raise InputError(f"{self.launch.folder}: {content['name']} is called {run.name} by this version; submit again")
            jobs += [Job(run), *results] if self.makes_encoders else results
        return jobs

    @property
    def slurm_id(self) -> str:
        """Return its name in Slurm; "" before Slurm has accepted it."""
        job = self.launch.slurm_number(self.array)
        return f"{job}_{self.index}" if job and self.launch.sizes[self.array] > 1 else job

    @property
    def title(self) -> str:
        """The name of its array in Slurm."""
        return self.launch.slurm_name(self.array)

    def messages(self, job: str = "") -> Path:
        """Return the path of its error log, as submitit names it. job: its Slurm id, if that is not recorded yet."""
        name = job or self.slurm_id
        return self.launch.folder / self.array / (f"{name}_0_log.err" if name else "log.err")

    def read_state(self) -> dict[str, Any]:
        """Return its last reported state, or {}."""
        try:
            return files.read_json(self._state_path) or {}
        except files.Broken:
            return {}

    def write_state(self, values: dict[str, Any]) -> None:
        """Replace the state file."""
        files.write_json(self._state_path, values)

    @property
    def _state_path(self) -> Path:
        return self.launch.folder / self.array / f"task-{self.index}.json"


class Launch:
    """One call of submit. Raise InputError if its launch.json is missing or damaged."""

    def __init__(self, folder: Path):
        try:
            values = files.read_json(folder / "launch.json")
        except files.Broken as e:
            way = f"cancel (scancel) the jobs that squeue lists as simclic-{folder.name}-..., then delete {folder}"
            raise InputError(f"{str(e).split(';')[0]}; {way}") from e
        if values is None:
            raise InputError(f"{folder}: has no launch.json, so its jobs are unknown; submit again")
        self.folder, self.values = folder, values
        self.compute, self.code = ComputeOptions(**values["how"]), folder.parent / values["code"]
        self.sizes = {array["name"]: len(array["tasks"]) for array in values["arrays"]}
        self.is_local = values["cluster"] == LOCAL
        self._numbers: dict[str, str] = {}

    def list_tasks(self) -> Iterator[Task]:
        """Yield every task of every array."""
        for array in self.values["arrays"]:
            for i, content in enumerate(array["tasks"]):
                yield Task(self, array["name"], i, tuple(content))

    def find_task(self, array: str, index: int) -> Task:
        """Return one task."""
        return next(task for task in self.list_tasks() if (task.array, task.index) == (array, index))

    def slurm_number(self, array: str) -> str:
        """Return Slurm's number of an array; "" if Slurm never accepted it or submit was killed before it was written."""
        if not self._numbers.get(array):
            self._numbers[array] = str((files.read_json(self.folder / f"{array}.json") or {}).get("job", ""))
        return self._numbers[array]

    def write_slurm_number(self, array: str, job: str) -> None:
        """Store the number that Slurm gave to an array."""
        files.write_json(self.folder / f"{array}.json", {"job": job})

    def slurm_name(self, array: str) -> str:
        """Return the name of an array in Slurm, which no other launch has."""
        return f"simclic-{self.folder.name}-{array}"


def launches_folder(runs: Path) -> Path:
    """Return the folder of launches, made if needed. It decides what runs, so only its owner may read or write it."""
    folder = runs.absolute() / ".launches"
    if set("%\n\r") & set(str(folder)):
        raise InputError(f"{str(runs)!r}: Slurm cannot use a path with % or a line break; choose another place with --runs DIR")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; choose another place with --runs DIR")
    folder.chmod(0o700)
    return folder


def list_launches(runs: Path) -> list[Launch]:
    """Return every submitted launch, the newest first."""
    return [Launch(folder) for folder in reversed(list_launch_folders(runs.absolute())) if is_submitted(folder)]


class LaunchOverview:
    """The launches below `runs` as this version and Slurm know them now.

    readable: the oldest first. unreadable: folders without a valid launch.json. slurm_problem: why Slurm does not answer, or "".
    """

    def __init__(self, runs: Path):
        self.runs, self.slurm_problem, self.slurm_names = runs, "", set[str]()
        self.readable, self.unreadable = list[Launch](), list[Path]()
        for folder in list_launch_folders(runs):
            try:
                self.readable.append(Launch(folder))
            except (InputError, KeyError, TypeError):
                self.unreadable.append(folder)
        try:
            if any(not launch.is_local for launch in self.readable):
                self.slurm_names = {job.name for job in slurm.read_queue().values()}
        except slurm.NoAnswer as e:
            self.slurm_problem = str(e)

    def may_run(self, launch: Launch) -> bool:
        """Return whether a job of a launch waits or runs, as far as that can be known."""
        if launch.is_local:
            return is_claimed(launch.folder)
        return bool(self.slurm_problem) or any(launch.slurm_name(array) in self.slurm_names for array in launch.sizes)

    def unfinished_runs(self, launch: Launch) -> dict[str, Any]:
        """Return the Runs of a launch whose jobs are not all done: name -> fields."""
        jobs = [job for task in launch.list_tasks() for job in task.content]
        return {job["name"]: job["run"] for job in jobs if not self._is_done(job)}

    def _is_done(self, job: dict[str, Any]) -> bool:
        folder = RunFolder(self.runs, job["name"])
        return folder.has_encoder() and {p["name"] for p in job["protocols"]} <= folder.result_names()


def list_launch_folders(runs: Path) -> list[Path]:
    """Return the folders with the name of a launch, the oldest first. Some may have no launch.json."""
    return sorted(path for path in (runs / ".launches").glob("2*") if re.fullmatch(NAME, path.name) and path.is_dir())


def is_submitted(folder: Path) -> bool:
    """Return whether a folder has a launch.json, without which nothing was submitted."""
    return (folder / "launch.json").exists()


def is_launch_file(folder: Path, path: Path) -> bool:
    """Return whether a file belongs to a launch: its JSON files, and all that submitit wrote into the folder of an array."""
    inside, name = path.relative_to(folder).parts, files.intended_name(path) or path.name
    return bool(re.fullmatch(ARRAY, inside[0]) or (len(inside) == 1 and re.fullmatch(rf"(launch|owner|{ARRAY})\.json", name)))


def make_question_folder(runs: Path, verb: str) -> Path:
    """Return a new folder for a job that answers a question (doctor, calibrate). It belongs to no launch."""
    folder = launches_folder(runs) / f"{verb}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    return folder


def is_question_folder(path: Path) -> bool:
    """Return whether a folder is named as by `make_question_folder`."""
    return bool(re.fullmatch(r"(doctor|calibrate)-[0-9a-f]{8}", path.name))


def write_launch(arrays: list[Array], profile: Profile, code: Path, runs: Path, root: Path) -> Launch:
    """Write the launch.json of what is about to be submitted."""
    now = datetime.now()  # sorted names give the order of launches
    folder = launches_folder(runs) / f"{now:%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(mode=0o700)
    limits = {
        stage: {"minutes": profile.time_limit(stage), "signal": given.get("slurm_signal_delay_s", 90),
                "timeouts": given.get("slurm_max_num_timeout")}
        for stage, given in profile.stages.items()
    }  # fmt: skip
    record = {
        "schema": SCHEMA, "profile": profile.name, "words": profile.words, "cluster": profile.cluster,
        "how": asdict(profile.compute), "limits": limits, "cwd": str(Path.cwd()), "runs": str(runs.absolute()),
        "data": str(root.absolute()), "cache": os.environ.get(files.CACHE, ""), "code": code.name,
    }  # fmt: skip
    return write_arrays(folder, {**record, **collect_provenance()}, arrays)


def write_arrays(folder: Path, record: dict[str, Any], arrays: list[Array]) -> Launch:
    """Write the launch.json of arrays in the order of submission. record: the rest of its content."""
    names = {id(array): f"{array.stage}-{i}" for i, array in enumerate(arrays)}
    for name in names.values():
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    described = [
        {"name": names[id(a)], "after": names.get(id(a.after), a.after if isinstance(a.after, str) else ""),
         "tasks": [[_jobs_as_json(jobs) for jobs in group_by_run(task)] for task in a.tasks]}
        for a in arrays
    ]  # fmt: skip
    files.write_json(folder / "launch.json", {**record, "arrays": described})
    return Launch(folder)


def _jobs_as_json(jobs: list[Job]) -> dict[str, Any]:
    protocols = [{"name": p.name, "stage": p.stage, "fields": p.values} for job in jobs if (p := job.protocol)]
    return {"name": jobs[0].run.name, "run": jobs[0].run.values, "protocols": protocols}
