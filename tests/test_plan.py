"""What is asked, shared, done and missing."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, tiny
from stored import publish

from simclic import InputError, Knn, Linear, Run, Table, load
from simclic.experiment import Suite
from simclic.experiment.exhibit import PAPER_EXHIBITS
from simclic.schedule.plan import list_runnable_results, plan
from simclic.store.run_folder import RunFolder


def suite(*runs, **options):
    return Suite("", "", (Table(name="small", caption="", runs=runs, **options),), "benchmarks/x.py")


def test_shared_jobs_are_counted_once(tmp_path):
    suites = [load(ROOT / f"benchmarks/table{n}.py") for n in (4, 5, 6)]
    made = plan(suites, tmp_path, tmp_path)
    lines = {(ln.exhibit, ln.stage): ln for ln in made.lines}
    assert (lines["table4", "pretrain"].asked, lines["table4", "pretrain"].shared) == (4, 0)
    assert (lines["table5", "pretrain"].asked, lines["table5", "pretrain"].shared) == (2, 1)
    total = made.sum_stages()[-1]
    assert (total.asked, total.shared, total.done, total.missing) == (16, 4, 0, 12)
    assert len({job.run for job in made.open_results}) == 6
    assert "CIFAR10 is not there" in made.absent["cifar10"]


def test_the_whole_paper_asks_for_122_and_needs_109_besides_the_control(tmp_path):
    made = plan([load(ROOT / f"benchmarks/{name}.py") for name in sorted(PAPER_EXHIBITS)], tmp_path, tmp_path)
    pretrain = made.sum_stages()[0]
    assert (pretrain.stage, pretrain.asked, pretrain.asked - pretrain.shared) == ("pretrain", 122 + 11, 109 + 11)


def test_what_is_done_is_not_asked_again(tmp_path):
    linear = Linear()
    publish(tmp_path, tiny(), linear)
    made = plan([suite(tiny(), tiny(perturbation="history"))], tmp_path, tmp_path)
    assert [job.run.perturbation for job in made.open_results] == ["history"]
    assert {(ln.stage, ln.done, ln.missing) for ln in made.lines} == {("pretrain", 1, 1), ("linear", 1, 1)}


def test_failed_and_broken_are_told_apart(tmp_path):
    publish(tmp_path, tiny(), Linear()).write_text("{")
    RunFolder(tmp_path, tiny(perturbation="history")).create_folder("d1")
    RunFolder(tmp_path, tiny(perturbation="history")).record_failure("pretrain", "the loss is nan")
    made = plan([suite(tiny(), tiny(perturbation="history"))], tmp_path, tmp_path)
    assert {line.stage: line.failed for line in made.lines} == {"pretrain": 1, "linear": 1}
    assert [job.run.perturbation for job in made.open_results] == ["history"]  # tried again; the broken file is left alone
    assert sum("is not a whole JSON file" in r for r in made.job_problems.values()) == 1
    assert sum("the loss is nan" in r for r in made.job_problems.values()) == 1


SPELLINGS = {"birds": ("./birds", "birds/", "./birds/", "HERE/birds"), "birds/**": ("./birds/**", "birds/**", "HERE/birds/**")}


@pytest.fixture(params=SPELLINGS)
def spellings(tmp_path, monkeypatch, request):
    """All ways to write a folder of images, with and without labels."""
    monkeypatch.chdir(tmp_path)
    for kind in ("gull", "wren"):
        (tmp_path / "birds" / kind).mkdir(parents=True)
        (tmp_path / "birds" / kind / "1.png").touch()
    return [text.replace("HERE", str(tmp_path)) for text in SPELLINGS[request.param]]


def test_a_folder_is_written_as_in_the_store(spellings, tmp_path):
    for first in spellings:
        publish(tmp_path / first.replace("/", "-"), tiny(dataset=first), Knn(on="digits"))
        for text in spellings:
            asked = suite(tiny(dataset=text), protocols=(Knn(on="digits"),))
            job_plan = plan([asked], tmp_path / first.replace("/", "-"), tmp_path)
            problem = f"{text}: the folder of {tiny(dataset=first).name}/pretrain, which writes it {first!r}; write it so, too"
            assert job_plan.absent == ({} if text == first else {text: problem})


def test_a_folder_is_written_in_one_way_in_what_is_asked(spellings, tmp_path):
    runs = [tiny(), *(tiny(dataset=text) for text in spellings)]
    job_plan = plan([suite(run, protocols=(Knn(on="digits"),)) for run in runs], tmp_path, tmp_path)
    assert [*job_plan.absent] == spellings[1:]
    assert {job.run for job in list_runnable_results(job_plan)} == set(runs[:2])


def test_what_a_protocol_evaluates_on_is_written_as_in_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish(tmp_path, tiny(), Knn(on="./birds"))
    for text in SPELLINGS["birds"]:
        absent = plan([suite(tiny(), protocols=(Knn(on=text.replace("HERE", str(tmp_path))),))], tmp_path, tmp_path).absent
        assert ["which writes it './birds'; write it so, too" in problem for problem in absent.values()] == [text != "./birds"]


def test_names_of_runs_on_folders_stay():
    names = {text: Run(dataset=text).name for text in ("./birds", "./birds/**", "data/cifar10-jpeg")}
    assert names == {
        "./birds": "birds-noise-19718958b8",
        "./birds/**": "birds-noise-9c5d65cdd7",
        "data/cifar10-jpeg": "cifar10-jpeg-noise-fd93d432b9",
    }


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="dataset='cifar' is not one of"):
        plan([suite(tiny(dataset="cifar"))], tmp_path, tmp_path)


def test_planning_the_paper_imports_neither_torch_nor_pandas(tmp_path):
    script = """if True:
        import sys
        from simclic.__main__ import main
        main(sys.argv[1:])
        print({"torch", "pandas", "matplotlib", "sklearn"} & set(sys.modules), file=sys.stderr)
    """
    files = [str(p) for p in sorted(ROOT.glob("benchmarks/*.py"))]
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", "--json", "--runs", str(tmp_path), *files],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "set()"
    assert json.loads(done.stdout)["totals"][0]["stage"] == "pretrain"
