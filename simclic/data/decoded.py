"""Images decoded once: without augmentation they are constants, so a memory-mapped file replaces decoding for ever after."""

import errno
import hashlib
import io
import math
import os
import shutil
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from simclic import files
from simclic.data import manifest
from simclic.data.listing import Listing
from simclic.spec import InputError, Tell

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
        content, stamp = path.read_bytes(), manifest.stamp(path)
    except OSError as e:
        return Look((0, 0), "", problem=f"{path}: " + ("is missing" if e.errno == errno.ENOENT else f"{e.strerror}"))
    seen = Look(stamp or (0, 0), hashlib.sha256(content).hexdigest())
    if not decode:
        return seen
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.mode not in MODES:
                return seen._replace(mode=image.mode, problem=f"{path}: has mode {image.mode}, not 8 bits a channel")
            return seen._replace(mode=image.mode, pixels=None if size is None else square(image, size))
    except UNDECODABLE as e:
        told = "no image" if isinstance(e, UnidentifiedImageError) else str(e) or type(e).__name__
        return seen._replace(problem=f"{path}: cannot be decoded ({told})")


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


def images(name: str, listing: Listing, used: np.ndarray, root: Path, size: int, tell: Tell) -> tuple[np.ndarray, manifest.Sums]:
    """Decoded images, (n, 3, size, size) uint8, memory-mapped; and the SHA-256 of each file they come from.

    used: (n,) which images of the listing. Decodes them if that has not been done; jobs that do so at once do not hurt each
    other. Raises InputError with a line for every file that is missing or cannot be decoded.
    """
    paths = listing.holders or tuple(listing.paths[i] for i in used)
    sums = manifest.unchanged(name, root, listing.base, paths)
    unknown = [p for p in paths if p not in sums]
    if unknown and (listing.holders or made(name, root, size)):  # copied, perhaps: reading is cheaper than decoding
        seen = dict(zip(unknown, in_order(lambda p: look(listing.base / p, decode=False), unknown), strict=True))
        sums |= _whole(name, root, seen)
        unknown = []
    path = None if unknown else _path(name, root, size, listing, used, sums)
    if path is None or not path.is_file():
        path, sums = _decode(name, listing, used, root, size, tell, sums)
    return opened(path), sums


def _decode(
    name: str, listing: Listing, used: np.ndarray, root: Path, size: int, tell: Tell, sums: manifest.Sums
) -> tuple[Path, manifest.Sums]:
    """Decode on all cores, write in order, and give the file its name once it is whole."""
    if listing.pixels is not None:
        looks: Iterator[Look] = (Look((0, 0), "", pixels=listing.pixels[i]) for i in used)
    else:
        looks = in_order(lambda i: look(listing.base / listing.paths[i], size=size), used.tolist())
    place, shape, seen, broken = manifest.place(root), (len(used), 3, size, size), dict[str, Look](), False
    try:
        place.mkdir(parents=True, exist_ok=True)
        for left in place.glob(f".{manifest.stem(name)}-*"):  # by a process that was killed: one that lives writes all the time
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink(missing_ok=True)
        _room(place, math.prod(shape))
        with files.temporary(place, f"{manifest.stem(name)}-{size}") as f:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            f.write(header.getvalue())
            h = hashlib.sha256(header.getvalue())
            for n, (i, one) in enumerate(zip(used, looks, strict=True), 1):
                broken |= bool(one.problem)
                if not broken and one.pixels is not None:
                    row = one.pixels.tobytes()
                    f.write(row)
                    h.update(row)
                seen[listing.paths[i]] = one._replace(pixels=None)
                tell(n / len(used), f"decoding {n:,} of {len(used):,}")
            sums = sums if listing.holders else _whole(name, root, seen)
            path = _path(name, root, size, listing, used, sums)
            files.write_bytes(path.with_suffix(".sha256"), f"{h.hexdigest()}\n".encode())
            files.publish(f, path)
    except OSError as e:
        raise InputError(f"{place}: cannot be written ({e.strerror}); choose another place with --data DIR") from e
    return path, sums


def opened(path: Path) -> np.ndarray:
    """A decoded file, mapped into memory. Raises InputError if it is not whole."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)  # copy-on-write: torch wants memory it may write
    except (ValueError, OSError, EOFError) as e:
        raise InputError(f"{path}: is not a whole decoded file ({e}); delete it") from e


def made(name: str, root: Path, size: int | str = "*") -> list[Path]:
    """The decoded files of a data set, of all sizes or one. Beside each lies its SHA-256."""
    return sorted(manifest.place(root).glob(f"{manifest.stem(name)}-{size}-*.npy"))


def in_order(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """`work` of each item on all cores, in order, a few ahead. PIL and hashing let go of Python's lock, so threads will do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ahead: deque[Future[R]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 4 * cores:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _whole(name: str, root: Path, seen: dict[str, Look]) -> manifest.Sums:
    """The SHA-256 of files that were all read, remembered. Raises InputError with a line for each that is not whole."""
    if problems := [one.problem for one in seen.values() if one.problem]:
        raise InputError("\n".join(problems))
    manifest.remember(name, root, {path: (one.stamp, one.sha256) for path, one in seen.items()})
    return {path: one.sha256 for path, one in seen.items()}


def _path(name: str, root: Path, size: int, listing: Listing, used: np.ndarray, sums: manifest.Sums) -> Path:
    """A decoded file is named by what it was made from and how."""
    h = hashlib.sha256(f"{'as stored' if listing.holders else STEPS}\t{size}\n".encode())
    for path in listing.holders or (listing.paths[i] for i in used):
        h.update(sums[path].encode())
    if listing.holders:
        h.update(used.tobytes())
    return manifest.place(root) / f"{manifest.stem(name)}-{size}-{h.hexdigest()[:16]}.npy"


def _room(place: Path, wanted: int) -> None:
    """Raise InputError if the disk cannot hold so many bytes more."""
    free = shutil.disk_usage(place).free
    if free < wanted:
        unit, word = (1e9, "GB") if wanted >= 1e9 else (1e6, "MB")
        need = f"{wanted / unit:.1f} {word} are needed, {free / unit:.1f} {word} are free"
        raise InputError(f"{place}: {need}; choose another place with --data DIR")
