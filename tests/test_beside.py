"""Printed numbers beside ours: each verdict in both directions, honest marks, what other choices change, links."""

import csv
import html
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, tiny
from stored import measure

from simclic import Figure, Finetune, Linear, Run, Table, grid, load
from simclic.experiment import Suite
from simclic.experiment.baselines import METHODS
from simclic.experiment.exhibit import PAPER_EXHIBITS
from simclic.report import render
from simclic.report.cell_keys import read_provenance
from simclic.report.choices import list_choices
from simclic.report.compare import compare_sides
from simclic.report.formats import comparison_to_csv
from simclic.report.gaps import list_superseded
from simclic.report.noise import Measured
from simclic.report.printed_vs_ours import STATED, VERDICT_RULE, compare_with_printed, count_verdicts, explain_not_comparable
from simclic.report.results import Results
from simclic.report.sheet import Cell, Row, mark_supported
from simclic.report.sides import read_sides
from simclic.report.tables import build_sheet

BASELINES = ROOT / "baselines"


CONVERGED = (Linear(),)


def verdicts(runs, *those, protocols=CONVERGED, number=2, **options):
    """What stands beside each printed number of a table of these Runs, by row and column."""
    table = Table(paper=f"table{number}", caption="", runs=those, protocols=protocols, **options)
    return {(c.row, c.column, c.protocol): c for c in compare_with_printed(table, Results(runs), BASELINES, {})}


def simclic(**changes):
    """The Run behind the paper's 5.92, on the paper's own split."""
    return Run(split="paper", **changes)


NOISE = ("SimCLIC (noise)", "CIFAR10", "Linear evaluation")


@pytest.mark.parametrize(("error", "verdict"), [(5.92, "reproduced"), (6.3, "reproduced"), (7.2, "differs"), (4.9, "differs")])
def test_a_cell_is_reproduced_within_its_own_tolerance(tmp_path, error, verdict):
    measure(tmp_path, simclic(), Linear(), error)
    found = verdicts(tmp_path, simclic())[NOISE]
    assert (found.verdict, found.stored, found.why) == (verdict, "5.92", "")
    assert float(found.difference) == pytest.approx(error - 5.92, abs=0.005)
    images = (error * (100 - error) / 10_000 + 5.92 * 94.08 / 12_000) ** 0.5
    assert float(found.tolerance) == pytest.approx(1.96 * images, rel=0.02)


def test_seeds_that_differ_widen_the_tolerance_and_fewer_images_too(tmp_path):
    seeds = tuple(simclic(seed=s) for s in range(3))
    for run, error in zip(seeds, (5.5, 7.2, 8.9), strict=True):
        measure(tmp_path, run, Linear(), error)
    wide = verdicts(tmp_path, *seeds)[NOISE]
    assert wide.verdict == "reproduced"  # 7.20 alone differs, see above
    assert wide.ours == "7.20 ± 1.70"
    measure(tmp_path / "few", simclic(), Linear(), 7.2, images=500)
    assert verdicts(tmp_path / "few", simclic())[NOISE].verdict == "reproduced"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split": "ericsson"}, "other split (scored on test"),
        ({"init": "moco-v2"}, "other start (moco-v2)"),
        ({"epochs": 100}, "other epochs (100 for 1000)"),
        ({"backbone": "resnet18"}, "other backbone (resnet18 for resnet50)"),
        ({"image_size": 32}, "other image size (32 for 224)"),
        ({"similarity": "cross-entropy"}, "other similarity (cross-entropy for cosine)"),
    ],
)
def test_what_is_not_what_the_paper_did_is_not_compared(tmp_path, changes, why):
    run = replace(simclic(), **changes)
    measure(tmp_path, run, Linear(), 5.92)
    label = (run.label.split(" from")[0], *NOISE[1:])
    table = Table(paper="table2", caption="", runs=(run,))
    found = {(c.row, c.column): c for c in compare_with_printed(table, Results(tmp_path), BASELINES, {})}
    if run.label == label[0]:
        cell = found[label[:2]]
        assert cell.verdict == "not comparable"
        assert why in cell.why
        assert cell.difference == "0.00"  # shown all the same
        assert cell.tolerance == "–"
    else:  # a row of its own, which the paper does not print
        assert all(c.verdict == "not run" for c in found.values())


