"""Decoded once: the pixels of the PIL path, whole or not there, shared by all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import told
from layouts import photograph, write
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from simclic import InputError, data
from simclic.data import decoded, image_file, manifest
from simclic.files import CACHE
from simclic.schedule.data_digest import current_digest

SIMCLIC = [sys.executable, "-m", "simclic"]


@pytest.fixture
def birds(tmp_path):
    """A folder of one's own images, of two classes."""
    for kind in ("heron", "wren"):
        for i in range(10):
            write(tmp_path / f"birds/{kind}/{i}.jpg", size=(80, 60), key=(kind, i))
    return tmp_path / "birds"


def made(root):
    return sorted((root / "prepared").glob("*"))


def suffixes(root):
    return sorted(p.suffix for p in made(root))


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("shape", [(300, 225), (225, 300), (224, 224), (100, 37), (33, 500)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_equal_the_pil_path_bit_for_bit(tmp_path, size, shape, mode):
    photograph("x", shape).convert(mode).save(tmp_path / "x.jpg")
    usual = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size)])
    with Image.open(tmp_path / "x.jpg") as image:
        expected = np.asarray(usual(image.convert("RGB"))).transpose(2, 0, 1)
    pixels = image_file.read_image_file(tmp_path / "x.jpg", size=size).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, size, size)
    assert (pixels == expected).all()


def test_bilinear_images_are_pil_s_and_lie_beside_the_bicubic_ones(birds, tmp_path):
    usual = data.load(str(birds), "ericsson", tmp_path, 16)
    bilinear = data.load(str(birds), "ericsson", tmp_path, 16, interpolation="bilinear")
    assert (usual.digest, usual.interpolation, bilinear.interpolation) == (bilinear.digest, "bicubic", "bilinear")
    assert len(list((tmp_path / "prepared").glob("birds-16-*.npy"))) == 2
    for loaded, mode in ((usual, InterpolationMode.BICUBIC), (bilinear, InterpolationMode.BILINEAR)):
        with Image.open(loaded.files[0]) as image:
            expected = Compose([Resize(16, mode), CenterCrop(16)])(image.convert("RGB"))
        assert (loaded.images[0] == np.asarray(expected).transpose(2, 0, 1)).all()
    assert (usual.images != bilinear.images).any()


def test_decoded_files_of_earlier_versions_keep_their_names(birds, tmp_path):
    chosen = decoded.Selection(str(birds), data.list_images(str(birds), tmp_path)[1], np.arange(20), tmp_path, 16)
    steps = "RGB, shorter side resized (bicubic), centre crop\t16\n"
    key = hashlib.sha256((steps + "".join("0" * 64 for _ in range(20))).encode()).hexdigest()[:16]
    assert chosen.path(dict.fromkeys(chosen.sources, "0" * 64)).name == f"birds-16-{key}.npy"


@pytest.mark.parametrize("name", [n for n in data.PAPER if not n.startswith("cifar")])
def test_every_set_decodes_to_the_pil_path(eleven, name):
    made, (_, found) = data.load(name, "ericsson", eleven, 24), data.list_images(name, eleven)
    used = [i for i, part in enumerate(found.parts) if part or name == "caltech101"]
    usual = Compose([Resize(24, InterpolationMode.BICUBIC), CenterCrop(24)])
    for row, i in zip(made.images, used, strict=True):
        with Image.open(eleven / found.paths[i]) as image:
            assert (row == np.asarray(usual(image.convert("RGB"))).transpose(2, 0, 1)).all()


def test_a_second_time_decodes_nothing_and_maps_the_file(birds, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "TICKS", (0, 0))
    first = data.load(str(birds), "ericsson", tmp_path, 16)
    stamps = {p: p.stat().st_mtime_ns for p in made(tmp_path)}
    assert suffixes(tmp_path) == [".json", ".npy", ".sha256"]
    monkeypatch.setattr(decoded, "read_image_file", lambda *a, **k: pytest.fail("a file was read again"))
    second = data.load(str(birds), "ericsson", tmp_path, 16)
    assert isinstance(second.images, np.memmap)
    assert (first.images == second.images).all()
    assert first.digest == second.digest
    assert {p: p.stat().st_mtime_ns for p in made(tmp_path)} == stamps
    (note,) = (tmp_path / "prepared").glob("*.json")
    entries = {path: entry.split("\t") for path, entry in json.loads(note.read_text()).items()}
    assert entries.keys() == {str(path.relative_to(birds)) for path in birds.rglob("*.jpg")}
    note.write_text(json.dumps({path: [[*map(int, stamp.split())], sha256] for path, (stamp, sha256) in entries.items()}))
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest == first.digest  # version 0.2.0 wrote it so
    assert {path: entry.split("\t") for path, entry in json.loads(note.read_text()).items()} == entries


