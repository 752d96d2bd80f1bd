"""The images that a job sees: as its encoder expects them, and the larger ones that fine-tuning crops from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import data
from simclic.data.dataset import BICUBIC
from simclic.experiment import Finetune, Job, Run

if TYPE_CHECKING:
    from simclic.schedule.work import WorkerOptions


class SeenImages:
    """The images that a job saw last, which the next one probably needs too."""

    def __init__(self, options: "WorkerOptions", device: Any):
        self.options, self.device = options, device
        self.datasets, self.prepared = dict[Any, data.Dataset](), dict[Any, Any]()

    def load_dataset(self, job: Job) -> data.Dataset:
        """Return the data set that a job sees."""
        key = job.evaluated, job.image_sides[0]
        if key not in self.datasets:
            self.datasets.clear()  # before the next one fills the memory, too
            self.prepared.clear()
            self.datasets[key] = load_data(job, self.options)
        return self.datasets[key]

    def prepare_images(self, job: Job) -> Any:
        """Return the images of that data set as the encoder takes them."""
        from simclic.train.pretrain import prepare_images

        dataset, key = self.load_dataset(job), (job.evaluated, job.image_sides[0])
        if key not in self.prepared:
            self.prepared[key] = prepare_images(job.run, dataset, self.options.runs, self.device)
        return self.prepared[key]


def load_data(job: Job, options: "WorkerOptions", at: int = 0) -> data.Dataset:
    """Return the data set that a job sees. at: which of its image_sides."""
    see, (size, whole) = job.evaluated, job.image_sides[at]
    return data.load(
        see.dataset, see.split, options.data, size, see.difficult, interpolation=read_interpolation(job.run, options.runs),
        decode=options.compute.decode, whole=whole,
    )  # fmt: skip


def read_interpolation(run: Run, runs: Path) -> str:
    """Return by which interpolation the Run's images are resized: as the weights that it starts from expect."""
    if run.init == "random":
        return BICUBIC  # without torch
    from simclic.train.pretrain import expected_input

    expected = expected_input(run, runs)
    return expected.interpolation if expected else BICUBIC


def load_whole_images(job: Job, protocol: Finetune, dataset: data.Dataset, images: Any, options: "WorkerOptions") -> Any:
    """Return the images for fine-tuning: `images`, or others if the protocol resizes to a larger side first."""
    from simclic.train.pretrain import prepare_images

    run, side = job.run, protocol.resize_side(job.run.image_size)
    if side == run.image_size:
        return images
    if dataset.files:
        dataset = load_data(job, options, at=1)
    return prepare_images(run, dataset, options.runs, images.device, side)
