"""Checks of this machine and of the nodes of a cluster, before work is submitted."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from simclic import data, files, slurm
from simclic.errors import InputError
from simclic.experiment import DEFAULT_COMPUTE, count_cores
from simclic.schedule.ask_nodes import ask_nodes
from simclic.schedule.local_ranks import check_ranks, try_all_reduce
from simclic.schedule.processes import start_server
from simclic.schedule.profile import SECTIONS, Profile
from simclic.schedule.records import launches_folder
from simclic.schedule.task_ranks import reduce_over_tasks
from simclic.text import format_bytes


@dataclass(frozen=True)
class Finding:
    """The result of one check. passed: None if it is unknown or only a warning. way: what to do about a problem."""

    what: str
    passed: bool | None
    text: str
    way: str = ""


def check_machine(
    runs: Path, root: Path, datasets: Iterable[str], gpus: int = 0, ranks: int = 1, tasks: int = 1
) -> list[Finding]:
    """Check that a process here can import torch, see GPUs, write runs and find data. gpus: the least number of GPUs. ranks: of
    a pre-training; they have to reach each other. tasks: of a Slurm job, which have equal parts of them."""
    findings = [Finding("Python", True, f"{platform.python_version()} on {platform.node()}, {count_cores()} CPU cores")]
    try:
        import torch
        import torchvision

        findings.append(Finding("torch", True, f"{torch.__version__}, torchvision {torchvision.__version__}"))
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        text = f"{len(names)} x {', '.join(dict.fromkeys(names))}" if names else "none; all work runs on the CPU"
        way = "ask for GPUs with gpus_per_node or slurm_gres" if not gpus else "does this torch fit the driver?"
        findings.append(Finding("GPU", len(names) >= gpus, text, way))
    except (ImportError, OSError) as e:
        findings.append(Finding("torch", False, f"cannot be imported: {e}", "pip install -c constraints.txt -e ."))
    if ranks > 1:
        findings.append(_check_task_ranks(runs, ranks, tasks) if tasks > 1 else _check_ranks(ranks))
    try:
        files.check_writable(runs, "--runs")
        free = format_bytes(shutil.disk_usage(runs).free)
        findings.append(Finding("runs", True, f"{runs.absolute()} can be written, {free} free"))
    except InputError as e:
        findings.append(Finding("runs", False, str(e)))
    for name in dict.fromkeys(datasets):
        problem = data.explain_missing(name, root)
        findings.append(Finding(f"data {name}", not problem, problem or "is there"))
    return findings


def _check_ranks(ranks: int) -> Finding:
    context, devices, _ = start_server(DEFAULT_COMPUTE)
    try:
        check_ranks(ranks, devices)
        problem = try_all_reduce(context, devices[:ranks])
    except InputError as e:
        problem = str(e)
    return Finding("ranks", not problem, problem or f"{ranks} reached each other on {', '.join(dict.fromkeys(devices[:ranks]))}")


def _check_task_ranks(runs: Path, ranks: int, tasks: int) -> Finding:
    try:
        problem = _reduce_over_tasks(runs, ranks, tasks)
    except InputError as e:
        problem = str(e)
    return Finding("ranks", not problem, problem or f"{ranks} of {tasks} tasks reached each other")


def _reduce_over_tasks(runs: Path, ranks: int, tasks: int) -> str:
    return reduce_over_tasks(launches_folder(runs) / f"reduce-{slurm.current_job()}.json", ranks, tasks)


def check_cluster(
    profile: Profile, runs: Path, root: Path, datasets: list[str], wait: float, say: Callable[[str], None]
) -> list[Finding]:
    """Check Slurm and its nodes with a profile: one small job for each kind of task, submitted exactly like the real ones.

    wait: seconds to wait for these jobs; a job without an answer is cancelled and is a finding.
    """
    try:
        settings = slurm.read_settings()
    except slurm.NoAnswer as e:
        return [Finding("Slurm", False, str(e), "run doctor on a machine that has sbatch")]
    findings = [
        Finding("Slurm", True, f"{settings.get('SLURM_VERSION', '?')}, arrays of up to {settings.get('MaxArraySize', '?')}")
    ]
    if settings.get("JobRequeue") == "0":
        findings.append(Finding("requeue", None, "JobRequeue=0: off by default; simclic turns it on for each job"))
    mode = settings.get("PreemptMode", "")
    if "CANCEL" in mode:
        way = "submit again after a preemption; finished work and checkpoints are kept"
        findings.append(
            Finding("preemption", None, f"PreemptMode={mode}: Slurm cancels a preempted task and does not requeue it", way)
        )
    try:
        slurm.read_history({"1"})
        findings.append(Finding("accounting", True, "sacct answers"))
    except slurm.NoAnswer as e:
        findings.append(Finding("accounting", None, f"{e}; why a job ended is known only if the job itself recorded it"))
    if leaks := sorted(k for k in os.environ if k.startswith("SBATCH_")):
        findings.append(Finding("environment", None, f"{', '.join(leaks)} would override the profile; simclic removes them"))
    kinds: dict[str, list[str]] = {}
    for stage in SECTIONS:
        kinds.setdefault(json.dumps(profile.stages[stage], sort_keys=True, default=str), []).append(stage)
    titles = {stages[0]: ", ".join(stages) if len(kinds) > 1 else "every stage" for stages in kinds.values()}
    tasks = profile.tasks("pretrain")
    ranks = {"pretrain": (profile.compute.ranks, tasks)}
    beside = {"pretrain": partial(_reduce_over_tasks, runs.absolute(), *ranks["pretrain"])} if tasks > 1 else {}
    place = runs.absolute(), root.absolute(), datasets
    questions = {s: partial(_machine_json, *place, profile.gpus(s), *ranks.get(s, (1, 1))) for s in titles}
    for stage, answer in ask_nodes(profile, runs, "doctor", questions, wait, say, beside).items():
        findings += [
            replace(f, what=f"{titles[stage]}: {f.what}") for f in (Finding(**f) for f in answer.content.get("findings", ()))
        ]
        if answer.problem:
            text = f"{answer.problem}: {answer.queued}" if answer.queued else answer.problem
            findings.append(Finding(titles[stage], False if answer.final else None, text, answer.way))
    return findings


def _machine_json(runs: Path, root: Path, datasets: list[str], gpus: int, ranks: int, tasks: int) -> dict[str, Any]:
    return {"findings": [vars(finding) for finding in check_machine(runs, root, datasets, gpus, ranks, tasks)]}
