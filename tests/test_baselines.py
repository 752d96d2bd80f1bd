"""Stored, measured again, and new: the 13 through probe and grid into Table 2, a method of one's own, a backbone to take away."""

import csv
import json
import re

import official
import pytest
import timm
import torch
from conftest import NUMBERS, ROOT, compute_results, tiny
from safetensors.torch import load_file, save
from stored import publish

from simclic import Finetune, InputError, Linear, Table, grid, load
from simclic.__main__ import main
from simclic.experiment import ComputeOptions, Suite
from simclic.experiment.baselines import IMPORTED, METHODS
from simclic.report import render
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint, pretrain
from simclic.weights.card import Card, pad

PROBE = Linear(l2_low=0.1, l2_count=3, tolerance=1e-2)
TUNE = Finetune(steps=1, batch_size=4, lr_high=1e-4, lr_count=1, decay_count=0, augment="none", precision="float32")
CPU = torch.device("cpu")


def sheet(path):
    """A table's CSV: (protocol, source, method) -> column -> text."""
    rows = csv.DictReader(path.read_text().splitlines())
    return {(row["protocol"], row["source"], row["method"]): row for row in rows}


# One padded as torchvision is and one as TensorFlow; test_import.py has all 13.
FAMILIES = ("moco-v2", "byol")


def test_methods_measured_again_stand_beside_what_is_stored(eleven, tmp_path):
    runs = tmp_path / "runs"
    for seed, name in enumerate(FAMILIES):
        file = official.write(name, tmp_path, official.trained(seed).state_dict())
        assert main(["import", name, str(file), "--runs", str(runs)]) == 0
    made = grid(dataset="cifar10", init=FAMILIES, perturbation="none", epochs=0, image_size=32)
    table = Table(paper="table2", caption="Again", runs=made, protocols=(PROBE, TUNE))
    for run in made:
        compute_results(run, table.protocols, runs, eleven)
    render([Suite("", "", (table,), "x.py")], runs, tmp_path / "out")
    found = sheet(tmp_path / "out/table2.csv")
    for protocol in table.protocols:
        for run in made:
            error = RunFolder(runs, run).read_result(protocol)["error"]
            stored = found[protocol.title, "As printed in the paper", run.label]["CIFAR10"]
            assert found[protocol.title, "Run here", run.label]["CIFAR10"] == f"{error:.2f}"
            less = found[protocol.title, "Run here less printed", run.label]["CIFAR10"]
            assert float(less) == pytest.approx(error - float(stored), abs=0.006)
    for kind in ("html", "md", "tex"):
        assert "Run here less printed" in (tmp_path / f"out/table2.{kind}").read_text()


def test_the_exhibit_asks_for_each_of_the_13_and_the_three_as_stored():
    (table,) = load(ROOT / "benchmarks/baselines.py").exhibits
    assert {run.init for run in table.runs} == set(IMPORTED)
    assert len(table.runs) == 16 * 11
    assert [p.title for p in table.protocols] == ["Linear evaluation", "Fine-tuned", "Linear evaluation, as published"]
    assert {run.label for run in table.runs if run.init in METHODS} == set(METHODS.values())


def test_a_conversion_padded_as_stored_is_compared_with_the_stored_row(tmp_path):
    (run,) = grid(dataset="cifar10", init="byol-as-stored", perturbation="none", epochs=0)
    publish(tmp_path / "runs", run, Linear(), error=6.0)
    render([Suite("", "", (Table(paper="table2", caption="", runs=(run,)),), "x.py")], tmp_path / "runs", tmp_path / "out")
    found = sheet(tmp_path / "out/table2.csv")
    less = found["Linear evaluation", "Run here less printed", "BYOL (padded as stored)"]
    assert (less["CIFAR10"], less["Cars"]) == ("-0.74", "–")


def test_a_file_of_numbers_is_a_row_of_table_2_with_mark_rank_and_significance(tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "baselines/methods").mkdir(parents=True)
    (source / "reports").symlink_to(ROOT / "reports")
    for path in (ROOT / "baselines").glob("*.csv"):
        (source / "baselines" / path.name).symlink_to(path)
    (source / "baselines/methods/mine.csv").write_text(NUMBERS)
    monkeypatch.setattr("simclic.report.formats.SOURCE", source)
    render([load(ROOT / "benchmarks/table2.py")], tmp_path / "runs", tmp_path / "out")
    found = sheet(tmp_path / "out/table2.csv")
    row = found["Linear evaluation", "Added", "Mine"]
    assert (row["Aircraft"], row["CIFAR10"], row["Flowers"], row["Cars"]) == ("45.40", "5.98", "–", "–")
    where = "Rank among the printed rows, p against the best of them"
    assert found["Linear evaluation", where, "Mine"]["Aircraft"] == "1 of 17, p .93"
    assert found["Linear evaluation", where, "Mine"]["CIFAR10"] == "3 of 17, p .85"  # as for 5.92 and 5.98
    assert found["Fine-tuned", where, "Mine"]["CIFAR10"].startswith("1 of 17, p ")
    text = (tmp_path / "out/table2.md").read_text()
    assert "| Mine | – | **45.40** |" in text
    assert "**45.51**" in text  # the paper's own marks stay
    assert "Added: Mine: Doe 2026, Table 3; pre-trained on ImageNet-1k; test." in text
    for kind in ("html", "tex"):
        assert "Mine" in (tmp_path / f"out/table2.{kind}").read_text()