@pytest.mark.parametrize("name", ["food", "sun397"])
def test_prepared_data_of_100_000_images_are_loaded_without_a_path_object_for_each(eleven, name, monkeypatch):
    monkeypatch.setattr(manifest, "TICKS", (0, 0))
    images, joined, join = len(data.load(name, "ericsson", eleven, 16).images), [], Path.__truediv__
    monkeypatch.setattr(Path, "__truediv__", lambda self, key: joined.append(key) or join(self, key))
    monkeypatch.setattr(Path, "relative_to", lambda *_: pytest.fail("slow"))
    data.load(name, "ericsson", eleven, 16)
    assert len(joined) < images  # 27: it is a matter of files and folders


def test_another_size_or_content_is_another_file(birds, tmp_path):
    before = data.load(str(birds), "ericsson", tmp_path, 16)
    data.load(str(birds), "ericsson", tmp_path, 24)
    write(birds / "wren/new.jpg")
    (birds / "wren/new.jpg").replace(birds / "wren/3.jpg")
    after = data.load(str(birds), "ericsson", tmp_path, 16)
    assert len(list((tmp_path / "prepared").glob("*.npy"))) == 3
    assert before.digest != after.digest
    assert (before.images != after.images).any(axis=(1, 2, 3)).sum() == 1


def test_a_digest_tells_content_labels_and_split_apart_but_not_the_place(birds, tmp_path):
    here = data.load(str(birds), "ericsson", tmp_path, 16).digest
    shutil.copytree(birds, tmp_path / "elsewhere/birds")
    assert data.load(str(tmp_path / "elsewhere/birds"), "ericsson", tmp_path / "other", 16).digest == here
    assert data.load(str(birds), "paper", tmp_path, 16).digest != here
    (birds / "wren/3.jpg").rename(birds / "heron/x3.jpg")
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest != here


def test_a_copy_with_new_times_is_read_but_not_decoded_again(birds, tmp_path, monkeypatch):
    before = data.load(str(birds), "ericsson", tmp_path, 16)
    shutil.copytree(birds, tmp_path / "copy")  # as `cp -a`: with the old times
    shutil.rmtree(birds)
    (tmp_path / "copy").rename(birds)
    monkeypatch.setattr(image_file, "resize_shorter_side", lambda *a: pytest.fail("an image was decoded again"))
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest == before.digest
    for path in birds.rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest == before.digest
    assert len(list((tmp_path / "prepared").glob("*.npy"))) == 1


def test_files_of_one_size_and_time_that_change_places_are_other_data(birds, tmp_path, monkeypatch):
    """As after unzipping, where all times are equal, and `mv` of two images into each other's class."""
    monkeypatch.setattr(manifest, "TICKS", (0, 0))
    heron, wren = birds / "heron/3.jpg", birds / "wren/4.jpg"
    size = max(path.stat().st_size for path in (heron, wren))
    for path in (heron, wren):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (1e9, 1e9))
    before = data.load(str(birds), "ericsson", tmp_path, 16)
    heron.rename(tmp_path / "aside")
    wren.rename(heron)
    (tmp_path / "aside").rename(wren)
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest != before.digest
    swapped = data.load(str(birds), "ericsson", tmp_path, 16).digest
    wren.write_bytes(wren.read_bytes()[:-1] + b"\1")  # in place: the same inode, size and time
    os.utime(wren, (1e9, 1e9))
    assert data.load(str(birds), "ericsson", tmp_path, 16).digest != swapped


@pytest.mark.parametrize(("nanoseconds", "age", "known"), [(7, 0.001, 0), (7, 1, 1), (0, 1, 0), (0, 3, 1), (7, -9, 0)])
def test_a_file_is_known_once_no_change_can_go_unseen(tmp_path, monkeypatch, nanoseconds, age, known):
    """A file system may note whole seconds alone, or have a clock ahead of ours: then the content decides."""
    changed = 1_700_000_000_000_000_000 + nanoseconds
    monkeypatch.setattr(
        manifest.os, "stat", lambda path: SimpleNamespace(st_size=5, st_ino=6, st_mtime_ns=1, st_ctime_ns=changed)
    )
    monkeypatch.setattr(manifest.time, "time_ns", lambda: changed + int(age * 1e9))
    assert manifest.file_stamp(tmp_path / "x.jpg") == (f"5 6 1 {changed}" if known else manifest.UNKNOWN)


