"""A reader of TensorFlow's V2 checkpoints without TensorFlow, which checks the CRC-32C of every tensor.

PREFIX.index is a LevelDB table: names, each with a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simclic.errors import InputError

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
MAX_INDEX_BYTES = 2**26  # of an index, and of its blocks and names, whose shared beginnings could expand without limit
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 9: "<i8", 10: "?", 14: "<u2", 19: "<f2"}  # 14 is bfloat16, which numpy lacks
NON_NUMERIC = (0, 7, 20, 21)  # nothing said, strings, resources, variants
Entry = tuple[int, int, int, int, str, list[int]]  # a tensor's data file, offset, size in bytes, CRC-32C, dtype and shape
TIMES_X32 = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
for _ in range(32):  # each byte of a word, times x^32 modulo the polynomial of the CRC-32C; the lowest bit is the highest power
    TIMES_X32 = (TIMES_X32 >> 1 ^ (TIMES_X32 & 1) * 0x82F63B78).astype(np.uint32)


def read_checkpoint(prefix: Path) -> dict[str, NDArray[Any]]:
    """Return every dense tensor by its variable's name: float64, 32 or 16, int64 or 32, uint8, bool; bfloat16 as float32.

    prefix: PREFIX, PREFIX.index, a PREFIX.data-*, or a folder with one checkpoint. Strings, resources and variants are left out.
    Raises InputError if a file is missing, damaged or of another kind, or if a variable was saved in slices.
    """
    with _prefix_errors(prefix):
        index = _find_index(prefix)
    with _prefix_errors(index):
        shards, entries = _read_entries(index)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shard, offset, size, crc, dtype, shape) in entries.items():
        file = index.with_name(f"{index.stem}.data-{shard:05d}-of-{shards:05d}")
        with _prefix_errors(file):
            _require(shard < shards and offset + size <= file.stat().st_size, f"does not hold all of {name!r:.100}")
            raw = np.fromfile(file, np.uint8, size, offset=offset)
            _require(_masked_crc32c(raw) == crc, f"the CRC-32C of {name!r:.100} differs")
            values = (raw.view(dtype).astype("<u4") << 16).view("<f4") if dtype == DTYPES[14] else raw.view(dtype)
            arrays[name] = values.reshape(shape)
    return arrays


@contextmanager
def _prefix_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, OSError) as e:
        way_out = "a V2 checkpoint is an .index file and .data files beside it; save one of a single file (V1) again as V2"
        problem = f"cannot be read ({e.strerror}); {way_out}" if isinstance(e, OSError) else e
        raise InputError(f"{path}: {problem}") from e


def _require(condition: bool, problem: str, way_out: str = "the file is damaged or of another kind; fetch it again") -> None:
    if not condition:
        raise InputError(f"{problem}; {way_out}")


def _find_index(path: Path) -> Path:
    """Return the .index file of a checkpoint."""
    if path.is_dir():
        indexes = sorted(path.glob("*.index"))
        _require(len(indexes) == 1, f"has {len(indexes)} checkpoints (*.index), not one", "name the .index file to read")
        return indexes[0]
    return path.with_name(re.sub(r"(\.index|\.data-\d{5,}-of-\d{5,})?$", ".index", path.name, count=1))


def _read_entries(index: Path) -> tuple[int, dict[str, Entry]]:
    """Return the number of data files, and the entry of every numeric tensor."""
    raw = index.read_bytes() if index.stat().st_size <= MAX_INDEX_BYTES else b""
    _require(len(raw) >= 48 and raw[-8:] == MAGIC, "does not end as an index does")
    rows = _iterate_table(raw)
    key, value = next(rows, (b"-", b""))
    header = {tag: number for tag, number, _ in parse_protobuf_fields(value)}
    shards = header.get(0x08, 0)
    _require(key == b"" and shards > 0 and header.get(0x10, 0) == 0, "has no header of a little-endian V2 checkpoint")
    entries = {key.decode(errors="backslashreplace"): e for key, value in rows if (e := _parse_entry(key, value))}
    for (shard, offset, size, *_), after in pairwise(sorted(entries.values())):  # together no larger than the files
        _require((shard, offset + size) <= after[:2], "has tensors that overlap")
    return shards, entries


def _parse_entry(key: bytes, raw: bytes) -> Entry | None:
    """Return a variable's BundleEntryProto, or None if it is not numeric. Its size must match its dtype and shape."""
    numbers = {tag: number for tag, number, _ in parse_protobuf_fields(raw)}
    _require(0x3A not in numbers, f"has {key!r:.100} in slices", "save it without a partitioner")
    dims = [
        dim
        for tag, _, shape in parse_protobuf_fields(raw)
        if tag == 0x12
        for t, _, dim in parse_protobuf_fields(shape)
        if t == 0x12
    ]
    shape = [{tag: number for tag, number, _ in parse_protobuf_fields(dim)}.get(0x08, 0) for dim in dims]
    dtype = DTYPES.get(numbers.get(0x08, 0))
    if numbers.get(0x08, 0) in NON_NUMERIC or key.startswith(b"\0"):  # a slice; its variable's entry comes later and is refused
        return None
    _require(dtype is not None, f"has {key!r:.100} of a type that is not read")
    assert dtype is not None
    shard, offset, size, crc = (numbers.get(tag, 0) for tag in (0x18, 0x20, 0x28, 0x35))
    whole = len(shape) <= 32 and prod(n or 1 for n in shape) < 2**48 and prod(shape) * np.dtype(dtype).itemsize == size
    _require(whole, f"the size of {key!r:.100} is not that of its shape")
    return shard, offset, size, crc, dtype, shape


