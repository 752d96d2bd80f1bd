"""The pages of a report: what each says, its figures and curves, whatever is damaged, and a table that a browser sorts."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from conftest import ROOT, TINY, tiny
from matplotlib.figure import Figure as MplFigure
from stored import measure, publish

from simclic import Figure, Finetune, InputError, Linear, Run, Table, load
from simclic.experiment import Suite
from simclic.files import read_json, write_json
from simclic.report import render
from simclic.report.cell_keys import measure_cells
from simclic.report.choices import MOST, list_choices
from simclic.report.figures import compute_points, draw_panels
from simclic.report.findings import list_findings
from simclic.report.results import Results
from simclic.report.run_pages import HEIGHT, WIDTH, build_curve_panels, build_probe_panel
from simclic.store.run_folder import RunFolder

UNTRAINED = Run(dataset="digits", backbone="test_resnet", image_size=16, perturbation="none", epochs=0)
PIXELS = Run(dataset="digits", backbone="pixels", image_size=8, perturbation="none", epochs=0)


def table(*runs, **options):
    names = {"name": "small"} if "columns" in options else {"paper": "table2"}
    return Table(**names | {"caption": "Small", "runs": runs} | options)


def pages(root, *exhibits):
    """The folder of the report of these exhibits on root/runs."""
    render([Suite("", "t", exhibits, "x.py")], root / "runs", root / "out")
    return root / "out"


def words(page):
    """What a page, or a part of one, says without its markup."""
    text = page if isinstance(page, str) else page.read_text()
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"(?s)<(style|script)>.*?</\1>|<[^>]+>", " ", text)))


def rewrite(path, **changes):
    """A file of JSON with other values in it."""
    write_json(path, (read_json(path) or {}) | changes)


# Figures


def swept(root, errors, data=("d1", "d1", "d1")):
    """Figure 4 over three seeds at each tau. errors: tau -> three of them."""
    runs = {tau: [tiny(perturbation="history", tau=tau, seed=seed) for seed in range(3)] for tau in errors}
    for tau, those in runs.items():
        for run, error, digest in zip(those, errors[tau], data, strict=True):
            publish(root, run, Linear(), error, digest)
    return Figure(paper="figure4", caption="tau", runs=tuple(run for those in runs.values() for run in those), x="tau")


def test_a_point_is_the_mean_over_seeds_and_its_bar_their_deviation(tmp_path):
    drawn = compute_points(swept(tmp_path, {0.3: (10, 11, 12), 0.1: (20, 30, 40)}), Results(tmp_path))
    assert drawn[["x", "error", "bar", "seeds"]].to_numpy().tolist() == [[0.1, 30, 10, 3], [0.3, 11, 1, 3]]


def test_a_point_never_averages_different_data(tmp_path):
    drawn = compute_points(swept(tmp_path, {0.3: (90, 11, 13)}, data=("d2", "d1", "d1")), Results(tmp_path))
    assert drawn[["error", "seeds"]].to_numpy().tolist() == [[12, 2]]


def test_a_damaged_file_is_no_point(tmp_path):
    figure = swept(tmp_path, {0.1: (10, 10, 10), 0.3: (20, 22, 90), 0.6: (30, 30, 30)})
    for run in (figure.runs[5], *figure.runs[6:]):  # the third at 0.3, and all at 0.6
        RunFolder(tmp_path, run).result_path(Linear()).write_text("{")
    drawn = compute_points(figure, Results(tmp_path))
    assert drawn[["x", "error", "seeds"]].to_numpy().tolist() == [[0.1, 10, 3], [0.3, 21, 2]]


def test_no_bar_is_cut_off():
    canvas, line = MplFigure(), ("Digits", [0.1, 0.2, 0.3], [20.0, 5.0, 25.0], [30.4, 0.0, 0.0])  # the highest has no bar
    draw_panels(canvas, [("Linear", [line])], "tau", logx=False)
    low, high = canvas.axes[0].get_ylim()
    left, right = canvas.axes[0].get_xlim()
    assert low == 0
    assert 20.0 + 30.4 < high <= 100
    assert left < 0.1 < 0.3 < right


@pytest.mark.parametrize(
    ("exhibit", "x", "lines", "values"),
    [
        ({"paper": "figure5"}, "p", "dataset", (0.1, 0.25, 0.4)), ({"name": "rates"}, "base_lr", "dataset", (0.1, 0.25, 0.4)),
        ({"name": "p"}, "p", "dataset", (0.1, 0.25, 0.4)), ({"paper": "figure7"}, "batch_size", "epochs", (16, 64)),
    ],
)  # fmt: skip
def test_a_figure_of_ones_own_judges_no_claim(tmp_path, exhibit, x, lines, values):
    runs = tuple(tiny(perturbation="dropout", **{x: value}) for value in values)
    for run in runs:
        publish(tmp_path / "runs", run, Linear())
    figure = Figure(**exhibit, caption="", runs=runs, x=x, lines=lines)
    out = pages(tmp_path, figure)
    assert len(measure_cells([figure], Results(tmp_path / "runs"))) == len(values) * ("paper" in exhibit)
    assert all(f"runs/{run.name}.html" in (out / f"{figure.name}.html").read_text() for run in runs)


def test_printed_numbers_and_ours_keep_to_their_columns(tmp_path):
    ablation = load(ROOT / "benchmarks/table4.py").exhibits[0].moved(**TINY)
    for run in ablation.runs:
        measure(tmp_path / "runs", run, Linear(), {"1-layer": 20, "2-layer": 30}.get(run.predictor, 90), images=1000)
    out = pages(tmp_path, ablation)
    (row,) = [row for row in (out / "index.html").read_text().split("<tr>") if "claims.html#two-layers-beat-one" in row]
    assert re.findall(r'<td><span class="\w+">([^<]+)</span>([^<]*)</td>', row) == [("holds", ""), ("fails", " *")]
    section = (out / "claims.html").read_text().partition('id="two-layers-beat-one"')[2].partition("</section>")[0]
    printed, ours = words(section).split("On the printed numbers: ")[1].split("On ours: ")
    assert re.match(r"holds \. CIFAR10: 2-layer MLP 5\.92", printed)
    assert re.match(r"fails \(not the paper's: Digits; .*\) \. Digits: 2-layer MLP 30\.00", ours)


@pytest.mark.parametrize("moved", [False, True])
def test_a_star_marks_what_was_not_run_as_the_paper_says_and_nothing_else(tmp_path, moved):
    ablation = load(ROOT / "benchmarks/table4.py").exhibits[0].moved(**({"dataset": "digits", "epochs": 7} if moved else {}))
    for run in ablation.runs:
        measure(tmp_path / "runs", run, Linear(), {"2-layer": 6}.get(run.predictor, 90), images=1000)
    out = pages(tmp_path, ablation)
    told = words(out / "index.html")
    assert "holds holds" in told
    assert ("* not the paper's setting: Digits; other epochs (7 for 1000)" in told) == moved
    assert ("*" in told) == moved
    assert ("(not the paper's: Digits; other epochs (7 for 1000))" in words(out / "claims.html")) == moved
    assert ("not the paper's" in words(out / "claims.html")) == moved


def test_notes_stand_below_their_exhibit(tmp_path):
    figure = Figure(paper="figure7", caption="f", runs=(tiny(),), x="batch_size", lines="epochs", notes=("a figure's note",))
    out = pages(tmp_path, table(tiny(), notes=("one note", "another")), figure)
    for kind in ("html", "md", "tex"):
        text = (out / f"table2.{kind}").read_text()
        assert "one note" in text
        assert "another" in text
    assert "a figure's note Bars: one standard deviation over seeds" in words(out / "figure7.html")


def test_what_is_damaged_did_not_converge_or_collapsed_is_said_where_it_stands(tmp_path):
    runs = {"fine": tiny(), "fallen": tiny(perturbation="history"), "broken": tiny(perturbation="dropout")}
    paths = {what: publish(tmp_path / "runs", run, Linear()) for what, run in runs.items()}
    as_published = publish(tmp_path / "runs", runs["fine"], Linear(solver="as-published"))
    for path in (paths["fine"], as_published):
        rewrite(path, unconverged=3)
    rewrite(paths["fallen"], collapsed="spread 0.001")
    for what, collapsed in (("fine", ""), ("fallen", "spread 0.001")):
        last = {"epoch": 2, "loss": -1.0, "cos(z, g(z))": 1.0, "spread": 0.001, "rank": 1.0, "rank_of": 32}
        rewrite(paths[what].with_name("pretrain.json"), last=last, seconds=1.0, collapsed=collapsed)
    paths["broken"].write_text("{")
    out = pages(tmp_path, table(*runs.values(), protocols=(Linear(), Linear(solver="as-published"))))
    told = words(out / "table2.html")
    assert told.count("not converged:") == 1
    assert f"not converged: {runs['fine'].name}, at 3 values of l2" in told
    assert f"collapsed: {runs['fallen'].name}, spread 0.001" in told
    for page in ("index.html", "table2.html"):
        assert f"{paths['broken']}: is not a whole JSON file" in words(out / page)
    names = re.findall(r"(\S+-[0-9a-f]+)( \(collapsed\))? 2 -1\.0000", words(out / "encoders.html"))
    assert dict(names) == {runs["fine"].name: "", runs["fallen"].name: " (collapsed)"}


def test_two_files_that_would_write_one_page_are_refused_in_one_line_that_names_both(tmp_path):
    suites = [Suite("", "t", (table(tiny()),), path) for path in ("a/table2.py", "b/table2.py")]
    with pytest.raises(InputError) as refused:
        render(suites, tmp_path / "runs", tmp_path / "out")
    told = str(refused.value)
    assert "\n" not in told
    assert all(word in told for word in ("a/table2.py", "b/table2.py", "declare table2;"))
    assert not (tmp_path / "out").exists()


def test_results_on_a_folder_of_images_that_is_elsewhere_are_reported(tmp_path):
    birds = tiny(dataset=f"{tmp_path}/birds")
    for run in (birds, tiny()):
        path = publish(tmp_path / "runs", run, Linear(), 12.34)
        rewrite(path.with_name("pretrain.json"), seconds=1.0, device="cpu", collapsed="")
    out = pages(tmp_path, table(birds, tiny()))
    assert "birds" in words(out / "table2.html")
    assert "12.34" in words(out / f"runs/{birds.name}.html")
    assert re.search(r"Pre-training cpu 1 .* Linear evaluation cpu 1 ", words(out / "encoders.html"))  # what the digits took


# What the runs say


SENTENCES = {
    "nothing": "that SimCLIC learns anything is not shown",
    "something": "SimCLIC learns something: with noise and history it is clearly better than the untrained backbone",
    "worse": "it is clearly worse than without any perturbation",
    "better": "it is clearly better than without any perturbation",
    "not shown": "That perturbing is worth anything is not shown",
    "pixels": "Raw pixels are clearly better than SimCLIC",
}


@pytest.mark.parametrize(
    ("untrained", "identity", "noise", "history", "pixels", "said"),
    [
        (50, 30, 20, 20, 70, {"something", "better"}),
        (50, 30, 20, 40, 70, {"something", "better", "worse"}),
        (50, 30, 30, 40, 70, {"something", "worse", "not shown"}),
        (50, 30, 40, 40, 70, {"something", "worse"}),
        (50, 30, 30, 30, 10, {"something", "not shown", "pixels"}),
        (50, 30, 20, 10, 15, {"something", "better"}),
        (20, 30, 40, 40, 10, {"nothing"}),
    ],
)
def test_the_sentences_are_those_that_the_errors_support(tmp_path, untrained, identity, noise, history, pixels, said):
    runs = (UNTRAINED, tiny(perturbation="none"), tiny(), tiny(perturbation="history"), PIXELS)
    for run, error in zip(runs, (untrained, identity, noise, history, pixels), strict=True):
        measure(tmp_path, run, Linear(), error, images=1000)
    (found,) = list_findings(table(*runs), Results(tmp_path))
    assert {name for name, words in SENTENCES.items() if words in found.sentences} == said


def test_what_was_measured_on_other_data_is_left_out_of_what_was_learned(tmp_path):
    runs = (UNTRAINED, tiny(), tiny(perturbation="history"))
    for run, error, data in zip(runs, (50, 40, 10), ("d1", "d1", "d2"), strict=True):
        measure(tmp_path, run, Linear(), error, images=1000, data=data)
    (found,) = list_findings(table(*runs), Results(tmp_path))
    assert [row[0] for row in found.rows] == ["SimCLIC (noise)", "Untrained backbone"]
    assert "history" not in found.sentences
    assert found.basis.endswith("Left out, since measured on other data: SimCLIC (history).")


def question(name, root, *exhibits):
    """The row of one open question."""
    (row,) = [r for r in list_choices([Suite("", "", exhibits, "x.py")], Results(root)) if r["question"] == name]
    return row


def test_the_default_comes_first_and_of_many_changes_the_first_are_shown(tmp_path):
    by_choice = {perturbs: [tiny(perturbs=perturbs, epochs=n) for n in range(1, MOST + 4)] for perturbs in ("p", "z")}
    for runs in by_choice.values():
        for run in runs:
            publish(tmp_path, run, Linear())
    shown = [table(*runs, columns="epochs") for runs in by_choice.values()]
    row = question("What g perturbs", tmp_path, *shown)
    assert (len(row["changes"]), row["more"]) == (MOST, 3)
    assert {(c.choice, c.other) for c in row["changes"]} == {("perturbs z", "perturbs p")}


def test_a_published_encoder_is_no_other_start_of_ours(tmp_path):
    imported, started = replace(UNTRAINED, init="moco-v2"), tiny(init="moco-v2")
    for run in (UNTRAINED, imported, tiny(), started):
        publish(tmp_path, run, Linear())
    changes = question("Initialisation", tmp_path, table(UNTRAINED, imported, tiny(), started))["changes"]
    assert [(c.choice, c.other) for c in changes] == [("init random", "init moco-v2")]
    assert "SimCLIC" in changes[0].where


def test_what_figures_sweep_is_no_list_of_changes(tmp_path):
    runs = [tiny(perturbation="history", tau=tau) for tau in (0.1, 0.3)] + [tiny(predictor=h) for h in ("2-layer", "frozen")]
    for run in runs:
        publish(tmp_path, run, Linear())
    exhibits = [table(*runs[:2], columns="tau"), table(*runs[2:], columns="predictor")]
    for name in ("τ, p, ε", "Predictor “1-layer”"):
        assert question(name, tmp_path, *exhibits)["changes"] == []


# The page of a run


def run_page(root, *protocols):
    """The page of a tiny Run in a report of its results."""
    return pages(root, table(tiny(), protocols=protocols or (Linear(),))) / f"runs/{tiny().name}.html"


def test_a_curve_goes_from_its_first_epoch_to_its_last_and_high_is_up():
    (panel,) = build_curve_panels([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    assert (panel["points"], panel["low"], panel["high"], panel["right"]) == (
        f"0.0,0.0 {WIDTH}.0,{HEIGHT}.0", "1", "2", "2 epochs"
    )  # fmt: skip
    (panel,) = build_curve_panels([{"epoch": n, "loss": float(n)} for n in range(1, 1002)])
    xs = [float(point.split(",")[0]) for point in panel["points"].split()]
    assert (xs[0], xs[-1], xs) == (0, WIDTH, sorted(xs))
    assert WIDTH <= len(xs) <= 2 * WIDTH


def test_a_probe_shows_what_was_chosen_and_what_did_not_converge(tmp_path):
    path = publish(tmp_path / "runs", tiny(), Linear())
    rows = ((1.0, 10.0, True), (100.0, 20.0, True), (0.01, 30.0, False))
    curve = [dict(zip(("l2", "error", "converged"), row, strict=True)) for row in rows]
    rewrite(path, curve=curve, chosen={"l2": 1.0, "val_error": 10.0})
    panel, middle = build_probe_panel("t", read_json(path)), f"{WIDTH // 2}.0"
    assert panel["points"] == f"0.0,0.0 {middle},{HEIGHT}.0 {WIDTH}.0,{HEIGHT // 2}.0"
    assert (panel["chosen"], panel["open"]) == ([middle, f"{HEIGHT}.0"], [["0.0", "0.0"]])
    page = run_page(tmp_path).read_text()
    assert re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="(\w+)"', page) == [
        ("0.0", "0.0", "open"), (middle, f"{HEIGHT}.0", "chosen")
    ]  # fmt: skip


LOG = b'{"epoch": 1, "loss": -0.25}\n[1]\n{"epoch": 2, "node": "caf\xe9", "loss": -0.75}\n{"epoch": 3, "lo'


def test_a_damaged_record_and_a_damaged_log_leave_a_page_with_what_is_whole(tmp_path):
    path = publish(tmp_path / "runs", tiny(), Linear(), 12.34)
    path.with_name("log.jsonl").write_bytes(LOG)
    path.with_name("pretrain.json").write_text('{"last": ')
    page = run_page(tmp_path)
    assert f"{path.with_name('pretrain.json')}: is not a whole JSON file" in words(page)
    assert "12.34" in words(page)
    assert f'<polyline points="0.0,0.0 {WIDTH}.0,{HEIGHT}.0" class="curve"/>' in page.read_text()
    assert "loss: between -0.75 and -0.25 from 1 to 2 epochs" in page.read_text()


def test_results_without_a_curve_have_a_page(tmp_path):
    for protocol in (Linear(), Finetune()):
        rewrite(publish(tmp_path / "runs", tiny(), protocol, 12.34), curve=[])
    told = words(run_page(tmp_path, Linear(), Finetune()))
    assert told.count("12.34") == 2
    assert "Fine-tuned: the grid" in told
    assert "Linear probe" not in told


# A browser

SCRIPT = """<pre id="told"></pre><script>
const table = document.querySelector("table.sortable"), input = document.querySelector("input.filter"), told = {};
const rows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
const click = (name) => [...table.querySelectorAll("th button")].find((b) => b.textContent === name).click();
const type = (text) => { input.value = text; input.dispatchEvent(new Event("input")); };
told.first = rows();
for (const name of ["Seconds", "Loss", "Run"]) for (const way of ["up", "down"]) { click(name); told[name + " " + way] = rows(); }
told.sorted = [...table.querySelectorAll("[aria-sort]")].map((head) => [head.textContent, head.getAttribute("aria-sort")]);
type("HISTORY"); told.history = rows();
type("no such row"); told.none = rows();
type(""); told.all = rows();
document.getElementById("told").textContent = JSON.stringify(told);
</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_click_sorts_by_number_with_dashes_last_and_typing_filters(tmp_path):
    runs = {kind: tiny(perturbation=kind) for kind in ("noise", "history", "dropout")} | {"untrained": UNTRAINED}
    paths = {kind: publish(tmp_path / "runs", run, Linear()) for kind, run in runs.items()}
    for kind, seconds, loss in (("noise", 9.0, -0.75), ("history", 1000.0, -0.5), ("dropout", 70.0, 0.25)):
        rewrite(paths[kind].with_name("pretrain.json"), seconds=seconds, last={"epoch": 2, "loss": loss}, collapsed="")
    page = pages(tmp_path, table(*runs.values())) / "encoders.html"
    page.write_text(page.read_text().replace("</body>", f"{SCRIPT}</body>"))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", f"--user-data-dir={tmp_path}/browser")
    command = ["chromium", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout).group(1)))
    ways = told.pop("sorted")
    told = {what: [name.split("-")[1] for name in names] for what, names in told.items()}
    assert told == {
        "first": sorted(runs),
        "Seconds up": ["noise", "dropout", "history", "untrained"],
        "Seconds down": ["history", "dropout", "noise", "untrained"],
        "Loss up": ["noise", "history", "dropout", "untrained"],
        "Loss down": ["dropout", "history", "noise", "untrained"],
        "Run up": sorted(runs),
        "Run down": sorted(runs, reverse=True),
        "history": ["history"],
        "none": [],
        "all": sorted(runs, reverse=True),
    }
    assert ways == [["Run", "descending"]]
