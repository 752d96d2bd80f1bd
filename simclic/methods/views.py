"""Augmented views of a batch, computed on its device, which depend on the generator's seed alone.

Views are cropped from the stored square images, so that the parts of an original image outside its square are never seen, or
with views_from='whole' cut from whole images on the CPU (simclic/data/crops.py) before they come here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from simclic import ranks

OPERATIONS = 2 * 14  # of RandAugment, each in two directions
CROP_TRIES = 10  # to find a crop that fits into the image, as in torchvision's RandomResizedCrop
NO_BLUR_UP_TO = 64  # pixels along each side of images up to which nothing is blurred (SimSiam, appendix D, does not on CIFAR)


@dataclass(frozen=True)
class ViewRecipe:
    """How a view differs from its image. The defaults are SimSiam's (Section 3, "Baseline settings", and its official code).

    area: of the crop, as a share of the image. aspect: its width over its height. sigma: of the blur, in pixels of the view.
    brightness, contrast, saturation: a factor in [1 - value, 1 + value]. hue: a turn in [-hue, hue] of the colour circle.
    Names that begin with p_: the probability of a step. randaugment: operations of RandAugment (Cubuk et al., 2020).
    """

    area: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    p_flip: float = 0.5
    p_jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    p_grey: float = 0.2
    p_blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    p_solarise: float = 0.0
    randaugment: int = 0


def augment_images(pixels: Tensor, size: int, recipe: ViewRecipe, generator: torch.Generator) -> Tensor:
    """Return one view of each image: (B, 3, size, size) float32 in [0, 255].

    pixels: (B, 3, H, H) uint8. generator: of the CPU, so that views are the same on every device. In the order of the official
    code: crop, jitter, grey, blur, RandAugment, solarise, flip (which goes with the crop here: it commutes with most). Every rank
    draws for the whole batch, whose rows these are in part.
    """
    count = len(pixels) * ranks.count_ranks()
    part = ranks.own_rows(count)
    top, left, height, width = draw_crops(count, recipe, generator)[:, part].to(pixels.device)
    flips = choose_own(draw_subset(count, recipe.p_flip, generator), part)[0].to(pixels.device)
    rows, columns = window_weights(top, height, size, pixels.shape[2]), window_weights(left, width, size, pixels.shape[3])
    columns[flips] = columns[flips].flip(1)
    return alter_crops(resample_pixels(pixels.float().div_(255), rows, columns), recipe, generator)


def alter_crops(x: Tensor, recipe: ViewRecipe, generator: torch.Generator) -> Tensor:
    """Return crops after all that follows the crop and the flip in a recipe: (B, 3, S, S) float32 in [0, 255].

    x: (B, 3, S, S) in [0, 1]; it is overwritten. generator: as in augment_images.
    """
    device, size, count = x.device, x.shape[-1], len(x) * ranks.count_ranks()
    part = ranks.own_rows(count)
    own, which = choose_own(draw_subset(count, recipe.p_jitter, generator), part)
    jittered = own.to(device)
    x[jittered] = jitter_colours(x[jittered], recipe, generator, which)
    grey = choose_own(draw_subset(count, recipe.p_grey, generator), part)[0].to(device)
    x[grey] = luminance(x[grey]).expand(-1, 3, -1, -1)
    if size > NO_BLUR_UP_TO:
        own, which = choose_own(draw_subset(count, recipe.p_blur, generator), part)
        blurred, sigma = own.to(device), draw_uniform(recipe.sigma, len(which), generator)[which].to(device)
        weights = gaussian_weights(sigma, size)
        x[blurred] = resample_pixels(x[blurred], weights, weights)
    for _ in range(recipe.randaugment):
        x = apply_operations(x, torch.randint(OPERATIONS, (count,), generator=generator)[part])
    if recipe.p_solarise:
        solarised = choose_own(draw_subset(count, recipe.p_solarise, generator), part)[0].to(device)
        x[solarised] = solarise(x[solarised])
    return x.mul_(255)


def draw_crops(count: int, recipe: ViewRecipe, generator: torch.Generator) -> Tensor:
    """Return top, left, height and width of `count` crops as shares of a square image: (4, count).

    Area and logarithm of the aspect are uniform, drawn until a crop fits; the whole image if none of TRIES does.
    """
    area = draw_uniform(recipe.area, (CROP_TRIES, count), generator)
    aspect = draw_uniform((math.log(recipe.aspect[0]), math.log(recipe.aspect[1])), (CROP_TRIES, count), generator).exp()
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()])  # (2, TRIES, count)
    fits = (sides <= 1).all(dim=0)
    first = (fits * torch.arange(CROP_TRIES, 0, -1)[:, None]).argmax(dim=0)  # of those that fit
    height, width = torch.where(fits.any(dim=0), sides[:, first, torch.arange(count)], 1.0)
    top, left = torch.rand(2, count, generator=generator)
    return torch.stack([top * (1 - height), left * (1 - width), height, width])


def draw_uniform(bounds: tuple[float, float], shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random numbers between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)


def draw_subset(count: int, p: float, generator: torch.Generator) -> Tensor:
    """Return the indices, on the CPU, of a random subset of `count` images, each with probability p."""
    return (torch.rand(count, generator=generator) < p).nonzero()[:, 0]


def choose_own(subset: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Return those of a subset of a batch that are in this part, counted from its first row, and which of the subset: a mask."""
    which = (subset >= part.start) & (subset < part.stop)
    return subset[which] - part.start, which


