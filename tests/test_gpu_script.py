"""benchmarks/gpu.sh: what it would run exists and parses, and each mistake is one line."""

import os
import shlex
import subprocess

import pytest
from conftest import ROOT

from simclic import load
from simclic.__main__ import parser


def script(*words, **env):
    command = ["bash", ROOT / "benchmarks/gpu.sh", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)


def test_each_command_parses_and_each_file_of_it_exists(tmp_path):
    lines = script("--dry", "--out", tmp_path / "gpu", PYTHON="python3").stdout.splitlines()
    words = [shlex.split(line) for line in lines]
    verbs = [parser().parse_args(w[3:]) and w[3] for w in words if w[1:3] == ["-m", "simclic"]]
    assert verbs == ["calibrate", "calibrate", "plan", "run", "run", "run", "report", "record", "run", "report", "record"]
    paths = {word for line in words for word in line if word.startswith(("benchmarks/", "tests/"))}
    assert all((ROOT / path).is_file() for path in paths)
    assert {path.name for path in ROOT.glob("benchmarks/speed/*.py")} - {p.split("/")[-1] for p in paths} == {
        "launch.py", "measuring.py", "report.py"  # of which a GPU changes nothing
    }  # fmt: skip
    assert {"tests/test_pretrain.py", "tests/test_resume.py", "tests/test_linear.py", "tests/test_finetune.py"} <= paths
    assert not list(tmp_path.iterdir())


def test_the_shorter_trainings_are_tables_of_their_own():
    exhibits = {exhibit.name: exhibit for exhibit in load(ROOT / "benchmarks/cifar10_resnet18.py").exhibits}
    for epochs in (10, 50, 200):
        assert {run.epochs for run in exhibits[f"cifar10-resnet18-{epochs}"].runs} == {0, epochs}


@pytest.mark.parametrize(
    ("words", "env", "code", "says"),
    [
        ((), {"PYTHON": "false"}, 1, "false: cannot import torch; name another with PYTHON="),
        ((), {"PYTHON": "true"}, 1, "torch sees no CUDA device here; --dry prints what would run, --cpu tries it without one"),
        (("--cpu", "--images", "gone.tar"), {"PYTHON": "true"}, 1, "gone.tar: no such archive"),
        (("--minutes", "1"), {}, 2, "--minutes: a whole number from 2 up; usage: "),
        (("everything",), {}, 2, "everything: usage: "),
        (("--out",), {}, 2, "usage: "),
    ],
)
def test_each_mistake_is_one_line(words, env, code, says):
    done = script(*words, **env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
