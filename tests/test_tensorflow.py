"""TensorFlow's checkpoints: what TensorFlow wrote is read to the bit, and what is damaged is never read as other numbers."""

import gzip
import json
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from bundles import block, crc, entry, message, sealed, table, varint, write

from simclic.errors import InputError
from simclic.weights.tensorflow import _masked_crc32c, read_checkpoint

GOLDEN = Path(__file__).parent / "golden"  # written by TensorFlow 2.21
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def same(found, expected):
    return found.keys() == expected.keys() and all(
        (found[k].dtype, found[k].shape, found[k].tobytes()) == (x.dtype, x.shape, x.tobytes()) for k, x in expected.items()
    )


def golden(name):
    return {k: np.frombuffer(bytes.fromhex(raw), dtype).reshape(shape) for k, (dtype, shape, raw) in EXPECTED[name].items()}


def some(seed=0, count=20):
    rng = np.random.default_rng(seed)
    return {f"net/layer_{i}/kernel": rng.normal(size=(i, 3)).astype("f") for i in range(count)}


def refused(path):
    """What the reader says of a path: one line that begins with a path."""
    with pytest.raises(InputError) as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(str(path.parent))
    assert ";" in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("name", ["saver", "object", "shards"])
def test_what_tensorflow_wrote_is_read_to_the_bit(name):
    found = read_checkpoint(GOLDEN / name)
    assert same(found, golden(name))
    assert list(found) == sorted(found)


def test_the_golden_files_have_what_can_go_wrong():
    assert len(golden("saver")) > 100
    dtypes = {x.dtype.name for x in read_checkpoint(GOLDEN / "saver").values()}
    assert dtypes == {"float32", "float64", "float16", "int32", "int64", "bool", "uint8"}
    assert {(), (0, 7)} < {x.shape for x in golden("saver").values()}
    assert "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE" in " ".join(golden("object"))
    assert b"_CHECKPOINTABLE_OBJECT_GRAPH" in (GOLDEN / "object.index").read_bytes()


def test_an_index_of_several_blocks(tmp_path):
    (tmp_path / "blocks.index").write_bytes(gzip.decompress((GOLDEN / "blocks.index.gz").read_bytes()))
    shutil.copy(GOLDEN / "blocks.data-00000-of-00001", tmp_path)
    assert same(read_checkpoint(tmp_path), {c + "x" * 30000: np.array(i, "f") for i, c in enumerate("abcdefghijklmnopqrst")})


@pytest.mark.parametrize("name", ["", "model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001"])
def test_a_checkpoint_is_named_in_four_ways(tmp_path, name):
    write(tmp_path / "model.ckpt-7", some())
    assert same(read_checkpoint(tmp_path / name), some())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("per_block", [1, 7, 1000])
def test_what_the_tests_write_is_read(tmp_path, shards, per_block):
    write(tmp_path / "x", some(), shards, per_block=per_block)
    assert same(read_checkpoint(tmp_path / "x"), some())


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 63, 64, 65, 1023, 4099])
def test_the_crc_of_every_length(size):
    raw = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert _masked_crc32c(raw) == crc(raw.tobytes())


def test_the_crc_across_pieces():
    raw = np.arange(2**22 + 2**20 + 3).astype(np.uint8)
    assert _masked_crc32c(raw) == 0xC54C474C  # of google-crc32c 1.8, masked


def test_unknown_fields_and_dtypes_are_skipped(tmp_path):
    odd = [
        (b"a_string", entry(7, [], 0, 0, b"")),
        (b"a_variant", entry(21, [], 5, 2**60, b"")),
        (b"zebra", entry(1, [0], 0, 0, b"", (99, b"new"), (98, 2**63)) + varint(97 << 3 | 1) + bytes(8)),
    ]
    write(tmp_path / "x", some(), more=odd)
    assert same(read_checkpoint(tmp_path / "x"), {**some(), "zebra": np.zeros(0, "f")})


def test_a_missing_data_file_is_named(tmp_path):
    write(tmp_path / "x", some(), shards=3)
    (tmp_path / "x.data-00001-of-00003").unlink()
    assert "x.data-00001-of-00003: cannot be read" in refused(tmp_path / "x")


def test_other_files_are_refused_with_a_way_out(tmp_path):
    shutil.copy(GOLDEN / "v1.ckpt", tmp_path)
    assert "save one of a single file (V1) again as V2" in refused(tmp_path / "v1.ckpt")
    assert "cannot be read" in refused(tmp_path / "nothing")
    assert "cannot be read" in refused(tmp_path / ("n" * 300))
    (tmp_path / "sub").mkdir()
    assert "has 0 checkpoints" in refused(tmp_path / "sub")
    (tmp_path / "dir.index").mkdir()
    assert "cannot be read" in refused(tmp_path / "dir.index" / "..")
    (tmp_path / "dir.index").rmdir()
    for name in ("a", "b"):
        write(tmp_path / "sub" / name, some())
    assert "has 2 checkpoints" in refused(tmp_path / "sub")
    for raw in (b"", b"PK\3\4" + bytes(60), bytes(48), (GOLDEN / "v1.ckpt").read_bytes()):
        (tmp_path / "y.index").write_bytes(raw)
        refused(tmp_path / "y.index")


