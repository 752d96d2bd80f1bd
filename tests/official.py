"""ResNet-50s with random weights, written as the authors of the 13 methods publish theirs, and networks to compare with.

Layouts as in each method's source: keys, nesting, heads, types. The reference networks are torchvision's, with paddings put in by
hand where TensorFlow's SAME differs at even sizes.
"""

import argparse
from collections import OrderedDict
from functools import cache

import bundles
import numpy as np
import torch
import torchvision
from torch import nn

from simclic.experiment.baselines import METHODS
from simclic.weights.tensorflow import _masked_crc32c

LINEAR = {"weight": (128, 2048), "bias": (128,)}
MLP = {"0.weight": (2048, 2048), "0.bias": (2048,), "2.weight": (128, 2048), "2.bias": (128,)}
JIGSAW = {"fc2.weight": (128, 1152), "fc2.bias": (128,)}
PROJECTION = {
    "0.weight": (2048, 2048), "0.bias": (2048,), "1.weight": (2048,), "1.bias": (2048,), "1.running_mean": (2048,),
    "1.running_var": (2048,), "1.num_batches_tracked": (), "3.weight": (128, 2048), "3.bias": (128,),
}  # fmt: skip


def trained(seed=0):
    """torchvision's ResNet-50 with weights and statistics that are none of a fresh one's; no classifier."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # nothing is drawn that is drawn again below
        model = torchvision.models.resnet50()
    model.fc = nn.Identity()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 4:
                fan = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.is_floating_point():
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
            else:
                value.fill_(1000)
    return model.eval()


@cache
def narrow():
    """An untrained ResNet-50 with a sixteenth of the channels inside its blocks; no classifier. Not to be written to."""
    model = torchvision.models.resnet50(width_per_group=4)
    model.fc = nn.Identity()
    return model


def fresh():
    """Its state: a ResNet-50's keys, in a fifth of the bytes."""
    return narrow().state_dict()


def light(seed=0):
    """The same keys and shapes over a number for each row, so that a file takes kilobytes."""
    return {k: v.clone() if v.ndim == 0 else rows(v.shape, 0.5 + seed + i / 1000) for i, (k, v) in enumerate(fresh().items())}


def rows(shape, first):
    """Numbers from `first` on that differ along the first axis alone."""
    return (first + torch.arange(shape[0]) / 1e4).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


def reference(name, model):
    """The network as the method's own code computes it, for images whose sides are a multiple of 32."""
    if name.startswith("simclr") or name == "byol":
        model.maxpool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
    if name == "byol":
        model.conv1 = nn.Sequential(nn.ZeroPad2d((2, 3, 2, 3)), unpadded(model.conv1))
        for layer in (model.layer2, model.layer3, model.layer4):
            layer[0].conv2 = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), unpadded(layer[0].conv2))
    return model


def unpadded(conv):
    conv.padding = (0, 0)
    return conv


def filled(prefix, shapes):
    return {f"{prefix}{k}": torch.full((1,), 0.25).expand(s) if s else torch.tensor(7) for k, s in shapes.items()}


def momenta():
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}


EPOCHS = dict.fromkeys(METHODS, 200) | dict.fromkeys(("moco-v2", "infomin"), 800)  # that a file says it was trained for
STEPS = {"simclr-v1": 225206, "simclr-v2": 250228}


def moco(name, state, head, whole):
    """whole: as the trainer writes it, queue and momentum encoder included; published files hold the query encoder alone."""
    queue = {"module.queue": torch.full((1,), 0.1).expand(128, 65536), "module.queue_ptr": torch.tensor([0])} if whole else {}
    found = {**queue, **{f"module.encoder_q.{k}": v for k, v in state.items()}, **filled("module.encoder_q.fc.", head)}
    if whole:
        found |= {k.replace("encoder_q", "encoder_k"): v for k, v in found.items() if "encoder_q" in k}
    return {"epoch": EPOCHS[name], "arch": "resnet50", "state_dict": OrderedDict(found)} | (
        {"optimizer": momenta()} if whole else {}
    )


