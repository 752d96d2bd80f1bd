"""What can be deleted, and what never is: real runs, real processes, real files."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import pytest
from commands import put_command, simclic
from conftest import EXHIBIT, tiny
from safetensors.torch import load_file
from stored import publish

from simclic import Finetune, InputError, Linear, data, files, load
from simclic.cli import gc
from simclic.data import manifest
from simclic.files import read_json, write_json
from simclic.schedule import deletable, records, snapshot
from simclic.schedule import gc as garbage
from simclic.schedule.profile import parse_profile
from simclic.schedule.task import TaskReport
from simclic.schedule.task_arrays import Array
from simclic.store.run_folder import RunFolder
from simclic.train import checkpoint

FULL, ONE = EXHIBIT, EXHIBIT.replace('("noise", "dropout", "history")', '"noise"')
ANOTHER = EXHIBIT.replace('paper="table2"', 'name="another"').replace('("noise", "dropout", "history")', '"none"')
SCRIPT = """
import argparse, sys
from simclic.cli import gc
parser = argparse.ArgumentParser()
gc.add(parser)
sys.exit(gc.gc(parser.parse_args()))
"""
TYPIST = """
import json, os, pty, select, signal, sys
answers = [answer.encode() for answer in json.loads(sys.argv[1])]
process, terminal = pty.fork()
if process == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it may have been ignored where the tests were started
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
shown, last = b"", b""
while True:
    if select.select([terminal], [], [], 1)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if answers and shown.endswith(b"[y/N] "):
            last = answers.pop(0)
            os.write(terminal, last)
    elif last == bytes([3]):  # in the instant before Python reads, a Ctrl-C waits for what is typed next
        os.write(terminal, last)
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
HOLD = """
import sys, time
from pathlib import Path
from simclic.store.claim import hold_claim
with hold_claim(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(100)
"""


def age(*paths, seconds=2 * 86_400):
    """Let files and folders have been written long ago."""
    for path in (p for top in paths for p in (*sorted(top.rglob("*"), reverse=True), top)):
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """Three encoders and their results, as two launches in the background of this machine leave them, and a report."""
    pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")
    place = tmp_path_factory.mktemp("gc") / "trained"
    shutil.copytree(finished, place)
    with chdir(place):
        for text in (ONE, FULL):
            Path("table2.py").write_text(text)
            jobs, runs = load("table2.py").jobs, Path("runs")
            array = Array("all", [[*dict.fromkeys(job.encoder for job in jobs), *jobs]])
            begun = records.write_launch(
                [array],
                parse_profile("local", {"cluster": "local"}),
                snapshot.copy_code(records.launches_folder(runs)),
                runs,
                Path("data"),
            )
            TaskReport(begun.find_task("all-0", 0)).write_state("ended")
        age(Path("runs"))
    return place


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of all that, to do with as one likes."""
    shutil.copytree(trained, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def told(capsys):
    """Words -> the exit code and what `simclic gc` printed."""

    def words(*words):
        parser = argparse.ArgumentParser()
        gc.add(parser)
        capsys.readouterr()
        code = gc.gc(parser.parse_args([str(w) for w in words]))
        out, err = capsys.readouterr()
        return code, out, err

    return words


def listed(*words):
    """kind -> the paths that `simclic gc --json` lists."""
    return {
        k["kind"]: [item["path"] for item in k["items"]]
        for k in json.loads(simclic("gc", *words, "--json"))["kinds"]
        if k["items"]
    }


def found(*exhibits):
    """kind -> the paths that may go."""
    return by_kind(garbage.find_garbage([load(path) for path in exhibits], Path("runs"), Path("data")).items)


def by_kind(several):
    kinds = {}
    for item in several:
        kinds.setdefault(item.kind, []).append(str(item.path))
    return kinds


def stamps(*places):
    return {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for top in places for p in top.rglob("*") if not p.is_dir()}


def content(top):
    return {p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def run_of(perturbation="noise"):
    return next(job.run for job in load("table2.py").jobs if job.run.perturbation == perturbation)


@contextmanager
def at_work(folder, name="owner"):
    """A process that claims a folder, and is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, name], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def littered(here):
    """Leave in runs/ what only processes leave that are killed; returns the paths by kind."""
    runs, run = here / "runs", run_of()
    folder, protocols = runs / run.name, [job.protocol for job in load("table2.py").jobs if job.run == run]
    with at_work(folder):
        pass
    with at_work(folder, f"owner-{protocols[0].name}"):
        pass
    (runs / ".probe.0123abcd").write_bytes(b"")
    checkpoint.save(folder / "checkpoint", {"run": run.name})
    checkpoint.save(folder / "checkpoint", {"run": run.name})  # and so there is one before
    (folder / ".checkpoint.0123abcd").write_bytes(b"half" * 10_000)
    grid = next(p for p in protocols if isinstance(p, Finetune))
    for part in (0, 1):  # 1: of a process that trained a part of the grid beside the first one
        rows = {"curve": [], "seconds": 1.0, "resumed": [], "members": 0}
        RunFolder(runs, run).write_partial_result(grid, "of", rows, part)
        checkpoint.save(RunFolder(runs, run).checkpoint_path(grid, part), {"run": grid.name})
    left = [".checkpoint.0123abcd", "checkpoint", "checkpoint.previous", f"checkpoint-{grid.name}", "owner.json"]
    left += [f"owner-{protocols[0].name}.json", f"partial-{grid.name}.json"]
    left += [f"checkpoint-{grid.name}-1", f"partial-{grid.name}-1.json"]
    other = runs / run_of("history").name
    checkpoint.save(other / "checkpoint", {"run": other.name})
    with open(other / "checkpoint", "r+b") as f:
        f.seek(100)
        f.write(b"\xff\xfe")
    assert checkpoint.load(other / "checkpoint", other.name) is None  # set aside
    (code,) = runs.glob(".launches/code-*")
    shutil.copytree(code, runs / ".launches/code-0123456789abcdef")
    draft = runs / ".launches/.code.0123abcd/simclic"
    draft.mkdir(parents=True)
    (draft / "store.py").write_text("half")
    begun = runs / ".launches/20260101-000000-000000-abcdef"
    (begun / "pretrain-0").mkdir(parents=True)
    age(runs)
    first = records.list_launches(Path("runs"))[-1].folder
    return {
        "left-overs": {
            ".probe.0123abcd",
            ".launches/.code.0123abcd",
            f".launches/{begun.name}",
            *(f"{run.name}/{n}" for n in left),
        },
        "damaged checkpoints": {f"{other.name}/checkpoint.damaged"},
        "launches": {f".launches/{first.name}", ".launches/code-0123456789abcdef"},
        "features": {f"{job.run.name}/features-float32.safetensors" for job in load("table2.py").jobs},
    }


