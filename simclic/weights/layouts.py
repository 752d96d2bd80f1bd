"""Facts about the files of the 13 methods: their layout, the input they expect, and the accuracy their authors report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[int | None, ...]]  # None: any size

IMAGENET_NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV_NORMALISATION = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))  # 0.228 in their own code, in training and evaluation
NO_NORMALISATION = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # images in [0, 1] as they are

LINEAR = {"weight": (128, 2048), "bias": (128,)}
MLP = {"0.weight": (2048, 2048), "0.bias": (2048,), "2.weight": (128, 2048), "2.bias": (128,)}
NORM = {**dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (2048,)), "num_batches_tracked": ()}
PROJECTION = {
    "0.weight": (2048, 2048), "0.bias": (2048,), **{f"1.{k}": v for k, v in NORM.items()},
    "3.weight": (128, 2048), "3.bias": (128,),
}  # fmt: skip
ANY = {name: (None,) * len(shape) for name, shape in PROJECTION.items()}  # of sizes that nobody published
JIGSAW = {"fc2.weight": (128, 1152), "fc2.bias": (128,)}


def add_prefix(prefix: str, shapes: Shapes) -> dict[str, tuple[int | None, ...]]:
    """Return the same shapes with a prefix before their names."""
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


@dataclass(frozen=True)
class TorchLayout:
    """A PyTorch file. outer: the key of the state dict, "" for the file itself. prefix: of the backbone's keys.

    heads: keys outside the backbone that must be there. extra: a pattern of further keys that may be there. md5: first digits of
    the published file's MD5. others: the same of the method's other files, each with a description. counter: the value that says
    how long it was trained.
    """

    outer: str
    prefix: str
    heads: Shapes
    extra: str = "$^"
    md5: str = ""
    others: tuple[tuple[str, str], ...] = ()
    normal: tuple[Any, Any] = IMAGENET_NORMALISATION
    padding: str = field(default="symmetric", init=False)
    counter: str = field(default="epoch", init=False)


@dataclass(frozen=True)
class TensorFlowLayout:
    """A TensorFlow checkpoint, its variables numbered in order of creation. heads, extra, counter: as in TorchLayout."""

    heads: Shapes
    extra: str
    normal: tuple[Any, Any] = NO_NORMALISATION
    padding: str = "same-pool"
    counter: str = "global_step"


@dataclass(frozen=True)
class HaikuLayout:
    """BYOL's pickle of haiku parameters and state."""

    normal: tuple[Any, Any] = IMAGENET_NORMALISATION
    padding: str = "same"
    counter: str = "step"


Layout = TorchLayout | TensorFlowLayout | HaikuLayout


def moco_layout(head: Shapes, md5: str = "", *others: tuple[str, str]) -> TorchLayout:
    """Return the layout of MoCo and PCL. Queue and momentum encoder may be there; published files lack them."""
    extra = r"module\.(queue|queue_ptr|encoder_k\..*)"
    return TorchLayout("state_dict", "module.encoder_q.", add_prefix("module.encoder_q.fc.", head), extra, md5, others)


def pycontrast_layout(head: Shapes, jigsaw: Shapes | None = None) -> TorchLayout:
    """Return the layout of PyContrast: a head, and perhaps one for the pieces of a jigsaw."""
    pieces = add_prefix("module.head_jig.", add_prefix("fc1.", jigsaw) | JIGSAW) if jigsaw else {}
    return TorchLayout("model", "module.encoder.", add_prefix("module.head.", head) | pieces, r"module\.jigsaw\..*")


def swav_layout(prototypes: Shapes, extra: str = "$^", projection: Shapes = PROJECTION) -> TorchLayout:
    """Return the layout of SwAV's code: its checkpoint or the state dict alone."""
    heads = add_prefix("module.projection_head.", projection) | add_prefix("module.prototypes", prototypes)
    return TorchLayout("", "module.", heads, extra, normal=SWAV_NORMALISATION)