def test_slices_are_refused_by_their_variables_name():
    assert "b'embedding' in slices; save it without a partitioner" in refused(GOLDEN / "sliced")


def test_compressed_and_big_endian_are_refused(tmp_path):
    write(tmp_path / "x", some(), kind=1)
    assert "is compressed" in refused(tmp_path / "x")
    (tmp_path / "x.index").write_bytes(table([(b"", message((1, 1), (2, 1)))]))
    assert "little-endian" in refused(tmp_path / "x")


@pytest.mark.parametrize("which", ["x.index", "x.data-00000-of-00001"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, which):
    write(tmp_path / "x", some())
    raw = (tmp_path / which).read_bytes()
    for size in [*range(0, len(raw), 7), len(raw) - 1]:
        (tmp_path / which).write_bytes(raw[:size])
        refused(tmp_path / "x")


@pytest.mark.parametrize("name", ["saver", "shards", "object", "ours"])
def test_a_flipped_bit_never_gives_other_numbers(tmp_path, name):
    if name == "ours":
        write(tmp_path / name, some(), shards=2)
    for file in GOLDEN.glob(f"{name}.*"):
        shutil.copy(file, tmp_path)
    expected, rng = read_checkpoint(tmp_path / name), random.Random(0)
    for file in sorted(tmp_path.glob(f"{name}.*")):
        raw = file.read_bytes()
        for at in rng.sample(range(len(raw)), min(len(raw), 150)):
            file.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :])
            try:
                found = read_checkpoint(tmp_path / name)
            except InputError:
                continue
            assert same(found, expected)
            assert at >= len(raw) - 48 if file.suffix == ".index" else name == "object"  # filling, and the bytes of a string
        file.write_bytes(raw)
    assert same(read_checkpoint(tmp_path / name), expected)


@pytest.mark.parametrize(
    "row",
    [
        entry(1, [2**62, 4], 0, 0, b""),
        entry(1, [0, 2**40, 2**40], 0, 0, b""),
        entry(1, [2**64 - 1], 0, 0, b""),
        entry(1, [1] * 33, 0, 0, bytes(4)),
        entry(1, [1], 0, 0, bytes(8)),
        entry(1, [1], 0, 2**63, bytes(4)),
        entry(1, [1], 0, 0, bytes(4)),
        entry(1, [1], 1, 0, bytes(4)),
        entry(1, [1], 2**64 - 1, 0, bytes(4)),
        message((1, 1), (2, message((2, message((1, 2**40))))), (5, 2**42)),
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08" + b"\xff" * 11,
        b"\x0b\x0c",
        b"\x35\x01",
    ],
)
def test_absurd_entries_are_refused(tmp_path, row):
    write(tmp_path / "x", some(), more=[(b"absurd", row)])
    refused(tmp_path / "x")


@pytest.mark.parametrize(
    "ends",
    [
        varint(0) * 4,
        varint(2**63) * 4,
        b"\xff" * 40,
        varint(0) + varint(8) + varint(0) + varint(2**62),
    ],
)
def test_an_index_whose_end_points_anywhere_is_refused(tmp_path, ends):
    write(tmp_path / "x", some())
    raw = (tmp_path / "x.index").read_bytes()
    (tmp_path / "x.index").write_bytes(raw[:-48] + ends.ljust(40, b"\0") + raw[-8:])
    refused(tmp_path / "x")


def test_names_and_blocks_cannot_grow_without_end(tmp_path):
    head = block([(b"", message((1, 1)))])
    first = varint(0) + varint(100_000) + varint(0) + b"n" * 100_000
    grown = sealed(first + b"".join(varint(100_000) + b"\2\0%02d" % i for i in range(99)))
    again = varint(len(head)) + varint(len(grown) - 5)
    listed = block([(b"", varint(0) + varint(len(head) - 5)), *((b"n", again) for _ in range(99))])
    ends = varint(len(head) + len(grown)) + varint(len(listed) - 5)
    end = (ends + ends).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (tmp_path / "x.index").write_bytes(head + grown + listed + end)
    assert "names of more than 64 MiB" in refused(tmp_path / "x")


def test_an_index_altered_on_purpose_is_read_or_refused(tmp_path):
    write(tmp_path / "x", some(count=4), per_block=1000)
    raw, rng = (tmp_path / "x.index").read_bytes(), random.Random(0)
    size = raw.index(struct.pack("<IIB", 0, 1, 0))
    for _ in range(200):
        body = bytearray(raw[:size])
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(size)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        (tmp_path / "x.index").write_bytes(sealed(bytes(body)) + raw[size + 13 :])
        try:
            found = read_checkpoint(tmp_path / "x")
        except InputError:
            continue
        assert sum(x.nbytes for x in found.values()) <= 2 * (tmp_path / "x.data-00000-of-00001").stat().st_size


def test_random_bytes_are_refused(tmp_path):
    rng = random.Random(0)
    for _ in range(200):
        (tmp_path / "x.index").write_bytes(rng.randbytes(rng.randrange(200)) + (GOLDEN / "saver.index").read_bytes()[-48:])
        refused(tmp_path / "x")
