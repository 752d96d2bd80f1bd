"""Pre-train on one data set, evaluate on another: one encoder, several results, each judged on the data that it is of."""

import re
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import simclic, told
from conftest import ROOT, compute_results, tiny
from layouts import fill, write
from stored import measure

from simclic import Figure, Finetune, InputError, Knn, Linear, Run, Table, data, grid, load
from simclic.experiment import ComputeOptions, Job, Suite
from simclic.files import read_json, write_json
from simclic.report import render
from simclic.report.cell_keys import job_key, read_provenance
from simclic.report.pages import describe_departures
from simclic.report.printed_vs_ours import compare_with_printed, explain_not_comparable
from simclic.report.results import Results
from simclic.report.tables import build_sheet
from simclic.schedule.data_digest import current_digest
from simclic.schedule.plan import plan
from simclic.schedule.state import JobState, job_state
from simclic.schedule.submit import Submitted
from simclic.schedule.why import explain_cells
from simclic.store.run_folder import RunFolder

FAST = Linear(l2_count=2, tolerance=1e-2)
EXHIBIT = '''"""Transfer."""
from simclic import Knn, Linear, Table, grid

TABLE = Table(
    name="transfer", caption="From digits",
    runs=grid(dataset="digits", backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8, epochs=1,
              precision="float32", perturbation=("noise", "none")),
    protocols=(Linear(l2_count=2, tolerance=1e-2), Linear(on="{birds}", l2_count=2, tolerance=1e-2), Knn(on="{birds}", k=3)),
)
'''


@pytest.fixture
def birds(tmp_path):
    """A folder of 40 images of two classes."""
    fill(tmp_path / "birds", 20)
    return str(tmp_path / "birds")


def test_the_own_data_set_has_one_spelling_and_old_names_stay():
    assert Job(tiny(), Linear(on="digits")) == Job(tiny(), Linear())
    assert Job(tiny(), Linear(on="pets")).name != Job(tiny(), Linear()).name
    assert Linear().name == "linear-44136fa355"  # the digest of no difference from the defaults
    assert len(Table(name="x", caption="", runs=(tiny(),), protocols=(Linear(), Linear(on="digits"))).jobs) == 1
    voc = Run(dataset="voc2007", difficult="ignore")
    assert Job(voc, Linear(on="voc2007", difficult="ignore")) == Job(voc, Linear())
    with pytest.raises(InputError, match=r"say it in the Run, as Run\(dataset='voc2007', difficult='ignore'\)"):
        Job(Run(dataset="voc2007"), Linear(on="voc2007", difficult="ignore"))
    assert Job(tiny(), Linear(on="voc2007", difficult="ignore")).evaluated.difficult == "ignore"
    with pytest.raises(InputError, match="difficult='ignore' has no effect with on='pets'"):
        Linear(on="pets", difficult="ignore")


def test_one_pretraining_and_eleven_evaluations(tmp_path):
    from simclic.data import PAPER

    run = Run(dataset="food")
    table = Table(name="x", caption="", runs=(run,), protocols=tuple(Linear(on=name) for name in PAPER))
    counted = plan([Suite("", "", (table,), "x.py")], tmp_path, tmp_path)
    assert [(line.stage, line.asked) for line in counted.lines] == [("pretrain", 1), ("linear", 11)]
    assert len({job.run.name for job in table.jobs}) == 1
    assert set(counted.absent) == set(PAPER)
    assert [job_key(table, job).dataset for job in table.jobs][:2] == ["Aircraft", "Caltech101"]


