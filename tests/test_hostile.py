"""What others named, wrote or broke: it reaches every format as text or not at all."""

import csv
import html
import io
import json
import re
import shutil
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from conftest import ROOT, tiny
from pdf import bare, pages
from stored import publish
from suites import small

from simclic import Figure, Finetune, Linear, Run, Table, report
from simclic.experiment import Suite
from simclic.files import write_json
from simclic.report.escape import NUMBER, escape_csv, escape_markdown
from simclic.store.run_folder import RunFolder

HOSTILE = (
    "=cmd|' C calc'!A0 | <script>alert(1)<img src=x onerror=alert(1)>\"onload=\"alert(2) \\input{x}\\frac ``$\\frac$`_{}^%#&~"
    "[a](b) ![c](d) \N{RIGHT-TO-LEFT OVERRIDE}中🎉"
)
HARMLESS = "plain".ljust(len(HOSTILE), "x")  # as long, since long notes fold
METHOD = """# method: {0}
# source: {0}
# pretrained_on: {0}
# split: {0}
protocol,Aircraft,CIFAR10,Flowers
linear,45.40,5.98,
"""


def reported(root, name, monkeypatch):
    """The folder of a report in which everything that can be named bears this name, and its data set."""
    source = root / "source"
    (source / "baselines/methods").mkdir(parents=True)
    (source / "reports").symlink_to(ROOT / "reports")
    for path in (ROOT / "baselines").glob("*.csv"):
        (source / "baselines" / path.name).symlink_to(path)
    (source / "baselines/methods/new.csv").write_text(METHOD.format(name))
    monkeypatch.setattr(report, "SOURCE", source)
    data = f"{root}/{name}"
    control = {"backbone": "test_resnet", "image_size": 16, "perturbation": "none", "epochs": 0}
    trained = tiny(dataset=data)
    named = Run(dataset=data, init=f"./{name}.pth", **control)
    started = tiny(dataset=data, init=f"{name}.pth")
    fails = tiny(dataset=data, perturbation="history")
    untrained = Run(dataset=data, **control)
    for i, run in enumerate((trained, named, untrained)):
        publish(root / "runs", run, Linear(), error=20 + i)
        publish(root / "runs", run, Finetune(), error=30 + i)
    publish(root / "runs", started, Linear(), error=40)
    (root / "runs" / trained.name / "pretrain.json").write_text("")
    RunFolder(root / "runs", fails).record_failure("pretrain", f"{name}\n\n{name}")
    tables = (
        Table(paper="table2", caption=name, runs=(trained, named, fails, untrained), protocols=(Linear(), Finetune()),
              notes=(name, f"- {name}")),
        Table(paper="table4", caption=name, runs=(trained,), columns="predictor", labels={"2-layer": name}),
        Table(name="facts", caption=name, runs=(named,), protocols=(), columns=("epochs", "init"), labels={"init": name}),
        Figure(name="eps", caption=name, runs=(trained,), protocols=(Linear(), Finetune()), x="eps",
               xlabel=name[-60:]),
        Figure(name="started", caption=name, runs=(started,), x="eps", lines="init"),
    )  # fmt: skip
    report.render([Suite("", name, tables, f"{name}.py")], root / "runs", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same report twice: with harmless names, and with hostile ones."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a picture has a box in its place
        made = [reported(tmp_path_factory.mktemp("hostile"), name, patch) for name in (HARMLESS, HOSTILE)]
    return SimpleNamespace(harmless=made[0], hostile=made[1])


class Elements(HTMLParser):
    """Counts every element with the names of its attributes; texts are kept."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = Counter(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found[tag, *(key for key, _ in attributes)] += 1

    def handle_data(self, text):
        self.texts.append(text)


def test_html_has_the_elements_that_it_has_with_harmless_names(both):
    found = []
    for folder in (both.harmless, both.hostile):
        read = [Elements(path.read_text()) for path in sorted(folder.rglob("*.html"))]
        found.append(sum((elements.found for elements in read), Counter()))
    assert found[0] == found[1]
    assert HOSTILE in Elements((both.hostile / "table2.html").read_text()).texts


def test_markdown_has_the_lines_and_columns_that_it_has_with_harmless_names(both):
    for path in sorted(both.harmless.glob("*.md")):
        plain, text = path.read_text(), (both.hostile / path.name).read_text()
        assert [line.count("|") for line in plain.splitlines()] == [line.count("|") for line in text.splitlines()]
        assert "<" not in text.replace("<u>", "").replace("</u>", "")
        assert not re.search(r"(?<!\\)[`\[\]]", text)


def test_latex_compiles_and_reads_no_file(both, latex, tmp_path):
    for path in both.hostile.glob("*.tex"):
        text = path.read_text()
        shutil.copy(path, tmp_path)
        assert text.isascii()
        told = re.findall(r"\\(?:input|include|frac|write|openout).*", text)
        assert told == [rf"\input{{{name}}}" for name in ("table2", "table4", "facts") if path.name == "tables.tex"]
    assert bare(r"cmd|’ C calc’!A0 | <script>alert(1)") in bare(pages(tmp_path / "tables.tex"))


def test_no_cell_is_a_formula(both):
    for path in [*both.hostile.glob("*.csv")]:
        rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))
        assert len({len(row) for row in rows}) == 1, path.name
        for value in (value for row in rows for value in row):
            assert NUMBER.fullmatch(value) or not value.lstrip().startswith(("=", "+", "-", "@")), (path.name, value)
            assert not value.startswith(("\t", "\r", "\n")), (path.name, value)


def test_a_figure_shows_names_as_they_are(both):
    words = " ".join("".join(ET.parse(both.hostile / "eps.svg").getroot().itertext()).split())
    name = " ".join(HOSTILE.split())
    assert words.count(name) == 2  # a legend for each protocol
    assert words.count(" ".join(HOSTILE[-60:].split())) == 2 + 2  # and an axis


def test_every_file_is_text_that_can_be_read(both):
    names = {path.relative_to(both.harmless) for path in both.harmless.iterdir() if path.is_file()}
    assert {path.relative_to(both.hostile) for path in both.hostile.iterdir() if path.is_file()} == names
    for path in both.hostile.rglob("*.*"):
        if path.suffix in (".html", ".md", ".tex", ".csv", ".svg"):
            assert path.read_bytes().decode()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("a|b", "a&#124;b"),
        ("a\nb\n\nc", "a b c"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("`a` *b* _c_ ~d~ $e$", r"\`a\` \*b\* \_c\_ &#126;d&#126; &#36;e&#36;"),
        ("[a](b) ![c](d)", r"\[a\](b) !\[c\](d)"),
        ("http://a.b www.a.b", "http&#58;//a.b www&#46;a.b"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-1.23", "-1.23"),
        ("a\x07\u202eb", r"a\\x07\\u202eb"),
    ],
)
def test_markdown_is_text(given, made):
    assert escape_markdown(given) == made


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("=1+1", "'=1+1"),
        ("  =1+1", "'  =1+1"),
        ("\t1", "'\t1"),
        ("\r1", "'\r1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd", "'+cmd"),
        ("-1.2 ± 0.3", "'-1.2 ± 0.3"),
        ("-1.23", "-1.23"),
        ("+0.50", "+0.50"),
        ("-1e-05", "-1e-05"),
        ("+31", "+31"),
        ("5.92", "5.92"),
        ("–", "–"),
        ("a\nb", "a\nb"),
    ],
)
def test_a_spreadsheet_runs_nothing_and_numbers_stay(given, made):
    assert escape_csv(given) == made


NUMBER_OF_IT = "77.77"


def altered(path, change):
    """The file with its content changed, and its own hash made right again."""
    values = json.loads(path.read_text())
    values.pop("sha256")
    write_json(path, values | change)


BREAK = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "NaN": lambda path: path.write_text(path.read_text().replace('"error": 77.77', '"error": NaN', 1)),
    "schema": lambda path: altered(path, {"schema": 99}),
    "data": lambda path: altered(path, {"data": "d2"}),
    "no run.json": lambda path: path.with_name("run.json").unlink(),
    "predictions": lambda path: path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes() + b"x"),
    "own hash": lambda path: path.write_text(path.read_text().replace('"seconds": 0.5', '"seconds": 0.6', 1)),
}


@pytest.mark.parametrize("protocol", [Linear(), Finetune()], ids=lambda p: p.stage)
@pytest.mark.parametrize("kind", BREAK)
def test_a_broken_result_is_named_below_the_table_and_its_number_stands_nowhere(tmp_path, kind, protocol):
    publish(tmp_path / "runs", tiny(), protocol, error=20.0)
    broken = publish(tmp_path / "runs", tiny(seed=1), protocol, error=float(NUMBER_OF_IT))
    publish(tmp_path / "runs", tiny(seed=2), protocol, error=22.0)
    before = broken.read_bytes()
    BREAK[kind](broken)
    assert kind in ("no run.json", "predictions") or broken.read_bytes() != before
    suite = small(tiny(), tiny(seed=1), tiny(seed=2), protocols=(protocol,))
    _, problems = report.render([suite], tmp_path / "runs", tmp_path / "out")
    assert len(problems) == 1
    assert str(broken.parent) in problems[0]
    folder = tmp_path / "out/small"
    for name in ("table2.md", "table2.html", "table2.tex"):
        text = html.unescape((folder / name).read_text().replace("\\allowbreak{}", "").replace("{}", "").replace("\\", ""))
        assert problems[0][-30:] in text, name
        assert broken.parent.name in text, name
        assert "21.00" in text, name  # the mean of the others
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".md", ".tex", ".csv"):
            assert NUMBER_OF_IT not in path.read_text(), path.name


def test_a_seed_that_was_measured_on_other_data_is_not_averaged(tmp_path):
    for seed, error in ((0, 20.0), (2, 22.0)):
        publish(tmp_path / "runs", tiny(seed=seed), Linear(), error=error)
    publish(tmp_path / "runs", tiny(seed=1), Linear(), error=float(NUMBER_OF_IT), data="d2")
    report.render([small(tiny(), tiny(seed=1), tiny(seed=2))], tmp_path / "runs", tmp_path / "out")
    for kind in ("md", "html", "tex", "csv"):
        text = (tmp_path / f"out/small/table2.{kind}").read_text()
        assert "21.00" in text
        assert NUMBER_OF_IT not in text
        assert kind == "csv" or "d2" in text
