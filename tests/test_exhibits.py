"""Exhibits that compare on equal terms: a search on val in each cell, and figures over what a training costs."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, tiny
from stored import measure

from simclic import Figure, Finetune, Linear, Run, Table, grid, load
from simclic.errors import Diverged, InputError
from simclic.experiment import METHODS, Suite
from simclic.report import render
from simclic.report.cell_keys import measure_cells
from simclic.report.figures import compute_points, draw_panels
from simclic.report.findings import list_all_findings, list_findings
from simclic.report.printed_vs_ours import compare_with_printed, explain_not_comparable
from simclic.report.results import Results
from simclic.report.search import choose_values, list_search_notes
from simclic.report.stored_numbers import read_stored_numbers
from simclic.report.tables import build_sheet
from simclic.schedule.cell_lookup import find_cells
from simclic.schedule.plan import plan
from simclic.store.run_folder import RunFolder

RATES, LINEAR = (0.1, 0.3, 1.0), (Linear(),)


def searched(labels=("noise",), seeds=(0,), protocols=LINEAR, **options):
    """A table of these perturbations, each with three learning rates."""
    runs = tuple(tiny(perturbation=g, base_lr=lr, seed=s) for g in labels for lr in RATES for s in seeds)
    return Table(name="searched", caption="", runs=runs, protocols=protocols, search="base_lr", **options)


def stored(runs, table, on_val, on_test, protocols=LINEAR, **options):
    """Results of the Runs of a table by (learning rate, seed) -> error on val, on test."""
    for protocol in protocols:
        for run in table.runs:
            if (run.base_lr, run.seed) in on_val:
                at = (run.base_lr, run.seed)
                measure(runs, run, protocol, on_test[at], images=1000, val_error=on_val[at], **options)


def text_of(table, runs, row=0):
    """What the first cell of a row of ours shows."""
    sheet = build_sheet(table, Results(runs), runs / "none")
    return sheet.blocks[0][1][0].rows[row].cells[0]


def test_a_cell_shows_the_value_with_the_lowest_error_on_val_even_where_test_disagrees(tmp_path):
    table = searched(seeds=(0, 1))
    on_val = {(0.1, 0): 9.0, (0.1, 1): 9.0, (0.3, 0): 5.0, (0.3, 1): 8.0, (1.0, 0): 6.0, (1.0, 1): 7.5}
    on_test = {(0.1, 0): 1.0, (0.1, 1): 1.0, (0.3, 0): 30.0, (0.3, 1): 32.0, (1.0, 0): 2.0, (1.0, 1): 2.0}
    stored(tmp_path, table, on_val, on_test)
    cell = text_of(table, tmp_path)
    assert cell.text == "31.00 ± 1.41"  # 6.5 on val; 6.75 and 9 of the others, which are better on test
    assert cell.runs == tuple(run.name for run in table.runs if run.base_lr == 0.3)
    assert cell.measure().value == pytest.approx(31.0)


def test_of_equal_errors_on_val_the_first_value_is_shown(tmp_path):
    table = searched()
    stored(tmp_path, table, {(lr, 0): 5.0 for lr in RATES}, dict(zip([(lr, 0) for lr in RATES], (20, 10, 15), strict=True)))
    assert text_of(table, tmp_path).text == "20.00"
    turned = replace(table, runs=table.runs[::-1])
    assert text_of(turned, tmp_path).text == "15.00"


def test_each_protocol_chooses_for_itself(tmp_path):
    table = searched(protocols=(Linear(), Finetune()))
    for protocol, best in ((Linear(), 0.1), (Finetune(), 0.3)):
        for run in table.runs:
            measure(tmp_path, run, protocol, 10 * run.base_lr, images=1000, val_error=5.0 + (run.base_lr != best))
    chosen = {protocol.stage: choice.value for (_, protocol), choice in choose_values(table, Results(tmp_path)).items()}
    assert chosen == {"linear": 0.1, "finetune": 0.3}


def test_an_unfinished_search_says_so_and_its_number_has_no_rank_and_no_mark(tmp_path):
    table = searched(seeds=(0, 1))
    some = {(0.1, 0): 5.0, (0.1, 1): 5.0, (0.3, 0): 1.0}  # a seed of 0.3 is missing
    stored(tmp_path, table, some, dict.fromkeys(some, 12.0))
    cell = text_of(table, tmp_path)
    assert (cell.text, cell.mark) == ("12.00 ± 0.00 (1 of 3)", "")
    assert np.isnan(cell.value)
    assert cell.measure() is None
    notes = " ".join(list_search_notes(table, Results(tmp_path)))
    assert "the search of base_lr is not finished for 1 of 1 numbers" in notes
    assert "chosen by" not in notes


def test_what_diverged_is_done_and_never_chosen(tmp_path):
    table = searched()
    stored(tmp_path, table, {(0.1, 0): 5.0, (0.3, 0): 4.0}, {(0.1, 0): 11.0, (0.3, 0): 12.0})
    assert text_of(table, tmp_path).text == "12.00 (2 of 3)"
    folder = RunFolder(tmp_path, table.runs[2])
    folder.create_folder("d1")
    folder.record_failure("pretrain", Diverged("the loss is not finite"))
    assert text_of(table, tmp_path).text == "12.00"


def test_results_that_do_not_say_their_error_on_val_are_never_chosen(tmp_path):
    table = searched()
    for run in table.runs:
        measure(tmp_path, run, Linear(), 10.0, images=1000)
    assert text_of(table, tmp_path).text == "–"


def test_below_stand_the_values_those_at_an_end_and_what_the_search_cost(tmp_path):
    table = searched(labels=("noise", "dropout"))
    for run in table.runs:
        best = {"noise": 0.3, "dropout": 1.0}[run.perturbation]
        measure(tmp_path, run, Linear(), 10.0, images=1000, val_error=5.0 + (run.base_lr != best), seconds=100.0)
    notes = list(list_search_notes(table, Results(tmp_path)))
    assert notes[0] == (
        "Linear evaluation: base_lr chosen by the error on val, never on test: SimCLIC (noise) 0.3; SimCLIC (dropout) 1*"
    )
    assert notes[1] == "*: at an end of the values of base_lr that were tried; a better one may lie outside"
    assert notes[2] == "measured time of all values of base_lr: 10 min; of the chosen values alone: 3.33 min"
    suite = Suite("", "Searched", (table,), "searched.py")
    render([suite], tmp_path, tmp_path / "out")
    page = (tmp_path / "out/searched.html").read_text()
    assert all(note in page for note in notes)


def test_on_the_papers_split_the_note_says_that_val_is_what_is_reported_on(tmp_path):
    table = searched().moved(split="paper")
    for run in table.runs:
        measure(tmp_path, run, Linear(), 10.0, images=1000, val_error=10.0)
    assert "on the images that are reported on" in next(list_search_notes(table, Results(tmp_path)))


def test_several_data_sets_are_named_where_they_choose_differently(tmp_path):
    table = Table(
        name="two", caption="", runs=grid(dataset=("cifar10", "dtd"), base_lr=RATES), search="base_lr", protocols=LINEAR
    )
    for run in table.runs:
        best = {"cifar10": 0.3, "dtd": 0.1}[run.dataset]
        measure(tmp_path, run, Linear(), 10.0, images=1000, val_error=5.0 + (run.base_lr != best))
    assert next(list_search_notes(table, Results(tmp_path))).endswith("SimCLIC (noise) 0.3 (CIFAR10), 0.1* (DTD)")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"search": "base_lrr"}, "did you mean 'base_lr'"),
        ({"search": "seed"}, "cannot be chosen on val"),
        ({"search": "dataset"}, "cannot be chosen on val"),
        ({"search": "base_lr", "columns": "base_lr"}, "nothing is to choose"),
        ({"search": "weight_decay"}, "runs with base_lr 0.1 and 0.3 meet in one cell"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, why):
    with pytest.raises(InputError, match=why):
        Table(name="wrong", caption="", runs=grid(base_lr=(0.1, 0.3)), **options)


def test_all_values_are_planned_and_explained(tmp_path):
    table = searched()
    suite = Suite("", "Searched", (table,), "searched.py")
    assert {job.run.base_lr for job in suite.jobs} == set(RATES)
    assert len(plan([suite], tmp_path, tmp_path).jobs) == 2 * len(RATES)
    (cell,) = find_cells([suite], "searched noise digits linear")
    assert {job.run.base_lr for job in cell.jobs} == set(RATES)


def test_claims_and_findings_read_the_chosen_value_alone(tmp_path):
    runs = (*grid(dataset="cifar10", base_lr=RATES), Run(dataset="cifar10", perturbation="none", epochs=0))
    table = Table(paper="table2", caption="", runs=runs, search="base_lr")
    for run in runs:
        measure(tmp_path, run, Linear(), 50.0 if not run.epochs else 10 * run.base_lr, val_error=1 / run.base_lr)
    cells = {key.at: measured.value for key, measured in measure_cells([table], Results(tmp_path)).items()}
    assert cells == {"SimCLIC (noise)": 10.0, "Untrained backbone": 50.0}
    (finding,) = list_findings(table, Results(tmp_path))
    assert ("SimCLIC (noise)", "10.0") in [row[:2] for row in finding.rows]


def test_what_is_not_simclic_is_not_spoken_of_as_simclic(tmp_path):
    runs = (Run(dataset="cifar10", method="simsiam"), Run(dataset="cifar10", perturbation="none", epochs=0))
    for run in runs:
        measure(tmp_path, run, Linear(), 10.0)
    assert list_findings(Table(name="other", caption="", runs=runs), Results(tmp_path)) == []


def test_a_figure_has_points_over_encoder_passes_of_finished_searches(tmp_path):
    runs = tuple(tiny(method=m, epochs=e, base_lr=lr) for m in ("simclic", "simsiam") for e in (2, 4) for lr in RATES)
    figure = Figure(name="passes", caption="", runs=runs, x="encoder_passes", lines="label", search="base_lr")
    for run in runs:
        if (run.method, run.epochs, run.base_lr) != ("simsiam", 4, 1.0):
            measure(tmp_path, run, Linear(), 10 * run.base_lr, images=1000, val_error=run.base_lr)
    points = compute_points(figure, Results(tmp_path))
    assert list(zip(points.line, points.x, points.error, strict=True)) == [
        ("SimCLIC (noise)", 2, 1.0), ("SimCLIC (noise)", 4, 1.0), ("SimSiam", 2 * METHODS["simsiam"].passes, 1.0)
    ]  # fmt: skip
    notes = list(list_search_notes(figure, Results(tmp_path)))
    assert "SimCLIC (noise) 0.1*; SimSiam 0.1*" in notes[0]
    assert "not finished for 1 of 4 numbers; such a number has no point" in " ".join(notes)
    render([Suite("", "Passes", (figure,), "passes.py")], tmp_path, tmp_path / "out")
    assert "SimSiam" in (tmp_path / "out/passes.svg").read_text()


def test_a_figure_over_what_holds_no_numbers_is_refused():
    for x in ("label", "method", "title"):
        with pytest.raises(InputError):
            Figure(name="wrong", caption="", runs=(Run(),), x=x)


MARK = """# source: Doe 2026, Table 3
# split: test
# dataset: CIFAR10
protocol,method,source,caveat,batch 128,512
linear,SimSiam,,,10.0,12.0
linear,SimCLIC (noise),Roe 2025,"the best of all epochs, chosen on test",5.0,
linear,Other,,,7.0,
"""


def mark(folder, text=MARK, **options):
    """A table of one's own with stored numbers beside it."""
    (folder / "mark.csv").write_text(text)
    fields = {"dataset": "cifar10", "batch_size": (128, 512), "method": ("simsiam", "simclic")} | options
    search = {"search": "base_lr"} if "base_lr" in fields else {}
    labels = {128: "batch 128"}
    return Table(name="mark", caption="", runs=grid(**fields), rows="label", columns="batch_size", labels=labels, **search)


