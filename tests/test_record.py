"""A record is a store without scores, weights and features: its report and its comparison are those of the whole store."""

import re
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from commands import simclic, told
from conftest import ROOT, tiny
from stored import measure

from simclic import Linear, load
from simclic.data.metrics import METRICS
from simclic.report.noise import compute_contributions, compute_difference
from simclic.report.results import Results
from simclic.store.record import read_record
from simclic.store.result_file import reduce_predictions
from simclic.store.results import results
from simclic.store.run_folder import RunFolder

GOLDEN = ROOT / "tests/golden"
RECORDS = sorted(path.parent for path in ROOT.glob("reports/records/*/record.json"))
MARK = "Recorded results: measured on "


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(name, *words):
    return ["record", name, *words, "--records", "records"]


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def golden():
    """A record of the golden store."""
    simclic(*record("golden", GOLDEN / "exhibits.py", "--runs", GOLDEN / "store"))
    return Path("records/golden")


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_every_record_is_whole_and_renders_marked_as_recorded(folder, tmp_path):
    about, stored = read_record(folder), results(folder)
    assert about["results"] == [f"{len(stored):,}"]
    assert not stored["problem"].any()
    assert {path.suffix for path in files_in(folder)} <= {".json", ".jsonl", ".npz"}
    with chdir(ROOT):
        simclic("report", *about["exhibits"], "--runs", folder, "--out", tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > stored["name"].nunique()
    assert all(MARK in page.read_text() for page in pages)


def measure_table(stem, index):
    """What a record says of the first protocol of an exhibit, by label."""
    record_folder = ROOT / "reports/records" / stem.replace("_", "-")
    table, stored = load(ROOT / f"benchmarks/{stem}.py").exhibits[index], Results(record_folder)
    jobs = [job for job in table.jobs if job.protocol and job.protocol == table.protocols[0]]
    return {job.run.label: stored.measure_jobs([j for j in jobs if j.run.label == job.run.label]) for job in jobs}


def format_error(m):
    return f"{m.value:.2f} ± {m.deviation:.2f}" if m.deviation else f"{m.value:.2f}"


def test_the_guide_gives_the_numbers_of_the_record_of_digits():
    measured, guide = measure_table("digits", 0), (ROOT / "benchmarks/README.md").read_text()
    assert len(measured) == 6
    for label, m in measured.items():
        less = compute_difference(m, measured["Untrained backbone"]) if label != "Untrained backbone" else ""
        assert f"\n| {label} | {format_error(m)} | {less}" in guide


@pytest.mark.parametrize("guide", ["README.md", "benchmarks/README.md"])
def test_the_guides_give_the_numbers_of_the_record_of_photographs(guide):
    measured = {label.removesuffix(" (trained here)"): m for label, m in measure_table("cifar10_jpeg", 1).items()}
    text = (ROOT / guide).read_text().split("### On digits")[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| \d? ?\| (\d[^|]*) \|", text, re.MULTILINE))
    assert len(rows) >= 10
    assert rows == {label: format_error(measured[label]) for label in rows}


def test_the_report_of_a_record_is_that_of_its_store_but_for_the_mark(golden):
    for runs, out in ((GOLDEN / "store", "store"), (golden, "record")):
        simclic("report", GOLDEN / "exhibits.py", "--runs", runs, "--out", out)
    store, recorded = files_in(Path("store")), files_in(Path("record"))
    assert store.keys() == recorded.keys()
    pages = [path for path in store if path.suffix == ".html"]
    assert len(pages) > 15
    for path in pages:
        lines = recorded[path].decode().splitlines()
        assert [line for line in lines if MARK not in line] == store[path].decode().splitlines()
        assert len([line for line in lines if MARK in line]) == 1
    assert all(store[path] == recorded[path] for path in store if path not in pages)


def test_a_run_that_reproduces_a_record_is_identical_and_another_is_not(finished, capsys):
    simclic(*record("fresh", finished / "table2.py", "--runs", finished / "runs"))
    code, out, _ = told(capsys, "compare", "records/fresh", finished / "runs")
    assert code == 0
    assert "6 cells compared: 0 changed, 0 perhaps, 0 within noise, 6 identical" in out
    measure(Path("runs"), tiny(), Linear(), 10)
    measure(Path("other"), tiny(), Linear(), 20)
    Path("mine.py").write_text(f"from simclic import Run, Table\nTABLE = Table(name='mine', caption='c', runs=({tiny()!r},))\n")
    simclic(*record("mine", "mine.py"))
    code, out, _ = told(capsys, "compare", "records/mine", "other")
    assert code == 1
    assert "1 cell compared: 1 changed" in out


@pytest.mark.parametrize("metric", METRICS)
def test_predicted_classes_or_ranks_say_of_an_error_what_the_scores_say(metric, tmp_path):
    rng = np.random.default_rng(0)
    for classes in (3, 300):
        scores = rng.integers(0, 50, (600, classes)).astype(np.float32) / 7  # with ties
        truth = rng.integers(-1, 2, scores.shape) if metric == "11-point mAP" else rng.integers(0, classes, 600)
        (tmp_path / "reduced.npz").write_bytes(reduce_predictions(truth, scores, metric))
        reduced = np.load(tmp_path / "reduced.npz")
        assert reduced["scores"].itemsize <= 2
        assert (reduced["truth"] == truth).all()
        a, b = compute_contributions(truth, scores, metric), compute_contributions(reduced["truth"], reduced["scores"], metric)
        assert (a == b).all()
        assert len(set(a)) > 1


def test_a_record_says_what_failed_and_not_where_its_log_was(golden, monkeypatch):
    failure = RunFolder(golden, "digits-noise-3d8642bbeb").failure_record("pretrain")
    assert failure["reason"].startswith("diverged:")
    monkeypatch.setenv("SIMCLIC_LOG", "/somewhere/log.txt")
    measure(Path("runs"), tiny(), Linear(), 10)
    RunFolder(Path("runs"), tiny(seed=1)).create_folder("d1").record_failure("pretrain", "the loss is nan")
    runs = f"runs=({tiny()!r}, {tiny(seed=1)!r})"
    Path("mine.py").write_text(f"from simclic import Run, Table\nTABLE = Table(name='mine', caption='c', {runs})\n")
    assert ": 1 of 2 results of 1 encoder, " in simclic(*record("mine", "mine.py"))
    failure = RunFolder(Path("records/mine"), tiny(seed=1)).failure_record("pretrain")
    assert (failure["reason"], failure["log"]) == ("the loss is nan", "")


def test_recording_again_changes_nothing_and_a_record_can_be_recorded(golden):
    before, words = files_in(golden), (GOLDEN / "exhibits.py", "--runs")
    simclic(*record("golden", *words, GOLDEN / "store"))
    simclic(*record("copy", *words, golden))
    assert files_in(golden) == files_in(Path("records/copy")) == before
    assert sorted(path.name for path in Path("records").iterdir()) == ["copy", "golden"]


def test_another_record_of_that_name_is_never_written_over(golden, capsys):
    shutil.copytree(GOLDEN / "store", "runs")
    shutil.rmtree("runs/digits-pixels-632037373e")
    before = files_in(golden)
    code, out, err = told(capsys, *record("golden", GOLDEN / "exhibits.py"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "error: records/golden: differs from these results in digits-pixels-632037373e/" in err
    assert err.endswith(" and 6 more; choose another name, or delete it first\n")
    assert files_in(golden) == before


def test_a_record_is_only_read_and_what_was_altered_in_it_is_broken(golden, capsys):
    before = files_in(golden)
    for words in (["run"], ["calibrate"], ["gc", "--runs-too", "--yes"]):
        code, _, err = told(capsys, *words, ROOT / "benchmarks/digits.py", "--runs", golden)
        assert (code, err.count("\n")) == (2, 1)
        assert "records/golden: is a record, which is only read; choose another place with --runs DIR" in err
    code, _, err = told(capsys, "export", "digits-noise-571fd1b713", "--runs", golden)
    assert (code, err.count("\n")) == (2, 1)
    assert "backbone.safetensors: is missing, as in every record of results" in err
    assert files_in(golden) == before
    path = next(golden.glob("digits-noise-*/linear-*.npz"))
    path.write_bytes(reduce_predictions(np.zeros(360, int), np.eye(10)[np.ones(360, int)], "top-1"))
    code, out, _ = told(capsys, "compare", golden, GOLDEN / "store")
    assert code == 1
    assert f"{path.with_suffix('.json')}: its predictions {path.name} are missing or altered" in out


def test_every_mistake_is_one_line(capsys):
    exhibits, store = GOLDEN / "exhibits.py", GOLDEN / "store"
    shutil.copytree(store, "broken")
    Path("none yet").mkdir()
    path = sorted(Path("broken").glob("*/linear-*.npz"))[0]
    path.write_bytes(b"")
    for words, expected in (
        ((exhibits, "golden"), f"NAME='{exhibits}': use small letters, digits, - and _, such as digits"),
        (("golden", "golden"), "golden: no such exhibit file"),
        (("../up", exhibits), "NAME='../up': use small letters, digits, - and _, such as digits"),
        (("golden", exhibits), f"runs: holds no result of {exhibits}; run: simclic run {exhibits}"),
        (("golden", exhibits, "--runs", "none yet"), f"run: simclic run {exhibits} --runs 'none yet'"),
        (("golden", exhibits, "--runs", "broken"), f"its predictions {path.name} are missing or altered"),
    ):
        code, out, err = told(capsys, *record(*words))
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert expected in err
    assert not Path("records").exists()
