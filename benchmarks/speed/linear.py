"""Seconds of the linear probe's whole path of 45 values of l2: ours, every value proven converged, and what others take.

On the same features in one run:
  as published   the cited baselines' loop (100 iterations, warm-started from weak to strong) in today's scikit-learn: with its
                 tolerance as it is now, and as it was then, for the summed loss
  converged      scikit-learn given as long as it needs to come within 1 % of our objective at every value, warm-started from
                 strong to weak, the kindest order; cut at 20 times our time
  torch          torch.optim.LBFGS, value by value from zero, likewise to within 1 %, likewise cut
scikit-learn gets as many threads as it is fastest with. On a GPU ours and torch's run there, at CIFAR100's size, too. "crowded"
is the first problem once more, ours and the loop as published, while every core also trains a network. Last, the peak memory at
SUN397's size (19,850 x 2,048, 397 classes) in a process of its own; that takes minutes. A ratio is their time divided by ours.

    python benchmarks/speed/linear.py [--quick]
"""

import argparse
import multiprocessing
import os
import platform
import resource
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in `simclic run`; read when torch is imported

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from simclic import Linear, Run, data
from simclic.data.images import Images
from simclic.evaluate.linear import newton
from simclic.evaluate.linear.frozen import extract_features
from simclic.experiment import count_cores
from simclic.train.pretrain import build_untrained

GPU = torch.cuda.is_available()
CUT = 20  # times our time
NEAR = 1.01
PROTOCOL = Linear()


def main():
    """Measure each problem, print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ends within a minute on two cores")
    quick = parser.parse_args().quick
    torch.set_num_threads(count_cores())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    print(f"{torch.cuda.get_device_name() if GPU else platform.machine()}, {count_cores()} cores; {versions}", flush=True)
    problems = {"photographs": (1200, 256, 20)} if quick else {"photographs": (2400, 512, 40), "overlapping": (2400, 512, 40)}
    problems_data = {name: make_features(*size, overlap=3.0 if name == "overlapping" else 1.0) for name, size in problems.items()}
    if not quick:
        problems_data |= {"digits": make_digits_features("test_resnet", 16), "bent": make_digits_features("resnet18", 32)}
    ratios = {}
    for name, (x, y) in problems_data.items():
        ratios |= {f"{peer} {name}": ratio for peer, ratio in compare_solvers(name, x, y, quick).items()}
    ratios["crowded"] = compare_crowded(*next(iter(problems_data.values())))
    if GPU:
        x, y = make_features(5000 if quick else 50_000, 2048, 100)
        torch.cuda.reset_peak_memory_stats()
        ours, fits = timed(lambda: solve_path(x.cuda(), y))
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most"
        print(f"on the GPU, {describe_shape(x, y)}: {describe_fits(ours, fits)}, {peak}")
        ratios["torch cifar100-on-gpu"] = until_near("torch L-BFGS", torch_stepper(x.cuda(), y), fits, ours)
    if not quick:
        measure_memory()
    for name, ratio in ratios.items():
        print(f"ratio {name.replace(' ', '-')} {ratio:.2f}")


def make_features(n, d, classes, overlap=1.0):
    """Features in the shape of a network's on a set of photographs: a spectrum that falls, none below zero. (n, d), (n,)."""
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    hidden = (rng.normal(size=(classes, 64))[y] + overlap * rng.normal(size=(n, 64))) / np.arange(1, 65) ** 0.5
    for width, noise in ((256, 0.3), (d, 0.1)):
        mixed = hidden @ rng.normal(size=(hidden.shape[1], width)) * (3 / hidden.shape[1] ** 0.5)
        hidden = np.maximum(mixed + noise * rng.normal(size=mixed.shape), 0)
    return torch.from_numpy(hidden.astype(np.float32)), y


def make_digits_features(name, size):
    """Features of real images: scikit-learn's digits through an untrained backbone. The larger it is, the more of them are bent
    from few dimensions, and the worse the problem is conditioned."""
    dataset = data.load("digits", "ericsson", Path())
    run, fit = Run(dataset="digits", backbone=name, perturbation="none", epochs=0, image_size=size), dataset.splits.fit
    images = Images(dataset, run.image_size, torch.device("cpu"))
    f, _ = build_untrained(run, images, torch.from_numpy(fit))
    return extract_features(PROTOCOL, f.eval(), images)[fit], dataset.labels[fit]


