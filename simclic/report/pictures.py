"""Pictures that depend on their own numbers and our style alone, and that are drawn again only when something changed."""

import io
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.report.formats import SOURCE, check_source

STYLE = SOURCE / "reports" / "simclic.mplstyle"
# No dates and no versions, so that the bytes are reproducible.
METADATA: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def write_pictures(stem: Path, kinds: Sequence[str], draw: Callable[..., None], *numbers: Any) -> list[Path]:
    """Write stem.KIND for each kind and return their paths.

    draw: fills an empty matplotlib Figure, given it and `numbers`, on whose repr alone the pictures may depend. They are drawn
    again if numbers, style, this package's code or the drawing libraries changed, or a picture is damaged or missing.
    """
    check_source()
    paths, record = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds], stem.with_name(f".{stem.name}.json")
    drawn_from = _digest_inputs(stem.name, numbers)
    if _read_record(record) != {"drawn_from": drawn_from, "sha256_of": _digest_pictures(paths)}:
        for path, picture in zip(paths, _draw_pictures(stem.name, kinds, draw, numbers), strict=True):
            files.write_bytes(path, picture)
        files.write_json(record, {"drawn_from": drawn_from, "sha256_of": _digest_pictures(paths)})
    return paths


def _digest_inputs(name: str, numbers: Sequence[Any]) -> str:
    libraries = [version(library) for library in ("matplotlib", "pillow")]
    code = [path.read_bytes() for path in (STYLE, *sorted(Path(__file__).parent.glob("*.py")))]
    return sha256(repr((name, numbers, libraries, code)).encode(errors="surrogatepass")).hexdigest()


def _digest_pictures(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return files.read_json(path)
    except files.Broken:
        return None


def _draw_pictures(name: str, kinds: Sequence[str], draw: Callable[..., None], numbers: Sequence[Any]) -> list[bytes]:
    """Return the bytes of a picture in each format."""
    os.environ.pop("MPLBACKEND", None)  # a notebook's; where it is not installed, matplotlib would not load
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ValueError as e:
        raise InputError(f"matplotlib cannot be loaded: {e}; correct or remove your matplotlibrc") from e
    # "default" leaves nothing of a user's matplotlibrc.
    with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": name}]):
        canvas, pictures = Figure(), []
        draw(canvas, *numbers)
        for kind in kinds:
            canvas.savefig(buffer := io.BytesIO(), format=kind, metadata=METADATA[kind])
            pictures.append(buffer.getvalue())
    return pictures
