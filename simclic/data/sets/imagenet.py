"""ImageNet-1k (ILSVRC2012), a folder for each synset below train and val. Its val is test here: its test has no labels."""

import io
import os
import re
import tarfile
from pathlib import Path
from typing import IO, cast

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import MAKERS_VAL
from simclic.errors import InputError
from simclic.text import count_noun, format_data_command

IMAGE = re.compile(r"[^.].*\.(jpe?g|png)", re.IGNORECASE)
SYNSET = re.compile(r"n\d{8}")
KIT = "ILSVRC2012_devkit_t12.tar.gz"  # says of which synset each val image is
REGISTER = f"its makers give it out, with {KIT}, at image-net.org to whoever registers there"

FACTS = Facts(
    title="ImageNet", classes=1000, metric="top-1", sizes=(1_024_934, 256_233, 50_000), images=1_331_167, rule=MAKERS_VAL,
    home="imagenet", files=("train", "val"), further="top-5",
    archives=(
        Archive("ILSVRC2012_img_train.tar", into="imagenet", gives="imagenet/train", inner="*.tar", flat=True,
                digest="md5:1d675b47d978889d74fa0da5fadfb00e", where=REGISTER),
        Archive("ILSVRC2012_img_val.tar", into="imagenet", gives="imagenet/val", flat=True,
                digest="md5:29b22e2961454d5413ddabcf34fc5622", where=REGISTER),
    ),
)  # fmt: skip
DEVKIT = Archive(
    KIT, into="", gives="", digest="md5:fa75699e90414af021442c21a62c3abf", where="its makers give it out at image-net.org"
)  # only read, for the classes of val


def read_listing(root: Path) -> Listing:
    """List the images of each synset, in the order of the synsets' ids."""
    import numpy as np

    home = root / FACTS.home
    synsets = {part: sorted(filter(SYNSET.fullmatch, os.listdir(home / part))) for part in ("train", "val")}
    if loose := sum(bool(IMAGE.fullmatch(name)) for name in os.listdir(home / "val")):
        raise InputError(
            f"{home / 'val'}: holds {count_noun(loose, 'image')} in no synset's folder; "
            f"run: {format_data_command('prepare', 'imagenet', root)}"
        )
    for part, other in (("train", "val"), ("val", "train")):
        if alone := sorted(set(synsets[part]) - set(synsets[other])):
            what = f"synset {alone[0]}" + (f" and {len(alone) - 1:,} more" if alone[1:] else "")
            raise InputError(f"{home}: {what}: in {part}, but not in {other}; move it away, or add what is missing")
    rows = [
        (f"{FACTS.home}/{part}/{synset}/{name}", label, part)
        for part, names in synsets.items()
        for label, synset in enumerate(names)
        for name in sorted(os.listdir(home / part / synset))
        if IMAGE.fullmatch(name)
    ]
    paths, labels, parts = zip(*rows, strict=True) if rows else ((), (), ())
    is_test = tuple("test" if part == "val" else part for part in parts)
    return Listing(root, tuple(paths), np.array(labels, dtype=np.int64), is_test, tuple(synsets["train"]))


def arrange(root: Path) -> None:
    """Move val images that lie side by side, as in the makers' archive, into a folder for each synset.

    Raise InputError if the development kit, which says of which synset each is, is missing or not the published one.
    """
    from scipy.io import loadmat

    from simclic.data.published import has_digest

    place, kit = root / FACTS.home / "val", root / DEVKIT.file
    loose = sorted(path for path in place.iterdir() if IMAGE.fullmatch(path.name)) if place.is_dir() else []
    if not loose:
        return
    if not kit.is_file():
        way_out = f"{DEVKIT.where}, put {kit.name} into {root} and run this again"
        raise InputError(f"{place}: of which synset its {len(loose):,} images are is written in {kit.name}; {way_out}")
    if not has_digest(kit, DEVKIT.digest):
        raise InputError(f"{kit}: is not the published archive ({DEVKIT.digest.replace(':', ' ')} is); delete it")
    with tarfile.open(kit) as tar:
        meta, truth = (
            cast(IO[bytes], tar.extractfile(f"ILSVRC2012_devkit_t12/data/{name}")).read()
            for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
        )
    synsets = {int(row[0]): str(row[1]) for row in loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"].tolist()}
    labels = [int(line) for line in truth.split()]
    for path in loose:
        number = path.stem.rpartition("_")[2]
        if not number.isdigit() or not 0 < int(number) <= len(labels):
            raise InputError(f"{path}: is not named as the makers' val images, ILSVRC2012_val_00000001.JPEG; move it away")
        folder = place / synsets[labels[int(number) - 1]]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
