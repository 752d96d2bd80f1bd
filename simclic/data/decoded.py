"""Images decoded once: without augmentation they are constants, so a memory-mapped file replaces decoding for ever after."""

import contextlib
import errno
import hashlib
import io
import math
import re
import shutil
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from simclic import files
from simclic.data import manifest
from simclic.data.listing import Listing
from simclic.errors import InputError
from simclic.experiment import cores
from simclic.progress import Tell
from simclic.text import format_bytes

STEPS = "RGB, shorter side resized (bicubic), centre crop"  # part of the key: change it with the code
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # of 8 bits a channel, which turn into RGB
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError, MemoryError)

T = TypeVar("T")
R = TypeVar("R")


class Look(NamedTuple):
    """What one file is: stamp and SHA-256 of its bytes, the image's mode, its pixels if asked for, or what is wrong with it."""

    stamp: manifest.Stamp
    sha256: str
    mode: str = ""
    pixels: np.ndarray | None = None
    problem: str = ""


def look(path: Path, decode: bool = True, size: int | None = None) -> Look:
    """Read a file once: its digest, whether all of it decodes, and with `size` its pixels, (3, size, size) uint8."""
    try:
        stamp, content = manifest.stamp(path), path.read_bytes()  # in this order: what changes in between is read again
    except OSError as e:
        return Look((0, 0), "", problem=f"{path}: " + ("is missing" if e.errno == errno.ENOENT else f"{e.strerror}"))
    seen = Look(stamp or (0, 0), hashlib.sha256(content).hexdigest())
    if not decode:
        return seen
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format == "JPEG" and _cut_short(content):
                return seen._replace(problem=f"{path}: cannot be decoded (zeros in place of its end)")
            if image.mode not in MODES:
                return seen._replace(mode=image.mode, problem=f"{path}: has mode {image.mode}, not 8 bits a channel")
            return seen._replace(mode=image.mode, pixels=None if size is None else square(image, size))
    except UNDECODABLE as e:
        return seen._replace(problem=f"{path}: cannot be decoded ({_why(e)})")


def whole(path: Path) -> np.ndarray:
    """All of an image as RGB, (H, W, 3) uint8, which may be written. Raises InputError if it cannot be decoded."""
    with _told(path), Image.open(path) as image:
        return np.array(image.convert("RGB"))


