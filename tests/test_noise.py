"""What chance does to an error: textbook values, pairs over images and seeds, and a simulation of the promised rate."""

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny
from scipy import stats
from stored import publish

from simclic import Linear, Run
from simclic.data.metrics import METRICS
from simclic.experiment import Job
from simclic.report.noise import (
    Difference,
    Measured,
    compute_contrast,
    compute_contributions,
    compute_difference,
    format_p,
    subtract_printed,
)
from simclic.report.results import Results


def of(seeds, data="d"):
    """What seeds measured: seed -> (n,) whether each image was wrong."""
    parts = {seed: 100.0 * wrong for seed, wrong in seeds.items()}
    return Measured(float(np.mean(list(parts.values()))), len(next(iter(parts.values()))), parts, data)


def test_p_values_of_printed_numbers_are_those_of_two_proportions():
    for a, b, n, m, p in ((5.92, 5.98, 10000, 10000, ".86"), (4.51, 4.54, 6149, 6149, ".94"), (10, 20, 10000, 10000, "< .001")):
        assert format_p(compute_difference(Measured(a, n), Measured(b, m)).p) == p
    assert compute_difference(Measured(0, 1000), Measured(0, 1000)).p == 1.0
    assert not compute_difference(Measured(0, 1000), Measured(0.1, 1000)).clear  # one image in a thousand decides nothing
    assert (format_p(0.04), format_p(1.0), format_p(0.0004)) == (".04", "1.0", "< .001")


def test_a_difference_is_judged_against_its_error_in_both_directions():
    rng = np.random.default_rng(0)
    easy = {seed: rng.random(400) < 0.1 for seed in range(3)}
    hard = {seed: rng.random(400) < 0.3 for seed in range(3)}
    like = {seed: rng.random(400) < 0.1 for seed in range(3)}
    assert compute_difference(of(easy), of(hard)).verdict == "clearly better than"
    assert compute_difference(of(hard), of(easy)).verdict == "clearly worse than"
    assert compute_difference(of(easy), of(like)).verdict == "not distinguishable from"


def test_one_seed_is_the_paired_test_of_the_textbook():
    rng = np.random.default_rng(1)
    a, b = rng.random(400) < 0.1, rng.random(400) < 0.13
    found = compute_difference(of({0: a}), of({0: b}))
    told = stats.ttest_rel(100.0 * a, 100.0 * b)
    assert found.points == pytest.approx(100 * (a.mean() - b.mean()))
    assert found.p == pytest.approx(told.pvalue)
    assert found.within == pytest.approx(told.confidence_interval().high - found.points)


def test_what_is_paired_tells_more_apart_than_what_is_not():
    rng = np.random.default_rng(2)
    hard = rng.random(2000) < 0.3
    a, b = hard & (rng.random(2000) < 0.95), hard
    assert compute_difference(of({0: a}), of({0: b})).clear
    assert not compute_difference(of({0: a}), of({0: b}, data="other images")).clear


def test_only_equal_seeds_are_paired_and_raw_pixels_with_each():
    wrong = {seed: np.arange(100) < 10 * (seed + 1) for seed in range(3)}
    assert compute_difference(of({0: wrong[0], 2: wrong[2]}), of({0: wrong[0], 1: wrong[1]})).points == 0  # seed 0 alone
    assert compute_difference(of({0: wrong[0]}), of({1: wrong[1]})) is None
    assert compute_difference(of({0: wrong[0], 2: wrong[2]}), of({None: wrong[0]})).points == pytest.approx(10)


@pytest.mark.parametrize("metric", list(METRICS))
def test_contributions_have_the_error_as_their_mean(metric):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 7, 300)
    scores = rng.normal(size=(300, 7)) + 2 * np.eye(7)[truth] * rng.random((300, 1))
    if metric == "11-point mAP":
        truth = (rng.random((300, 7)) < 0.2).astype(int) - (rng.random((300, 7)) < 0.05)
    assert compute_contributions(truth, scores, metric).mean() == pytest.approx(METRICS[metric](truth, scores))


def test_a_contrast_over_data_sets_adds_what_is_independent():
    m = [Measured(e, n) for e, n in ((10, 1000), (12, 1000), (30, 500), (28, 500))]
    found = compute_contrast([(0.5, m[0]), (-0.5, m[1]), (0.5, m[2]), (-0.5, m[3])])
    assert found.points == pytest.approx(0)
    assert found.error == pytest.approx(0.5 * math.sqrt(sum(x.by_images for x in m)))


def test_the_spread_of_our_seeds_stands_for_that_of_a_printed_number():
    rng = np.random.default_rng(4)
    ours = of({seed: rng.random(5000) < rate for seed, rate in enumerate((0.08, 0.10, 0.12))})
    one = subtract_printed(of({0: ours.seeds[1] > 0}), Measured(13.5, 5000))
    several = subtract_printed(ours, Measured(13.5, 5000))
    assert one.clear  # test images alone
    assert not several.clear  # such seeds reach that far
    assert several.error**2 == pytest.approx(ours.by_images + Measured(13.5, 5000).by_images + ours.deviation**2 * 4 / 3)
    assert 2 < several.freedom < 3


