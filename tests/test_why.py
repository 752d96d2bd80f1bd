"""Which job fills a cell, and why it is as it is."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, tiny
from layouts import fill, write
from rich.console import Console
from stored import publish

from simclic import Figure, Finetune, InputError, Linear, Table, data, grid, load
from simclic.data import check
from simclic.experiment import Suite
from simclic.experiment.exhibit import PAPER_EXHIBITS
from simclic.files import write_json
from simclic.schedule.why import explain_cells
from simclic.store.run_folder import RunFolder

LINEAR = Linear()
FINE = Finetune()


def suite(*runs, **options):
    return Suite("", "", (Table(paper="table2", caption="", runs=runs, **options),), "benchmarks/x.py")


def shown(explained):
    """What is printed, as a terminal without colours shows it."""
    out = io.StringIO()
    console = Console(file=out, width=1000)
    for line in explained.format_lines():
        console.print(line, highlight=False, soft_wrap=True)
    return out.getvalue()


def why(root, cell, *runs, **options):
    """The answers for the one cell that is found, and what is printed."""
    explained = explain_cells([suite(*runs, **options)], root, root / "data", cell)
    json.dumps(explained.as_json())
    ((_, answers),) = explained.cells
    return answers, shown(explained)


def named(run):
    """A digest that says whose data it is of; that of digits is computed."""
    return data.load(run.dataset, run.split, ROOT).digest


def put(root, run, protocol=LINEAR, **options):
    """A result on the data that are there, with the encoder that it came from."""
    path = publish(root, run, protocol, **{"data": named(run), **options})
    write_json(path.parent / "pretrain.json", {"schema": 1})
    return path


def edit(path, **changes):
    """A JSON file as another version would have written it."""
    values = json.loads(path.read_text())
    del values["sha256"]
    write_json(path, {**values, **changes})


def fields(differences):
    return [(d.name, d.there, d.here) for d in differences]


def test_a_result_that_is_there(tmp_path):
    path = put(tmp_path, tiny())
    edit(path, node="n7", commit="abc")
    (one,), text = why(tmp_path, "table2 noise digits", tiny())
    assert (one.state, one.error, one.node, one.commit, one.path) == ("done", 12.5, "n7", "abc", str(path))
    assert f"{tiny().name}/{LINEAR.name}: done, error 12.50 % (node n7, commit abc)\n" in text
    assert not one.digests.disagree
    assert "simclic run" not in text


def test_nothing_is_there_but_a_run_that_differs_in_one_field(tmp_path):
    put(tmp_path, tiny(eps=0.2))
    put(tmp_path, tiny(eps=0.3, weight_decay=0.5))
    (one,), text = why(tmp_path, "noise", tiny())
    assert (one.state, fields(one.changed)) == ("waiting", [])
    assert [(near.name, fields(near.differ)) for near in one.runs] == [(tiny(eps=0.2).name, [("eps", 0.2, 0.1)])]
    assert f"nearest run: {tiny(eps=0.2).name}: eps 0.2 there, 0.1 here; it has this result\n" in text
    assert f"to fill it: simclic run benchmarks/x.py --runs {tmp_path} --data {tmp_path}/data\n" in text


def test_a_run_that_differs_in_much_is_no_help(tmp_path):
    put(tmp_path, tiny(eps=0.2, weight_decay=0.5, batch_size=8, base_lr=1, momentum=0.1, epochs=3, seed=1))
    (one,), text = why(tmp_path, "noise", tiny())
    assert one.runs == []
    assert "nearest" not in text


def test_a_run_on_other_data_is_only_near_if_little_else_differs(tmp_path):
    here = tiny(dataset="cifar10")
    publish(tmp_path, replace(here, dataset="cifar100"), LINEAR)
    assert fields(why(tmp_path, "noise", here)[0][0].runs[0].differ) == [("dataset", "cifar100", "cifar10")]
    assert why(tmp_path, "noise", replace(here, eps=0.3, base_lr=1.0))[0][0].runs == []


def test_a_default_that_changed_is_found_field_by_field(tmp_path):
    older, path = tiny(weight_decay=0.0005), put(tmp_path, tiny())
    for file in (path, path.with_name("run.json")):
        edit(file, run=older.values)
    (one,), text = why(tmp_path, "noise", tiny())
    assert (one.state, fields(one.changed)) == ("changed", [("weight_decay", 0.0005, 0.001)])
    assert "changed: weight_decay 0.0005 there, 0.001 here\n" in text
    assert f"it will not be run again: move {tmp_path / tiny().name} away" in text
    _, text = why(tmp_path, "noise", older)
    assert f"nearest run: {tiny().name}: the same in every field, under another name; it has this result\n" in text
    shutil.move(tmp_path / tiny().name, tmp_path / older.name)
    assert why(tmp_path, "noise", tiny())[0][0].state == "waiting"
    assert why(tmp_path, "noise", older)[0][0].state == "done"


def birds(tmp_path, **changes):
    """A Run on a folder of real images that has a result on them, and how many digests it knows of."""
    fill(tmp_path / "birds")
    run = tiny(dataset=str(tmp_path / "birds"), batch_size=8, **changes)
    made = data.load(run.dataset, run.split, tmp_path / "data", run.image_size)
    path = publish(tmp_path, run, LINEAR, data=made.digest)
    write_json(path.parent / "pretrain.json", {"schema": 1})
    return run, made.digest


@pytest.mark.parametrize("how", ["replaced", "added", "removed", "of another class"])
def test_data_that_changed_after_the_run(tmp_path, how):
    run, digest = birds(tmp_path)
    (one,), text = why(tmp_path, "noise birds", run)
    assert (one.state, one.digests.now, one.digests.unknown) == ("done", digest, "")
    image = tmp_path / "birds/wren/birds3.jpg"
    if how == "replaced":
        write(image, size=(50, 30))
    elif how == "added":
        write(tmp_path / "birds/wren/one-more.jpg")
    elif how == "removed":
        image.unlink()
    else:
        image.rename(tmp_path / "birds/heron/other.jpg")
    (one,), text = why(tmp_path, "noise birds", run)
    now = data.load(run.dataset, run.split, tmp_path / "data", run.image_size).digest
    assert (one.state, one.error, one.digests.run, one.digests.now) == ("stale", 12.5, digest, now)
    assert now != digest
    assert f"data: {digest} in run.json, {digest} in the result, {now} in the data now\n" in text
    other = replace(LINEAR, l2_count=3)
    (one,), text = why(tmp_path, "noise birds", run, protocols=(other,))
    assert (one.state, one.changed) == ("changed", ())  # its encoder saw other images
    assert f"{run.name}/{other.name}: changed: the data have changed since\n" in text


def test_the_present_digest_is_what_check_finds_and_nothing_is_written(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        fill(tmp_path / "birds" / part, count)
    run = tiny(dataset=str(tmp_path / "birds"), split="paper")
    publish(tmp_path, run, LINEAR)
    (one,), _ = why(tmp_path, "noise birds", run)
    assert not (tmp_path / "data").exists()
    checked = check.check(run.dataset, tmp_path / "data", lambda share, note: None)
    assert one.digests.now == checked.digests["paper"]


def test_data_that_cannot_be_known_cheaply_are_said_to_be_unchecked(tmp_path, monkeypatch, eleven):
    monkeypatch.setattr("simclic.schedule.data_digest.MAX_READ_BYTES", 10)
    monkeypatch.setattr("simclic.data.manifest.TICKS", (0, 0))
    run, digest = birds(tmp_path)
    write(tmp_path / "birds/wren/birds3.jpg", size=(50, 30))
    (one,), text = why(tmp_path, "noise birds", run)
    assert (one.state, one.digests.now) == ("done", "")
    check = f"simclic data check {tmp_path / 'birds'} --data {tmp_path / 'data'}"
    assert f"data: {digest} in run.json; not checked: run: {check} (1 of 20 images are new" in text
    publish(tmp_path, tiny(dataset="dtd"), LINEAR, data="d1")
    (one,), text = why(tmp_path, "noise dtd", tiny(dataset="dtd"))
    assert one.state == "done"
    assert f"not checked: run: simclic data check dtd --data {eleven}" in text


def test_a_result_on_other_data_than_its_run_names(tmp_path):
    path = put(tmp_path, tiny())
    edit(path, data="d2")
    (one,), text = why(tmp_path, "noise", tiny())
    assert one.state == "broken"
    assert "error 12.50 %" not in text
    assert f"was measured on data d2, run.json beside it says {named(tiny())}" in text


def test_a_result_under_another_protocol(tmp_path):
    there = replace(FINE, steps=48)
    put(tmp_path, tiny(), there)
    (one,), text = why(tmp_path, "noise", tiny(), protocols=(FINE,))
    assert one.state == "missing"
    assert [(near.name, fields(near.differ)) for near in one.protocols] == [(there.name, [("steps", 48, 5000)])]
    assert f"nearest result of this run: {there.name}: steps 48 there, 5000 here\n" in text
    assert why(tmp_path, "noise", tiny())[0][0].protocols == []  # fine-tuning is nothing like linear evaluation


def test_a_result_whose_protocol_had_another_default(tmp_path):
    path = put(tmp_path, tiny())
    edit(path, protocol=replace(LINEAR, tolerance=1e-3).values)
    (one,), text = why(tmp_path, "noise", tiny())
    assert (one.state, fields(one.changed)) == ("broken", [("tolerance", 1e-3, 1e-6)])
    assert "was not measured under the protocol" in text


def test_a_folder_that_was_renamed(tmp_path):
    put(tmp_path, tiny())
    shutil.move(tmp_path / tiny().name, tmp_path / "my best run")
    (one,), text = why(tmp_path, "noise", tiny())
    assert (one.state, one.runs[0].differ, one.runs[0].result) == ("waiting", (), True)
    assert "nearest run: my best run: the same in every field, under another name; it has this result\n" in text
    shutil.move(tmp_path / "my best run", tmp_path / tiny().name)
    assert why(tmp_path, "noise", tiny())[0][0].state == "done"


def test_failed_and_broken_say_why(tmp_path):
    put(tmp_path, tiny()).write_text("{")
    (one,), text = why(tmp_path, "noise", tiny())
    assert one.state == "broken"
    assert "broken: " + str(tmp_path) in text
    assert "is not a whole JSON file; move it away" in text
    run = tiny(perturbation="history")
    RunFolder(tmp_path, run).create_folder(named(run))
    RunFolder(tmp_path, run).record_failure("pretrain", "the loss is nan")
    (one,), text = why(tmp_path, "history", run)
    assert (one.state, one.needs) == ("waiting", ["its encoder failed: pretrain: the loss is nan"])
    write_json(RunFolder(tmp_path, run).path / "pretrain.json", {"schema": 1})
    RunFolder(tmp_path, run).record_failure("linear", "no memory")
    (one,), text = why(tmp_path, "history", run)
    assert (one.state, one.reason) == ("failed", "linear: no memory")
    assert "failed: linear: no memory\n" in text
    (RunFolder(tmp_path, run).path / "run.json").write_text("[]")
    assert why(tmp_path, "history", run)[0][0].state == "broken"


def test_what_somebody_is_at_work_on(tmp_path):
    folder = RunFolder(tmp_path, tiny()).create_folder(named(tiny()))
    with folder.claim_work():
        (one,), text = why(tmp_path, "noise", tiny())
    assert one.state == "waiting"
    assert "waiting: for its pre-training, which is running\n" in text
    (one,), _ = why(tmp_path, "noise", tiny())
    assert (one.state, one.reason) == ("waiting", "")


def test_what_must_be_there_first(tmp_path):
    bare = {"backbone": "resnet50", "image_size": 224, "perturbation": "none", "epochs": 0}
    (run,) = grid(dataset="cifar10", init="byol", **bare)
    (one,), text = why(tmp_path, "byol", run)
    assert one.state == "waiting"
    assert "first: " + str(tmp_path / "data/cifar-10-batches-py") + ": CIFAR10 is not there" in text
    assert f"first: init='byol': is not imported yet; run: simclic import byol FILE --runs {tmp_path}\n" in text
    (run,) = grid(dataset="digits", init="./gone.pth", **bare)
    assert "first: init='./gone.pth': no such file\n" in why(tmp_path, "./gone.pth", run)[1]


def test_a_cell_is_all_its_seeds(tmp_path):
    runs = tuple(tiny(seed=seed) for seed in range(3))
    put(tmp_path, runs[0])
    put(tmp_path, runs[1], FINE)
    answers, text = why(tmp_path, "noise", *runs)
    assert [one.state for one in answers] == ["done", "missing", "waiting"]
    assert fields(answers[2].runs[0].differ) == [("seed", 0, 2)]
    assert text.count("to fill it") == 1
    assert [a.job for a in why(tmp_path, runs[2].name, *runs)[0]] == [a.job for a in answers]


TABLES = [load(ROOT / f"benchmarks/{stem}.py") for stem in ("table2", "table4", "table5", "figure4", "figure7", "as_printed")]


PLACES = {
    "noise table2 cifar10 linear": "Table 2 · SimCLIC (noise) · CIFAR10 · Linear evaluation",
    "SimCLIC-noise Table2 CIFAR100 FineTune": "Table 2 · SimCLIC (noise) · CIFAR100 · Fine-tuned",
    "table2 as-published cifar10 dropout": "Table 2 · SimCLIC (dropout) · CIFAR10 · Linear evaluation, as published",
    "finetune figure4 pets tau=0.3": "Figure 4 · SimCLIC (history) · Pets · tau=0.3 · Fine-tuned",
    "0.3 pets linear figure4": "Figure 4 · SimCLIC (history) · Pets · tau=0.3 · Linear evaluation",
    "frozen table4 linear": "Table 4 · SimCLIC (noise) · CIFAR10 · predictor=frozen (Fixed random init) · Linear evaluation",
    "identity pets table2 finetune": "Table 2 · SimCLIC (no perturbation) · Pets · Fine-tuned",
    "pixels pets table2 linear": "Table 2 · Raw pixels · Pets · Linear evaluation",
    "stop_gradient=FALSE as_printed": "as_printed Table 5 · SimCLIC (noise) · CIFAR10"
    " · stop_gradient=False (Without stop-gradient) · Linear evaluation",
}  # fmt: skip


@pytest.mark.parametrize("cell", PLACES)
def test_a_cell_is_called_by_its_coordinates_in_any_order(tmp_path, cell):
    for asked in (cell, " ".join(reversed(cell.split()))):
        cells = explain_cells(TABLES, tmp_path, tmp_path, asked).cells
        assert PLACES[cell] in [place for found, _ in cells for place in found.places]


def test_a_run_and_a_job_have_names_and_all_places_that_show_them(tmp_path):
    run = tiny()
    two = [suite(run, protocols=(LINEAR, FINE)), Suite("mine", "", (Table(name="again", caption="", runs=(run,)),), "m.py")]
    found = explain_cells(two, tmp_path, tmp_path, run.name).cells
    assert [c.places for c, _ in found] == [
        ["Table 2 · SimCLIC (noise) · Digits · Linear evaluation", "mine Again · SimCLIC (noise) · Digits · Linear evaluation"],
        ["Table 2 · SimCLIC (noise) · Digits · Fine-tuned"],
    ]
    ((cell, (one,)),) = explain_cells(two, tmp_path, tmp_path, f"{run.name}/{FINE.name}").cells
    assert (cell.paths, one.job) == (["benchmarks/x.py"], f"{run.name}/{FINE.name}")
    assert len(explain_cells(two, tmp_path, tmp_path, f"{run.name}/pretrain").cells) == 2


def test_words_are_exact(tmp_path):
    found = explain_cells(TABLES, tmp_path, tmp_path, "cifar10 dropout table2 linear").cells
    assert {job.run.dataset for cell, _ in found for job in cell.jobs} == {"cifar10"}
    for part in ("cifar", "table", "digits-nois", "tau", "fine"):
        with pytest.raises(InputError, match=f"nothing is called '{part}'"):
            explain_cells(TABLES, tmp_path, tmp_path, part)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("table2 noyse cifar10", r"nothing is called 'noyse', did you mean noise\?; nearest: table2 noise cifar10 linear \|"),
        ("figure4 tau=0.9", r"nothing is called 'tau=0.9', did you mean tau=0.\d\?; nearest: figure4 history cifar10 tau=0.\d"),
        (
            "table4 dropout frozen",
            "'table4 dropout frozen': no cell has all of these coordinates; nearest: table4 .*=frozen",
        ),
        ("zzzz", r"^'zzzz': nothing is called 'zzzz'$"),
        (" ", "name a cell, such as"),
    ],
)
def test_no_cell_is_one_line_with_the_nearest(tmp_path, cell, message):
    with pytest.raises(InputError, match=message) as e:
        explain_cells(TABLES, tmp_path, tmp_path, cell)
    assert "\n" not in str(e.value)


def test_many_cells_are_listed_and_each_line_names_its_cell(tmp_path):
    with pytest.raises(InputError) as e:
        explain_cells(TABLES, tmp_path, tmp_path, "noise")
    first, *lines, last = str(e.value).splitlines()
    assert first.endswith("cells; add a coordinate:")
    assert lines[0] == "  table2 noise aircraft linear"
    assert last.startswith("  and ")
    for line in lines[:5]:
        assert line.strip() in [cell.address for cell, _ in explain_cells(TABLES, tmp_path, tmp_path, line).cells]
    with pytest.raises(InputError, match="show no results"):
        explain_cells([load(ROOT / "benchmarks/table3.py")], tmp_path, tmp_path, "epochs")


def test_points_of_a_figure_whose_lines_are_no_data_sets(tmp_path):
    runs = tuple(tiny(epochs=epochs, batch_size=size) for epochs in (2, 3) for size in (8, 16))
    figure = Figure(paper="figure7", caption="", x="batch_size", lines="epochs", runs=runs)
    ((cell, _),) = explain_cells([Suite("", "", (figure,), "f.py")], tmp_path, tmp_path, "epochs=3 16").cells
    assert cell.places == ["Figure 7 · SimCLIC (noise) · Digits · epochs=3 · batch_size=16 · Linear evaluation"]


HOSTILE = "[red]x[/red]\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}'$(id)"


def test_what_others_named_is_printed_as_it_is(tmp_path):
    place = tmp_path / HOSTILE
    fill(place)
    run = tiny(dataset=str(place))
    path = publish(tmp_path, run, LINEAR)
    edit(path, node=HOSTILE)
    edit(path.with_name("run.json"), run=run.values | {"precision": HOSTILE, HOSTILE: HOSTILE, "seed": {"a": "x" * 500}})
    shutil.copytree(path.parent, tmp_path / HOSTILE.replace("/", "-"), dirs_exist_ok=True)
    (one,), text = why(tmp_path, "noise", run)
    assert one.state == "changed"
    RunFolder(tmp_path, tiny()).record_failure("linear", HOSTILE)
    text += why(tmp_path, "noise", tiny())[1]
    shutil.rmtree(path.parent)
    edit(publish(tmp_path, run, LINEAR), node=HOSTILE)
    text += why(tmp_path, "noise", run)[1]
    assert "[red]x[/red]\\x1b[2J\\u202e" in text
    assert max(map(len, text.splitlines())) < 800
    with pytest.raises(InputError) as e:
        why(tmp_path, HOSTILE + "?", run)
    assert all(c.isprintable() or c == "\n" for c in text + str(e.value))


def test_hundreds_of_runs_are_explained_without_torch(tmp_path):
    for run in grid(dataset="cifar10", perturbation="history", tau=tuple(i / 1000 for i in range(300))):
        (tmp_path / run.name).mkdir()
        write_json(tmp_path / run.name / "run.json", {"schema": 1, "run": run.values, "data": "d1"})
    script = """if True:
        import sys
        from pathlib import Path
        from simclic import load
        from simclic.schedule.why import explain_cells
        root = Path(sys.argv[1])
        found = explain_cells([load(path) for path in sys.argv[2:]], root, root, "figure4 tau=0.3 cifar10 linear")
        assert len(found.cells) == 1 and found.format_lines()
        print({"torch", "pandas", "sklearn", "numpy"} & set(sys.modules))
    """
    exhibits = [str(ROOT / f"benchmarks/{name}.py") for name in sorted(PAPER_EXHIBITS)]
    done = subprocess.run([sys.executable, "-c", script, tmp_path, *exhibits], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
