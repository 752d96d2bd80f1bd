"""What was submitted: a folder per launch, readable by its owner alone, that says which task does what and how far each is.

runs/.launches/<launch>/launch.json holds every job; <array>.json, once Slurm has taken an array, its number; <array>/ the pickles
and logs of submitit and a state file of each task. Numbers are never read from here.
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
from simclic.experiment import PROTOCOLS, How, Job, Run
from simclic.provenance import provenance
from simclic.schedule.pack import Array
from simclic.schedule.profile import Profile
from simclic.schedule.work import group_by_run
from simclic.store.claim import is_claimed
from simclic.store.result_file import SCHEMA
from simclic.store.run_folder import RunFolder

NAME, ARRAY = r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}", r"(pretrain|linear|finetune|all)-\d+"  # of a launch's folder and of an array

LOCAL = "local"  # the cluster of a profile that is this machine
CLAIMS = ("owner", "submitting", "local")  # what processes claim in here: a launch, to submit, to work on this machine


@dataclass(frozen=True, eq=False)
class Task:
    """One task of an array: its place in it, what it is to do, and where its state and its messages are."""

    launch: "Launch"
    array: str
    index: int
    content: tuple[dict[str, Any], ...]

    @property
    def job_names(self) -> tuple[str, ...]:
        """The names of its jobs, encoders included where it makes them."""
        names = []
        for content in self.content:
            encoder = ["pretrain" if content["run"]["epochs"] else "calibrate"] if self.makes_encoders else []
            names += [f"{content['name']}/{stem}" for stem in (*encoder, *(p["name"] for p in content["protocols"]))]
        return tuple(names)

    @property
    def stage(self) -> str:
        """pretrain, linear or finetune; "all" on this machine."""
        return self.array.split("-")[0]

    @property
    def makes_encoders(self) -> bool:
        """Does it make encoders?"""
        return self.stage in ("pretrain", "all")

    def parse_jobs(self) -> list[Job]:
        """Its jobs, to be done. Raises InputError if this version of the code would do something else under their names."""
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
        """How Slurm calls it; nothing as long as Slurm does not know it."""
        job = self.launch.slurm_number(self.array)
        return f"{job}_{self.index}" if job and self.launch.sizes[self.array] > 1 else job

    @property
    def title(self) -> str:
        """What Slurm is told to call its array."""
        return self.launch.slurm_name(self.array)

    def messages(self, job: str = "") -> Path:
        """Where its errors are told, as submitit names that. job: how Slurm calls it, if nobody has written that down yet."""
        name = job or self.slurm_id
        return self.launch.folder / self.array / (f"{name}_0_log.err" if name else "log.err")

    def read_state(self) -> dict[str, Any]:
        """What it last told of itself, or nothing."""
        try:
            return files.read_json(self._state_path) or {}
        except files.Broken:
            return {}

    def write_state(self, values: dict[str, Any]) -> None:
        """Say how far it is."""
        files.write_json(self._state_path, values)

    @property
    def _state_path(self) -> Path:
        return self.launch.folder / self.array / f"task-{self.index}.json"


class Launch:
    """One call of submit. Raises InputError if its file is not whole."""

    def __init__(self, folder: Path):
        try:
            values = files.read_json(folder / "launch.json")
        except files.Broken as e:
            way = f"scancel what squeue calls simclic-{folder.name}-..., then delete {folder}"
            raise InputError(f"{str(e).split(';')[0]}; {way}") from e
        if values is None:
            raise InputError(f"{folder}: has no launch.json")
        self.folder, self.values = folder, values
        self.how, self.code = How(**values["how"]), folder.parent / values["code"]
        self.sizes = {array["name"]: len(array["tasks"]) for array in values["arrays"]}
        self.is_local = values["cluster"] == LOCAL
        self._numbers: dict[str, str] = {}

    def list_tasks(self) -> Iterator[Task]:
        """Every task of every array."""
        for array in self.values["arrays"]:
            for i, content in enumerate(array["tasks"]):
                yield Task(self, array["name"], i, tuple(content))

    def find_task(self, array: str, index: int) -> Task:
        """One task."""
        return next(task for task in self.list_tasks() if (task.array, task.index) == (array, index))

    def slurm_number(self, array: str) -> str:
        """Slurm's number of an array; nothing if it was never taken, or nobody lived to write it down."""
        if not self._numbers.get(array):
            self._numbers[array] = str((files.read_json(self.folder / f"{array}.json") or {}).get("job", ""))
        return self._numbers[array]

    def write_slurm_number(self, array: str, job: str) -> None:
        """Slurm has taken an array."""
        files.write_json(self.folder / f"{array}.json", {"job": job})

    def slurm_name(self, array: str) -> str:
        """What Slurm is told to call an array: no other launch has one of that name."""
        return f"simclic-{self.folder.name}-{array}"