CLASSIFIER = add_prefix("head_supervised/linear_layer/dense/", {"kernel": (2048, 1000), "bias": (1000,)})
CONTRASTIVE = {
    **{f"head_contrastive/nl_{i}/dense/kernel": (2048, 128 if i == 2 else 2048) for i in range(3)},
    **{f"head_contrastive/nl_{i}/batch_normalization/gamma": (128 if i == 2 else 2048,) for i in range(3)},
}
SLOTS = r".*/(Momentum|LARSOptimizer)|global_step"

LAYOUTS: dict[str, Layout] = {
    "insdis": pycontrast_layout(add_prefix("0.", LINEAR)),
    "moco-v1": moco_layout(LINEAR, "b251726a"),
    "pcl-v1": moco_layout(LINEAR),
    "pirl": pycontrast_layout(add_prefix("0.", LINEAR), LINEAR),
    "pcl-v2": moco_layout(MLP),
    "simclr-v1": TensorFlowLayout(CLASSIFIER, SLOTS),
    "moco-v2": moco_layout(MLP, "a04e12f8", ("59fd9945", "of 200 epochs, 67.7 % on ImageNet")),
    "simclr-v2": TensorFlowLayout(CONTRASTIVE, rf"{SLOTS}|head_contrastive/.*|head_supervised/.*|ema_model/.*|.*memory.*"),
    "sela-v2": swav_layout({}, r"module\.prototypes.*", ANY),
    "infomin": pycontrast_layout(MLP, MLP),
    "byol": HaikuLayout(),
    "deepcluster-v2": swav_layout({f".prototypes{i}.weight": (3000, 128) for i in range(3)}),
    "swav": swav_layout({".weight": (3000, 128)}),
}


class Facts(NamedTuple):
    """What is published about a file. top_1: linear, on ImageNet, in percent; of this file where its authors' README gives it.

    source: where the file is. trained: values that its counter may have: the last epoch, counted from 0 or 1, or the last step.
    """

    top_1: float
    source: str
    trained: range


EPOCHS_200, EPOCHS_400, EPOCHS_800 = (range(n - 1, n + 1) for n in (200, 400, 800))
BYOL_STEPS = range(297_145, 328_424)  # 1,000 epochs of 1,281,167 images in batches of 4,096, within 5 %; its end is unpublished

FACTS = {
    "insdis": Facts(59.5, "PyContrast, InsDis.pth", EPOCHS_200),
    "moco-v1": Facts(60.6, "facebookresearch/moco, moco_v1_200ep_pretrain.pth.tar", EPOCHS_200),
    "pcl-v1": Facts(61.5, "salesforce/PCL, PCL_v1_epoch200.pth.tar", EPOCHS_200),
    "pirl": Facts(61.7, "PyContrast, PIRL.pth", EPOCHS_200),
    "pcl-v2": Facts(67.6, "salesforce/PCL, PCL_v2_epoch200.pth.tar", EPOCHS_200),
    "simclr-v1": Facts(69.1, "google-research/simclr, ResNet50_1x, model.ckpt-225206", range(225_206, 225_207)),
    "moco-v2": Facts(71.1, "facebookresearch/moco, moco_v2_800ep_pretrain.pth.tar", EPOCHS_800),
    "simclr-v2": Facts(71.7, "google-research/simclr, r50_1x_sk0, model.ckpt-250228", range(250_228, 250_229)),
    "sela-v2": Facts(71.8, "facebookresearch/swav, selav2_400ep_pretrain.pth.tar", EPOCHS_400),
    "infomin": Facts(73.0, "PyContrast, InfoMin_800.pth", EPOCHS_800),
    "byol": Facts(74.4, "deepmind-research/byol, pretrain_res50x1.pkl", BYOL_STEPS),
    "deepcluster-v2": Facts(75.2, "facebookresearch/swav, deepclusterv2_800ep_pretrain.pth.tar", EPOCHS_800),
    "swav": Facts(75.3, "facebookresearch/swav, swav_800ep_pretrain.pth.tar", EPOCHS_800),
}
