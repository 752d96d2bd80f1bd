"""Runs, grids and exhibits: names, checks, and the paper's counts."""

import copy
import math
import pickle
import re
from itertools import pairwise

import pytest
from conftest import ROOT

from simclic import Figure, Finetune, InputError, Linear, Run, Table, grid, load
from simclic.experiment import PROTOCOLS
from simclic.experiment.exhibit import PAPER_EXHIBITS
from simclic.report.choices import fields_guide, questions_guide


def test_defaults_are_section_3_4():
    run = Run()
    assert (run.epochs, run.batch_size, run.base_lr, run.momentum, run.weight_decay) == (1000, 128, 0.05, 0.9, 0.001)
    assert (run.backbone, run.predictor, run.similarity, run.stop_gradient) == ("resnet50", "2-layer", "cosine", True)
    assert run.lr == 0.025
    assert Run(lr_rule="as-is").lr == 0.05


def test_equal_runs_have_one_name_and_different_runs_different_names():
    assert (
        Run(perturbation="history").name == Run(perturbation="history", tau=0.3).name == Run(tau=0.3, perturbation="history").name
    )
    assert Run(base_lr=1).name == Run(base_lr=1.0).name
    assert hash(Run(perturbation="history")) == hash(Run(perturbation="history", tau=0.3))
    different = grid(seed=(0, 1), epochs=(1, 10), perturbation=("history", "dropout", "noise", "none"), weight_decay=(0.0, 1e-3))
    different += grid(perturbation="noise", eps=(0.01, 0.2)) + grid(
        perturbation="none", epochs=0, backbone=("resnet50", "pixels")
    )
    assert len({run.name for run in different}) == len(different) == len(set(different))


def test_names_stay_what_they_are():
    # A changed rule for names would orphan every result on disk.
    assert Run().name == "cifar10-noise-44136fa355"
    assert Run(dataset="digits", perturbation="history", tau=0.5).name == "digits-history-a324b3cc33"
    assert Linear().name == Finetune().name.replace("finetune", "linear") == "linear-44136fa355"


def test_45_values_with_both_ends():
    values = Linear().l2
    assert len(values) == 45
    assert (values[0], values[-1]) == (1e-6, 1e5)
    assert all(math.isclose(b / a, 10**0.25) for a, b in pairwise(values))


