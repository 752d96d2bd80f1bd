"""The verbs as a user meets them: answers, and one clear line for each mistake."""

import io
import json
import re
import resource
import subprocess
import sys

import pytest
from commands import told
from conftest import EXHIBIT, ROOT, tiny
from stored import publish

from simclic import Linear
from simclic.__main__ import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('dataset="digits"', 'dataset="digit"', "dataset='digit' is not one of"),
        ('("noise", "dropout", "history")', '"noize"', "perturbation='noize' is not one of history, dropout, noise, none"),
        ("epochs=2", "epoch=2", "'epoch' is not a field of Run; did you mean 'epochs'?"),
        ('("noise", "dropout", "history")', '"noise", tau=0.5', "tau=0.5 has no effect with perturbation='noise'"),
        ('("noise", "dropout", "history")', '"history", tau=1.0', "tau=1.0 is out of range: it must lie in [0, 1)"),
        ('("noise", "dropout", "history")', '"dropout", p=1.1', "p=1.1 is out of range: it must lie in [0, 1]"),
        ("TABLE = Table(", "TABLE = Table((", "table2.py:4: '(' was never closed"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run", "status", "report"])
def test_a_mistake_in_an_exhibit_is_one_line(here, capsys, verb, old, new, message):
    assert old in EXHIBIT
    (here / "table2.py").write_text(EXHIBIT.replace(old, new))
    code, _, err = told(capsys, verb, "table2.py")
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (here / "runs").exists()


def test_an_exhibit_that_is_not_there(here, capsys):
    code, _, err = told(capsys, "run", ROOT / "benchmarks/tabel2.py")
    assert (code, err.count("\n")) == (2, 1)
    assert "no such exhibit file; did you mean" in err


def test_a_backbone_that_timm_does_not_know(here, capsys):
    (here / "table2.py").write_text(EXHIBIT.replace("test_resnet", "test_resnett"))
    code, _, err = told(capsys, "run", "table2.py")
    assert code == 1
    assert err.startswith("error: backbone='test_resnett' is not a timm model; did you mean test_resnet or ")
    assert err.endswith("? (3 runs)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--runs", "--out"])
def test_a_folder_that_cannot_be_written(here, capsys, flag):
    (here / "table2.py").write_text(EXHIBIT)
    (here / "file").write_text("")
    code, _, err = told(capsys, "run", "table2.py", flag, "file/below")
    assert (code, err.count("\n")) == (2, 1)
    assert f"cannot be written (Not a directory); choose another place with {flag} DIR" in err