def verdicts_of(table, folder):
    """What stands beside each stored number, by row and column."""
    return {(c.row, c.column): c for c in compare_with_printed(table, Results(folder), folder, {})}


def test_stored_numbers_stand_beside_an_exhibit_of_ones_own_with_a_verdict_each(tmp_path):
    table = mark(tmp_path)
    for run in table.runs:
        if (run.method, run.batch_size) != ("simclic", 512):
            measure(tmp_path, run, Linear(), {128: 10.2, 512: 15.0}[run.batch_size])
    beside = verdicts_of(table, tmp_path)
    assert {place: c.verdict for place, c in beside.items()} == {
        ("SimSiam", "batch 128"): "reproduced", ("SimSiam", "512"): "differs",
        ("SimCLIC (noise)", "batch 128"): "not comparable", ("Other", "batch 128"): "not run",
    }  # fmt: skip
    cell = beside["SimCLIC (noise)", "batch 128"]
    assert (cell.why, cell.difference) == ("the best of all epochs, chosen on test", "+5.20")
    sheet = build_sheet(table, Results(tmp_path), tmp_path)
    ((_, groups),) = sheet.blocks
    assert sheet.header == ["batch 128", "512"]
    assert [group.title for group in groups] == ["As stored", "Run here", "Run here less stored"]
    assert [[cell.text for cell in row.cells] for row in groups[0].rows] == [["10.00", "12.00"], ["5.00", "–"], ["7.00", "–"]]
    assert "As stored, SimCLIC (noise): the best of all epochs, chosen on test." in sheet.remarks