def printed_row(table, row, column="CIFAR10", stage="linear"):
    """What provenance.csv says of one printed number."""
    wanted = {"table": table, "row": row, "protocol": stage} | ({"column": column} if table == "2" else {})
    (found,) = [row for row in read_provenance(BASELINES) if row["metric"] and wanted.items() <= row.items()]
    return found


ANOTHER = {
    "backbone": "resnet18", "image_size": 32, "perturbation": "history", "epochs": 100, "batch_size": 64, "base_lr": 0.1,
    "momentum": 0.5, "weight_decay": 0.0, "predictor": "1-layer", "similarity": "cross-entropy", "stop_gradient": False,
}  # fmt: skip
# Printed numbers of SimCLIC as it is, each in a table that varies one field.
USUAL = {
    "perturbation": ("2", "SimCLIC (noise)"), "predictor": ("4", "2-layer MLP"), "stop_gradient": ("5", "With stop-gradient"),
    "similarity": ("6", "Cosine"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({*ANOTHER, *STATED}))
def test_whatever_the_paper_says_of_its_training_is_compared_but_for_what_a_table_varies(name):
    run = simclic(**{name: ANOTHER[name]})
    for varied, place in USUAL.items():
        assert explain_not_comparable(simclic(), Linear(), printed_row(*place), "top-1") == []
        told = explain_not_comparable(run, Linear(), printed_row(*place), "top-1")
        assert [why.endswith(f"({ANOTHER[name]} for {getattr(Run(), name)})") for why in told] == [True] * (name != varied)


# Fields of a protocol on which the paper is silent, and on which it is not.
SILENT = (Linear(features="bf16"), Linear(iterations=99), Linear(tolerance=1e-3), Linear(solver="as-published"),
          Finetune(decay_over_lr=False), Finetune(augment="none"), Finetune(eval_resize=1.2), Finetune(batch_norm="eval"),
          Finetune(precision="float32"))  # fmt: skip
SPOKEN = (Linear(l2_low=1e-3), Linear(l2_high=10.0), Linear(l2_count=3), Finetune(steps=9), Finetune(batch_size=64),
          Finetune(lr_low=0.01), Finetune(lr_high=1.0), Finetune(lr_count=3), Finetune(decay_low=1e-4), Finetune(decay_high=0.1),
          Finetune(decay_count=1), Finetune(momentum=0.5))  # fmt: skip


@pytest.mark.parametrize("protocol", [*SILENT, *SPOKEN], ids=str)
def test_what_the_paper_leaves_open_in_a_protocol_compares_and_nothing_else(protocol):
    told = explain_not_comparable(simclic(), protocol, printed_row("2", "SimCLIC (noise)", stage=protocol.stage), "top-1")
    (name,) = protocol.differing
    expected = f"other protocol ({name} {getattr(protocol, name)} for {getattr(type(protocol)(), name)})"
    assert told == ([expected] if protocol in SPOKEN else [])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"split": "paper"}, "other split (paper)"),
        ({"image_size": 32}, "other image size (32 for 224)"),
        ({"backbone": "resnet18"}, "other backbone (resnet18 for resnet50)"),
        ({"difficult": "ignore"}, "other difficult (ignore for negative)"),
        ({"l2_count": 3}, "other protocol (l2_count 3 for 45)"),
        ({"features": "bf16"}, ""),
    ],
)
def test_a_cited_row_is_compared_only_with_what_its_source_did(changes, why):
    of_protocol = changes.keys() & Linear().values.keys() - Run().values.keys()
    protocol = Linear(solver="as-published", **{k: changes[k] for k in of_protocol})
    run = Run(init="moco-v2", dataset="voc2007", perturbation="none", epochs=0)
    run = replace(run, **{k: v for k, v in changes.items() if k not in of_protocol})
    assert explain_not_comparable(run, protocol, printed_row("2", "MoCo v2", "VOC2007"), "11-point mAP") == ([why] if why else [])


@pytest.mark.parametrize("name", ["sela-v2", "deepcluster-v2", "swav"])
def test_three_are_measured_on_another_input_than_their_stored_rows(name):
    run = Run(init=name, dataset="cifar10", perturbation="none", epochs=0)
    told = explain_not_comparable(run, Linear(solver="as-published"), printed_row("2", METHODS[name], "CIFAR10"), "top-1")
    assert told == ["other input (its red divided by 0.228 as its authors do; the stored row's by 0.229)"]


