"""LaTeX: what a report writes compiles as it is, fits its pages, and shows its numbers."""

import re

import pytest
from conftest import ROOT
from pdf import bare, pages, words
from stored import publish
from suites import full, small

from simclic import Linear, Run, Table, grid, load
from simclic.experiment import Suite
from simclic.report import render
from simclic.report.escape import escape_tex


def document(path, body):
    """A document with this text in it."""
    path.write_text(f"\\documentclass{{article}}\n\\usepackage{{amssymb}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n")
    return path


def test_the_papers_tables_compile_and_show_their_numbers_and_notes(tmp_path, latex):
    render(full(), tmp_path / "runs", tmp_path)
    text = words(pages(tmp_path / "tables.tex"))
    for number in ("55.86", "5.92", "4096", "90.17", "91.04", "10.69"):
        assert number in text
    for title in ("Table 2:", "Table 3: Training details", "Table 4: Effect of predictor", "Table 5:", "Table 6:"):
        assert title in text
    assert "SimCLIC is pre-trained on the target data set alone" in text
    assert "4 of 4 results are missing" in text


def test_results_of_several_seeds_ranks_and_failures_fit_the_page_too(tmp_path, latex):
    table = load(ROOT / "benchmarks/table2.py").exhibits[0].moved(seed=(0, 1, 2))
    for i, job in enumerate(table.jobs):
        publish(tmp_path / "runs", job.run, job.protocol, error=10 + i % 70)
    other = grid(dataset="cifar10", init="./mine.pth", perturbation="none", epochs=0)
    publish(tmp_path / "runs", other[0], Linear(), error=5.95)
    tables = (
        Table(paper="table2", caption=table.caption, runs=(*table.runs, *other), protocols=table.protocols),
        *full()[2].exhibits,
    )
    render([Suite("", "t", tables, "x.py")], tmp_path / "runs", tmp_path)
    text = words(pages(tmp_path / "tables.tex"))
    assert re.search(r"5\.95\b", text)
    assert text.count("Table 2:") == 2  # a float for each stage, of one number
    assert "As printed in the paper" in text


def test_a_table_is_taken_into_a_paper_of_two_columns(tmp_path, latex):
    render(full(), tmp_path / "runs", tmp_path)
    paper = tmp_path / "paper.tex"
    begin = "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs,graphicx,amssymb}\n"
    inputs = "\n".join(f"\\input{{table{n}}}" for n in range(2, 7))
    paper.write_text(f"{begin}\\begin{{document}}\nText.\n{inputs}\n\\end{{document}}\n")
    assert "55.86" in pages(paper)


def test_long_notes_go_over_pages_and_long_words_over_lines(tmp_path, latex):
    runs = tuple(Run(dataset="cifar10", seed=seed) for seed in range(150))
    for run in runs:
        path = publish(tmp_path / "a-folder-with-a-name" / ("x" * 60) / "runs", run, Linear())
        path.write_text("{")
    render([small(*runs)], path.parents[1], tmp_path / "out")
    text = words(pages(tmp_path / "out/small/tables.tex"))
    assert text.count("is not a whole JSON file") == 150


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("τ = 0.3, ε ≤ 1, |z| ≈ ∞, 5 ± 1 · ✓", "τ = 0.3, ε ≤ 1, |z| ≈ ∞, 5 ± 1 · ✓"),
        ("“one” ‘two’ 'three' it's 1–2 — -- ---", "“one” ‘two’ ‘three’ it’s 1–2 — -- ---"),
        ("Müller, Łódź, Ångström, ação, ñ, î, ß", "Müller, Lódź, Ångström, ação, ñ, î, ß"),
        ("中文 🎉", "U+4E2DU+6587 U+1F389"),
        ("a\nb\n\n\nc\td\x07e\u202ef\udcff", "a b c dU+0007eU+202EfU+DCFF"),
        (r"\input{x} $x$ 50% a_b #1 & {} ~ ^ [x] * <b> `c`", r"\input{x} $x$ 50% a b #1 & {} ˜ ^ [x] * <b> `c`"),
        ("é" * 80, "é" * 80),
        ("x" * 400, "x" * 400),
        ("中" * 80, "U+4E2D" * 80),
    ],
)
def test_text_comes_out_as_it_is(tmp_path, latex, given, shown):
    made = escape_tex(given)
    assert made.isascii()
    assert "\n" not in made
    body = f"\\begin{{table}}\\sloppy\\caption{{{made}}}\\end{{table}}\n\n{{\\raggedright {made}\\par}}"
    text = pages(document(tmp_path / "a.tex", body))
    assert bare(text).count(bare(shown)) == 2, text
