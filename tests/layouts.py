"""The eleven data sets in their makers' own layouts, with a few real photographs each.

The photographs are cut from the two that come with scikit-learn. Every `build` writes what the makers publish and returns
how the facts of so small a version differ from the real ones, counted by hand.
"""

import hashlib
import json
import pickle
import re
import shutil
import tarfile
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from simclic.data import FACTS

PARTS = ("train", "val", "test")


@cache
def photographs():
    from sklearn.datasets import load_sample_images  # takes a second, in every process that a test starts

    return [Image.fromarray(image) for image in load_sample_images().images]


def photograph(key, size=(40, 30)):
    """A piece of a photograph that hangs on `key` alone."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big"))
    image = photographs()[int(rng.integers(2))]
    zoom = min(rng.uniform(2, 5), *(0.9 * whole / side for whole, side in zip(image.size, size, strict=True)))
    width, height = (int(side * zoom) for side in size)
    left, top = (int(rng.integers(whole - part)) for whole, part in zip(image.size, (width, height), strict=True))
    return image.crop((left, top, left + width, top + height)).resize(size)


def write(path, mode="RGB", form="JPEG", size=(40, 30), key=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph(key or path.name, size).convert(mode).save(path, form)


def fill(place, count=10, kinds=("heron", "wren")):
    for kind in kinds:
        for i in range(count):
            write(place / kind / f"{place.name}{i}.jpg", key=(place.name, kind, i))


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def aircraft(root):
    home, kinds, number = root / "fgvc-aircraft-2013b/data", ("707-320", "Cessna 172", "Yak-42"), 1025794
    lines(home / "variants.txt", kinds)
    for part in PARTS:
        rows = []
        for kind in kinds:
            for _ in range(2):
                number += 7
                write(home / f"images/{number:07d}.jpg")
                rows.append(f"{number:07d} {kind}")
        lines(home / f"images_variant_{part}.txt", rows)
    return {"classes": 3, "sizes": (6, 6, 6), "images": 18}


def caltech101(root):
    """Seven images a class for training; some are grey, the background is no class."""
    home = root / "caltech101/101_ObjectCategories"
    for kind, count in (("Faces", 8), ("accordion", 8), ("airplanes", 9)):
        for i in range(1, count + 1):
            write(home / kind / f"image_{i:04d}.jpg", mode="L" if i == 2 else "RGB", size=(30, 41))
    write(home / "BACKGROUND_Google/image_0001.jpg")
    (home / "BACKGROUND_Google/tmp").write_text("left over")
    return {"classes": 3, "per_class": 7, "sizes": (17, 4, 4), "images": 25}


def cars(root):
    home = root / "stanford_cars"
    kinds = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi TT RS Coupe 2012"]
    where = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    for part, count, mat in (("train", 15, "devkit/cars_train_annos.mat"), ("test", 6, "cars_test_annos_withlabels.mat")):
        rows = []
        for i in range(1, count + 1):
            write(home / f"cars_{part}/{i:05d}.jpg", mode="CMYK" if i == 3 else "RGB")
            rows.append((1, 1, 30, 20, np.uint8(i % 3 + 1), f"{i:05d}.jpg"))
        (home / "devkit").mkdir(exist_ok=True)
        savemat(home / mat, {"annotations": np.array(rows, dtype=where)})
    savemat(home / "devkit/cars_meta.mat", {"class_names": np.array(kinds, dtype=object)})
    return {"classes": 3, "sizes": (12, 3, 6), "images": 21}


def _cifar(folder, batches, fine):
    folder.mkdir(parents=True)
    for name, count in batches.items():
        pixels = np.stack([np.asarray(photograph((name, i), (32, 32))).transpose(2, 0, 1).ravel() for i in range(count)])
        values = {"data": pixels, "filenames": [f"{name}_{i}.png" for i in range(count)], "batch_label": name}
        values["fine_labels" if fine else "labels"] = [i % 3 for i in range(count)]
        (folder / name).write_bytes(pickle.dumps(values, protocol=2))


def cifar10(root):
    folder = root / "cifar-10-batches-py"
    _cifar(folder, {f"data_batch_{i}": 3 for i in range(1, 6)} | {"test_batch": 6}, fine=False)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile", "bird"]}, protocol=2))
    return {"classes": 3, "sizes": (12, 3, 6), "images": 21}


def cifar100(root):
    folder = root / "cifar-100-python"
    _cifar(folder, {"train": 15, "test": 6}, fine=True)
    meta = {"fine_label_names": ["apple", "baby", "bear"], "coarse_label_names": ["fruit", "people"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return {"classes": 3, "sizes": (12, 3, 6), "images": 21}


def dtd(root):
    home, number = root / "dtd/dtd", 38
    rows = {part: [] for part in PARTS}
    for kind in ("banded", "blotchy", "braided"):
        for part in PARTS:
            for _ in range(2):
                number += 1
                rows[part].append(f"{kind}/{kind}_{number:04d}.jpg")
                write(home / "images" / rows[part][-1], size=(25, 25))
    for partition in (1, 2):
        for part, listed in rows.items():
            lines(home / f"labels/{part}{partition}.txt", listed if partition == 1 else listed[::-1])
    return {"classes": 3, "sizes": (6, 6, 6), "images": 18}


def flowers(root):
    home = root / "flowers-102"
    for i in range(1, 19):
        write(home / f"jpg/image_{i:05d}.jpg")
    savemat(home / "imagelabels.mat", {"labels": np.array([[i % 3 + 1 for i in range(1, 19)]], dtype=np.uint8)})
    parts = {"trnid": range(1, 7), "valid": range(7, 13), "tstid": range(13, 19)}
    savemat(home / "setid.mat", {name: np.array([list(ids)], dtype=np.uint16) for name, ids in parts.items()})
    return {"classes": 3, "sizes": (6, 6, 6), "images": 18}


def food(root):
    home, listed = root / "food-101", {"train": {}, "test": {}}
    for kind in ("ramen", "cheese_plate", "cheesecake"):  # the keys are in no order, as published
        for part, count in (("train", 7), ("test", 2)):
            listed[part][kind] = [f"{kind}/{part}{i}" for i in range(count)]
            for name in listed[part][kind]:
                write(home / f"images/{name}.jpg", size=(51, 38))
    lines(home / "meta/classes.txt", ("cheesecake", "cheese_plate", "ramen"))  # not in ASCII order, as published
    for part, content in listed.items():
        (home / f"meta/{part}.json").write_text(json.dumps(content))
    return {"classes": 3, "sizes": (17, 4, 6), "images": 27}


def pets(root):
    """Beside the images lie, as published, files that no list names."""
    home, rows = root / "oxford-iiit-pet", {"trainval": [], "test": []}
    for label, (kind, species) in enumerate((("Abyssinian", 1), ("american_bulldog", 2), ("Bengal", 1)), 1):
        for i in range(9):
            write(home / f"images/{kind}_{i}.jpg")
            write(home / f"annotations/trimaps/{kind}_{i}.png", mode="L", form="PNG")
            rows["trainval" if i < 7 else "test"].append(f"{kind}_{i} {label} {species} 1")
    for part, listed in rows.items():
        lines(home / f"annotations/{part}.txt", listed)
    (home / "images/Abyssinian_100.mat").write_bytes(b"not listed")
    return {"classes": 3, "sizes": (17, 4, 6), "images": 27}


def sun397(root):
    """Nested classes; under .jpg a PNG with transparency and a GIF with a palette; images that partition 1 leaves out."""
    home, listed = root / "SUN397", {"Training_01.txt": [], "Testing_01.txt": []}
    kinds = ("/a/abbey", "/a/apartment_building/outdoor", "/b/bar")
    lines(home / "ClassName.txt", kinds)
    for kind in kinds:
        for i in range(10):
            mode, form = {1: ("RGBA", "PNG"), 2: ("P", "GIF")}.get(i, ("RGB", "JPEG")) if kind == "/b/bar" else ("RGB", "JPEG")
            name = f"{kind}/sun_{'azbycxdwev'[i]}{len(kind)}.jpg"
            write(home / name[1:], mode=mode, form=form)
            if i < 9:
                listed["Training_01.txt" if i < 7 else "Testing_01.txt"].append(name)
    for file, names in listed.items():
        lines(home / file, names)
    return {"classes": 3, "sizes": (17, 4, 6), "images": 30}


def voc2007(root):
    """Several classes an image. 000004 shows a cat that is `difficult`, 000005 such a dog beside one that is not."""
    home = root / "VOCdevkit/VOC2007"
    shown = [["cat"], ["dog"], ["cat", "person"], ["cat!", "dog"], ["dog!", "dog", "person"], ["person"], [], ["cat", "dog"]]
    number = 0
    for part in PARTS:
        names = []
        for kinds in shown:
            number += 1
            names.append(f"{number:06d}")
            write(home / f"JPEGImages/{number:06d}.jpg", size=(50, 37))
            objects = "".join(
                f"<object><name>{k.rstrip('!')}</name><pose>Left</pose><difficult>{int('!' in k)}</difficult>"
                "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
                for k in kinds
            )
            head = f"<annotation><folder>VOC2007</folder><filename>{number:06d}.jpg</filename>"
            (home / "Annotations").mkdir(exist_ok=True)
            (home / f"Annotations/{number:06d}.xml").write_text(f"{head}{objects}</annotation>")
        lines(home / f"ImageSets/Main/{part}.txt", names)
    return {"classes": 3, "sizes": (8, 8, 8), "images": 24}


BUILD = {
    build.__name__: build for build in (aircraft, caltech101, cars, cifar10, cifar100, dtd, flowers, food, pets, sun397, voc2007)
}


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def accept(monkeypatch, root, changes):
    """Make the facts those of the small versions, and torchvision's MD5s those of the files as they are under `root`."""
    from torchvision.datasets import CIFAR10, CIFAR100, Flowers102

    for name, change in changes.items():
        archives = tuple(
            replace(a, digest=f"md5:{md5(root / a.gives)}") if (root / a.gives).is_file() and a.gives.endswith(a.file) else a
            for a in FACTS[name].archives
        )
        monkeypatch.setitem(FACTS, name, replace(FACTS[name], archives=archives, **change))
    for kind in (CIFAR10, CIFAR100):
        home = root / kind.base_folder
        for values in ("train_list", "test_list"):
            monkeypatch.setattr(kind, values, [[file, md5(home / file)] for file, _ in getattr(kind, values)])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(home / kind.meta["filename"])})
    home, known = root / "flowers-102", Flowers102._file_dict
    now = {k: (file, md5(home / file)) for k, (file, _) in known.items() if k != "image"}
    monkeypatch.setattr(Flowers102, "_file_dict", known | now)


