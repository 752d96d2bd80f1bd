"""Files of weights that users have, read without executing anything in them: safetensors, and PyTorch's own format."""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from simclic.errors import InputError
from simclic.text import quote_text

# How files begin that people take for weights by mistake, and what to do about each.
OTHER_FILES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run: git lfs pull"),
    (b"<", "is a web page or XML, not weights; download the file itself"),
    (b"\x89HDF", "is an HDF5 file (Keras); save a PyTorch state dict instead"),
    (b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (b"BZh", "is a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "is an xz archive; unpack it first"),
)


WAY_OUT = "save the state dict alone: torch.save(model.state_dict(), FILE)"


class Inert:
    """An object that a training script saved beside its weights (a path, a date, options): read past, never built."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class InertDict:
    """As Inert, for subclasses of dict, whose items may be read."""

    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()


INERT_NAMES = {
    Inert: (
        "argparse.Namespace", "types.SimpleNamespace",
        "datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
        "builtins.bool", "builtins.dict", "builtins.float", "builtins.int", "builtins.list", "builtins.str", "builtins.tuple",
        "numpy.dtype", "numpy.ndarray", "numpy.random.__RandomState_ctor", "numpy.random._pickle.__randomstate_ctor",
        *(f"pathlib{module}.{name}" for module in ("", "._local") for name in (
            "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath",
        )),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Float16", "Float32", "Float64", "Int32", "Int64", "UInt32", "UInt8")),
    ),
    InertDict: (
        "collections.defaultdict", "easydict.EasyDict", "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
    ),
}  # fmt: skip


def read_tensors(path: Path) -> tuple[bytes, dict[Any, Any]]:
    """Return a file's bytes and the dictionary that it holds. Nothing in it is executed.

    What a file is depends on its first bytes, not on its suffix. Raise InputError, which says what the file is, for anything
    else, for a damaged file, and for an object that is neither a tensor, a plain value nor one of INERT_NAMES.
    """
    try:
        payload = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    if not payload:
        raise InputError(f"{path}: is empty")
    for start, advice in OTHER_FILES:
        if payload.startswith(start):
            raise InputError(f"{path}: {advice}")
    _check_archive(path, payload)
    try:
        if payload[8:9] == b"{":
            return payload, load(payload)
        inert = [(kind, name) for kind, names in INERT_NAMES.items() for name in names]
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # about how a file was written
            content = torch.load(io.BytesIO(payload), "cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise InputError(f"{path}: {_explain_refusal(str(e))}") from e
    except Exception as e:  # bytes that are something else make these readers raise almost anything
        raise InputError(
            f"{path}: is not a file of weights ({quote_text((str(e).splitlines() or [type(e).__name__])[0])})"
        ) from e
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a dict of named tensors")
    for name, tensor in content.items():
        if isinstance(tensor, Tensor):
            check_ordinary(path, str(name), tensor)
    return payload, content


def check_ordinary(path: Path, name: str, tensor: Tensor) -> None:
    """Raise InputError for a tensor that is not simply an array of real numbers."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
        raise InputError(f"{path}: {quote_text(name)} is not a dense tensor of real numbers")


def _check_archive(path: Path, payload: bytes) -> None:
    """Raise InputError for a zip archive that is TorchScript, or whose content differs from its checksums."""
    if not zipfile.is_zipfile(io.BytesIO(payload)):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            is_script = any(re.fullmatch(r"[^/]+/code/.*", name) for name in archive.namelist())
            # PyTorch can be told to write no checksums; they are 0 then.
            damaged = archive.testzip() if any(entry.CRC for entry in archive.infolist() if entry.file_size) else None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as e:
        raise InputError(f"{path}: is a damaged zip archive ({quote_text(e)}); download or copy it again") from e
    if is_script:
        raise InputError(f"{path}: is a TorchScript program; {WAY_OUT}")
    if damaged:
        raise InputError(f"{path}: is damaged ({quote_text(damaged)} differs from its checksum); download or copy it again")


def _explain_refusal(reason: str) -> str:
    """Return why PyTorch's reader of tensors refused a file, with the name of what it met."""
    if name := re.search(r"GLOBAL ([\w.<>]+)", reason):
        return f"holds an object of {quote_text(name[1])}, which could execute code and is not read; {WAY_OUT}"
    return "is not a file of weights (it is damaged, or holds more than tensors)"