def test_what_is_remembered_is_no_more_than_a_help(birds, tmp_path):
    digest = data.load(str(birds), "ericsson", tmp_path, 16).digest
    (note,) = (tmp_path / "prepared").glob("*.json")
    for content in ("[[1, 2", "[3]", '{"wren/3.jpg": 7}', "3", ""):
        note.write_text(content)
        assert data.load(str(birds), "ericsson", tmp_path, 16).digest == digest


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_of_ones_own_stand_upright_in_every_format(tmp_path, form, orientation):
    """Stored in each of the eight ways of the EXIF standard, an image is read as it looks, whole and decoded."""
    upright = np.zeros((30, 40, 3), np.uint8)
    upright[:10, :5] = 200  # a light corner, top left
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif, path = Image.Exif(), tmp_path / "x"
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(path, form, exif=exif, **({"quality": 100} if form != "TIFF" else {}))
    assert np.abs(image_file.decode_whole(path, upright=True).astype(int) - upright).max() < 60
    file = image_file.read_image_file(path, size=30, upright=True)
    assert np.abs(file.pixels.transpose(1, 2, 0).astype(int) - upright[:, 5:35]).max() < 60
    assert file.sha256.endswith(" upright") == file.turned == (orientation > 1 and form != "TIFF")  # Pillow turns a TIFF itself
    assert image_file.read_image_file(path, decode=False, upright=True).sha256 == file.sha256
    plain = image_file.read_image_file(path)  # as the cited baselines read the published data sets
    assert (plain.sha256, plain.turned) == (file.sha256.removesuffix(" upright"), file.turned)
    if form != "TIFF":
        assert np.abs(image_file.decode_whole(path, upright=False).astype(int) - stored).max() < 60


def test_images_that_are_turned_are_other_data_and_counted(birds, eleven, tmp_path, capsys):
    home = eleven / "food-101/images/ramen"
    for path in (birds / "heron/3.jpg", birds / "wren/4.jpg", home / "train0.jpg"):
        with Image.open(path) as image:
            exif = image.getexif()
            exif[0x0112] = 6
            image.save(path, exif=exif, quality="keep")
    turned = data.load(str(birds), "ericsson", tmp_path, 16)
    assert turned.upright
    assert current_digest(str(birds), "ericsson", tmp_path) == (turned.digest, "")
    with Image.open(birds / "heron/3.jpg") as image:
        height_width = image.height, image.width
    (place,) = [i for i, path in enumerate(turned.files) if path.endswith("heron/3.jpg")]
    assert image_file.decode_whole(turned.files[place], turned.upright).shape[:2] == height_width[::-1]
    assert "2 images with an EXIF orientation, turned upright" in told(capsys, "data", "check", birds, "--data", tmp_path)[1]
    assert (
        "1 image with an EXIF orientation, not turned upright, as in the cited baselines"
        in (told(capsys, "data", "check", "food", "--data", eleven)[1])
    )
    made = data.load("food", "ericsson", eleven, 16)
    assert not made.upright


def test_a_decoded_file_that_is_cut_short_is_one_line(birds, tmp_path):
    data.load(str(birds), "ericsson", tmp_path, 16)
    (file,) = (tmp_path / "prepared").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"npy: is not a whole decoded file \(.*\); delete it"):
        data.load(str(birds), "ericsson", tmp_path, 16)


def test_a_jpeg_whose_end_is_zeros_is_cut_short(tmp_path):
    write(tmp_path / "x.jpg", size=(200, 150))
    whole = (tmp_path / "x.jpg").read_bytes()
    assert image_file.read_image_file(tmp_path / "x.jpg").problem == ""
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    assert "cannot be decoded (" in image_file.read_image_file(tmp_path / "x.jpg").problem
    (tmp_path / "x.jpg").write_bytes(whole + bytes(100))  # padded behind its end: harmless
    assert image_file.read_image_file(tmp_path / "x.jpg").problem == ""


