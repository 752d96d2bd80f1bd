"""Views that are cut from whole images: the same crops whether images are decoded once or as they are needed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import told
from conftest import compute_results, tiny
from layouts import fill, photograph
from PIL import ExifTags, Image
from torchvision.transforms import v2

from simclic import InputError, Linear, Run, data, ranks
from simclic.data.crops import CropRule, draw_window
from simclic.data.images import Images
from simclic.experiment import ComputeOptions, Job, Knn
from simclic.methods.views import ViewRecipe
from simclic.store.run_folder import RunFolder
from simclic.train import loop

CPU = torch.device("cpu")
WAYS = ("once", "as-needed")


@pytest.fixture
def birds(tmp_path):
    """A folder of 40 images of two classes, of several shapes: lying, standing, square, a panorama, and one on its side."""
    place = tmp_path / "birds"
    fill(place, 16)
    for kind in ("heron", "wren"):
        for i, size in enumerate(((30, 40), (24, 24), (90, 20), (25, 23))):
            turned = Image.Exif()
            turned[ExifTags.Base.Orientation] = 6 if i == 3 else 1
            photograph((kind, size), size).save(place / kind / f"shape{i}.jpg", exif=turned)
    return str(place)


def load(name, root, way="once", whole=True):
    return data.load(name, "ericsson", root, 18 if whole else 16, decode=way, whole=whole)


def test_whole_images_are_what_pil_resizes_whichever_way_they_are_decoded(tmp_path, birds):
    once, needed = (load(birds, tmp_path, way) for way in WAYS)
    assert once.digest == needed.digest == load(birds, tmp_path, whole=False).digest
    assert once.images.shape == needed.images.shape == (40, 3, 18, 18)
    shapes = set()
    for i, path in enumerate(once.files):
        with Image.open(path) as image:
            upright = (
                image.transpose(Image.Transpose.ROTATE_270) if image.getexif().get(ExifTags.Base.Orientation) == 6 else image
            )
            theirs = np.asarray(v2.Resize(18, v2.InterpolationMode.BICUBIC)(upright.convert("RGB"))).transpose(2, 0, 1)
        assert (once.images.read_image(i) == theirs).all()
        assert (needed.images.read_image(i) == theirs).all()
        shapes.add(theirs.shape[1:])
    assert {(18, 24), (24, 18), (18, 18), (18, 81), (19, 18)} == shapes
    index = np.arange(40)
    assert (once.images[index] == needed.images[index]).all()
    square = data.load(birds, "ericsson", tmp_path, 18)
    assert (once.images[index] == square.images).all()  # from their centres


def test_crops_are_the_same_both_ways_and_see_what_lies_beside_the_square(tmp_path):
    """Here a red edge, which no view of the square shows."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        pixels = np.zeros((32, 96, 3), np.uint8)
        pixels[:, :24, 0] = 255
        Image.fromarray(pixels).save(photos / f"{i}.png")
    run, crops = tiny(dataset=f"{photos}/**", method="simsiam", views_from="whole", batch_size=8), {}
    for way in WAYS:
        images = Images(load(run.dataset, tmp_path, way), 16, CPU)
        training = loop.Training(run, 8, CPU)
        batches = [torch.arange(8), torch.arange(8).flip(0)]
        crops[way] = list(training.stream_batches(images, batches))
        for (pixels, index), batch in zip(crops[way], batches, strict=True):
            assert index.equal(batch)
            assert pixels.shape == (8, 2, 3, 16, 16)
    for (x, _), (y, _) in zip(*crops.values(), strict=True):
        assert x.equal(y)
    (first, _), (second, _) = crops["once"]
    assert not first[:, 0].equal(first[:, 1])  # two views
    assert not first.equal(second.flip(0))  # of another step
    assert (first[:, :, 0].amax(dim=(2, 3)) > 200).any()
    square = Images(data.load(run.dataset, "ericsson", tmp_path, 16), 16, CPU)
    assert square.fetch(torch.arange(8)).max() < 100
    views = training.prepare_views(first, images)
    assert [view.shape for view in views] == [(8, 3, 16, 16)] * 2


def test_a_crop_is_torchvision_s_of_the_same_window(tmp_path, birds):
    run = tiny(dataset=birds, method="simsiam", views_from="whole", batch_size=8)
    dataset, training = load(birds, tmp_path), loop.Training(run, 40, CPU)
    ((pixels, _),) = training.stream_batches(Images(dataset, 16, CPU), [torch.arange(8)])
    draws, recipe = training._draw_crops(0), ViewRecipe()
    rule = CropRule(recipe.area, recipe.aspect, recipe.p_flip)
    for i in range(8):
        whole = dataset.images.read_image(i)
        for view, u in zip(pixels[i], draws[i].tolist(), strict=True):
            window = draw_window(*whole.shape[1:], u, rule)
            theirs = v2.functional.resized_crop(torch.from_numpy(whole), *window, [16, 16], antialias=True)
            theirs = theirs.flip(2) if u[-1] < recipe.p_flip else theirs
            assert (view.int() - theirs.int()).abs().max() <= 1


