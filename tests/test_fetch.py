"""Downloaded, verified, unpacked: from a real server, and never outside the folder."""

import functools
import http.server
import io
import os
import resource
import shutil
import socketserver
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from commands import told

from simclic import InputError, data
from simclic.data import FACTS
from simclic.data.fetch import fetch, unpack


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(built, tmp_path, monkeypatch):
    """The archives of the eleven sets on a server; the facts name it. Returns their folder and an empty root."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=shelf))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    layouts.accept(monkeypatch, *built)
    for name in data.PAPER:
        archives = []
        for archive in FACTS[name].archives:
            path = layouts.pack(archive, built[0], shelf)
            url = f"http://127.0.0.1:{server.server_port}/{archive.file}" if archive.url else ""
            archives.append(replace(archive, url=url, digest=archive.digest and f"md5:{layouts.md5(path)}"))
        monkeypatch.setitem(FACTS, name, replace(FACTS[name], archives=tuple(archives)))
    yield shelf, tmp_path / "data"
    server.shutdown()
    server.server_close()


def test_all_that_can_be_downloaded_is_and_the_rest_is_told(served, capsys):
    shelf, root = served
    for archive in FACTS["sun397"].archives:
        (shelf / archive.file).rename(shelf.parent / archive.file)  # as its makers' host: 404
    code, out, err = told(capsys, "data", "prepare", *data.PAPER, "--data", root, "--size", "16")
    assert code == 1
    refused = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out.count("ready; data") == 9
    assert len(refused) == 6  # four files of Cars, two of SUN397
    assert all("its makers' page is gone" in line for line in refused if "stanford_cars" in line)
    for file in ("SUN397.tar.gz", "Partitions.zip"):
        (line,) = [line for line in refused if f"/{file}: cannot be downloaded (HTTP Error 404" in line]
        assert (
            f"is gone (torchvision issue 9348); from a mirror, such as opendatalab.com/OpenDataLab/SUN397, put {file} into"
            in line
        )
    for archive in FACTS["cars"].archives + FACTS["sun397"].archives:
        shutil.copy(next(place / archive.file for place in (shelf, shelf.parent) if (place / archive.file).exists()), root)
    code, out, _ = told(capsys, "data", "prepare", *data.PAPER, "--data", root, "--size", "16")
    assert code == 0
    assert out.count("ready; data") == 11
    assert "downloading" not in out
    assert (root / "car_devkit.tgz").is_file()  # what the user brought stays
    assert told(capsys, "data", "check", *data.PAPER, "--data", root)[0] == 0
    assert not list(root.glob(".fetch-*"))
    assert [path.name for path in root.glob("*.tar*")] == ["SUN397.tar.gz"]


def bad(shelf, name, content):
    """Serve other bytes for a set's only archive."""
    (archive,) = FACTS[name].archives
    (shelf / archive.file).write_bytes(content)


def untouched(root):
    return [p.name for p in root.iterdir()] == []


def test_an_archive_with_another_digest_is_not_unpacked(served):
    shelf, root = served
    bad(shelf, "dtd", (shelf / "food-101.tar.gz").read_bytes())
    with pytest.raises(InputError, match=r"dtd-r1.0.1.tar.gz: is not the published archive \(md5 [0-9a-f]{32} is\)"):
        fetch("dtd", root, print)
    assert untouched(root)


def test_a_download_that_was_cut_short_is_not_unpacked(served):
    shelf, root = served
    bad(shelf, "aircraft", (shelf / "fgvc-aircraft-2013b.tar.gz").read_bytes()[:-400])  # no digest is published for it
    with pytest.raises(InputError, match=r"fgvc-aircraft-2013b.tar.gz: is damaged \(.*\); run this again, or put"):
        fetch("aircraft", root, print)
    assert untouched(root)


def test_a_server_that_does_not_answer_is_one_line(served, monkeypatch):
    _, root = served
    (archive,) = FACTS["food"].archives
    for url, why in ((f"{archive.url}x", "404"), ("http://127.0.0.1:9/food-101.tar.gz", "refused")):
        monkeypatch.setitem(FACTS, "food", replace(FACTS["food"], archives=(replace(archive, url=url),)))
        with pytest.raises(InputError, match=rf"{url}: cannot be downloaded \(.*{why}.*\); put food-101.tar.gz into") as told:
            fetch("food", root, print)
        assert "\n" not in str(told.value)
    assert untouched(root)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf", b"", None]
)
def test_a_server_that_talks_nonsense_or_not_at_all_is_one_line(served, monkeypatch, answer):
    _, root = served
    monkeypatch.setattr("simclic.data.fetch.SILENCE", 0.3)

    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self):
            head = self.request.recv(4000).startswith(b"HEAD")
            if head or answer is not None:
                self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if head else answer)
            else:
                self.request.recv(1)  # until the other side gives up

    with socketserver.TCPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (archive,) = FACTS["food"].archives
        url = f"http://127.0.0.1:{server.server_address[1]}/food-101.tar.gz"
        monkeypatch.setitem(FACTS, "food", replace(FACTS["food"], archives=(replace(archive, url=url),)))
        with pytest.raises(InputError, match=r"food-101\.tar\.gz: cannot be downloaded") as told:
            fetch("food", root, print)
        server.shutdown()
    assert "\n" not in str(told.value)
    assert untouched(root)