def pack(archive, root, place):
    """The published archive, made from what `build` wrote under `root`. Returns its path."""
    place.mkdir(parents=True, exist_ok=True)
    path, source = place / archive.file, root / archive.into
    if archive.gives.endswith(archive.file):
        shutil.copy(root / archive.gives, path)
    elif archive.file == "caltech-101.zip":
        with tarfile.open(place / "inner.tar.gz", "w:gz") as tar:
            tar.add(source / "101_ObjectCategories", "101_ObjectCategories")
        with zipfile.ZipFile(path, "w") as whole:
            whole.write(place / "inner.tar.gz", archive.inner)
    elif archive.file == "Partitions.zip":
        with zipfile.ZipFile(path, "w") as whole:
            for file in ("ClassName.txt", "Training_01.txt", "Testing_01.txt"):
                whole.write(source / file, file)
    else:
        top = Path(archive.gives).relative_to(archive.into).parts[0]
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            tar.add(source / top, top, filter=lambda member: None if _elsewhere(archive.file, member.name) else member)
    return path


def _elsewhere(file, name):
    """Does another archive of the set hold this member? VOC's test images come apart, and SUN397's partitions."""
    if file == "SUN397.tar.gz":
        return name.endswith("_01.txt")
    number = re.search(r"(\d{6})\.", name)
    late = name.endswith("Main/test.txt") or bool(number and int(number[1]) > 16)
    early = name.endswith(("Main/train.txt", "Main/val.txt")) or bool(number and int(number[1]) <= 16)
    return {"VOCtrainval_06-Nov-2007.tar": late, "VOCtest_06-Nov-2007.tar": early}.get(file, False)
