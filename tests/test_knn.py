"""k nearest neighbours: the votes as written out, the bank of each split, and the protocol wherever a protocol may stand."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from conftest import TINY, compute_results, tiny

from simclic import Figure, Knn, Linear, Run, Suite, Table, grid
from simclic.data import Dataset, Facts, Splits
from simclic.data.images import Images
from simclic.data.metrics import METRICS
from simclic.errors import InputError
from simclic.evaluate.knn import evaluate_neighbours
from simclic.experiment import DEFAULT_COMPUTE, ComputeOptions, Job, knn_log
from simclic.methods.backbones import build_backbone
from simclic.report.figures import compute_points, draw_figure
from simclic.report.formats import Site
from simclic.report.results import Results
from simclic.report.run_pages import build_curve_panels, write_run_pages
from simclic.report.tables import build_sheet
from simclic.schedule.cell_lookup import find_cells
from simclic.schedule.cost import this_machine
from simclic.schedule.cost.work_amounts import encoder_work, split_sizes
from simclic.schedule.deletable import Kind
from simclic.schedule.gc import find_garbage
from simclic.schedule.measure import list_workloads, measure_workloads
from simclic.schedule.plan import plan
from simclic.schedule.plan_cost import price_plan
from simclic.schedule.profile import SECTIONS
from simclic.store.results import results
from simclic.store.run_folder import RunFolder
from simclic.train import loop, neighbours, pretrain
from simclic.train.neighbours import NeighbourLog, one_hot, sum_votes


def make_data(metric, classes=5, train=40, val=15, test=25, seed=0):
    """Features whose classes overlap, and a data set without images that has them."""
    rng, n = np.random.default_rng(seed), train + val + test
    several = metric == "11-point mAP"
    y = rng.integers(-1, 2, (n, classes)) if several else rng.integers(0, classes, n)
    x = rng.normal(size=(n, 8)) + (
        np.maximum(y, 0) @ rng.normal(size=(classes, 8)) if several else rng.normal(size=(classes, 8))[y]
    )
    known = Facts(title="Made", classes=classes, metric=metric, sizes=(train, val, test), images=n, rule="")
    where = Splits(*np.split(rng.permutation(n), [train, train + val]))
    return torch.from_numpy(x).float(), Dataset(known, np.zeros((n, 3, 1, 1), np.uint8), y, where, "d")


def vote_slowly(x, labels, bank, queries, classes, k, temperature):
    """Wu et al., 2018, Section 3.4, image by image."""
    scores = np.zeros((len(queries), classes))
    for i, query in enumerate(queries):
        cosines = [x[query] @ x[b] / np.linalg.norm(x[query]) / np.linalg.norm(x[b]) for b in bank]
        for j in np.argsort(cosines)[::-1][:k]:
            for c in range(classes):
                shows = labels[bank[j]] == c if labels.ndim == 1 else labels[bank[j], c] == 1
                scores[i, c] += np.exp(cosines[j] / temperature) if shows else 0
    return scores


@pytest.mark.parametrize("metric", ["top-1", "mean per class", "11-point mAP"])
@pytest.mark.parametrize(("k", "temperature"), [(7, 0.07), (40, 1.0)])
def test_errors_are_those_of_a_written_out_loop(metric, k, temperature, device):
    x, dataset = make_data(metric)
    record, truth, scores = evaluate_neighbours(Knn(k=k, temperature=temperature), x.to(device), dataset)
    where = dataset.splits
    rest = (dataset.facts.classes, k, temperature)
    val = vote_slowly(x.double().numpy(), dataset.labels, where.train, where.val, *rest)
    test = vote_slowly(x.double().numpy(), dataset.labels, where.fit, where.test, *rest)
    assert record["chosen"]["val_error"] == pytest.approx(METRICS[metric](dataset.labels[where.val], val))
    assert record["error"] == pytest.approx(METRICS[metric](dataset.labels[where.test], test))
    np.testing.assert_array_equal(truth, dataset.labels[where.test])
    np.testing.assert_allclose(scores, test * np.exp(-1 / temperature), rtol=2e-4, atol=1e-12)


def test_votes_depend_neither_on_chunks_nor_on_the_length_of_features(monkeypatch, device):
    x, dataset = make_data("top-1")
    x, protocol = x.to(device), Knn(k=7)
    first = evaluate_neighbours(protocol, x, dataset)
    again = evaluate_neighbours(protocol, x, dataset)
    assert first[0]["error"] == again[0]["error"]
    assert (first[2] == again[2]).all()
    monkeypatch.setattr(neighbours, "CELLS", 130)  # three queries at a time
    np.testing.assert_allclose(evaluate_neighbours(protocol, 3 * x, dataset)[2], first[2], rtol=1e-4)


def test_no_vote_overflows_or_vanishes():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for temperature in (0.025, 100.0):
        votes = sum_votes(x, one_hot(np.array([0, 1]), 2), x, 2, temperature)
        assert votes.isfinite().all()
        assert (votes > 0).all()
        assert votes.argmax(dim=1).tolist() == [0, 1]


@pytest.mark.parametrize(("images", "way"), [(130, "use k=20, or any k up to 130"), (15, "use a k up to 15")])
def test_more_neighbours_than_images_is_one_line_before_features_are_computed(images, way, digits, tmp_path, monkeypatch):
    from simclic import data

    few = dataclasses.replace(digits, splits=dataclasses.replace(digits.splits, train=digits.splits.train[:images]))
    monkeypatch.setattr(data, "load", lambda *given, **options: few)
    run = Run(dataset="digits", backbone="test_resnet", image_size=16, epochs=0, perturbation="none")
    with pytest.raises(InputError) as caught:
        compute_results(run, [Knn()], tmp_path)
    assert str(caught.value) == f"k=200 is more than the {images} training images that can vote; {way}"
    assert RunFolder(tmp_path, run).failure_record("knn")["reason"] == str(caught.value)
    assert not RunFolder(tmp_path, run).features_path(Knn()).exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, r"k=0 is out of range: it must lie in \[1, 1e\+06\]"),
        ({"k": 20.0}, "k=20.0 is float, not int"),
        ({"temperature": 0.0}, r"temperature=0.0 is out of range: it must lie in \[0.025, 100\]"),
        ({"features": "fp8"}, "features='fp8' is not one of float32, bf16"),
    ],
)
def test_a_wrong_field_is_one_line(fields, message):
    with pytest.raises(InputError, match=message):
        Knn(**fields)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Results of a trained, an untrained and a pixel encoder, under Linear and two Knn."""
    runs = tmp_path_factory.mktemp("runs")
    protocols = (Linear(l2_low=0.1, l2_count=2, tolerance=1e-2), Knn(), Knn(k=20))
    small = {"dataset": "digits", "backbone": "test_resnet", "image_size": 16}
    trained = {**small, "projector_dim": 32, "predictor_dim": 8, "epochs": 2, "precision": "float32"}
    table = Table(
        paper="table2",
        caption="",
        runs=grid(**trained)
        + grid(**small, epochs=0, perturbation="none")
        + grid(dataset="digits", backbone="pixels", image_size=8, epochs=0, perturbation="none"),
        protocols=protocols,
    )
    errors = [compute_results(run, protocols, runs) for run in table.runs]
    return runs, table, errors