def test_each_kind_is_listed_goes_and_nothing_that_was_done_is_done_again(here, told):
    wanted, report = littered(here), content(here / "reports")
    status = simclic("status", "table2.py", "--json")
    assert {kind: {p.removeprefix("runs/") for p in paths} for kind, paths in listed("table2.py").items()} == wanted
    before = stamps(here / "runs")
    code, out, err = told("table2.py", "--yes")
    assert (code, err) == (0, "")
    assert all(f"│ {kind}" in out for kind in wanted)
    assert "5,391 in all" in " ".join(out.replace("│", " ").split())  # three passes over digits
    assert " freed\n" in out
    assert not listed("table2.py")
    mine = [here / "runs" / path for those in wanted.values() for path in those]
    assert not [path for path in mine if path.exists()]
    gone = before.keys() - stamps(here / "runs").keys()
    assert not [path for path in gone if not {path, *path.parents} & {*mine}]
    assert {p: s for p, s in before.items() if p.exists()} == stamps(here / "runs")
    assert simclic("status", "table2.py", "--json") == status
    simclic("report", "table2.py")
    assert content(here / "reports") == report
    kept = stamps(here / "runs")
    assert "nothing to train: every result is there" in simclic("run", "table2.py")
    assert stamps(here / "runs") == kept
    assert content(here / "reports") == report


def test_features_that_went_come_again_when_somebody_asks(here, told):
    features = sorted(here.glob("runs/*/features-*"))
    before = {path: load_file(path)["features"] for path in features}
    assert told("table2.py", "--yes")[0] == 0
    assert not any(path.exists() for path in features)
    Path("table2.py").write_text(FULL.replace("l2_count=3", "l2_count=2"))
    simclic("run", "table2.py")
    assert all(load_file(path)["features"].equal(before[path]) for path in features)


def test_without_an_exhibit_only_what_no_exhibit_could_need_goes(here):
    wanted = littered(here)
    assert set(found()) == wanted.keys() - {"features"}


