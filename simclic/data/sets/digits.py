"""scikit-learn's handwritten digits: small enough to run everything in miniature, and no data set of the paper's."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from simclic.data.dataset import Dataset, Facts
from simclic.data.splits import OWN, Splits

FACTS = Facts(
    title="Digits", classes=10, metric="top-1", sizes=(1078, 359, 360), images=1797, rule=OWN, stored=8,
    mean=(0.3053,) * 3, std=(0.3764,) * 3,
)  # fmt: skip

# One bit an image: scikit-learn's train_test_split, stratified, with random_state=0. Importing scikit-learn takes a second of CPU
# time in every process, and another version of it may split differently.
VAL = bytes.fromhex(
    "04250005004a8202a890042260004201210000f0c60a400400800cca020000759060020012000002000a20104080100046002202022d850025"
    "01008798e0024541062240e8000220512000100002004005220403081ce0401000030101081208040a41140000009220883020040229588085"
    "2000980002116902020810000104c00929000a011015465360a02eac63041a1a09a028008621024c084c000000401206514030024190700000"
    "8440290a11848a092000884008d046081518002b944000053415004a00001836001001580015002044620101110420002d00020002b8"
)
TEST = bytes.fromhex(
    "000004883524104000064100934205001a00080100240028062c12001000940a009019120420f8a0028110a000080a8820441524494240a00a"
    "0000004004d80000818020004805c400104008a0100005404800301000020ec409000224840083a8013c20a6980a0000000b08400804a01848"
    "02024041c1008004404684376a810216004480004042a0a4180a5000840b8561c608108008004c80c02004068e00010882008100380803c008"
    "190000100e01008410a0210033282904c044c080680e0102830082008822a6402c24042108a860809081a00c02820242120138a41500"
)


def load_bundled(split: str) -> Dataset:
    """Return 1,797 digits, 8 x 8, grey in three equal channels; stratified 60/20/20 with a fixed seed."""
    import numpy as np

    package = find_spec("sklearn")
    assert package
    assert package.origin
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    labels = table[:, -1].astype(np.int64)
    grey = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # 0..16 as published
    val, test = (np.unpackbits(np.frombuffer(bits, np.uint8), count=len(labels)).astype(bool) for bits in (VAL, TEST))
    train, val, test = (np.flatnonzero(part) for part in (~(val | test), val, test))
    splits = Splits(np.sort(np.append(train, val)), test, test) if split == "paper" else Splits(train, val, test)
    images = np.repeat(grey[:, None], 3, axis=1)
    h = hashlib.sha256()
    for part in (images, labels, splits.train, splits.val, splits.test):
        h.update(str((part.shape, part.dtype)).encode() + part.tobytes())
    return Dataset(FACTS, images, labels, splits, h.hexdigest()[:16])
