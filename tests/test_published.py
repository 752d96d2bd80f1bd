"""The eleven data sets in their makers' layouts, read by the code that reads the real ones."""

import os
import re
from dataclasses import replace

import numpy as np
import pytest
from layouts import photograph
from PIL import Image

from simclic import InputError, data
from simclic.data import FACTS, published


def kinds(found, part):
    """File -> class of the images of one part."""
    return {
        p.rsplit("/", 1)[-1]: found.classes[y]
        for p, y, q in zip(found.paths, found.labels, found.parts, strict=True)
        if q == part
    }


@pytest.mark.parametrize("name", data.PAPER)
def test_labels_splits_and_counts(eleven, name):
    known, found = data.list_images(name, eleven)
    made = data.load(name, "ericsson", eleven, 16)
    assert tuple(made.splits.sizes[part] for part in ("train", "val", "test")) == known.sizes
    together = np.concatenate([made.splits.train, made.splits.val, made.splits.test])
    assert len(set(together.tolist())) == len(together) == len(made.images)
    assert not set(made.splits.fit) & set(made.splits.test)
    assert made.images.shape[1:] == ((3, 32, 32) if name.startswith("cifar") else (3, 16, 16))
    assert made.labels.min() == 0
    assert made.labels.max() == (1 if name == "voc2007" else 2)
    assert len(found.paths) == known.images


def test_aircraft_reads_variants_with_blanks_in_their_names(eleven):
    found = published.list_published("aircraft", eleven)
    numbers = [f"{1025794 + 7 * i}.jpg" for i in range(7, 13)]
    assert kinds(found, "val") == dict(zip(numbers, ["707-320"] * 2 + ["Cessna 172"] * 2 + ["Yak-42"] * 2, strict=True))


def test_caltech101_has_no_background_and_does_not_rely_on_numbers(eleven, monkeypatch):
    home = eleven / "caltech101/101_ObjectCategories"
    (home / "Faces/image_0003.jpg").rename(home / "Faces/image_0099.jpg")  # torchvision would look for number 3
    (home / "Faces/.DS_Store").write_text("")
    for i in range(2, 9):
        (home / f"accordion/image_{i:04d}.jpg").unlink()
    monkeypatch.setitem(FACTS, "caltech101", replace(FACTS["caltech101"], sizes=(12, 3, 3), images=18))
    found = published.list_published("caltech101", eleven)
    assert found.classes == ("Faces", "accordion", "airplanes")
    assert "caltech101/101_ObjectCategories/Faces/image_0099.jpg" in found.paths
    assert found.others == ("caltech101/101_ObjectCategories/Faces/.DS_Store",)
    made = data.load("caltech101", "ericsson", eleven, 16)
    assert [int((made.labels[made.splits.fit] == k).sum()) for k in range(3)] == [7, 1, 7]  # seven a class, one has but one
    assert [int((made.labels[made.splits.test] == k).sum()) for k in range(3)] == [1, 0, 2]


def test_cars_classes_start_at_zero(eleven):
    found = published.list_published("cars", eleven)
    assert kinds(found, "test")["00003.jpg"] == "AM General Hummer SUV 2000"
    assert found.paths[:2] == ("stanford_cars/cars_train/00001.jpg", "stanford_cars/cars_train/00002.jpg")


def test_flowers_ids_are_not_swapped_and_classes_start_at_zero(eleven):
    found = published.list_published("flowers", eleven)
    assert kinds(found, "train")["image_00001.jpg"] == "hard-leaved pocket orchid"
    assert set(kinds(found, "test")) == {f"image_{i:05d}.jpg" for i in range(13, 19)}


def test_food_is_in_its_makers_order_of_classes(eleven):
    """The baselines drew their val from images in this order."""
    found = published.list_published("food", eleven)
    assert found.classes == ("cheesecake", "cheese_plate", "ramen")
    assert found.labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7 + [0] * 2 + [1] * 2 + [2] * 2
    assert found.paths[7:9] == ("food-101/images/cheese_plate/train0.jpg", "food-101/images/cheese_plate/train1.jpg")


def test_pets_ids_name_breeds(eleven):
    assert kinds(published.list_published("pets", eleven), "test")["american_bulldog_8.jpg"] == "American Bulldog"


def test_sun397_takes_partition_1_and_nested_classes(eleven):
    found = published.list_published("sun397", eleven)
    lines = (eleven / "SUN397/Training_01.txt").read_text().splitlines()
    assert [f"SUN397{line}" for line in lines] == list(found.paths[:21])
    assert found.classes[1] == "apartment_building/outdoor"
    assert found.parts.count("") == 3
    assert len(data.load("sun397", "ericsson", eleven, 16).images) == 27
    assert len(data.load("sun397", "paper", eleven, 16).images) == 30  # all that were published, as Table 1 counts


