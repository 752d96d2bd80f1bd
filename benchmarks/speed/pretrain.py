"""Images per second of pre-training: every method here, and lightly's training of the same method with its usual loader.

All in one run, each in a process of its own: same backbone, image size, batch and precision, same JPEGs. Ours is the real
training loop (decoded images on the device, views made there, log, rank and probe included); the ceiling is SimCLIC's bare step
on one fixed batch; the peers are lightly's heads, losses and transforms with a DataLoader that uses all cores. Images per second
count images, not views; beside them is what a method costs otherwise: passes through an encoder that a step takes for each image,
parameters that are trained, numbers that are kept besides (momentum encoder, queue, memory bank, prototypes), and peak memory.

    pip install 'simclic[methods]'
    python benchmarks/speed/pretrain.py [--quick] [--processes N]
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
from rich.console import Console

from simclic import InputError, Run, data
from simclic.data.images import Images
from simclic.experiment import METHODS, ComputeOptions, Job, count_cores
from simclic.methods.backbones import build_backbone, feature_width
from simclic.methods.base import build_method
from simclic.schedule.processes import run_locally
from simclic.schedule.work import WorkerOptions
from simclic.store.run_folder import RunFolder
from simclic.train import loop

try:
    from lightly import loss as losses
    from lightly import transforms
    from lightly.models import utils
    from lightly.models.modules import heads
except ModuleNotFoundError:
    losses = None


def main():
    """Measure each in turn, print a table and the ratios."""
    parser = make_parser(__doc__)
    text = "measure one pre-training on N GPUs, or cores, against one of these, and nothing else"
    parser.add_argument("--processes", type=int, default=1, metavar="N", help=text)
    arguments = parser.parse_args()
    quick = arguments.quick
    if GPU:
        size, steps = {"backbone": "resnet50", "image_size": 224, "batch_size": 128, "precision": "bf16"}, 16 if quick else 96
    else:
        size = {"backbone": "resnet18", "image_size": 32 if quick else 64, "batch_size": 32, "precision": "float32"}
        steps = 6 if quick else 24
    if arguments.processes > 1:
        compare_ranks(size, steps, arguments.processes)
        return
    count = 2 * steps * size["batch_size"] * 5 // 8  # of which 80 % are trained on: an epoch is as many steps
    contenders = {METHODS[name].title: partial(measure_ours, method=name, rounds=1 if quick else 5) for name in METHODS}
    contenders |= {f"{METHODS[name].title}, lightly": peer for name, peer in PEERS.items()}
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
    sizes = {METHODS[name].title: count_numbers(name, size, count) for name in METHODS if measured[METHODS[name].title][0][0]}
    passes = {facts.title: facts.passes + facts.target_passes for facts in METHODS.values()}
    for name, (speeds, memory) in measured.items():
        text = f"{speeds[0]:10,.1f} images/s" if speeds[0] else "  not here: pip install 'simclic[methods]'"
        numbers = f"  {sizes[name][0]:6.2f} M trained  {sizes[name][1]:6.2f} M besides" if name in sizes else f"{'':30}"
        print(f"{name:34}{text}  {passes[name.split(',')[0]]} passes{numbers}  {memory:8,.0f} MB at most")
        if name == "SimCLIC":
            print(f"{'  bare step: its ceiling':34}{bare:10,.1f} images/s")
    print(f"ratio ceiling {mine / bare:.2f}")
    for name in PEERS:
        ours, other = (measured[METHODS[name].title + peer][0][0] for peer in ("", ", lightly"))
        if ours and other:
            print(f"ratio {name} {ours / other:.2f}")
            print(f"ratio simclic-over-{name} {mine / other:.2f}")


def count_numbers(method, size, images):
    """Return the millions of numbers that a method trains, and that it keeps besides. images: how many the data set has."""
    model = build_method(Run(method=method, **size), images, images * 4 // 5)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained / 1e6, (sum(t.numel() for t in model.state_dict().values()) - trained) / 1e6


def compare_ranks(size, steps, count):
    """Print images per second of SimCLIC, SimSiam and BYOL on one device and on `count` that compute it together."""
    print_machine(torch)
    print(", ".join(f"{k} {v}" for k, v in size.items()) + f"; {2 * steps} steps each, of which half are measured")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", steps * size["batch_size"] * 5 // 4)  # 80 % are trained on
        for method in ("simclic", "simsiam", "byol"):
            one, several = (measure_ranks(folder, size, method, ranks) for ranks in (1, count))
            print(f"{METHODS[method].title:34}{one:10,.1f} images/s on one, {several:10,.1f} on {count}")
            print(f"ratio {method}-on-{count} {several / one:.2f}")


def measure_ranks(folder, size, method, ranks):
    """Return images per second of the second of two epochs."""
    run = Run(method=method, dataset=f"{folder}/photographs", split="ericsson", epochs=2, **size)
    options = WorkerOptions(Path(folder) / f"runs-{ranks}", Path(folder), ComputeOptions(ranks=ranks))
    outcome = run_locally([Job(run)], options, Console(stderr=True))
    if outcome.failures:
        raise SystemExit(f"error: {next(iter(outcome.failures.values()))}")
    first, second = RunFolder(options.runs, run).log_rows()
    return 1 / (2 / second["images/s"] - 1 / first["images/s"])  # in the log it is that of all epochs so far


def measure_with_memory(measure, *arguments):
    """Return images per second, perhaps of two things, and the peak memory of this process in MB."""
    try:
        speeds = measure(*arguments)
    except (ModuleNotFoundError, InputError) as e:
        if "lightly" not in str(e):
            raise
        speeds = (0.0, 0.0)
    memory = torch.cuda.max_memory_allocated() / 1e6 if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return speeds, memory


def prepare_run(folder, size, method):
    """Return the data set and a Run on it."""
    dataset = data.load(f"{folder}/photographs", "ericsson", Path(folder), size["image_size"])
    return dataset, Run(method=method, dataset=f"{folder}/photographs", epochs=1, **size)


def measure_ours(folder, size, steps, method="simclic", options=None, rounds=5):
    """Return images per second of the real training loop, and for SimCLIC of the bare step on one fixed batch, without data.

    Medians of alternating rounds, since a machine's speed varies.
    """
    if options and options.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    dataset, run = prepare_run(folder, size, method)
    images, per_epoch = Images(dataset, run.image_size, DEVICE), len(dataset.splits.fit) // run.batch_size
    training = loop.Training(run, len(images), DEVICE, len(dataset.splits.fit))
    index = torch.arange(run.batch_size, device=DEVICE)
    x = training.prepare_views(images.fetch(index), images)

    def measure_training():
        with tempfile.TemporaryDirectory() as place:
            record = loop.train(
                run, dataset, images, RunFolder(Path(place), "."), lambda share, note: None, options=options or ComputeOptions()
            )[1]
        return per_epoch * run.batch_size / record["seconds"]

    def measure_bare():
        return measure_speed(lambda: training.train_step(x, index, 0.01), steps, run.batch_size)

    measures = (measure_training, measure_bare) if method == "simclic" else (measure_training,)
    [measure() for measure in measures]  # to warm up
    speeds = [tuple(measure() for measure in measures) for _ in range(rounds)]
    return tuple(sorted(column)[rounds // 2] for column in zip(*speeds, strict=True))


def build_simsiam(f, run):
    """SimSiam as its authors run it: two views, two passes."""
    head, h = heads.SimSiamProjectionHead(feature_width(f), 2048, 2048), heads.SimSiamPredictionHead(2048, 512, 2048)
    similarity = losses.NegativeCosineSimilarity()

    def compute_loss(x0, x1):
        z0, z1 = head(f(x0)), head(f(x1))
        return 0.5 * (similarity(h(z0), z1.detach()) + similarity(h(z1), z0.detach()))

    return [f, head, h], compute_loss, transforms.SimSiamTransform(input_size=run.image_size)


def build_byol(f, run):
    """BYOL: two views, two passes with gradient and two through the momentum encoder."""
    head, h = heads.BYOLProjectionHead(feature_width(f), 4096, 256), heads.BYOLPredictionHead(256, 4096, 256)
    online = torch.nn.Sequential(f, head)
    target, similarity = copy_target(online), losses.NegativeCosineSimilarity()

    def compute_loss(x0, x1):
        utils.update_momentum(online, target, 0.996)
        with torch.no_grad():
            z0, z1 = target(x0), target(x1)
        return similarity(h(online(x0)), z1) + similarity(h(online(x1)), z0)

    first, second = (kind(input_size=run.image_size) for kind in (transforms.BYOLView1Transform, transforms.BYOLView2Transform))
    return [online, h, target], compute_loss, transforms.BYOLTransform(first, second)


def build_simclr(f, run):
    """SimCLR: two views, two passes."""
    head, compare = heads.SimCLRProjectionHead(feature_width(f), 2048, 128), losses.NTXentLoss(0.5)
    return [f, head], lambda x0, x1: compare(head(f(x0)), head(f(x1))), transforms.SimCLRTransform(input_size=run.image_size)


def build_moco(f, run):
    """MoCo v2, both directions: two passes with gradient and two through the momentum encoder."""
    online = torch.nn.Sequential(f, heads.MoCoProjectionHead(feature_width(f), 2048, 128))
    target, compare = copy_target(online), losses.NTXentLoss(0.2, memory_bank_size=(256, 128))

    def compute_loss(x0, x1):
        utils.update_momentum(online, target, 0.99)
        with torch.no_grad():
            k0, k1 = target(x0), target(x1)
        return 0.5 * (compare(online(x0), k1) + compare(online(x1), k0))

    return [online, target], compute_loss, transforms.MoCoV2Transform(input_size=run.image_size)


def build_swav(f, run):
    """SwAV on two crops without its queue: two passes."""
    head, prototypes = heads.SwaVProjectionHead(feature_width(f), 2048, 128), heads.SwaVPrototypes(128, run.batch_size)
    compare = losses.SwaVLoss()

    def compute_loss(x0, x1):
        prototypes.normalize()
        p0, p1 = (prototypes(torch.nn.functional.normalize(head(f(x)), dim=1)) for x in (x0, x1))
        return compare([p0, p1], [])

    return [f, head, prototypes], compute_loss, transforms.SwaVTransform(crop_sizes=(run.image_size,), crop_counts=(2,),
        crop_min_scales=(0.14,), crop_max_scales=(1.0,))  # fmt: skip


def copy_target(online):
    """Return a copy that no gradient reaches."""
    target = copy.deepcopy(online)
    utils.deactivate_requires_grad(target)
    return target


def measure_peer(build, folder, size, steps):
    """Return images per second of lightly's training of a method with two views, with the usual loader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    if losses is None:
        return (0.0, 0.0)
    run = Run(**size)
    modules, loss, transform = build(build_backbone(run), run)
    model = torch.nn.ModuleList(modules).to(DEVICE).to(memory_format=torch.channels_last).train()
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


PEERS = {
    "simsiam": partial(measure_peer, build_simsiam), "byol": partial(measure_peer, build_byol),
    "simclr-v1": partial(measure_peer, build_simclr), "moco-v2": partial(measure_peer, build_moco),
    "swav": partial(measure_peer, build_swav),
}  # fmt: skip


if __name__ == "__main__":
    main()
