"""The amount of work in a job: how often it does each thing that takes time, and the bytes that it leaves on disk."""

import math

from simclic import data
from simclic.data.dataset import estimate_decoded_bytes
from simclic.experiment import METHODS, Finetune, Knn, Protocol, Run, evaluated_run
from simclic.experiment.knn_log import count_sample, list_logged_epochs
from simclic.experiment.protocol import CHECKPOINT_BYTES

# Counts of "train.step" and "train.image": steps of a pre-training and passes of an image in them; "epoch": ends of an epoch;
# "image": forward passes without a gradient; "tune.step", "tune.image": steps of a member of a fine-tuning grid and images in
# them; "member": of a grid; "pair": of an image and one of the bank of its neighbours; "SOLVER.value": values of l2, and
# "SOLVER.cell": these x training images x classes; "start": of a process with its data.
Amounts = dict[str, float]

WIDTHS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "test_resnet": 96}  # of the representation
WEIGHTS = {"resnet18": 45e6, "resnet34": 85e6, "resnet50": 94e6, "resnet101": 170e6, "test_resnet": 1.5e6}  # bytes in float32
ROW = 300  # bytes of an epoch in log.jsonl


def split_sizes(run: Run) -> tuple[int, int, int]:
    """Return the images in train, val and test under the Run's split rule. Raise InputError for an unknown data set."""
    facts = data.facts(run.dataset)
    return facts.paper if run.split == "paper" else facts.sizes


def count_fit_images(run: Run) -> int:
    """Return the images of the final fit and of the pre-training: train and val, never test."""
    train, val, _ = split_sizes(run)
    return train + (val if run.split == "ericsson" else 0)


def feature_width(run: Run) -> int:
    """Return the length of a feature; ResNet-50's for an unknown backbone."""
    return 3 * run.image_size**2 if run.backbone == "pixels" else WIDTHS.get(run.backbone, 2048)


def encoder_work(run: Run, watch_on: str = "") -> Amounts:
    """Return the work of making the encoder of a Run: training, or calibration of its batch norms, or neither.

    watch_on: another data set on which the error of kNN is logged.
    """
    if run.epochs == 0:
        return {"start": 1, "image": count_fit_images(run) if run.init == "random" and run.backbone != "pixels" else 0}
    steps = run.epochs * (count_fit_images(run) // run.batch_size)
    passes = METHODS[run.method].passes + METHODS[run.method].target_passes / 3  # a pass without a gradient is a third of one
    train, val, _ = split_sizes(evaluated_run(run, Knn(on=watch_on) if watch_on else None))
    sample = sum(count_sample(train, val))
    logged = sample * len(list_logged_epochs(run.epochs, steps * run.batch_size // run.epochs, sample))
    return {
        "start": 1, "train.step": steps, "train.image": steps * run.batch_size * passes, "epoch": run.epochs, "image": logged,
    }  # fmt: skip


def feature_amounts(run: Run) -> Amounts:
    """Return the work of computing the features of all images, which every linear evaluation of an encoder reads."""
    return {"image": count_fit_images(run) + split_sizes(run)[2]} if run.backbone != "pixels" else {}


def result_amounts(run: Run, protocol: Protocol, devices: int = 1) -> Amounts:
    """Return the work of one result, without its features. devices: that share a fine-tuning grid; the work is then that of the
    one with the most, which also trains the final member."""
    run = evaluated_run(run, protocol)
    if isinstance(protocol, Finetune):
        _, val, test = split_sizes(run)
        settings = math.ceil(len(protocol.settings) / devices)
        members = settings + 1
        steps = members * protocol.steps
        judged = settings * val + test
        return {"tune.step": steps, "tune.image": steps * protocol.batch_size, "member": members, "image": judged}
    if isinstance(protocol, Knn):
        train, val, test = split_sizes(run)
        return {"pair": val * train + test * count_fit_images(run)}
    values = protocol.l2_count + 1
    cells = values * count_fit_images(run) * data.facts(run.dataset).classes
    return {f"{protocol.solver}.value": values, f"{protocol.solver}.cell": cells}


def job_bytes(run: Run, protocol: Protocol | None = None) -> float:
    """Return the bytes of the encoder of a Run, or of one result with its predictions; features are extra."""
    if protocol is None:
        return WEIGHTS.get(run.backbone, 94e6) * (run.backbone != "pixels") + ROW * run.epochs + 2e3
    run = evaluated_run(run, protocol)
    facts, (_, _, test) = data.facts(run.dataset), split_sizes(run)
    return 0.93 * 4 * test * facts.classes + 1e4


def feature_bytes(run: Run) -> float:
    """Return the bytes of the features of all images, stored once for all probes of one precision."""
    return 4.0 * (count_fit_images(run) + split_sizes(run)[2]) * feature_width(run)


def temporary_bytes(run: Run, protocol: Protocol | None = None) -> float:
    """Return the bytes that a job needs only while it runs: two checkpoints, and a third while it is written."""
    weights = WEIGHTS.get(run.backbone, 94e6)
    if isinstance(protocol, Finetune):
        return 3 * min(CHECKPOINT_BYTES, 2 * weights * len(protocol.settings))
    if protocol is not None or not run.epochs:
        return 0.0
    d, h = run.projector_dim, run.predictor_dim
    heads = 4.0 * (feature_width(run) * d + 2 * d * d + 2 * d * h)
    past = 4.0 * count_fit_images(run) * d if run.memory_bank else 0.0
    return 3 * ((2 + run.momentum_encoder) * (weights + heads) + past)


def decoded_bytes(run: Run, size: int, whole: bool = False) -> float:
    """Return the bytes of a Run's images decoded at a size in pixels, whole or as squares; 0 if they need no decoding."""
    stored, bundled = data.facts(run.dataset).stored, data.is_bundled(run.dataset)
    return 0.0 if bundled else estimate_decoded_bytes(count_fit_images(run) + split_sizes(run)[2], stored or size, whole)