def test_every_seed_behind_a_number_is_named(tmp_path):
    seeds = simclic(seed=0), simclic(seed=1)
    for run in seeds:
        measure(tmp_path, run, Linear(), 6, images=100)
    cell = verdicts(tmp_path, *seeds)[NOISE]
    (row,) = csv.DictReader(io.StringIO(comparison_to_csv([cell])))
    assert row["runs"].split() == [run.name for run in seeds]


def test_a_folder_of_the_name_of_a_data_set_is_another_one(tmp_path):
    run = simclic(dataset=f"{tmp_path}/CIFAR10")
    measure(tmp_path, run, Linear(), 5.92, images=100)
    cell = verdicts(tmp_path, run)[NOISE]
    assert (cell.verdict, cell.why) == ("not run", "this exhibit does not run it")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [(5.92, 8, "reproduced"), (8, 5.92, "differs"), (None, 8, "differs"), (None, 5.92, "reproduced"), (5.92, None, "reproduced")],
)
def test_a_printed_number_counts_once_by_the_first_protocol_that_compares(tmp_path, first, second, verdict):
    protocols = (Linear(), Linear(solver="as-published"))
    for protocol, error in zip(protocols, (first, second), strict=True):
        if error is not None:
            measure(tmp_path, simclic(), protocol, error)
    counted = count_verdicts(list(verdicts(tmp_path, simclic(), protocols=protocols).values()))
    assert counted.pop("not run") == 16 * 12 - 3 - 1
    assert {word for word, n in counted.items() if n} == {verdict}
    assert counted[verdict] == 1


def test_a_cited_number_counts_once_however_its_encoder_was_padded(tmp_path):
    protocols = (Linear(), Linear(solver="as-published"))
    runs = tuple(Run(init=f"byol{more}", perturbation="none", epochs=0) for more in ("", "-as-stored"))
    for run in runs:
        for protocol in protocols:
            measure(tmp_path, run, protocol, 6.74)
    counted = count_verdicts(list(verdicts(tmp_path, *runs, protocols=protocols).values()))
    assert (counted["reproduced"], counted["not comparable"], sum(counted.values())) == (1, 0, 16 * 12 - 3)


def test_another_metric_or_protocol_is_not_compared(tmp_path):
    short, tune = Linear(l2_count=3), Finetune(steps=10)
    measure(tmp_path, simclic(), short, 5.92)
    measure(tmp_path, simclic(), tune, 2.94)
    found = verdicts(tmp_path, simclic(), protocols=(short, tune))
    assert "other protocol (l2_count 3 for 45)" in found[NOISE].why
    assert "other protocol (steps 10 for 5000)" in found["SimCLIC (noise)", "CIFAR10", "Fine-tuned"].why
    pets = simclic(dataset="pets")
    measure(tmp_path, pets, Linear(), 18.75, metric="top-1")
    assert "other metric (top-1, printed: mean per class)" in verdicts(tmp_path, pets)["SimCLIC (noise)", "Pets", NOISE[2]].why


@pytest.mark.parametrize(("error", "verdict"), [(7.72, "reproduced"), (9.9, "differs")])
def test_a_cited_row_measured_again_is_compared_as_published(tmp_path, error, verdict):
    run = Run(init="moco-v2", perturbation="none", epochs=0)
    protocols = (Linear(), Finetune(), Linear(solver="as-published"))
    for protocol in protocols:
        measure(tmp_path, run, protocol, error)
    found = verdicts(tmp_path, run, protocols=protocols)
    assert found["MoCo v2", "CIFAR10", "Linear evaluation, as published"].verdict == verdict
    assert "other solver" in found["MoCo v2", "CIFAR10", "Linear evaluation"].why
    assert "batch 64, 20 settings" in found["MoCo v2", "CIFAR10", "Fine-tuned"].why
    gone = found["MoCo v2", "ImageNet", "Linear evaluation"]
    assert (gone.verdict, gone.why) == ("not run", "this exhibit does not run it; benchmarks/baselines.py measures it again")
    assert "benchmarks/baselines.py" in found["SwAV", "CIFAR10", "Fine-tuned"].why


