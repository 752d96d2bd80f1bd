"""Profiles of machines, slurm/*.toml: submitit's own keys, for every stage or for one."""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, ComputeOptions
from simclic.schedule import cost

SECTIONS = ("pretrain", *dict.fromkeys(kind.section for kind in PROTOCOLS.values()))  # of a profile

# Keys that simclic sets: one process per job, its folder, its dependencies, and the signal that stops it.
OURS = {
    "name", "slurm_time", "slurm_dependency", "slurm_job_name", "slurm_use_srun", "slurm_ntasks_per_node", "slurm_cpus_per_task",
}  # fmt: skip
TASKS = ("nodes", "tasks_per_node")  # of a job of the section pretrain, whose tasks share the ranks of a pre-training
OUR_FLAGS = {
    "array", "dependency", "chdir", "output", "error", "open-mode", "job-name", "requeue", "time", "signal", "nodes", "ntasks",
    "ntasks-per-node", "ntasks-per-gpu", "cpus-per-task",
}  # of sbatch, likewise  # fmt: skip
GPU_OPTION = re.compile(r"gres|gpus|num-gpus|(gpus|tres)-per-\w+")  # sbatch takes the beginning of an option for the whole
GPU_NAME = r"(?:gres[:/])?(?P<name>gpu|shard|mps)"
GPU_WORD = re.compile(
    rf"{GPU_NAME}(?::(?:(?P<count>\d+[kmgtp]?)|(?P<kind>[^\W\d][\w.+-]*)|(?P<its>\w[\w.+-]*):(?P<number>\d+[kmgtp]?)))?", re.I
)
OTHER_WORD = re.compile(rf"(?!{GPU_NAME}(?![\w.-]))[\w.:/-]+", re.I)  # another resource, or "none"
KINDS: dict[Any, str] = {int: "a whole number", str: "a string", bool: "true or false", list: "a list", dict: "a table"}
LEAST = {
    "timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0, "slurm_array_parallelism": 1, "slurm_max_num_timeout": 0,
    "slurm_signal_delay_s": 0, "nodes": 1, "tasks_per_node": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Pack:
    """How jobs are grouped into tasks. least_min: minutes that a task of short jobs should take, within its time limit.
    images_per_second: a guess of how fast one device trains ResNet-50 at 224 pixels, used until there is a calibration or a
    finished run; 0 for the guess in simclic.schedule.cost."""

    least_min: float = 10.0
    images_per_second: float = 0.0


@dataclass(frozen=True)
class Profile:
    """Where jobs run. cluster: "slurm" or "local". stages: submitit's parameters of each stage."""

    name: str
    cluster: str
    stages: Mapping[str, Mapping[str, Any]]
    compute: ComputeOptions
    pack: Pack
    words: Mapping[str, Any]  # the content of the file

    def time_limit(self, stage: str) -> float:
        """Return the minutes after which Slurm stops and requeues a task of a stage."""
        return float(self.stages[stage].get("timeout_min", 5))

    def task_width(self, stage: str) -> int:
        """Return the number of jobs that a task does at a time: one per process on a GPU, or per core; one if tasks share it."""
        if stage == "pretrain" and self.tasks(stage) > 1:
            return 1
        width = self.gpus(stage) * self.compute.per_gpu or int(self.stages[stage].get("cpus_per_task", 1))
        return max(1, width // self.compute.ranks) if stage == "pretrain" else width

    def tasks(self, stage: str) -> int:
        """Return the number of Slurm tasks of a job of a stage."""
        return math.prod(int(self.stages[stage].get(key, 1)) for key in TASKS)

    def gpus(self, stage: str) -> int:
        """Return the number of GPUs that a task of a stage asks for."""
        return sum(gpu_kinds(self.stages[stage]).values())


def gpu_kinds(given: Mapping[str, Any]) -> dict[str, int]:
    """Return how many GPUs of each kind a stage's parameters ask Slurm for; "" is any kind. A shard or MPS is a part of one GPU.

    Raise InputError for what is not in the grammar of sbatch's --gres and --gpus, and where the number depends on the node.
    """
    kinds = dict[str, int]()
    for key, value in (*given.items(), *given.get("slurm_additional_parameters", {}).items()):
        option = key.removeprefix("slurm_").replace("_", "-")
        if not GPU_OPTION.fullmatch(option):
            continue
        if "-per-s" in option or type(value) not in (int, str):
            raise InputError(
                f"{key}={value!r} does not say how many GPUs a task gets; write gpus_per_node = 1, or as many as it needs"
            )
        prefix, text = "gpu:" if "gpus" in option else "", str(value)
        for word in (text.replace("=", ":") if option.startswith("tres") else text).split(","):
            if not prefix and OTHER_WORD.fullmatch(word):
                continue
            kind, count = _parse_gpus(prefix + word, f"{key}={value!r}")
            if kinds.setdefault(kind, count) != count:
                raise InputError(f"{key}={value!r} and another key ask for {kinds[kind]} and {count} GPUs; give the number once")
    if "" in kinds and len(kinds) > 1:
        raise InputError(f"Slurm refuses to give GPUs with a kind ({max(kinds)}) and without one; ask for them once")
    return kinds


def _parse_gpus(word: str, where: str) -> tuple[str, int]:
    """Return the kind and number of GPUs in a word of --gres."""
    match = GPU_WORD.fullmatch(word)
    if not match:
        raise InputError(
            f"{where}: {word!r} is none of Slurm's gpu, gpu:COUNT, gpu:KIND and gpu:KIND:COUNT (a kind that begins with a digit "
            "needs its count)"
        )
    number = match["count"] or match["number"] or "1"
    count = int(number) if number.isdigit() else int(number[:-1]) * 1024 ** (1 + "kmgtp".index(number[-1].lower()))
    return match["kind"] or match["its"] or "", count if match["name"].lower() == "gpu" else min(count, 1)


def price_target(profile: Profile) -> cost.Target:
    """Return the kind of device of a profile, and how many jobs run at a time, for the prices."""
    ranks = profile.compute.ranks
    options: dict[str, Any] = {
        "ranks": ranks,
        "grid_devices": ranks if profile.cluster == "local" else min(ranks, profile.task_width("finetune")),
        "decode": profile.compute.decode,
        "watch_on": profile.compute.watch_on,
    }
    if profile.cluster == "local":
        machine = cost.this_machine(profile.compute.per_gpu)
        return replace(machine, name=profile.name, jobs_at_once=max(1, machine.jobs_at_once // ranks), **options)
    stage = profile.stages["pretrain"]
    constraint = stage.get("slurm_additional_parameters", {}).get("constraint", stage.get("slurm_constraint", ""))
    atonce = int(stage.get("slurm_array_parallelism", 256)) * profile.task_width("pretrain")
    if not profile.gpus("pretrain"):
        return cost.Target(profile.name, "cpu", atonce, guessed_speed=profile.pack.images_per_second, **options)
    kind = cost.gpu_kind(" ".join((str(constraint), *gpu_kinds(stage))))
    share, speed = profile.compute.per_gpu, profile.pack.images_per_second
    return cost.Target(profile.name, kind, atonce, share, speed, **options)


def read_profile(path: Path) -> Profile:
    """Return the profile in a file. Raise InputError for an unknown key, with the nearest known one, and for a wrong value."""
    if not path.exists():
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], 1)
        raise InputError(f"{path}: no such profile" + (f"; did you mean {path.with_name(near[0])}?" if near else ""))
    try:
        return parse_profile(path.stem, tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InputError) as e:
        raise InputError(f"{path}: {e}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e


def parse_profile(name: str, values: Mapping[str, Any]) -> Profile:
    """Return the profile with these values. Keys above the first section apply to every stage."""
    sections = {key: value for key, value in values.items() if isinstance(value, dict) and key != "slurm_additional_parameters"}
    every = {key: value for key, value in values.items() if key not in sections and key != "cluster"}
    _check_keys(sections, (*SECTIONS, "how", "pack"), "section")
    for key in every:
        if key in (*SECTIONS, "how", "pack"):
            raise InputError(f"{key}={every[key]!r} is not a section; write [{key}] and its keys below")
    cluster = values.get("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise InputError(f"cluster={cluster!r} is not one of slurm, local")
    stages = {stage: {**every, **sections.get(stage, {})} for stage in SECTIONS}
    for key, value in (item for stage in stages.values() for item in stage.items()):
        if cluster == "local":
            raise InputError(f"{key!r} has no effect on local processes; a local profile has only [how] and [pack]")
        _check_value(key, value)
    for given in stages.values():
        gpu_kinds(given)
    compute, pack = sections.get("how", {}), sections.get("pack", {})
    _check_keys(compute, [f.name for f in fields(ComputeOptions)], "key of [how]")
    _check_keys(pack, [f.name for f in fields(Pack)], "key of [pack]")
    for key, value in pack.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise InputError(f"{key}={value!r} is out of range: must be more than 0")
    profile = Profile(name, cluster, stages, ComputeOptions(**compute), Pack(**pack), values)
    if cluster == "slurm":
        _check_ranks(profile)
    return profile


def _check_ranks(profile: Profile) -> None:
    """Raise InputError if the tasks of a pre-training cannot have equal parts of its ranks, with a GPU or core for each."""
    ranks, given = profile.compute.ranks, profile.stages["pretrain"]
    for stage in SECTIONS[1:]:
        if profile.tasks(stage) > 1:
            raise InputError(f"a job of [{stage}] is one task; write nodes and tasks_per_node below [pretrain]")
    tasks = profile.tasks("pretrain")
    if ranks % tasks:
        raise InputError(f"ranks={ranks} cannot be shared by {tasks} tasks (nodes x tasks_per_node); make it a multiple")
    gpus, key = profile.gpus("pretrain"), "gpus_per_node"
    if not gpus:
        gpus, key = int(given.get("cpus_per_task", 1)) * int(given.get("tasks_per_node", 1)), "cpus_per_task x tasks_per_node"
    nodes = int(given.get("nodes", 1))
    if ranks > gpus * nodes:
        raise InputError(f"ranks={ranks} is more than the {gpus * nodes} that nodes={nodes} and {key}={gpus} give; ask for more")


@cache
def list_submitit_keys() -> dict[str, type | tuple[type, ...] | None]:
    """Return every key that submitit accepts for Slurm, with the type of its value if submitit checks it."""
    from submitit import AutoExecutor, SlurmExecutor

    shared = {key: (int, float) if kind is float else kind for key, kind in AutoExecutor._typed_parameters().items()}
    own = {f"slurm_{key}": shared.get(key) for key in SlurmExecutor._valid_parameters()}
    built = {"slurm_max_num_timeout": int, "slurm_python": str}  # parameters of its constructor
    lists = {"slurm_setup": list, "slurm_teardown": list, "slurm_srun_args": list, "slurm_additional_parameters": dict}
    return {**shared, **own, **built, **lists, "slurm_gpus_per_node": None}  # sbatch takes "a100:1" for it, too


def _check_value(key: str, value: Any) -> None:
    """Raise InputError if submitit does not know a key, if simclic sets it, or if its value has the wrong type."""
    known = [name for name in list_submitit_keys() if name not in OURS]
    _check_keys({key: value}, known, "key that a profile may set" if key in OURS else "key of submitit")
    kind = int if key in LEAST else list_submitit_keys()[key]
    if kind and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InputError(f"{key}={value!r} is not {KINDS.get(kind, 'a number')}")
    if key in LEAST and value < LEAST[key]:
        raise InputError(f"{key}={value!r} is out of range: {LEAST[key]} or more")
    if key == "slurm_additional_parameters" and (names := OUR_FLAGS & {name.replace("_", "-") for name in value}):
        raise InputError(f"{key}: {min(names)!r} is set by simclic; remove it")
    if key == "slurm_setup" and any(str(line).startswith("#SBATCH") for line in value):
        raise InputError(f"{key}: sbatch would read '#SBATCH ...' too; write its option into slurm_additional_parameters")


def _check_keys(values: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise InputError for an unknown key, with the nearest known one."""
    for key in (key for key in values if key not in known):
        plain = key.removeprefix("slurm_")
        near = [plain] if plain in known else get_close_matches(key, known, 1, cutoff=0.5)
        way = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
        raise InputError(f"{key!r} is not a {what}; {way}")
