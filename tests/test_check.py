"""Is a data set whole? Everything that is wrong is named, and the exit code is 0 only if nothing is."""

import json
import socket

import pytest
from commands import told

from simclic import data
from simclic.data.check import check


def silent(share, note):
    pass


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("check went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", data.PAPER)
def test_a_whole_set_is_whole(eleven, name):
    shares = []
    found = check(name, eleven, lambda share, note: shares.append(share))
    assert found.problems == []
    assert tuple(found.sizes[part] for part in ("train", "val", "test")) == data.facts(name).sizes
    assert sum(sum(parts.values()) for parts in found.classes.values()) == (
        30 if name == "voc2007" else sum(data.facts(name).sizes)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for rule, digest in found.digests.items():
        assert data.load(name, rule, eleven, 16).digest == digest


def test_modes_that_are_turned_into_rgb_are_counted(eleven):
    assert check("cars", eleven, silent).modes == {"CMYK": 2}
    assert check("caltech101", eleven, silent).modes == {"L": 3}
    assert check("sun397", eleven, silent).modes == {"P": 1, "RGBA": 1}


def test_everything_that_is_wrong_is_named_at_once(eleven, capsys):
    home = eleven / "food-101/images"
    (home / "ramen/train0.jpg").write_bytes((home / "ramen/train0.jpg").read_bytes()[:-200])
    (home / "ramen/test1.jpg").unlink()
    (home / "cheesecake/test0.jpg").write_bytes(b"")
    (home / "ramen/extra.jpg").write_bytes(b"")
    home = eleven / "oxford-iiit-pet/annotations/test.txt"
    home.write_text("\n".join(home.read_text().splitlines()[1:]))
    code, out, err = told(capsys, "data", "check", "dtd", "food", "pets", "--data", eleven)
    assert code == 1
    named = sorted(line.split(": ")[1].rsplit("/", 1)[-1] for line in err.splitlines() if "food-101" in line)
    assert named == ["test0.jpg", "test1.jpg", "train0.jpg"]
    assert "test1.jpg: is missing" in err
    assert "oxford-iiit-pet: 26 images, published are 27" in err
    assert f"away and run: simclic data prepare pets --data {eleven}\n" in out
    assert "ramen/extra.jpg: belongs to no image that is listed; not used" in out
    assert out.count("  whole\n") == 1  # the textures


def test_an_absent_set_is_not_whole(tmp_path, capsys):
    code, _, err = told(capsys, "data", "check", "flowers", "digits", "--data", tmp_path)
    assert code == 1
    assert err == f"error: {tmp_path}/flowers-102: Flowers is not there; run: simclic data prepare flowers --data {tmp_path}\n"
    code, _, err = told(capsys, "data", "check", "flowers", "digit", "--data", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'digits'" in err


def test_an_altered_decoded_file_is_found(eleven):
    data.load("dtd", "ericsson", eleven, 16)
    (file,) = (eleven / "prepared").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[300] ^= 1
    file.write_bytes(content)
    assert check("dtd", eleven, silent).problems == [
        f"{file}: is not what was decoded (SHA-256 differs); delete it, then simclic data prepare dtd --data {eleven}"
    ]


def test_json_says_it_all(eleven, capsys):
    code, out, _ = told(capsys, "data", "check", "voc2007", "--data", eleven, "--json")
    answer = json.loads(out)["voc2007"]
    assert (code, answer["whole"], answer["images"]) == (0, True, 24)
    assert answer["classes"]["dog"] == {"train": 4, "val": 4, "test": 4}
    assert set(answer["digests"]) == {"ericsson", "paper"}


def test_digits_are_always_whole(tmp_path, capsys):
    code, out, _ = told(capsys, "data", "check", "digits", "--data", tmp_path)
    assert code == 0
    assert "1173afbbc5ab4fc8 under the split ericsson" in out


def test_images_one_folder_too_deep_are_one_line_with_a_count(eleven, capsys):
    home = eleven / "food-101/images"
    home.rename(eleven / "images")
    home.mkdir()
    (eleven / "images").rename(home / "deep")
    for words in (("check", "food"), ("prepare", "food", "--size", "16")):
        _, _, err = told(capsys, "data", *words, "--data", eleven)
        first, deep = "cheesecake/train0.jpg", home / "deep"
        assert (
            err
            == f"error: {home / first}: is missing, and so are 26 more files; {first} is in {deep}: move what is in there up\n"
        )
