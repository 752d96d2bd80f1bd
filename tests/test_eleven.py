"""The whole way on all eleven data sets: check, prepare, pre-training, linear probe, fine-tuning, Table 2."""

import csv
import json

import numpy as np
import pytest
from commands import told
from conftest import compute_results
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from simclic import data, load
from simclic.data import FACTS
from simclic.schedule.plan import plan
from simclic.schedule.work import group_by_run
from simclic.store import results as store
from simclic.store.run_folder import RunFolder

EXHIBIT = '''"""Table 2 in small."""
from simclic import Finetune, Linear, Table, grid
from simclic.data import PAPER

TABLE = Table(
    paper="table2", caption="All eleven",
    runs=grid(dataset=PAPER, backbone="test_resnet", image_size=16, projector_dim=16, predictor_dim=8, epochs=2, batch_size=4,
              precision="float32"),
    protocols=(Linear(l2_low=0.1, l2_count=3, tolerance=1e-3),
               Finetune(steps=2, batch_size=4, lr_count=1, decay_count=1, precision="float32")),
)
'''


def by_hand(name, truth, scores):
    """The error as scikit-learn or a few lines have it, by the metrics of the cited baselines."""
    if name == "voc2007":
        found = []
        for k in range(3):
            order = np.argsort(-scores[:, k], kind="stable")
            hits = truth[order, k].cumsum()
            precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
            points = [1.0] + [precision[recall >= t].max() for t in np.linspace(0.1, 1, 10)]  # at recall 0 always 1
            found.append(np.mean(points))
        return 100 - 100 * np.mean(found)
    score = balanced_accuracy_score if name in ("aircraft", "caltech101", "flowers", "pets") else accuracy_score
    return 100 - 100 * score(truth, scores.argmax(axis=1))


def test_all_eleven_from_their_files_to_table_2(eleven, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table2.py").write_text(EXHIBIT)
    code, out, _ = told(capsys, "data", "check", *data.PAPER, "--data", eleven, "--json")
    assert code == 0
    digests = {name: found["digests"]["ericsson"] for name, found in json.loads(out).items()}
    assert told(capsys, "data", "prepare", *data.PAPER, "--data", eleven, "--size", "16")[0] == 0
    monkeypatch.setattr("simclic.data.image_file.resize_shorter_side", lambda *a: pytest.fail("an image was decoded again"))

    runs, suite = tmp_path / "runs", load("table2.py")
    made = plan([suite], runs, eleven)
    assert not made.absent
    assert len({job.run for job in made.open_results}) == 11
    for jobs in group_by_run(made.open_results):
        compute_results(jobs[0].run, [job.protocol for job in jobs], runs, eleven)
    assert plan([suite], runs, eleven).open_results == []

    results = store.results(runs)
    assert len(results) == 22
    for row in results.itertuples():
        assert row.error == pytest.approx(by_hand(row.dataset, *RunFolder(runs, row.name).read_predictions(row.protocol)))
        assert tuple(row.sizes[part] for part in ("train", "val", "test")) == FACTS[row.dataset].sizes
        assert row.data == digests[row.dataset]

    assert told(capsys, "report", "table2.py", "--data", eleven)[0] == 0
    rows = list(csv.DictReader((tmp_path / "reports/out/table2.csv").read_text().splitlines()))
    ours = [row for row in rows if row["source"] == "Run here"]
    assert [row["protocol"] for row in ours] == ["Linear evaluation", "Fine-tuned"]
    for row, stage in zip(ours, ("linear", "finetune"), strict=True):
        errors = results[results["stage"] == stage].set_index("dataset")["error"]
        assert {FACTS[name].title: row[FACTS[name].title] for name in data.PAPER} == {
            FACTS[name].title: f"{errors[name]:.2f}" for name in data.PAPER
        }
