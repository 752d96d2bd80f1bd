"""PASCAL VOC 2007."""

from pathlib import Path
from xml.etree import ElementTree

from simclic.data.dataset import Archive, Facts
from simclic.data.listing import Listing
from simclic.data.splits import PUBLISHED
from simclic.errors import InputError

PASCAL = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007"

FACTS = Facts(
    title="VOC2007", classes=20, metric="11-point mAP", sizes=(2501, 2510, 4952), images=9963, rule=PUBLISHED,
    home="VOCdevkit/VOC2007",
    files=("JPEGImages", "Annotations", *(f"ImageSets/Main/{part}.txt" for part in ("train", "val", "test"))),
    archives=(
        Archive("VOCtrainval_06-Nov-2007.tar", into="", gives="VOCdevkit/VOC2007/ImageSets/Main/train.txt",
                digest="md5:c52e279531787c972589f7e41ab4ae64", url=f"{PASCAL}/VOCtrainval_06-Nov-2007.tar"),
        Archive("VOCtest_06-Nov-2007.tar", into="", gives="VOCdevkit/VOC2007/ImageSets/Main/test.txt",
                digest="md5:b6e924de25625d8de591ea690078ad9f", url=f"{PASCAL}/VOCtest_06-Nov-2007.tar"),
    ),
)  # fmt: skip


def read_listing(root: Path) -> Listing:
    """List 20 classes, several per image: 1 if an object of the class is not `difficult`, -1 if all of them are, else 0."""
    import numpy as np
    from torchvision.datasets import VOCDetection

    paths, parts, objects = list[str](), list[str](), list[dict[str, int]]()
    for part in ("train", "val", "test"):
        data = VOCDetection(root, year="2007", image_set=part)
        paths += [Path(path).relative_to(root).as_posix() for path in data.images]
        parts += [part] * len(data)
        objects += map(read_objects, data.annotations)
    classes = sorted({kind for shown in objects for kind in shown})
    labels = np.array([[shown.get(kind, 0) for kind in classes] for shown in objects], dtype=np.int64)
    return Listing(root, tuple(paths), labels, tuple(parts), tuple(classes))


def read_objects(annotation: str) -> dict[str, int]:
    """Return class -> 1 or -1 of the objects that an annotation file lists. Raises InputError if it is not XML."""
    shown: dict[str, int] = {}
    try:
        for item in ElementTree.parse(annotation).getroot().iter("object"):
            kind = item.findtext("name", "").strip()
            shown[kind] = max(shown.get(kind, -1), -1 if item.findtext("difficult", "0").strip() == "1" else 1)
    except (ElementTree.ParseError, ValueError) as e:
        raise InputError(f"{annotation}: is no annotation in XML ({e})") from e
    return shown