def test_56_settings():
    settings = Finetune().settings
    assert len(settings) == len(set(settings)) == 56
    assert {lr for lr, _ in settings} >= {0.1, 1e-4}
    assert {decay for _, decay in settings} >= {0.0, 1e-6, 1e-3}
    assert settings[0] == (0.1, 1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"perturbation": "noize"}, "perturbation='noize' is not one of history, dropout, noise"),
        ({"perturbation": "noise", "tau": 0.3}, "tau=0.3 has no effect with perturbation='noise'; remove it"),
        ({"perturbation": "history", "tau": 1.0}, "tau=1.0 is out of range: it must lie in [0, 1)"),
        ({"perturbation": "dropout", "p": 1.5}, "p=1.5 is out of range: it must lie in [0, 1]"),
        ({"eps": -0.1}, "eps=-0.1 is out of range: it must lie in [0, ∞)"),
        ({"eps": float("nan")}, "eps=nan is out of range"),
        ({"epochs": "20"}, "epochs='20' is str, not int"),
        ({"epochs": True}, "epochs=True is bool, not int"),
        ({"image_size": None}, "image_size=None is NoneType, not int"),
        ({"epochs": 0}, "nothing is trained; set perturbation='none'"),
        ({"epochs": 0, "perturbation": "none", "base_lr": 0.1}, "base_lr=0.1 has no effect with epochs=0; remove it"),
        ({"backbone": "pixels"}, "pixels are not trained; set epochs=0"),
        ({"method": "simclick"}, "did you mean 'simclic'?"),
        ({"method": "simsiam", "epochs": 0}, "method='simsiam' has no effect with epochs=0; remove it"),
        (
            {"method": "simsiam", "perturbation": "history"},
            "perturbation='history' has no effect with method='simsiam'; remove it",
        ),
        ({"method": "simsiam", "eps": 0.1}, "eps=0.1 has no effect with method='simsiam'; remove it"),
        ({"tau": 0.5, "epochs": 0, "perturbation": "none"}, "tau=0.5 has no effect with perturbation='none'; remove it"),
    ],
)
def test_bad_fields_are_one_line_with_value_and_rule(fields, message):
    with pytest.raises(InputError) as caught:
        Run(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_is_named_with_its_neighbour():
    with pytest.raises(InputError, match="'epoch' is not a field of Run; did you mean 'epochs'"):
        grid(epoch=10)


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        (
            Run,
            {"views": 2},
            "'views' is not a field of Run; SimCLIC on two augmented views: method='simclic-two-views'",
        ),
        (Run, {"temprature": 0.1}, "'temprature' is not a field of Run; did you mean 'temperature'?"),
        (Linear, {"l2_cont": 3}, "'l2_cont' is not a field of Linear; did you mean 'l2_count'?"),
    ],
)
def test_a_wrong_name_is_one_line_wherever_it_is_written(spec, fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        spec(**fields)
    assert copy.deepcopy(spec()) == pickle.loads(pickle.dumps(spec())) == spec()


def test_the_paper_asks_for_122_pre_trainings_and_needs_109():
    exhibits = [load(ROOT / f"benchmarks/{name}.py").exhibits[0] for name in PAPER_EXHIBITS]
    assert len(exhibits) == 9
    asked = [
        run for e in exhibits for run in dict.fromkeys(job.run for job in e.jobs) if run.epochs and run.perturbation != "none"
    ]
    assert (len(asked), len(set(asked))) == (122, 109)


def test_the_miniature_is_the_same_nine_exhibits_moved():
    full = [load(ROOT / f"benchmarks/{name}.py").exhibits[0] for name in PAPER_EXHIBITS]
    small = {e.name: e for e in load(ROOT / "benchmarks/digits.py").exhibits}
    assert sorted(small) == sorted(e.name for e in full)
    for e in full:
        assert small[e.name].caption == e.caption
        assert [p.stage for p in small[e.name].protocols] == [p.stage for p in e.protocols]
        assert {run.dataset for run in small[e.name].runs} == {"digits"}
        assert {run.label for run in small[e.name].runs} == {run.label for run in e.runs}


def test_moved_leaves_alone_what_a_run_does_not_read():
    table = Table(paper="table2", caption="", runs=(Run(), *grid(perturbation="none", epochs=0, backbone="pixels")))
    runs = table.moved(seed=(0, 1), base_lr=0.2, dataset="digits").runs
    assert [(run.kind, run.seed) for run in runs] == [("noise", 0), ("noise", 1), ("pixels", 0)]
    assert table.moved(epochs=lambda e: e // 100).runs[0].epochs == 10
    assert [r.perturbation for r in Run(perturbation="history", tau=0.5).moved(perturbation=("dropout", "history"))] == [
        "dropout",
        "history",
    ]


def test_pixels_are_not_fine_tuned():
    runs = grid(perturbation="none", epochs=0, backbone=("resnet50", "pixels"))
    table = Table(paper="table2", caption="", runs=runs, protocols=(Linear(), Finetune()))
    assert [(job.run.backbone, job.stage) for job in table.jobs] == [
        ("resnet50", "linear"),
        ("resnet50", "finetune"),
        ("pixels", "linear"),
    ]


def test_only_seeds_are_averaged_in_a_cell():
    Table(paper="table2", caption="", runs=grid(seed=(0, 1)))
    with pytest.raises(InputError, match=r"Table 2: runs with eps 0.1 and 0.2 meet in one cell; only seeds are averaged"):
        Table(paper="table2", caption="", runs=grid(eps=(0.1, 0.2)))
    Table(name="eps", caption="", runs=grid(eps=(0.1, 0.2)), columns="eps")
    Figure(paper="figure6", caption="", runs=grid(eps=(0.1, 0.2)), x="eps")
    with pytest.raises(InputError, match=r"Figure 6: runs with batch_size 16 and 32 meet"):
        Figure(paper="figure6", caption="", runs=grid(batch_size=(16, 32)), x="eps")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TABLE = Table(name='x', caption='', runs=Run())", "is not a tuple such as (grid(...) or Run(...),)"),
        (
            "TABLE = Table(name='x', caption='', runs=(), protocols=('linear',))",
            "is not a tuple such as (Linear(),) or (Linear(), Finetune(), Knn())",
        ),
        ("TABLE = Table(name='x', caption='', runs=(), protocols=(Linear(), Linear(l2_count=2)))", "two protocols of one kind"),
        (
            "FIGURE = Figure(name='x', caption='', runs=(Run(),), x='backbone')",
            "x='backbone' has the value 'resnet50'; an axis needs",
        ),
        ("FIGURE = Figure(name='x', caption='', runs=(Run(),), x='taw')", "'taw' is not a field of Run; did you mean 'tau'?"),
        ("EXHIBITS = 7", "declares no exhibit"),
    ],
)
def test_a_wrong_declaration_is_one_line(tmp_path, text, message):
    (tmp_path / "e.py").write_text(f"from simclic import *\n{text}\n")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "e.py")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_docstring_of_blanks_is_no_title(tmp_path):
    (tmp_path / "e.py").write_text("\nfrom simclic import *\nTABLE = Table(name='x', caption='', runs=(Run(),))\n")
    assert load(tmp_path / "e.py").title == "e"


