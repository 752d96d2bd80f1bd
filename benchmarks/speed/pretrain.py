"""Images per second of pre-training: ours, its ceiling, and SimSiam and BYOL from lightly with their usual two-view loader.

All in one run, each in a process of its own: same backbone, image size, batch and precision, same JPEGs. Ours is the real
training loop (decoded images on the device, log, rank and probe included); the ceiling is the bare model step on one fixed
batch; the peers are lightly's heads, losses and transforms with a DataLoader that uses all cores. SimCLIC sees an image once a
step, the peers see two views of it: images per second count images, not views.

    pip install lightly
    python benchmarks/speed/pretrain.py [--quick]
"""

import argparse
import copy
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import torch
from data import write_photographs

from simclic import Run, data
from simclic.data.images import Images
from simclic.experiment import How, cores
from simclic.methods.backbones import build_backbone, feature_width
from simclic.store.run_folder import RunFolder
from simclic.train import loop

GPU = torch.cuda.is_available()


def main():
    """Measure each in turn, print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ends within a minute on two cores")
    quick = parser.parse_args().quick
    if GPU:
        size, steps = {"backbone": "resnet50", "image_size": 224, "batch_size": 128, "precision": "bf16"}, 16 if quick else 96
    else:
        size = {"backbone": "resnet18", "image_size": 32 if quick else 64, "batch_size": 32, "precision": "float32"}
        steps = 6 if quick else 24
    count = 2 * steps * size["batch_size"] * 5 // 8  # of which 80 % are trained on: an epoch is as many steps
    contenders = {"SimCLIC": measure_ours, "SimSiam, lightly": measure_simsiam, "BYOL, lightly": measure_byol}
    if GPU and not quick:
        contenders |= {"SimCLIC, --compile": measure_compiled, "SimCLIC, --deterministic": measure_deterministic}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", count)
        data.load(f"{folder}/photographs", "ericsson", Path(folder), size["image_size"])
        measured = {name: measure_apart(measure, folder, size, steps) for name, measure in contenders.items()}
    print(f"{torch.cuda.get_device_name() if GPU else platform.machine()}, {cores()} cores; torch {torch.__version__}; ", end="")
    print(", ".join(f"{k} {v}" for k, v in size.items()) + f"; {count:,} JPEGs, {steps} steps each")
    mine, bare = measured["SimCLIC"][0]
    for name, (speeds, memory) in measured.items():
        text = f"{speeds[0]:10,.1f} images/s  {memory:8,.0f} MB at most" if speeds[0] else "  not here: pip install lightly"
        print(f"{name:26}{text}")
        if name == "SimCLIC":
            print(f"{'  bare step: its ceiling':26}{bare:10,.1f} images/s")
    print(f"ratio ceiling {mine / bare:.2f}")
    for name, other in (("simsiam", "SimSiam, lightly"), ("byol", "BYOL, lightly")):
        if measured[other][0][0]:
            print(f"ratio {name} {mine / measured[other][0][0]:.2f}")


def measure_apart(measure, *arguments):
    """Images per second, perhaps of two things, and peak memory in MB, of a process that does nothing else."""
    context = multiprocessing.get_context("spawn" if GPU else "fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=run_child, args=(theirs, measure, *arguments))
    process.start()
    theirs.close()
    answer = mine.recv()
    process.join()
    return answer


def run_child(pipe, measure, *arguments):
    """Measure and tell."""
    try:
        speeds = measure(*arguments)
    except ModuleNotFoundError:
        speeds = (0.0, 0.0)
    memory = torch.cuda.max_memory_allocated() / 1e6 if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    pipe.send((speeds, memory))


def prepare_run(folder, size):
    """The data set, and a Run on it."""
    dataset = data.load(f"{folder}/photographs", "ericsson", Path(folder), size["image_size"])
    return dataset, Run(dataset=f"{folder}/photographs", epochs=1, **size)


def measure_ours(folder, size, steps, options=None, rounds=5):
    """The real training loop, and the bare step on one fixed batch: nothing fetched, enlarged, watched or logged. In turns,
    since a machine's speed varies; medians."""
    dataset, run = prepare_run(folder, size)
    device = torch.device("cuda" if GPU else "cpu")
    images, per_epoch = Images(dataset, run.image_size, device), len(dataset.splits.fit) // run.batch_size
    training, index = loop.Training(run, len(images), device), torch.arange(run.batch_size, device=device)
    x = images(index)

    def measure_training():
        with tempfile.TemporaryDirectory() as place:
            record = loop.train(
                run, dataset, images, RunFolder(Path(place), "."), lambda share, note: None, options=options or How()
            )[1]
        return per_epoch * run.batch_size / record["seconds"]

    def measure_bare():
        return measure_speed(lambda: training.train_step(x, index, 0.01), steps, run.batch_size)

    measure_training(), measure_bare()
    speeds = [(measure_training(), measure_bare()) for _ in range(rounds)]
    return tuple(sorted(column)[rounds // 2] for column in zip(*speeds, strict=True))


def measure_compiled(folder, size, steps):
    """The training loop with torch.compile."""
    return measure_ours(folder, size, steps, How(compile=True))


def measure_deterministic(folder, size, steps):
    """The training loop with deterministic algorithms only."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    return measure_ours(folder, size, steps, How(deterministic=True))


def measure_simsiam(folder, size, steps):
    """SimSiam as its authors run it: two views, two passes."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    f = build_backbone(Run(**size))
    head, h, loss = (
        SimSiamProjectionHead(feature_width(f), 2048, 2048),
        SimSiamPredictionHead(2048, 512, 2048),
        NegativeCosineSimilarity(),
    )
    model = torch.nn.ModuleList([f, head, h])

    def compute_loss(x0, x1):
        z0, z1 = head(f(x0)), head(f(x1))
        return 0.5 * (loss(h(z0), z1.detach()) + loss(h(z1), z0.detach()))

    return measure_peer(model, compute_loss, SimSiamTransform(input_size=size["image_size"]), folder, size, steps)


def measure_byol(folder, size, steps):
    """BYOL: two views, two passes with gradient and two through the momentum encoder."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    f = build_backbone(Run(**size))
    head, h, loss = (
        BYOLProjectionHead(feature_width(f), 4096, 256),
        BYOLPredictionHead(256, 4096, 256),
        NegativeCosineSimilarity(),
    )
    online = torch.nn.Sequential(f, head)
    target = copy.deepcopy(online)
    deactivate_requires_grad(target)
    model = torch.nn.ModuleList([online, h, target])

    def compute_loss(x0, x1):
        update_momentum(online, target, 0.996)
        p0, p1 = h(online(x0)), h(online(x1))
        with torch.no_grad():
            z0, z1 = target(x0), target(x1)
        return 0.5 * (loss(p0, z1) + loss(p1, z0))

    views = (kind(input_size=size["image_size"]) for kind in (BYOLView1Transform, BYOLView2Transform))
    return measure_peer(model, compute_loss, BYOLTransform(*views), folder, size, steps)


def measure_peer(model, loss, transform, folder, size, steps):
    """Images per second of a method that needs two views, with the loader that people use."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    device = torch.device("cuda" if GPU else "cpu")
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01, momentum=0.9, weight_decay=1e-4)
    images = ImageFolder(f"{folder}/photographs", transform)
    loader = DataLoader(
        images, size["batch_size"], shuffle=True, drop_last=True, num_workers=cores(), persistent_workers=True, pin_memory=GPU
    )

    def repeat_batches():
        while True:
            yield from loader

    source = repeat_batches()

    def train_step():
        (x0, x1), _ = next(source)
        x0, x1 = (x.to(device, non_blocking=True, memory_format=torch.channels_last) for x in (x0, x1))
        with torch.autocast(device.type, torch.bfloat16, enabled=size["precision"] == "bf16"):
            value = loss(x0, x1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return (measure_speed(train_step, steps, size["batch_size"]),)


def measure_speed(run_step, steps, batch):
    """Images per second over `steps` steps, after two to warm up."""
    for _ in range(2):
        run_step()
    if GPU:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        run_step()
    if GPU:
        torch.cuda.synchronize()
    return steps * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
