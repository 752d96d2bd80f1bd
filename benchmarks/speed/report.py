"""What a report costs: `simclic report` of all nine exhibits over 10,000 results, beside reading the same files and no more.

The store is made up, and exact in form and size: every result that the paper's exhibits ask for, on test sets of their real size
and number of classes, with scores whose metric is the recorded error, curves of 45 and 56 rows, and 1,000 rows of log for each
pre-training; the rest are small runs on scikit-learn's digits under other seeds, which no exhibit asks for but every report
reads. `ratio ceiling` is the least that a report that trusts nothing has to do, parsing every result and hashing its
predictions, over the whole report.

--quick leaves out the data sets with the largest predictions, and most of the rest.

    python benchmarks/speed/report.py [--quick]
"""

import hashlib
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import count, islice
from pathlib import Path
from unittest import mock

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from measuring import make_parser, measure_seconds, print_machine
from rich.progress import track

from simclic import Finetune, Linear, Run, load
from simclic.data import FACTS
from simclic.data.metrics import METRICS
from simclic.experiment import PERTURBATIONS, Job
from simclic.files import write_json
from simclic.provenance import collect_provenance
from simclic.store.result_file import SCHEMA
from simclic.store.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
EXHIBITS = sorted(p for kind in ("table", "figure") for p in (ROOT / "benchmarks").glob(f"{kind}[0-9].py"))
SMALL = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "projector_dim": 256, "predictor_dim": 64}
BARE = """
import hashlib, json, sys
from pathlib import Path
for path in Path(sys.argv[1]).glob("*/[lf]*-*.json"):
    values = json.loads(path.read_bytes())
    assert hashlib.sha256(path.with_name(values["predictions"]).read_bytes()).hexdigest() == values["predictions_sha256"]
"""


def main():
    """Build the store, time report and bare pass in turn, print both and the ratios."""
    quick = make_parser(__doc__).parse_args().quick
    results, largest, rounds = (1_000, 1e6, 1) if quick else (10_000, math.inf, 3)
    with tempfile.TemporaryDirectory() as folder:
        runs, out = Path(folder) / "runs", Path(folder) / "out"
        jobs = list_paper_jobs(largest)
        jobs += list(islice(make_other_jobs(), results - len(jobs)))
        build_store(runs, track(jobs, "making results up"))
        size = sum(p.stat().st_size for p in runs.rglob("*") if p.is_file())
        report = [sys.executable, "-m", "simclic", "report", *map(str, EXHIBITS), "--runs", str(runs), "--out", str(out)]
        timed = []
        for _ in range(rounds):
            shutil.rmtree(out, ignore_errors=True)  # else no picture would be drawn again
            timed.append((run_process([sys.executable, "-c", BARE, str(runs)]), run_process(report)))
        written = [p for p in out.rglob("*") if p.is_file()]
        written_text = f"{len(written):,} files, {sum(p.stat().st_size for p in written) / 1e6:,.0f} MB"
    bare, whole = (statistics.median(column) for column in zip(*timed, strict=True))
    print_machine(jinja2, matplotlib, np, pd)
    tuned = [job.protocol for job in jobs if isinstance(job.protocol, Finetune)]
    trainings = sum(len(protocol.settings) + 1 for protocol in tuned)
    encoders = len({job.run for job in jobs})
    print(f"{len(jobs):,} results of {encoders:,} encoders and {trainings:,} fine-tunings, {size / 1e6:,.0f} MB")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{'simclic report':28}{whole:8.2f} s   {written_text}; {peak:,.0f} MB of memory at most")
    print(f"{'  bare pass: its ceiling':28}{bare:8.2f} s")
    print(f"ratio ceiling {bare / whole:.2f}")


def run_process(command):
    """Return the seconds that a fresh process takes."""
    return measure_seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))[0]


def list_paper_jobs(largest=math.inf):
    """Return the jobs of the paper's exhibits, without data sets with more scores than `largest`."""
    jobs = dict.fromkeys(job for path in EXHIBITS for job in load(path).jobs)
    sizes = {name: facts.sizes[2] * facts.classes for name, facts in FACTS.items()}
    return [job for job in jobs if sizes[job.run.dataset] <= largest]


