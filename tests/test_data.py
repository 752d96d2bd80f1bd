"""The data sets: facts, the digits, images on the device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from sklearn.datasets import load_digits

from simclic import InputError, data
from simclic.data.images import Images, seeded_generator


def test_digits_are_scikit_learns_with_a_fixed_stratified_split(digits):
    splits = digits.splits
    assert digits.images.shape == (1797, 3, 8, 8)
    assert splits.sizes == {"train": 1078, "val": 359, "test": 360, "fit": 1437}
    assert (splits.sizes["train"], splits.sizes["val"], splits.sizes["test"]) == digits.facts.sizes
    together = np.concatenate([splits.train, splits.val, splits.test])
    assert sorted(together) == list(range(1797))
    assert not set(splits.fit) & set(splits.test)
    for part in (splits.train, splits.val, splits.test):
        counts = np.bincount(digits.labels[part]) / len(part)
        assert np.abs(counts - np.bincount(digits.labels) / 1797).max() < 0.004
    assert (digits.images[5, 0] == np.round(load_digits().images[5] * 255 / 16)).all()
    assert digits.digest == "1173afbbc5ab4fc8"  # the same split on every machine


def test_the_paper_rule_chooses_and_reports_on_the_same_fifth():
    splits = data.load("digits", "paper", Path()).splits
    assert (splits.val == splits.test).all()
    assert splits.sizes == {"train": 1437, "val": 360, "test": 360, "fit": 1437}
    assert (splits.fit == splits.train).all()


def test_the_eleven_sets_are_the_columns_of_the_papers_table_2():
    header = (ROOT / "baselines/table2.csv").read_text().splitlines()[0]
    assert [data.FACTS[name].title for name in data.PAPER] == header.split(",")[3:]


def test_classes_and_metrics_are_those_of_the_source_of_the_protocol():
    """Kornblith et al. 2019, Table 1."""
    classes = {
        "aircraft": 100, "caltech101": 102, "cars": 196, "cifar10": 10, "cifar100": 100, "dtd": 47, "flowers": 102, "food": 101,
        "pets": 37, "sun397": 397, "voc2007": 20,
    }  # fmt: skip
    assert {name: data.FACTS[name].classes + (name == "caltech101") for name in data.PAPER} == classes
    per_class = {name for name in data.PAPER if data.FACTS[name].metric == "mean per class"}
    assert per_class == {"aircraft", "caltech101", "flowers", "pets"}


def test_an_unknown_or_absent_data_set_is_one_line_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match=r"dataset='cifar' is not one of .*; did you mean 'cifar10'"):
        data.facts("cifar")
    with pytest.raises(InputError, match=r"dataset='birds' is not one of .*; a folder of your own images is named by its path"):
        data.facts("birds")
    way = "somewhere/cifar-10-batches-py: CIFAR10 is not there; run: simclic data prepare cifar10 --data somewhere"
    with pytest.raises(InputError, match=way):
        data.load("cifar10", "ericsson", Path("somewhere"))
    assert "its makers' page is gone" in data.explain_missing("cars", tmp_path)


def test_the_facts_add_up():
    for name, known in data.FACTS.items():
        assert sum(known.sizes) == known.images or name == "sun397"  # whose partition 1 leaves 69,054 images out
        if known.rule == "20 % for val":
            assert known.sizes[1] == (known.sizes[0] + known.sizes[1]) // 5
    assert data.FACTS["caltech101"].sizes[:2] == (30 * 101 - 606, 606)


def test_images_are_normalised_with_the_sets_own_statistics(digits):
    x = Images(digits, 8, torch.device("cpu"))(torch.from_numpy(digits.splits.fit))
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01


def test_enlarging_is_bicubic_near_pil(digits):
    grey = digits.images[:20] // 2 + 64  # away from black and white, where PIL clips between its two passes
    images = Images(replace(digits, images=grey), 16, torch.device("cpu"))
    ours = images.resize(images.uint8.float())[:, 0]
    pil = [np.array(Image.fromarray(one[0]).resize((16, 16), Image.Resampling.BICUBIC)) for one in grey]
    difference = np.abs(ours.numpy() - np.stack(pil))  # PIL rounds to whole grey values after each
    assert difference.max() < 1.1
    assert 0.1 < difference.mean() < 0.4


def test_seeded_depends_on_the_key_alone():
    draws = [
        torch.rand(3, generator=seeded_generator("cpu", *key)) for key in ((0, "g", 1), (0, "g", 2), (0, "order", 1), (1, "g", 1))
    ]
    assert len({tuple(d.tolist()) for d in draws}) == 4
    assert torch.rand(3, generator=seeded_generator("cpu", 0, "g", 1)).equal(draws[0])
