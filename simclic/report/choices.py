"""Where the paper is silent or contradicts itself: the question, what the paper says, and the field that decides it."""

from dataclasses import fields
from typing import Any, NamedTuple

from simclic.spec import STRENGTHS, Finetune, Linear, Run, Suite


class Question(NamedTuple):
    """An open question of the paper. names: the fields that decide it. why: the reason for their defaults."""

    question: str
    paper: str
    names: tuple[str, ...]
    why: str


QUESTIONS = (
    Question("What g perturbs", "Algorithm 1: g(p). Section 3.3, Eq. 1-6: g(z)", ("perturbs",), "equations and text agree"),
    Question(
        "z of the iteration before",
        "“the previous iteration”",
        ("history_of",),
        "only the same image's last z is defined per image; at the first visit, z itself",
    ),
    Question(
        "Bernoulli(p)",
        "dropped with probability p, but multiplied by Bernoulli(p)",
        ("bernoulli",),
        "the text, and errors that rise with p",
    ),
    Question(
        "Size of the noise", "norm ε on z as it is", ("normalize_z",), "literal; |z| is about √d, so ε = 0.1 hardly turns z"
    ),
    Question(
        "τ, p, ε",
        "p = 0.25 “for example”; τ and ε not given",
        ("tau", "p", "eps"),
        "placeholders until the sweeps say better",
    ),
    Question(
        "Widths of projector and predictor",
        "layers and batch norms only",
        ("projector_dim", "predictor_dim"),
        "SimSiam's, which the paper follows",
    ),
    Question(
        "Learning rate",
        "“base learning rate 0.05”",
        ("base_lr", "lr_rule"),
        "SimSiam's rule for a base rate: times batch / 256; the cosine falls with every step",
    ),
    Question(
        "Image size in pre-training",
        "not given",
        ("image_size",),
        "that of evaluation: shorter side resized, centre crop, no augmentation",
    ),
    Question(
        "Initialisation",
        "“pre-training on the training set”",
        ("init",),
        "what the words say; some of the paper's numbers suggest ImageNet weights",
    ),
    Question(
        "Split",
        "“validation set”, a random 80 % where undefined",
        ("split",),
        "comparable with the stored baselines; pre-trained on train + val, never on test. “paper” takes the makers' train and "
        "val where they define both, else 80 and 20 % of all images, and reports on what it chooses on",
    ),
    Question(
        "Caltech101's split",
        "not given",
        (),
        "30 images a class without replacement, the rest test, as the cited protocols describe; the baselines' own list drew "
        "with replacement (2,416 different images of 3,060; 174 of the 584 in val also in train), so it differs from this one",
    ),
    Question(
        "Objects marked difficult in VOC2007",
        "not given",
        ("difficult",),
        "as the cited baselines: a class of which only such objects are shown counts as not shown; VOC leaves it out",
    ),
    Question(
        "Average precision of VOC2007",
        "not given",
        (),
        "as the cited baselines: 11 points, the one at recall 0 always 1; VOC's own definition gives a slightly higher error",
    ),
    Question(
        "Where the linear probe's solver stops",
        "“L-BFGS”",
        ("solver", "tolerance"),
        "at a proven share of the minimum, so that a number does not depend on where a solver happened to stop; “as-published” "
        "stops after 100 iterations, as the source of the stored rows does",
    ),
    Question("Precision of the frozen features", "not given", ("features",), "as exact as the images"),
    Question("Precision of the training", "not given", ("precision",), "bf16 halves the time; float32 by choice"),
    Question(
        "Weight decay in fine-tuning",
        "seven values and none",
        ("decay_over_lr",),
        "the cited protocols hand SGD the value divided by the learning rate",
    ),
    Question(
        "Augmentation in fine-tuning",
        "“slight modifications” of the cited protocols",
        ("augment",),
        "theirs: random resized crop (8 to 100 % of the area, aspect 3/4 to 4/3, bicubic) of the whole image, and flip",
    ),
    Question(
        "Resizing before the centre crop, in fine-tuning",
        "not given",
        ("eval_resize",),
        "the shorter side to the crop's own size, as the source of the stored rows; SimCLR and BYOL resize to 256 for 224",
    ),
    Question(
        "Batch norm in fine-tuning",
        "not given",
        ("batch_norm",),
        "its statistics follow the training images, as everywhere cited",
    ),
    Question("Predictor “1-layer”", "not given", ("predictor",), "one linear layer, d to d; an output layer has no batch norm"),
    Question("Last batch of an epoch", "not given", (), "left out if incomplete, as SimSiam does"),
)


def choices(suites: list[Suite]) -> list[dict[str, str]]:
    """One row per question: question, paper, choice (the default, and what else these exhibits use), why."""
    jobs = [job for suite in suites for job in suite.jobs]
    specs = [spec for job in jobs for spec in job]
    rows = []
    for q in QUESTIONS:
        told = []
        for name in q.names:
            used = {getattr(s, name, None) for s in specs if not (isinstance(s, Run) and name in s.unread)}
            used -= {None, _default(name)}
            also = f"; here also {', '.join(str(v) for v in sorted(used, key=str))}" if used else ""
            told.append(f"{name} = {_default(name)}{also}")
        rows.append({"question": q.question, "paper": q.paper, "choice": "; ".join(told) or "fixed", "why": q.why})
    return rows


def _default(name: str) -> Any:
    strengths = dict(STRENGTHS.values())
    if name in strengths:
        return strengths[name]
    return next(f.default for spec in (Run, Linear, Finetune) for f in fields(spec) if f.name == name)