def parse_protobuf_fields(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield a protobuf message's fields: tag (8 * number + wire type), number or length, content."""
    at = 0
    while at < len(raw):
        tag, at = _parse_varints(raw, at, 1)
        fixed = {1: 8, 5: 4}.get(tag & 7, 0)
        number, at = (int.from_bytes(raw[at : at + fixed], "little"), at) if fixed else _parse_varints(raw, at, 1)
        size = number if tag & 7 == 2 else fixed
        _require(tag & 7 in (0, 1, 2, 5) and at + size <= len(raw), "has a field that does not end")
        yield tag, number, raw[at : at + size]
        at += size


def _parse_varints(raw: bytes, at: int, count: int) -> list[int]:
    """Return `count` varints of at most ten bytes from a position on, and the position after them."""
    m = re.compile(rb"([\x80-\xff]{0,9}[\x00-\x7f])" * count).match(raw, at)
    if m is None:
        raise InputError("has a number that does not end; it is damaged, fetch it again")
    return [*(sum((digit & 127) << 7 * i for i, digit in enumerate(digits)) for digits in m.groups()), m.end()]


def _iterate_table(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of all blocks. The end of the file holds the position of the list of blocks."""
    meta, n, offset, size, _ = _parse_varints(raw[-48:-8], 0, 4)
    next(_iterate_block(raw, meta, n), None)  # an empty block; its CRC-32C is checked
    held = 0
    for _, handle in _iterate_block(raw, offset, size):
        offset, size, _ = _parse_varints(handle, 0, 2)
        _require((held := held + size) <= MAX_INDEX_BYTES, "has blocks of more than 64 MiB")
        for key, value in _iterate_block(raw, offset, size):
            _require((held := held + len(key)) <= MAX_INDEX_BYTES, "has names of more than 64 MiB")
            yield key, value


def _iterate_block(raw: bytes, at: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a block after checking its CRC-32C. A key omits the bytes shared with the previous key."""
    end = at + size
    _require(size >= 4 and end + 5 <= len(raw), "has a block that does not end")
    crc = _masked_crc32c(np.frombuffer(raw, np.uint8)[at : end + 1])
    _require(crc == int.from_bytes(raw[end + 1 : end + 5], "little"), "the CRC-32C of a block differs")
    _require(raw[end] == 0, "is compressed, as no index of TensorFlow's is", "save it again with TensorFlow")
    key, end = b"", end - 4 - 4 * int.from_bytes(raw[end - 4 : end], "little")  # there the keys in full are listed
    while at < end:
        shared, own, length, at = _parse_varints(raw, at, 3)
        _require(shared <= len(key) and at + own + length <= end, "has a row that does not end")
        key, at = key[:shared] + raw[at : at + own], at + own + length
        yield key, raw[at - length : at]


def _masked_crc32c(raw: NDArray[np.uint8]) -> int:
    """Return the CRC-32C of bytes, masked (rotated, plus a constant) as TensorFlow stores it."""
    # A remainder over GF(2): multiplying a word by x^32 shifts it; pairs of words are combined until one remains.
    word = np.array([0x641F6454], np.uint32)  # times x^32 it is the register's first value, 0xFFFFFFFF
    for piece in (raw[at : at + 2**22] for at in range(0, len(raw), 2**22)):
        word = np.concatenate([np.zeros(-len(piece) % 4, np.uint8), word.view(np.uint8), piece]).view(np.uint32)
        doublings = 0
        while len(word) > 1:
            word = np.concatenate([np.zeros(len(word) % 2, np.uint32), word])
            word = _multiply_gf2(word[::2], _power_table(doublings)) ^ word[1::2]
            doublings += 1
    crc = int(_multiply_gf2(word, TIMES_X32)[0]) ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@cache
def _power_table(doublings: int) -> NDArray[np.uint32]:
    """Return the table by which a word is multiplied by x^32, squared so many times."""
    return _multiply_gf2(*[_power_table(doublings - 1)] * 2) if doublings else TIMES_X32


def _multiply_gf2(words: NDArray[np.uint32], t: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return np.asarray(t[0][words & 255] ^ t[1][words >> 8 & 255] ^ t[2][words >> 16 & 255] ^ t[3][words >> 24], np.uint32)
