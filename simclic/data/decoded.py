"""Images decoded once: without augmentation they are constants, so a memory-mapped file replaces decoding for ever after."""

import contextlib
import hashlib
import io
import math
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from simclic import files
from simclic.data import manifest
from simclic.data.dataset import BICUBIC
from simclic.data.image_file import ImageFile, crop_centre, join_missing, read_image_file, read_shape, resized_shape
from simclic.data.listing import Listing
from simclic.data.whole_images import WholeImages
from simclic.errors import InputError
from simclic.experiment import count_cores
from simclic.progress import Tell
from simclic.text import format_bytes

STEPS = {  # part of the key: change it with the code
    False: "RGB, shorter side resized ({}), centre crop",
    True: "RGB, shorter side resized ({}), whole",
}


T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Selection:
    """Some images of a data set, at one size. used: (n,) which of the listing. root: where all data sets lie.

    interpolation: as in Dataset. whole: whether they are whole, with their shorter side at `size`, and not centre squares of it.
    """

    name: str
    listing: Listing
    used: np.ndarray
    root: Path
    size: int
    interpolation: str = BICUBIC
    whole: bool = False

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The files that the images come from, below listing.base."""
        return self.listing.holders or tuple(self.listing.paths[i] for i in self.used.tolist())

    def read(self, path: str, **options: Any) -> ImageFile:
        """Return read_image_file of one of the sources."""
        return read_image_file(self.listing.base / path, upright=self.listing.upright, **options)

    def decode(self, path: str) -> ImageFile:
        """Return one of the sources with its pixels."""
        return self.read(path, size=self.size, interpolation=self.interpolation, whole=self.whole)

    def decode_all(self) -> Iterator[ImageFile]:
        """Yield every image with its pixels."""
        if self.listing.pixels is not None:
            return (ImageFile(manifest.UNKNOWN, "", pixels=self.listing.pixels[i]) for i in self.used)
        return map_in_order(self.decode, self.sources)

    def read_shapes(self) -> np.ndarray:
        """Return height and width of each image whole, from the headers of the files: (n, 2); (0, 0) if one has none."""

        def read(path: str) -> tuple[int, int]:
            with contextlib.suppress(InputError):  # whoever decodes it says what is wrong with it
                return resized_shape(*read_shape(self.listing.base / path, self.listing.upright), self.size)
            return 0, 0

        return np.array(list(map_in_order(read, self.sources)), dtype="<i4").reshape(-1, 2)

    def path(self, sums: manifest.Sums) -> Path:
        """Return the path of the decoded file, whose name depends on its sources and on how they are decoded."""
        steps = "as stored" if self.listing.holders else STEPS[self.whole].format(self.interpolation)
        h = hashlib.sha256(f"{steps}\t{self.size}\n".encode())
        h.update("".join(map(sums.__getitem__, self.sources)).encode())
        if self.listing.holders:
            h.update(self.used.tobytes())
        return manifest.prepared_folder(self.root) / f"{manifest.file_stem(self.name)}-{self.size}-{h.hexdigest()[:16]}.npy"


def open_images(chosen: Selection, tell: Tell) -> tuple[np.ndarray | WholeImages, manifest.Sums]:
    """Return the decoded images, (n, 3, size, size) uint8, memory-mapped, and the SHA-256 of each file that they come from.

    Decodes them if that has not been done; jobs that do so at once do not hurt each other. Raises InputError with a line for
    every file that is missing or cannot be decoded.
    """
    sums = manifest.known_sums(chosen.name, chosen.root, chosen.listing.base, chosen.sources)
    unknown = [path for path in chosen.sources if path not in sums]
    if unknown and (chosen.listing.holders or list_decoded(chosen.name, chosen.root, chosen.size)):
        image_files = map_in_order(lambda path: chosen.read(path, decode=False), unknown)  # copied, perhaps: reading is cheap
        sums |= _remember_digests(chosen, dict(zip(unknown, image_files, strict=True)))
        unknown = []
    if unknown or not (path := chosen.path(sums)).is_file():
        sums = _decode_selection(chosen, sums, tell)
        path = chosen.path(sums)
    content = open_decoded(path)
    return WholeImages(content, len(chosen.used), chosen.size) if chosen.whole else content, sums


class FileImages:
    """Images that are decoded from their files whenever they are asked for, to the pixels that decoding once would store.

    shape: (n, 3, size, size). Indexed with (B,) integers, returns centre squares, (B, 3, size, size) uint8, decoded on all cores.
    Raises InputError for a file that has changed since its digest was taken. sums: SHA-256 of each file, by its path.
    """

    def __init__(self, chosen: Selection, sums: manifest.Sums):
        self.chosen, self.sums, self.shape = chosen, sums, (len(chosen.used), 3, chosen.size, chosen.size)

    def __len__(self) -> int:
        return len(self.chosen.used)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that decode."""
        return ThreadPoolExecutor(count_cores())

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.stack([crop_centre(pixels) for pixels in self.pool.map(self.read_image, index.tolist())])

    def read_image(self, i: int) -> np.ndarray:
        """Return an image, (3, H, W) uint8, whole if that was chosen."""
        path = self.chosen.sources[i]
        file = self.chosen.decode(path)
        if file.problem or file.pixels is None:
            raise InputError(file.problem)
        if file.sha256 != self.sums[path]:
            raise InputError(f"{self.chosen.listing.base / path}: was changed while it was used; put it back and run this again")
        return file.pixels


