"""What a grid is fed: the order of the images, crops in the threads they are asked of, and memory that is or is not there."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import spawned
from layouts import photograph
from PIL import Image

from simclic import Finetune, InputError, data
from simclic.data import labels
from simclic.data.crops import DEFAULT_RULE, DRAWS, Crops, Cutter
from simclic.data.images import Images
from simclic.evaluate.finetune import FinetuneTask, TrainBatches

CPU = torch.device("cpu")


def order(digits, index, **fields):
    """The numbers of the images of each step."""
    numbered = replace(digits, labels=np.arange(len(digits.labels)))
    task = FinetuneTask(Finetune(**fields), torch.nn.Identity(), numbered, Images(digits, 16, CPU), 0)
    return [y.tolist() for x, y in TrainBatches(task)(index) if len(x) == len(y)]


@pytest.mark.parametrize("augment", ["crop+flip", "none"])
def test_every_epoch_is_another_permutation_without_its_last_incomplete_batch(digits, augment):
    index = digits.splits.train[:65]
    steps = order(digits, index, steps=6, batch_size=32, augment=augment)
    epochs = [steps[i] + steps[i + 1] for i in (0, 2, 4)]
    for seen in epochs:
        assert len(set(seen)) == 64
        assert set(seen) < set(index.tolist())
    assert len({tuple(seen) for seen in epochs}) == 3
    assert len({tuple(sorted(seen)) for seen in epochs}) > 1  # who is left out changes, too


@pytest.mark.parametrize("augment", ["crop+flip", "none"])
def test_fewer_images_than_a_batch_are_a_batch(digits, augment):
    steps = order(digits, digits.splits.train[:10], steps=3, batch_size=32, augment=augment)
    assert [sorted(step) for step in steps] == [sorted(digits.splits.train[:10].tolist())] * 3


@pytest.fixture
def pets(eleven):
    return data.load("pets", "ericsson", eleven, 224)


def tasks():
    return set(os.listdir("/proc/self/task"))


def started(root, pipe):
    """Threads that there are while one cuts, and then while one adds, beyond those before."""
    torch.set_num_threads(4)
    made = data.load(str(root / "birds"), "ericsson", root, 224)
    crops = Crops(made, Images(made, 224, CPU), made.splits.fit, 1e9)
    out, u = torch.empty(4, 1, 3, 224, 224, dtype=torch.uint8), torch.rand(4, 1, DRAWS).tolist()
    cutter = Cutter(crops._read_pixels, (DEFAULT_RULE,), crops.images, "bicubic")
    for work in (lambda: cutter.cut_crops(out, made.splits.fit[:4].tolist(), u), lambda: torch.ones(1 << 20).add(1)):
        before, found = tasks(), set()
        thread = threading.Thread(target=lambda work=work, found=found: (work(), found.update(tasks())))
        thread.start()
        thread.join()
        pipe.send(len(found - before))


def test_crops_start_no_threads_beyond_those_that_cut(tmp_path):
    """On a machine with a GPU torch has many threads, and would give as many to each that cuts."""
    for kind in ("wren", "stork"):
        (tmp_path / "birds" / kind).mkdir(parents=True)
        for i in range(6):
            photograph((kind, i), (500, 400)).save(tmp_path / "birds" / kind / f"{i}.jpg")
    process, ours = spawned(started, tmp_path)
    cutting, adding = ours.recv(), ours.recv()
    process.join()
    assert (cutting, adding) == (1, 4)  # the second is what it looks like where torch computes


@pytest.fixture
def need(pets):
    """Bytes of all whole images to fit on."""
    total = 0
    for i in pets.splits.fit:
        with Image.open(pets.files[i]) as image:
            total += 3 * image.height * image.width
    return total


def test_whole_images_are_kept_if_they_just_fit_and_decoded_each_time_otherwise(pets, need):
    for room, decoding in ((need, False), (need - 1, True)):
        assert Crops(pets, Images(pets, 224, CPU), pets.splits.fit, room).decodes_each_time is decoding


def test_half_of_the_memory_that_is_free_is_for_whole_images(pets, need, monkeypatch):
    for free, decoding in ((2 * need, False), (2 * need - 2, True)):
        monkeypatch.setattr("simclic.evaluate.finetune.train_batches.available_memory", lambda device, free=free: free)
        task = FinetuneTask(Finetune(), torch.nn.Identity(), pets, Images(pets, 224, CPU), 0)
        assert TrainBatches(task).crops.decodes_each_time is decoding


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (np.zeros((4, 2), int), "labels of 2 classes, but there are 3"),
        (np.zeros((4, 4), int), "labels of 4 classes, but there are 3"),
        (np.array([[1, 0, -2]]), "label -2 of image 0 is out of range: 1 is shown, 0 is not, -1 is not to be judged"),
        (np.array([[1, 0, 1], [0, 2, 0]]), "label 2 of image 1 is out of range: 1 is shown"),
        (np.array([0, 1, -1]), "label -1 of image 2 is out of range: 3 classes are 0 to 2"),
        (np.array([0, 1, 3]), "label 3 of image 2 is out of range: 3 classes are 0 to 2"),
        (np.array([0.0, 1.5]), "labels of shape (2,) and type float64: they are whole numbers"),
        (np.zeros((2, 3, 1), int), "labels of shape (2, 3, 1) and type int64: they are whole numbers"),
    ],
)
def test_labels_that_are_none_are_refused(y, told):
    with pytest.raises(InputError) as e:
        labels.check_labels(y, 3)
    assert str(e.value).startswith(told)


def test_labels_at_the_ends_of_their_range_are_fine():
    labels.check_labels(np.array([0, 1, 2]), 3)
    labels.check_labels(np.array([[1, 0, -1], [0, 0, 1]]), 3)
