"""simclic finetune: the grid of any encoder, as a table, a picture and the same result file; bad input is one line."""

import json

import pytest
import timm
import torch
from PIL import Image

from simclic import Finetune, Run
from simclic.__main__ import main
from simclic.store.run_folder import RunFolder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with weights of timm's smallest ResNet."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "w.pth")
    return tmp_path


def words(weights="w.pth", dataset="digits", backbone="test_resnet", size="16", steps="2", precision="float32", **more):
    options = {"weights": weights, "dataset": dataset, "backbone": backbone, "size": size, "steps": steps} | more
    return ["finetune", *(word for k, v in (options | {"precision": precision}).items() for word in (f"--{k}", v))]


def test_a_file_becomes_a_grid_a_picture_and_a_result(place, capsys):
    assert main(words(members="20")) == 0
    text = capsys.readouterr().out
    run = Run(dataset="digits", backbone="test_resnet", image_size=16, init="./w.pth", perturbation="none", epochs=0)
    found = RunFolder(place / "runs", run).read_result(Finetune(steps=2, precision="float32"))
    assert [(row["lr"], row["decay"]) for row in found["curve"]] == list(Finetune().settings)
    assert found["members"] <= 20
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert len(rows) == 7
    shown = {float(cell.strip(" *")) for row in rows for cell in row[1:]}
    assert shown == {round(row["error"], 2) for row in found["curve"]}
    assert sum(cell.endswith("*") for row in rows for cell in row) == 1
    assert all(len(line) <= 80 for line in text.splitlines() if line.startswith(("┃", "│")))
    assert f"test error {found['error']:.2f} % (top-1, 360 images, trained again on train + val at lr" in text
    (picture,) = (place / "reports/out/finetune").glob("*.png")
    with Image.open(picture) as image:
        assert image.size[0] > 800
    assert main([*words(), "--json"]) == 0  # nothing to do: shown from what is there
    assert json.loads(capsys.readouterr().out)["curve"] == found["curve"]


def test_bad_input_is_one_line(place, capsys):
    for given, code, told in (
        (words("there/w.pth"), 2, "--weights there/w.pth: no such file"),
        (words(steps="0"), 2, "steps=0 is out of range: it must lie in [1, 1e+07]"),
        (words(augment="mixup"), 2, "augment='mixup' is not one of crop+flip, none"),
        (words(precision="fp16"), 2, "precision='fp16' is not one of bf16, float32"),
        (words(members="-1"), 2, "members=-1 is out of range: 0 or more"),
        (words(precision="bf16"), 1, "precision='bf16' on a CPU gives wrong gradients for this backbone at 16 pixels"),
        (words(backbone="resnet18"), 1, "init='./w.pth': does not fit backbone='resnet18': "),
    ):
        assert main(given) == code
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: {told}")
        assert "Traceback" not in captured.err + captured.out
    assert not list((place / "runs").glob("*/finetune-*.json"))