def compare_solvers(name, x, y, quick):
    """One problem on the CPU: a line for each contender. Returns by how much we are ahead of each."""
    ours, fits = solve_path_median(x, y)
    print(f"{name}, {describe_shape(x, y)}: {describe_fits(ours, fits)}", flush=True)
    threads = fastest_threads(x, y)
    wide, ratios = x.double().numpy(), {}
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for peer, tolerance in (("as-published", 1e-4), ("as-published-then", 1e-4 / len(y))):
            took, (iterations, weakest) = timed(lambda tolerance=tolerance: run_published(wide, y, tolerance))
            print(
                f"  {'scikit-learn, ' + peer:34}{took:9.2f} s  {iterations:6,} iterations, objective at the weakest l2 "
                f"{weakest:.2e} (ours {fits[-1].objective:.2e}), {threads} threads",
                flush=True,
            )
            ratios[peer] = took / ours
        ratios["converged"] = until_near("scikit-learn, converged", sklearn_stepper(wide, y), fits, ours)
    if not quick:
        ratios["torch"] = until_near("torch L-BFGS", torch_stepper(x, y), fits, ours)
    return ratios


def compare_crowded(x, y):
    """Our path and the loop as published, while one process per core trains a network. Returns by how much we are ahead."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    crowd = [context.Process(target=train_forever, args=(theirs,), daemon=True) for _ in range(count_cores())]
    try:
        for process in crowd:
            process.start()
        for _ in crowd:
            mine.recv()  # it trains
        ours, fits = solve_path_median(x, y)
        threads = fastest_threads(x, y)
        with threadpool_limits(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            took, _ = timed(lambda: run_published(x.double().numpy(), y, 1e-4))
    finally:
        for process in crowd:
            process.kill()
    print(f"the first problem beside {len(crowd)} trainings: {describe_fits(ours, fits)}", flush=True)
    print(f"  {'scikit-learn, as-published':34}{took:9.2f} s, {threads} threads", flush=True)
    return took / ours


def train_forever(pipe):
    """Train a small network for ever, as another job on this node would."""
    torch.set_num_threads(1)
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten(), nn.Linear(8192, 10)
    )
    optimizer, x = torch.optim.SGD(network.parameters(), 0.01), torch.randn(64, 3, 16, 16)
    pipe.send(None)
    while True:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def solve_path_median(x, y):
    """The one of three of our paths that took the median time: its seconds, and its fits."""
    return sorted([timed(lambda: solve_path(x, y)) for _ in range(3)], key=lambda run: run[0])[1]


def solve_path(x, y):
    """Our path, all of it."""
    fits = list(newton.solve_path(x, y, int(y.max()) + 1, PROTOCOL.order, PROTOCOL))
    if x.is_cuda:
        torch.cuda.synchronize()
    return fits


def run_published(x, y, tolerance):
    """The baselines' loop. Returns its iterations, and the objective at the weakest l2."""
    estimator, iterations, weakest = LogisticRegression(max_iter=100, tol=tolerance, warm_start=True), 0, 0.0
    for l2 in PROTOCOL.l2:
        estimator.set_params(C=1 / l2).fit(x, y)
        iterations += int(estimator.n_iter_[0])
        weakest = weakest or objective(x, y, estimator.coef_.T, estimator.intercept_, l2)
    return iterations, weakest


def sklearn_stepper(x, y):
    """A step of scikit-learn's: 100 iterations more at an l2, from wherever it stands. Returns the objective."""
    estimator = LogisticRegression(max_iter=100, tol=1e-14, warm_start=True)

    def run_step(l2, first):
        took, _ = timed(lambda: estimator.set_params(C=1 / l2).fit(x, y))
        return took, objective(x, y, estimator.coef_.T, estimator.intercept_, l2)

    return run_step


