"""Claims of the paper: the verdict that its own numbers give, and for each of them numbers that give every other verdict."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import ROOT, TINY, tiny
from stored import measure, publish

from simclic import Figure, InputError, Linear, Run, Table, grid, load
from simclic.data import PAPER, title
from simclic.experiment.baselines import METHODS
from simclic.experiment.exhibit import BEYOND, PAPER_EXHIBITS
from simclic.report.cell_keys import Key, job_key, measure_cells, read_printed_cells
from simclic.report.claims import CLAIMS, judge_claims
from simclic.report.noise import Measured
from simclic.report.results import Results
from simclic.store.record import write_record
from simclic.store.run_folder import RunFolder

STORED = read_printed_cells(ROOT / "baselines")
NAMED = {claim.name: claim for claim in CLAIMS}
OURS = HISTORY, DROPOUT, NOISE = ("SimCLIC (history)", "SimCLIC (dropout)", "SimCLIC (noise)")
IMAGES = 10_000  # so that an error with two decimals is a whole number of images


def measured(error, rng, data):
    """An error that comes out exactly over three seeds, wrong on images picked at random."""
    seeds = {}
    for seed, more in enumerate((-0.1, 0.0, 0.1)):
        wrong = 100.0 * (np.arange(IMAGES) < round((error + more) * IMAGES / 100))
        seeds[seed] = rng.permutation(wrong)
    return Measured(error, IMAGES, seeds, data)


def cells(errors, seed=0):
    """Key -> error as they would have been measured here."""
    rng = np.random.default_rng(seed)
    return {key: measured(error, rng, key.dataset) for key, error in errors.items()}


def column(exhibit, errors, datasets=("CIFAR10", "Digits"), stages=("linear",)):
    """The same errors (at -> error) on every data set and under every protocol named."""
    return {Key(exhibit, s, d, at): error for s in stages for d in datasets for at, error in errors.items()}


BOTH = ("linear", "finetune")
TAUS, PS, EPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4), (0.01, 0.1, 1.0)
GRID = [(epochs, batch) for epochs in (500, 1000) for batch in (16, 64, 128)]


def curve(exhibit, xs, f, **places):
    return column(exhibit, {x: f(x) for x in xs}, **{"stages": BOTH} | places)


def three(history, dropout, noise, **places):
    return column("table2", dict(zip(OURS, (history, dropout, noise), strict=True)), **places)


def second(best, ours, others):
    """CIFAR10 and Flowers with a best method, SimCLIC and twelve others."""
    rivals = dict.fromkeys(METHODS.values(), others) | {"BYOL": best}
    return column("table2", rivals | dict.fromkeys(OURS, ours), ("CIFAR10", "Flowers"), ["finetune"])


def leaders(more):
    """The two that are counted, measured again: the printed errors and more for DeepCluster v2."""
    keys = [Key("table2", "finetune", title(d), at) for d in PAPER for at in ("DeepCluster v2", "SwAV")]
    return {k: round(STORED[k].value + more * (k.at == "DeepCluster v2"), 2) for k in keys}


def peaks(*taus):
    """Figure 4 on three data sets with more and more classes, each lowest at a tau of its own."""
    found = {}
    for dataset, best in zip(("CIFAR10", "Pets", "Caltech101"), taus, strict=True):
        found |= curve("figure4", TAUS, lambda tau, best=best: 20 + 60 * abs(tau - best), datasets=[dataset])
    return found


def stages(exhibit, xs, linear, tuned):
    return curve(exhibit, xs, linear, stages=["linear"]) | curve(exhibit, xs, tuned, stages=["finetune"])


def ranges(exhibit, xs, other, eps):
    """A figure and Figure 6, each with errors from 20 up to 20 and this."""
    return curve(exhibit, xs, lambda x: 20 + other * (x == xs[0])) | curve("figure6", EPS, lambda x: 20 + eps * (x == EPS[0]))


def pair(table, first, second):
    """Two columns of a table as a function of their errors."""
    return lambda a, b: column(table, {first: a, second: b})


broken, frozen = pair("table4", "No predictor", "2-layer MLP"), pair("table4", "Fixed random init", "2-layer MLP")
layers, flows = pair("table4", "2-layer MLP", "1-layer MLP"), pair("table5", "Without stop-gradient", "With stop-gradient")
losses = pair("table6", "Cosine", "Cross-entropy")
training = partial(curve, "figure7", GRID, stages=["linear"])

beyond = partial(curve, BEYOND, [(rule, batch) for rule in ("linear", "as-is") for batch in (128, 1024, 4096)], stages=["linear"])


def but(at):
    """Every key but these."""
    return lambda key: key.at != at


# Claim -> errors for which it holds, fails and stays undecided; and which of the first are too few to judge it by.
CASES = {
    "lowest-on-cifar10": (three(4, 4, 4), three(9, 9, 9), three(6, 6, 6), but(DROPOUT)),
    "history-and-noise-alike": (three(20, 26, 20), three(20, 23, 26), three(20, 20, 20), but(NOISE)),
    "dropout-slightly-worse": (three(20, 22, 20), three(20, 18, 20), three(20, 20, 20), but(DROPOUT)),
    "deepcluster-and-swav-lead": (leaders(0), leaders(50), leaders(0.3), but("SwAV")),
    "second-on-cifar10-and-flowers": (second(5, 10, 20), second(5, 30, 20), second(5, 20, 20), but(HISTORY)),
    "finetuned-below-linear": (
        stages("figure4", TAUS, lambda x: 20, lambda x: 15),
        stages("figure4", TAUS, lambda x: 20, lambda x: 15 + 10 * (x == 0.6)),
        stages("figure4", TAUS, lambda x: 20, lambda x: 15 + 5 * (x == 0.6)),
        lambda key: key.stage == "linear",
    ),
    "more-classes-larger-tau": (
        peaks(0.2, 0.3, 0.5), peaks(0.5, 0.3, 0.2), peaks(0.3, 0.3, 0.3), lambda key: key.dataset == "Pets",
    ),
    "tau-too-large": (
        curve("figure4", TAUS, lambda x: 20 + 60 * abs(x - 0.4)),
        curve("figure4", TAUS, lambda x: 50 - 60 * x),
        curve("figure4", TAUS, lambda x: 20),
        lambda key: key.at == 0.4,
    ),
    "some-size-of-noise-helps": (
        curve("figure6", EPS, lambda x: 20 + 30 * abs(x - 0.1)),
        curve("figure6", EPS, lambda x: 10 + 30 * x),
        curve("figure6", EPS, lambda x: 20),
        lambda key: key.at == 0.01,
    ),
    "best-p-near-a-quarter": (
        curve("figure5", PS, lambda x: 20 + 60 * abs(x - 0.25)),
        curve("figure5", PS, lambda x: 50 - 60 * x),
        curve("figure5", PS, lambda x: 20),
        lambda key: key.at >= 0.2,
    ),
    "faster-beyond-a-quarter": (
        curve("figure5", PS, lambda x: 20 + 1000 * max(x - 0.25, 0) ** 2),
        curve("figure5", PS, lambda x: 40 - 1000 * (0.4 - x) ** 2),
        curve("figure5", PS, lambda x: 20 + 60 * x),
        lambda key: key.at <= 0.25,
    ),
    "gap-widens-with-p": (
        stages("figure5", PS, lambda x: 20 + 60 * x, lambda x: 15),
        stages("figure5", PS, lambda x: 60 - 60 * x, lambda x: 15),
        stages("figure5", PS, lambda x: 20 + 60 * x, lambda x: 15 + 60 * x),
        lambda key: key.at >= 0.35,
    ),
    "eps-matters-less-than-tau": (
        ranges("figure4", TAUS, 9, 1), ranges("figure4", TAUS, 1, 9), ranges("figure4", TAUS, 5, 5),
        lambda key: key.exhibit == "figure4" or key.at == 1.0,
    ),
    "eps-matters-less-than-p": (
        ranges("figure5", PS, 9, 1), ranges("figure5", PS, 1, 9), ranges("figure5", PS, 5, 5),
        lambda key: key.exhibit == "figure6" or key.at == 0.1,
    ),
    "no-predictor-falls-to-chance": (broken(89.2, 6), broken(60, 6), broken(85.8, 6), but("No predictor")),
    "frozen-predictor-falls-to-chance": (frozen(91, 6), frozen(80, 6), frozen(90, 90), but("2-layer MLP")),
    "two-layers-beat-one": (layers(6, 9), layers(9, 6), layers(9, 9), but("1-layer MLP")),
    "no-stop-gradient-falls-to-chance": (flows(90, 6), flows(20, 6), flows(85.8, 6), but("With stop-gradient")),
    "larger-batches-help": (
        training(lambda x: 30 - x[1] / 16), training(lambda x: 20 + x[1] / 16), training(lambda x: 20),
        lambda key: key.at in ((500, 16), (1000, 128)),
    ),
    "more-epochs-help": (
        training(lambda x: 30 - x[0] / 100), training(lambda x: 20 + x[0] / 100), training(lambda x: 20),
        lambda key: key.at[0] == 500,
    ),
    "batches-beyond-128-help": (
        beyond(lambda x: 30 - x[1] / 256), beyond(lambda x: 20 + x[1] / 256), beyond(lambda x: 20), but(("linear", 128)),
    ),
    "cross-entropy-worse": (losses(6, 10), losses(10, 6), losses(9, 9.1), but("Cosine")),
    "cross-entropy-converges": (losses(6, 40), losses(6, 90), losses(6, 85.8), but("Cross-entropy")),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMED)
def test_every_claim_can_hold_fail_and_stay_undecided(name, seed):
    *cases, _ = CASES[name]
    found = [NAMED[name].judge_cells(cells(errors, seed), STORED) for errors in cases]
    assert [f.verdict for f in found] == ["holds", "fails", "undecided"], [f.evidence for f in found]
    assert all(any(c.isdigit() for c in f.evidence[0]) for f in found)


@pytest.mark.parametrize("name", NAMED)
def test_without_its_numbers_a_claim_is_not_judged_but_says_what_it_needs(name):
    holds, *_, few = CASES[name]
    lacking = [{}, {key: error for key, error in holds.items() if few(key)}]
    lacking += [{k: e for k, e in holds.items() if k.exhibit != exhibit} for exhibit in NAMED[name].exhibits]
    for errors in lacking:
        found = NAMED[name].judge_cells(cells(errors), STORED)
        assert (len(errors) < len(holds), found.verdict) == (True, "not run"), found
        assert all("needs" in line for line in found.evidence)


def exhibit_places():
    """Every place of the paper's exhibits, beyond and of the digits', and what claims about methods run again need."""
    suites = [load(ROOT / f"benchmarks/{name}.py") for name in (*PAPER_EXHIBITS, "beyond_figure7", "digits")]
    places = {job_key(exhibit, job) for suite in suites for exhibit in suite.exhibits for job in exhibit.judged}
    return sorted(
        places | {place for name in ("deepcluster-and-swav-lead", "lowest-on-cifar10") for place in CASES[name][0]}, key=repr
    )


@pytest.mark.parametrize("name", NAMED)
def test_a_claim_can_be_judged_exactly_where_its_judge_gives_a_verdict(name):
    claim, rng, seen = NAMED[name], np.random.default_rng(7), set()
    places = [place for place in exhibit_places() if place.exhibit in claim.exhibits]
    datasets = sorted({place.dataset for place in places})
    for draw in range(400):
        some = set(rng.permutation(datasets)[: rng.integers(1, len(datasets) + 1)]) if draw % 2 else {*datasets}
        share = rng.choice([0.1, 0.3, 0.6, 0.9, 0.99, 1.0])
        chosen = [place for place in places if place.dataset in some and rng.random() < share]
        errors = {place: STORED[place].value if place in STORED else rng.uniform(5, 60) for place in chosen}
        numbers = {place: Measured(error, IMAGES) for place, error in errors.items()}
        printed_here = STORED if draw % 3 else {}
        verdict = claim.judge_cells(numbers, printed_here).verdict
        assert claim.can_be_judged(numbers, printed_here) == (verdict != "not run"), (sorted(numbers, key=repr), verdict)
        seen.add(verdict != "not run")
    assert seen == {True, False}


def test_to_be_second_on_two_data_sets_takes_both_though_one_of_them_can_refute_it():
    claim, flowers = NAMED["second-on-cifar10-and-flowers"], {k for k in second(5, 30, 20) if k.dataset == "Flowers"}
    assert not claim.can_be_judged(flowers, STORED)
    assert claim.can_be_judged(second(5, 30, 20), STORED)


# By hand: the paper's words beside its own numbers, two-sided at .05.
BY_ITS_OWN_NUMBERS = {
    "lowest-on-cifar10": "undecided",  # 5.92 and 5.98 of 12,000 and 10,000 images: p .85
    "history-and-noise-alike": "undecided",  # 0.09 ± 0.32 apart, half of dropout's distance is 0.21
    "dropout-slightly-worse": "undecided",  # 0.43 ± 0.27
    "deepcluster-and-swav-lead": "holds",  # counted from baselines/table2_marks.csv
    "second-on-cifar10-and-flowers": "undecided",  # 2.94 and 2.93; 4.51 and 4.54
    "no-predictor-falls-to-chance": "holds",  # 90.17
    "frozen-predictor-falls-to-chance": "holds",  # 89.16: 83.24 of 84.08 points are lost
    "two-layers-beat-one": "holds",  # 5.92 and 8.65: eight standard errors
    "no-stop-gradient-falls-to-chance": "holds",  # 91.04
    "cross-entropy-worse": "holds",  # 5.92 and 10.69
    "cross-entropy-converges": "holds",  # 10.69: 4.77 of 84.08 points are lost
}


def test_the_papers_own_numbers_are_judged_as_by_hand():
    found = judge_claims(STORED, {})
    assert [j.claim for j in found] == list(CLAIMS)
    assert {j.claim.name: j.printed.verdict for j in found if j.printed.verdict != "not printed"} == BY_ITS_OWN_NUMBERS
    assert {j.ours.verdict for j in found} == {"not run"}
    figures = {j.claim.name for j in found if "Figure" in j.claim.place}
    assert figures == set(NAMED) - set(BY_ITS_OWN_NUMBERS)
    by_name = {j.claim.name: j.printed.evidence for j in found}
    assert by_name["lowest-on-cifar10"] == (
        "CIFAR10: SimCLIC (noise) 5.92, rank 1 of 14 (ranks 1 to 3 possible within noise)",
        "SimCLIC (noise) vs DeepCluster v2 (5.98): -0.06 ± 0.32 (p = .85): no difference detected",
    )
    assert "99.0 ± 0.3 % of what was learned is lost" in by_name["frozen-predictor-falls-to-chance"][0]
    lead = "DeepCluster v2: best on 6 of 11 data sets, clearly so on 0, possibly so on "
    assert by_name["deepcluster-and-swav-lead"][0].startswith(lead)
    better = "CIFAR10: 2-layer MLP 5.92 vs 1-layer MLP 8.65, linear evaluation: -2.73 ± "
    assert by_name["two-layers-beat-one"][0].startswith(better)
    assert by_name["eps-matters-less-than-p"] == ("the paper prints no numbers for Figures 5 and 6",)


def test_without_baselines_the_tables_are_not_run_and_the_figures_not_printed():
    assert {("Table" in j.claim.place, j.printed.verdict) for j in judge_claims({}, {})} == {
        (True, "not run"),
        (False, "not printed"),
    }


def test_the_counts_are_those_of_the_papers_marks():
    lines = (ROOT / "baselines/table2_marks.csv").read_text().splitlines()
    marks = {
        at: next(line for line in lines if line.startswith(f"finetune,{at},")).split(",") for at in ("DeepCluster v2", "SwAV")
    }
    assert {at: (m.count("best"), m.count("second")) for at, m in marks.items()} == {"DeepCluster v2": (6, 4), "SwAV": (2, 3)}


def test_claims_stand_in_the_order_of_the_paper_and_have_names_of_their_own():
    assert [c.section for c in CLAIMS] == sorted(c.section for c in CLAIMS)
    assert len(NAMED) == len(CLAIMS) == len(CASES)
    assert NAMED["eps-matters-less-than-tau"].place == "Section 4.3, Figures 4 and 6"
    assert NAMED["two-layers-beat-one"].place == "Section 5.1, Table 4"


def test_larger_batches_decide_the_papers_prediction():
    claim = NAMED["batches-beyond-128-help"]
    assert {place.dataset for place in exhibit_places() if place.exhibit in claim.exhibits} == {"CIFAR10", "Pets"}
    assert claim.judge_cells({}, STORED).evidence == ("needs results of beyond Figure 7; there are none",)
    lines = claim.judge_cells(cells(CASES[claim.name][0]), STORED).evidence
    assert lines[0].startswith("CIFAR10: batch size 4096 vs 128, linear evaluation, lr_rule='linear': -15.50 ± ")


@pytest.mark.parametrize("name", ["two-layers-beat-one", "no-stop-gradient-falls-to-chance", "cross-entropy-converges"])
def test_where_it_fails_on_one_data_set_it_fails_and_one_without_numbers_is_only_told(name):
    holds, fails, undecided, few = CASES[name]
    cifar, digits = (
        [{k: e for k, e in c.items() if k.dataset == d} for c in (holds, fails, undecided)] for d in ("CIFAR10", "Digits")
    )
    for first, second, verdict in ((0, 1, "fails"), (1, 0, "fails"), (0, 2, "undecided"), (2, 1, "fails"), (0, 0, "holds")):
        found = NAMED[name].judge_cells(cells(cifar[first] | digits[second]), STORED)
        assert found.verdict == verdict
        assert [line.split(":")[0] for line in found.evidence] == ["CIFAR10", "Digits"]
    some = cells(cifar[0] | {k: e for k, e in digits[0].items() if few(k)})
    found = NAMED[name].judge_cells(some, STORED)
    assert found.verdict == "holds"
    assert found.evidence[1].startswith("Digits: needs ")


def test_a_claim_on_two_data_sets_needs_both_unless_it_fails():
    claim = NAMED["second-on-cifar10-and-flowers"]
    for errors, verdict in ((second(5, 10, 20), "not run"), (second(5, 30, 20), "fails")):
        alone = {k: e for k, e in errors.items() if k.dataset == "Flowers"}
        found = claim.judge_cells(cells(alone), STORED)
        assert found.verdict == verdict
        assert found.evidence[0] == "CIFAR10: needs SimCLIC (history) of Table 2, fine-tuned"


def test_clearly_first_is_not_second_and_clearly_third_neither():
    claim = NAMED["second-on-cifar10-and-flowers"]
    assert claim.judge_cells(cells(second(10, 5, 20)), STORED).verdict == "fails"
    third = second(5, 10, 20) | dict.fromkeys((Key("table2", "finetune", d, "SwAV") for d in ("CIFAR10", "Flowers")), 5.2)
    assert claim.judge_cells(cells(third), STORED).verdict == "fails"


def test_rivals_stand_as_printed_until_they_are_run_again():
    claim, ours = NAMED["lowest-on-cifar10"], three(5, 5.5, 6)
    found = claim.judge_cells(cells(ours), STORED)
    assert found.verdict == "holds"
    assert " vs DeepCluster v2 (5.98, as printed): " in found.evidence[1]
    again = claim.judge_cells(cells(ours | {Key("table2", "linear", "CIFAR10", "SwAV"): 3.0}), STORED)
    assert again.verdict == "fails"
    assert " vs SwAV (3.00): " in again.evidence[1]
    counted = NAMED["deepcluster-and-swav-lead"].judge_cells(cells(leaders(0)), STORED)
    assert counted.evidence[-1] == "154 of 176 errors are the printed ones"


def test_perturbations_that_differ_to_and_fro_are_not_alike():
    to, fro = three(20, 24, 26, datasets=["CIFAR10"]), three(26, 24, 20, datasets=["Digits"])
    found = NAMED["history-and-noise-alike"].judge_cells(cells(to | fro), STORED)
    assert found.verdict == "fails"
    assert "Noise vs history, linear evaluation, mean over 2 data sets: 0.00" in found.evidence[0]


def test_predictions_of_the_same_images_are_paired():
    rng = np.random.default_rng(0)
    order = rng.permutation(IMAGES)
    wrong = {error: 100.0 * (order < error * IMAGES / 100) for error in (9.0, 9.3)}  # all that the first gets wrong, and 30 more
    found = {}
    for data in ("same", ""):
        made = {error: Measured(error, IMAGES, {0: w}, data) for error, w in wrong.items()}
        keys = [Key("table4", "linear", "CIFAR10", at) for at in ("2-layer MLP", "1-layer MLP")]
        found[data] = NAMED["two-layers-beat-one"].judge_cells(dict(zip(keys, made.values(), strict=True)), STORED).verdict
    assert found == {"same": "holds", "": "undecided"}


def test_runs_without_a_common_seed_cannot_be_compared():
    found = cells(layers(6, 9))
    keys = [key for key in found if key.at == "1-layer MLP"]
    found |= {key: Measured(9.0, IMAGES, {7: found[key].seeds[0]}, key.dataset) for key in keys}
    judgement = NAMED["two-layers-beat-one"].judge_cells(found, STORED)
    assert judgement.verdict == "not run"
    assert judgement.evidence[0].startswith("CIFAR10: needs results of one seed")


@pytest.mark.parametrize(
    ("classes", "verdict", "says"),
    [
        ((4, 4), "holds", "chance 75.00"),
        ((100, 100), "fails", "chance 99.00"),
        ((0, 0), "not run", "needs the number of classes; its results say none"),
        ((0, 4), "not run", "needs the number of classes; its results say 4"),
        ((4, 100), "not run", "needs the number of classes; its results say 4 and 100"),
    ],
)
def test_chance_on_a_folder_follows_from_the_classes_of_its_results(classes, verdict, says):
    errors = cells(column("table4", {"No predictor": 75, "2-layer MLP": 6}, ["./birds"]))
    counted = {key: replace(m, classes=count) for (key, m), count in zip(errors.items(), classes, strict=True)}
    judgement = NAMED["no-predictor-falls-to-chance"].judge_cells(counted, {})
    assert judgement.verdict == verdict
    assert judgement.evidence[0].startswith("./birds: ")
    assert says in judgement.evidence[0]


def on(name, errors):
    """The verdict of one claim on errors of ours."""
    return NAMED[name].judge_cells(cells(errors), STORED).verdict


@pytest.mark.parametrize(
    ("error", "working", "verdict"),
    [(88.4, 40, "holds"), (86.6, 40, "fails"), (87.5, 40, "undecided"), (60, 90, "undecided")],
)
def test_to_fall_to_chance_is_to_lose_what_the_working_model_learned(error, working, verdict):
    assert on("no-predictor-falls-to-chance", broken(error, working)) == verdict  # 95 % of 50 points above 40 is 87.5


def test_to_converge_takes_to_be_better_than_chance():
    assert on("cross-entropy-converges", losses(99.8, 89.8)) == "undecided"
    assert on("cross-entropy-converges", losses(99.8, 60)) == "holds"


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((40, 22, 21, 20, 21, 20.1, 20.1), "undecided"),  # the end is as good
        ((40, 22, 20.2, 20.1, 20.2, 20, 40), "undecided"),  # the lowest is not near, if within noise
        ((40, 22, 30, 30, 30, 20, 40), "fails"),
        ((40, 22, 21, 20, 21, 22, 40), "holds"),
    ],
)
def test_p_is_best_near_a_quarter_only_if_the_lowest_is_there_and_both_ends_are_worse(errors, verdict):
    assert on("best-p-near-a-quarter", column("figure5", dict(zip(PS, errors, strict=True)))) == verdict


def test_an_error_that_falls_more_and_more_slowly_does_not_rise():
    assert on("faster-beyond-a-quarter", curve("figure5", PS, lambda x: 20 + 1000 * (0.4 - x) ** 2)) == "fails"


@pytest.mark.parametrize(
    ("errors", "verdict"), [((20, 20, 21, 35), "holds"), ((20, 20, 25, 31), "fails"), ((20, 20, 21, 23.5), "undecided")]
)
def test_with_one_interval_beyond_a_quarter_the_one_before_is_its_measure(errors, verdict):
    found = column("figure5", dict(zip((0.1, 0.2, 0.25, 0.4), errors, strict=True)))
    assert on("faster-beyond-a-quarter", found) == verdict
    assert (
        "slope from p 0.25 vs slope from p 0.2, "
        in NAMED["faster-beyond-a-quarter"].judge_cells(cells(found), STORED).evidence[1]
    )


def test_perturbations_are_alike_beside_a_dropout_that_is_better_too():
    assert on("history-and-noise-alike", three(20, 14, 20)) == "holds"
    assert on("dropout-slightly-worse", three(20, 14, 20)) == "fails"


def test_one_of_many_data_sets_must_tell_more_than_chance_among_many():
    many = three(20, 20, 20, datasets=[title(name) for name in PAPER[:8]])
    one = three(20, 20.4, 20.8, datasets=["Digits"])  # p about .02
    assert on("history-and-noise-alike", one) == "fails"
    assert on("history-and-noise-alike", many | one) == "undecided"


def test_ranks_are_those_of_printed_errors():
    found = NAMED["lowest-on-cifar10"].judge_cells(cells(three(6.5, 6.5, 5.984)), STORED)
    assert "rank 1 of 14" in found.evidence[0]


def test_only_common_seeds_tell_what_is_clearly_worse():
    rng = np.random.default_rng(0)
    made = {0.1: {0: 30, 1: 1}, 0.5: {0: 20}}  # the first is lower by its other seed alone
    found = {}
    for tau, errors in made.items():
        seeds = {seed: 100.0 * rng.permutation(np.arange(IMAGES) < error * IMAGES / 100) for seed, error in errors.items()}
        found[Key("figure4", "linear", "CIFAR10", tau)] = Measured(float(np.mean([*errors.values()])), IMAGES, seeds, "d")
    assert NAMED["tau-too-large"].judge_cells(found, STORED).verdict == "undecided"


# Where something is picked after the fact: the lowest of a grid, a range, the data set that tells most.
PICKED = (
    "history-and-noise-alike",
    "tau-too-large",
    "best-p-near-a-quarter",
    "some-size-of-noise-helps",
    "eps-matters-less-than-tau",
    "eps-matters-less-than-p",
)


@pytest.mark.parametrize("name", PICKED)
def test_chance_alone_seldom_decides(name):
    rng, draws = np.random.default_rng(0), 200
    keys = [key for key in CASES[name][2] if (key.stage, key.dataset) == ("linear", "CIFAR10")]
    verdicts = []
    for _ in range(draws):
        seeds = [{0: 100.0 * (rng.random(400) < 0.2)} for _ in keys]
        made = [Measured(float(s[0].mean()), 400, s, "d") for s in seeds]
        verdicts.append(NAMED[name].judge_cells(dict(zip(keys, made, strict=True)), STORED).verdict)
    assert set(verdicts) <= {"holds", "fails", "undecided"}
    assert draws - verdicts.count("undecided") <= 0.05 * draws + 2 * (0.05 * 0.95 * draws) ** 0.5, verdicts


@pytest.mark.parametrize("dataset", ["digits", "./birds"])
def test_results_on_disk_are_judged(tmp_path, linear, dataset):
    """Of the classes of a folder, the last two have no test image."""
    table = load(ROOT / "benchmarks/table4.py").exhibits[0].moved(**TINY | {"dataset": dataset}, linear=linear.differing)
    rng, truth = np.random.default_rng(0), np.arange(500) % 10
    for run, protocol in ((job.run, job.protocol) for job in table.jobs):
        wrong = rng.random(500) < {"none": 1, "frozen": 1, "1-layer": 0.3, "2-layer": 0.1}[run.predictor]
        guess = rng.integers(0, 10, 500)
        scores = np.eye(12)[np.where(wrong, guess, truth)]
        error = 100 * float(np.mean(scores.argmax(1) != truth))
        record = {"error": error, "metric": "top-1", "chosen": {"l2": 1.0}, "curve": [], "seconds": 1.0}
        record["sizes"] = {"train": 1, "val": 1, "test": 500, "fit": 2}
        RunFolder(tmp_path / "runs", run).create_folder("d1")
        RunFolder(tmp_path / "runs", run).write_result(
            protocol, (record, truth, scores), data="d1", seed=run.seed, device="cpu", threads=1
        )
    write_record(tmp_path / "record", tmp_path / "runs", table.jobs, {})
    judged, recorded = (judge_claims(STORED, measure_cells([table], Results(tmp_path / name))) for name in ("runs", "record"))
    assert judged == recorded
    verdicts = {j.claim.name: j.ours for j in judged}
    names = ("no-predictor-falls-to-chance", "frozen-predictor-falls-to-chance", "two-layers-beat-one")
    assert [verdicts[name].verdict for name in names] == ["holds"] * 3, verdicts
    assert verdicts["two-layers-beat-one"].evidence[0].startswith(f"{'Digits' if dataset == 'digits' else dataset}: 2-layer MLP ")
    assert f", chance {'90.00' if dataset == 'digits' else '91.67'}: " in verdicts[names[0]].evidence[0]
    assert {j.verdict for name, j in verdicts.items() if name not in names} == {"not run"}


@pytest.mark.parametrize(
    ("dataset", "images"), [("DTD", 1880), ("Flowers", 1020), ("VOC2007", 2510), ("Pets", 1469), ("CIFAR10", 12_000)]
)
def test_a_validation_set_is_the_makers_own_or_a_fifth_of_all(dataset, images):
    assert STORED[Key("table2", "linear", dataset, NOISE)].images == images


def test_of_several_linear_evaluations_claims_take_the_first_that_is_named(tmp_path):
    first, second = Linear(), Linear(solver="as-published")
    table = Table(paper="table2", caption="", runs=(tiny(),), protocols=(first, second))
    publish(tmp_path, tiny(), second, 30)
    assert measure_cells([table], Results(tmp_path)) == {}
    publish(tmp_path, tiny(), first, 10)
    assert {key.at: m.value for key, m in measure_cells([table], Results(tmp_path)).items()} == {NOISE: 10}


def test_only_a_figure_that_says_so_is_judged_on_what_lies_beyond_figure_7(tmp_path):
    runs = grid(dataset="cifar10", batch_size=(128, 1024))
    for run, error in zip(runs, (20, 10), strict=True):
        measure(tmp_path, run, Linear(), error)
    axes = {"caption": "", "runs": runs, "x": "batch_size", "lines": "lr_rule"}
    for figure, verdict in (
        (Figure(name="beyond-figure7-mine", **axes), "not run"),
        (Figure(name="mine", beyond="figure7", **axes), "holds"),
    ):
        assert NAMED["batches-beyond-128-help"].judge_cells(measure_cells([figure], Results(tmp_path)), {}).verdict == verdict
    for wrong in ({"x": "base_lr"}, {"lines": "dataset"}, {"beyond": "figure6"}):
        with pytest.raises(
            InputError, match=r"beyond='figure\d': only 'figure7', without paper=, with x='batch_size' and lines="
        ):
            Figure(name="mine", **{"beyond": "figure7"} | axes | {"runs": runs[:1]} | wrong)


def test_a_folder_that_is_called_like_a_data_set_is_none(tmp_path):
    runs = [Run(dataset=name, perturbation="history") for name in ("cifar10", "./CIFAR10", "./more/CIFAR10")]
    figure = Figure(paper="figure4", caption="", x="tau", runs=tuple(runs))
    places = [job_key(figure, job) for job in figure.jobs]
    assert len(set(places)) == 3
    assert [place.dataset for place in places] == ["CIFAR10", "./CIFAR10", "./more/CIFAR10"]
