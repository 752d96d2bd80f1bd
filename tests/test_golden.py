"""What commit 8c97877 stored is done, and reads as the same numbers, in this version and in one with another field."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from simclic import Run
from simclic.experiment import METHODS
from simclic.files import read_json, write_json
from simclic.store.results import results

GOLDEN = ROOT / "tests/golden"
DIVERGED = ("digits-noise-3d8642bbeb", "digits-noise-711e7db0f3")


def planned(runs=GOLDEN / "store", code=ROOT):
    """What `simclic plan` of a copy of the package says of the golden exhibits: exit code, state by job, errors."""
    words = ["plan", str(GOLDEN / "exhibits.py"), "--runs", str(runs), "--json"]
    env = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-m", "simclic", *words], capture_output=True, text=True, env=env, cwd=code, check=False
    )
    jobs = json.loads(done.stdout)["jobs"] if done.returncode == 0 else []
    return done.returncode, {job["name"]: job["state"] for job in jobs}, done.stderr


def as_stored(states):
    """Is everything done but what diverged?"""
    diverged = {name for name in states if name.startswith(DIVERGED)}
    assert {name for name, state in states.items() if state == "done"} == states.keys() - diverged
    assert {name: states[name] for name in diverged if "pretrain" in name} == {f"{n}/pretrain": "failed" for n in DIVERGED}
    return len(states) == 45


@pytest.fixture
def package(tmp_path):
    """A copy of the package in which one text of run.py stands for another."""

    def edited(old, new):
        shutil.copytree(ROOT / "simclic", tmp_path / "simclic", ignore=shutil.ignore_patterns("__pycache__"))
        path = tmp_path / "simclic/experiment/run.py"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        return tmp_path

    return edited


def test_every_stored_job_is_done_and_what_diverged_has_failed():
    code, states, _ = planned()
    assert code == 0
    assert as_stored(states)


def test_every_stored_error_reads_as_it_was():
    expected = [
        (r["run"], r["protocol"], float(r["error"])) for r in csv.DictReader((GOLDEN / "errors.csv").read_text().splitlines())
    ]
    found = results(GOLDEN / "store")
    assert not found["problem"].any()
    assert sorted(zip(found["name"], found["protocol"], found["error"], strict=True)) == sorted(expected)


def test_a_new_field_leaves_every_stored_result_valid(package):
    code = package("    # Optimisation", '    warmup_epochs: int = knob(0, "epochs of a rising rate", low=0)\n    # Optimisation')
    assert as_stored(planned(code=code)[1])


@pytest.mark.parametrize(("method", "name"), [(m.name, name) for m in METHODS.values() for name in m.knobs])
def test_a_new_field_of_a_method_leaves_its_stored_runs_valid(method, name):
    run = Run(method=method)
    stored = {k: v for k, v in run.values.items() if k != name}
    assert run.list_differences(stored) == []
    assert Run.known(stored).name == run.name
    (difference,) = run.list_differences({**stored, name: run.values[name] + 1})
    assert difference.startswith(name)


def test_a_changed_default_is_refused_by_name(package):
    code, _, error = planned(code=package("weight_decay: float = knob(0.001,", "weight_decay: float = knob(0.01,"))
    assert (code, "weight_decay 0.001 there, 0.01 here" in error) == (2, True)


def test_a_field_that_this_version_does_not_know_is_refused_by_name(tmp_path):
    shutil.copytree(GOLDEN / "store", tmp_path / "store")
    path = tmp_path / "store/digits-history-aa61c15b86/run.json"
    values = read_json(path)
    values["run"]["of_tomorrow"] = 0.5
    write_json(path, {k: v for k, v in values.items() if k != "sha256"})
    code, _, error = planned(tmp_path / "store")
    assert (code, "of_tomorrow 0.5 there, no such field here" in error) == (2, True)