def test_ranks_cut_their_rows_of_the_same_batch(tmp_path, birds, monkeypatch):
    run = tiny(dataset=birds, method="simsiam", views_from="whole", batch_size=8)
    images, training = Images(load(birds, tmp_path), 16, CPU), loop.Training(run, 40, CPU)
    ((whole, _),) = training.stream_batches(images, [torch.arange(8)])
    monkeypatch.setattr(ranks, "count_ranks", lambda: 2)
    for rank in range(2):
        part = slice(4 * rank, 4 * rank + 4)
        monkeypatch.setattr(ranks, "own_rows", lambda count, part=part: part)
        ((own, index),) = training.stream_batches(images, [torch.arange(8)])
        assert own.equal(whole[part])
        assert index.equal(torch.arange(8))


def test_both_ways_end_with_the_same_weights_also_after_a_kill_and_others_than_squares(tmp_path, birds):
    class Killed(Exception):
        """In place of a kill."""

    def die(share, note):
        if note.startswith("epoch 3"):
            raise Killed

    ended, fields = {}, {"dataset": birds, "method": "simsiam", "epochs": 4, "batch_size": 8}
    for first, then, views_from in (("once", "once", "whole"), ("once", "as-needed", "whole"), ("once", "once", "square")):
        run, runs = tiny(**fields, views_from=views_from), tmp_path / f"{first}-{then}-{views_from}"
        if first != then:
            with pytest.raises(Killed):
                compute_results(run, [], runs, tmp_path, tell=die, compute=ComputeOptions(minutes=0, decode=first))
        protocols = [Linear(l2_count=2, tolerance=1e-2)]
        errors = compute_results(run, protocols, runs, tmp_path, compute=ComputeOptions(decode=then))
        record = RunFolder(runs, run).encoder_record()
        assert bool(record["resumed"]) == (first != then)
        ended[runs.name] = record["backbone_sha256"], *errors.values()
    whole, resumed, square = ended.values()
    assert whole == resumed
    assert whole[0] != square[0]


def test_whole_images_are_a_field_of_the_methods_that_augment_alone():
    assert tiny(dataset="food", method="simsiam").name == tiny(dataset="food", method="simsiam", views_from="square").name
    run = Run(dataset="food", method="simsiam", views_from="whole")
    assert run.whole_side == 256
    assert Job(run).image_sides == ((256, True),)
    assert Job(run, Linear(on="cifar10")).evaluated.dataset == "cifar10"  # from whose images no views are cut
    assert Job(run, Linear()).image_sides == Job(run, Knn(on="pets")).image_sides == ((224, False),)
    for wrong in ({"dataset": "food"}, {"dataset": "cifar10", "method": "simsiam"}):
        with pytest.raises(InputError, match=r"views_from='whole' has no effect with .*; remove it"):
            Run(**wrong, views_from="whole")


def test_prepare_says_what_whole_images_take_and_makes_them(tmp_path, birds, capsys):
    words = ("data", "prepare", birds, "--data", tmp_path, "--size", "14")
    code, out, _ = told(capsys, *words)
    assert code == 0
    assert "40 images decoded at 14 pixels take 23.5 kB; whole, with a shorter side of 16, would take about 41 kB; in" in out
    code, out, _ = told(capsys, *words, "--whole")
    assert code == 0
    assert "would take 23.5 kB; whole, with a shorter side of 16, take about 41 kB; in" in out
    assert "40 images whole, 16 pixels along the shorter side, ready" in out
    (file,) = Path(tmp_path / "prepared").glob("birds-16-*.npy")
    assert told(capsys, "data", "check", birds, "--data", tmp_path)[0] == 0
    file.write_bytes(file.read_bytes()[:-1])
    code, _, err = told(capsys, *words, "--whole")
    assert code == 1
    assert "is not a whole decoded file" in err
    for name in ("digits", "cifar10"):  # before anything is downloaded
        code, out, err = told(capsys, "data", "prepare", name, "--whole", "--data", tmp_path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "its images are kept as they are, square, so that there are no whole ones" in err


def test_a_broken_file_among_whole_images_is_named(tmp_path, birds):
    broken = Path(birds) / "wren/shape0.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for way in WAYS:
        with pytest.raises(InputError, match=r"wren/shape0.jpg: cannot be decoded"):
            load(birds, tmp_path, way)
    assert not list(Path(tmp_path / "prepared").glob("*.npy"))