def test_a_set_larger_than_memory_can_still_be_mapped(tmp_path):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = 2 * total // (3 * 224 * 224)
    with open(tmp_path / "x.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 224, 224)})
        f.truncate(f.tell() + count * 3 * 224 * 224)  # no disk is used: a hole
    assert decoded.open_decoded(tmp_path / "x.npy")[-1].sum() == 0


def test_jobs_that_decode_at_once_do_not_hurt_each_other(birds, tmp_path):
    command = [*SIMCLIC, "data", "prepare", str(birds), "--data", str(tmp_path), "--size", "48"]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {job.communicate()[0] for job in jobs}
    assert [job.returncode for job in jobs] == [0] * 4
    assert len(told) == 1
    assert "20 images of 48 x 48, ready" in told.pop()
    assert suffixes(tmp_path) == [".json", ".npy", ".sha256"]


def test_a_killed_job_leaves_nothing_in_the_place_of_the_whole(birds, tmp_path):
    script = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from simclic import data
        def tell(share, note):
            if share > 0.5:
                os.kill(os.getpid(), signal.SIGKILL)
        data.load({str(birds)!r}, "ericsson", Path({str(tmp_path)!r}), 64, tell=tell)
    """
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    (left,) = made(tmp_path)
    assert left.name.startswith(".birds-64.")
    old = time.time() - 4000
    os.utime(left, (old, old))
    data.load(str(birds), "ericsson", tmp_path, 64)
    assert suffixes(tmp_path) == [".json", ".npy", ".sha256"]


def prepared(birds, root, **options):
    """`simclic data prepare` of the folder in a process of its own: exit code and what it said on stderr."""
    command = [*SIMCLIC, "data", "prepare", str(birds), "--data", str(root), "--size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stderr


def limited():
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(birds, tmp_path):
    code, told = prepared(birds, tmp_path, preexec_fn=limited)
    assert (code, told.count("\n")) == (1, 1)
    assert told.startswith(f"error: {tmp_path}/prepared: cannot be written (File too large); choose another place")
    assert not made(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_without_room_is_told_before_anything_is_decoded(birds, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], check=True)
    try:
        code, told = prepared(birds, disk)
        assert (code, told.count("\n")) == (1, 1)
        assert "kB are needed, 102 kB are free; choose another place with --cache DIR" in told
        assert not made(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def nobody():
    """A folder that everybody may enter, and this process without root's rights, if it had them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for kind in ("heron", "wren"):
            for i in range(10):
                write(Path(folder) / f"birds/{kind}/{i}.jpg", key=(kind, i))
        root = os.geteuid() == 0
        yield Path(folder), lambda: os.seteuid(65534) if root else None
        if root:
            os.seteuid(0)


def test_a_place_that_may_not_be_written_is_one_line(nobody, capsys):
    place, drop = nobody
    (place / "locked").mkdir(mode=0o555)
    drop()
    code, _, err = told(capsys, "data", "prepare", place / "birds", "--data", place / "locked", "--size", "16")
    assert (code, err.count("\n")) == (1, 1)
    assert "locked/prepared: cannot be written (Permission denied); choose another place with --cache DIR" in err
    code, _, err = told(capsys, "data", "prepare", "dtd", "--data", place / "locked")
    assert (code, err.count("\n")) == (1, 1)
    assert "Permission denied; choose another place with --data DIR" in err
    assert not list((place / "locked").iterdir())


def test_the_decoded_copy_of_a_locked_root_lies_elsewhere(nobody, capsys, monkeypatch):
    place, drop = nobody
    monkeypatch.setenv(CACHE, "")
    (place / "locked").mkdir(mode=0o555)
    (place / "cache").mkdir()
    (place / "cache").chmod(0o777)
    drop()
    words = ("data", "prepare", place / "birds", "--data", place / "locked", "--size", "16", "--cache", place / "cache")
    assert told(capsys, *words)[0] == 0
    assert sorted(path.suffix for path in (place / "cache").iterdir()) == [".json", ".npy", ".sha256"]
    assert not list((place / "locked").iterdir())
    monkeypatch.setattr(image_file, "resize_shorter_side", lambda *_: pytest.fail("an image was decoded again"))
    data.load(str(place / "birds"), "ericsson", place / "locked", 16)


@pytest.mark.parametrize("path", ["birds/wren/3.jpg", "birds/wren", "birds"])
@pytest.mark.parametrize("verb", ["check", "prepare"])
def test_what_may_not_be_read_is_one_line_and_stops_no_other(nobody, capsys, verb, path):
    place, drop = nobody
    shutil.copytree(place / "birds", place / "good")
    (place / "out").mkdir()
    (place / "out").chmod(0o777)
    (place / path).chmod(0)
    drop()
    words = ("--size", "16") if verb == "prepare" else ()
    code, out, err = told(capsys, "data", verb, place / "birds", place / "good", "--data", place / "out", *words)
    os.seteuid(os.getuid())
    (place / path).chmod(0o755)
    assert (code, err.count("\n")) == (1, 1)
    assert f"error: {place / path}" in err
    assert "Permission denied" in err
    assert "good: 20 images" in out
    assert not list((place / "out").rglob("birds*.npy"))


def test_names_of_folders_make_file_names():
    assert manifest.file_stem("./My Birds/") == "my-birds"
    assert manifest.file_stem("cifar10") == "cifar10"
