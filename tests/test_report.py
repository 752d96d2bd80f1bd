"""Tables and figures: the paper's marks, formats that people can use, verdicts in both directions."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, tiny
from matplotlib import rc_context
from stored import measure, publish
from suites import full, small

from simclic import Figure, Finetune, Linear, Run, Table, grid, load, report
from simclic.experiment import Suite
from simclic.files import read_json, write_json
from simclic.report import pictures, render
from simclic.report.choices import list_choices
from simclic.report.figures import compute_points
from simclic.report.results import Results
from simclic.report.sheet import Cell, Row, mark_best
from simclic.report.tables import build_sheet
from simclic.store.run_folder import RunFolder


@pytest.mark.parametrize("split", ["ericsson", "paper"])
def test_a_table_says_that_its_errors_are_on_the_images_that_chose(tmp_path, split):
    table = Table(name="mine", caption="", runs=(tiny(split=split),))
    measure(tmp_path / "runs", table.runs[0], Linear(), 20.0, images=100)
    render([Suite("", "", (table,), "x.py")], tmp_path / "runs", tmp_path / "out")
    note = "split paper: these errors are on val, on which settings are chosen"
    assert (note in (tmp_path / "out/mine.md").read_text()) == (split == "paper")


def test_marks_recomputed_from_the_stored_table_are_the_papers():
    table = load(ROOT / "benchmarks/table2.py").exhibits[0]
    made = build_sheet(table, Results(ROOT / "nowhere"), ROOT / "baselines")
    printed = pd.read_csv(ROOT / "baselines/table2_marks.csv", keep_default_na=False)
    count = 0
    for (_, groups), stage in zip(made.blocks, ("linear", "finetune"), strict=True):
        for row in groups[0].rows:
            expected = printed[(printed.protocol == stage) & (printed.method == row.label)].iloc[0]
            for name, cell in zip(made.header, row.cells, strict=True):
                assert cell.mark == expected[name], (stage, row.label, name)
                count += bool(cell.mark)
    assert count == printed.iloc[:, 2:].isin(["best", "second"]).to_numpy().sum() == 47


def test_ties_share_a_mark_and_dashes_have_none():
    rows = [Row(str(v), [Cell(str(v), v)]) for v in (3.0, 2.004, 2.0, 1.0, float("nan"))]
    mark_best(rows)
    assert [row.cells[0].mark for row in rows] == ["", "second", "second", "best", ""]


def test_nothing_run_yet_still_renders_all_nine_with_reasons(tmp_path):
    pages, problems = render(full(), tmp_path / "runs", tmp_path / "out")
    assert (pages, problems) == ([tmp_path / "out/index.html"], [])
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {f"table{n}.{k}" for n in range(2, 7) for k in ("html", "md", "tex", "csv")} <= names
    assert {f"figure{n}.{k}" for n in range(4, 8) for k in ("pdf", "svg", "png", "csv")} <= names
    for n, number in ((2, "55.86"), (3, "4096"), (4, "90.17"), (5, "91.04"), (6, "10.69")):
        for kind in ("html", "md", "tex", "csv"):
            assert number in (tmp_path / f"out/table{n}.{kind}").read_text()
    page = (tmp_path / "out/table4.html").read_text()
    assert re.search(f"4 of 4 results are missing; simclic run [^ ]*table4.py --runs {tmp_path}/runs<", page)
    table = (tmp_path / "out/table2.md").read_text()
    assert "| SimCLIC (noise) | – | 55.86 | 11.92 |" in table


def test_several_seeds_are_mean_and_deviation(tmp_path):
    runs = grid(**{"dataset": "digits", "backbone": "test_resnet", "seed": (0, 1, 2)})
    for run, error in zip(runs, (10.0, 11.0, 12.0), strict=True):
        publish(tmp_path / "runs", run, Linear(), error)
    render([small(*runs)], tmp_path / "runs", tmp_path / "out")
    assert "11.00 ± 1.00" in (tmp_path / "out/small/table2.md").read_text()
    assert r"\textbf{11.00 $\pm$ 1.00}" in (tmp_path / "out/small/table2.tex").read_text()


def test_csv_reads_back(tmp_path):
    render(full(), tmp_path / "runs", tmp_path / "out")
    rows = list(csv.reader(io.StringIO((tmp_path / "out/table2.csv").read_text())))
    assert {len(row) for row in rows} == {15}
    assert next(r for r in rows if r[2] == "SwAV")[:4] == ["Linear evaluation", "As printed in the paper", "SwAV", "24.70"]


def test_rendering_twice_gives_the_same_bytes(tmp_path):
    publish(tmp_path / "runs", tiny(), Linear())
    suites = [*full(), small(tiny())]
    for out in ("a", "b"):
        render(suites, tmp_path / "runs", tmp_path / out)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_figures_draw_a_line_per_data_set_through_the_stored_points(tmp_path):
    runs = tuple(tiny(perturbation="history", tau=tau) for tau in (0.6, 0.1, 0.3))
    for run, error in zip(runs, (30.0, 10.0, 20.0), strict=True):
        publish(tmp_path / "runs", run, Linear(), error)
    figure = Figure(paper="figure4", caption="tau", runs=runs, x="tau")
    drawn = compute_points(figure, Results(tmp_path / "runs"))
    assert list(drawn["x"]) == [0.1, 0.3, 0.6]
    assert list(drawn["error"]) == [10.0, 20.0, 30.0]
    assert drawn["bar"][0] == pytest.approx((10 * 90 / 2) ** 0.5)  # one seed, two test images
    render([Suite("", "t", (figure,), "f.py")], tmp_path / "runs", tmp_path / "out")
    svg = ET.parse(tmp_path / "out/figure4.svg")
    words = " ".join(svg.getroot().itertext())
    assert "Digits" in words
    assert "nothing run yet" not in words
    assert (tmp_path / "out/figure4.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("columns", ["dataset", "eps", ("epochs", "batch_size")])
def test_a_table_that_the_paper_has_not_shows_what_was_run(tmp_path, columns):
    publish(tmp_path / "runs", tiny(), Linear(), 12.34)
    table = Table(name="mine", caption="Mine", runs=(tiny(),), columns=columns)
    render([Suite("mine", "t", (table,), "mine.py")], tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out/mine/mine.md").read_text()
    assert ("12.34" in text) == isinstance(columns, str)
    assert "Run here" in text
    assert "As printed" not in text


def test_an_ablation_under_two_protocols_keeps_them_apart(tmp_path):
    tune = Finetune()
    publish(tmp_path / "runs", tiny(), Linear(), 12.34)
    publish(tmp_path / "runs", tiny(), tune, 56.78)
    table = Table(paper="table4", caption="Both", runs=(tiny(),), protocols=(Linear(), tune), columns="predictor")
    render([Suite("mine", "t", (table,), "mine.py")], tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out/mine/table4.csv").read_text()
    assert "Linear evaluation,Run here,Digits,12.34" in text
    assert "Fine-tuned,Run here,Digits,56.78" in text


def test_names_are_harmless_in_every_format(tmp_path):
    hostile = "<script>alert(1)</script> \\input{x} | =cmd"
    suite = small(tiny())
    table = Table(paper="table4", caption=hostile, runs=(tiny(),), columns="predictor", labels={"2-layer": hostile})
    render([Suite("", "t", (table, *suite.exhibits), "x.py")], tmp_path / "runs", tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out/index.html").read_text()
    assert "<script>alert" not in (tmp_path / "out/table4.html").read_text()
    assert r"\input{" not in (tmp_path / "out/table4.tex").read_text()
    assert "<script>" not in (tmp_path / "out/table4.md").read_text()


def write_scores(runs, run, wrong):
    """A result of 300 images whose first `wrong` are wrong."""
    truth = np.zeros(300, int)
    scores = np.tile([1.0, 0.0], (300, 1))
    scores[:wrong] = [0.0, 1.0]
    RunFolder(runs, run).create_folder("d1")
    record = {"error": wrong / 3, "metric": "top-1", "chosen": {}, "curve": [], "sizes": {"test": 300}, "seconds": 1.0}
    RunFolder(runs, run).write_result(Linear(), (record, truth, scores), data="d1", seed=0, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("ours", "says"),
    [(30, "it is clearly better than the untrained backbone"), (98, "that SimCLIC learns anything is not shown")],
)
def test_the_first_paragraph_says_whether_anything_was_learned(tmp_path, ours, says):
    untrained = grid(dataset="digits", perturbation="none", epochs=0)[0]
    write_scores(tmp_path / "runs", untrained, 100)
    write_scores(tmp_path / "runs", tiny(), ours)
    render([small(tiny(), untrained)], tmp_path / "runs", tmp_path / "out")
    page = (tmp_path / "out/small/index.html").read_text()
    assert says in re.search(r'<p class="lead">(.*?)</p>', page, re.S).group(1)


def test_every_open_question_names_its_field_and_default():
    rows = {
        row["question"]: row["choice"] for row in list_choices([load(ROOT / "benchmarks/digits.py")], Results(ROOT / "nowhere"))
    }
    assert rows["What g perturbs"] == "perturbs = z"
    assert rows["τ, p, ε"].startswith("tau = 0.3, 0.1, 0.2, 0.6; p = 0.25, ")
    assert rows["Augmentation in fine-tuning"] == "augment = none (default crop+flip)"
    assert rows["Image size in pre-training"] == "image_size = 16, 8 (default 224)"


def test_table_3_takes_simclics_row_from_the_defaults(tmp_path):
    render(full(), tmp_path / "runs", tmp_path / "out")
    rows = [r for r in csv.reader(io.StringIO((tmp_path / "out/table3.csv").read_text())) if r[2].startswith("SimCLIC")]
    assert rows[0][2:] == ["SimCLIC (ours)", "1000", "128", "", "", "✓", ""]
    assert rows[1][2:] == ["SimCLIC", "1000", "128", "", "", "✓", ""]


CONTROL = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16, "perturbation": "none", "epochs": 0}


def test_numbers_from_different_data_never_meet_unremarked(tmp_path):
    runs, linear = (tiny(seed=0), tiny(seed=1), tiny(perturbation="history"), Run(**CONTROL)), Linear()
    for run in runs[:2]:
        publish(tmp_path / "runs", run, linear)
    publish(tmp_path / "runs", runs[3], linear)
    suite = Suite("", "", (Table(paper="table2", caption="", runs=runs),), "benchmarks/table2.py")
    render([suite], tmp_path / "runs", tmp_path / "out")
    assert "different data" not in (tmp_path / "out/table2.md").read_text()
    publish(tmp_path / "runs", runs[2], linear, data="d2", truth=(0, 1, 1))  # an image more: cannot even be paired
    render([suite], tmp_path / "runs", tmp_path / "out")
    told = "Digits, split ericsson: these results are from different data and do not compare ("
    for kind in ("md", "html", "tex"):
        assert told in (tmp_path / f"out/table2.{kind}").read_text().replace("\\", "")
    assert "d2: SimCLIC (history)" in (tmp_path / "out/table2.html").read_text()
    page = (tmp_path / "out/index.html").read_text()
    assert "Left out, since measured on other data: SimCLIC (history)." in page


def test_the_grid_is_a_heat_map_with_its_numbers(tmp_path):
    tune = Finetune()
    path = publish(tmp_path / "runs", tiny(), tune)
    values = read_json(path)
    curve = [{"lr": lr, "decay": decay, "error": 10 + i, "diverged": None} for i, (lr, decay) in enumerate(tune.settings)]
    curve[0] |= {"error": None, "diverged": 17}
    write_json(path, values | {"curve": curve, "chosen": {"lr": curve[1]["lr"], "decay": curve[1]["decay"], "val_error": 11}})
    suite = Suite("", "", (Table(paper="table2", caption="", runs=(tiny(),), protocols=(tune,)),), "x.py")
    render([suite], tmp_path / "runs", tmp_path / "out")
    page = (tmp_path / f"out/runs/{tiny().name}.html").read_text()
    page = page[page.index('<table class="heat">') :].split("</table>")[0]
    cells = re.findall(r'<td(?: class="(best)")?(?: style="--heat: (\d+)%")?(?: title="([^"]*)")?>([\d.]+|diverged)<?', page)
    assert len(cells) == 56
    assert [c for c in cells if c[3] == "diverged"] == [("", "", "at step 17 of 5000", "diverged")]
    assert [c for c in cells if c[0]] == [("best", "0", "", "11.00")]
    shades = {float(text): int(heat) for _, heat, _, text in cells if heat}
    assert [shades[e] for e in sorted(shades)] == sorted(shades.values())
    assert (min(shades.values()), max(shades.values())) == (0, 60)
    pictures = report.draw_result(read_json(path), "<b>Digits", tmp_path / "grid")
    first = [p.read_bytes() for p in pictures]
    (tmp_path / "again").mkdir()
    assert [p.read_bytes() for p in report.draw_result(read_json(path), "<b>Digits", tmp_path / "again/grid")] == first


def test_a_table_without_a_common_column_shows_ours_alone_and_links_the_papers(tmp_path):
    publish(tmp_path / "runs", tiny(), Linear(), 12.34)
    render([Suite("", "t", (Table(paper="table2", caption="", runs=(tiny(),)),), "x.py")], tmp_path / "runs", tmp_path / "out")
    page, printed = ((tmp_path / f"out/{stem}.html").read_text() for stem in ("table2", "table2-printed"))
    ours = page.split("</table>")[0]
    assert "12.34" in ours
    assert "55.86" not in ours
    assert '<a href="table2-printed.html">' in page
    assert "55.86" in printed
    assert "12.34" not in printed


def test_both_linear_protocols_stand_below_one_copy_of_the_printed_rows():
    table = load(ROOT / "benchmarks/table2.py").exhibits[0]
    sheet = build_sheet(table, Results(ROOT / "nowhere"), ROOT / "baselines")
    (linear, groups), (finetuned, _) = sheet.blocks
    assert (linear, finetuned) == ("Linear evaluation", "Fine-tuned")
    assert [group.title for group in groups] == ["As printed in the paper", "Run here", "Run here, as published"]


# Pictures


def draw_numbers(canvas, numbers):
    canvas.subplots().plot(numbers, label="$x$")


def remove(path):
    path.unlink()


def damage(path):
    path.write_bytes(path.read_bytes()[:-9])


def test_a_picture_is_drawn_again_only_where_something_changed(tmp_path, monkeypatch):
    drawn, (style, code) = [], (tmp_path / "our.mplstyle", tmp_path / "code")
    style.write_bytes(pictures.STYLE.read_bytes())
    shutil.copytree(ROOT / "simclic/report", code)
    monkeypatch.setattr(pictures, "STYLE", style)
    monkeypatch.setattr(pictures, "__file__", str(code / "pictures.py"))

    def draw(canvas, numbers):
        drawn.append(numbers)
        draw_numbers(canvas, numbers)

    def is_drawn(numbers=(1.0, 2.0)):
        drawn.clear()
        paths = pictures.write_pictures(tmp_path / "p", ("png", "svg"), draw, numbers)
        assert [path.name for path in paths] == ["p.png", "p.svg"]
        return bool(drawn)

    assert [is_drawn(), is_drawn()] == [True, False]
    plain = (tmp_path / "p.png").read_bytes()
    assert [is_drawn((1.0, 2.0 + 1e-15)), is_drawn(), is_drawn()] == [True, True, False]
    for harm in (remove, damage):
        for name in ("p.png", "p.svg", ".p.json"):
            harm(tmp_path / name)
            assert [is_drawn(), is_drawn()] == [True, False], (harm, name)
            assert (tmp_path / "p.png").read_bytes() == plain
    (code / "figures.py").write_text((code / "figures.py").read_text() + "# other\n")
    assert [is_drawn(), is_drawn()] == [True, False]
    style.write_text(style.read_text() + "\nsavefig.dpi: 30\n")
    assert [is_drawn(), is_drawn()] == [True, False]
    assert (tmp_path / "p.png").read_bytes() != plain
    monkeypatch.setattr(pictures, "version", lambda library: "4.0" if library == "matplotlib" else version(library))
    assert [is_drawn(), is_drawn()] == [True, False]


def test_a_report_of_the_same_results_draws_nothing_again(tmp_path, monkeypatch):
    results, runs = tmp_path / "runs", [tiny(perturbation="history", tau=tau) for tau in (0.1, 0.3)]
    publish(results, runs[0], Linear(), 10.0)
    figure = Suite("", "t", (Figure(paper="figure4", caption="tau", runs=tuple(runs), x="tau"),), "f.py")
    render([figure], results, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("figure4.*[!l]") if path.suffix != ".csv"}
    assert {path.suffix for path in before} == {".pdf", ".svg", ".png"}
    render([figure], results, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    publish(results, runs[1], Linear(), 20.0)
    render([figure], results, tmp_path / "out")
    assert not {path for path in before if path.stat().st_mtime_ns == before[path]}


SETTINGS = "text.usetex: True\nsavefig.dpi: 30\nfigure.dpi: 30\nfont.size: 30\nsavefig.bbox: tight\nsvg.fonttype: path\n"


DRAW = """
from pathlib import Path
from simclic.report.pictures import write_pictures
write_pictures(Path("p"), ("pdf", "svg", "png"), lambda canvas, numbers: canvas.subplots().plot(numbers, label="$x$"), [1.0, 2.0])
"""


def test_a_picture_depends_on_our_style_alone(tmp_path):
    """A user's matplotlibrc, and the backend of a notebook that is not installed here, change no byte."""
    pictures.write_pictures(tmp_path / "p", ("pdf", "svg", "png"), draw_numbers, [1.0, 2.0])
    there = tmp_path / "there"
    there.mkdir()
    (there / "matplotlibrc").write_text(SETTINGS)
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_of_a_notebook"}
    subprocess.run([sys.executable, "-c", DRAW], cwd=there, env=environment, check=True)
    for kind in ("pdf", "svg", "png"):
        assert (there / f"p.{kind}").read_bytes() == (tmp_path / f"p.{kind}").read_bytes()
    with rc_context(fname=there / "matplotlibrc"):  # set before, in this process
        pictures.write_pictures(there / "p", ("png",), draw_numbers, [1.0])
        pictures.write_pictures(there / "p", ("png",), draw_numbers, [1.0, 2.0])
    assert (there / "p.png").read_bytes() == (tmp_path / "p.png").read_bytes()


def test_settings_of_matplotlib_that_cannot_be_read_are_one_line(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, capture_output=True, text=True, check=False)
    message = "simclic.errors.InputError: matplotlib cannot be loaded: 'utf-8' codec can't decode byte 0xff in position 0: "
    assert done.stderr.splitlines()[-1] == f"{message}invalid start byte; correct or remove your matplotlibrc"