def test_it_reads_the_features_that_the_probe_stored(stored, monkeypatch):
    from simclic.evaluate.linear import frozen

    runs, table, _ = stored
    monkeypatch.setattr(frozen, "extract_features", None)  # it would fail
    for run in table.runs:
        protocol = Knn(k=5)
        compute_results(run, [protocol], runs)
        RunFolder(runs, run).result_path(protocol).unlink()


def test_results_stand_in_a_block_of_their_own_without_rank_or_verdict(stored, tmp_path):
    runs, table, errors = stored
    sheet = build_sheet(table, Results(runs), tmp_path)
    blocks = {heading: {group.title: group.rows for group in groups} for heading, groups in sheet.blocks}
    assert list(blocks) == ["Linear evaluation", "k-nearest neighbours"]
    assert list(blocks["k-nearest neighbours"]) == ["Run here", "Run here, k 20"]
    for title, key in (("Run here", "k-nearest neighbours"), ("Run here, k 20", "k-nearest neighbours, k 20")):
        rows = blocks["k-nearest neighbours"][title]
        assert [row.label for row in rows] == ["SimCLIC (noise)", "Untrained backbone", "Raw pixels"]
        assert [row.cells[0].value for row in rows] == [e[key] for e in errors]
    assert errors[2]["k-nearest neighbours, k 20"] < errors[2]["k-nearest neighbours"] < 15  # digits as they are


