"""Augmented views: what the recipe says, drawn from the seed alone."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from simclic.methods.views import (
    ViewRecipe,
    apply_operations,
    augment_images,
    draw_crops,
    gaussian_weights,
    jitter_colours,
    resample_pixels,
    turn_hue,
    window_weights,
)

PLAIN = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "p_flip": 0.0, "p_jitter": 0.0, "p_grey": 0.0, "p_blur": 0.0}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (1000, 3, 8, 8), dtype=torch.uint8, generator=seeded(0))


def share(changed, p, count=1000):
    """Is the share of these what an event of probability p has?"""
    return abs(changed.float().mean().item() - p) < 4 * math.sqrt(p * (1 - p) / count)


def test_a_view_is_a_function_of_the_seed_and_the_next_one_differs(pixels):
    generator = seeded(3)
    one, two = augment_images(pixels, 8, ViewRecipe(), generator), augment_images(pixels, 8, ViewRecipe(), generator)
    assert augment_images(pixels, 8, ViewRecipe(), seeded(3)).equal(one)
    assert not augment_images(pixels, 8, ViewRecipe(), seeded(4)).equal(one)
    assert ((one - two).abs().amax(dim=(1, 2, 3)) > 1).all()
    assert one.min() >= 0
    assert one.max() <= 255


def test_crops_are_distributed_as_in_torchvision_s_algorithm():
    """Its loop, written out: draw area and aspect until the crop fits, then its place."""
    rng, areas = np.random.default_rng(0), []
    while len(areas) < 20_000:
        area, aspect = rng.uniform(0.2, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        if math.sqrt(area * aspect) <= 1 and math.sqrt(area / aspect) <= 1:
            areas.append(area)
    top, left, height, width = draw_crops(20_000, ViewRecipe(), seeded(0))
    assert torch.quantile(height * width, torch.linspace(0, 1, 11)).numpy() == pytest.approx(
        np.quantile(areas, np.linspace(0, 1, 11)), abs=0.02
    )
    assert ((width / height > 0.749) & (width / height < 1.334)).all()
    assert ((top >= 0) & (left >= 0) & (top + height <= 1 + 1e-6) & (left + width <= 1 + 1e-6)).all()
    assert (top / (1 - height)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert (width > height).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_crop_that_never_fits_is_the_whole_image():
    crops = draw_crops(5, ViewRecipe(area=(1.0, 1.0), aspect=(2.0, 3.0)), seeded(0))
    assert crops.equal(torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None].expand(4, 5))


@pytest.mark.parametrize(("side", "size"), [(30, 16), (20, 48), (40, 40)])
def test_a_window_is_enlarged_or_shrunk_as_pil_does_it(side, size):
    image = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    weights = window_weights(torch.zeros(1), torch.tensor([side / 40]), size, 40)
    ours = resample_pixels(torch.from_numpy(image).float().expand(1, 3, 40, 40), weights, weights)[0, 0].numpy()
    theirs = np.asarray(Image.fromarray(image).crop((0, 0, side, side)).resize((size, size), Image.Resampling.BILINEAR))
    inside = slice(0, size - 3)  # behind the window's far edge there are pixels, which PIL does not see
    assert np.abs(ours - theirs)[inside, inside].max() <= 1.01  # PIL rounds twice


def test_half_are_mirrored(pixels):
    out = augment_images(pixels, 8, ViewRecipe(**PLAIN | {"p_flip": 0.5}), seeded(0))
    flat, mirrored = pixels.float(), pixels.float().flip(3)
    same = (out - flat).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert (same | ((out - mirrored).abs().amax(dim=(1, 2, 3)) < 1e-3)).all()
    assert share(same, 0.5)


def test_a_share_is_grey_and_a_share_is_jittered(pixels):
    grey = augment_images(pixels, 8, ViewRecipe(**PLAIN | {"p_grey": 0.2}), seeded(0))
    assert share((grey[:, 0] - grey[:, 2]).abs().amax(dim=(1, 2)) < 1e-3, 0.2)
    jittered = augment_images(pixels, 8, ViewRecipe(**PLAIN | {"p_jitter": 0.8}), seeded(0))
    assert share((jittered - pixels).abs().amax(dim=(1, 2, 3)) > 1e-2, 0.8)


def test_small_images_are_not_blurred_and_half_of_the_others_are():
    pixels = torch.randint(0, 256, (200, 3, 65, 65), dtype=torch.uint8, generator=seeded(0))
    recipe = ViewRecipe(**PLAIN | {"p_blur": 0.5, "sigma": (1.0, 2.0)})
    assert share((augment_images(pixels, 65, recipe, seeded(0)) - pixels).abs().amax(dim=(1, 2, 3)) > 1, 0.5, 200)
    small = pixels[..., :64, :64]
    assert torch.allclose(augment_images(small, 64, recipe, seeded(0)), small.float(), atol=1e-3)


def test_a_blur_is_a_gaussian_of_its_sigma():
    weights = gaussian_weights(torch.tensor([1.5]), 41)[0]
    assert torch.allclose(weights.sum(dim=1), torch.ones(41))
    at = torch.arange(41.0)
    assert (weights[20] * (at - 20).square()).sum().sqrt().item() == pytest.approx(1.5, rel=1e-3)


def test_hue_turns_as_colorsys_turns_it():
    x = torch.rand(50, 3, 1, 1, generator=seeded(0))
    turned = turn_hue(x, torch.full((50, 1, 1, 1), 0.07))[..., 0, 0]
    for before, after in zip(x[..., 0, 0].tolist(), turned.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(h + 0.07, s, v), abs=1e-5)
    assert torch.allclose(turn_hue(x, torch.ones(50, 1, 1, 1)), x, atol=1e-5)


def test_factors_of_the_jitter_lie_in_their_bounds():
    x = torch.full((2000, 3, 2, 2), 0.5)
    factors = jitter_colours(x, ViewRecipe(contrast=0.0, saturation=0.0, hue=0.0), seeded(0))[:, 0, 0, 0] / 0.5
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4
    assert factors.mean().item() == pytest.approx(1.0, abs=0.03)
    x = torch.rand(50, 1, 4, 4, generator=seeded(0)).expand(-1, 3, -1, -1)
    grey = jitter_colours(x, ViewRecipe(), seeded(0))
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-5)  # what is grey stays grey
    assert torch.allclose(jitter_colours(x, ViewRecipe(brightness=0.0, contrast=0.0), seeded(0)), x, atol=1e-5)


def test_operations_of_randaugment_are_torchvision_s():
    """Every result of torchvision's own at magnitude 10 of 30, to a grey level, and no other."""
    image = torch.nn.functional.avg_pool2d(torch.rand(3, 32, 32, generator=seeded(0)), 5, 1, 2)  # smooth, as photographs
    image = (image * 255).byte()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([v2.RandAugment(num_ops=1, magnitude=10)(image) for _ in range(300)])
    drawn = torch.randint(28, (300,), generator=seeded(0))
    x = (image / 255.0).expand(300, -1, -1, -1).clone()
    ours = (apply_operations(x, drawn) * 255).round()
    theirs, ours = (v.float().flatten(1).unique(dim=0) for v in (theirs, ours))
    nearest = torch.cdist(theirs, ours, p=float("inf"))
    assert len(theirs) == len(ours) > 20
    assert (nearest.amin(dim=0) <= 1).all()
    assert (nearest.amin(dim=1) <= 1).all()
