"""SimCLIC and its rivals on photographs, in miniature: a JPEG copy of CIFAR-10

cifar10_small.py on a folder: data/cifar10-jpeg/train/CLASS/*.jpg and test/CLASS/*.jpg. Such a copy is lossy: its numbers
are of these files, not of the makers' CIFAR10.

    simclic run benchmarks/cifar10_jpeg.py
"""

from pathlib import Path

from simclic import load

EXHIBITS = [exhibit.moved(dataset="data/cifar10-jpeg") for exhibit in load(Path(__file__).parent / "cifar10_small.py").exhibits]