def test_a_figure_has_a_panel_of_it_and_a_run_s_page_its_row(stored, tmp_path):
    runs, table, _ = stored
    figure = Figure(name="by-epochs", caption="", runs=table.runs[:1], protocols=table.protocols, x="epochs")
    points = compute_points(figure, Results(runs))
    assert points["protocol"].tolist() == ["Linear evaluation", "k-nearest neighbours", "k-nearest neighbours, k 20"]
    assert set(draw_figure(figure, points, tmp_path)) >= {"by-epochs.svg", "by-epochs.csv"}
    site = Site("Title", [table], tmp_path)
    write_run_pages(results(runs), [table], Results(runs), site)
    page = (tmp_path / f"runs/{table.runs[0].name}.html").read_text()
    assert '<th scope="row">k-nearest neighbours, k 20</th>' in page
    assert "k 20 temperature 0.07" in page


def test_claims_are_judged_on_none_of_it_but_the_first_of_each_stage(stored):
    _, table, _ = stored
    assert [job.protocol for job in table.judged if job.run == table.runs[0]] == [table.protocols[0], Knn()]


def test_an_exhibit_moves_its_neighbours_and_a_cell_is_found_by_them(stored):
    _, table, _ = stored
    moved = table.moved(knn={"temperature": 0.1}, seed=1)
    assert moved.protocols[1:] == (Knn(temperature=0.1), Knn(k=20, temperature=0.1))
    with pytest.raises(InputError, match="'kk' is not a field of Knn; did you mean 'k'"):
        table.moved(knn={"kk": 1})
    suites = [Suite("s", "t", (table,), "x.py")]
    assert [cell.jobs[0].protocol for cell in find_cells(suites, "pixels knn")] == [Knn(), Knn(k=20)]
    assert [cell.jobs[0].protocol for cell in find_cells(suites, "pixels k-20")] == [Knn(k=20)]


def test_it_is_planned_priced_and_measured(stored, tmp_path):
    _, table, _ = stored
    job_plan = plan([Suite("s", "t", (table,), "x.py")], tmp_path, tmp_path)
    missing = {line.stage: line.missing for line in job_plan.lines}
    assert missing == {"pretrain": 1, "calibrate": 2, "linear": 3, "knn": 6}
    costs = price_plan(job_plan, tmp_path, tmp_path, this_machine())
    by_stage = {state.stage: costs.prices[state.name] for state in job_plan.jobs.values()}
    assert 0 < by_stage["knn"].seconds < by_stage["linear"].seconds
    alone = price_plan(plan([Suite("s", "t", (dataclasses.replace(table, protocols=(Knn(),)),), "x.py")], tmp_path, tmp_path),
                       tmp_path, tmp_path, this_machine())  # fmt: skip
    assert sum(price.besides > 0 for name, price in alone.prices.items() if "/knn" in name) == 2  # features, but not of pixels
    workloads = list_workloads([Job(table.runs[1], Knn())])
    (rate,) = measure_workloads(workloads, "cpu", tmp_path, lambda share, note: None)
    assert {"image", "pair"} <= rate["seconds"].keys()
    assert 0 < rate["seconds"]["pair"] < 1e-3


def test_its_jobs_are_submitted_under_the_section_of_linear_evaluation():
    assert SECTIONS == ("pretrain", "linear", "finetune")
    assert {Job(Run(), protocol).section for protocol in (Knn(), Linear())} == {"linear"}


def test_features_are_needed_until_it_is_done(stored, monkeypatch):
    runs, table, _ = stored
    suite = Suite("s", "t", (dataclasses.replace(table, protocols=(*table.protocols[:2], Knn(k=30))),), "x.py")
    for suites, free in ((suite, 0), (Suite("s", "t", (table,), "x.py"), 3)):
        garbage = find_garbage([suites], runs, runs)
        assert sum(item.kind == Kind.FEATURES for item in garbage.items) == free