def test_features_stay_while_a_protocol_is_missing_or_they_could_not_be_made_again(here):
    assert len(found("table2.py")["features"]) == 3
    Path("more.py").write_text(ANOTHER.replace("l2_count=3", "l2_count=2"))
    assert found("table2.py", "more.py")["features"] == found("table2.py")["features"]  # asks for another run
    Path("more.py").write_text(ONE.replace('paper="table2"', 'name="another"').replace("l2_count=3", "l2_count=2"))
    assert len(found("table2.py", "more.py")["features"]) == 2
    result = next((here / "runs" / run_of("history").name).glob("linear-*.json"))
    result.write_text(result.read_text().replace('"error"', '"errors"', 1))
    assert len(found("table2.py")["features"]) == 2
    (here / "runs" / run_of("dropout").name / "backbone.safetensors").unlink()
    assert len(found("table2.py")["features"]) == 1


def test_checkpoints_and_partial_results_stay_while_they_are_needed(here):
    littered(here)
    folder = here / "runs" / run_of().name
    next(folder.glob("finetune-*.json")).unlink()
    left = {p.removeprefix(f"runs/{folder.name}/") for p in found()["left-overs"]}
    assert not [name for name in left if name.startswith(("partial-", "checkpoint-"))]
    assert "checkpoint" in left
    (folder / "backbone.safetensors").write_bytes(b"altered")
    assert not [p for p in found()["left-overs"] if p.startswith(f"runs/{folder.name}/checkpoint")]


