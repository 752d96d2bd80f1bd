"""What checkpoints cost: seconds of training without / with them, at the default interval and the real size of the state.

One save of ResNet-50 with projector, predictor, momentum and CIFAR10's history is timed in parts (serialise, SHA-256, write,
fsync), and so is going on from it. At one save every ten minutes the overhead is that save's seconds over 600:
`ratio overhead` is 600 / (600 + one save). Beside it, measured and not computed: a small training with and without a checkpoint
after every step, the worst there is.

    python benchmarks/speed/checkpoint.py [--quick]
"""

import argparse
import hashlib
import io
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from simclic import Run, data
from simclic.data.images import Images
from simclic.experiment import USUAL, How
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, loop

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main():
    """Measure, print a table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ends within a minute on two cores")
    pairs = 3 if parser.parse_args().quick else 7
    print(f"{torch.cuda.get_device_name() if DEVICE.type == 'cuda' else platform.machine()}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        saves = [measure_save(Path(folder), first=i == 0) for i in range(pairs + 1)][1:]
        megabytes = (Path(folder) / "checkpoint").stat().st_size / 1e6
        resumed = clock(lambda: checkpoint.load(Path(folder) / "checkpoint", Run(perturbation="history").name))
    parts = {name: statistics.median(s[name] for s in saves) for name in saves[0]}
    print(f"one checkpoint of ResNet-50 with 60,000 rows of history: {megabytes:,.0f} MB; {pairs} saves, medians")
    for name, seconds in parts.items():
        print(f"  {name:24}{seconds:8.2f} s")
    print(f"  {'read, checked, loaded':24}{resumed:8.2f} s")
    with_, without = zip(*(measure_small_training(Path(tempfile.mkdtemp())) for _ in range(pairs)), strict=True)
    each = statistics.median(a / b for a, b in zip(without, with_, strict=True))
    print(f"a small training, a checkpoint after each of its 22 steps: {each:.2f} of the speed without")
    interval = 60 * USUAL.minutes
    print(f"at one every {USUAL.minutes:.0f} minutes: {100 * parts['all of it'] / interval:.2f} % more time")
    print(f"ratio overhead {interval / (interval + parts['all of it']):.4f}")


def clock(work):
    """Seconds that something takes, with the device's share."""
    started = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


TRAINING = []


def measure_save(folder, first):
    """Seconds of one save, whole and in parts."""
    if first:
        TRAINING.append(loop.Training(Run(perturbation="history"), 60_000, DEVICE))
        for p in TRAINING[0].model.parameters():
            p.grad = torch.zeros_like(p)
        TRAINING[0].optimizer.step()
    content = TRAINING[0].content()
    buffer = io.BytesIO()
    serialise = clock(lambda: torch.save(content, buffer))  # into memory, for comparison; a save streams to the disk
    digest = clock(lambda: hashlib.sha256(buffer.getbuffer()).digest())
    path = folder / "probe"
    with open(path, "wb") as f:
        write = clock(lambda: f.write(buffer.getbuffer()))
        sync = clock(lambda: (f.flush(), os.fsync(f.fileno())))
    path.unlink()
    whole = clock(lambda: checkpoint.save(folder / "checkpoint", content))
    return {"serialise": serialise, "SHA-256": digest, "write": write, "fsync": sync, "all of it": whole}


def measure_small_training(folder):
    """Seconds of a small training with a checkpoint after every step, and with none."""
    run = Run(
        dataset="digits",
        backbone="test_resnet",
        image_size=16,
        projector_dim=256,
        predictor_dim=64,
        epochs=2,
        precision="float32",
    )
    digits = data.load("digits", "ericsson", folder)
    images, seconds = Images(digits, 16, DEVICE), []
    for minutes in (0.0, 1e9):
        (folder / str(minutes)).mkdir()
        record = loop.train(
            run, digits, images, RunFolder(folder, str(minutes)), lambda share, note: None, options=How(minutes=minutes)
        )[1]
        seconds.append(record["seconds"])
    return seconds


if __name__ == "__main__":
    main()