def test_a_file_of_ones_own_has_a_folder_of_its_own(tmp_path):
    text = (ROOT / "benchmarks/figure4.py").read_text()
    for name, folder in (("figure4", ""), ("pets", "pets")):
        (tmp_path / f"{name}.py").write_text(text)
        assert load(tmp_path / f"{name}.py").name == folder
    (tmp_path / "two.py").write_text(text + "\nEXHIBITS = [FIGURE]\ndel FIGURE\nEXHIBITS *= 2")
    with pytest.raises(InputError, match="declares Figure 4 twice; give each a name of its own"):
        load(tmp_path / "two.py")


def test_load_tells_what_is_wrong_in_one_line(tmp_path):
    def message(text):
        path = tmp_path / "e.py"
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            load(path)
        return str(caught.value).replace(str(tmp_path), "")

    assert message("x = (1,\n") == "/e.py:1: '(' was never closed"
    assert message("import simclic\nsimclic.Run(tua=1)") == "/e.py:2: 'tua' is not a field of Run; did you mean 'tau'?"
    assert message("import simclic\nsimclic.grid(tua=1)") == "/e.py:2: 'tua' is not a field of Run; did you mean 'tau'?"
    assert message("x = 1") == "/e.py: declares no exhibit; it needs TABLE, FIGURE or a list EXHIBITS of them"
    with pytest.raises(InputError, match=r"table9.py: no such exhibit file; did you mean .*table\d.py"):
        load(ROOT / "benchmarks/table9.py")


def test_difficult_is_a_field_of_voc2007_alone():
    assert Run(dataset="voc2007", difficult="ignore").name != Run(dataset="voc2007").name
    with pytest.raises(InputError, match=r"difficult='ignore' has no effect with dataset='dtd'; remove it"):
        Run(dataset="dtd", difficult="ignore")
    with pytest.raises(InputError, match=r"difficult='maybe' is not one of negative, ignore"):
        Run(dataset="voc2007", difficult="maybe")


def test_the_guide_lists_every_field_and_every_open_question_as_the_fields_declare_it():
    text = (ROOT / "benchmarks/README.md").read_text()
    assert questions_guide() in text
    for spec in (Run, *PROTOCOLS.values()):
        assert fields_guide(spec) in text


def test_an_exhibit_is_the_papers_or_has_a_name_of_its_own():
    ours = [Table(caption="", runs=(), **names) for names in ({"paper": "table2"}, {"name": "tau-on-pets"})]
    assert [(e.name, e.title) for e in ours] == [("table2", "Table 2"), ("tau-on-pets", "Tau on pets")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"paper": "table7"}, "paper='table7' is not one of table2, table3, table4, table5, table6; your own Table has a name"),
        ({"paper": "table4"}, "paper='table4': the paper lays it out by 'predictor', not by 'dataset'"),
        ({"name": "table2"}, "name='table2' is an exhibit of the paper; say paper='table2', or take another name"),
        ({"name": "Tau on Pets"}, "name='Tau on Pets' cannot name a table: small letters, digits and hyphens"),
        ({"name": "index"}, "name='index' cannot name a table"),
        ({}, "name='' cannot name a table"),
        ({"name": "x", "paper": "table2"}, "name='x' has no effect with paper='table2'; remove one of them"),
    ],
)
def test_a_wrong_name_of_an_exhibit_is_one_line(names, message):
    with pytest.raises(InputError) as caught:
        Table(**names, caption="", runs=())
    assert str(caught.value).startswith(message)


def test_an_exhibit_by_its_old_number_says_what_to_write(tmp_path):
    (tmp_path / "old.py").write_text("from simclic import *\nTABLE = Table(number=2, caption='', runs=())\n")
    with pytest.raises(
        InputError, match=r"old.py:2: number= no longer exists; use paper=\"table2\", or name=\"my-table\" for your own"
    ):
        load(tmp_path / "old.py")


def test_a_run_s_folder_has_a_name_that_every_file_system_takes():
    long = "x" * 230
    run = Run(dataset=f"./{long}", init=f"./{long}.pth", perturbation="none", epochs=0)
    assert len(run.name) < 230
    assert run.name != Run(dataset=f"./{long}y", init=f"./{long}.pth", perturbation="none", epochs=0).name
