"""One image file: its digest, whether it decodes, and its pixels as the cited baselines or, of one's own images, as it looks."""

import contextlib
import errno
import hashlib
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from simclic.data import manifest
from simclic.data.dataset import BICUBIC
from simclic.errors import InputError

MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # of 8 bits a channel, which turn into RGB
MAX_PIXELS = 200_000_000  # of a resized image, 600 MB; Pillow reads none with 179 million
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError, MemoryError)
MISSING = ": is missing"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # what turns an image upright, by its EXIF orientation  # fmt: skip
SIDEWAYS = [TURNS[n] for n in (5, 6, 7, 8)]  # of these, what exchanges height and width


class ImageFile(NamedTuple):
    """What one file is: stamp and SHA-256 of its bytes, the image's mode, its pixels if asked for, or what is wrong with it.

    turned: whether its EXIF orientation says that it lies on its side or head. The SHA-256 of an image that is turned upright
    ends with manifest.TURNED.
    """

    stamp: manifest.Stamp
    sha256: str
    mode: str = ""
    pixels: np.ndarray | None = None
    problem: str = ""
    turned: bool = False


def read_image_file(
    path: Path, decode: bool = True, size: int | None = None, upright: bool = False, interpolation: str = BICUBIC,
    whole: bool = False,
) -> ImageFile:  # fmt: skip
    """Read a file once: its digest, whether all of it decodes, and with `size` its pixels, (3, size, size) uint8.

    upright: as in Listing. interpolation: as in resize_shorter_side. whole: all pixels, (3, H, W), the shorter side `size`.
    """
    try:
        stamp, content = manifest.file_stamp(path), path.read_bytes()  # in this order: what changes in between is read again
    except OSError as e:
        return ImageFile(manifest.UNKNOWN, "", problem=f"{path}{MISSING if e.errno == errno.ENOENT else f': {e.strerror}'}")
    seen = ImageFile(stamp, hashlib.sha256(content).hexdigest())
    if not decode and not upright:
        return seen
    try:
        with Image.open(io.BytesIO(content)) as image:
            turn = _find_turn(image) if upright or size is None else None
            seen = seen._replace(turned=turn is not None, sha256=seen.sha256 + manifest.TURNED * (upright and turn is not None))
            if not decode:
                return seen
            image.load()
            if image.format == "JPEG" and _cut_short(content):
                return seen._replace(problem=f"{path}: cannot be decoded (zeros in place of its end)")
            if image.mode not in MODES:
                return seen._replace(mode=image.mode, problem=f"{path}: has mode {image.mode}, not 8 bits a channel")
            pixels = None if size is None else resize_shorter_side(_turn(image, upright), size, interpolation)
            return seen._replace(mode=image.mode, pixels=pixels if pixels is None or whole else crop_centre(pixels))
    except UNDECODABLE as e:
        return seen._replace(problem=f"{path}: cannot be decoded ({_why(e)})")


def decode_whole(path: Path | str, upright: bool) -> np.ndarray:
    """Return the whole image as RGB, a writable (H, W, 3) uint8 array. Raise InputError if it cannot be decoded."""
    with _explain_decode_errors(path), Image.open(path) as image:
        return np.array(_turn(image, upright).convert("RGB"))


def count_pixels(path: Path | str) -> int:
    """Return height times width of an image, from its header. Raise InputError if it has none."""
    return math.prod(read_shape(path, upright=False))


def read_shape(path: Path | str, upright: bool) -> tuple[int, int]:
    """Return height and width of an image, from its header. Raise InputError if it has none."""
    with _explain_decode_errors(path), Image.open(path) as image:
        lies_on_its_side = upright and _find_turn(image) in SIDEWAYS
        return (image.width, image.height) if lies_on_its_side else (image.height, image.width)


def _find_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright; None if it is, if Pillow does it (TIFF), or if its EXIF data cannot be read."""
    if image.format == "TIFF":
        return None
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except UNDECODABLE:
        return None


def _turn(image: Image.Image, upright: bool) -> Image.Image:
    turn = _find_turn(image) if upright else None
    return image if turn is None else image.transpose(turn)


@contextlib.contextmanager
def _explain_decode_errors(path: Path | str) -> Iterator[None]:
    """Raise InputError with the path and the reason if PIL cannot decode an image."""
    try:
        yield
    except MemoryError:
        raise  # no fault of the file's
    except UNDECODABLE as e:
        raise InputError(f"{path}: cannot be decoded ({_why(e)}); put it back, or run: simclic data check") from e


def _why(e: BaseException) -> str:
    return "no image" if isinstance(e, UnidentifiedImageError) else str(e) or type(e).__name__


def _cut_short(jpeg: bytes) -> bool:
    """Return whether a JPEG ends in zeros, as after a power cut: libjpeg decodes them as grey and only warns."""
    return jpeg.endswith(bytes(64)) and jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda")


def resize_shorter_side(image: Image.Image, size: int, interpolation: str = BICUBIC) -> np.ndarray:
    """Return the image as (3, H, W) uint8: RGB, shorter side resized to `size` by PIL (Section 4.2).

    interpolation: "bicubic" or "bilinear". The same bits as torchvision's Resize on PIL images, without waiting for torch. Raise
    ValueError for an image so thin that it would not fit into memory.
    """
    height, width = resized_shape(image.height, image.width, size)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{image.height} x {image.width} pixels would become {height:,} x {width:,}; crop it, or move it away")
    image = image.convert("RGB")
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return np.asarray(image).transpose(2, 0, 1)


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width of an image once its shorter side is resized to `size`, as torchvision rounds them."""
    shorter = min(height, width)
    height, width = (size if side == shorter else int(size * side / shorter) for side in (height, width))
    return height, width


def crop_centre(pixels: np.ndarray) -> np.ndarray:
    """Return the centre square of an image, as torchvision's CenterCrop has it. pixels: (3, H, W). Returns (3, size, size)."""
    height, width = pixels.shape[1:]
    size = min(height, width)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[:, top : top + size, left : left + size]


def join_missing(problems: dict[Path, str]) -> list[str]:
    """Return problems by path, a line each, but one line with a count for more than ten missing files."""
    missing = [path for path, problem in problems.items() if problem.endswith(MISSING)]
    if len(missing) <= 10:
        return list(problems.values())
    above = next(folder for folder in missing[0].parents if folder.is_dir())
    rest = missing[0].relative_to(above)
    deeper = next((folder for folder in sorted(above.iterdir()) if (folder / rest).is_file()), None)
    hint = f"; {rest} is in {deeper}: move what is in there up" if deeper else ""
    line = f"{missing[0]}{MISSING}, and so are {len(missing) - 1:,} more files{hint}"
    return [line, *(problem for path, problem in problems.items() if not problem.endswith(MISSING))]
