"""simclic calibrate: what is measured, and that a plan and a report are priced by it."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from commands import simclic
from conftest import tiny

from simclic import Finetune, Linear, Run
from simclic.errors import InputError
from simclic.experiment import Job, count_cores
from simclic.files import read_json
from simclic.schedule import calibrate, cost
from simclic.schedule.measure import Workload, list_workloads

CALIBRATED = {"image", "train.step", "train.image", "epoch", "tune.step", "tune.image", "member", "start"}


def test_each_kind_of_work_is_measured_once():
    trained, small = tiny(), tiny(batch_size=32)
    pixels = Run(dataset="digits", backbone="pixels", image_size=8, epochs=0, perturbation="none")
    published = Linear(solver="as-published")
    jobs = [
        Job(trained, None),
        Job(small, None),
        Job(trained, Linear()),
        Job(trained, published),
        Job(trained, Finetune()),
    ]
    found = list_workloads([*jobs, Job(pixels, None), Job(pixels, Linear())])
    kinds = {(one.run.backbone, one.precision): one for one in found}
    assert set(kinds) == {("test_resnet", "float32"), ("test_resnet", "bf16"), ("pixels", "float32")}
    one = kinds["test_resnet", "float32"]
    assert (one.batches, one.solvers, one.grid) == ((32, 128), ("converged", "as-published"), None)
    assert kinds["test_resnet", "bf16"].grid == Finetune()
    assert kinds["pixels", "float32"].batches == ()


def test_a_plan_is_priced_by_what_was_measured_here(exhibit, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exhibit.write_text(exhibit.read_text().replace('("noise", "dropout", "history")', '"noise"'))
    assert re.search(r"test_resnet at 16 pixels, float32: .*train\.image [\d.e-]+ ms", simclic("calibrate", "table2.py"))
    values = read_json(tmp_path / "runs/.calibrated/here.json")
    (rate,) = values["rates"]
    assert set(rate["seconds"]) >= CALIBRATED | {"converged.value", "converged.cell"}
    assert all(seconds >= 0 for seconds in rate["seconds"].values())
    assert rate["seconds"]["train.image"] + rate["seconds"]["train.step"] > 0
    assert (rate["width"], values["device"]) == (96, "cpu")
    assert set(rate.get("speedups", {})) == {str(count) for count in (2, 4, 8) if count <= count_cores()}
    assert all(times > 0 for times in rate.get("speedups", {}).values())
    told = json.loads(simclic("plan", "table2.py", "--json"))
    assert set(told["sources"]) == {"calibrated"}
    assert not [p for p in (tmp_path / "runs").iterdir() if p.name != ".calibrated"]  # nothing else is left behind
    shutil.copytree(finished / "runs", "runs", dirs_exist_ok=True)
    simclic("report", "table2.py")
    page = (tmp_path / "reports/out/encoders.html").read_text()
    lines = re.findall(
        r'<th scope="row">(Pre-training|Linear evaluation|Fine-tuned)</th><td class="words">cpu</td><td>1</td>', page
    )
    assert lines == ["Pre-training", "Linear evaluation", "Fine-tuned"]
    assert page.count('<td class="words">calibrated</td>') == 3
    told = json.loads(simclic("plan", "table2.py", "--json"))
    assert (told["hours"], len([job for job in told["jobs"] if job["took"]])) == (0, 3)


def test_measuring_again_keeps_what_was_measured_of_other_kinds(tmp_path):
    def rate(size, step):
        kind = {"backbone": "b", "image_size": size, "precision": "bf16", "width": 1}
        return kind | {"seconds": {"train.step": step}}

    for rates in ([rate(16, 1.0), rate(32, 2.0)], [rate(32, 3.0)]):
        cost.write_rates(tmp_path, cost.Target(), rates, {"device": "cpu"})
    found = cost.read_rates(tmp_path, cost.Target())
    assert {m["image_size"]: m["seconds"]["train.step"] for m in found.measured} == {16: 1.0, 32: 3.0}


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_measured_is_one_line():
    with pytest.raises(InputError, match="calibration: backbone='resnet_nowhere'") as e:
        calibrate.measure_here(
            [Workload(replace(tiny(), backbone="resnet_nowhere"), "float32", (128,))], lambda share, note: None
        )
    assert "\n" not in str(e.value)