def launches_folder(runs: Path) -> Path:
    """Where launches lie. What is in there decides what runs: nobody but its owner may write or read it."""
    folder = runs.absolute() / ".launches"
    if set("%\n\r") & set(str(folder)):
        raise InputError(f"{str(runs)!r}: Slurm reads a % in a path as something else; choose another place with --runs DIR")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; choose another place with --runs DIR")
    folder.chmod(0o700)
    return folder


def list_launches(runs: Path) -> list[Launch]:
    """Every launch, the newest first. One whose submitter was killed before it had written what it wanted counts for nothing."""
    folders = sorted(runs.absolute().glob(".launches/2*"), reverse=True)
    return [Launch(folder) for folder in folders if is_submitted(folder)]


class LaunchOverview:
    """The launches below `runs` as this version and Slurm know them now.

    readable: the oldest first. unreadable: folders that are called like a launch. silent: why Slurm does not answer, or nothing.
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
                self.slurm_names = {job.name for job in slurm.queue().values()}
        except slurm.Silent as e:
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
    """Return the folders that are called like a launch, the oldest first, whether or not they hold a whole one."""
    return sorted(path for path in (runs / ".launches").glob("2*") if re.fullmatch(NAME, path.name) and path.is_dir())


def is_submitted(folder: Path) -> bool:
    """Return whether a launch has its record: only then it was submitted."""
    return (folder / "launch.json").exists()


def is_launch_file(folder: Path, path: Path) -> bool:
    """Return whether a file belongs to a launch: its records, and whatever submitit wrote into the folder of an array."""
    inside, name = path.relative_to(folder).parts, files.intended_name(path) or path.name
    return bool(re.fullmatch(ARRAY, inside[0]) or (len(inside) == 1 and re.fullmatch(rf"(launch|owner|{ARRAY})\.json", name)))


def make_question_folder(runs: Path, verb: str) -> Path:
    """Return a new folder for a job that answers a question (doctor, calibrate); no launch names the code that it runs."""
    folder = launches_folder(runs) / f"{verb}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    return folder


def is_question_folder(path: Path) -> bool:
    """Return whether a folder is called like those of `question_folder`."""
    return bool(re.fullmatch(r"(doctor|calibrate)-[0-9a-f]{8}", path.name))


def write_launch(arrays: list[Array], profile: Profile, code: Path, runs: Path, root: Path) -> Launch:
    """Write down what is going to be submitted, before it is."""
    now = datetime.now()  # whose names, sorted, say which came last
    folder = launches_folder(runs) / f"{now:%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(mode=0o700)
    names = {id(array): f"{array.stage}-{i}" for i, array in enumerate(arrays)}
    for name in names.values():
        (folder / name).mkdir(mode=0o700)
    described = [
        {"name": names[id(a)], "after": names.get(id(a.after), a.after if isinstance(a.after, str) else ""),
         "tasks": [[_jobs_as_json(jobs) for jobs in group_by_run(task)] for task in a.tasks]}
        for a in arrays
    ]  # fmt: skip
    limits = {
        stage: {"minutes": profile.minutes(stage), "signal": given.get("slurm_signal_delay_s", 90),
                "timeouts": given.get("slurm_max_num_timeout")}
        for stage, given in profile.stages.items()
    }  # fmt: skip
    record = {
        "schema": SCHEMA, "profile": profile.name, "words": profile.words, "cluster": profile.cluster, "how": asdict(profile.how),
        "limits": limits, "cwd": str(Path.cwd()), "runs": str(runs.absolute()), "data": str(root.absolute()), "code": code.name,
    }  # fmt: skip
    files.write_json(folder / "launch.json", {**record, **provenance(), "arrays": described})
    return Launch(folder)


def _jobs_as_json(jobs: list[Job]) -> dict[str, Any]:
    protocols = [{"name": p.name, "stage": p.stage, "fields": p.values} for job in jobs if (p := job.protocol)]
    return {"name": jobs[0].run.name, "run": jobs[0].run.values, "protocols": protocols}