def test_stored_numbers_are_not_compared_with_other_data_other_splits_or_unfinished_searches(tmp_path):
    for options, why in (({"dataset": "cifar100"}, "other data set (CIFAR100 for CIFAR10)"), ({"split": "paper"}, "other split")):
        table = mark(tmp_path, **options)
        for run in table.runs:
            measure(tmp_path, run, Linear(), 10.0)
        cell = verdicts_of(table, tmp_path)["SimSiam", "batch 128"]
        assert cell.verdict == "not comparable"
        assert cell.why.startswith(why)
    unknown = MARK.replace("# split: test", "# split: a tenth of train")
    table = mark(tmp_path, unknown)
    for run in table.runs:
        measure(tmp_path, run, Linear(), 10.0)
    assert "other images" in verdicts_of(table, tmp_path)["SimSiam", "batch 128"].why
    searching = verdicts_of(mark(tmp_path, base_lr=(0.05, 0.1)), tmp_path)["SimSiam", "batch 128"]
    assert (searching.verdict, searching.why) == ("not run", "the search of base_lr is not finished")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("# dataset: CIFAR10\n", ""), "dataset is missing"),
        (("# split: test\n", ""), "split is missing"),
        (("batch 128", "batch 64"), "'batch 64' is not a column of Mark"),
        (("10.0", "110.0"), "is not an error in percent"),
        (("protocol,method", "method,protocol"), "the first columns are not protocol, method"),
        (("linear,Other", "linear,SimSiam"), "each once"),
    ],
)
def test_a_wrong_file_of_stored_numbers_is_one_line(tmp_path, change, why):
    table = mark(tmp_path, MARK.replace(*change))
    with pytest.raises(InputError, match=why):
        build_sheet(table, Results(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (Table, {"caption": 5}, "caption=5 is int, not str"),
        (Table, {"name": 5}, "name=5 is int, not str"),
        (Table, {"notes": "a text"}, "notes='a text' is str, not tuple"),
        (Table, {"columns": ["epochs"]}, "is list, not str or tuple"),
        (Table, {"columns": "epoch"}, "'epoch' is not a field of Run; did you mean 'epochs'"),
        (Table, {"columns": ("seed", "epoch")}, "'epoch' is not a field of Run; did you mean 'epochs'"),
        (Table, {"labels": {"pets": "Cats and dogs"}}, "labels= has no effect with columns='dataset'; remove it"),
        (Table, {"labels": 5}, "labels=5 is int, not mapping"),
        (Figure, {"x": ("epochs", "seed")}, "is tuple, not str"),
        (Figure, {"x": "epochs", "logx": "yes"}, "logx='yes' is str, not bool"),
        (Figure, {"x": "seed", "logx": True}, "x='seed' has the value 0, which logx=True cannot show; remove logx"),
    ],
)
def test_a_wrong_value_of_an_exhibit_says_what_it_should_be(kind, options, why):
    with pytest.raises(InputError, match=re.escape(why)):
        kind(**{"name": "wrong", "caption": "", "runs": (Run(),), **options})