def test_what_was_written_a_moment_ago_stays(here):
    folder = here / "runs" / run_of().name
    for path in (folder / ".checkpoint.0123abcd", here / "runs/.launches/.code.0123abcd/x.py", here / "runs/.probe.0123abcd"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    assert "left-overs" not in found()
    age(folder / ".checkpoint.0123abcd", seconds=600 - 60)
    assert "left-overs" not in found()
    age(folder / ".checkpoint.0123abcd", seconds=600 + 60)
    assert found()["left-overs"] == [f"runs/{folder.name}/.checkpoint.0123abcd"]


@pytest.mark.parametrize("stage", ["pretrain", "linear"])
def test_nothing_of_a_run_goes_that_a_process_is_at_work_on(here, told, stage):
    littered(here)
    run = run_of()
    name = "owner" if stage == "pretrain" else f"owner-{load('table2.py').jobs[0].protocol.name}"
    with at_work(here / "runs" / run.name, name):
        age(here / "runs")
        kept = stamps(here / "runs" / run.name)
        Path("another.py").write_text(ANOTHER)
        for words in (("table2.py",), ("another.py", "--runs-too")):
            code, out, _ = told(*words, "--yes")
            assert code == 0
            assert f"left alone: runs/{run.name}: a process is at work on it" in out
            assert stamps(here / "runs" / run.name).items() >= kept.items()
    assert [p.name for p in (here / "runs").glob("digits-*")] == [run.name]


def test_who_starts_between_listing_and_deleting_is_left_alone(here):
    littered(here)
    suites = [load("table2.py")]
    chosen = garbage.find_garbage(suites, Path("runs"), Path("data")).items
    folder = here / "runs" / run_of().name
    with at_work(folder):
        kept = stamps(folder)
        gone = garbage.delete_items(chosen, suites, Path("runs"), Path("data"))
        assert stamps(folder).keys() >= {p for p in kept if not p.name.startswith("owner")}
    assert any(f"process {os.getpid()}" not in line and "is at work on it" in line for line in gone.skipped)
    assert not [path for path in gone.files if path.parent == folder.relative_to(here) and "owner" not in path.name]
    assert len(gone.files) > 5


def test_a_file_that_changed_between_listing_and_deleting_stays(here):
    littered(here)
    suites, folder = [load("table2.py")], here / "runs" / run_of().name
    chosen = garbage.find_garbage(suites, Path("runs"), Path("data")).items
    (folder / "checkpoint").write_bytes(b"another")
    features = folder / "features-float32.safetensors"
    files.write_bytes(features, features.read_bytes())  # the same content, and another file
    (here / "runs/.launches/code-0123456789abcdef/simclic/own.py").write_text("")
    gone = garbage.delete_items(chosen, suites, Path("runs"), Path("data"))
    assert (folder / "checkpoint").read_bytes() == b"another"
    assert features.exists()
    assert {f"runs/{folder.name}/{n}: changed since it was listed" for n in ("checkpoint", features.name)} <= set(gone.skipped)
    assert len(list((here / "runs/.launches/code-0123456789abcdef").rglob("*.py"))) > 50  # somebody is at work in there
    assert any(line.startswith("runs/.launches/code-0123456789abcdef/") for line in gone.skipped)


def test_a_result_that_went_between_listing_and_deleting_keeps_what_it_came_from(here):
    littered(here)
    suites, folder = [load("table2.py")], here / "runs" / run_of().name
    chosen = garbage.find_garbage(suites, Path("runs"), Path("data")).items
    for path in (*folder.glob("finetune-*.json"), *folder.glob("linear-*.json")):
        path.unlink()
    garbage.delete_items(chosen, suites, Path("runs"), Path("data"))
    names = {p.name.split("-")[0] for p in folder.iterdir()}
    assert {"partial", "checkpoint", "features"} <= names
    assert not (folder / "checkpoint").exists()  # its training is finished all the same


def test_links_are_not_followed(here, tmp_path, told):
    littered(here)
    outside, run = tmp_path / "outside", run_of()
    outside.mkdir()
    for name in (run.name, ".launches"):
        shutil.move(here / "runs" / name, outside / name)
        (here / "runs" / name).symlink_to(outside / name)
    shutil.move(here / "runs" / run_of("dropout").name / "features-float32.safetensors", outside / "features")
    link = here / "runs" / run_of("dropout").name / "features-float32.safetensors"
    link.symlink_to(outside / "features")
    (here / "runs" / run_of("history").name / "tensorboard").symlink_to(outside)
    (outside / "events.out.tfevents.1").write_text("")
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared/dtd-16-0123456789abcdef.npy").write_text("")
    (here / "data").mkdir()
    (here / "data/prepared").symlink_to(tmp_path / "prepared")
    age(outside, tmp_path / "prepared")
    kept = stamps(outside, tmp_path / "prepared")
    code, out, _ = told("table2.py", "--yes")
    assert code == 0
    assert "a link: what lies behind it is left alone" in out
    assert not link.is_symlink()  # the link went, and not what it leads to
    Path("another.py").write_text(ANOTHER)
    told("another.py", "--yes", "--runs-too")
    assert stamps(outside, tmp_path / "prepared") == kept
    assert (here / "runs" / run_of("history").name / "tensorboard").is_symlink()
    assert not (here / "runs" / run_of("dropout").name).exists()


def test_a_run_that_became_a_link_between_listing_and_deleting_stays(here, tmp_path):
    littered(here)
    suites, folder = [load("table2.py")], here / "runs" / run_of().name
    chosen = garbage.find_garbage(suites, Path("runs"), Path("data")).items
    shutil.move(folder, tmp_path / "moved")  # the same files, by the same names
    folder.symlink_to(tmp_path / "moved")
    kept = stamps(tmp_path / "moved")
    gone = garbage.delete_items(chosen, suites, Path("runs"), Path("data"))
    assert stamps(tmp_path / "moved") == kept
    assert f"runs/{folder.name}: has become a link" in gone.skipped


def test_unknown_files_stay_and_so_do_their_folders(here, told):
    Path("another.py").write_text(ANOTHER)
    run, first = run_of(), records.list_launches(Path("runs"))[-1].folder
    unknown = [
        here / "runs" / p for p in (f"{run.name}/notes.txt", f"{run.name}/plots/features-float32.safetensors", "mine/x.json")
    ]
    unknown += [here / "runs" / p for p in (f"{run.name}/.notes.0123abcd", ".notes.0123abcd", "features-float32.safetensors")]
    unknown += [first / "notes", here / "runs/imported/mine.safetensors", here / "data/prepared/mine.npy", here / "data/mine"]
    unknown += [here / "data/prepared/.mine.0123abcd", here / "runs/.launches/mine/launch.json"]
    for path in unknown:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    moved = here / "runs" / f"{run_of('history').name}.old"
    (here / "runs" / run_of("history").name).rename(moved)
    age(here / "runs", here / "data")
    code, out, _ = told("another.py", "--yes", "--runs-too")
    assert code == 0
    assert all(path.read_text() == "mine" for path in unknown)
    assert len(list(moved.iterdir())) >= 9
    assert "no run of this version under its own name" in out
    assert {p.name for p in (here / "runs" / run.name).iterdir()} == {"notes.txt", "plots", ".notes.0123abcd"}
    assert not (here / "runs" / run_of("dropout").name).exists()


def test_runs_go_only_when_they_are_named(here, told):
    littered(here)
    Path("one.py").write_text(ONE)
    lost = {f"runs/{run_of(p).name}" for p in ("dropout", "history")}
    assert set(listed("one.py")["runs"]) == lost
    code, out, _ = told("one.py", "--yes")
    assert (code, "runs go only with --runs-too" in out) == (0, True)
    assert all(Path(path).is_dir() for path in lost)
    code, out, _ = told("one.py", "--yes", "--runs-too")
    assert code == 0
    assert not any(Path(path).exists() for path in lost)
    assert (here / "runs" / run_of().name / "pretrain.json").exists()
    with pytest.raises(InputError, match="--runs-too: name the exhibits whose runs are to stay"):
        told("--runs-too", "--yes")


def test_imported_weights_are_runs_that_nothing_starts_from(here):
    (here / "runs/imported").mkdir()
    for name in ("byol", "swav", "mine"):
        (here / f"runs/imported/{name}.safetensors").write_bytes(b"weights")
    (here / "runs/imported/.byol.safetensors.0123abcd").write_bytes(b"half")
    age(here / "runs")
    asks = 'runs=grid(dataset="digits", init="byol", perturbation="none", epochs=0))'
    asks = f"from simclic import Table, grid\nTABLE = Table(paper='table2', caption='x', {asks}"
    Path("byol.py").write_text(asks)
    assert [p for p in found("table2.py", "byol.py")["runs"] if "imported" in p] == ["runs/imported/swav.safetensors"]
    assert [p for p in found("table2.py")["runs"] if "imported" in p] == [
        f"runs/imported/{n}.safetensors" for n in ("byol", "swav")
    ]
    assert "runs" not in found()
    assert found()["left-overs"] == ["runs/imported/.byol.safetensors.0123abcd"]


def test_a_run_that_another_starts_from_stays(here):
    start = f', init="./runs/{run_of().name}/backbone.safetensors"'
    Path("another.py").write_text(ANOTHER.replace(", epochs=2", f"{start}, epochs=2"))
    gone = {Path(p).parts[1] for p in found("another.py")["runs"]}
    assert gone == {run_of(p).name for p in ("dropout", "history")}


def launched(here, cluster, jobs="open"):
    """The first launch as if it had been on another cluster, or with a job that is not done; both were made here."""
    first = records.list_launches(Path("runs"))[-1].folder
    values = read_json(first / "launch.json")
    values["cluster"] = cluster
    if jobs == "open":
        values["arrays"][0]["tasks"][0][0]["protocols"][0]["name"] = "linear-0123456789"
    write_json(first / "launch.json", values)
    age(here / "runs")
    return first


def squeue(here, monkeypatch, text, code=0):
    """A squeue that answers so."""
    put_command(monkeypatch, here / "bin/squeue", f"printf '%s' '{text}'\nexit {code}")


def test_jobs_in_slurms_queue_protect_their_runs_and_launches(here, monkeypatch):
    first, features = launched(here, "slurm"), f"runs/{run_of().name}/features-float32.safetensors"
    squeue(here, monkeypatch, f"7|RUNNING|None|node1|simclic-{first.name}-all-0")
    assert features not in found("table2.py")["features"]
    squeue(here, monkeypatch, "8|PENDING|None||simclic-20250101-000000-000000-abcdef-all-0")
    assert features in found("table2.py")["features"]
    squeue(here, monkeypatch, "slurm_load_jobs error: Unable to contact slurm controller", 1)
    told = garbage.find_garbage([load("table2.py")], Path("runs"), Path("data"))
    assert features not in by_kind(told.items)["features"]
    assert any("what waits and runs is not known" in why for why in told.left_alone)


@pytest.mark.parametrize("says", ["nothing", "running", "silent"])
def test_a_launch_whose_jobs_are_done_goes_if_slurm_has_none_of_it(here, monkeypatch, says):
    first = launched(here, "slurm", "done")
    text = {"nothing": "", "running": f"7|RUNNING|None|node1|simclic-{first.name}-all-0", "silent": "error"}[says]
    squeue(here, monkeypatch, text, code=int(says == "silent"))
    assert (f"runs/.launches/{first.name}" in found("table2.py").get("launches", ())) == (says == "nothing")
    assert len(found("table2.py")["features"]) == 3  # whatever runs of it has nothing left to do


def test_launches_that_status_reads_stay(here):
    first = records.list_launches(Path("runs"))[-1].folder
    assert f"runs/.launches/{first.name}" in found()["launches"]
    RunFolder(Path("runs"), tiny(seed=7)).record_failure("pretrain", "diverged")
    failed = RunFolder(Path("runs"), tiny(seed=7)).failure_path("pretrain")
    write_json(failed, read_json(failed) | {"log": str(here / f"runs/.launches/{first.name}/all-0/log.err")})
    assert "launches" not in found()  # its log is shown
    failed.unlink()
    launched(here, "local")
    assert "launches" not in found()  # what stopped is told from there


def test_while_somebody_submits_launches_stay(here, told):
    littered(here)
    with at_work(here / "runs/.launches", "submitting"):
        age(here / "runs")
        assert "launches" not in found()
        _, out, _ = told("table2.py", "--yes")
        assert "left alone: runs/.launches: somebody is submitting" in out
    assert (here / "runs/.launches/code-0123456789abcdef").exists()
    assert not list(here.glob("runs/*/features-*"))


@pytest.mark.parametrize("why", ["broken", "doctor"])
def test_copies_of_code_stay_while_something_may_run_them_that_cannot_be_asked(here, why):
    littered(here)
    if why == "broken":
        path = records.list_launches(Path("runs"))[-1].folder / "launch.json"
        path.write_text(path.read_text()[:-30])
        age(here / "runs")
    else:
        (here / "runs/.launches/doctor-0123abcd").mkdir()
    assert not [p for p in found().get("launches", ()) if "/code-" in p]


def test_decoded_data_that_nobody_asks_for_goes_and_comes_again(eleven, tmp_path, monkeypatch, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manifest, "TICKS", (0, 0))
    for name, size in (("flowers", 16), ("flowers", 24), ("dtd", 16), ("cifar10", 16)):
        before = data.load(name, "ericsson", eleven, size).images.copy()
    Path("flowers.py").write_text(
        'from simclic import Finetune, Linear, Table, grid\nTABLE = Table(paper="table2", caption="x", protocols=(Linear(),'
        'Finetune(eval_resize=1.5)), runs=grid(dataset=("flowers", "cifar10"), image_size=16))'
    )
    place = manifest.prepared_folder(eleven)
    words = ("flowers.py", "--data", eleven)
    assert told(*words, "--yes")[0] == 0
    assert len(list(place.glob("*.npy"))) == 4  # somebody may have decoded them for what is about to begin
    (place / ".dtd-16.0123abcd").write_bytes(b"half")
    (place / "dtd-32-0123456789abcdef.sha256").write_text("of nothing")
    fetching = eleven / ".fetch-abc_1234/out"
    fetching.mkdir(parents=True)
    (fetching / "half.tar").write_bytes(b"half")
    age(place, eleven / ".fetch-abc_1234")
    assert told(*words, "--yes")[0] == 0
    assert sorted(p.name.rsplit("-", 1)[0] for p in place.glob("*.npy")) == ["cifar10-32", "flowers-16", "flowers-24"]
    assert len(list(place.glob("*.sha256"))) == 3
    assert not [p for p in (place / ".dtd-16.0123abcd", eleven / ".fetch-abc_1234") if p.exists()]
    assert list(place.glob("dtd-files.json"))  # what is known of files
    kept = stamps(place)
    data.load("flowers", "ericsson", eleven, 16)
    assert stamps(place) == kept
    run = 'Linear(),), runs=grid(views_from="whole", method="simsiam", dataset="flowers", image_size=21))'
    Path("whole.py").write_text(f'from simclic import Linear, Table, grid\nTABLE = Table(name="w", caption="x", protocols=({run}')
    assert "-24-" not in told("whole.py", *words)[1]  # of whole images of 24 pixels views of 21 are cut
    Path("flowers.py").write_text(Path("flowers.py").read_text().replace("1.5", "1"))
    assert "-24-" in told(*words)[1]
    assert "-24-" not in told("whole.py", *words)[1]
    assert told(*words, "--yes")[0] == 0
    assert sorted(p.name.rsplit("-", 1)[0] for p in place.glob("*.npy")) == ["cifar10-32", "flowers-16"]
    (place / next(place.glob("cifar10*.npy")).name).unlink()
    assert (data.load("cifar10", "ericsson", eleven, 16).images == before).all()


def test_without_an_exhibit_decoded_data_stay(eleven, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data.load("dtd", "ericsson", eleven, 16)
    age(eleven)
    assert not garbage.find_garbage([], Path("runs"), eleven).items


def test_data_of_a_run_at_work_stay(eleven, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data.load("dtd", "ericsson", eleven, 16)
    Path("one.py").write_text(ONE)
    folder = RunFolder(Path("runs"), tiny(dataset="dtd")).create_folder("d1").path
    with at_work(folder):
        age(eleven)
        assert not garbage.find_garbage([load("one.py")], Path("runs"), eleven).items
    kinds = by_kind(garbage.find_garbage([load("one.py")], Path("runs"), eleven).items)
    assert len(kinds["decoded data"]) == 2


def test_needed_runs_on_images_that_are_elsewhere_stop_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table2.py").write_text(ONE.replace('"digits"', '"./elsewhere"'))
    (tmp_path / "data/prepared").mkdir(parents=True)
    for name in ("elsewhere-16-0123456789abcdef.npy", "dtd-16-0123456789abcdef.npy"):
        (tmp_path / "data/prepared" / name).write_bytes(b"")
    age(tmp_path / "data")
    assert found("table2.py") == {"decoded data": ["data/prepared/dtd-16-0123456789abcdef.npy"]}


def test_bytes_are_those_on_the_disk_and_a_file_with_two_names_counts_once(here):
    folder = here / "runs" / run_of().name
    one, two, sparse = (folder / f".checkpoint.{n:08x}" for n in range(3))
    one.write_bytes(os.urandom(100_000))
    os.link(one, two)
    with open(sparse, "wb") as f:
        f.truncate(10_000_000)
    os.sync()
    age(folder)
    mine = [item for item in garbage.find_garbage([], Path("runs"), Path("data")).items if "checkpoint" in item.path.name]
    assert len(mine) == 3
    files_count, size = deletable.count_files(mine)
    assert (files_count, size) == (3, 512 * (one.stat().st_blocks + sparse.stat().st_blocks))
    assert 100_000 <= size < 200_000
    gone = garbage.delete_items(mine, [], Path("runs"), Path("data"))
    assert (len(gone.files), gone.problems, gone.skipped) == (3, [], [])
    assert deletable.bytes_on_disk(gone.files.values()) == size


@contextmanager
def unwritable(folder):
    """A folder in which nothing can be deleted, for root neither."""
    if os.getuid():
        folder.chmod(0o555)
    elif subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
        pytest.skip("root writes everywhere, and this file system has no chattr")
    try:
        yield
    finally:
        with suppress(OSError):
            folder.chmod(0o755)
        if not os.getuid():
            subprocess.run(["chattr", "-i", folder], check=True)


def test_what_cannot_be_deleted_is_one_line_and_the_rest_goes_on(here, told):
    littered(here)
    folder = here / "runs" / run_of("dropout").name
    with unwritable(folder):
        code, out, err = told("table2.py", "--yes")
    assert code == 1
    assert err.startswith(f"error: runs/{folder.name}: cannot be written (")
    assert err.count("\n") == 1
    assert " freed\n" in out
    assert [p.parent for p in here.glob("runs/*/features-*")] == [folder]


def test_a_single_file_that_cannot_be_deleted_is_one_line(here, told, monkeypatch):
    littered(here)
    unlink, folder = os.unlink, here / "runs" / run_of().name

    def refuse(path, *words, **more):
        if Path(path).name == "checkpoint.previous":
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, *words, **more)

    monkeypatch.setattr("simclic.schedule.gc.os.unlink", refuse)
    code, _, err = told("table2.py", "--yes")
    assert (code, err) == (1, f"error: runs/{folder.name}/checkpoint.previous: cannot be deleted (Operation not permitted)\n")
    assert not (folder / "checkpoint").exists()


def on_a_terminal(*words, answers):
    """Exit code and what a terminal shows; each answer is typed when it is asked for."""
    typed = json.dumps([answer.decode() for answer in answers])
    done = subprocess.run(
        [sys.executable, "-c", TYPIST, typed, SCRIPT, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("answer", "code", "deleted"),
    [(b"y\n", 0, True), (b"n\n", 0, False), (b"\n", 0, False), (b"\x03", 130, False), (b"\x04", 0, False)],
)
def test_on_a_terminal_it_asks(here, answer, code, deleted):
    littered(here)
    before = stamps(here / "runs")
    got, shown = on_a_terminal("table2.py", answers=[answer])
    assert got == code, shown
    assert "Traceback" not in shown
    assert ("nothing was deleted" in shown) == (not deleted)
    assert (" freed" in shown) == deleted
    assert (stamps(here / "runs") == before) == (not deleted)


@pytest.mark.parametrize("answers", [[b"n\n", b"y\n"], [b"y\n", b"n\n"], [b"y\n", b"\x03"]])
def test_runs_are_a_question_of_their_own(here, answers):
    Path("one.py").write_text(ONE)
    before, lost = stamps(here / "runs"), [here / "runs" / run_of(p).name for p in ("dropout", "history")]
    code, shown = on_a_terminal("one.py", "--runs-too", answers=answers)
    assert "delete 2 runs, 4 results and their files (" in shown
    assert code == (130 if b"\x03" in answers else 0)
    assert [p.exists() for p in lost] == [answers[1] != b"y\n"] * 2
    features = here / "runs" / run_of().name / "features-float32.safetensors"
    assert features.exists() == (answers != [b"y\n", b"n\n"])
    assert (stamps(here / "runs") == before) == (b"\x03" in answers)


def test_without_a_terminal_it_only_lists(here, told):
    littered(here)
    before = stamps(here / "runs")
    code, out, _ = told("table2.py", "--runs-too")
    assert (code, out.splitlines()[-1]) == (0, "nothing was deleted: there is no terminal to ask on; add --yes")
    assert stamps(here / "runs") == before


def test_json_lists_and_deletes_nothing(here, told):
    littered(here)
    before = stamps(here / "runs")
    code, out, _ = told("table2.py", "--json", "--yes", "--runs-too")
    made = json.loads(out)
    assert code == 0
    assert stamps(here / "runs") == before
    assert [k["kind"] for k in made["kinds"]] == list(deletable.Kind)
    assert made["total"]["bytes"] == made["safe"]["bytes"] == sum(k["bytes"] for k in made["kinds"]) > 0
    assert all(k["bytes"] == sum(item["bytes"] for item in k["items"]) for k in made["kinds"])


def test_where_nothing_is_nothing_goes(tmp_path, monkeypatch, told):
    monkeypatch.chdir(tmp_path)
    code, out, _ = told("--yes")
    assert (code, out.splitlines()[0]) == (0, "nothing can be deleted")
    assert not list(tmp_path.iterdir())


def test_a_claim_that_cannot_be_read_is_believed(tmp_path, monkeypatch, linear):
    monkeypatch.chdir(tmp_path)
    folder = publish(Path("runs"), tiny(), linear).parent
    (folder / "owner.json").write_text("half")
    (folder / "checkpoint.damaged").write_text("")
    assert not found()
    (folder / "owner.json").unlink()
    assert found() == {"damaged checkpoints": [f"{folder}/checkpoint.damaged"]}


def test_features_of_another_precision_than_is_missing_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = publish(Path("runs"), tiny(), Linear()).parent
    write_json(folder / "pretrain.json", {"backbone_sha256": ""})
    for name in ("backbone", "features-float32", "features-bf16"):
        (folder / f"{name}.safetensors").write_bytes(b"x")
    text = ONE.replace(
        "Linear(l2_low=0.1, l2_count=3, tolerance=1e-3)", 'Linear(), Linear(features="bf16", solver="as-published")'
    )
    Path("table2.py").write_text(text.replace("epochs=2", "epochs=2"))
    assert found("table2.py") == {"features": [f"{folder}/features-float32.safetensors"]}


def test_looking_takes_no_torch():
    script = "import sys, simclic.schedule.gc, simclic.cli.gc; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_features_stay_where_the_images_are_not_there_to_make_them_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = publish(Path("runs"), tiny(dataset="dtd"), Linear()).parent
    write_json(folder / "pretrain.json", {"backbone_sha256": ""})
    for name in ("backbone", "features-float32"):
        (folder / f"{name}.safetensors").write_bytes(b"x")
    Path("table2.py").write_text(
        ONE.replace('"digits"', '"dtd"').replace("Linear(l2_low=0.1, l2_count=3, tolerance=1e-3)", "Linear()")
    )
    assert not found("table2.py")
    for name in ("images", "labels/train1.txt", "labels/val1.txt", "labels/test1.txt"):
        (tmp_path / "data/dtd/dtd" / name).mkdir(parents=True)
    assert list(found("table2.py")) == ["features"]