def test_two_encoders_or_two_data_sets_never_meet_in_one_cell():
    both = grid(dataset=("cifar10", "cifar100"))
    with pytest.raises(InputError, match="runs with dataset 'cifar10' and 'cifar100' meet in one cell"):
        Table(name="x", caption="", runs=both, protocols=(Linear(on="pets"),))
    with pytest.raises(InputError, match="runs with on 'pets' and 'dtd' meet in one cell"):
        Table(
            name="x",
            caption="",
            runs=both[:1],
            columns="predictor",
            rows="label",
            protocols=(Linear(on="pets"), Linear(on="dtd")),
        )
    with pytest.raises(InputError, match="two protocols of one kind"):
        Table(name="x", caption="", runs=both[:1], protocols=(Linear(on="pets"), Linear(on="dtd", l2_count=3)))
    lines = Figure(name="y", caption="", x="epochs", runs=both[:1], protocols=(Linear(on="pets"), Linear(on="dtd")))
    assert [lines.place(job) for job in lines.jobs] == [(("pets", 1000), Linear()), (("dtd", 1000), Linear())]


def test_results_of_one_encoder_on_two_data_sets(tmp_path, birds, small, monkeypatch):
    from simclic.schedule.plan import list_runnable_results

    runs, run = tmp_path / "runs", tiny(epochs=1)
    on = [replace(FAST, on=birds), Knn(on=birds, k=3), replace(small, on=birds)]
    errors = compute_results(run, [FAST, *on], runs, tmp_path)
    assert list(errors) == [
        "linear evaluation", "linear evaluation, on birds", "k-nearest neighbours, k 3, on birds", "fine-tuned, on birds"
    ]  # fmt: skip
    folder = RunFolder(runs, run)
    own, theirs = (folder.read_result(protocol) for protocol in (FAST, on[0]))
    known = {name: data.load(name, "ericsson", tmp_path, 16) for name in ("digits", birds)}
    assert (own["data"], theirs["data"]) == (known["digits"].digest, known[birds].digest)
    assert theirs["sizes"] == known[birds].splits.sizes
    assert folder.read_predictions(on[0].name)[1].shape == (8, 2)
    assert len(list(folder.path.glob("features-*"))) == 2  # linear and kNN share those of a data set

    # Once it is trained, the images of the pre-training need not be there.
    original, loaded = data.load, []
    monkeypatch.setattr(data, "load", lambda name, *rest, **options: loaded.append(name) or original(name, *rest, **options))
    compute_results(run, [replace(FAST, on=birds, l2_count=3)], runs, tmp_path)
    assert loaded == [birds]

    table = Table(name="x", caption="", runs=(run,), protocols=(FAST, *on))
    sheet = build_sheet(table, Results(runs), tmp_path)
    assert sheet.header == ["Digits", "birds"]
    shown = [group.rows[0].cells[1].value for _, groups in sheet.blocks for group in groups if group.title == "Run here"]
    assert shown == [errors[name] for name in list(errors)[1:]]
    suites = [Suite("", "", (table,), "x.py")]
    assert not list_runnable_results(plan(suites, runs, tmp_path))
    ((cell, (answer,)),) = explain_cells(suites, runs, tmp_path, "birds knn").cells
    assert (answer.state, answer.digests.now, cell.places) == (
        "done", known[birds].digest, ["X · SimCLIC (noise) · birds · k-nearest neighbours, k 3"]
    )  # fmt: skip


def test_a_failure_on_one_data_set_is_no_failure_on_another(tmp_path, birds):
    runs, run = tmp_path / "runs", tiny(epochs=1)
    fill(tmp_path / "odd", 5)
    odd = str(tmp_path / "odd")
    with pytest.raises(InputError, match="k=9 is more than the 6 training images"):
        compute_results(run, [Knn(on=odd, k=9)], runs, tmp_path)
    states = [job_state(Job(run, Knn(on=name, k=9)), runs).state for name in (odd, birds)]
    assert states == [JobState.FAILED, JobState.MISSING]
    with pytest.raises(InputError, match="k=9 is more than the 6 training images"):
        compute_results(run, [Knn(on=odd, k=9), Knn(on=birds, k=9)], runs, tmp_path)  # nor does the other wait for it
    assert job_state(Job(run, Knn(on=birds, k=9)), runs).state == JobState.DONE


