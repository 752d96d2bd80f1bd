"""What works here and on the nodes of a cluster, and what does not, before anything is queued there."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simclic import data, files, slurm
from simclic.errors import InputError
from simclic.experiment import cores
from simclic.schedule import records, snapshot
from simclic.schedule.profile import STAGES, Profile
from simclic.schedule.submit import asking, executor_for
from simclic.text import format_bytes


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. well: None if it could not be told. way: out of what is wrong."""

    what: str
    well: bool | None
    told: str
    way: str = ""


def machine(runs: Path, root: Path, datasets: Iterable[str], gpus: int = 0) -> list[Finding]:
    """What a process here can do: import torch, see GPUs, write runs, find data. gpus: how many there have to be."""
    found = [Finding("Python", True, f"{platform.python_version()} on {platform.node()}, {cores()} cores for a process")]
    try:
        import torch
        import torchvision

        found.append(Finding("torch", True, f"{torch.__version__}, torchvision {torchvision.__version__}"))
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        told = ", ".join(dict.fromkeys(names)) or "none; everything is computed on the CPU"
        way = "ask for it with gpus_per_node or slurm_gres" if not gpus else "does this torch fit the driver?"
        found.append(Finding("GPU", len(names) >= gpus, f"{len(names)} x {told}" if names else told, way))
    except (ImportError, OSError) as e:
        found.append(Finding("torch", False, f"does not start: {e}", "pip install -c constraints.txt -e ."))
    try:
        files.writable(runs, "--runs")
        found.append(
            Finding("runs", True, f"{runs.absolute()} can be written, {format_bytes(shutil.disk_usage(runs).free)} free")
        )
    except InputError as e:
        found.append(Finding("runs", False, str(e)))
    for name in dict.fromkeys(datasets):
        problem = data.missing(name, root)
        found.append(Finding(f"data {name}", not problem, problem or "is there"))
    return found


def cluster(
    profile: Profile, runs: Path, root: Path, datasets: list[str], wait: float, say: Callable[[str], None]
) -> list[Finding]:
    """What Slurm and its nodes say to a profile: one small job for each kind of task, submitted exactly as the real ones.

    wait: seconds for these to start; what has not started then is cancelled and told.
    """
    try:
        settings = slurm.settings()
    except slurm.Silent as e:
        return [Finding("Slurm", False, str(e), "doctor runs where sbatch does")]
    found = [Finding("Slurm", True, f"{settings.get('SLURM_VERSION', '?')}, arrays of up to {settings.get('MaxArraySize', '?')}")]
    if settings.get("JobRequeue") == "0":
        found.append(Finding("requeue", None, "JobRequeue=0: off by default; simclic asks for it job by job"))
    try:
        slurm.history({"1"})
        found.append(Finding("accounting", True, "sacct answers"))
    except slurm.Silent as e:
        found.append(Finding("accounting", None, f"{e}; why a job left the queue is then known only if it says so itself"))
    leaks = sorted(k for k in os.environ if k.startswith("SBATCH_"))
    if leaks:
        found.append(Finding("environment", None, f"{', '.join(leaks)} would override the profile: left out"))
    folder = records.question_folder(runs, "doctor")
    try:
        asked = (runs.absolute(), root.absolute(), datasets)
        return found + _nodes(profile, folder, snapshot.take(folder.parent), asked, wait, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _nodes(
    profile: Profile, folder: Path, code: Path, asked: tuple[Path, Path, list[str]], wait: float, say: Callable[[str], None]
) -> list[Finding]:
    """One probe for each kind of task."""
    kinds: dict[str, list[str]] = {}
    for stage in STAGES:
        kinds.setdefault(json.dumps(profile.stages[stage], sort_keys=True, default=str), []).append(stage)
    found, sent = [], dict[str, tuple[str, Path]]()
    runs, root, datasets = asked
    for stages in kinds.values():
        title = ", ".join(stages) if len(kinds) > 1 else "every stage"
        gpus = profile.gpus(stages[0])
        answer = folder / f"{stages[0]}.json"
        try:
            with asking():
                executor = executor_for(profile, stages[0], folder / stages[0], "simclic-doctor", code)
                job = executor.submit(probe, str(answer), str(code), os.getcwd(), str(runs), str(root), datasets, gpus)
            sent[title] = (job.job_id, answer)
        except InputError as e:
            found.append(Finding(title, False, str(e), "mend the profile"))
    ends = time.monotonic() + wait
    while sent and time.monotonic() < ends:
        queue = slurm.queue()
        for title, (number, answer) in list(sent.items()):
            if answer.exists():
                found += [Finding(f"{title}: {f['what']}", f["well"], f["told"], f["way"]) for f in _answered(answer)]
                del sent[title]
            elif number not in queue and not appears(answer):
                said = _last(folder, number)
                found.append(
                    Finding(title, False, f"job {number} ended without an answer{said}", "does the node see this folder?")
                )
                del sent[title]
        if sent:
            say(", ".join(f"job {number} {queue[number].state.lower()}" for number, _ in sent.values() if number in queue))
            time.sleep(1)
    if sent:
        queue = slurm.queue()
        for title, (number, _) in sent.items():
            job = queue.get(number, slurm.Job(number, "gone"))
            never = job.reason.startswith("Partition") or job.reason in ("BadConstraints", "InvalidAccount", "InvalidQOS")
            told = f"job {number} has not answered in {wait:.0f} s: {job.state} {job.reason}"
            found.append(Finding(title, False if never else None, told, "--wait SECONDS"))
        slurm.cancel({number for number, _ in sent.values()})
    return found


def probe(answer: str, code: str, cwd: str, runs: str, root: str, datasets: list[str], gpus: int) -> None:
    """On a node: look at everything and write it down where the one who asked can read it."""
    found: list[dict[str, Any]] = []
    try:
        snapshot.running(Path(code))
        os.chdir(cwd)
        found = [vars(f) for f in machine(Path(runs), Path(root), datasets, gpus)]
    except (InputError, OSError) as e:
        found = [vars(Finding("node", False, str(e)))]
    files.write_json(Path(answer), {"found": found})


def _answered(path: Path) -> list[dict[str, Any]]:
    return list((files.read_json(path) or {})["found"])


def appears(path: Path) -> bool:
    """Does a file show up in the seconds that a shared file system may take?"""
    for _ in range(20):
        if path.exists():
            return True
        time.sleep(0.25)
    return False


def _last(folder: Path, number: str) -> str:
    """The last line of a probe's log."""
    for path in folder.glob(f"*/{number}_0_log.err"):
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f": {lines[-1]}"
    return ""
