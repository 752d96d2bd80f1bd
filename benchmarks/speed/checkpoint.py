"""What checkpoints cost: speed of training with / without them, at the default interval and the real size of the state.

Timed are one save of ResNet-50 with projector, predictor, momentum and CIFAR10's history, and one load. With a save every ten
minutes, `ratio overhead` is 600 / (600 + seconds of a save). Also measured: a small training with and without a checkpoint after
every step, the worst case.

    python benchmarks/speed/checkpoint.py [--quick]
"""

import statistics
import tempfile
from pathlib import Path

import torch
from measuring import DEVICE, make_parser, measure_seconds, print_machine

from simclic import Run, data
from simclic.data.images import Images
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, loop


def main():
    """Measure, print a table and the ratio."""
    repeats = 3 if make_parser(__doc__).parse_args().quick else 7
    print_machine(torch)
    content = make_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        saves = [measure_seconds(lambda: checkpoint.save(path, content))[0] for _ in range(repeats + 1)]
        save, megabytes = statistics.median(saves[1:]), path.stat().st_size / 1e6
        load, _ = measure_seconds(lambda: checkpoint.load(path, content["run"]))
    print(f"one checkpoint of ResNet-50 with 60,000 rows of history, {megabytes:,.0f} MB; median of {repeats}")
    print(f"  saved in {save:.2f} s, loaded in {load:.2f} s")
    trainings = [measure_small_training(Path(tempfile.mkdtemp())) for _ in range(repeats)]
    share = statistics.median(without / saving for saving, without in trainings)
    print(f"a small training with a checkpoint after each of its 22 steps: {share:.2f} of the speed without")
    interval = 60 * DEFAULT_COMPUTE.minutes
    print(f"one checkpoint every {DEFAULT_COMPUTE.minutes:.0f} minutes: {100 * save / interval:.2f} % more time")
    print(f"ratio overhead {interval / (interval + save):.4f}")


def make_checkpoint():
    """Return the content of a checkpoint of the real size, after one step of the optimiser."""
    training = loop.Training(Run(perturbation="history"), 60_000, DEVICE)
    for p in training.model.parameters():
        p.grad = torch.zeros_like(p)
    training.optimizer.step()
    return training.state_dict()


def measure_small_training(folder):
    """Return the seconds of a small training with a checkpoint after every step, and with none."""
    size = {"backbone": "test_resnet", "image_size": 16, "projector_dim": 256, "predictor_dim": 64}
    run = Run(dataset="digits", **size, epochs=2, precision="float32")
    digits = data.load("digits", "ericsson", folder)
    images, seconds = Images(digits, 16, DEVICE), []
    for minutes in (0.0, 1e9):
        (folder / str(minutes)).mkdir()
        place, options = RunFolder(folder, str(minutes)), ComputeOptions(minutes=minutes)
        record = loop.train(run, digits, images, place, lambda share, note: None, options=options)[1]
        seconds.append(record["seconds"])
    return seconds


if __name__ == "__main__":
    main()