def test_the_partitions_first_do_not_stand_for_the_images(served):
    shelf, root = served
    images, partitions = FACTS["sun397"].archives
    root.mkdir()
    shutil.copy(shelf / partitions.file, root)
    (shelf / images.file).rename(shelf / "gone")
    with pytest.raises(InputError, match=r"SUN397\.tar\.gz: cannot be downloaded"):
        fetch("sun397", root, print)
    assert (root / "SUN397/ClassName.txt").is_file()
    shutil.copy(shelf / "gone", root / images.file)
    fetch("sun397", root, print)
    assert len(data.load("sun397", "paper", root, 16).images) == 30


@pytest.mark.parametrize("name", ["voc2007", "sun397"])
def test_a_kill_while_files_are_moved_is_made_good(served, name):
    shelf, root = served
    for archive in FACTS[name].archives:
        if not archive.url:
            root.mkdir(exist_ok=True)
            shutil.copy(shelf / archive.file, root)
    (root / FACTS[name].home).mkdir(parents=True)  # so that files are moved one by one
    moved, whole = [], os.replace

    def kill(source, target):
        moved.append(target)
        if len(moved) == 5:
            raise KeyboardInterrupt
        whole(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simclic.data.fetch.os.replace", kill)
        with pytest.raises(KeyboardInterrupt):
            fetch(name, root, print)
    assert len(moved) == 5
    assert data.explain_missing(name, root)
    fetch(name, root, print)
    assert len(data.load(name, "ericsson", root, 16).images) == sum(FACTS[name].sizes)


def test_what_a_killed_download_left_is_swept(served):
    _, root = served
    for name, age in (("old", 90_000), ("new", 10)):
        (root / f".fetch-{name}").mkdir(parents=True)
        (root / f".fetch-{name}/half").write_bytes(b"x")
        for path in (root / f".fetch-{name}/half", root / f".fetch-{name}"):
            os.utime(path, (time.time() - age,) * 2)
    fetch("dtd", root, print)
    assert [p.name for p in root.glob(".fetch-*")] == [".fetch-new"]


def tar_of(path, *members, mode="w:gz"):
    """An archive of (name, type, target or content)."""
    with tarfile.open(path, mode) as tar:
        for name, kind, rest in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = rest
                tar.addfile(info)
            else:
                info.size = len(rest)
                tar.addfile(info, io.BytesIO(rest))
    return path


FILE, LINK, HARD, FIFO = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a", FILE, b"1"), ("../x", FILE, b"2")], "member '../x' leads out of the folder; nothing was unpacked"),
        ([("a/../../x", FILE, b"2")], "member 'a/../../x' leads out of the folder"),
        ([("/tmp/x", FILE, b"2")], "member '/tmp/x' leads out of the folder"),
        ([("a", LINK, ".."), ("a/x", FILE, b"2")], "member 'a' is a link; only files and folders are unpacked"),
        ([("a", FILE, b"1"), ("b", HARD, "a")], "member 'b' is a link"),
        ([("a", FIFO, b"")], "member 'a' is a device"),
        ([("a", FILE, b"1"), ("a", FILE, b"2")], "has two members named 'a'"),
        ([("a", FILE, b"1"), ("a/b", FILE, b"2")], "has two members named 'a'"),
    ],
)
def test_a_member_that_may_not_be_is_refused_and_nothing_is_left(served, monkeypatch, members, message):
    shelf, root = served
    path = tar_of(shelf / "food-101.tar.gz", *members)
    (archive,) = FACTS["food"].archives
    changed = replace(archive, digest=f"md5:{layouts.md5(path)}")
    monkeypatch.setitem(FACTS, "food", replace(FACTS["food"], archives=(changed,)))
    with pytest.raises(InputError, match=r"food-101\.tar\.gz") as told:
        fetch("food", root, print)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert untouched(root)
    assert not (root.parent / "x").exists()
    assert not Path("/tmp/x").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a\\..\\x"])
def test_zip_members_stay_inside_too(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as whole:
        whole.writestr(name, "2")
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as whole:
        whole.writestr(info, "/etc")
    with pytest.raises(InputError, match="member 'link' is a link"):
        unpack(tmp_path / "b.zip", tmp_path / "out2")


def test_no_archive_at_all_is_one_line(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"a.tar.gz: is damaged \(.*\)") as told:
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert "\n" not in str(told.value)


def test_an_archive_of_something_else_is_refused(served, monkeypatch):
    shelf, root = served
    path = tar_of(shelf / "food-101.tar.gz", ("food/a.jpg", FILE, b"1"))
    (archive,) = FACTS["food"].archives
    changed = replace(archive, digest=f"md5:{layouts.md5(path)}")
    monkeypatch.setitem(FACTS, "food", replace(FACTS["food"], archives=(changed,)))
    with pytest.raises(InputError, match="does not hold food-101; it is not the published archive"):
        fetch("food", root, print)
    assert untouched(root)


def test_a_root_that_may_not_be_written_is_one_line(served, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = told(capsys, "data", "prepare", "dtd", "--data", tmp_path / "file")
    assert (code, err.count("\n")) == (1, 1)
    assert f"{tmp_path / 'file'}: File exists; choose another place with --data DIR" in err


def test_a_disk_that_fills_up_while_downloading_is_one_line(served):
    _, root = served
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(InputError, match="File too large; choose another place with --data DIR") as told:
            fetch("food", root, print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "\n" not in str(told.value)
    assert untouched(root)


def test_a_folder_that_somebody_unpacked_in_part_is_told(served):
    _, root = served
    (root / "fgvc-aircraft-2013b/data/images").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"data: variants.txt, images_variant_train.txt, .* missing; move .*fgvc-aircraft-2013b away and"
    ):
        fetch("aircraft", root, print)