def make_other_jobs():
    """Yield jobs of small runs without end, seed by seed, each under three protocols."""
    protocols = (Linear(), Finetune(steps=48, augment="none", precision="float32"), Linear(solver="as-published"))
    kinds = tuple(PERTURBATIONS)
    for n in count():
        run = Run(**SMALL, epochs=6, seed=n // len(kinds), perturbation=kinds[n % len(kinds)], precision="float32")
        yield from (Job(run, protocol) for protocol in protocols)


def build_store(runs, jobs):
    """Write results of these jobs, and their encoders' records, without waiting for the disk."""
    rng, there = np.random.default_rng(0), set()
    with mock.patch("os.fsync"):
        for run, protocol in ((job.run, job.protocol) for job in jobs):
            digest = hashlib.sha256(run.dataset.encode()).hexdigest()[:16]
            folder = RunFolder(runs, run).create_folder(digest).path
            if run not in there:
                there.add(run)
                write_encoder_files(folder, run, rng)
            where = {"data": digest, "seed": run.seed, "collapsed": "", "device": "cpu", "threads": 1, "node": "n1", "job": ""}
            RunFolder(runs, run).write_result(protocol, make_result(run, protocol, rng), **where)


def write_encoder_files(folder, run, rng):
    """Write log.jsonl with a row per epoch, and pretrain.json; no weights, which no report reads."""
    drawn = rng.random((run.epochs, 5))
    rows = [
        {
            "epoch": epoch, "loss": a - 1, "cos(z, g(z))": b, "spread": c, "rank": 256 * d, "rank_of": 256, "probe": 100 * e,
            "lr": run.lr * (1 - epoch / run.epochs), "images/s": 6594.7,
        }
        for epoch, (a, b, c, d, e) in enumerate(drawn.tolist(), 1)
    ]  # fmt: skip
    if rows:
        (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    record = {"schema": SCHEMA, "epochs": run.epochs, "last": rows[-1] if rows else {}, "collapsed": "", "resumed": []}
    where = {"compiled": "no", "seconds": 12.5, "device": "cpu", "threads": 1, "node": "n1", "job": "", "restarts": 0}
    write_json(folder / "pretrain.json", {**record, **where, **collect_provenance()})


def make_result(run, protocol, rng):
    """Return a record, and labels (n,) or (n, K) and scores (n, K) of a test set of the real size with exactly that error."""
    facts = FACTS[run.dataset]
    sizes = dict(zip(("train", "val", "test"), facts.sizes, strict=True))
    n, k, lost = sizes["test"], facts.classes, rng.uniform(0.05, 0.6)
    truth = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    scores = rng.standard_normal((n, k), dtype=np.float32)
    answer = np.where(rng.random(n) < lost, rng.integers(0, k, n), truth)
    scores[np.arange(n), answer] += 8
    if facts.metric == "11-point mAP":
        truth = (rng.random((n, k)) < 0.04) | (truth[:, None] == np.arange(k))
        truth = truth.astype(np.int64)
    record = {"error": METRICS[facts.metric](truth, scores), "metric": facts.metric}
    sizes["fit"] = sizes["train"] + sizes["val"]
    if isinstance(protocol, Linear):
        work = {"iterations": 20, "objective": 809.5806434940714, "gap": 4.707790578465306e-07, "converged": True}
        curve = [{"l2": l2, "error": 100 * e, **work} for l2, e in zip(protocol.order, rng.random(45).tolist(), strict=True)]
        more = {"unconverged": 0}
    else:
        errors = rng.random(len(protocol.settings)).tolist()
        settings = zip(protocol.settings, errors, strict=True)
        curve = [{"lr": lr, "decay": decay, "error": 100 * e, "diverged": None} for (lr, decay), e in settings]
        more = {"members": 14, "compiled": "no", "resumed": []}
    best = min(curve, key=lambda row: row["error"])
    chosen = {"val_error": best["error"], **{key: best[key] for key in best if key not in ("error", "diverged")}}
    return {**record, **more, "curve": curve, "chosen": chosen, "sizes": sizes, "seconds": 30.5}, truth, scores


if __name__ == "__main__":
    main()
