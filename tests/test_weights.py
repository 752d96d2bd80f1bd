"""Backbones as bytes."""

import os
import subprocess
import sys
from pathlib import PosixPath

import pytest
import timm
import torch
import torchvision
from conftest import tiny
from safetensors.torch import save_file

from simclic import InputError, Run
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

    def refused(content, message, name="resnet18"):
        if content is not None:
            torch.save(content, place / "bad.pth")
        with pytest.raises(InputError, match=message) as told:
            weights.load_init(str(place / "bad.pth"), name, timm.create_model(name, num_classes=0))
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
    refused([1, 2], "is not a dict of named tensors")
    refused({0: torch.ones(1)}, "is not a dict of tensors under torchvision")
    refused({}, "bn1.bias is missing; bn1.running_mean is missing; .* more$")
    refused({".odd": torch.ones(1), "": torch.ones(1)}, " is left over; .odd is left over; ")
    refused({"model": state, "optimizer": {}}, "under torchvision's or timm's keys; save one of model, optimizer alone$")
    parallel = {f"module.{k}": v for k, v in state.items()}
    refused(parallel, "; save it without 'module.', with which all its keys begin$")
    refused({f"a.b.{k}": v for k, v in state.items()}, "; save it without 'a.b.', with which all its keys begin$")
    refused({k: v for k, v in parallel.items() if "conv1" not in k}, r"conv1.weight is missing and \d+ more$|\d more$")
    refused(PosixPath("executed"), "is not a file of weights")
    (place / "bad.pth").write_bytes(b"")
    refused(None, "bad.pth': is empty")
    (place / "bad.pth").write_bytes(b"<html>")
    refused(None, "is not a file of weights")
    (place / "bad.safetensors").write_bytes(b"<html>")
    with pytest.raises(InputError, match="is not a file of weights"):
        weights.load_init(str(place / "bad.safetensors"), "resnet18", timm.create_model("resnet18", num_classes=0))
    f = timm.create_model("resnet18", num_classes=0)
    torch.save(f.state_dict(), place / "same.pth")
    with pytest.raises(InputError, match="it is no starting point"):
        weights.load_init(str(place / "same.pth"), "resnet18", f)


def test_names_that_timm_does_not_have_or_cannot_get_are_one_line():
    f = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(InputError, match=r"init='resnet18.a9': timm has no such weights; it has resnet18\."):
        weights.load_init("resnet18.a9", "resnet18", f)
    with pytest.raises(InputError, match="a timm name must be of the same backbone"):
        weights.load_init("resnet50.a1_in1k", "resnet18", f)


SCRIPT = """
import sys
import timm
from simclic import InputError
from simclic.weights import load as weights
f = timm.create_model("resnet18", num_classes=0)
for line in sys.stdin:
    try:
        print(weights.start("resnet18.a1_in1k", "resnet18", f), f.state_dict()["bn1.running_mean"].sum().item(), flush=True)
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