def resample_pixels(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return weighted means of pixels. x: (B, 3, H, W). rows: (B, S, H). columns: (B, T, W). Returns (B, 3, S, T)."""
    return rows[:, None] @ (x.flatten(1, 2) @ columns.mT).unflatten(1, (3, -1))


def window_weights(start: Tensor, length: Tensor, size: int, stored: int) -> Tensor:
    """Return the weights that bilinear interpolation, antialiased as PIL's, gives the stored pixels: (B, size, stored).

    start, length: (B,) of the window, as shares of the image. size: pixels of the view. stored: pixels of the image.
    """
    step = (length * stored / size)[:, None, None]  # from one pixel of the view to the next, in stored pixels
    centre = (start * stored)[:, None, None] + step * (torch.arange(size, device=start.device)[:, None] + 0.5)
    distance = (torch.arange(stored, device=start.device) + 0.5 - centre).abs() / step.clamp_min(1)
    weights = (1 - distance).clamp_min(0)
    return weights / weights.sum(dim=2, keepdim=True)


def gaussian_weights(sigma: Tensor, size: int) -> Tensor:
    """Return the weights of a Gaussian blur, which sum to 1 at the border too: (B, size, size). sigma: (B,) in pixels."""
    at = torch.arange(size, device=sigma.device)
    weights = (-0.5 * ((at - at[:, None]) / sigma[:, None, None]).square()).exp()
    return weights / weights.sum(dim=2, keepdim=True)


def jitter_colours(x: Tensor, recipe: ViewRecipe, generator: torch.Generator, which: Tensor | None = None) -> Tensor:
    """Return images with other brightness, contrast, saturation and hue, in an order that is drawn once for the batch.

    x: (n, 3, S, S) in [0, 1]. Every image has factors of its own. which: (N,), n of them true, if factors are drawn
    for others, too.
    """
    which = torch.ones(len(x), dtype=torch.bool) if which is None else which
    steps: list[tuple[Callable[[Tensor, Tensor], Tensor], tuple[float, float]]] = [
        (blend_black, (1 - recipe.brightness, 1 + recipe.brightness)),
        (blend_mean, (1 - recipe.contrast, 1 + recipe.contrast)),
        (blend_grey, (1 - recipe.saturation, 1 + recipe.saturation)),
        (turn_hue, (-recipe.hue, recipe.hue)),
    ]
    for n in torch.randperm(len(steps), generator=generator).tolist():
        change, bounds = steps[n]
        x = change(x, draw_uniform(bounds, (len(which), 1, 1, 1), generator)[which].to(x.device))
    return x


def apply_operations(x: Tensor, drawn: Tensor) -> Tensor:
    """Return each image after one of RandAugment's 14 operations, at magnitude 10 of 30, as torchvision has them.

    x: (B, 3, S, S) in [0, 1]. drawn: (B,) twice the operation, plus 1 for the other direction: those that turn or shift do so
    either way; brightness, colour, contrast and sharpness grow or shrink. Operations see bytes.
    """
    # torchvision's transforms take a second to import, and no other method uses them
    from torchvision.transforms.v2 import functional as tv

    def move(x: Tensor, angle: float = 0, shift: list[int] | None = None, shear: list[float] | None = None) -> Tensor:
        return tv.affine(x, angle, shift or [0, 0], 1.0, shear or [0.0, 0.0], center=[0, 0] if shear else None)

    size = x.shape[-1]
    angle, pixels = math.degrees(math.atan(0.1)), int(150 / 331 * size / 3)
    operations: list[Callable[[Tensor, int], Tensor]] = [
        lambda x, sign: x,
        lambda x, sign: move(x, shear=[sign * angle, 0.0]),
        lambda x, sign: move(x, shear=[0.0, sign * angle]),
        lambda x, sign: move(x, shift=[sign * pixels, 0]),
        lambda x, sign: move(x, shift=[0, sign * pixels]),
        lambda x, sign: move(x, angle=sign * 10.0),
        lambda x, sign: tv.adjust_brightness(x, 1 + sign * 0.3),
        lambda x, sign: tv.adjust_saturation(x, 1 + sign * 0.3),
        lambda x, sign: tv.adjust_contrast(x, 1 + sign * 0.3),
        lambda x, sign: tv.adjust_sharpness(x, 1 + sign * 0.3),
        lambda x, sign: tv.posterize(x, 7),
        lambda x, sign: tv.solarize(x, 170),
        lambda x, sign: tv.autocontrast(x),
        lambda x, sign: tv.equalize(x),
    ]
    pixels8 = (x * 255).round_().byte()
    for n in drawn.unique().tolist():
        at = (drawn == n).nonzero()[:, 0].to(x.device)
        pixels8[at] = operations[n // 2](pixels8[at], 1 - 2 * (n % 2))
    return pixels8.float() / 255


def luminance(x: Tensor) -> Tensor:
    """Return the grey of each pixel: (B, 3, S, S) to (B, 1, S, S)."""
    red, green, blue = x.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def blend_black(x: Tensor, factor: Tensor) -> Tensor:
    """Change the brightness."""
    return (x * factor).clamp_(0, 1)


def blend_mean(x: Tensor, factor: Tensor) -> Tensor:
    """Change the contrast: away from each image's mean grey, or towards it."""
    return luminance(x).mean(dim=(2, 3), keepdim=True).lerp(x, factor).clamp_(0, 1)


def blend_grey(x: Tensor, factor: Tensor) -> Tensor:
    """Change the saturation: away from each pixel's grey, or towards it."""
    return luminance(x).lerp(x, factor).clamp_(0, 1)


def solarise(x: Tensor) -> Tensor:
    """Invert the brighter half of the scale. x: (B, 3, S, S) in [0, 1]."""
    return torch.where(x >= 0.5, 1 - x, x)


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue (of HSV) by a share of the circle; value and saturation stay."""
    value, low = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
    chroma = value - low
    red, green, blue = x.split(1, dim=1)
    safe = chroma.clamp_min(1e-8)
    hue = torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(value == red, (green - blue) / safe, hue) + 6 * turn  # in sixths of the circle
    at = (torch.tensor([5.0, 3.0, 1.0], device=x.device).reshape(1, 3, 1, 1) + hue) % 6
    return value - chroma * torch.minimum(at, 4 - at).clamp_(0, 1)
