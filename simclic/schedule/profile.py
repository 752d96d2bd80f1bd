"""A kind of machine, read from slurm/*.toml: submitit's own keys unchanged, for every stage or for one."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from simclic.errors import InputError
from simclic.experiment import How
from simclic.schedule import cost

STAGES = ("pretrain", "linear", "finetune")

# What is ours to say: one process per job, where it writes, what it waits for, and the signal that stops it.
OURS = {
    "name", "slurm_time", "nodes", "tasks_per_node", "slurm_dependency", "slurm_job_name", "slurm_use_srun",
    "slurm_ntasks_per_node",
}  # fmt: skip
OUR_FLAGS = {"array", "dependency", "chdir", "output", "error", "open-mode", "job-name", "requeue", "time"}  # of sbatch, likewise
GPU_KEYS = ("gpus_per_node", "slurm_gpus_per_node", "slurm_gpus_per_task", "slurm_num_gpus")
KINDS: dict[Any, str] = {int: "a whole number", str: "a string", bool: "true or false", list: "a list", dict: "a table"}
LEAST = {
    "timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0, "slurm_gpus_per_node": 0, "slurm_gpus_per_task": 0,
    "slurm_num_gpus": 0, "slurm_array_parallelism": 1, "slurm_max_num_timeout": 0, "slurm_signal_delay_s": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Pack:
    """How jobs become tasks. least_min: a task is filled with short jobs until it takes so many minutes, within the profile's
    time. images_per_second: a guess of what one device trains of ResNet-50 at 224 pixels, until finished runs or a calibration
    tell better; 0 for the guess of its kind in simclic.cost."""

    least_min: float = 10.0
    images_per_second: float = 0.0


@dataclass(frozen=True)
class Profile:
    """Where jobs run. cluster: "slurm" or "local". stages: submitit's parameters of each stage."""

    name: str
    cluster: str
    stages: Mapping[str, Mapping[str, Any]]
    how: How
    pack: Pack
    words: Mapping[str, Any]  # as they stand in the file

    def minutes(self, stage: str) -> float:
        """How long a task of a stage may take until it is stopped and put back into the queue."""
        return float(self.stages[stage].get("timeout_min", 5))

    def width(self, stage: str) -> int:
        """How many jobs a task does at a time: one per process on a GPU, or one per core."""
        return self.gpus(stage) * self.how.per_gpu or int(self.stages[stage].get("cpus_per_task", 1))

    def gpus(self, stage: str) -> int:
        """How many GPUs a task asks for, in whichever of Slurm's ways."""
        given = self.stages[stage]
        generic = re.findall(r"gpu(?::[A-Za-z][^:,]*)?(?::(\d+))?", str(given.get("slurm_gres", "")))
        return max([int(given.get(key) or 0) for key in GPU_KEYS] + [int(count or 1) for count in generic])


def target(profile: Profile) -> cost.Target:
    """What prices are asked for: the kind of device that the profile asks for, and how many jobs run at a time."""
    if profile.cluster == "local":
        return replace(cost.this_machine(profile.how.per_gpu), name=profile.name)
    words = " ".join(str(profile.words.get(k, "")) for k in ("slurm_constraint", "slurm_gres", "slurm_gpus_per_node")).lower()
    stage = profile.stages["pretrain"]
    atonce = int(stage.get("slurm_array_parallelism", 256)) * profile.width("pretrain")
    if not profile.gpus("pretrain"):
        return cost.Target(profile.name, "cpu", atonce, guessed_speed=profile.pack.images_per_second)
    return cost.Target(profile.name, cost.gpu_kind(words), atonce, profile.how.per_gpu, profile.pack.images_per_second)


def read(path: Path) -> Profile:
    """The profile in a file. Raises InputError for a key that nobody knows, naming the nearest, and for a wrong value."""
    if not path.exists():
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], 1)
        raise InputError(f"{path}: no such profile" + (f"; did you mean {path.with_name(near[0])}?" if near else ""))
    try:
        return parse(path.stem, tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InputError) as e:
        raise InputError(f"{path}: {e}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e


def parse(name: str, values: Mapping[str, Any]) -> Profile:
    """The profile that a file's values make: keys above the first section hold for every stage."""
    sections = {key: value for key, value in values.items() if isinstance(value, dict) and key != "slurm_additional_parameters"}
    every = {key: value for key, value in values.items() if key not in sections and key != "cluster"}
    _check_keys(sections, (*STAGES, "how", "pack"), "section")
    for key in every:
        if key in (*STAGES, "how", "pack"):
            raise InputError(f"{key}={every[key]!r} is no section; write [{key}] and its keys below")
    cluster = values.get("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise InputError(f"cluster={cluster!r} is not one of slurm, local")
    stages = {stage: {**every, **sections.get(stage, {})} for stage in STAGES}
    for key, value in (item for stage in stages.values() for item in stage.items()):
        if cluster == "local":
            raise InputError(f"{key!r} says nothing about local processes; a local profile has how and pack alone")
        _check(key, value)
    how, pack = sections.get("how", {}), sections.get("pack", {})
    _check_keys(how, [f.name for f in fields(How)], "key of [how]")
    _check_keys(pack, [f.name for f in fields(Pack)], "key of [pack]")
    for key, value in pack.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise InputError(f"{key}={value!r} is out of range: more than 0")
    return Profile(name, cluster, stages, How(**how), Pack(**pack), values)


@cache
def keys() -> dict[str, type | tuple[type, ...] | None]:
    """Every key that submitit takes for Slurm, and the kind of its value where submitit says it."""
    from submitit import AutoExecutor, SlurmExecutor

    shared = {key: (int, float) if kind is float else kind for key, kind in AutoExecutor._typed_parameters().items()}
    own = {f"slurm_{key}": shared.get(key) for key in SlurmExecutor._valid_parameters()}
    built = {"slurm_max_num_timeout": int, "slurm_python": str}  # what its executor takes when it is made
    lists = {"slurm_setup": list, "slurm_teardown": list, "slurm_srun_args": list, "slurm_additional_parameters": dict}
    return {**shared, **own, **built, **lists}


def _check(key: str, value: Any) -> None:
    """Raise InputError if submitit does not know a key, if it is ours to say, or if its value is of another kind."""
    known = [name for name in keys() if name not in OURS]
    _check_keys({key: value}, known, "key for a profile to say" if key in OURS else "key of submitit's")
    kind = int if key in LEAST else keys()[key]
    if kind and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InputError(f"{key}={value!r} is not {KINDS.get(kind, 'a number')}")
    if key in LEAST and value < LEAST[key]:
        raise InputError(f"{key}={value!r} is out of range: {LEAST[key]} or more")
    if key == "slurm_additional_parameters" and (names := OUR_FLAGS & value.keys()):
        raise InputError(f"{key}: {min(names)!r} is for simclic to say")


def _check_keys(values: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise InputError for a key that is not known, naming the nearest that is."""
    for key in (key for key in values if key not in known):
        near = get_close_matches(key, known, 1, cutoff=0.5)
        way = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise InputError(f"{key!r} is no {what}; {way}")
