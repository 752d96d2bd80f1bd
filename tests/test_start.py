"""A number stands for the file it was measured on: another one under the same name is told, and never mixed in."""

import json
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, compute_results, tiny
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from simclic import InputError, Linear, Run, Table, data
from simclic.__main__ import main
from simclic.data.images import Images
from simclic.experiment import Suite
from simclic.report.results import Results
from simclic.report.tables import build_sheet
from simclic.schedule.plan import plan
from simclic.store import results as store
from simclic.store.run_folder import RunFolder, runs_started_from
from simclic.train import loop, pretrain
from simclic.weights import card
from simclic.weights import init_weights as start
from simclic.weights import load as weights
from simclic.weights.card import Card

CPU = torch.device("cpu")
PROBE = Linear(l2_low=0.1, l2_count=2, tolerance=1e-2)
MINE = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "perturbation": "none", "epochs": 0}


def state(seed):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0).state_dict()


def work(run, runs):
    return compute_results(run, (PROBE,), runs)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A Run from a file of weights, with its result."""
    monkeypatch.chdir(tmp_path)
    torch.save(state(1), "mine.pth")
    run = Run(**MINE, init="./mine.pth")
    work(run, tmp_path / "runs")
    return run


def looked(run, runs):
    """What plan and report say of a Run's result."""
    table = Table(paper="table2", caption="", runs=(run,), protocols=(PROBE,))
    made = plan([Suite("", "", (table,), "x.py")], runs, runs)
    shown = build_sheet(table, Results(runs), ROOT / "nothing")
    ((_, (group,)),) = shown.blocks
    (cell,) = group.rows[0].cells
    return {job.name: (job.state, job.reason) for job in made.jobs.values()}, cell.text


def test_a_file_that_became_another_is_no_number_any_more(measured, tmp_path):
    runs = tmp_path / "runs"
    states, text = looked(measured, runs)
    assert {state for state, _ in states.values()} == {"done"}
    assert float(text) > 0
    torch.save(state(2), "mine.pth")
    told = f"init='./mine.pth': is not the file that {runs / measured.name} started from; move that folder away"
    states, text = looked(measured, runs)
    assert set(states.values()) == {("broken", told)}
    assert text == "–"
    (problem,) = store.results(runs)["problem"]
    assert problem == told
    with pytest.raises(InputError, match="is not the file that"):
        work(measured, runs)
    torch.save(state(1), "mine.pth")
    assert {state for state, _ in looked(measured, runs)[0].values()} == {"done"}
    os.remove("mine.pth")  # what it held is in the encoder
    assert {state for state, _ in looked(measured, runs)[0].values()} == {"done"}
    os.mkdir("mine.pth")
    assert {state for state, _ in looked(measured, runs)[0].values()} == {"done"}


def test_a_run_from_random_weights_reads_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "hash_file", lambda path: 1 / 0)
    run = Run(**MINE)
    work(run, tmp_path)
    assert RunFolder(tmp_path, run).check_run_json()


CARD = Card("MoCo v2", "nowhere", "0" * 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "symmetric", 71.1)


def keep(name, tensors, runs):
    return weights.write_imported(name, tensors, CARD, runs, partial(runs_started_from, runs, name))


def test_another_file_is_not_imported_over_what_runs_started_from(digits, tmp_path):
    runs = tmp_path / "runs"
    first = keep("moco-v2", state(1), runs)
    before = first.read_bytes()
    run = Run(**MINE, init="moco-v2")
    pretrain.pretrain(run, digits, runs, CPU)
    keep("moco-v2", state(1), runs)  # the same again changes nothing
    told = f"1 run under {runs} started from another file of this name ({run.name}); move their folders away, or choose another"
    with pytest.raises(InputError) as e:
        keep("moco-v2", state(2), runs)
    assert told in str(e.value)
    first.unlink()
    with pytest.raises(InputError, match="started from another file of this name"):
        keep("moco-v2", state(2), runs)  # nor once it is gone
    keep("moco-v2", state(1), runs)
    assert first.read_bytes() == before
    keep("swav", state(2), runs)
    (runs / run.name).rename(tmp_path / "away")
    keep("moco-v2", state(2), runs)
    assert first.read_bytes() != before


def test_tensors_that_share_their_storage_are_imported(tmp_path):
    tensors, flat = state(1), torch.arange(1e4)
    shared = {k: flat[: v.numel()].reshape(v.shape) for k, v in tensors.items() if k.endswith("running_mean")}
    with safe_open(keep("swav", tensors | shared, tmp_path), "pt") as file:
        assert all(file.get_tensor(k).equal(v) for k, v in shared.items())
    assert len(shared) > 1


