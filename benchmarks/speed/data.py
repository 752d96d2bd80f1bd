"""Images per second of a decoded data set against decoding its JPEGs in every epoch, as torchvision's usual pipeline does.

All give the same images in the same random order, 224 x 224, normalised, in batches of 128 on the device. The peer: a
DataLoader with one worker per core over Resize(224, bicubic), CenterCrop, ToTensor, Normalize. Ours: the memory-mapped file, or
the files themselves as --decode as-needed reads them, on as many threads; either is normalised on the device. Then a random
resized crop of each whole image, the shorter side at 256, both ways again, against RandomResizedCrop and a flip in the
DataLoader. The cost of decoding once is printed beside it. The photographs are those that come with scikit-learn, cropped and
saved as JPEGs of the sizes that Aircraft, Pets or Food have.

    python benchmarks/speed/data.py [--quick]
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from measuring import DEVICE, GPU, make_parser, measure_seconds, print_machine
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

from simclic import data
from simclic.data.crops import DRAWS, CropRule, Cutter
from simclic.data.images import Images
from simclic.experiment import count_cores

CROP = CropRule(area=(0.2, 1.0))  # SimSiam's
SIZES = ((500, 375), (375, 500), (512, 384), (1024, 700))


def main():
    """Write JPEGs, measure both, print a table and the ratio."""
    count, epochs = (384, 2) if make_parser(__doc__).parse_args().quick else (1536, 5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "photographs", count)
        decoding_seconds, dataset = measure_seconds(lambda: data.load(str(root / "photographs"), "ericsson", root))
        ours = measure_speed(epochs, count, iterate_decoded(dataset))
        files = data.load(str(root / "photographs"), "ericsson", root, decode="as-needed")
        needed = measure_speed(epochs, count, iterate_files(files))
        usual = [Resize(224, InterpolationMode.BICUBIC), CenterCrop(224)]
        theirs = measure_speed(epochs, count, iterate_jpegs(root / "photographs", usual))
        check_same_pixels(dataset, files, root / "photographs")
        whole_seconds, whole = measure_seconds(lambda: load_whole(root, "once"))
        crops = measure_speed(epochs, count, iterate_crops(whole))
        crops_needed = measure_speed(epochs, count, iterate_crops(load_whole(root, "as-needed")))
        usual = [RandomResizedCrop(224, CROP.area, CROP.aspect), RandomHorizontalFlip()]
        their_crops = measure_speed(epochs, count, iterate_jpegs(root / "photographs", usual))
        taken = sum(path.stat().st_size for path in root.glob("prepared/photographs-256-*.npy"))
    print_machine(torch, torchvision)
    sides = ", ".join(f"{width} x {height}" for width, height in SIZES)
    print(f"{count:,} JPEGs of {sides}; batches of 128 at 224 x 224; median of {epochs} epochs")
    once = f"after {decoding_seconds:.1f} s of decoding ({count / decoding_seconds:,.0f} images/s)"
    print(f"{'decoded once, memory-mapped':30}{ours:10,.0f} images/s, {once}")
    print(f"{'decoded as needed':30}{needed:10,.0f} images/s, every file hashed")
    print(f"{'DataLoader over JPEGs':30}{theirs:10,.0f} images/s")
    once = f"after {whole_seconds:.1f} s of decoding, {taken / count / 1e3:.0f} kB an image"
    print(f"{'crops of decoded whole images':30}{crops:10,.0f} images/s, {once}")
    print(f"{'crops, decoded as needed':30}{crops_needed:10,.0f} images/s, every file hashed")
    print(f"{'DataLoader, random crops':30}{their_crops:10,.0f} images/s")
    print(f"ratio decoded {ours / theirs:.2f}")
    print(f"ratio as-needed {needed / theirs:.2f}")
    print(f"ratio crops {crops / their_crops:.2f}")
    print(f"ratio crops-as-needed {crops_needed / their_crops:.2f}")


def write_photographs(folder, count):
    """Write JPEGs of two classes, cropped from the two photographs that come with scikit-learn."""
    sources, rng = [Image.fromarray(image) for image in load_sample_images().images], np.random.default_rng(0)
    for i in range(count):
        source = sources[i % 2]
        width, height = SIZES[i // 2 % len(SIZES)]
        zoom = rng.uniform(0.4, 0.9) * min(source.width / width, source.height / height)
        left, top = (rng.integers(whole - int(side * zoom)) for whole, side in zip(source.size, (width, height), strict=True))
        cut = source.crop((left, top, left + int(width * zoom), top + int(height * zoom))).resize((width, height))
        path = folder / f"class{i % 2}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut.save(path, quality=90)


def iterate_decoded(dataset):
    """Return a function that yields the batches of an epoch from our decoded images."""
    images = Images(dataset, 224, DEVICE)

    def iterate_epoch():
        for index in torch.randperm(len(images)).to(DEVICE).split(128):
            yield images(index)

    return iterate_epoch


def iterate_files(dataset):
    """Return a function that yields the batches of an epoch, decoded from their files some batches ahead."""
    images = Images(dataset, 224, DEVICE)

    def iterate_epoch():
        return (x for x, _ in images.stream(torch.randperm(len(images)).split(128)))

    return iterate_epoch


def load_whole(root, decode):
    """Return the photographs, whole, their shorter side at 256."""
    return data.load(str(root / "photographs"), "ericsson", root, 256, decode=decode, whole=True)


def iterate_crops(dataset):
    """Return a function that yields the batches of an epoch, a random crop from each whole image."""
    images = Images(dataset, 224, DEVICE)
    cutter = Cutter(dataset.images.read_image, (CROP,), images, "bilinear")

    def iterate_epoch():
        batches = torch.randperm(len(images)).split(128)
        draws = (torch.rand(len(index), 1, DRAWS) for index in batches)
        return (images.normalise(x[:, 0].float()) for x, _ in cutter.stream(batches, draws))

    return iterate_epoch


def iterate_jpegs(folder, steps):
    """Return a function that yields the batches of an epoch from JPEGs, decoded by persistent workers."""
    known = data.facts(str(folder))
    usual = Compose([*steps, ToTensor(), Normalize(known.mean, known.std)])
    options = {"num_workers": count_cores(), "persistent_workers": True, "pin_memory": GPU}
    loader = DataLoader(ImageFolder(folder, usual), 128, shuffle=True, **options)

    def iterate_epoch():
        for x, _ in loader:
            yield x.to(DEVICE, non_blocking=True)

    return iterate_epoch


def measure_speed(epochs, count, iterate_epoch):
    """Return images per second: the median over epochs, after one to warm up. Every batch is read."""
    speeds = []
    for _ in range(epochs + 1):
        started, seen, total = time.perf_counter(), 0, 0.0
        for x in iterate_epoch():
            total += float(x.sum())
            seen += len(x)
        assert seen == count
        speeds.append(count / (time.perf_counter() - started))
    return float(np.median(speeds[1:]))


def check_same_pixels(dataset, files, folder):
    """Check that all see the same pixels."""
    usual = Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224)])
    theirs = np.stack([np.asarray(usual(image)).transpose(2, 0, 1) for image, _ in (ImageFolder(folder)[i] for i in range(8))])
    assert (dataset.images[:8] == theirs).all()
    assert (files.images[np.arange(8)] == theirs).all()


if __name__ == "__main__":
    main()