@pytest.mark.parametrize(
    ("runs", "more", "why"),
    [
        ("()", "", "Mine has no runs"),
        ("grid(epochs=())", "", "x.py:2: epochs=() has no value; give at least one"),
        ("grid(epochs=1)", ", protocols=()", "Mine has no protocols"),
        ("(raw_pixels,)", ", protocols=(Finetune(),)", "Mine has no results: pixels cannot be fine-tuned"),
    ],
)
def test_an_exhibit_without_any_result_is_refused(tmp_path, runs, more, why):
    lines = ("from simclic import Finetune, Run, Table, grid", f'TABLE = Table(name="mine", caption="", runs={runs}{more})')
    (tmp_path / "x.py").write_text(
        "\n".join(lines).replace("raw_pixels", 'Run(backbone="pixels", epochs=0, perturbation="none")')
    )
    with pytest.raises(InputError, match=re.escape(why)):
        load(tmp_path / "x.py")


@pytest.mark.parametrize("options", [{"rows": "method", "columns": "epochs"}, {"rows": "label"}])
def test_rows_are_data_sets_or_labels_and_have_an_effect(options):
    with pytest.raises(InputError, match="rows="):
        Table(name="wrong", caption="", runs=(Run(),), **options)


def test_what_is_trained_here_is_neither_the_imported_nor_the_printed_one(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "simsiam", replace(METHODS["simsiam"], title="BYOL"))
    trained, imported = Run(method="simsiam"), Run(init="byol", perturbation="none", epochs=0)
    table = Table(paper="table2", caption="", runs=(trained, imported))
    assert [run.label for run in table.runs] == ["BYOL (trained here)", "BYOL"]
    measure(tmp_path, trained, Linear(), 30.0)
    compared = {(c.row, c.column): c for c in compare_with_printed(table, Results(tmp_path), ROOT / "baselines", {})}
    assert compared["BYOL", "CIFAR10"].verdict == "not run"
    measure(tmp_path, imported, Linear(), 20.0)
    compared = {(c.row, c.column): c for c in compare_with_printed(table, Results(tmp_path), ROOT / "baselines", {})}
    assert compared["BYOL", "CIFAR10"].ours == "20.00"
    groups = build_sheet(table, Results(tmp_path), ROOT / "baselines").blocks[0][1]
    (less,) = [group for group in groups if group.title == "Run here less printed"]
    assert [row.label for row in less.rows] == ["BYOL"]
    yardstick = mark(tmp_path, MARK.replace("SimSiam", "BYOL"))
    for run in yardstick.runs:
        measure(tmp_path, run, Linear(), 10.0)
    assert verdicts_of(yardstick, tmp_path)["BYOL", "batch 128"].verdict == "reproduced"  # others train theirs on CIFAR10, too