def test_as_published_results_of_version_0_1_0_are_told_apart(tmp_path):
    """They stopped by another rule than the source's: no measurement of a cited row, and never averaged with newer ones."""
    old, new = (Run(init="moco-v2", perturbation="none", epochs=0, seed=seed) for seed in (0, 1))
    published, where = Linear(solver="as-published"), ("MoCo v2", "CIFAR10", "Linear evaluation, as published")
    measure(tmp_path, old, published, 7.72, superseded=True)
    (number,) = [n for k, n in verdicts(tmp_path, old, protocols=(published,)).items() if k == where]
    assert (number.verdict, number.ours) == ("not comparable", "7.72")  # still shown
    assert number.why == "other solver (stopped by another rule than theirs, by version 0.1.0)"
    table = Table(name="old-and-new", runs=(old, new), protocols=(published,), caption="")
    (line,) = list_superseded(table, Results(tmp_path))
    assert line.startswith(f"superseded: {old.name}, its as-published probe was stopped by the rule of version 0.1.0")
    assert line.endswith(f"delete its {published.name}.json to measure it again")
    measure(tmp_path, new, published, 9.9)
    assert Results(tmp_path).measure_jobs(table.jobs).value == pytest.approx(7.72)  # the lowest seed's
    for seed in (2, 3):
        run = replace(new, seed=seed)
        measure(tmp_path, run, published, 9.9)
        table = replace(table, runs=(*table.runs, run))
    assert Results(tmp_path).measure_jobs(table.jobs).value == pytest.approx(9.9)
    measure(tmp_path / "b", old, published, 9.9)
    (cell,) = compare_sides(*read_sides(str(tmp_path), str(tmp_path / "b"), tmp_path)).cells
    assert cell.why == "one as-published probe was stopped by the rule of version 0.1.0, the other by its source's"


def test_the_flawed_list_and_the_other_padding_are_said(tmp_path):
    own, stored = (Run(init=f"byol{more}", perturbation="none", epochs=0) for more in ("", "-as-stored"))
    caltech = Run(init="byol-as-stored", dataset="caltech101", perturbation="none", epochs=0)
    published = (Linear(solver="as-published"),)
    for run in (own, stored, caltech):
        measure(tmp_path, run, published[0], 6.74, metric="mean per class" if run is caltech else "top-1")
    found = verdicts(tmp_path, own, stored, caltech, protocols=published)
    where = "Linear evaluation, as published"
    assert "other start (padded as its authors do" in found["BYOL", "CIFAR10", where].why
    assert found["BYOL (padded as stored)", "CIFAR10", where].verdict == "reproduced"
    assert "their list was drawn with replacement" in found["BYOL (padded as stored)", "Caltech101", where].why


def test_ablations_are_compared_on_cifar10_and_not_elsewhere(tmp_path):
    (table,) = load(ROOT / "benchmarks/table5.py").exhibits
    for run, error in zip(table.runs, (5.9, 40.0), strict=True):
        measure(tmp_path, replace(run, split="paper"), Linear(), error)
    told = compare_with_printed(table.moved(split="paper"), Results(tmp_path), BASELINES, {})
    assert [(c.row, c.verdict) for c in told] == [("With stop-gradient", "reproduced"), ("Without stop-gradient", "differs")]
    moved = table.moved(dataset="digits", split="paper")
    for run in moved.runs:
        measure(tmp_path, run, Linear(), 10)
    told = compare_with_printed(moved, Results(tmp_path), BASELINES, {})
    assert all(c.verdict == "not comparable" and "other data set (Digits for CIFAR10)" in c.why for c in told)


def test_table_3_is_compared_word_by_word(tmp_path):
    (table,) = load(ROOT / "benchmarks/table3.py").exhibits
    found = {c.column: c.verdict for c in compare_with_printed(table, Results(tmp_path), BASELINES, {})}
    assert set(found.values()) == {"reproduced"}
    history = table.moved(perturbation="history", epochs=100)
    found = {c.column: (c.verdict, c.ours) for c in compare_with_printed(history, Results(tmp_path), BASELINES, {})}
    assert found["Epochs"] == ("differs", "100")
    assert found["Memory bank"] == ("differs", "yes")
    assert found["Batch size"] == ("reproduced", "128")