def pycontrast(name, state, heads, whole, memory):
    found = {f"module.encoder.{k}": v for k, v in state.items()} | heads
    rate = momenta()
    rate["param_groups"][0]["lr"] = np.float64(0.003)  # a step schedule leaves numpy's
    more = {
        "contrast": OrderedDict(memory=torch.full((1,), 0.1).expand(memory, 128)), "optimizer": rate, "epoch": EPOCHS[name],
        "opt": argparse.Namespace(method="InsDis", feat_dim=128),
    }  # fmt: skip
    return {"model": OrderedDict(found), **(more if whole else {})}


def swav(state, prototypes):
    found = {f"module.{k}": v for k, v in state.items()} | filled("module.projection_head.", PROJECTION)
    return OrderedDict(found | filled("module.prototypes", prototypes))


def contents(name, state, whole=False):
    """What a file of PyTorch's holds. state: the backbone under torchvision's names. whole: as a trainer writes it."""
    three = {f".prototypes{i}.weight": (3000, 128) for i in range(3)}
    if name in ("moco-v1", "pcl-v1"):
        return moco(name, state, LINEAR, whole)
    if name in ("moco-v2", "pcl-v2"):
        return moco(name, state, MLP, whole)
    if name == "insdis":
        return pycontrast(name, state, filled("module.head.0.", LINEAR), whole, 1281167)
    if name == "pirl":
        jigsaw = filled("module.head_jig.fc1.", LINEAR) | filled("module.head_jig.", JIGSAW)
        return pycontrast(name, state, filled("module.head.0.", LINEAR) | jigsaw, whole, 1281167)
    if name == "infomin":
        jigsaw = filled("module.head_jig.fc1.", MLP) | filled("module.head_jig.", JIGSAW)
        return pycontrast(name, state, filled("module.head.", MLP) | jigsaw, whole, 65536)
    return swav(state, {".weight": (3000, 128)} if name == "swav" else three)


def kernels():
    """torchvision's names of convolutions and norms in the order in which TensorFlow's code makes them."""
    names = ["conv1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            names += [f"layer{stage}.{block}.downsample.0"] * (block == 0)
            names += [f"layer{stage}.{block}.conv{i}" for i in (1, 2, 3)]
    return names


def norm(conv):
    return conv.replace("downsample.0", "downsample.1").replace("conv", "bn")


def variables(name, state):
    """What a checkpoint of SimCLR's holds: kernels are (height, width, in, out)."""
    found = {}
    for i, conv in enumerate(kernels()):
        number = f"_{i}" if i else ""
        found[f"base_model/conv2d{number}/kernel"] = state[f"{conv}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        for ours, theirs in (
            ("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance"),
        ):  # fmt: skip
            found[f"base_model/batch_normalization{number}/{theirs}"] = state[f"{norm(conv)}.{ours}"].numpy()
    classifier = {"kernel": np.zeros((2048, 1000), "f"), "bias": np.zeros(1000, "f")}
    for k, v in classifier.items():
        found |= {f"head_supervised/linear_layer/dense/{k}{slot}": v for slot in ("", "/Momentum")}
    if name == "simclr-v2":
        for i in range(3):
            width = 128 if i == 2 else 2048
            here = f"head_contrastive/nl_{i}"
            found[f"{here}/dense/kernel"] = np.zeros((2048, width), "f")
            for part in ("gamma", "moving_mean", "moving_variance", *(("beta",) if i < 2 else ())):
                found[f"{here}/batch_normalization/{part}"] = np.ones(width, "f")
        found["ema_model/base_model/conv2d/kernel"] = np.ones((7, 7, 3, 64), "f")
        found["base_model/conv2d/kernel/Momentum"] = np.ones((7, 7, 3, 64), "f")
    return found | {"global_step": np.array(STEPS[name], "i8")}


def fast(raw):
    """The checksum of large files: the reader's own, which tests/test_tensorflow.py compares with one bit by bit."""
    return _masked_crc32c(np.frombuffer(raw, np.uint8))


def write(name, place, state, whole=False):
    """A method's file under `place`, as its authors publish it. Returns what `simclic import` is given."""
    if name.startswith("simclr"):
        prefix = place / "model.ckpt-225206"
        bundles.write(prefix, variables(name, state), crc=fast)
        return prefix
    if name == "byol":
        return bundles.byol(place / "pretrain_res50x1.pkl", state)
    path = place / f"{name}.pth.tar"
    torch.save(contents(name, state, whole), path, _use_new_zipfile_serialization=False)
    return path


TORCH = [name for name in METHODS if not name.startswith("simclr") and name != "byol"]