def test_what_cannot_be_written_is_a_line_and_leaves_nothing(tmp_path):
    (tmp_path / "imported").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"cannot be written \(File exists\); choose another place with --runs DIR"):
        weights.write_imported("swav", state(1), CARD, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["imported"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"std": (0.25, 0.0, 0.25)}, "mean, std or padding"),
        ({"std": (0.25, 0.25)}, "mean, std or padding"),
        ({"mean": (float("nan"), 0, 0)}, "mean, std or padding"),
        ({"padding": "reflect"}, "mean, std or padding"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_a_card_that_is_none_is_refused(change, told, tmp_path):
    bad = replace(CARD, **change)
    save_file(state(1), tmp_path / "bad.safetensors", bad.metadata)
    with pytest.raises(InputError, match=rf"its card cannot be read \({told}\); import it again"):
        card.read_card(tmp_path / "bad.safetensors")


def test_a_card_of_a_resnet_s_padding_on_another_network_is_refused():
    with pytest.raises(InputError, match="padding='same' needs a ResNet, which this backbone is not"):
        card.pad(timm.create_model("test_vit", num_classes=0), "same")


def test_images_are_resized_as_timm_s_weights_expect(tmp_path, monkeypatch, capsys):
    """test_resnet.r160_in1k was trained with bilinear images. What it starts, evaluates and exports are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", partial(_create_trained, timm.create_model))
    run, seen = Run(**MINE, init="test_resnet.r160_in1k"), []
    prepare = Images.__init__
    monkeypatch.setattr(Images, "__init__", lambda self, *a, **k: prepare(self, *a, **k) or seen.append(self))
    work(run, tmp_path / "runs")
    folder = RunFolder(tmp_path / "runs", run)
    assert folder.encoder_record()["interpolation"] == "bilinear"
    assert {images.interpolation for images in seen} == {"bilinear"}
    pixels = torch.from_numpy(data.load("digits", "ericsson", tmp_path).images[:1])
    with Image.fromarray(pixels[0].permute(1, 2, 0).numpy()) as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(seen[-1].resize(pixels.float())[0].numpy() - expected).max() <= 1
    assert main(["export", run.name, "--out", "x.safetensors"]) == 0
    assert "images were resized by bilinear interpolation" in capsys.readouterr().out
    assert weights.read_expected_input("./x.safetensors", tmp_path).interpolation == "bilinear"
    record = folder.encoder_record()
    monkeypatch.setattr(RunFolder, "encoder_record", lambda self: {k: v for k, v in record.items() if k != "interpolation"})
    with pytest.raises(
        InputError, match="an earlier version with another mean, deviation or interpolation of the input than test"
    ):
        work(run, tmp_path / "runs")


def _create_trained(create, name, pretrained=False, **options):
    """As timm.create_model, with made-up weights in place of downloaded ones."""
    f = create(name.split(".")[0], **options)
    if pretrained:
        f.load_state_dict(state(3))
    return f


def test_what_is_exported_says_what_it_needs(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tiny()
    pretrain.pretrain(run, digits, tmp_path / "runs", CPU)
    assert main(["export", run.name]) == 0
    with safe_open(f"{run.name}.safetensors", "pt") as file:
        told = json.loads(file.metadata()["simclic.card"])
    assert told["method"] == run.label
    mean, std = data.facts("digits").mean, data.facts("digits").std
    assert (told["mean"], told["std"], told["padding"]) == ([*mean], [*std], "symmetric")
    (tmp_path / "runs/imported").mkdir()
    (tmp_path / "runs/.launches").mkdir()
    raw = Run(dataset="digits", backbone="pixels", image_size=16, perturbation="none", epochs=0)
    pretrain.pretrain(raw, digits, tmp_path / "runs", CPU)
    capsys.readouterr()
    for words, why in (
        (["export", raw.name], f"{raw.name}: raw pixels have no weights"),
        (["export", "nothing"], "runs/nothing: no such run; there are 2 others"),
        (["export", run.name, "--out", "x.pth"], "--out x.pth: must end in .safetensors"),
        (["export", run.name, "--out", "no/x.safetensors"], "no/x.safetensors: cannot be written (No such file or directory)"),
    ):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert why in captured.err
        assert captured.err.count("\n") == 1


def test_a_momentum_encoder_starts_from_the_same_weights(digits, tmp_path, monkeypatch):
    torch.save(state(1), tmp_path / "mine.pth")
    run = tiny(method="byol", hidden_dim=8, predictor_dim=512, init=str(tmp_path / "mine.pth"))
    seen = []

    def stop(training, *_):
        seen.append(training)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Training, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(run, digits, tmp_path, CPU)
    (training,) = seen
    for encoder in (training.model.backbone, training.model.target[0]):
        assert all(v.equal(state(1)[name]) for name, v in encoder.state_dict().items())
    assert len(training.init["init_sha256"]) == 64
