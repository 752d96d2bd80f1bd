"""A fine-tuning grid of 56 settings: ours, in bundles, against one DataLoader and one training per setting, as the baselines do.

All in one run, on the same JPEGs, backbone, batch and number of steps (fewer than the paper's 5,000). The peer, for each
setting: an ImageFolder with RandomResizedCrop and a flip, a DataLoader with a worker per core, SGD, then the val images resized,
cut and scored. Ours is what `simclic run` does: whole images decoded once if they fit into memory, else once for all members of
a bundle. The ceiling is the bare step of the model on a fixed batch.

    python benchmarks/speed/finetune.py [--quick] [--steps N]
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torchvision
from data import SIZES, write_photographs
from measuring import DEVICE, GPU, make_parser, measure_seconds, print_machine
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

from simclic import Finetune, Run, data
from simclic.data.images import Images
from simclic.evaluate import finetune
from simclic.evaluate.finetune import FinetuneTask, GridProgress, Member, Phase
from simclic.evaluate.finetune.bundle import Bundle
from simclic.experiment import ComputeOptions, count_cores
from simclic.methods.backbones import build_backbone, feature_width
from simclic.store.run_folder import RunFolder
from simclic.train.numerics import autocast


def main():
    """Measure each in turn, print a table and the ratios."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, help="steps of each setting")
    quick, steps_option = (options := parser.parse_args()).quick, options.steps
    torch.set_num_threads(count_cores() if GPU else 1)  # as many as a process of `simclic run` has
    if GPU:
        name, size, batch, precision, steps, count = "resnet50", 224, 128, "bf16", 4 if quick else 20, 2000
    else:
        name, size, batch, precision, steps, count = "test_resnet", 32, 32, "float32", 2 if quick else 8, 300 if quick else 900
    steps = steps_option or steps
    protocol = Finetune(steps=steps, batch_size=batch, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", count)
        dataset = data.load(f"{folder}/photographs", "ericsson", Path(folder), size)
        run = Run(dataset=f"{folder}/photographs", backbone=name, image_size=size)
        torch.manual_seed(0)
        f = build_backbone(run).eval().requires_grad_(False).to(DEVICE)
        task = FinetuneTask(protocol, f, dataset, Images(dataset, size, DEVICE), 0)
        warm_up(task)
        few = protocol.settings[:: 14 if quick else 7]  # the peer's settings take equally long
        contenders = {
            "SimCLIC": lambda: train_grid(task, run),
            "SimCLIC, decoding each time": lambda: train_grid(task, run, room=0),
            "SimCLIC, one member at a time": lambda: train_grid(replace(task, options=ComputeOptions(members=1)), run),
            "one DataLoader per setting": lambda: [train_separately(task, folder, *s) for s in few],
        }
        seconds = {name: measure_seconds(work)[0] for name, work in contenders.items()}
        seconds["one DataLoader per setting"] *= 56 / len(few)
        loop, bare = measure_ceiling(task, run)
    print_machine(torch, torchvision)
    sides = ", ".join(f"{wide} x {high}" for wide, high in SIZES)
    print(f"{name}, {size} pixels, batches of {batch}, {precision}; 56 settings x {steps} steps; {count:,} JPEGs of {sides}")
    for who, took in seconds.items():
        note = f", from {len(few)} settings" if who.startswith("one DataLoader") else ""
        print(f"{who:32}{took:9.1f} s  {56 * steps * batch / took:10,.0f} images/s{note}")
    print(f"{'training alone, in a bundle':32}{'':11}  {loop:10,.0f} images/s, without decoding, copies and val")
    print(f"{'bare steps: its ceiling':32}{'':11}  {bare:10,.0f} images/s")
    print(f"ratio separate {seconds['one DataLoader per setting'] / seconds['SimCLIC']:.2f}")
    print(f"ratio decoding {seconds['one DataLoader per setting'] / seconds['SimCLIC, decoding each time']:.2f}")
    print(f"ratio ceiling {loop / bare:.2f}")


def warm_up(task):
    """Take one step; return the member and its batch."""
    member = Member(task, (0.01, 0.0))
    index = torch.from_numpy(task.dataset.splits.train[: task.protocol.batch_size]).to(DEVICE)
    x, y = task.images(index), torch.from_numpy(task.dataset.labels).to(DEVICE)[index]
    member.step(x, y, 0)
    return member, x, y


def train_grid(task, run, room=None):
    """Train all 56 settings: decoding, training and val scores; no refit. room: bytes for decoded whole images."""
    with tempfile.TemporaryDirectory() as place:
        RunFolder(Path(place), run).create_folder("data")
        search = finetune.GridSearch(task, GridProgress(Path(place), run, task.protocol))
        if room is not None:
            search.train_batches.memory_budget = room
        splits, count = task.dataset.splits, 0
        for bundle in search.train_bundles(Phase("grid", splits.train, splits.val), task.protocol.settings):
            count += len(bundle)
        assert count == 56


def train_separately(task, folder, lr, decay):
    """Train one setting as the baselines' source does, with a loader of its own."""
    known, size, protocol = task.dataset.facts, task.images.size, task.protocol
    bicubic, tail = InterpolationMode.BICUBIC, [ToTensor(), Normalize(known.mean, known.std)]
    cut = Compose([RandomResizedCrop(size, interpolation=bicubic), RandomHorizontalFlip(), *tail])
    whole = Compose([Resize(size, bicubic), CenterCrop(size), *tail])
    options = {"batch_size": protocol.batch_size, "num_workers": count_cores(), "pin_memory": GPU}

    def make_loader(transform, index, **more):
        images = Subset(ImageFolder(f"{folder}/photographs", transform), index.tolist())
        return DataLoader(images, **options, **more)

    f = copy.deepcopy(task.f).requires_grad_(True).to(memory_format=torch.channels_last).train()
    head = torch.nn.Linear(feature_width(f), known.classes).to(DEVICE)
    model = torch.nn.Sequential(f, head)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=decay / lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.steps)
    done, batches = 0, make_loader(cut, task.dataset.splits.train, shuffle=True, drop_last=True)
    while done < protocol.steps:
        for x, y in batches:
            x, y = x.to(DEVICE, non_blocking=True, memory_format=torch.channels_last), y.to(DEVICE, non_blocking=True)
            with autocast(DEVICE, protocol.precision):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == protocol.steps:
                break
    model.eval()
    with torch.no_grad(), autocast(DEVICE, protocol.precision):
        for x, _ in make_loader(whole, task.dataset.splits.val):
            model(x.to(DEVICE)).argmax(1).cpu()