@pytest.mark.parametrize("words", [("report", "--out", "out"), ("record", "mine", "--records", "records")])
def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(here, capsys, words):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        code, _, err = told(capsys, *words, ROOT / "tests/golden/exhibits.py", "--runs", ROOT / "tests/golden/store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written (File too large); free some space, or choose another place" in err
    assert all(path.stat().st_size < 2000 and not path.name.startswith(".") for path in here.rglob("*") if path.is_file())


def test_a_data_set_that_is_not_there_is_one_line_each(here, capsys):
    code, _, err = told(capsys, "run", ROOT / "benchmarks/table4.py", "--data", "elsewhere")
    assert (code, err) == (
        2,
        "error: elsewhere/cifar-10-batches-py: CIFAR10 is not there; run: simclic data prepare cifar10 --data elsewhere\n",
    )
    code, _, err = told(capsys, "run", ROOT / "benchmarks/table2.py")
    assert (code, err.count("\n")) == (2, 11)


def test_a_corrupt_result_is_listed_under_its_table_and_never_a_number(here, capsys):
    text = EXHIBIT.replace('("noise", "dropout", "history")', '"noise"').replace(
        '\n               Finetune(steps=3, lr_count=1, decay_count=0, augment="none", precision="float32")),', "),"
    )
    (here / "table2.py").write_text(text)
    protocol = Linear(l2_low=0.1, l2_count=3, tolerance=1e-3)
    path = publish(here / "runs", tiny(), protocol, error=12.34)
    assert told(capsys, "report", "table2.py")[0] == 0
    assert "12.34" in (here / "reports/out/table2.md").read_text()
    path.write_text(path.read_text()[:-40])
    for verb in ("report", "run"):
        code, _, err = told(capsys, verb, "table2.py")
        assert code == 1
        assert f"{path.relative_to(here)}: is not a whole JSON file" in err
        for kind in ("html", "md", "tex", "csv"):
            printed = (here / f"reports/out/table2.{kind}").read_text()
            assert "12.34" not in printed
            assert ("is not a whole JSON file" in printed) == (kind != "csv")
    assert told(capsys, "status", "table2.py")[0] == 1


def test_plan_and_status_answer_for_people_and_programs(here, capsys):
    (here / "table2.py").write_text(EXHIBIT)
    code, out, _ = told(capsys, "plan", "table2.py")
    assert code == 0
    assert "pretrain" in out
    code, out, _ = told(capsys, "plan", "table2.py", "--json")
    answer = json.loads(out)
    assert answer["totals"][0].pop("hours") > 0
    assert answer["totals"][0] | {"exhibit": ""} == {
        "exhibit": "", "stage": "pretrain", "asked": 3, "shared": 0, "done": 0, "failed": 0, "missing": 3
    }  # fmt: skip
    assert len(answer["missing"]) == 3
    code, out, _ = told(capsys, "status", "table2.py", "--json")
    assert (code, json.loads(out)["total"]["missing"]) == (0, 9)
    code, out, _ = told(capsys, "status", "table2.py")
    assert re.search(r"all, each job once +│ +│ +· │ +9 │", out)
    (here / "table2.py").write_text(EXHIBIT.replace("digits", "cifar10"))
    assert "pretrain of 3 runs: data/cifar-10-batches-py: CIFAR10 is not there" in told(capsys, "status", "table2.py")[1]


def test_data_list_needs_no_torch(here, capsys):
    code, out, _ = told(capsys, "data", "list", "--json")
    answer = json.loads(out)
    assert (code, answer["digits"]["missing"], answer["voc2007"]["metric"]) == (0, "", "11-point mAP")
    assert "ImageSets/Main/test.txt" in answer["voc2007"]["files"]
    (here / "data/flowers-102/jpg").mkdir(parents=True)
    script = "import sys; from simclic.__main__ import main; main(['data', 'list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["sun397", "397", "15,880", "3,970", "19,850", "top-1", "20", "%", "for", "val", "ImageNet"] in rows
    assert ["flowers", "in", "part", "flowers-102:", "jpg,", "imagelabels.mat,", "setid.mat"] in rows
    assert ["digits", "yes", "comes", "with", "an", "installed", "library"] in rows


def test_help_needs_neither_rich_nor_numpy():
    script = (
        "import sys; from simclic.__main__ import parser; parser().format_help(); print({'rich', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("encoding", "signs", "name"),
    [
        ("ascii", ".-8", r"\udcff\xfc\u03b5"), ("latin-1", "·-8", r"\udcffü\u03b5"), ("cp1252", "·–8", r"\udcffü\u03b5"),
        ("utf-8", "·–█", r"\udcffüε"),
    ],
)  # fmt: skip
def test_no_command_dies_of_a_character_that_its_output_lacks(here, monkeypatch, encoding, signs, name):
    dot, dash, block = signs
    store, place = str(ROOT / "tests/golden/store"), here / "\udcffüε"  # a name that is not UTF-8
    (here / "table2.py").write_text(EXHIBIT)
    for words, expected in (
        (["status", "table2.py"], rf"all, each job once .* {re.escape(dot)} "),
        (["plan", "table2.py"], rf"pretrain .* {re.escape(dot)} "),
        (["compare", store, store, "--all"], rf"identical.* {dash} "),
        (["watch", "digits-noise-2", "--runs", store], f"loss +.*{block}"),
        (["report", "table2.py", "--out", str(place)], f"report: .*/{re.escape(name)}/index.html"),
    ):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(words) == 0
        stream.flush()
        assert re.search(expected, stream.buffer.getvalue().decode(encoding)), words


def test_a_tilde_is_the_home_folder_in_every_path(here, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "table2.py").write_text(EXHIBIT)
    assert told(capsys, "plan", "~/table2.py", "--runs=~/elsewhere", "--data=~")[0] == 0
    assert told(capsys, "report", "~/table2.py", "--runs=~/elsewhere", "--out=~/pages")[0] in (0, 1)
    assert (here / "pages").is_dir()
    assert not (here / "~").exists()


@pytest.mark.parametrize(
    "words",
    ["run {}", "plan table2.py --runs {}", "status table2.py --runs {}", "gc table2.py --runs {}", "watch {}", "compare {} {}",
     "submit table2.py --on {}", "doctor --on {}", "data check ./{}", "probe --weights ./{} --dataset digits"],
)  # fmt: skip
def test_a_name_that_no_file_system_takes_is_one_line(here, capsys, words):
    (here / "table2.py").write_text(EXHIBIT)
    code, _, err = told(capsys, *words.format("x" * 2000, "y" * 2000).split())
    assert code in (1, 2)
    assert err.count("\n") == 1
