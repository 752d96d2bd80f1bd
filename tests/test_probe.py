"""simclic probe: any encoder, as a table, a picture and the same result file; bad input is one line."""

import json
import pickle

import pytest
import timm
import torch
import torchvision
from layouts import fill
from PIL import Image
from safetensors.torch import save_file

from simclic import Linear, Run
from simclic.__main__ import main
from simclic.files import read_json
from simclic.store.run_folder import RunFolder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with weights of timm's smallest ResNet, its classifier included."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "w.pth")
    return tmp_path


def words(weights="w.pth", dataset="digits", backbone="test_resnet", size="16", **more):
    options = {"weights": weights, "dataset": dataset, "backbone": backbone, "size": size, **more}
    return ["probe", *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_a_file_becomes_a_table_a_picture_and_a_result(place, capsys):
    assert main(words()) == 0
    text = capsys.readouterr().out
    run = Run(dataset="digits", backbone="test_resnet", image_size=16, init="./w.pth", perturbation="none", epochs=0)
    found = RunFolder(place / "runs", run).read_result(Linear())
    assert len(found["curve"]) == 45
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [[f"{row['l2']:.2e}", f"{row['error']:.2f}"] for row in found["curve"]]
    assert [float(row[0]) for row in rows if row[-1] == "chosen"] == [pytest.approx(found["chosen"]["l2"], rel=1e-2)]
    assert f"test error {found['error']:.2f} % (top-1, 360 images" in text
    assert "weights: 2 keys left out (fc.bias, fc.weight)\n" in text
    (picture,) = (place / "reports/out/probe").glob("*.png")
    assert picture.stem == f"{run.name}-{Linear().name}"
    with Image.open(picture) as image:
        assert image.size[0] > 500
    made = read_json(place / "runs" / run.name / "pretrain.json")
    assert made["init_dropped"] == ["fc.bias", "fc.weight"]

    save_file(torch.load("w.pth", weights_only=True), "w.safetensors")  # the same weights in the other format
    assert main([*words("w.safetensors"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["error"] for row in again["curve"]] == [row["error"] for row in found["curve"]]
    assert main(words()) == 0  # nothing to do: shown from what is there
    assert f"test error {found['error']:.2f} %" in capsys.readouterr().out


def test_bad_input_is_one_line_before_anything_is_computed(place, capsys):
    (place / "folder.pth").mkdir()
    for given, told in (
        (words("r19.pth"), "--weights r19.pth: no such file; name one, or weights of timm by name and tag"),
        (words("there/r18"), "--weights there/r18: no such file"),
        (words("folder.pth"), "--weights folder.pth: is a folder, not a file of weights"),
        (words(dataset="digit"), "dataset='digit' is not one of"),
        (words(dataset="cifar10"), "CIFAR10 is not there"),
        (words(dataset="./birds"), "./birds: no such folder"),
        (words(size="0"), "image_size=0 is out of range"),
        (words(solver="exact"), "solver='exact' is not one of converged, as-published"),
        (words(features="fp16"), "features='fp16' is not one of float32, bf16"),
        (words(split="half"), "split='half' is not one of"),
    ):
        assert main(given) == 2
        captured = capsys.readouterr()
        assert told in captured.err
        assert captured.err.count("\n") == 1
        assert not captured.out
    assert not (place / "runs").exists()


def test_weights_or_images_that_have_changed_are_not_passed_off_as_the_old_ones(place, capfd):
    assert main(words()) == 0
    capfd.readouterr()
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), "w.pth")
    assert main(words()) == 1
    captured = capfd.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: init='./w.pth': is not the file that")
    assert "test error" not in captured.out


def test_a_name_may_hold_anything(place, capfd):
    (place / "w.pth").rename(place / "a$_$[red]b.pth")
    assert main(words("a$_$[red]b.pth")) == 0
    assert "Digits: a$_$[red]b.pth, linear evaluation" in capfd.readouterr().out


def test_what_is_not_used_of_a_folder_and_not_reported_is_said(place, capfd):
    for part in ("train", "val"):
        fill(place / "birds" / part, 4)
    (place / "birds/notes.txt").touch()
    told = "note: birds: no test images; the error reported is that on val, on which settings are chosen"
    assert main(words(dataset="./birds", split="paper")) == 0
    lines = capfd.readouterr().out.splitlines()
    assert told in lines
    assert "note: birds: a file is not used (.txt 1), the first is notes.txt" in lines
    assert main(words(dataset="./birds")) == 1
    assert "birds: there is no test, so that the split ericsson has no error to report; add one" in capfd.readouterr().err


def test_weights_that_do_not_fit_are_one_line(place, capfd):
    class Evil:
        def __reduce__(self):
            return (open, (str(place / "harm"), "w"))

    (place / "evil.pth").write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    torch.save({"conv1.weight": torch.ones(3).to_sparse()}, "sparse.pth")
    torch.save({"conv1.weight": torch.ones(3, dtype=torch.complex64)}, "complex.pth")
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), "r18.pth")
    (place / "short.pth").write_bytes((place / "r18.pth").read_bytes()[:5000])
    for given, told in (
        (
            words("r18.pth", backbone="resnet34"),
            "init='./r18.pth': does not fit backbone='resnet34': layer1.2.bn1.bias is missing",
        ),
        (words("evil.pth"), "init='evil.pth': is not a file of weights"),
        (words("short.pth"), "init='short.pth': is not a file of weights"),
        (words("sparse.pth"), "init='sparse.pth': conv1.weight is not a dense tensor of real numbers"),
        (words("complex.pth"), "init='complex.pth': conv1.weight is not a dense tensor of real numbers"),
        (words(backbone="resnet99"), "backbone='resnet99' is not a timm model"),
    ):
        assert main(given) == 1
        error = capfd.readouterr().err
        assert told.replace("./", "") in error.replace("./", "")
        assert error.count("\n") == 1
    assert not (place / "harm").exists()
    assert not list(place.glob("runs/*/linear-*"))