def measure_ceiling(task, run, rounds=5):
    """Return images per second of the loop that trains a bundle, crops included, and of the bare step on one fixed batch.

    Medians of alternating rounds, since a machine's speed varies. Decoding, copies and val, once in 5,000 steps, are left out.
    """
    _, x, y = warm_up(task)
    batches, train, size = finetune.TrainBatches(task), task.dataset.splits.train, len(x)
    f = copy.deepcopy(task.f).requires_grad_(True).to(memory_format=torch.channels_last).train()
    head = torch.nn.Linear(feature_width(f), task.dataset.facts.classes).to(DEVICE)
    optimizer = torch.optim.SGD([*f.parameters(), *head.parameters()], 0.01, momentum=0.9, nesterov=True, fused=True)
    members, steps = 8, task.protocol.steps

    def measure_loop():
        with tempfile.TemporaryDirectory() as place:
            RunFolder(Path(place), run).create_folder("data")
            bundle, kept = Bundle(task, task.protocol.settings[-members:], "grid"), GridProgress(Path(place), run, task.protocol)
            return members * steps * size / measure_seconds(lambda: bundle.train(batches, train, kept))[0]

    def measure_bare():
        def step():
            with autocast(DEVICE, task.protocol.precision):
                features = f(x)
            torch.nn.functional.cross_entropy(head(features.float()), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return members * steps * size / measure_seconds(lambda: [step() for _ in range(members * steps)])[0]

    measure_loop(), measure_bare()
    speeds = [(measure_loop(), measure_bare()) for _ in range(rounds)]
    return tuple(sorted(column)[rounds // 2] for column in zip(*speeds, strict=True))


if __name__ == "__main__":
    main()
