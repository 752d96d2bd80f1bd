"""Images per second of pre-training: ours, its ceiling, and SimSiam and BYOL from lightly with their usual two-view loader.

All in one run, each in a process of its own: same backbone, image size, batch and precision, same JPEGs. Ours is the real
training loop (decoded images on the device, log, rank and probe included); the ceiling is the bare model step on one fixed
batch; the peers are lightly's heads, losses and transforms with a DataLoader that uses all cores. SimCLIC sees an image once a
step, the peers see two views of it: images per second count images, not views.

    pip install 'simclic[methods]'
    python benchmarks/speed/pretrain.py [--quick]
"""

import copy
import os
import resource
import tempfile
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import torch
from data import write_photographs
from measuring import DEVICE, GPU, make_parser, measure_seconds, print_machine, run_apart

from simclic import Run, data
from simclic.data.images import Images
from simclic.experiment import ComputeOptions, count_cores
from simclic.methods.backbones import build_backbone, feature_width
from simclic.store.run_folder import RunFolder
from simclic.train import loop


def main():
    """Measure each in turn, print a table and the ratios."""
    quick = make_parser(__doc__).parse_args().quick
    if GPU:
        size, steps = {"backbone": "resnet50", "image_size": 224, "batch_size": 128, "precision": "bf16"}, 16 if quick else 96
    else:
        size = {"backbone": "resnet18", "image_size": 32 if quick else 64, "batch_size": 32, "precision": "float32"}
        steps = 6 if quick else 24
    count = 2 * steps * size["batch_size"] * 5 // 8  # of which 80 % are trained on: an epoch is as many steps
    contenders = {"SimCLIC": measure_ours, "SimSiam, lightly": measure_simsiam, "BYOL, lightly": measure_byol}
    if GPU and not quick:
        contenders["SimCLIC, --compile"] = partial(measure_ours, options=ComputeOptions(compile=True))
        contenders["SimCLIC, --deterministic"] = partial(measure_ours, options=ComputeOptions(deterministic=True))
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", count)
        data.load(f"{folder}/photographs", "ericsson", Path(folder), size["image_size"])
        measured = {name: run_apart(measure_with_memory, measure, folder, size, steps) for name, measure in contenders.items()}
    print_machine(torch)
    print(", ".join(f"{k} {v}" for k, v in size.items()) + f"; {count:,} JPEGs, {steps} steps each")
    mine, bare = measured["SimCLIC"][0]
    for name, (speeds, memory) in measured.items():
        text = (
            f"{speeds[0]:10,.1f} images/s  {memory:8,.0f} MB at most"
            if speeds[0]
            else "  not here: pip install 'simclic[methods]'"
        )
        print(f"{name:26}{text}")
        if name == "SimCLIC":
            print(f"{'  bare step: its ceiling':26}{bare:10,.1f} images/s")
    print(f"ratio ceiling {mine / bare:.2f}")
    for name, other in (("simsiam", "SimSiam, lightly"), ("byol", "BYOL, lightly")):
        if measured[other][0][0]:
            print(f"ratio {name} {mine / measured[other][0][0]:.2f}")


def measure_with_memory(measure, *arguments):
    """Return images per second, perhaps of two things, and the peak memory of this process in MB."""
    try:
        speeds = measure(*arguments)
    except ModuleNotFoundError:
        speeds = (0.0, 0.0)
    memory = torch.cuda.max_memory_allocated() / 1e6 if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return speeds, memory


def prepare_run(folder, size):
    """Return the data set and a Run on it."""
    dataset = data.load(f"{folder}/photographs", "ericsson", Path(folder), size["image_size"])
    return dataset, Run(dataset=f"{folder}/photographs", epochs=1, **size)


def measure_ours(folder, size, steps, options=None, rounds=5):
    """Return images per second of the real training loop, and of the bare step on one fixed batch, without data or log.

    Medians of alternating rounds, since a machine's speed varies.
    """
    if options and options.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    dataset, run = prepare_run(folder, size)
    images, per_epoch = Images(dataset, run.image_size, DEVICE), len(dataset.splits.fit) // run.batch_size
    training, index = loop.Training(run, len(images), DEVICE), torch.arange(run.batch_size, device=DEVICE)
    x = images(index)

    def measure_training():
        with tempfile.TemporaryDirectory() as place:
            record = loop.train(
                run, dataset, images, RunFolder(Path(place), "."), lambda share, note: None, options=options or ComputeOptions()
            )[1]
        return per_epoch * run.batch_size / record["seconds"]

    def measure_bare():
        return measure_speed(lambda: training.train_step(x, index, 0.01), steps, run.batch_size)

    measure_training(), measure_bare()
    speeds = [(measure_training(), measure_bare()) for _ in range(rounds)]
    return tuple(sorted(column)[rounds // 2] for column in zip(*speeds, strict=True))


def measure_simsiam(folder, size, steps):
    """Measure SimSiam as its authors run it: two views, two passes."""
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
    """Measure BYOL: two views, two passes with gradient and two through the momentum encoder."""
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
    """Return images per second of a method with two views, with the usual loader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    model = model.to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01, momentum=0.9, weight_decay=1e-4)
    images = ImageFolder(f"{folder}/photographs", transform)
    workers = {"num_workers": count_cores(), "persistent_workers": True, "pin_memory": GPU}
    loader = DataLoader(images, size["batch_size"], shuffle=True, drop_last=True, **workers)
    source = chain.from_iterable(repeat(loader))

    def train_step():
        (x0, x1), _ = next(source)
        x0, x1 = (x.to(DEVICE, non_blocking=True, memory_format=torch.channels_last) for x in (x0, x1))
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=size["precision"] == "bf16"):
            value = loss(x0, x1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return (measure_speed(train_step, steps, size["batch_size"]),)


def measure_speed(run_step, steps, batch):
    """Return images per second over `steps` steps, after two to warm up."""
    run_step(), run_step()
    return steps * batch / measure_seconds(lambda: [run_step() for _ in range(steps)])[0]


if __name__ == "__main__":
    main()