def test_no_method_passes_for_a_row_that_simclic_or_others_print(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "simsiam", replace(METHODS["simsiam"], title="SimCLIC (noise)"))
    row = {"table": "2", "row": "SimCLIC (noise)", "column": "CIFAR10", "metric": "top-1"}
    why = explain_not_comparable(Run(method="simsiam", split="paper"), Linear(), row, "top-1")
    assert any(text.startswith("other method") for text in why)
    facts = Table(
        paper="table3", caption="", runs=(Run(method="simsiam"),), protocols=(),
        columns=("epochs", "batch_size", "momentum_encoder", "memory_bank", "projection_head", "data_augmentation"),
    )  # fmt: skip
    assert compare_with_printed(facts, Results(tmp_path), ROOT / "baselines", {}) == []


def test_many_lines_differ_in_colour_marker_or_dashes_and_their_legend_hides_none():
    from matplotlib.figure import Figure as Canvas

    lines = [(f"method {i}" + " with a very long name" * 3, [1.0, 2.0], [30.0, 20.0], [1.0, 1.0]) for i in range(18)]
    canvas = Canvas(layout="constrained")
    draw_panels(canvas, [("kNN", lines)], "Epochs", logx=True)
    canvas.draw_without_rendering()
    (ax,) = canvas.axes
    drawn = [bars.lines[0] for bars in ax.containers]
    assert len({(line.get_color(), line.get_marker(), str(line._unscaled_dash_pattern)) for line in drawn}) == 18
    (legend,) = canvas.legends
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())
    assert ax.get_window_extent().width > 200