def test_equal_error_rates_are_told_apart_as_often_as_promised():
    rng = np.random.default_rng(5)
    told = 0
    for _ in range(400):
        seeds = [{s: rng.random(500) < 0.2 + rng.normal() * 0.03 for s in range(3)} for _ in range(2)]
        told += compute_difference(of(seeds[0]), of(seeds[1])).clear
    assert told <= 400 * 0.08  # .05 and what chance adds to it
    assert Difference(0.0, 0.0).p == 1.0
    assert Difference(0.1, 0.0).clear


def test_an_error_of_nothing_is_never_certain():
    assert not compute_difference(Measured(0, 1000), Measured(0.4, 1000)).clear  # with no spread at 0 % it would be
    for k in (1, 2, 3):
        none = of({seed: np.zeros(1000) for seed in range(k)})
        assert none.by_images == pytest.approx(Measured(0, 1000).by_images / k)


def test_seeds_wrong_on_the_same_images_are_worth_one_and_on_others_as_many_as_they_are():
    wrong = np.arange(1000) < 200
    once, thrice = of({0: wrong}), of(dict.fromkeys(range(3), wrong))
    apart = of({seed: np.random.default_rng(seed).permutation(wrong) for seed in range(3)})
    assert thrice.by_images == pytest.approx(once.by_images, rel=0.01)
    assert apart.by_images == pytest.approx(once.by_images / 3, rel=0.1)


def test_without_pairs_images_and_seeds_of_either_side_add_up():
    rng = np.random.default_rng(6)
    wide = of({seed: rng.random(1000) < 0.1 + 0.2 * seed for seed in range(3)})
    narrow = of({seed: rng.random(1000) < 0.2 for seed in range(3)}, "other images")
    found = compute_difference(wide, narrow)
    assert found.error**2 == pytest.approx(sum(m.by_images + m.deviation**2 / 3 for m in (wide, narrow)))
    assert 2 < found.freedom < 2.1  # after Welch: the three seeds of the first dominate


@pytest.mark.parametrize("errors", [(10, 13), (10, 13, 11)])
def test_where_images_do_not_matter_seeds_are_the_paired_test_of_the_textbook(errors):
    spread, none = ({seed: np.full(100, e) for seed, e in enumerate(those)} for those in (errors, [9.0] * len(errors)))
    found = compute_difference(Measured(float(np.mean(errors)), 100, spread, "d"), Measured(9.0, 100, none, "d"))
    told = stats.ttest_rel(errors, [9.0] * len(errors))
    assert found.p == pytest.approx(told.pvalue)
    assert found.within == pytest.approx(told.confidence_interval().high - found.points)


def test_what_few_seeds_dominate_has_hardly_more_degrees_of_freedom_than_seeds_less_one():
    rng = np.random.default_rng(7)
    for k in (2, 3, 5):
        wide = of({seed: rng.random(2000) < 0.1 + 0.1 * seed for seed in range(k)})
        found = compute_difference(wide, of({seed: rng.random(2000) < 0.1 for seed in range(k)}))
        assert k - 1 <= found.freedom < (k - 1) * 1.1
        assert k > 2 or found.freedom == 1  # of two, Welch's would be too many


def test_numbers_of_different_length_are_not_paired():
    images, classes = of({0: np.arange(400) < 40}), of({0: np.arange(20) < 3})  # VOC2007: a contribution per class
    assert compute_difference(images, classes) == compute_difference(images, replace(classes, data="other images"))


def test_a_class_that_no_image_shows_does_not_count():
    truth, scores = np.array([0, 0, 2, 2, 2, 4]), np.eye(6)[[0, 2, 2, 0, 0, 5]]  # neither 1, 3 nor 5 is there
    assert compute_contributions(truth, scores, "mean per class").mean() == pytest.approx((50 + 200 / 3 + 100) / 3)


def test_what_most_seeds_were_measured_on_counts_and_in_a_tie_the_lowest_seed(tmp_path):
    jobs = [Job(tiny(seed=seed), Linear()) for seed in (2, 1, 0, 3)]
    for job, error, data in zip(jobs, (30, 20, 10, 40), ("d2", "d2", "d1", "d2"), strict=True):
        publish(tmp_path, job.run, job.protocol, error, data)
    most, tie = (Results(tmp_path).measure_jobs(those) for those in (jobs[2:] + jobs[:2], jobs[1:3]))
    assert (most.value, set(most.seeds), most.data) == (30, {1, 2, 3}, "d2")
    assert (tie.value, set(tie.seeds), tie.data) == (10, {0}, "d1")


def test_raw_pixels_are_paired_with_whatever_seed_there_is(tmp_path):
    pixels = Run(dataset="digits", backbone="pixels", image_size=8, perturbation="none", epochs=0)
    for run in (tiny(seed=1), pixels):
        publish(tmp_path, run, Linear())
    results = Results(tmp_path)
    ours, control = (results.measure_jobs([Job(run, Linear())]) for run in (tiny(seed=1), pixels))
    assert set(control.seeds) == {None}
    assert compute_difference(ours, control).points == 0