# The line in the log of a pre-training.

CPU = torch.device("cpu")


def rows_of(folder):
    return [{k: v for k, v in row.items() if k != "images/s"} for row in folder.log_rows()]


def train_digits(path, digits, run, options=DEFAULT_COMPUTE, tell=lambda share, note: None):
    """Everything that a checkpoint at the end would hold, and the rows of the log without their speed."""
    made, original = [], loop.Training
    path.mkdir(exist_ok=True)
    folder = RunFolder(path.parent, path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Training", lambda *given: made.append(original(*given)) or made[-1])
        loop.train(run, digits, Images(digits, run.image_size, CPU), folder, tell, options=options)
    buffer = io.BytesIO()
    torch.save({k: v for k, v in made[0].state_dict().items() if k not in ("seconds", "resumed", "ranks")}, buffer)
    return buffer.getvalue(), rows_of(folder)


@pytest.fixture
def few(digits):
    where = digits.splits
    return dataclasses.replace(digits, splits=Splits(where.train[:100], where.val[:28], where.test))


@pytest.fixture
def at_every_epoch(monkeypatch):
    monkeypatch.setattr(neighbours, "list_logged_epochs", lambda epochs, per_epoch, sample: range(1, epochs + 1))


def test_the_last_row_has_the_error_of_the_trained_backbone_on_val(digits, tmp_path):
    run = tiny()
    f = pretrain.pretrain(run, digits, tmp_path, CPU)
    first, last = rows_of(RunFolder(tmp_path, run))
    assert "knn" not in first
    images = Images(digits, 16, CPU)
    train, val = (f(images(torch.from_numpy(index))).detach() for index in (digits.splits.train, digits.splits.val))
    votes = sum_votes(train, one_hot(digits.labels[digits.splits.train], 10), val, 107, 0.07)  # a tenth of 1,078
    assert last["knn"] == METRICS["top-1"](digits.labels[digits.splits.val], votes.numpy())
    assert RunFolder(tmp_path, run).encoder_record()["last"]["knn"] == last["knn"]


@pytest.mark.parametrize("method", ["simclic", "simsiam", "byol", "moco-v2"])
def test_a_training_is_bit_identical_with_and_without_it(method, few, tmp_path, monkeypatch, at_every_epoch):
    fields = {name: v for name, v in TINY.items() if name != "predictor_dim"}
    run = Run(**{**fields, "method": method, "epochs": 3, "batch_size": 16})
    with_it, rows = train_digits(tmp_path / "with", few, run)
    assert all(0 <= row.pop("knn") <= 100 for row in rows)
    monkeypatch.setattr(neighbours, "list_logged_epochs", lambda *given: ())
    assert train_digits(tmp_path / "without", few, run) == (with_it, rows)


@pytest.mark.parametrize("at", [1, 2])
def test_a_training_that_died_after_it_was_logged_resumes_exactly(at, few, tmp_path, at_every_epoch):
    run, whole = tiny(epochs=3, batch_size=16), None
    whole = train_digits(tmp_path / "whole", few, run)

    def die(share, note):
        if note == f"epoch {at}/3":  # the row is written, its checkpoint is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_digits(tmp_path / "again", few, run, ComputeOptions(minutes=0), die)
    assert len(rows_of(RunFolder(tmp_path, "again"))) == at
    assert train_digits(tmp_path / "again", few, run) == whole


def test_each_layer_keeps_its_mode_and_nothing_is_compiled_for_it(few, at_every_epoch):
    f, compiled = build_backbone(tiny()), []
    f.train()
    f.bn1.eval()
    modes, state = [m.training for m in f.modules()], {k: v.clone() for k, v in f.state_dict().items()}
    f.compile(backend=lambda graph, example: compiled.append(graph) or graph.forward)
    log = NeighbourLog(tiny(), few, 128)
    draws = torch.random.get_rng_state()
    assert log.measure_epoch(1, f, Images(few, 16, CPU)).keys() == {"knn"}
    assert [m.training for m in f.modules()] == modes
    assert all(v.equal(state[k]) for k, v in f.state_dict().items())
    assert torch.random.get_rng_state().equal(draws)
    assert not compiled


@pytest.mark.parametrize("metric", ["mean per class", "11-point mAP"])
def test_it_is_by_the_metric_of_the_data_set(metric):
    _, dataset = make_data(metric)
    images = torch.randn(len(dataset.labels), 3, 2, 2, generator=torch.Generator().manual_seed(0))
    dataset = dataclasses.replace(dataset, images=(images * 40 + 128).clamp(0, 255).byte().numpy())
    log, pixels = NeighbourLog(tiny(), dataset, 55), Images(dataset, 2, CPU)
    f, where = torch.nn.Flatten(), dataset.splits
    slow = vote_slowly(f(pixels(torch.arange(80))).double().numpy(), dataset.labels, where.train, where.val, 5, 4, 0.07)
    assert log.measure_epoch(2, f, pixels) == {"knn": pytest.approx(METRICS[metric](dataset.labels[where.val], slow))}


def test_without_val_or_with_features_that_are_not_finite_there_is_none(few):
    no_val = dataclasses.replace(few, splits=dataclasses.replace(few.splits, val=few.splits.val[:0]))
    assert NeighbourLog(tiny(), no_val, 128).measure_epoch(2, build_backbone(tiny()), Images(few, 16, CPU)) == {}

    class Infinite(torch.nn.Flatten):
        def forward(self, x):
            return super().forward(x) / 0

    assert NeighbourLog(tiny(), few, 128).measure_epoch(2, Infinite(), Images(few, 16, CPU)) == {}


def test_its_images_are_at_most_so_many_and_the_same_for_every_run(digits, monkeypatch):
    monkeypatch.setattr(knn_log, "BANK", 60)
    monkeypatch.setattr(knn_log, "QUERIES", 20)
    a, b = (NeighbourLog(tiny(seed=seed), digits, 1408) for seed in (0, 1))
    assert (len(set(a.bank)), len(set(a.queries)), a.k) == (60, 20, 6)
    assert set(a.bank) <= set(digits.splits.train)
    assert set(a.queries) <= set(digits.splits.val)
    assert (a.bank == b.bank).all()
    assert (a.queries == b.queries).all()


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "sample", "logged"),
    [
        (1000, 45_000, 10_240, (1, *range(100, 1001, 100))),
        (25, 45_000, 10_240, (1, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25)),
        (20, 1408, 1437, (5, 10, 15, 20)),
        (6, 1408, 1437, (6,)),  # benchmarks/digits.py
        (1, 100, 5000, (1,)),
        (50, 100, 0, ()),
    ],
)
def test_it_is_logged_after_the_first_each_tenth_and_the_last_epoch_or_less_often(epochs, per_epoch, sample, logged):
    assert knn_log.list_logged_epochs(epochs, per_epoch, sample) == logged


