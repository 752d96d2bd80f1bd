"""Backbones as bytes."""

import os
import random
import subprocess
import sys
from argparse import Namespace
from collections import defaultdict
from datetime import datetime
from pathlib import PosixPath

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import tiny
from safetensors.torch import save_file

from simclic import InputError, Run
from simclic.data.dataset import IMAGENET
from simclic.files import read_json
from simclic.methods.backbones import build_backbone
from simclic.train import pretrain
from simclic.weights import load as weights


def test_packed_weights_come_back_bit_for_bit():
    f = build_backbone(tiny())
    g = weights.deserialise_backbone(weights.serialise_backbone(f), build_backbone(tiny()))
    assert all(a.equal(b) for a, b in zip(f.state_dict().values(), g.state_dict().values(), strict=True))
    assert list(f.state_dict()) == list(g.state_dict())


def test_weights_of_another_backbone_are_refused():
    with pytest.raises(RuntimeError, match="Missing key"):
        weights.deserialise_backbone(weights.serialise_backbone(torch.nn.Linear(2, 2)), build_backbone(tiny()))


@pytest.fixture
def published(tmp_path):
    """torchvision's ResNet-18 with a classifier, as people publish it, and what it makes of an image."""
    torch.manual_seed(7)
    model = torchvision.models.resnet18(num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "outer.pt")
    model.fc = torch.nn.Identity()
    return tmp_path, model


@pytest.mark.parametrize("file", ["resnet18.pth", "resnet18.safetensors", "outer.pt"])
def test_torchvisions_keys_are_timms_and_the_classifier_is_left_out(published, file):
    place, model = published
    f = timm.create_model("resnet18", num_classes=0).eval()
    record = weights.load_init(str(place / file), "resnet18", f, place)
    assert record["init_dropped"] == ["fc.bias", "fc.weight"]
    assert len(record["init_sha256"]) == 64
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(f(x), model(x), atol=1e-5)


def test_what_does_not_fit_is_one_line(published):
    place, model = published
    networks = {name: timm.create_model(name, num_classes=0) for name in ("resnet18", "resnet34")}

    def refused(content, message, name="resnet18"):
        if content is not None:
            torch.save(content, place / "bad.pth")
        with pytest.raises(InputError, match=message) as told:
            weights.load_init(str(place / "bad.pth"), name, networks[name])
        assert "\n" not in str(told.value)

    state = model.state_dict()
    refused(None, r"bad.pth': cannot be read \(No such file")
    refused({k: v for k, v in state.items() if k != "conv1.weight"}, "does not fit backbone='resnet18': conv1.weight is missing")
    refused(state | {"projector.weight": torch.ones(1)}, "projector.weight is left over")
    refused(state | {"bn1.weight": torch.ones(3)}, r"bn1.weight is \(3,\), not \(64,\)")
    refused(state | {"bn1.bias": torch.full((64,), float("nan"))}, "bad.pth': bn1.bias is not finite$")
    wrong = {
        k: torch.full_like(v, float("inf")) for k, v in state.items() if k.startswith("layer1.0.bn1.") and v.is_floating_point()
    }
    refused(
        state | wrong, "layer1.0.bn1.bias is not finite, nor are 3 others|layer1.0.bn1.weight is not finite, nor are 3 others"
    )
    refused(state, "does not fit backbone='resnet34': .* and .* more", "resnet34")
    refused([1, 2], "is not a dict of")
    refused({0: torch.ones(1)}, "is not a dict of")
    refused({}, "is not a dict of")
    refused({".odd": torch.ones(1), "": torch.ones(1)}, " is left over; .odd is left over; ")
    refused({"a\n\x1b[31m" * 9_999: torch.ones(1)}, r"^.{0,400}$")
    refused(
        {f"a.b.{k}": v for k, v in state.items() if "layer2" not in k},
        r"does not fit backbone='resnet18' \(under 'a.b'\): layer2.0.bn1.bias is missing; .* more$",
    )
    f = timm.create_model("resnet18", num_classes=0)
    torch.save(f.state_dict(), place / "same.pth")
    with pytest.raises(InputError, match="it would change nothing; choose trained weights"):
        weights.load_init(str(place / "same.pth"), "resnet18", f)