def test_findings_say_which_other_methods_learn_and_which_do_not(tmp_path):
    untrained = Run(dataset="cifar10", perturbation="none", epochs=0)
    methods = {"simclic": 20.0, "simsiam": 20.0, "byol": 20.5, "dino": 50.0}
    runs = (untrained, *(Run(dataset="cifar10", method=name) for name in methods))
    for run in runs:
        measure(tmp_path, run, Linear(), methods[run.method] if run.epochs else 50.0)
    (finding,) = list_findings(Table(name="all", caption="", runs=runs), Results(tmp_path))
    assert "Of the other methods, SimSiam and BYOL (trained here) clearly learn something." in finding.sentences
    assert "That DINO learns anything is not shown." in finding.sentences


def test_what_was_learned_of_the_same_encoders_is_said_once_and_of_others_with_the_table(tmp_path):
    first, second = (grid(dataset="cifar10", epochs=epochs) for epochs in (10, 20))
    untrained = grid(dataset="cifar10", perturbation="none", epochs=0)
    published = Linear(solver="as-published")
    tables = [
        Table(name="short", caption="", runs=first + untrained),
        Table(name="short-as-published", caption="", runs=first + untrained, protocols=(published,)),
        Table(name="long", caption="", runs=second + untrained),
    ]
    for run, protocol in ((job.run, job.protocol) for table in tables for job in table.jobs):
        measure(tmp_path / "runs", run, protocol, 20.0 if run.epochs else 50.0)
    assert [f.table for f in list_all_findings(tables, Results(tmp_path / "runs"))] == ["Short", "Long"]
    assert [f.table for f in list_all_findings(tables[1:], Results(tmp_path / "runs"))] == ["Short as published", "Long"]
    for asked, shown in ((tables[:2], ["CIFAR10: "]), (tables, ["Short. CIFAR10: ", "Long. CIFAR10: "])):
        page = render([Suite("", "t", tuple(asked), "x.py")], tmp_path / "runs", tmp_path / f"out{len(asked)}")[0][0]
        assert re.findall(r'class="lead">(.*?)SimCLIC learns', page.read_text()) == shown


@pytest.mark.parametrize("stem", ["methods", "methods_digits"])
def test_every_method_has_a_row_and_a_line_and_the_same_search(stem):
    for exhibit in load(ROOT / f"benchmarks/{stem}.py").exhibits:
        searched: dict[object, set[float]] = {}
        for run in exhibit.runs:
            if run.epochs:
                searched.setdefault((run.method, run.perturbation, run.dataset, run.epochs), set()).add(run.base_lr)
        without_colour = {"cmc"} if stem == "methods_digits" and isinstance(exhibit, Figure) else set()
        assert {method for method, *_ in searched} == set(METHODS) - without_colour
        assert {len(values) for values in searched.values()} == {3}


def test_every_number_of_the_yardstick_is_run_and_has_a_source(tmp_path):
    (table,) = load(ROOT / "benchmarks/yardstick.py").exhibits
    beside = compare_with_printed(table, Results(tmp_path), ROOT / "baselines", {})
    assert {(c.verdict, c.why) for c in beside} == {("not run", "there is no result yet")}
    assert len(beside) == 20
    numbers = read_stored_numbers(table, ROOT / "baselines").numbers
    assert {number.source.split(",")[0] for number in numbers} == {"lightly", "MoCo's notebook", "solo-learn"}
    assert {number.images for number in numbers} == {10_000}
    byol = {n.column: n.text for n in numbers if n.row == "BYOL"}  # accuracies 86.9 and 86.8, and linear 92.58
    assert byol == {"batch 128 (200 epochs)": "13.1", "batch 512 (200 epochs)": "13.2", "batch 256 (1000 epochs)": "7.42"}
