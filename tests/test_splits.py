"""Which images are for what."""

from pathlib import Path

import numpy as np
import pytest

from simclic.data.listing import Listing
from simclic.data.splits import FIFTH, OWN, OWN_FIFTH, PER_CLASS, PUBLISHED, divide, draw_fifth


def listing(counts, parts=None):
    """`counts[k]` images of class k."""
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = tuple(f"{k}/{i:04d}.jpg" for k, n in enumerate(counts) for i in range(n))
    return Listing(Path(), paths, labels, parts or ("",) * len(paths), tuple(map(str, range(len(counts)))))


def test_a_fifth_is_drawn_as_the_baselines_did():
    np.random.seed(0)  # what their source says, NumPy's legacy stream
    order = list(range(3680))  # Pets
    np.random.shuffle(order)
    rest, drawn = draw_fifth(np.arange(3680))
    assert len(drawn) == int(0.2 * 3680) == 736
    assert sorted(order[:736]) == drawn.tolist()
    assert sorted(order[736:]) == rest.tolist()


def test_published_parts_stay_as_they_are():
    found = listing((2, 2, 2), ("train", "val", "test") * 2)
    splits = divide(found, "ericsson", PUBLISHED, 0)
    assert [splits.train.tolist(), splits.val.tolist(), splits.test.tolist()] == [[0, 3], [1, 4], [2, 5]]
    assert splits.fit.tolist() == [0, 1, 3, 4]
    paper = divide(found, "paper", PUBLISHED, 0)
    assert [paper.train.tolist(), paper.val.tolist(), paper.test.tolist()] == [[0, 3], [1, 4], [1, 4]]


def test_without_a_val_it_is_a_fifth_of_train_and_under_the_paper_rule_of_all():
    found = listing((30, 30), ("train",) * 40 + ("test",) * 20)
    splits = divide(found, "ericsson", FIFTH, 0)
    assert splits.sizes == {"train": 32, "val": 8, "test": 20, "fit": 40}
    assert splits.test.tolist() == list(range(40, 60))
    paper = divide(found, "paper", FIFTH, 0)
    assert paper.sizes == {"train": 48, "val": 12, "test": 12, "fit": 48}
    assert (paper.val == paper.test).all()


def test_caltech101_draws_30_a_class_without_replacement():
    found = listing((31, 40, 800))
    splits = divide(found, "ericsson", PER_CLASS, 30)
    assert np.bincount(found.labels[splits.fit]).tolist() == [30, 30, 30]
    assert np.bincount(found.labels[splits.test]).tolist() == [1, 10, 770]
    assert len(splits.val) == 18
    assert len(set(splits.fit.tolist())) == 90


def test_a_class_with_one_image_is_trained_on():
    found = listing((1, 2, 3, 10))
    for rule in (PER_CLASS, OWN):
        splits = divide(found, "ericsson", rule, 30)
        assert 0 in found.labels[splits.fit]
    assert [np.bincount(found.labels[p], minlength=4).tolist() for p in (splits.train, splits.val, splits.test)] == [
        [1, 2, 1, 6],
        [0, 0, 1, 2],
        [0, 0, 1, 2],
    ]


@pytest.mark.parametrize("rule", [PER_CLASS, OWN])
def test_an_image_more_moves_no_other_image_within_its_class(rule):
    before, after = listing((50, 50)), listing((50, 51))
    test = [{b.paths[i] for i in divide(b, "ericsson", rule, 30).test} for b in (before, after)]
    assert {p for p in test[0] if p.startswith("0/")} == {p for p in test[1] if p.startswith("0/")}
    assert len({p for p in test[0] if p.startswith("1/")} - test[1]) <= 1


def test_the_paper_rule_goes_by_names_not_by_order():
    found = listing((30, 30), ("train",) * 40 + ("test",) * 20)
    order = np.random.default_rng(0).permutation(60)
    mixed = Listing(
        found.base, tuple(found.paths[i] for i in order), found.labels[order], tuple(found.parts[i] for i in order), found.classes
    )
    one, other = ({b.paths[i] for i in divide(b, "paper", FIFTH, 0).val} for b in (found, mixed))
    assert one == other


def test_a_fifth_of_each_class_of_ones_own_images_is_val():
    """Where the fifth of all, drawn as the baselines did, leaves classes without val."""
    counts = (1, 2, 4, 7, 8, 20)
    own = listing(counts, ("train",) * sum(counts))
    own = Listing(own.base, (*own.paths, "test/0.jpg"), np.append(own.labels, 0), (*own.parts, "test"), own.classes)
    drawn = divide(own, "ericsson", FIFTH, 0)
    assert 0 in np.bincount(own.labels[drawn.val], minlength=6)[1:]
    splits = divide(own, "ericsson", OWN_FIFTH, 0)
    assert np.bincount(own.labels[splits.val], minlength=6).tolist() == [0, 1, 1, 1, 2, 4]
    assert np.bincount(own.labels[splits.train], minlength=6).tolist() == [1, 1, 3, 6, 6, 16]
    assert splits.test.tolist() == [sum(counts)]
    for rule in (OWN, OWN_FIFTH):  # of all images: the one under test is of class 0
        paper = divide(own, "paper", rule, 0)
        assert np.bincount(own.labels[paper.val], minlength=6).tolist() == [1, 1, 1, 1, 2, 4]
        assert (paper.val == paper.test).all()
        assert len(set(paper.train.tolist()) | set(paper.val.tolist())) == len(own.paths)