def extent(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header. Raises InputError if it has none."""
    with _told(path), Image.open(path) as image:
        return image.height, image.width


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What makes an image undecodable becomes a line."""
    try:
        yield
    except MemoryError:
        raise  # no fault of the file's
    except UNDECODABLE as e:
        raise InputError(f"{path}: cannot be decoded ({_why(e)}); put it back, or run: simclic data check") from e


def _why(e: BaseException) -> str:
    return "no image" if isinstance(e, UnidentifiedImageError) else str(e) or type(e).__name__


def _cut_short(jpeg: bytes) -> bool:
    """Do zeros stand where a JPEG should end, as after a power cut? libjpeg decodes them as grey and only warns."""
    return jpeg.endswith(bytes(64)) and jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda")


def square(image: Image.Image, size: int) -> np.ndarray:
    """The image as (3, size, size) uint8: RGB, shorter side to `size` by PIL's bicubic, centre cut out (Section 4.2).

    The same bits as torchvision's Resize and CenterCrop on PIL images, without waiting for torch.
    """
    image, shorter = image.convert("RGB"), min(image.size)
    width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


@dataclass(frozen=True)
class Selection:
    """Some images of a data set, at one size. used: (n,) which of the listing. root: where all data sets lie."""

    name: str
    listing: Listing
    used: np.ndarray
    root: Path
    size: int

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that the images come from, below listing.base."""
        return self.listing.holders or tuple(self.listing.paths[i] for i in self.used)

    def looks(self) -> Iterator[Look]:
        """Every image in turn, decoded."""
        if self.listing.pixels is not None:
            return (Look((0, 0), "", pixels=self.listing.pixels[i]) for i in self.used)
        return in_order(lambda path: look(self.listing.base / path, size=self.size), self.sources)

    def path(self, sums: manifest.Sums) -> Path:
        """The decoded file: named by what it was made from and how."""
        h = hashlib.sha256(f"{'as stored' if self.listing.holders else STEPS}\t{self.size}\n".encode())
        for source in self.sources:
            h.update(sums[source].encode())
        if self.listing.holders:
            h.update(self.used.tobytes())
        return manifest.place(self.root) / f"{manifest.stem(self.name)}-{self.size}-{h.hexdigest()[:16]}.npy"


def images(chosen: Selection, tell: Tell) -> tuple[np.ndarray, manifest.Sums]:
    """Decoded images, (n, 3, size, size) uint8, memory-mapped; and the SHA-256 of each file they come from.

    Decodes them if that has not been done; jobs that do so at once do not hurt each other. Raises InputError with a line for
    every file that is missing or cannot be decoded.
    """
    base, sums = chosen.listing.base, manifest.unchanged(chosen.name, chosen.root, chosen.listing.base, chosen.sources)
    unknown = [path for path in chosen.sources if path not in sums]
    if unknown and (chosen.listing.holders or made(chosen.name, chosen.root, chosen.size)):
        looks = in_order(lambda path: look(base / path, decode=False), unknown)  # copied, perhaps: reading is cheap
        sums |= _whole(chosen, dict(zip(unknown, looks, strict=True)))
        unknown = []
    if unknown or not chosen.path(sums).is_file():
        sums = _decode(chosen, sums, tell)
    return opened(chosen.path(sums)), sums


def _decode(chosen: Selection, sums: manifest.Sums, tell: Tell) -> manifest.Sums:
    """Decode on all cores, write in order, and give the file its name once it is whole. Returns what is known of the files."""
    place, shape = manifest.place(chosen.root), (len(chosen.used), 3, chosen.size, chosen.size)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place, chosen)
        _room(place, math.prod(shape))
        with files.temporary(place, f"{manifest.stem(chosen.name)}-{chosen.size}") as f:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            h, seen = hashlib.sha256(), dict[str, Look]()
            for block in chain([header.getvalue()], _blocks(chosen, seen, tell)):
                f.write(block)
                h.update(block)
            sums = sums if chosen.listing.holders else _whole(chosen, seen)
            path = chosen.path(sums)
            files.write_bytes(path.with_suffix(".sha256"), f"{h.hexdigest()}\n".encode())
            files.publish(f, path)
    except OSError as e:
        raise InputError(f"{place}: cannot be written ({e.strerror}); choose another place with --data DIR") from e
    return sums


def _blocks(chosen: Selection, seen: dict[str, Look], tell: Tell) -> Iterator[bytes]:
    """The pixels of each image until one is broken; then the others are looked at all the same, so that all are named."""
    broken = False
    for n, (i, one) in enumerate(zip(chosen.used, chosen.looks(), strict=True), 1):
        broken |= bool(one.problem)
        if not broken and one.pixels is not None:
            yield one.pixels.tobytes()
        seen[chosen.listing.paths[i]] = one._replace(pixels=None)
        tell(n / len(chosen.used), f"decoding {n:,} of {len(chosen.used):,}")


def _sweep(place: Path, chosen: Selection) -> None:
    """Remove what a process left that was killed an hour ago or earlier: one that lives writes all the time."""
    for left in place.glob(f".{manifest.stem(chosen.name)}-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def opened(path: Path) -> np.ndarray:
    """A decoded file, mapped into memory to be read. Raises InputError if it is not whole or cannot be read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as e:
        raise InputError(f"{path}: is not a whole decoded file ({e}); delete it") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e


def made(name: str, root: Path, size: int | str = "*") -> list[Path]:
    """The decoded files of a data set, of all sizes or one. Beside each lies its SHA-256."""
    return sorted(manifest.place(root).glob(f"{manifest.stem(name)}-{size}-*.npy"))


class Stored(NamedTuple):
    """A file beside decoded images or with them. stem, size: of which data set (see manifest.stem) and at how many pixels.

    finished: whether it has its name; else a process that was killed, or is at work, began it.
    """

    path: Path
    stem: str
    size: str
    finished: bool


def list_stored(root: Path) -> list[Stored]:
    """Return decoded images, their digests, and what was begun of these or of the list of a data set's files."""
    found = []
    for path in sorted(manifest.place(root).glob("*")):
        name = files.intended_name(path)
        if match := re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{16}\.(npy|sha256)", path.name):
            found.append(Stored(path, match[1], match[2], True))
        elif re.fullmatch(r".+-(\d+|(files|[0-9a-f]{6})\.json|\d+-[0-9a-f]{16}\.sha256)", name):
            found.append(Stored(path, "", "", False))
    return found


def in_order(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """`work` of each item on all cores, in order, a few ahead. PIL and hashing let go of Python's lock, so threads will do."""
    with ThreadPoolExecutor(cores()) as pool:
        for begun in behind((pool.submit(work, item) for item in items), 4 * cores()):
            yield begun.result()


def behind(begun: Iterable[T], count: int) -> Iterator[T]:
    """Work that was begun, each piece once `count` more are begun after it, or nothing is left to begin."""
    ahead: deque[T] = deque()
    for one in begun:
        ahead.append(one)
        if len(ahead) > count:
            yield ahead.popleft()
    while ahead:
        yield ahead.popleft()


def _whole(chosen: Selection, seen: dict[str, Look]) -> manifest.Sums:
    """The SHA-256 of files that were all read, remembered. Raises InputError with a line for each that is not whole."""
    if problems := [one.problem for one in seen.values() if one.problem]:
        raise InputError("\n".join(problems))
    manifest.remember(chosen.name, chosen.root, {path: (one.stamp, one.sha256) for path, one in seen.items()})
    return {path: one.sha256 for path, one in seen.items()}


def _room(place: Path, wanted: int) -> None:
    """Raise InputError if the disk cannot hold so many bytes more."""
    free = shutil.disk_usage(place).free
    if free < wanted:
        need = f"{format_bytes(wanted)} are needed, {format_bytes(free)} are free"
        raise InputError(f"{place}: {need}; choose another place with --data DIR")