def test_a_plan_counts_its_passes(digits, tmp_path):
    for run in (tiny(epochs=30), tiny(epochs=30, split="paper"), Run(epochs=25)):
        amounts = encoder_work(run)
        per_epoch = int(amounts["train.image"]) // run.epochs
        train, val, _ = split_sizes(run)
        bank, queries = min(train, 8192), min(val, 2048)
        assert amounts["image"] == (bank + queries) * len(knn_log.list_logged_epochs(run.epochs, per_epoch, bank + queries))
        assert amounts["image"] <= 0.3 * amounts["train.image"]
    log = NeighbourLog(tiny(epochs=30), digits, 1408)
    assert encoder_work(tiny(epochs=30))["image"] == len(log.epochs) * (len(log.bank) + len(log.queries))


def test_its_curve_is_drawn_with_a_circle_for_each_value_and_an_old_log_has_none():
    rows = [{"epoch": e, "loss": -0.1 * e} | ({"knn": 50.0 - e} if e in (2, 4) else {}) for e in range(1, 5)]
    loss, curve = build_curve_panels(rows)
    assert (curve["title"], len(curve["open"]), loss["open"]) == ("error of kNN on val (%)", 2, [])
    old = [{k: v for k, v in row.items() if k != "knn"} for row in rows]
    assert [panel["title"] for panel in build_curve_panels(old)] == ["loss"]