class Opened:
    """An object of a class that no reader of tensors knows."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9",
            "is a Git LFS pointer, not the weights; run: git lfs",
        ),
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"PK\x03\x04 cut", "is not a file of weights"),
        (b"\x00" * 99, "is not a file of weights"),
        (
            torch.nn.Linear(2, 2),
            "holds an object of torch.nn.modules.linear.Linear, which could execute code",
        ),
        ({"state": {"a": Opened()}}, r"holds an object of [\w.]+Opened, which could execute code"),
        (os.system, r"holds an object of posix.system|whose module posix is blocked"),
        (torch.jit.script, "is a TorchScript program; save the state dict alone"),
    ],
    ids=["empty", "page", "lfs", "hdf5", "zip", "zeros", "model", "object", "function", "torchscript"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_file_that_is_something_else_is_named(content, message, tmp_path):
    path = tmp_path / "mine.safetensors"  # what it is does not depend on its suffix
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is torch.jit.script:
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message) as refusal:
        weights.load_init(str(path), "resnet18", timm.create_model("resnet18", num_classes=0))
    assert "\n" not in str(refusal.value)


def test_what_a_training_script_saves_beside_the_weights_is_read_past(published):
    place, model = published
    byproducts = {
        "path": PosixPath("/data"), "options": Namespace(lr=0.1, out=PosixPath(".")), "history": defaultdict(list, loss=[1.0]),
        "array": np.arange(3.0), "number": np.float64(1), "flag": np.bool_(True), "dtype": np.dtype("int32"),
        "when": datetime.now(),
        "rng": {"numpy": np.random.RandomState(0).get_state(), "python": random.getstate(), "torch": torch.get_rng_state()},
    }  # fmt: skip
    torch.save({"state_dict": model.state_dict(), **byproducts}, place / "mine.pth")
    f = timm.create_model("resnet18", num_classes=0)
    assert weights.load_init(str(place / "mine.pth"), "resnet18", f)["init_part"] == "state_dict"
    assert f.bn1.running_mean.equal(model.bn1.running_mean)


def prefixed(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


HEAD = {"fc.0.weight": torch.ones(2, 2), "fc.0.bias": torch.ones(2)}


@pytest.mark.parametrize(
    ("wrap", "label", "dropped"),
    [
        (lambda s: prefixed("module.", s), "module", 0),
        (lambda s: prefixed("_orig_mod.module.", s), "_orig_mod.module", 0),
        (lambda s: {"model": prefixed("backbone.", s)}, "model.backbone", 0),
        (lambda s: {"teacher": prefixed("module.backbone.", s) | prefixed("module.head.", HEAD)}, "teacher.module.backbone", 2),
        (lambda s: {"epoch": 3, "state_dict": prefixed("module.encoder.", s | HEAD)}, "state_dict.module.encoder", 2),  # SimSiam
        (lambda s: {"state_dict": prefixed("model.", s), "callbacks": {}, "loops": {"n": 1}}, "state_dict.model", 0),  # Lightning
        (lambda s: {"state_dict_ema": s}, "state_dict_ema", 0),
        (lambda s: {"student": prefixed("a.", s), "teacher": prefixed("a.", s)}, "student.a", 0),  # equal: one reading
    ],
)
def test_a_backbone_inside_a_checkpoint_is_taken_where_it_is_the_only_one(published, wrap, label, dropped):
    place, _ = published
    state = torch.load(place / "resnet18.pth", weights_only=True)
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    torch.save(wrap(state), place / "mine.pth")
    f = timm.create_model("resnet18", num_classes=0)
    record = weights.load_init(str(place / "mine.pth"), "resnet18", f)
    assert (record["init_part"], len(record["init_dropped"])) == (label, dropped)
    assert f.conv1.weight.equal(state["conv1.weight"])


def test_of_two_backbones_in_a_file_one_has_to_be_named(published):
    place, _ = published
    state = torch.load(place / "resnet18.pth", weights_only=True)
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    other = {k: v + 1 for k, v in state.items()}
    torch.save(
        {"state_dict": prefixed("module.base_encoder.", state) | prefixed("module.momentum_encoder.", other)}, place / "two.pth"
    )
    f, path = timm.create_model("resnet18", num_classes=0), str(place / "two.pth")
    message = (
        "holds 2 backbones: state_dict.module.base_encoder, state_dict.module.momentum_encoder; name one as FILE::state_dict"
    )
    with pytest.raises(InputError, match=message):
        weights.load_init(path, "resnet18", f)
    with pytest.raises(InputError, match="has no backbone under 'teacher'; it has state_dict"):
        weights.load_init(f"{path}::teacher", "resnet18", f)
    record = weights.load_init(f"{path}::momentum_encoder", "resnet18", f)
    assert f.conv1.weight.equal(other["conv1.weight"])
    assert len(record["init_dropped"]) == len(state)
    assert Run(backbone="resnet18", init=f"{path}::momentum_encoder", epochs=0, perturbation="none").name


def test_a_byte_that_flipped_inside_a_zip_is_noticed(published):
    place, _ = published
    payload = bytearray((place / "resnet18.pth").read_bytes())
    payload[len(payload) // 2] ^= 1
    (place / "flipped.pth").write_bytes(payload)
    with pytest.raises(InputError, match=r"is damaged \(.* differs from its checksum\)"):
        weights.load_init(str(place / "flipped.pth"), "resnet18", timm.create_model("resnet18", num_classes=0))


def test_timms_weights_say_which_input_they_expect():
    for init, expected in (
        ("test_resnet.r160_in1k", ((0.5,) * 3, (0.5,) * 3, "bilinear")),
        ("random", None),
        ("resnet18.a1_in1k", (*IMAGENET, "bicubic")),
        ("resnet50.tv_in1k", (*IMAGENET, "bilinear")),
    ):
        assert weights.read_expected_input(init, PosixPath(".")) == expected


def test_names_that_timm_does_not_have_or_cannot_get_are_one_line():
    f = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(InputError, match=r"init='resnet18.a9': timm has no such weights; it has resnet18\."):
        weights.load_init("resnet18.a9", "resnet18", f)
    with pytest.raises(InputError, match="backbone='resnet18' has other weights; use its own name and tag, or a file"):
        weights.load_init("resnet50.a1_in1k", "resnet18", f)


SCRIPT = """
import sys
import timm
from simclic import InputError
from simclic.weights import load as weights
f = timm.create_model("resnet18", num_classes=0)
for line in sys.stdin:
    try:
        print(weights.load_init("resnet18.a1_in1k", "resnet18", f), f.state_dict()["bn1.running_mean"].sum().item(), flush=True)
    except InputError as e:
        print(e, flush=True)