def open_files(chosen: Selection, tell: Tell) -> tuple[np.ndarray | WholeImages | FileImages, manifest.Sums]:
    """Return the images, decoded whenever they are asked for, and the SHA-256 of each file that they come from.

    Every file that is new or has changed is read and decoded once, so that no broken one is met later. Images that do not lie in
    files of their own are decoded once. Raises InputError as `open_images`.
    """
    if chosen.listing.holders:
        return open_images(chosen, tell)
    sums = manifest.known_sums(chosen.name, chosen.root, chosen.listing.base, chosen.sources)
    unknown, seen = [path for path in chosen.sources if path not in sums], dict[str, ImageFile]()
    for path, file in zip(unknown, map_in_order(chosen.read, unknown), strict=True):
        seen[path] = file
        tell(len(seen) / len(unknown), f"reading {len(seen):,} of {len(unknown):,}")
    return (images := FileImages(chosen, sums | _remember_digests(chosen, seen))), images.sums


def _decode_selection(chosen: Selection, sums: manifest.Sums, tell: Tell) -> manifest.Sums:
    """Decode on all cores, write in order, and give the file its name once it is whole. Return the SHA-256 of the files."""
    place, shapes = manifest.prepared_folder(chosen.root), chosen.read_shapes() if chosen.whole else None
    shape: tuple[int, ...] = (len(chosen.used), 3, chosen.size, chosen.size)
    if shapes is not None:
        shape = (shapes.nbytes + 3 * int(shapes.prod(axis=1, dtype=np.int64).sum()),)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(place, chosen)
        _check_disk_space(place, math.prod(shape))
        with files.open_temporary(place, f"{manifest.file_stem(chosen.name)}-{chosen.size}") as f:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            h, seen = hashlib.sha256(), dict[str, ImageFile]()
            for block in chain([header.getvalue()], _pixel_blocks(chosen, shapes, seen, tell)):
                f.write(block)
                h.update(block)
            sums = sums if chosen.listing.holders else _remember_digests(chosen, seen)
            path = chosen.path(sums)
            files.write_bytes(path.with_suffix(".sha256"), f"{h.hexdigest()}\n".encode())
            files.publish_file(f, path)
    except OSError as e:
        raise InputError(f"{place}: cannot be written ({e.strerror}); choose another place with --cache DIR") from e
    return sums


