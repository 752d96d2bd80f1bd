"""Watching it learn: rank, probe, collapse, the terminal and the page."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import told
from conftest import tiny
from sklearn.linear_model import RidgeClassifier

from simclic import Table, load
from simclic.cli.watch import find_run_folder, sparkline
from simclic.data.images import Images
from simclic.experiment import ComputeOptions, Suite
from simclic.files import read_json, write_json
from simclic.methods.base import Step
from simclic.report import render
from simclic.store.run_folder import RunFolder
from simclic.train import loop, pretrain, watch

CPU = torch.device("cpu")


def test_effective_rank_of_known_matrices():
    assert watch.effective_rank(torch.eye(20)) == pytest.approx(20, rel=1e-3)
    assert watch.effective_rank(torch.ones(50, 8)) == pytest.approx(1, abs=0.01)
    z = torch.randn(100, 30, generator=torch.Generator().manual_seed(0))
    p = np.linalg.svd(z.numpy(), compute_uv=False)
    p = p / p.sum()
    assert watch.effective_rank(z) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert watch.effective_rank(z.T) == pytest.approx(watch.effective_rank(z), rel=1e-4)


def test_the_probe_is_ridge_regression_on_images_of_train_alone(digits):
    pixels = torch.from_numpy(digits.images.reshape(len(digits.images), -1)[:, :64]).float()
    index = torch.from_numpy(digits.splits.train[:600])
    error = watch.ridge_probe_error(pixels[index], index, digits)
    x = pixels[index].numpy()
    x = (x - x[:400].mean(0)) / (x[:400].std(0, ddof=1) + 1e-6)
    y = digits.labels[index]
    ridge = RidgeClassifier(alpha=40.0).fit(x[:400], y[:400])
    assert error == pytest.approx(100 * (ridge.predict(x[400:]) != y[400:]).mean(), abs=2.5)
    assert error < 25  # chance is 90
    mixed = torch.cat([index, torch.from_numpy(digits.splits.val[:300])])
    assert watch.ridge_probe_error(pixels[mixed], mixed, digits) == error  # val has no say
    assert watch.ridge_probe_error(pixels[index[:5]], index[:5], digits) is None


def test_the_window_holds_the_last_images_of_an_epoch(monkeypatch):
    monkeypatch.setattr(watch, "PROBE_IMAGES", 10)
    monkeypatch.setattr(watch, "RANK_IMAGES", 4)
    seen = watch.Watch(3, 5, CPU)
    for k in range(4):  # four batches of four: the last ten of sixteen
        index = torch.arange(4 * k, 4 * k + 4)
        z = index[:, None].float().expand(4, 5)
        seen.add_step(Step(torch.tensor(0.0), z, index[:, None].float().expand(4, 3)), index, 12 - 4 * k)
    assert seen.index.tolist() == list(range(6, 16))
    assert seen.features[:, 0].tolist() == list(range(6, 16))
    assert seen.z[:, 0].tolist() == [12, 13, 14, 15]


def last(digits, tmp_path, **changes):
    run = tiny(projector_dim=256, base_lr=0.4, **changes)
    pretrain.pretrain(run, digits, tmp_path, CPU)
    return read_json(tmp_path / run.name / "pretrain.json")


def test_without_stop_gradient_it_collapses_and_the_record_says_so(digits, tmp_path):
    whole = last(digits, tmp_path, epochs=10, predictor_dim=64)
    fallen = last(digits, tmp_path, epochs=10, predictor_dim=64, stop_gradient=False)
    assert whole["collapsed"] == ""
    assert fallen["collapsed"].startswith("the representations fill few dimensions: effective rank ")
    assert fallen["last"]["loss"] < whole["last"]["loss"]  # a low loss is no evidence
    assert fallen["last"]["probe"] > whole["last"]["probe"]


def test_one_representation_for_all_is_collapse():
    row = {"spread": 0.01, "rank": 30.0, "rank_of": 256}
    assert watch.explain_collapse(row).startswith("all images have nearly one representation")
    assert watch.explain_collapse(row | {"spread": 0.9}) == ""
    assert watch.explain_collapse({}) == ""


def test_images_that_stay_in_the_file_are_the_same(digits):
    there, here = Images(digits, 16, CPU), Images(digits, 16, CPU, resident=False)
    batches = list(torch.randperm(200).split(32))
    for (x, i), (y, j), index in zip(there.stream(batches), here.stream(batches), batches, strict=True):
        assert x.equal(y)
        assert i.equal(j)
        assert i.equal(index)
    assert here(batches[0]).equal(there(batches[0]))


def test_a_compiler_that_does_not_work_is_done_without(digits, tmp_path, monkeypatch, capsys):
    def broken(self, *_, **__):
        raise RuntimeError("no compiler here\nlong trace")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    images = Images(digits, 16, CPU)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    f, record = loop.train(
        tiny(epochs=1), digits, images, RunFolder(tmp_path, "a"), lambda share, note: None, options=ComputeOptions(compile=True)
    )
    assert record["compiled"] == "no: no compiler here"
    assert "warning: torch.compile does not work here (no compiler here); training without it" in capsys.readouterr().err
    g, _ = loop.train(tiny(epochs=1), digits, images, RunFolder(tmp_path, "b"), lambda share, note: None)
    assert all(a.equal(b) for a, b in zip(f.state_dict().values(), g.state_dict().values(), strict=True))


def test_watch_draws_the_curves(digits, tmp_path, capsys):
    pretrain.pretrain(tiny(), digits, tmp_path, CPU)
    code, out, _ = told(capsys, "watch", tiny().name[:15], "--runs", tmp_path)
    assert code == 0
    assert f"{tiny().name}: epoch 2 of 2, done" in out
    assert all(name in out for name in ("loss", "probe", "rank", "spread", "cos(z, g(z))", "images/s", "█"))
    with open(tmp_path / tiny().name / "log.jsonl", "a") as f:
        f.write('{"epoch": 3, "lo')  # being written
    assert told(capsys, "watch", tmp_path / tiny().name)[0] == 0
    code, _, err = told(capsys, "watch", "nothing", "--runs", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing: no such run" in err
    pretrain.pretrain(tiny(seed=1), digits, tmp_path, CPU)
    assert "more than one run" in told(capsys, "watch", "digits", "--runs", tmp_path)[2]
    assert find_run_folder(tmp_path, tiny().name) == tmp_path / tiny().name


def test_a_run_is_named_by_its_first_letters_though_a_folder_of_images_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunFolder(Path("runs"), tiny()).create_folder("d1")
    Path("digits").mkdir()
    for name in ("digits", f"{tiny().name}/", f"runs/{tiny().name}", f"runs/{tiny().name}/"):
        assert find_run_folder(Path("runs"), name).samefile(f"runs/{tiny().name}")
    monkeypatch.chdir("runs")
    assert find_run_folder(Path("runs"), tiny().name).samefile(tiny().name)


def test_a_sparkline_goes_from_lowest_to_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0], 8) == "▄"
    assert len(sparkline(list(range(1000)), 40)) == 40


def test_the_report_has_a_page_for_each_run_with_its_curves(finished):
    pages = list((finished / "reports/out/runs").glob("*.html"))
    assert {page.stem for page in pages} == {job.run.name for job in load(finished / "table2.py").jobs}
    (page,) = [page for page in pages if "-noise-" in page.stem]
    text = page.read_text()
    assert text.count("<polyline points=") == 7 + 1  # and that of the linear probe
    assert '<th scope="row">Linear evaluation</th>' in text
    assert ">stop_gradient<" in text
    assert "effective rank of z: between " in text
    assert f'<a href="runs/{page.name}">' in (finished / "reports/out/encoders.html").read_text()
    record = json.loads((finished / "runs" / page.stem / "pretrain.json").read_text())
    assert (record["compiled"], record["deterministic"], record["resumed"]) == ("no", False, [])


def test_diverged_and_collapsed_stand_in_the_tables(tmp_path, linear):
    from stored import publish

    runs, wild, fallen = tmp_path / "runs", tiny(base_lr=1e30), tiny(perturbation="history")
    RunFolder(runs, wild).create_folder("d1")
    RunFolder(runs, wild).record_failure("pretrain", "diverged: the loss is not finite at step 3")
    publish(runs, fallen, linear)
    path = RunFolder(runs, fallen).result_path(linear)
    values = read_json(path)
    write_json(path, values | {"collapsed": "the representations fill few dimensions"})
    suite = Suite("", "", (Table(paper="table2", caption="", runs=(wild, fallen), protocols=(linear,)),), "x.py")
    render([suite], runs, tmp_path / "out")
    text = (tmp_path / "out/table2.md").read_text()
    assert "| SimCLIC (noise) | diverged |" in text
    assert f"collapsed: {fallen.name}, the representations fill few dimensions" in text


def test_probe_and_fine_tuning_take_images_from_wherever_they_are(digits, small, linear, tmp_path):
    from simclic.evaluate.finetune import FinetuneTask, GridProgress, finetune
    from simclic.evaluate.linear.frozen import extract_features
    from simclic.methods.backbones import build_backbone

    f = build_backbone(tiny()).eval().requires_grad_(False)
    RunFolder(tmp_path, tiny()).create_folder("data")
    scored = []
    for images in (Images(digits, 16, CPU), Images(digits, 16, CPU, resident=False)):
        tuned = finetune(FinetuneTask(small, f, digits, images, 0), GridProgress(tmp_path, tiny(), small))
        (tmp_path / tiny().name / f"partial-{small.name}.json").unlink()
        scored.append((extract_features(linear, f, images), tuned[2]))
    assert all((a == b).all() for a, b in zip(*scored, strict=True))
