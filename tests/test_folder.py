"""A folder of one's own images is a data set by its path."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import told
from layouts import fill, write
from PIL import Image

from simclic import InputError, Run, data
from simclic.data import folder
from simclic.data.image_file import read_image_file
from simclic.schedule.submit import Submitted


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
    refused("half", "half: has train only")
    (tmp_path / "half/test/heron").mkdir(parents=True)
    refused("half", "half/test: no images in it")
    fill(tmp_path / "half/test", kinds=("heron", "stork"))
    refused("half", "half/test/stork: this class has no folder in train; add one, or move this folder away")
    fill(tmp_path / "one", kinds=("wren",))
    refused("one", "one: all images are of one class, 'wren'")
    fill(tmp_path / "few", 2)
    refused("few", "few: too few images, none are left for val of the split ericsson")
    code, _, err = told(capsys, "data", "check", tmp_path / "few", "--data", tmp_path)
    assert code == 1
    assert "none are left for test of the split ericsson" in err
    fill(tmp_path / "loop")
    (tmp_path / "loop/wren/up").symlink_to(tmp_path / "loop")
    refused("loop", "loop/wren/up: a link to a folder that is in the data set already, as .*/loop; remove it")
    fill(tmp_path / "unmounted")
    (tmp_path / "unmounted/owl").symlink_to(tmp_path / "disk/owl")
    refused("unmounted", "unmounted/owl: a link to what is not there, perhaps a folder of images; mend or remove it")
    refused("unmounted/**", "unmounted/owl: a link to what is not there")
    fill(tmp_path / "latin")
    (tmp_path / "latin/wren/latin0.jpg").rename(os.fsdecode(bytes(tmp_path / "latin/wren/v") + b"\xf6gel.jpg"))
    refused("latin", r"gel.jpg': a name that is not UTF-8; rename it")


def touch(base, *paths):
    for path in paths:
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).touch()
    return str(base)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"), ("Train", "Valid", "Test"), ("TRAINING", "Validation", "Testing"),
        ("train2017", "val2017", "test2017"), ("train_images", "dev-images", "test_images"), ("trainset", "devset", "test set"),
        ("images_train", "images_val", "images_test"), ("1_train", "2_development", "3_tst"), ("train_data", "dev", "test_split"),
    ],
)  # fmt: skip
def test_parts_go_by_their_usual_names(tmp_path, names):
    listing = folder.list_folder_images(
        touch(tmp_path, *(f"{name}/{kind}/{name}.jpg" for name in names for kind in ("wren", "gull")))
    )
    assert listing.parts == ("train", "train", "val", "val", "test", "test")
    assert [path.split("/")[0] for path in listing.paths[::2]] == list(names)
    assert listing.classes == ("gull", "wren")
    assert listing.labels.tolist() == [0, 1] * 3


def test_classes_whose_names_hold_the_word_of_a_part_are_classes(tmp_path):
    listing = folder.list_folder_images(
        touch(tmp_path, "train_station/1.jpg", "test tube/1.jpg", "valid passport/1.jpg", "trainer/1.jpg", "bus/1.jpg")
    )
    assert listing.classes == ("bus", "test tube", "train_station", "trainer", "valid passport")
    assert set(listing.parts) == {""}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("trainval/wren/1.jpg", "holdout/wren/2.jpg"), "'holdout' seems to be a part, but which"),
        (("train_a/1.jpg", "test_a/2.jpg"), "'test_a' seems to be a part"),
        (("fold1/wren/1.jpg", "fold2/wren/2.jpg", "gull/1.jpg"), "'fold1' seems to be a part"),
        (("Train/wren/1.jpg", "train/wren/1.jpg", "test/wren/2.jpg"), "'Train' and 'train' both are train"),
        (("trainval/wren/1.jpg", "test/wren/2.jpg"), "'test' is test, but 'trainval' is not, and holds 1 image; move"),
        (("train/wren/1.jpg", "test/wren/2.jpg", "extra/wren/3.jpg", "extra/4.jpg"), "'extra' is not, and holds 2 images"),
        (("train/wren/1.jpg", "test/wren/2.jpg", "overview.png"), "1 image beside it, the first 'overview.png'"),
        (("train/1.jpg", "bus/2.jpg", "car/3.jpg"), "'train' is train, but 'bus' is not, .* or rename 'train' if it is a class"),
        (("Train/1.jpg", "Test/2.jpg"), "Train: 1 image in it, but none in a class folder"),
        (("val/wren/1.jpg", "test/wren/2.jpg"), "has test and val only"),
        (("wren/train/1.jpg", "gull/test/2.jpg"), "gull/test and wren/train seem to be parts, which lie above"),
        (("birds/train/wren/1.jpg", "birds/test/wren/2.jpg"), "birds/train seem to be parts, .*; name .*/birds instead$"),
    ],
)  # fmt: skip
def test_parts_that_are_not_understood_are_refused(tmp_path, paths, message):
    with pytest.raises(InputError, match=message):
        folder.list_folder_images(touch(tmp_path, *paths))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("gull/1.heic", "gull/2.heic", "gull/notes.txt"), r"gull: a class folder without .*, of \.heic 2, \.txt 1"),
        (("gull/.hidden",), "gull: a class folder without images"),
        (("gull/masks/1.png", "gull/images/1.png"), "gull/masks/1.png: the first of . image"),
        (("gull/g (1).png", "gull/g (1)_mask.png", "gull/g (1)_mask_1.png"), r"gull/g \(1\)_mask.png: the first of . images"),
    ],
)  # fmt: skip
def test_a_class_is_not_lost_and_masks_are_no_images(tmp_path, paths, message):
    with pytest.raises(InputError, match=message):
        folder.list_folder_images(touch(tmp_path, "wren/1.jpg", "heron/2.jpg", *paths))
    parts = [f"{part}/{path}" for part in ("train", "test") for path in ("wren/1.jpg", "heron/2.jpg", *paths)]
    with pytest.raises(InputError, match=message):
        folder.list_folder_images(touch(tmp_path / "parts", *parts))


def test_an_empty_class_folder_is_refused_and_by_products_of_disks_are_not_read(tmp_path):
    eaten = touch(tmp_path, "wren/1.jpg", "gull/1.jpg", "wren/@eaDir/1.jpg/THUMB.jpg", "__MACOSX/wren/1.jpg", ".cache/x/1.jpg")
    listing = folder.list_folder_images(eaten)
    assert listing.paths == ("gull/1.jpg", "wren/1.jpg")
    assert listing.others == (".cache", "__MACOSX", "wren/@eaDir")
    (tmp_path / "heron").mkdir()
    with pytest.raises(InputError, match="heron: a class folder without images that can be read, empty; add"):
        folder.list_folder_images(eaten)


def test_images_one_folder_too_deep_are_one_line(tmp_path):
    touch(tmp_path / "a", "birds/wren/1.jpg", "birds/gull/1.jpg")
    with pytest.raises(InputError, match=r"'birds', in 2 folders below it: one folder too deep; name .*/a/birds instead$"):
        folder.list_folder_images(str(tmp_path / "a"))
    parts = [f"{part}/images/{kind}/1.jpg" for part in ("train", "test") for kind in ("wren", "gull")]
    with pytest.raises(InputError, match=r"'images', in 2 folders below it: one folder too deep; move what is in 'images' up$"):
        folder.list_folder_images(touch(tmp_path / "parts", *parts))


def test_two_spellings_of_a_class_are_one_class(tmp_path):
    composed, decomposed = "M\u00f6we", "Mo\u0308we"
    paths = [
        f"train/{composed}/1.jpg",
        f"train/{decomposed}/2.jpg",
        "train/wren/1.jpg",
        f"test/{decomposed}/3.jpg",
        "test/wren/2.jpg",
    ]
    listing = folder.list_folder_images(touch(tmp_path, *paths))
    assert len(listing.classes) == 2
    by_path = dict(zip(listing.paths, listing.labels.tolist(), strict=True))
    assert [by_path[path] for path in paths] == [0, 0, 1, 0, 1]


def test_a_link_to_another_part_is_named(tmp_path):
    touch(tmp_path, "train/wren/1.jpg", "train/gull/1.jpg", "test/wren/2.jpg", "test/gull/2.jpg")
    for link, target in (("val", "test"), ("validation", "train")):
        (tmp_path / link).symlink_to(tmp_path / target)
        with pytest.raises(
            InputError, match=rf"/{link}: a link to a folder that is in the data set already, as .*/{target}; remove it"
        ):
            folder.list_folder_images(str(tmp_path))
        (tmp_path / link).unlink()


def test_one_image_in_two_parts_is_an_error_and_twice_in_one_a_remark(tmp_path, capsys):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        fill(tmp_path / part, count)
    shutil.copy(tmp_path / "train/wren/train0.jpg", tmp_path / "train/heron/again.jpg")
    once = data.load(str(tmp_path), "ericsson", tmp_path, 16)
    copies = "train/heron/again.jpg (train, heron) = train/wren/train0.jpg (train, wren)"
    assert once.remarks == (f"{tmp_path}: 1 image more than once, byte for byte: {copies}",)
    for i in range(2):
        (tmp_path / f"test/heron/x{i}.jpg").symlink_to(tmp_path / f"val/wren/val{i}.jpg")
    message = (
        f"{tmp_path}: 2 images in more than one of train, val and test, byte for byte: "
        "val/wren/val0.jpg (val, wren) = test/heron/x0.jpg (test, heron); "
        "val/wren/val1.jpg (val, wren) = test/heron/x1.jpg (test, heron); remove the copies"
    )
    with pytest.raises(InputError) as refused:
        data.load(str(tmp_path), "ericsson", tmp_path, 16)
    assert str(refused.value) == message
    assert data.load(str(tmp_path), "paper", tmp_path, 16).digest  # which does not use test
    code, _, err = told(capsys, "data", "check", tmp_path, "--data", tmp_path)
    assert (code, err) == (1, f"error: {message} (split ericsson)\n")


def test_train_and_val_without_test_report_the_error_on_val(tmp_path, capsys):
    for part, count in (("train", 5), ("val", 2)):
        fill(tmp_path / part, count)
    with pytest.raises(
        InputError, match="there is no test, so that the split ericsson has no error to report; add one, or take the split"
    ):
        data.load(str(tmp_path), "ericsson", tmp_path, 16)
    loaded = data.load(str(tmp_path), "paper", tmp_path, 16)
    assert loaded.splits.sizes == {"train": 10, "val": 4, "test": 4, "fit": 10}
    remark = f"{tmp_path}: no test images; the error reported is that on val, on which settings are chosen"
    assert loaded.remarks == (remark,)
    code, out, err = told(capsys, "data", "check", tmp_path, "--data", tmp_path)
    assert (code, err) == (0, "")
    assert remark in out
    assert "under the split ericsson" not in out
    assert "test image:" not in out  # a line for each class would say it again


def test_every_suffix_that_pillow_decodes_is_read(tmp_path):
    fill(tmp_path / "birds")
    for form, suffix in (("GIF", "gif"), ("JPEG", "jfif"), ("JPEG2000", "JP2"), ("TGA", "tga"), ("PPM", "pnm")):
        write(tmp_path / f"birds/gull/1.{suffix}", form=form)
    loaded = data.load(str(tmp_path / "birds"), "paper", tmp_path, 16)
    assert [Path(path).suffix for path in loaded.files if "/gull/" in path] == [".JP2", ".gif", ".jfif", ".pnm", ".tga"]
    assert loaded.names == ("gull", "heron", "wren")


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
    assert "class 'wren' has no val image: the error there does not see it" in out
    assert "class 'wren' has no test image: the error there does not see it" in out
    assert out.count("has no") == 2


EXHIBIT = '''"""My birds."""
from simclic import Linear, Table, grid

TABLE = Table(
    paper="table2", caption="Birds", protocols=(Linear(l2_low=0.1, l2_count=2, tolerance=1e-2),),
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


def test_a_layout_that_is_not_understood_stops_no_other_and_submit_says_what_is_not_used(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "birds")
    (tmp_path / "birds/wren/1.heic").touch()
    touch(tmp_path / "more/birds", "Train/wren/1.jpg", "holdout/wren/2.jpg")
    (tmp_path / "table2.py").write_text(EXHIBIT)
    (tmp_path / "local.toml").write_text('cluster = "local"\n')
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("simclic.schedule.submit.submit_jobs", lambda jobs, *_: asked.extend(jobs) or Submitted())
    code, out, err = told(capsys, "submit", "table2.py", "--on", "local.toml")
    assert (code, err.count("\n")) == (1, 1)
    assert "more/birds: 'Train' is train, but 'holdout' is not" in err
    assert "note: birds: a file is not used (.heic 1), the first is wren/1.heic\n" in out
    assert {job.run.dataset for job in asked} == {"./birds"}
    assert "'holdout' is not" in told(capsys, "plan", "table2.py")[1]


def test_a_broken_image_fails_its_runs_before_any_training(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "birds")
    fill(tmp_path / "more/birds")
    (tmp_path / "birds/wren/birds3.jpg").write_bytes(b"")
    (tmp_path / "birds/wren/birds4.jpg").write_bytes(b"")
    (tmp_path / "table2.py").write_text(EXHIBIT)
    code, out, err = told(capsys, "run", "table2.py")
    assert code == 1
    assert err.startswith(
        "error: birds/wren/birds3.jpg: cannot be decoded (no image) (and 1 more: simclic data check ./birds --data data) ("
    )
    assert err.count("\n") == 1
    assert "1 encoder to go" in out
    (tmp_path / "table2.py").write_text(EXHIBIT.replace(', "./more/birds"', ","))
    code, out, _ = told(capsys, "run", "table2.py")
    assert (code, "to go" in out) == (1, False)
    assert "birds3.jpg: cannot be decoded" in (tmp_path / "reports/out/table2.md").read_text().replace("\\", "")


def test_an_image_too_thin_to_be_enlarged_is_one_line_before_it_takes_the_memory(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "thin.png")
    seen = read_image_file(tmp_path / "thin.png", size=224)
    assert seen.problem.endswith(
        "thin.png: cannot be decoded (1 x 60000 pixels would become 224 x 13,440,000; crop it, or move it away)"
    )
    assert seen.pixels is None
    assert read_image_file(tmp_path / "thin.png", size=8).pixels.shape == (3, 8, 8)