def test_where_memory_does_not_suffice_for_one_result_the_others_are_computed(tmp_path, birds, monkeypatch):
    def fill_memory(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("simclic.evaluate.linear.linear_probe", fill_memory)
    run, protocols = tiny(epochs=1), [FAST, Knn(on=birds, k=3)]
    why = "cpu has not enough memory for linear evaluation on Digits; use a larger one, or fewer processes on it"
    with pytest.raises(InputError, match=why):
        compute_results(run, protocols, tmp_path / "runs", tmp_path)
    states = [job_state(Job(run, protocol), tmp_path / "runs") for protocol in protocols]
    assert [(state.state, state.reason) for state in states] == [(JobState.FAILED, why), (JobState.DONE, "")]


def test_an_exhibit_is_run_reported_compared_and_cleaned_up(tmp_path, birds, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "transfer.py").write_text(EXHIBIT.format(birds=birds))
    code, out, err = told(capsys, "run", "transfer.py")
    assert (code, err) == (0, "")
    page = (tmp_path / "reports/out/transfer.html").read_text()
    assert "evaluated on birds: encoders whose data set is Digits" in page
    encoder = next((tmp_path / "reports/out/runs").glob("*.html")).read_text()
    assert "Linear evaluation, on birds" in encoder
    assert told(capsys, "compare", "runs", "runs")[0] == 0
    assert "every result is there" in told(capsys, "run", "transfer.py")[1]
    _, out, _ = told(capsys, "gc", "transfer.py")
    assert "features" in out
    (tmp_path / "transfer.py").write_text(EXHIBIT.format(birds=f"{birds}x"))
    code, out, err = told(capsys, "run", "transfer.py")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "birdsx: no such folder" in err


def test_a_number_on_another_data_set_is_beside_the_number_printed_for_that(tmp_path):
    from stored import measure

    runs = tmp_path / "runs"
    table = Table(paper="table2", caption="", runs=grid(dataset="food"), protocols=(Linear(on="pets"),))
    (job,) = table.jobs
    measure(runs, job.run, job.protocol, 12.5, images=3669, metric="mean per class", data="d2")
    rows = [row for row in compare_with_printed(table, Results(runs), ROOT / "baselines", {}) if row.ours != "–"]
    assert [(row.column, row.verdict) for row in rows] == [("Pets", "not comparable")]
    assert "other training (on Food; theirs on the data set itself)" in rows[0].why
    assert "pre-trained on Food" in describe_departures([table])  # beside the claims that are judged on it


def test_encoders_of_other_images_of_one_name_never_stand_together_without_a_remark(tmp_path, photos, capsys):
    first, second = (tiny(perturbation="noise", dataset=photos, seed=seed) for seed in (0, 1))
    other = tiny(perturbation="none", dataset=photos)
    protocol = Linear(on="digits")
    for run, digest in ((first, "a1"), (second, "a1"), (other, "b2")):
        measure(tmp_path / "runs", run, protocol, 20.0, images=100)
        path = RunFolder(tmp_path / "runs", run).path / "run.json"
        write_json(path, {**read_json(path), "data": digest})
    table = Table(name="mine", caption="", runs=(first, second, other), protocols=(protocol,))
    render([Suite("mine", "", (table,), "x.py")], tmp_path / "runs", tmp_path / "out")
    assert (
        "pre-trained on different data and do not compare (b2: SimCLIC (no perturbation); a1: SimCLIC (noise))"
        in (tmp_path / "out/mine/mine.md").read_text()
    )
    cell = Results(tmp_path / "runs").measure_jobs(Job(run, protocol) for run in (first, other, second))
    assert set(cell.seeds) == {0, 1}
    (answers,) = explain_cells([Suite("mine", "", (table,), "x.py")], tmp_path / "runs", tmp_path, "mine none").cells
    assert answers[1][0].state == "stale"
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    path = RunFolder(tmp_path / "again", other).path / "run.json"
    write_json(path, {**read_json(path), "data": "c3"})
    code, out, _ = told(capsys, "compare", tmp_path / "runs", tmp_path / "again")
    assert code == 0
    assert "pre-trained on other data" in out
    assert "1 cell compared: 0 changed, 0 perhaps, 0 within noise, 1 identical\n1 not compared" in out


def test_run_says_which_folder_has_changed_since_its_results_were_computed(tmp_path, birds, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(
        f'from simclic import Knn, Table, grid\nRUNS = grid(dataset="digits", backbone="test_resnet", image_size=16, epochs=1)\n'
        f'TABLE = Table(name="x", caption="", runs=RUNS, protocols=(Knn(on="{birds}", k=3),))\n'
    )
    (job,) = load("x.py").jobs
    measure(Path("runs"), job.run, job.protocol, 20.0, images=100, data=current_digest(birds, "ericsson", tmp_path)[0])
    assert told(capsys, "run", "x.py")[1].count("\n") == 2
    write(Path(birds) / "wren/more.jpg", key="more")
    code, out, _ = told(capsys, "run", "x.py")
    assert code == 0
    assert f"nothing to train: every result is there\nnote: {birds}: has changed since results on it were computed" in out


def test_a_folder_that_is_called_imagenet_is_not_imagenet(tmp_path):
    (row,) = [
        r for r in read_provenance(ROOT / "baselines") if (r["protocol"], r["row"], r["column"]) == ("linear", "MoCo v1", "Pets")
    ]
    run, protocol = (
        Run(method="moco-v1", epochs=200, batch_size=256, dataset="data/ImageNet/**"),
        Linear(on="pets", solver="as-published"),
    )
    assert data.title(run.dataset) == "ImageNet"
    why = explain_not_comparable(run, protocol, row, "mean per class")
    assert why == ["other training (200 epochs on data/ImageNet/**; theirs on ImageNet)"]
    (why,) = explain_not_comparable(replace(run, dataset="imagenet"), protocol, row, "mean per class")
    assert why.startswith("other training (by the recipe here, ")


def test_fine_tuning_and_its_checkpoint_belong_to_one_data_set(tmp_path):
    names = {RunFolder(tmp_path, tiny()).checkpoint_path(p).name for p in (Finetune(), Finetune(on="pets"), Finetune(on="dtd"))}
    assert len(names) == 3


@pytest.fixture
def photos(tmp_path):
    """30 images at several depths, without classes."""
    fill(tmp_path / "photos", 5, ("a", "b/c"))
    for i in range(20):
        write(tmp_path / f"photos/p{i}.jpg")
    (tmp_path / "photos/a/notes.txt").write_text("x")
    return f"{tmp_path}/photos/**"


def test_images_without_labels_are_trained_on_and_evaluated_on_others(tmp_path, photos, birds):
    run, runs = tiny(dataset=photos, epochs=2, batch_size=8), tmp_path / "runs"
    assert run.name.startswith("photos-noise-")
    errors = compute_results(run, [replace(FAST, on=birds)], runs, tmp_path)
    assert list(errors) == ["linear evaluation, on birds"]
    rows = RunFolder(runs, run).log_rows()
    assert [(row["probe"], "knn" in row) for row in rows] == [(None, False)] * 2
    watched = tmp_path / "watched"
    compute_results(run, [], watched, tmp_path, compute=ComputeOptions(watch_on="digits"))
    assert "knn" in RunFolder(watched, run).log_rows()[-1]
    (first, second) = (RunFolder(place, run).encoder_record()["backbone_sha256"] for place in (runs, watched))
    assert first == second  # nothing learns from what is watched
    fill(tmp_path / "no test/train")
    fill(tmp_path / "no test/val")
    with pytest.raises(InputError, match=r"^watch_on='.*/no test': .*there is no test"):
        compute_results(run, [], tmp_path / "other", tmp_path, compute=ComputeOptions(watch_on=str(tmp_path / "no test")))


def test_a_finished_encoder_is_evaluated_and_exported_without_its_images(tmp_path, photos, birds, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, runs = tiny(dataset=photos, epochs=1, batch_size=8), tmp_path / "runs"
    compute_results(run, [], runs, tmp_path)
    (tmp_path / "photos").rename(tmp_path / "away")
    import_module("simclic.data.facts")._facts_of_path.cache_clear()  # of this process
    with pytest.raises(InputError, match="no such folder"):
        compute_results(replace(run, seed=1), [Knn(on=birds, k=3)], runs, tmp_path)
    assert list(compute_results(run, [Knn(on=birds, k=3)], runs, tmp_path)) == ["k-nearest neighbours, k 3, on birds"]
    assert "90 keys" in simclic("export", run.name, "--runs", runs)


def test_what_needs_labels_says_so_in_one_line(tmp_path, photos, capsys):
    with pytest.raises(InputError, match=r"has no labels to evaluate on; name a data set that has, as in Linear\(on='digits'\)"):
        Table(name="x", caption="", runs=(tiny(dataset=photos),))
    with pytest.raises(InputError, match=r"watch_on=.* is not a data set with labels"):
        ComputeOptions(watch_on=photos)
    code, out, err = told(capsys, "data", "check", photos, "--data", tmp_path)
    assert (code, err) == (0, "")
    assert "30 images" in out
    assert "notes.txt: belongs to no image" in out
    code, _, err = told(capsys, "data", "check", f"{tmp_path}/nowhere/**", "--data", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    (tmp_path / "empty").mkdir()
    assert "no images in it, at any depth" in told(capsys, "data", "check", f"{tmp_path}/empty/**", "--data", tmp_path)[2]


def test_decoding_as_needed_gives_the_same_pixels_digest_and_weights(tmp_path, birds, photos, small):
    for name in (birds, photos):
        once, needed = (data.load(name, "ericsson", tmp_path, 16, decode=how) for how in ("once", "as-needed"))
        assert (once.digest, once.images.shape) == (needed.digest, needed.images.shape)
        assert (once.images == needed.images[np.arange(len(once.images))]).all()
    run = tiny(dataset=birds, method="simsiam", batch_size=8)
    results = {}
    for how in ("once", "as-needed"):
        compute_results(run, [FAST, small], tmp_path / how, tmp_path, compute=ComputeOptions(decode=how))
        folder = RunFolder(tmp_path / how, run)
        results[how] = [folder.encoder_record()["backbone_sha256"], *(folder.read_result(p)["error"] for p in (FAST, small))]
    assert results["once"] == results["as-needed"]


def test_decoding_as_needed_writes_no_pixels_and_sees_a_file_that_changes(tmp_path, birds, capsys):
    code, out, _ = told(capsys, "data", "prepare", birds, "--data", tmp_path, "--size", "16", "--no-decode")
    assert code == 0
    assert "40 images decoded at 16 pixels would take 30.7 kB" in out
    assert "40 images read, to be decoded as they are needed" in out
    needed = data.load(birds, "ericsson", tmp_path, 16, decode="as-needed")
    assert not list((tmp_path / "prepared").glob("*.npy"))
    write(Path(needed.files[0]), key="another")
    with pytest.raises(InputError, match="was changed while it was used"):
        needed.images[np.array([0])]
    broken = Path(needed.files[1])
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{broken.name}: cannot be decoded"):
        data.load(birds, "ericsson", tmp_path, 16, decode="as-needed")


def test_table_2_as_it_should_have_been_stands_beside_what_was_pretrained_likewise(tmp_path):
    from stored import measure

    from simclic.experiment.baselines import METHODS

    short, long = load(ROOT / "benchmarks/transfer.py").exhibits
    trained = [{job.run for job in table.jobs if job.run.epochs} for table in (short, long)]
    assert [len(runs) for runs in trained] == [6, 6]
    assert all(run.dataset == "imagenet" for run in trained[0] | trained[1])
    assert short.datasets == ("imagenet", *data.PAPER)

    runs = tmp_path / "runs"
    jobs = [job for job in long.jobs if job.protocol == Linear(on="cifar10", solver="as-published") and job.run.epochs]
    for n, job in enumerate(jobs):
        measure(runs, job.run, job.protocol, 5.0 + n, data="d2")
    sheet = build_sheet(long, Results(runs), ROOT / "baselines")
    assert sheet.header[:2] == ["ImageNet", "Aircraft"]
    (groups,) = (groups for heading, groups in sheet.blocks if heading == "Linear evaluation")
    assert [row.label for row in groups[0].rows] == list(METHODS.values())  # none that saw other images
    at = sheet.header.index("CIFAR10")
    ranks = [row for group in groups if group.title.startswith("Rank") for row in group.rows if row.cells[at].text[:1].isdigit()]
    assert {row.label for row in ranks} == {job.run.label for job in jobs}
    compared = {row.row: row for row in compare_with_printed(long, Results(runs), ROOT / "baselines", {}) if row.ours != "–"}
    assert compared.keys() == {"MoCo v2 (trained here)"}
    why = "other training (by the recipe here, 200 epochs in batches of 256; theirs by its authors', 800 in 256)"
    assert compared["MoCo v2 (trained here)"].why == why
    with pytest.raises(InputError, match="beside='table2': only 'table2', without paper="):
        Table(paper="table2", beside="table2", caption="", runs=())


def test_a_training_that_was_stopped_goes_on_with_the_same_bits_whichever_way_images_are_decoded(tmp_path, birds):
    run, digests = tiny(dataset=birds, epochs=4, batch_size=8), {}

    class Killed(Exception):
        """In place of a kill."""

    def die(share, note):
        if note.startswith("epoch 3"):
            raise Killed

    for first, then in (("once", "once"), ("as-needed", "once"), ("once", "as-needed")):
        runs = tmp_path / f"{first}-{then}"
        if first != then:
            with pytest.raises(Killed):
                compute_results(run, [], runs, tmp_path, tell=die, compute=ComputeOptions(minutes=0, decode=first))
        compute_results(run, [], runs, tmp_path, compute=ComputeOptions(decode=then))
        record = RunFolder(runs, run).encoder_record()
        digests[runs.name] = record["backbone_sha256"]
        assert bool(record["resumed"]) == (first != then)
    assert len(set(digests.values())) == 1


def find_example(words):
    """The example of the guide to experiments whose first line has these words."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "benchmarks/README.md").read_text(), re.S)
    (block,) = [block for block in blocks if words in block.splitlines()[0]]
    return block


def test_the_guide_s_example_gathers_the_training_images_of_all_eleven_and_trains_on_them(eleven, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(find_example("Gather the training images"), {})
    together = data.load("./eleven/**", "ericsson", tmp_path, 16, decode="as-needed")
    parts = {name: data.load(name, "ericsson", eleven, 16) for name in data.PAPER}
    assert len(together.images) == sum(len(known.splits.fit) for known in parts.values())
    links = {Path(file).resolve() for file in together.files}
    for known in parts.values():
        assert not links & {Path(known.files[i]).resolve() for i in known.splits.test if known.files}
    (tmp_path / "eleven.py").write_text(find_example("one encoder of all eleven"))
    jobs = load("eleven.py").jobs
    assert len({job.run for job in jobs}) == 4
    assert {job.dataset for job in jobs} == set(data.PAPER)
    run = tiny(dataset="./eleven/**", epochs=1, batch_size=8)
    errors = compute_results(run, [Knn(on="pets", k=3), Knn(on="cifar100", k=3)], tmp_path / "runs", eleven)
    assert len(errors) == 2


def test_the_guide_s_example_from_cifar10_to_cifar100(eleven, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "from_cifar10.py").write_text(find_example("CIFAR10 knows of CIFAR100"))
    jobs = load("from_cifar10.py").jobs
    run, protocols = jobs[0].run, dict.fromkeys(job.protocol for job in jobs)
    assert [protocol.on for protocol in protocols] == ["", "cifar100"]
    small = replace(run, backbone="test_resnet", stem="default", image_size=16, epochs=1, batch_size=8, precision="float32")
    errors = compute_results(small, [replace(FAST, on=protocol.on) for protocol in protocols], tmp_path / "runs", eleven)
    assert list(errors) == ["linear evaluation", "linear evaluation, on CIFAR100"]


def test_of_a_finished_encoder_nobody_asks_for_the_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.py").write_text(
        """from simclic import Knn, Table, grid
RUNS = grid(dataset="./photos/**", perturbation=("noise", "none"))
TABLE = Table(name="far", caption="", runs=RUNS, protocols=(Knn(on="digits"),))"""
    )
    (tmp_path / "p.toml").write_text('cluster = "local"\n')
    asked = []
    monkeypatch.setattr("simclic.schedule.submit.submit_jobs", lambda jobs, *_: asked.extend(jobs) or Submitted())
    verbs = (("submit", "far.py", "--on", "p.toml"), ("doctor", "far.py"), ("plan", "far.py", "--why", "far noise"))
    for count, run in enumerate((None, *dict.fromkeys(job.run for job in load("far.py").jobs))):
        if run:
            write_json(RunFolder(Path("runs"), run).create_folder("d1").path / "pretrain.json", {"seconds": 1.0})
        said = ["photos/**: no such folder" in "".join(told(capsys, *words)[1:]) for words in verbs]
        assert said == [count < 2, count < 2, count < 1]  # --why asks about the first encoder alone
    assert len({job.run for job in asked}) == 2


def test_an_image_that_cannot_be_decoded_any_more_stops_a_training_that_goes_on_once_it_is_back(tmp_path, birds):
    run, victim = tiny(dataset=birds, epochs=4, batch_size=8), Path(birds) / "wren/birds3.jpg"
    content = victim.read_bytes()

    def damage(share, note):
        if note.startswith("epoch 3"):
            victim.write_bytes(content[:300])

    compute, runs = ComputeOptions(decode="as-needed"), tmp_path / "cut"
    with pytest.raises(InputError, match=r"wren/birds3.jpg: cannot be decoded"):
        compute_results(run, [], runs, tmp_path, tell=damage, compute=compute)
    assert len(RunFolder(runs, run).log_rows()) == 3
    victim.write_bytes(content)
    for place in (runs, tmp_path / "uncut"):
        compute_results(run, [], place, tmp_path, compute=compute)
    cut, uncut = (RunFolder(place, run).encoder_record() for place in (runs, tmp_path / "uncut"))
    assert cut["backbone_sha256"] == uncut["backbone_sha256"]
    assert cut["resumed"][0] >= 3 * 4  # epochs of four steps


def test_what_is_watched_is_looked_for_before_anything_begins(tmp_path, birds, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "transfer.py").write_text(EXHIBIT.format(birds=birds))
    (tmp_path / "p.toml").write_text(f'cluster = "local"\n[how]\nwatch_on = "{tmp_path}/nowhere"\n')
    for words in (("run", "transfer.py", "--watch-on", f"{tmp_path}/nowhere"), ("submit", "transfer.py", "--on", "p.toml")):
        code, _, err = told(capsys, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert f"watch_on='{tmp_path}/nowhere': {tmp_path}/nowhere: no such folder" in err
    assert "did you mean 'digits'?" in told(capsys, "run", "transfer.py", "--watch-on", "digit")[2]
    assert "all images are of one class" in told(capsys, "run", "transfer.py", "--watch-on", photos.replace("**", "b"))[2]
    assert not Path("runs").exists()