def test_numbers_that_are_none_of_the_test_images_are_ranked_without_a_p_value(tmp_path, monkeypatch):
    place = tmp_path / "baselines/methods"
    place.mkdir(parents=True)
    for path in (ROOT / "baselines").glob("*.csv"):
        (tmp_path / "baselines" / path.name).symlink_to(path)
    (place / "mine.csv").write_text(NUMBERS.replace("# split: test", "# split: validation"))
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    monkeypatch.setattr("simclic.report.formats.SOURCE", tmp_path)
    render([load(ROOT / "benchmarks/table2.py")], tmp_path / "runs", tmp_path / "out")
    found = sheet(tmp_path / "out/table2.csv")
    where = "Rank among the printed rows, p against the best of them"
    assert found["Linear evaluation", where, "Mine"]["CIFAR10"] == "3 of 17"
    assert "validation, without p-values" in (tmp_path / "out/table2.md").read_text()
    honest = sheet(tmp_path / "out/table2-honest.csv")
    assert honest["Linear evaluation", "Added", "Mine"]["CIFAR10"] == "5.98"
    assert "**5.98**" not in next(r for r in (tmp_path / "out/table2-honest.md").read_text().splitlines() if "Mine" in r)


def test_what_is_exported_has_equal_features_in_timm(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tiny()
    f = pretrain.pretrain(run, digits, tmp_path / "runs", CPU)
    assert main(["export", run.name[:10]]) == 0
    assert f"{run.name}.safetensors: " in capsys.readouterr().out
    model = timm.create_model(run.backbone, num_classes=0).eval()
    model.load_state_dict(load_file(f"{run.name}.safetensors"))
    x = pretrain.prepare_images(run, digits, tmp_path / "runs", CPU)(torch.arange(8))
    with torch.no_grad():
        assert (model(x) - f(x)).abs().max() < 1e-6
    (tmp_path / "runs" / run.name / "pretrain.json").unlink()
    for words, told in (
        (["export", "nothing"], "runs/nothing: no such run; there are 1 others"),
        (["export", run.name], "has no trained backbone yet"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err


def test_what_is_exported_is_a_start_for_others(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = pretrain.pretrain(tiny(), digits, tmp_path / "runs", CPU)
    assert main(["export", tiny().name, "--out", "mine.safetensors"]) == 0
    (control,) = grid(
        dataset="digits", backbone="test_resnet", image_size=16, init="mine.safetensors", perturbation="none", epochs=0
    )
    again = pretrain.pretrain(control, digits, tmp_path / "runs", CPU)
    x = torch.randn(2, 3, 16, 16)
    assert first(x).equal(again(x))
    assert tiny(init="mine.safetensors").label == "SimCLIC (noise) from mine"
    assert json.loads((tmp_path / "runs" / control.name / "pretrain.json").read_text())["padding"] == "symmetric"


def test_the_readme_s_file_for_a_checkpoint_makes_a_ranked_row(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "baselines/README.md").read_text(), re.S)
    (code,) = [block for block in blocks if "with a method of my own" in block]
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    suite = load("mine.py")
    (run,) = [r for r in suite.exhibits[0].runs if r.label == "mine" and r.dataset == "cifar10"]
    publish(tmp_path / "runs", run, Linear(), error=5.95, images=10_000)
    render([suite], tmp_path / "runs", tmp_path / "out")
    found = sheet(next((tmp_path / "out").rglob("table2.csv")))
    assert found["Linear evaluation", "Run here", "mine"]["CIFAR10"] == "5.95"
    where = "Rank among the printed rows, p against the best of them"
    assert found["Linear evaluation", where, "mine"]["CIFAR10"] == "2 of 17, p .93"


def test_training_from_weights_with_a_card_pads_as_it_says_and_resumes_so(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    card = Card("Mine", "nowhere", "", (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), "same", 1.0)
    (tmp_path / "mine.safetensors").write_bytes(save(state, card.metadata))
    run = tiny(init="mine.safetensors", batch_size=256)
    (tmp_path / "mine.safetensors").rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"init='mine\.safetensors': cannot be read"):
        pretrain.pretrain(run, digits, tmp_path / "gone", CPU)
    (tmp_path / "away").rename(tmp_path / "mine.safetensors")
    whole = pretrain.pretrain(run, digits, tmp_path / "whole", CPU, options=ComputeOptions(minutes=0))
    pads = [type(m).__name__ for m in whole.modules() if type(m).__name__.endswith("Same")]
    assert len(pads) > 1
    assert pretrain.prepare_images(run, digits, tmp_path / "whole", CPU).std.flatten().tolist() == [0.5] * 3
    save_one, saves = checkpoint.save, []

    def dies(path, content):
        save_one(path, content)
        saves.append(content["step"])
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain(run, digits, tmp_path / "broken", CPU, options=ComputeOptions(minutes=0))
    resumed = pretrain.pretrain(run, digits, tmp_path / "broken", CPU)
    assert json.loads((tmp_path / "broken" / run.name / "pretrain.json").read_text())["resumed"] == [3]
    assert all(a.equal(b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    x = torch.randn(2, 3, 16, 16)
    assert whole(x).equal(resumed(x))
    (tmp_path / "mine.safetensors").unlink()  # what it was started from is recorded
    assert pretrain.prepare_images(run, digits, tmp_path / "whole", CPU).std.flatten().tolist() == [0.5] * 3
    assert main(["export", run.name, "--runs", "whole", "--out", "out.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "deviation [0.5, 0.5, 0.5]" in text
    assert 'simclic.weights.card.pad(model, "same")' in text
    plain = timm.create_model("test_resnet", num_classes=0).eval()
    plain.load_state_dict(load_file("out.safetensors"))
    with torch.no_grad():
        assert not plain(x).allclose(whole(x), atol=1e-3)
        pad(plain, "same")
        assert plain(x).equal(whole(x))