def torch_stepper(x, y):
    """A step of torch's: 100 iterations more at an l2, each l2 from zero."""
    state, truth = {}, torch.from_numpy(y).to(x.device)

    def step(l2, first):
        if first:
            state["w"] = torch.zeros(x.shape[1] + 1, int(y.max()) + 1, device=x.device, requires_grad=True)
            state["optimizer"] = torch.optim.LBFGS(
                [state["w"]], max_iter=100, tolerance_grad=0, tolerance_change=0, history_size=10, line_search_fn="strong_wolfe"
            )
        w = state["w"]

        def closure():
            state["optimizer"].zero_grad()
            loss = torch.nn.functional.cross_entropy(x @ w[:-1] + w[-1], truth) + l2 / len(y) / 2 * w[:-1].square().sum()
            loss.backward()
            return loss

        def run():
            state["optimizer"].step(closure)
            if x.is_cuda:
                torch.cuda.synchronize()

        took, _ = timed(run)
        weights = w.detach().double()
        return took, objective(x, truth, weights[:-1], weights[-1], l2)

    return step


def until_near(name, step, fits, ours):
    """Seconds until a solver is near our objective at every value, cut at CUT times ours; prints a line, returns the ratio."""
    spent, reached = 0.0, 0
    for fit in fits:
        first = True
        while True:
            took, value = step(fit.l2, first)
            spent, first = spent + took, False
            if value <= NEAR * fit.objective or spent > CUT * ours:
                break
        if spent > CUT * ours:
            break
        reached += 1
    cut = "" if reached == len(fits) else f", cut there: {reached} of {len(fits)} values reached"
    print(f"  {name:34}{spent:9.2f} s  to within {NEAR - 1:.0%} of our objective{cut}", flush=True)
    return spent / ours


def fastest_threads(x, y):
    """With how many threads scikit-learn is fastest here: more can be slower."""
    seconds = {}
    for threads in dict.fromkeys((1, count_cores())):
        with threadpool_limits(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator, wide = LogisticRegression(max_iter=20, tol=1e-14), x.double().numpy()
            seconds[threads] = min(timed(lambda e=estimator, w=wide: e.fit(w, y))[0] for _ in range(2))
    return min(seconds, key=seconds.get)


def objective(x, y, weights, intercept, l2):
    """Sum of losses + l2/2 |W|^2, float64. NumPy arrays or tensors."""
    x, y, weights, intercept = (torch.as_tensor(v) for v in (x, y, weights, intercept))
    rows = zip(x.split(4096), y.split(4096), strict=True)
    loss = sum(torch.nn.functional.cross_entropy(a.double() @ weights + intercept, b, reduction="sum") for a, b in rows)
    return float(loss + l2 / 2 * weights.square().sum())


def measure_memory():
    """Peak memory of the path at SUN397's size, in a process that does nothing else."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=solve_large, args=(theirs,))
    process.start()
    theirs.close()
    before, peak, took, worst = mine.recv()
    process.join()
    print(
        f"SUN397's size, 19,850 x 2,048, 397 classes: {took:.0f} s, largest gap {worst:.1e}; {peak:.2f} GiB at most, "
        f"{before:.2f} GiB of it before the path, features among them",
        flush=True,
    )


def solve_large(pipe):
    """The path, and what the kernel says of this process's memory, in GiB."""
    torch.set_num_threads(count_cores())
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(19_850) % 397
    x = torch.randn(397, 2048, generator=rng)[y].add_(torch.randn(19_850, 2048, generator=rng), alpha=3).relu_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took, fits = timed(lambda: solve_path(x, y.numpy()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send((before, peak, took, max(fit.gap for fit in fits)))


def describe_fits(took, fits):
    """What our path did, in words."""
    count, worst, reached = sum(fit.iterations for fit in fits), max(fit.gap for fit in fits), sum(fit.converged for fit in fits)
    return f"ours {took:.2f} s, {count:,} iterations, {reached} of {len(fits)} values converged, largest gap {worst:.1e}"


def describe_shape(x, y):
    """Sizes, in words."""
    return f"{len(x):,} x {x.shape[1]:,}, {int(y.max()) + 1} classes"


def timed(work):
    """Seconds, and what the work returned."""
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


if __name__ == "__main__":
    main()
