"""Measuring a machine: on as many processes as run at a time, since they slow each other down; here, or through Slurm."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from shutil import rmtree
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from simclic import files, slurm
from simclic.errors import Diverged, InputError
from simclic.experiment import USUAL, How
from simclic.progress import Tell
from simclic.schedule import records, snapshot
from simclic.schedule.doctor import appears
from simclic.schedule.measure import Wanted, measure
from simclic.schedule.processes import server
from simclic.schedule.profile import Profile
from simclic.schedule.submit import asking, executor_for

Measured = tuple[list[dict[str, Any]], dict[str, Any]]  # rates, and where they are from


def locally(those: Sequence[Wanted], tell: Tell, how: How = USUAL) -> Measured:
    """Measure on this machine. Raises InputError if a process fails."""
    asked = time.time()
    context, devices, threads = server(how)
    begun, shares, found = time.time(), dict.fromkeys(range(len(devices)), 0.0), list[tuple[list[dict[str, Any]], float, str]]()
    pipes, processes, folder = {}, [], TemporaryDirectory()  # ours, since children may be killed
    for i, device in enumerate(devices):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(theirs, those, device, threads, Path(folder.name) / str(i)), daemon=True)
        process.start()
        theirs.close()
        pipes[mine] = i
        processes.append(process)
    try:
        while pipes:
            for pipe in wait(list(pipes), timeout=0.2):
                assert isinstance(pipe, Connection)
                try:
                    kind, content = pipe.recv()
                except EOFError:
                    kind, content = "failed", "a process ended without a word; is there enough memory?"
                if kind == "failed":
                    raise InputError(f"calibration: {content}")
                if kind == "share":
                    shares[pipes[pipe]] = content[0]
                    tell(mean(shares.values()), content[1])
                else:
                    found.append((content[0], content[1] - begun, content[2]))
                    del pipes[pipe]
    finally:
        for process in processes:
            if pipes:
                process.kill()
            process.join()
        folder.cleanup()
    return _together([rates for rates, _, _ in found], mean(start for _, start, _ in found)), {
        "device": found[0][2], "processes": len(devices), "threads": threads, "begin": begun - asked,
    }  # fmt: skip


def _together(every: list[list[dict[str, Any]]], start: float) -> list[dict[str, Any]]:
    """The mean over processes; a process's start is that of each kind."""
    made = []
    for same in zip(*every, strict=True):
        seconds = {name: mean(rate["seconds"][name] for rate in same) for name in same[0]["seconds"]}
        made.append({**same[0], "seconds": {**seconds, "start": start}})
    return made


def _child(pipe: Connection, those: Sequence[Wanted], device: str, threads: int, folder: Path) -> None:
    """In the child: measure, and say what came of it."""
    import torch
    from threadpoolctl import threadpool_limits

    from simclic import data
    from simclic.train.pretrain import described

    torch.set_num_threads(threads)
    threadpool_limits(threads)
    try:
        data.load("digits", "ericsson", Path())
        begun = time.time()
        rates = measure(those, device, folder, lambda share, note: pipe.send(("share", (share, note))))
        pipe.send(("done", (rates, begun, described(torch.device(device))["device"])))
    except BrokenPipeError:
        sys.exit(1)
    except (InputError, Diverged, OSError) as e:
        pipe.send(("failed", str(e)))
    except torch.OutOfMemoryError:
        pipe.send(("failed", f"{device} has not enough memory"))
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


def through(profile: Profile, those: Sequence[Wanted], runs: Path, seconds: float, say: Callable[[str], None]) -> Measured:
    """Measure on a node that a profile gets, in one small job. Raises InputError if it does not answer within `seconds`."""
    folder = records.question_folder(runs, "calibrate")
    answer, ends, code = folder / "answer.json", time.monotonic() + seconds, snapshot.take(folder.parent)
    kept = False  # what a job that ended without an answer has said
    with asking():
        executor = executor_for(profile, "pretrain", folder, "simclic-calibrate", code)
        job = executor.submit(there, str(answer), str(code), list(those), profile.how)
    try:
        while not answer.exists():
            if time.monotonic() > ends:
                raise InputError(f"job {job.job_id} has not answered in {seconds:.0f} s; give it more with --wait SECONDS")
            queued = slurm.queue().get(job.job_id)
            if queued is None and not appears(answer):
                kept = True
                raise InputError(f"job {job.job_id} ended without an answer; see {folder}")
            say(f"job {job.job_id} {queued.state.lower() if queued else 'has ended'}")
            time.sleep(1)
        found = files.read_json(answer) or {}
    finally:
        if not answer.exists() and not kept:
            with suppress(slurm.Silent):
                slurm.cancel({job.job_id})
        if not kept:
            rmtree(folder, ignore_errors=True)
    if problem := found.get("problem"):
        raise InputError(f"job {job.job_id}: {problem}")
    return found["rates"], {**found["where"], "job": job.job_id}


def there(answer: str, code: str, those: Sequence[Wanted], how: How) -> None:
    """On a node: measure, and write it down where the one who asked can read it."""
    try:
        snapshot.running(Path(code))
        rates, where = locally(those, lambda share, note: print(f"{share:.0%} {note}", flush=True), how)
        files.write_json(Path(answer), {"rates": rates, "where": {**where, "node": os.uname().nodename}})
    except (InputError, OSError) as e:
        files.write_json(Path(answer), {"problem": str(e)})