def _pixel_blocks(chosen: Selection, shapes: np.ndarray | None, seen: dict[str, ImageFile], tell: Tell) -> Iterator[bytes]:
    """Yield the pixels of each image up to the first broken one. The rest are still read, so that every problem is named.

    shapes: of whole images, which are yielded first, and after which channels lie innermost.
    """
    broken = False
    if shapes is not None:
        yield shapes.tobytes()
    for n, (i, image) in enumerate(zip(chosen.used, chosen.decode_all(), strict=True), 1):
        if shapes is not None and image.pixels is not None and image.pixels.shape[1:] != tuple(shapes[n - 1]):
            image = image._replace(
                problem=f"{chosen.listing.base / chosen.listing.paths[i]}: has other sides than its header says"
            )
        broken |= bool(image.problem)
        if not broken and image.pixels is not None:
            yield (image.pixels if shapes is None else image.pixels.transpose(1, 2, 0)).tobytes()
        seen[chosen.listing.paths[i]] = image._replace(pixels=None)
        tell(n / len(chosen.used), f"decoding {n:,} of {len(chosen.used):,}")


def _delete_leftovers(place: Path, chosen: Selection) -> None:
    """Remove unfinished files of killed processes: a live process writes at least once an hour."""
    for leftover in place.glob(f".{manifest.file_stem(chosen.name)}-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > 3600:
                leftover.unlink()


def open_decoded(path: Path) -> np.ndarray:
    """Return a decoded file as a read-only memory map. Raise InputError if it is incomplete or cannot be read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as e:
        raise InputError(f"{path}: is not a whole decoded file ({e}); delete it") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e


def list_decoded(name: str, root: Path, size: int | str = "*") -> list[Path]:
    """Return the decoded files of a data set, of all sizes or one. Beside each lies its SHA-256."""
    return sorted(manifest.prepared_folder(root).glob(f"{manifest.file_stem(name)}-{size}-*.npy"))


class Stored(NamedTuple):
    """A file beside decoded images or with them. stem, size: of which data set (see manifest.file_stem) and at how many pixels.

    finished: whether it has its name; else a process that was killed, or is at work, began it.
    """

    path: Path
    stem: str
    size: str
    finished: bool


def list_stored(root: Path) -> list[Stored]:
    """Return decoded images, their digests, and what was begun of these or of the list of a data set's files."""
    stored = []
    for path in sorted(manifest.prepared_folder(root).glob("*")):
        name = files.intended_name(path)
        if match := re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{16}\.(npy|sha256)", path.name):
            stored.append(Stored(path, match[1], match[2], True))
        elif re.fullmatch(r".+-(\d+|(files|[0-9a-f]{6})\.json|\d+-[0-9a-f]{16}\.sha256)", name):
            stored.append(Stored(path, "", "", False))
    return stored


def map_in_order(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield `work` of each item in order, computed on all cores a few ahead. PIL and hashing release the GIL, so threads do."""
    with ThreadPoolExecutor(count_cores()) as pool:
        for begun in keep_in_flight((pool.submit(work, item) for item in items), 4 * count_cores()):
            yield begun.result()


def keep_in_flight(submitted: Iterable[T], count: int) -> Iterator[T]:
    """Yield submitted work in order, keeping up to `count` pieces in flight."""
    ahead: deque[T] = deque()
    for piece in submitted:
        ahead.append(piece)
        if len(ahead) > count:
            yield ahead.popleft()
    while ahead:
        yield ahead.popleft()


def _remember_digests(chosen: Selection, seen: dict[str, ImageFile]) -> manifest.Sums:
    """Store and return the SHA-256 of files that were all read. Raise InputError with a line for each damaged one."""
    if problems := {chosen.listing.base / path: file.problem for path, file in seen.items() if file.problem}:
        raise InputError("\n".join(join_missing(problems)))
    manifest.store_sums(chosen.name, chosen.root, {path: (file.stamp, file.sha256) for path, file in seen.items()})
    return {path: file.sha256 for path, file in seen.items()}


def _check_disk_space(place: Path, wanted: int) -> None:
    """Raise InputError if the disk cannot hold so many bytes more."""
    free = shutil.disk_usage(place).free
    if free < wanted:
        need = f"{format_bytes(wanted)} are needed, {format_bytes(free)} are free"
        raise InputError(f"{place}: {need}; choose another place with --cache DIR, or run with --decode as-needed")
