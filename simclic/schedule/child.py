"""The child process that does the work of one Run and reports the outcome."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

from simclic import stop
from simclic.errors import Diverged, InputError, RankLost
from simclic.experiment import Job, Run
from simclic.files import DISK_FULL
from simclic.schedule.one_result import Waits, help_finetune
from simclic.schedule.work import WorkerOptions, open_stage, run_jobs, train_rank
from simclic.store.claim import Busy
from simclic.store.run_files import DIVERGED


def run_child(pipe: Connection, jobs: Sequence[Job], options: WorkerOptions, prices: Mapping[Job, float]) -> None:
    """Run the jobs of one Run and send the outcome: a line for a user's mistake, a traceback for a programming error."""
    _prepare_process(options)
    from simclic.train.numerics import is_out_of_memory

    def start_ranks(port: int) -> None:
        pipe.send(("ranks", port))

    def start_helpers(port: int, job: Job) -> None:
        pipe.send(("helpers", (port, job)))

    options = replace(options, start_ranks=start_ranks, start_helpers=start_helpers)

    def tell(share: float, note: str) -> None:
        pipe.send(("share", (share, note)))

    try:
        pipe.send(("done", run_jobs(jobs, options, tell, prices)))
    except stop.Stopped:
        pipe.send(("saved", ""))
    except (Busy, Waits) as e:
        pipe.send(("busy" if isinstance(e, Busy) else "waits", str(e)))
    except InputError as e:
        pipe.send(("failed", str(e)))
    except Diverged as e:
        pipe.send(("failed", f"{DIVERGED} {e}"))
    except RankLost as e:
        pipe.send(("stopped", str(e)))
        os._exit(1)  # what a GPU waits for from the lost rank never comes
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone
    except OSError as e:
        way = "; free some, or choose another place with --runs DIR" if e.errno in DISK_FULL else ""
        pipe.send(("stopped", f"{e.filename or options.runs}: {e.strerror}{way}"))
    except Exception as e:
        if is_out_of_memory(e):
            pipe.send(("stopped", _explain_memory(options.device, open_stage(jobs, options.runs), jobs[0].run)))
            return
        pipe.send(("crashed", traceback.format_exc()))
        sys.exit(1)


def run_rank(work: Run | Job, options: WorkerOptions, place: tuple[int, str, int]) -> None:
    """Compute a part of a pre-training, or of the grid of a job, that rank 0 leads. place: as for `train_rank`."""
    _prepare_process(options)
    try:
        if isinstance(work, Run):
            train_rank(work, options, place)
        else:
            help_finetune(work, options, place)
    except stop.Stopped:
        if not isinstance(work, Run):  # of a pre-training, the first rank has saved
            sys.exit(stop.CODE)
    except (InputError, Diverged, RankLost):
        sys.exit(1)


def _prepare_process(options: WorkerOptions) -> None:
    """Prepare this process for its work: its signals, its folder, its threads."""
    stop.handle_signals()  # the claims are released on the way out
    leave_with_parent()
    os.chdir(options.folder)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    torch.use_deterministic_algorithms(options.compute.deterministic)


def _explain_memory(device: str, stage: str, run: Run) -> str:
    what = f"batches of {run.batch_size} at {run.image_size} pixels" if stage == "pretrain" else f"the stage {stage!r}"
    return f"{device} has not enough memory for {what}; use a larger one, or fewer processes on it"


def leave_with_parent() -> None:
    """End this process when its parent has ended, so that other processes can take over its claims."""
    parent, server = multiprocessing.parent_process(), os.getppid()  # the server lives as long as any of its children

    def watch() -> None:
        while (parent is None or parent.is_alive()) and os.getppid() == server:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def count_gpus(pipe: Connection) -> None:
    """Send how many GPUs there are, or in a line why torch does not start."""
    answer: int | str
    try:
        import torch

        answer = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except Exception as e:  # any error of a library that cannot be loaded
        answer = (str(e).strip().splitlines() or [type(e).__name__])[0]
    with contextlib.suppress(BrokenPipeError):  # the parent has ended
        pipe.send(answer)
