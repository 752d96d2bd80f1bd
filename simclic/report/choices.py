"""Where the paper is silent or contradicts itself: the question, what the paper says, and the field that decides it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

from simclic.data import title
from simclic.experiment import STRENGTHS, Finetune, Linear, Run, Suite
from simclic.report.noise import Measured, difference, shown
from simclic.report.results import Results, Row


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


SWEPT = ("tau", "p", "eps", "predictor")  # Figures 4-6 and Table 4 show what these change
MOST = 40  # lines for one question


class Change(NamedTuple):
    """What another choice changes in one cell: errors in percent, and their difference."""

    where: str
    choice: str
    error: str
    other: str
    other_error: str
    less: str


def choices(suites: Sequence[Suite], results: Results) -> list[dict[str, Any]]:
    """One row per question: question, paper, choice (the values that these exhibits use), why, and what other choices
    change where there are runs with them, in whatever exhibit."""
    jobs = [job for suite in suites for job in suite.jobs]
    specs = [spec for job in jobs for spec in (job.run, job.protocol)]
    cells = _cells(results)
    asked = {job.name for job in jobs}
    rows = []
    for q in QUESTIONS:
        told = []
        for name in q.names:
            used = {getattr(s, name, None) for s in specs if not (isinstance(s, Run) and name in s.unread)} - {None}
            told.append(f"{name} = {_in_force(name, used)}")
        found = [] if set(q.names) & set(SWEPT) else changes(q.names, cells, asked)
        rows.append({
            "question": q.question, "paper": q.paper, "choice": "; ".join(told) or "fixed", "why": q.why,
            "changes": found[:MOST], "more": len(found[MOST:]),
        })  # fmt: skip
    return rows


@dataclass
class _Cell:
    """All seeds of one experiment under one protocol. fields: those of its Run, and of its protocol as stage.name."""

    fields: dict[str, Any]
    rows: list[Row]
    results: Results

    @cached_property
    def measured(self) -> Measured:
        found = self.results.together(self.rows)
        assert found is not None  # its rows are those of results
        return found


def changes(names: Sequence[str], cells: Sequence[_Cell], asked: set[str]) -> list[Change]:
    """Each cell that these exhibits show, beside cells that differ from it in nothing but these fields."""
    if not names or not cells:
        return []
    alike: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        if "init" not in names or cell.fields["epochs"]:  # published encoders are no other start of ours
            rest = tuple((k, v) for k, v in cell.fields.items() if k.rpartition(".")[2] not in names)
            alike.setdefault(rest, []).append(cell)
    found = []
    for group in (g for g in alike.values() if len(g) > 1):
        first, *others = sorted(group, key=lambda c: (not _shown(c, asked), _strangeness(c, names)))
        if _shown(first, asked):
            found += [change for other in others if (change := _change(first, other))]
    return found


def _cells(results: Results) -> list[_Cell]:
    names, found = [f.name for f in fields(Run) if f.name != "seed"], dict[tuple[Any, ...], _Cell]()
    for row in results.good:
        values = {n: row[n] for n in names} | {f"{row['stage']}.{k}": v for k, v in row["how"].items()}
        found.setdefault(tuple(values.items()), _Cell(values, [], results)).rows.append(row)
    return list(found.values())


def _shown(cell: _Cell, asked: set[str]) -> bool:
    return any(f"{row['name']}/{row['protocol']}" in asked for row in cell.rows)


def _strangeness(cell: _Cell, names: Sequence[str]) -> int:
    """In how many of these fields a cell differs from their defaults."""
    return sum(v not in (_default(k.rpartition(".")[2]), None) for k, v in cell.fields.items() if k.rpartition(".")[2] in names)


def _change(one: _Cell, other: _Cell) -> Change | None:
    differ = [k for k, v in one.fields.items() if other.fields.get(k, v) != v]
    if not differ or (less := difference(other.measured, one.measured)) is None:
        return None
    said = [", ".join(f"{k.rpartition('.')[2]} {c.fields[k]}" for k in differ) for c in (one, other)]
    row = one.rows[0]
    return Change(
        f"{title(row['dataset'])}, {row['label']}, {'linear' if row['stage'] == 'linear' else 'fine-tuned'}",
        said[0], f"{one.measured.value:.2f}", said[1], f"{other.measured.value:.2f}",
        f"{less.points:+.2f} ± {less.error:.2f}, p {shown(less.p)}",
    )  # fmt: skip


def _in_force(name: str, used: set[Any]) -> str:
    """The values that are used, the default first; what it is if nothing uses it."""
    default = _default(name)
    if not used:
        return f"{default}, which nothing here reads"
    first = [default] if default in used else []
    values = ", ".join(str(v) for v in (*first, *sorted(used - {default}, key=str)))
    return values if first else f"{values} (default {default})"


def _default(name: str) -> Any:
    strengths = dict(STRENGTHS.values())
    if name in strengths:
        return strengths[name]
    return next(f.default for spec in (Run, Linear, Finetune) for f in fields(spec) if f.name == name)
