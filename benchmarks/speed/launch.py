"""What launching costs: short jobs through `simclic submit` against plain submitit, and `simclic status` over 10,000 results.

The same short jobs (an untrained encoder on scikit-learn's digits and its linear probe) go through the same real Slurm twice:
as `simclic submit` puts them there, and as a plain `submitit.AutoExecutor.map_array` of the same function, one array task per
job, without snapshot, records, packing, claims or state. `ratio submitting` is seconds of submission per job, plain / ours;
`ratio done` is seconds from submission until all results are there, plain / ours. Status is timed over 10,000 real result
files of 5,000 encoders, with predictions beside them; `ratio status` is five seconds over what it takes.

Needs a Slurm: eval "$(slurm/testcluster/up)" first.

    python benchmarks/speed/launch.py [--quick]
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import submitit
from measuring import make_parser, print_machine

from simclic import Linear, load, slurm
from simclic.experiment import Job
from simclic.files import write_json
from simclic.schedule.work import WorkerOptions, price_jobs, run_jobs
from simclic.store import results as store
from simclic.store.result_file import SCHEMA
from simclic.store.run_folder import RunFolder

LINEAR = Linear(l2_count=2, tolerance=1e-2)
SIMCLIC = [sys.executable, "-m", "simclic"]
EXHIBIT = '''"""Many short jobs."""
from simclic import Finetune, Linear, Table, grid

TABLE = Table(paper="table2", caption="Short", protocols=(Linear(l2_count=2, tolerance=1e-2){more},), runs=grid(
    dataset="digits", backbone="test_resnet", image_size=16, epochs=0, perturbation="none", seed=tuple(range({count}))))
'''
PROFILE = """
cpus_per_task = 1
timeout_min = 30
slurm_signal_delay_s = 30
[pack]
least_min = 0.5
images_per_second = 10
"""


def main():
    """Measure, print what was measured and the ratios."""
    quick = make_parser(__doc__).parse_args().quick
    try:
        version = slurm.read_settings()["SLURM_VERSION"]
    except slurm.NoAnswer as e:
        sys.exit(f'error: {e}; start one with: eval "$(slurm/testcluster/up)"')
    count, results = (8, 2_000) if quick else (40, 10_000)
    print_machine(submitit)
    print(f"Slurm {version}; {count} short jobs; {results:,} results")
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = through_simclic(Path(folder) / "ours", count), through_submitit(Path(folder) / "plain", count)
        print("seconds              submitting, per job   until all is done, per job")
        for name, (submitting, done) in (("simclic submit", ours), ("plain submitit", plain)):
            print(f"{name:20} {submitting / count:20.3f} {done / count:28.2f}")
        seconds, bare = time_status(Path(folder) / "many", results)
    print(f"status of {results:,} results and their encoders: {seconds:.2f} s; reading those files and no more: {bare:.2f} s")
    print(f"ratio submitting {plain[0] / ours[0]:.2f}")
    print(f"ratio done {plain[1] / ours[1]:.2f}")
    print(f"ratio status {5 * results / 10_000 / seconds:.2f}")


def through_simclic(place, count):
    """Seconds of submission, and until every result is there."""
    place.mkdir()
    (place / "profile.toml").write_text(PROFILE)
    (place / "table2.py").write_text(EXHIBIT.format(count=count, more=""))
    started = time.perf_counter()
    subprocess.run([*SIMCLIC, "submit", "table2.py", "--on", "profile.toml"], cwd=place, check=True, stdout=subprocess.DEVNULL)
    submitted = time.perf_counter() - started
    while slurm.read_queue():
        time.sleep(0.2)
    done = time.perf_counter() - started
    results = store.results(place / "runs")
    assert len(results) == count, f"{len(results)} results of {count}"
    return submitted, done


def one(run, runs):
    """What a task of plain submitit does: the same work."""
    import torch

    torch.set_num_threads(1)
    jobs = [Job(run, LINEAR)]
    run_jobs(jobs, WorkerOptions(runs, runs), lambda share, note: None, price_jobs(jobs, runs))


def through_submitit(place, count):
    """The same, as a user would write it without this project."""
    place.mkdir()
    (place / "table2.py").write_text(EXHIBIT.format(count=count, more=""))
    runs = [job.run for job in load(place / "table2.py").jobs]
    # A fresh process, as ours is: Python and submitit have to be imported there, too.
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import submitit; from pathlib import Path; from launch import one; from simclic import load
runs = [job.run for job in load(Path({str(place / "table2.py")!r})).jobs]
executor = submitit.AutoExecutor(folder={str(place / "logs")!r}, cluster="slurm")
here = {{"chdir": {str(Path(__file__).parent)!r}}}
executor.update_parameters(timeout_min=30, cpus_per_task=1, slurm_additional_parameters=here)
executor.map_array(one, runs, [Path({str(place / "runs")!r})] * len(runs))
"""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True)
    submitted = time.perf_counter() - started
    while slurm.read_queue():
        time.sleep(0.2)
    done = time.perf_counter() - started
    results = store.results(place / "runs")
    assert len(results) == len(runs), f"{len(results)} results of {len(runs)}: see the logs"
    return submitted, done


def time_status(place, count):
    """Seconds of `simclic status` over so many results, and of reading the files alone."""
    place.mkdir()
    (place / "table2.py").write_text(EXHIBIT.format(count=count // 2, more=", Finetune()"))
    runs = place / "runs"
    truth, scores = np.zeros(10, dtype=np.int64), np.zeros((10, 10), dtype=np.float32)
    curve = [{"l2": float(v), "error": 10.0} for v in np.logspace(-6, 5, 45)]
    sizes = {"train": 1, "val": 1, "test": 10, "fit": 2}
    values = {"error": 10.0, "metric": "top-1", "chosen": {"l2": 1.0}, "curve": curve, "sizes": sizes, "seconds": 1.0}
    for job in load(place / "table2.py").jobs:
        folder = RunFolder(runs, job.run).create_folder("d").path
        write_json(folder / "pretrain.json", {"schema": SCHEMA})
        RunFolder(runs, job.run).write_result(job.protocol, (values, truth, scores), data="d", device="cpu", threads=1)
    started = time.perf_counter()
    subprocess.run([*SIMCLIC, "status", "table2.py", "--json"], cwd=place, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    for path in runs.glob("*/*.json"):
        path.read_bytes()
    bare = time.perf_counter() - started
    shutil.rmtree(place)
    return seconds, bare


if __name__ == "__main__":
    main()