"""


def test_timms_weights_come_from_its_cache(published, tmp_path):
    commit, hub = "0" * 40, tmp_path / "home/hub/models--timm--resnet18.a1_in1k"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}  # read once a process
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        process.stdin.write("start\n")
        assert process.stdout.readline().startswith("init='resnet18.a1_in1k': cannot be downloaded (")
        (hub / "refs").mkdir(parents=True)
        (hub / "refs/main").write_text(commit)
        (hub / "snapshots" / commit).mkdir(parents=True)
        torch.manual_seed(3)
        model = torchvision.models.resnet18()
        model.bn1.running_mean.fill_(0.5)
        save_file(model.state_dict(), hub / "snapshots" / commit / "model.safetensors")
        told, _ = process.communicate("start\n")
    assert told.count("\n") == 1
    assert told.rstrip().endswith(" 32.0")


def test_a_run_starts_from_a_file_trained_or_as_it_is(published, digits, tmp_path):
    place, model = published
    small = {"backbone": "resnet18", "init": str(place / "resnet18.pth"), "dataset": "digits", "image_size": 16}
    control = Run(**small, epochs=0, perturbation="none")
    assert (control.kind, control.label) == ("resnet18.pth", "resnet18")
    f = pretrain.pretrain(control, digits, tmp_path, torch.device("cpu"))
    assert all(f.state_dict()[k].equal(v) for k, v in model.state_dict().items())  # statistics too: nothing was calibrated
    run = Run(**small, epochs=1, batch_size=479, projector_dim=16, predictor_dim=8, base_lr=0.0, precision="float32")
    assert run.label == "SimCLIC (noise) from resnet18"
    trained = pretrain.pretrain(run, digits, tmp_path, torch.device("cpu"))
    assert trained.conv1.weight.equal(model.conv1.weight)  # at a learning rate of 0
    record = read_json(tmp_path / run.name / "pretrain.json")
    assert record["init_dropped"] == ["fc.bias", "fc.weight"]
    (place / "resnet18.pth").write_bytes((place / "outer.pt").read_bytes())
    with pytest.raises(InputError, match=r"is not the file that .* started from"):
        pretrain.pretrain(run, digits, tmp_path, torch.device("cpu"))
