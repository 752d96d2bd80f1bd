"""Random resized crops: torchvision's distribution, PIL's pixels, and the same bits from memory and from files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from simclic import Finetune, InputError, data
from simclic.data.crops import DRAWS, Crops, draw_window
from simclic.data.images import Images
from simclic.evaluate.finetune import FinetuneTask, TrainBatches

CPU = torch.device("cpu")


def draws(count, seed=0):
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(375, 500), (32, 32), (700, 1024), (60, 300), (1, 200), (200, 1)])
def test_windows_are_distributed_as_torchvision_s(shape):
    ours = np.array([draw_window(*shape, u) for u in draws(3000).tolist()])
    torch.manual_seed(1)
    image = torch.empty(3, *shape)
    theirs = np.array([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)])
    for k in range(4):
        assert ks_2samp(ours[:, k], theirs[:, k]).pvalue > 1e-4
    for found in (ours, theirs):
        assert (found[:, :2] >= 0).all()
        assert (found[:, 0] + found[:, 2] <= shape[0]).all()
        assert (found[:, 1] + found[:, 3] <= shape[1]).all()


@pytest.mark.parametrize("shape", [(10, 400), (400, 10), (1, 200), (200, 1)])
def test_where_no_try_fits_it_is_the_largest_crop_in_the_centre(shape):
    never = [0.99, 0.5, 0.0, 0.0] * 10 + [0.0]
    torch.manual_seed(0)
    theirs = RandomResizedCrop.get_params(torch.empty(3, *shape), (0.99, 1.0), (3 / 4, 4 / 3))
    assert draw_window(*shape, never) == tuple(theirs)


@pytest.fixture
def pets(eleven):
    return data.load("pets", "ericsson", eleven, 24)


def cut(dataset, images, index, u, room=1e9):
    crops = Crops(dataset, images, dataset.splits.fit, room)
    ((x, which),) = crops.stream([index], [u])
    assert which.cpu().equal(index)
    return crops, (x * images.std + images.mean).cpu()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crops_are_pil_s_of_the_whole_image_and_mirrored_where_drawn(pets, device, interpolation):
    pets = replace(pets, interpolation=interpolation)
    images, index, u = Images(pets, 24, torch.device(device)), torch.from_numpy(pets.splits.fit), draws(len(pets.splits.fit))
    _, x = cut(pets, images, index, u)
    mirrored = 0
    for found, i, numbers in zip(x, index.tolist(), u.tolist(), strict=True):
        whole = Image.open(pets.files[i])
        top, left, height, width = draw_window(whole.height, whole.width, numbers)
        crop = whole.crop((left, top, left + width, top + height)).resize((24, 24), Image.Resampling[interpolation.upper()])
        mirrored += numbers[-1] < 0.5
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if numbers[-1] < 0.5 else crop
        theirs = torch.from_numpy(np.array(crop)).permute(2, 0, 1)
        apart = (255 * found - theirs).abs()  # both round between the two directions, not quite in the same way
        assert apart.mean() < 0.3
        assert apart.max() < 12
    assert 0 < mirrored < len(index)


def test_from_memory_and_from_files_they_are_the_same_bits(pets, device):
    images, index, u = Images(pets, 24, torch.device(device)), torch.from_numpy(pets.splits.fit), draws(len(pets.splits.fit))
    (kept, a), (decoding, b) = (cut(pets, images, index, u, room) for room in (1e9, 1000))
    assert (kept.decodes_each_time, decoding.decodes_each_time) == (False, True)
    assert a.equal(b)


def test_an_image_that_is_gone_is_a_line(pets):
    images, index, u = Images(pets, 24, CPU), torch.from_numpy(pets.splits.fit), draws(len(pets.splits.fit))
    crops = Crops(pets, images, pets.splits.fit, 1000)
    Path(pets.files[index[3]]).unlink()
    with pytest.raises(InputError, match=rf"^{pets.files[index[3]]}: cannot be decoded \(.*No such file"):
        list(crops.stream([index], [u]))


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_images_that_are_kept_as_they_are_are_cut_too(name, eleven):
    made = data.load(name, "ericsson", eleven)
    images, index = Images(made, 16, CPU), torch.arange(12)
    crops, x = cut(made, images, index, draws(12))
    assert not crops.decodes_each_time
    assert x.shape == (12, 3, 16, 16)
    assert x.min() >= -1e-6
    assert x.max() <= 1 + 1e-6
    assert not x[0].allclose(x[1], atol=0.02)


@pytest.mark.parametrize("augment", ["crop+flip", "none"])
def test_a_step_s_images_hang_on_seed_and_step_alone(digits, augment, device):
    protocol = Finetune(steps=30, batch_size=100, augment=augment)
    images, train = Images(digits, 16, torch.device(device)), digits.splits.train
    task, other_task = (FinetuneTask(protocol, torch.nn.Identity(), digits, images, seed) for seed in (0, 1))
    whole = list(TrainBatches(task)(train))
    later = list(TrainBatches(task)(train, start=13))
    assert len(whole) == 30
    assert all(x.equal(v) and y.equal(w) for (x, y), (v, w) in zip(whole[13:], later, strict=True))
    assert not whole[0][0].equal(whole[1][0])
    other = next(iter(TrainBatches(other_task)(train)))
    assert not whole[0][0].equal(other[0])
    seen = torch.cat([y for _, y in whole[:10]]).cpu()
    assert (seen.bincount().numpy() <= np.bincount(digits.labels[train])).all()  # an epoch: no image twice


def test_evaluation_resizes_to_more_than_it_cuts_out(eleven):
    small, large = (data.load("pets", "ericsson", eleven, side) for side in (24, 30))
    images = Images(large, 24, CPU, side=30)
    (x,) = images(torch.tensor([2]))
    whole = torch.from_numpy(large.images[2]).float()[None]
    assert x.allclose(images.normalise(whole)[0, :, 3:27, 3:27])
    assert not x.allclose(Images(small, 24, CPU)(torch.tensor([2]))[0], atol=0.1)
    stored = data.load("cifar10", "ericsson", eleven)
    assert Images(stored, 24, CPU, side=30)(torch.tensor([2])).shape == (1, 3, 24, 24)
