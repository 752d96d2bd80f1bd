"""A folder of one's own images is a data set by its path."""

import json
import os

import numpy as np
import pytest
from commands import told
from layouts import fill

from simclic import InputError, Run, data
from simclic.data import folder


def test_one_folder_is_split_60_20_20_in_each_class(tmp_path):
    fill(tmp_path / "birds")
    made = data.load(str(tmp_path / "birds"), "ericsson", tmp_path, 16)
    assert made.splits.sizes == {"train": 12, "val": 4, "test": 4, "fit": 16}
    assert [np.bincount(made.labels[p]).tolist() for p in (made.splits.train, made.splits.val, made.splits.test)] == [
        [6, 6], [2, 2], [2, 2]
    ]  # fmt: skip
    assert (made.facts.title, made.facts.classes, made.facts.metric) == ("birds", 2, "top-1")
    assert data.load(str(tmp_path / "birds"), "paper", tmp_path, 16).splits.sizes["val"] == 4


def test_train_val_and_test_stay_what_they_are(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        fill(tmp_path / "birds" / part, count)
    made = data.load(f"{tmp_path}/birds/", "ericsson", tmp_path, 16)
    assert made.splits.sizes == {"train": 10, "val": 4, "test": 6, "fit": 14}


def test_without_val_it_is_a_fifth_of_train(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        fill(tmp_path / "birds" / part, count)
    assert data.load(str(tmp_path / "birds"), "ericsson", tmp_path, 16).splits.sizes["val"] == 4


def test_a_mistake_in_a_folder_is_one_line(tmp_path, capsys):
    def refused(name, message):
        with pytest.raises(InputError, match=message):
            data.load(str(tmp_path / name), "ericsson", tmp_path, 16)

    refused("nowhere", "nowhere: no such folder; a folder of images holds one folder per class")
    fill(tmp_path / "half/train")
    refused("half", "half: has train alone")
    (tmp_path / "half/test/heron").mkdir(parents=True)
    refused("half", "half/test: no images in it")
    fill(tmp_path / "half/test", kinds=("heron", "stork"))
    refused("half", "half/test/stork: a class that train does not have")
    fill(tmp_path / "one", kinds=("wren",))
    refused("one", "one: all images are of one class, 'wren'")
    fill(tmp_path / "few", 2)
    refused("few", "few: too few images, none are left for val of the split ericsson")
    code, _, err = told(capsys, "data", "check", tmp_path / "few", "--data", tmp_path)
    assert code == 1
    assert "none are left for test of the split ericsson" in err
    fill(tmp_path / "loop")
    (tmp_path / "loop/wren/up").symlink_to(tmp_path / "loop")
    refused("loop", "loop/wren/up: a link to a folder that is in the data set already; remove it")
    fill(tmp_path / "latin")
    (tmp_path / "latin/wren/latin0.jpg").rename(os.fsdecode(bytes(tmp_path / "latin/wren/v") + b"\xf6gel.jpg"))
    refused("latin", r"gel.jpg': a name that is not UTF-8; rename it")


def test_names_of_runs_are_safe_file_names():
    for path, start in (("./My Birds/", "my-birds-noise-"), ("/data/vögel", "v-gel-noise-"), ("..", "folder-noise-")):
        assert Run(dataset=path).name.startswith(start)
    assert Run(dataset="./a/birds").name != Run(dataset="./b/birds").name
    assert folder.is_path("./birds")
    assert not folder.is_path("birds")


def test_check_names_what_is_no_image(tmp_path, capsys):
    fill(tmp_path / "birds")
    (tmp_path / "birds/notes.txt").write_text("")
    (tmp_path / "birds/wren/broken.png").write_bytes(b"\x89PNG")
    code, out, err = told(capsys, "data", "check", tmp_path / "birds", "--data", tmp_path)
    assert (code, err) == (1, f"error: {tmp_path}/birds/wren/broken.png: cannot be decoded (no image)\n")
    assert "notes.txt: belongs to no image" in out
    (tmp_path / "birds/wren/broken.png").unlink()
    assert told(capsys, "data", "check", tmp_path / "birds", "--data", tmp_path)[0] == 0


def test_check_names_classes_that_nothing_can_be_chosen_for(tmp_path, capsys):
    fill(tmp_path / "birds")
    for path in sorted((tmp_path / "birds/wren").iterdir())[2:]:
        path.unlink()
    code, out, _ = told(capsys, "data", "check", tmp_path / "birds", "--data", tmp_path)
    assert code == 0
    assert "class 'wren' has no val image: encoders are not fine-tuned on these data" in out
    assert out.count("has no") == 1


EXHIBIT = '''"""My birds."""
from simclic import Linear, Table, grid

TABLE = Table(
    paper="table2", caption="Birds", protocols=(Linear(l2_count=2, tolerance=1e-2),),
    runs=grid(dataset=("./birds", "./more/birds"), backbone="test_resnet", image_size=16, projector_dim=32, predictor_dim=8,
              epochs=1, batch_size=8, precision="float32"),
)
'''


def test_two_folders_of_one_name_are_run_planned_and_reported_apart(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "birds")
    fill(tmp_path / "more/birds", 12, kinds=("gull", "heron", "tern"))
    (tmp_path / "table2.py").write_text(EXHIBIT)
    monkeypatch.chdir(tmp_path)
    assert told(capsys, "run", "table2.py")[0] == 0
    assert json.loads(told(capsys, "plan", "table2.py", "--json")[1])["missing"] == []
    (row,) = [line for line in (tmp_path / "reports/out/table2.csv").read_text().splitlines() if "Run here" in line]
    header = (tmp_path / "reports/out/table2.csv").read_text().splitlines()[0].split(",")
    assert header[3:] == ["birds", "birds"]  # none of the paper's columns, of which these have no number
    for number in row.split(",")[3:]:
        assert 0 <= float(number) <= 100
    for path in (tmp_path / "birds").rglob("*.jpg"):
        path.unlink()
    assert told(capsys, "report", "table2.py")[0] == 0  # a report needs no data


def test_a_broken_image_fails_its_runs_before_any_training(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "birds")
    fill(tmp_path / "more/birds")
    (tmp_path / "birds/wren/birds3.jpg").write_bytes(b"")
    (tmp_path / "birds/wren/birds4.jpg").write_bytes(b"")
    (tmp_path / "table2.py").write_text(EXHIBIT)
    code, out, err = told(capsys, "run", "table2.py")
    assert code == 1
    assert err.startswith("error: birds/wren/birds3.jpg: cannot be decoded (no image) (and 1 more: simclic data check ")
    assert err.count("\n") == 1
    assert "1 encoders to go" in out
    (tmp_path / "table2.py").write_text(EXHIBIT.replace(', "./more/birds"', ","))
    code, out, _ = told(capsys, "run", "table2.py")
    assert (code, "to go" in out) == (1, False)
    assert "birds3.jpg: cannot be decoded" in (tmp_path / "reports/out/table2.md").read_text().replace("\\", "")