def test_what_has_not_run_or_failed_says_so(tmp_path):
    failed = {simclic(seed=0).name: "pretrain: diverged: at step 3"}
    table = Table(paper="table2", caption="", runs=(simclic(), simclic(perturbation="history")))
    found = {(c.row, c.column): c for c in compare_with_printed(table, Results(tmp_path), BASELINES, failed)}
    assert found["SimCLIC (noise)", "CIFAR10"].why == "pretrain: diverged: at step 3"
    assert found["SimCLIC (history)", "CIFAR10"].why == "there is no result yet"
    assert len(found) == 16 * 12 - 3  # the paper prints no ImageNet for SimCLIC


def test_every_printed_number_has_its_place_in_every_format(tmp_path):
    measure(tmp_path / "runs", simclic(), Linear(), 6.0)
    suite = Suite("", "", (Table(paper="table2", caption="", runs=(simclic(),)),), "x.py")
    render([suite], tmp_path / "runs", tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/table2-beside.csv").read_text())))
    (row,) = [r for r in rows if (r["row"], r["column"]) == NOISE[:2]]
    assert (row["stored"], row["here"], row["difference"], row["verdict"]) == ("5.92", "6.00", "+0.08", "reproduced")
    assert row["runs"] == simclic().name
    page = (tmp_path / "out/table2.html").read_text()
    assert VERDICT_RULE in html.unescape(page)
    assert f'<a href="runs/{simclic().name}.html">6.00</a></td><td>+0.08</td>' in page
    index = re.sub(r"<[^>]+>", " ", (tmp_path / "out/index.html").read_text())
    assert re.search(r"Table 2\s+1 of 1\s+1\s+0\s+0\s+188", index)


def marks(rows):
    return [row.cells[0].mark for row in rows]


def test_honest_marks_of_printed_numbers_are_shared_within_sampling_error(tmp_path):
    made = build_sheet(load(ROOT / "benchmarks/table2.py").exhibits[0], Results(tmp_path), BASELINES)
    group = made.with_supported_marks().blocks[0][1][0]
    at = made.header.index("CIFAR10")
    shared = {row.label for row in group.rows if row.cells[at].mark == "best"}
    assert shared == {
        "DeepCluster v2",
        "SwAV",
        "SimCLIC (history)",
        "SimCLIC (dropout)",
        "SimCLIC (noise)",
    }  # BYOL's 6.74 is p = .02
    at = made.header.index("Cars")
    assert [row.label for row in group.rows if row.cells[at].mark] == ["DeepCluster v2"]
    assert group.rows[0].label == next(iter(METHODS.values()))
    assert [row.cells[at].mark for row in made.blocks[0][1][0].rows if row.cells[at].mark] == ["second", "best"]  # untouched


def test_honest_marks_of_ours_are_paired(tmp_path):
    runs = [simclic(perturbation=g) for g in ("noise", "history", "dropout")]
    hard = np.random.default_rng(0).permutation(2000)
    for run, error in zip(runs, (10.0, 10.4, 14.0), strict=True):
        measure(tmp_path / "alike", run, Linear(), error, images=2000, hard=hard)  # each wrong where the better one is wrong
        measure(tmp_path / "apart", replace(run, seed=0), Linear(), error, images=2000, hard=np.roll(hard, int(100 * error)))
    table = Table(paper="table2", caption="", runs=tuple(runs))
    for name, expected in (("alike", ["best", "", ""]), ("apart", ["best", "best", ""])):
        made = build_sheet(table, Results(tmp_path / name), tmp_path).with_supported_marks()
        (group,) = made.blocks[0][1]
        at = made.header.index("CIFAR10")
        assert [row.cells[at].mark for row in group.rows] == expected, name


def test_what_is_equal_in_print_shares_a_mark_and_what_is_not_known_does_not():
    def marked(*cells):
        rows = [Row("", [Cell(str(value), value, measure=lambda m=m: m)]) for value, m in cells]
        return marks(mark_supported(rows))

    known, exact, unsure = Measured(2.0, 1000), Measured(2.004, 10**9), Measured(2.01, 0)
    assert marked((2.0, known), (2.004, None), (2.01, None), (2.01, unsure)) == ["best", "best", "", ""]
    assert marked((2.0, None), (2.01, known)) == ["best", ""]
    assert marked((2.0, replace(exact, value=2.0)), (2.004, exact)) == ["best", "best"]  # told apart by a thousand million images


def test_a_row_that_was_added_is_marked_among_the_printed_ones(tmp_path):
    shutil.copytree(BASELINES, tmp_path / "baselines")
    (tmp_path / "baselines/methods").mkdir(exist_ok=True)
    said = "# method: New\n# source: s\n# pretrained_on: p\n# split: test\n"
    (tmp_path / "baselines/methods/new.csv").write_text(said + "protocol,CIFAR10,Cars,Pets\nlinear,6.10,60.00,1.00\n")
    made = build_sheet(load(ROOT / "benchmarks/table2.py").exhibits[0], Results(tmp_path), tmp_path / "baselines")
    for table, expected in ((made, ("", "", "best")), (made.with_supported_marks(), ("best", "", "best"))):
        paper, added = table.blocks[0][1][:2]
        (row,) = added.rows
        assert (added.title, row.label) == ("Added", "New")
        assert tuple(row.cells[made.header.index(c)].mark for c in ("CIFAR10", "Cars", "Pets")) == expected
        assert any(r.cells[made.header.index("Pets")].mark == "best" for r in paper.rows)  # among themselves


@pytest.mark.parametrize("split", ["ericsson", "paper"])
def test_only_what_was_scored_on_test_images_is_ranked_among_the_printed_rows(tmp_path, split):
    run = Run(perturbation="none", epochs=0, split=split)
    measure(tmp_path, run, Linear(), 50, images=100)
    made = build_sheet(Table(paper="table2", caption="", runs=(run,)), Results(tmp_path), BASELINES)
    ranks = [row.label for group in made.blocks[0][1] if group.title.startswith("Rank") for row in group.rows]
    assert ranks == (["Untrained backbone"] if split == "ericsson" else [])


def test_another_choice_shows_what_it_changes(tmp_path):
    runs, other = grid(seed=(0, 1, 2)), grid(perturbs="p", seed=(0, 1, 2))
    for run in runs:
        measure(tmp_path, run, Linear(), 6 + run.seed / 10)
    for run in other:
        measure(tmp_path, run, Linear(), 9 + run.seed / 10)
    suite = Suite("", "", (Table(paper="table2", caption="", runs=runs),), "x.py")
    rows = {row["question"]: row for row in list_choices([suite], Results(tmp_path))}
    (change,) = rows["What g perturbs"]["changes"]
    assert (change.where, change.choice, change.other) == ("CIFAR10, SimCLIC (noise), linear", "perturbs z", "perturbs p")
    assert (change.error, change.other_error) == ("6.10", "9.10")
    assert change.less.startswith("+3.00 ± ")
    assert [q for q, row in rows.items() if row["changes"]] == ["What g perturbs"]
    unasked = {row["question"]: row for row in list_choices([Suite("", "", (), "x.py")], Results(tmp_path))}
    assert not unasked["What g perturbs"]["changes"]  # these exhibits show neither


def test_a_cell_leads_to_its_run_and_back_and_to_other_seeds(tmp_path):
    runs = tuple(tiny(seed=s) for s in range(2))
    for run in runs:
        measure(tmp_path / "runs", run, Linear(), 10, images=100)
    figure = Figure(paper="figure7", caption="f", runs=(runs[0],), x="batch_size", lines="epochs")
    suite = Suite("", "", (Table(paper="table2", caption="", runs=runs), figure), "x.py")
    render([suite], tmp_path / "runs", tmp_path / "out")
    assert f'href="runs/{runs[0].name}.html" title="2 seeds; this is the first"' in (tmp_path / "out/table2.html").read_text()
    assert f'href="runs/{runs[0].name}.html"' in (tmp_path / "out/figure7.html").read_text()
    page = (tmp_path / f"out/runs/{runs[0].name}.html").read_text()
    for target in ("../table2.html", "../figure7.html", f"{runs[1].name}.html"):
        assert f'href="{target}"' in page
    for path in (tmp_path / "out").rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#]+)', path.read_text()):
            assert (path.parent / target).is_file(), (path.name, target)


def test_pages_need_neither_network_nor_script(tmp_path):
    measure(tmp_path / "runs", simclic(), Linear(), 6.0)
    render([load(ROOT / f"benchmarks/{name}.py") for name in sorted(PAPER_EXHIBITS)], tmp_path / "runs", tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.html"):
        text = path.read_text()
        assert not re.search(r'(?:src|href)="(?:https?:)?//|@import|url\(', text), path.name
        visible = re.sub(r"(?s)<script>.*?</script>", "", text)
        assert "<main" in visible
        assert "hidden" not in visible.split("<body>")[1], path.name