def test_voc_counts_difficult_objects_as_not_shown_or_leaves_them_out(eleven):
    found = published.list_published("voc2007", eleven)
    assert found.classes == ("cat", "dog", "person")
    first = [[1, 0, 0], [0, 1, 0], [1, 0, 1], [-1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert found.labels[:8].tolist() == first
    negative = data.load("voc2007", "ericsson", eleven, 16)
    assert negative.labels[:8].tolist() == np.maximum(first, 0).tolist()
    assert data.load("voc2007", "ericsson", eleven, 16, difficult="ignore").labels[:8].tolist() == first


def test_cifar_keeps_its_pixels(eleven):
    made = data.load("cifar10", "ericsson", eleven, 224)
    assert (made.images[0] == np.asarray(photograph(("data_batch_1", 0), (32, 32))).transpose(2, 0, 1)).all()
    assert made.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("name", data.PAPER)
def test_the_order_of_a_directory_does_not_matter(eleven, name, monkeypatch):
    before = data.load(name, "ericsson", eleven, 16).digest
    walk, scan, names = os.walk, os.scandir, os.listdir

    class Reversed:
        def __init__(self, path="."):
            self.entries = iter(sorted(scan(path), key=lambda e: e.name, reverse=True))

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self.entries

    monkeypatch.setattr(os, "scandir", Reversed)
    monkeypatch.setattr(os, "listdir", lambda path=".": sorted(names(path), reverse=True))
    monkeypatch.setattr(os, "walk", lambda *a, **k: reversed(list(walk(*a, **k))))
    assert [p.name for p in (eleven / "SUN397/b/bar").iterdir()] == sorted(os.listdir(eleven / "SUN397/b/bar"), reverse=True)
    assert data.load(name, "ericsson", eleven, 16).digest == before


def refused(name, root, message):
    with pytest.raises(InputError, match=re.escape(message)) as told:
        data.load(name, "ericsson", root, 16)
    assert not list(root.glob("prepared/*.npy"))
    return str(told.value)


def test_a_root_too_deep_is_told_where_the_data_are(eleven):
    told = data.explain_missing("aircraft", eleven / "fgvc-aircraft-2013b")
    assert f"it is in {eleven}; say --data {eleven}" in told


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("cars", "stanford_cars/devkit/cars_train_annos.mat", b"<html>not found</html>" * 9),
        ("cars", "stanford_cars/devkit/cars_meta.mat", b""),
        ("flowers", "flowers-102/setid.mat", b"<html>not found</html>" * 9),
        ("food", "food-101/meta/train.json", b'{"ramen": ['),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", b"\xff\xfe\x00"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(eleven, name, file, content):
    (eleven / file).write_bytes(content)
    told = refused(name, eleven, f"{eleven / file}: cannot be read (")
    assert told.endswith("it is not as published")
    assert "\n" not in told


def test_altered_batches_are_never_unpickled(eleven):
    file = eleven / "cifar-10-batches-py/data_batch_3"
    file.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    told = refused("cifar10", eleven, f"{file}: is not the published file (md5 ")
    assert not (eleven / "executed").exists()
    assert "\n" not in told


def test_annotations_that_are_no_xml_are_named(eleven):
    file = eleven / "VOCdevkit/VOC2007/Annotations/000003.xml"
    file.write_text("<annotation><object>")
    refused("voc2007", eleven, f"{file}: is no annotation in XML")


def test_lists_that_disagree_are_told(eleven):
    home = eleven / "dtd/dtd/labels"
    kept = [line for line in (home / "val1.txt").read_text().splitlines() if "braided" not in line]
    (home / "val1.txt").write_text("\n".join(kept))
    refused("dtd", eleven, "name different classes (braided)")
    lines = (eleven / "SUN397/Testing_01.txt").read_text()
    (eleven / "SUN397/Testing_01.txt").write_text(lines + "/a/abbye/sun_x.jpg\n")
    refused("sun397", eleven, "/a/abbye/sun_x.jpg is of no class in ClassName.txt")


def test_another_number_of_images_than_published_is_told(eleven):
    lines = (eleven / "oxford-iiit-pet/annotations/test.txt").read_text().splitlines()
    (eleven / "oxford-iiit-pet/annotations/test.txt").write_text("\n".join(lines[1:]))
    told = refused("pets", eleven, "26 images, published are 27")
    assert "5 test images, published are 6" in told


def test_a_half_extracted_archive_names_every_file_that_is_missing(eleven):
    gone = sorted((eleven / "dtd/dtd/images/blotchy").iterdir())
    for path in gone:
        path.unlink()
    told = refused("dtd", eleven, "is missing")
    assert sorted(told.splitlines()) == [f"{path}: is missing" for path in gone]


def test_a_truncated_image_is_named_and_so_is_one_of_16_bits(eleven):
    home = eleven / "food-101/images/ramen"
    whole = (home / "train0.jpg").read_bytes()
    (home / "train0.jpg").write_bytes(whole[: len(whole) // 2])
    (home / "test1.jpg").write_bytes(b"<html>")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(home / "train3.jpg", "PNG")
    told = refused("food", eleven, "ramen/train0.jpg: cannot be decoded (")
    assert "truncated" in told.lower()
    assert len(told.splitlines()) == 3
    assert "test1.jpg: cannot be decoded (no image)" in told
    assert re.search(r"train3.jpg: has mode I(;16)?, not 8 bits a channel", told)
