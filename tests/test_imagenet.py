"""ImageNet in the layouts in which it lies on disks, in miniature: three synsets and odd files."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from commands import told
from conftest import compute_results, tiny
from layouts import write
from PIL import Image
from scipy.io import savemat
from stored import measure

from simclic import Figure, InputError, Linear, Run, Table, data, grid
from simclic.data import FACTS, fetch
from simclic.data.metrics import top_1, top_5
from simclic.data.sets import imagenet
from simclic.files import read_json, write_json
from simclic.report.gaps import list_notes
from simclic.report.results import Results
from simclic.report.tables import build_sheet
from simclic.store.run_folder import RunFolder

SYNSETS = ("n01440764", "n01443537", "n15075141")


def fill_synsets(home):
    """8 train and 3 val images of each synset; among them a CMYK JPEG, a PNG named JPEG, a grey one, and one on its side."""
    for k, synset in enumerate(SYNSETS):
        for i in range(8):
            write(home / f"train/{synset}/{synset}_{i}.JPEG")
        for i in range(3):
            write(home / f"val/{synset}/ILSVRC2012_val_{3 * i + k + 1:08d}.JPEG")
    write(home / f"train/{SYNSETS[0]}/{SYNSETS[0]}_1.JPEG", mode="CMYK")
    write(home / f"train/{SYNSETS[0]}/{SYNSETS[0]}_2.JPEG", form="PNG")
    write(home / f"train/{SYNSETS[1]}/{SYNSETS[1]}_0.JPEG", mode="L")
    turned = home / f"train/{SYNSETS[2]}/{SYNSETS[2]}_0.JPEG"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(turned) as image:
        image.copy().save(turned, "JPEG", exif=exif)


def pack_archives(home, root):
    """The makers' three archives of these images, and the MD5 of each."""
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as whole:
        for synset in SYNSETS:
            with tarfile.open(root / f"{synset}.tar", "w") as inner:
                for path in sorted((home / "train" / synset).iterdir()):
                    inner.add(path, path.name)
            whole.add(root / f"{synset}.tar", f"{synset}.tar")
            (root / f"{synset}.tar").unlink()
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as whole:
        for path in sorted((home / "val").rglob("*.JPEG")):
            whole.add(path, path.name)
    ids = {synset: i for i, synset in enumerate(SYNSETS[::-1], 1)}  # their order is not that of the synsets
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    rows = np.array([(i, synset, "a, b", "c", 0) for synset, i in ids.items()], dtype=kind)
    savemat(meta := io.BytesIO(), {"synsets": rows})
    truth = {path.name: ids[path.parent.name] for path in (home / "val").rglob("*.JPEG")}
    lines = "".join(f"{truth[name]}\n" for name in sorted(truth)).encode()
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        for name, content in (("meta.mat", meta.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", lines)):
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            kit.addfile(member, io.BytesIO(content))
    return {path.name: f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}" for path in root.glob("ILSVRC2012_*")}


@pytest.fixture
def small(monkeypatch):
    """The facts of the miniature."""
    known = replace(FACTS["imagenet"], classes=3, sizes=(20, 4, 9), images=33)
    monkeypatch.setitem(FACTS, "imagenet", known)
    return known


def test_the_digests_are_torchvisions():
    from torchvision.datasets.imagenet import ARCHIVE_META

    ours = {(a.file, a.digest.removeprefix("md5:")) for a in (*FACTS["imagenet"].archives, imagenet.DEVKIT)}
    assert ours == set(ARCHIVE_META.values())


def test_the_makers_train_is_divided_and_their_val_is_reported_on(tmp_path, small):
    fill_synsets(tmp_path / "imagenet")
    loaded = {split: data.load("imagenet", split, tmp_path, 16) for split in data.SPLITS}
    assert loaded["ericsson"].splits.sizes == {"train": 20, "val": 4, "test": 9, "fit": 24}
    assert loaded["paper"].splits.sizes == {"train": 24, "val": 9, "test": 9, "fit": 24}
    assert small.paper == (24, 9, 9)
    assert all("/val/" in loaded["ericsson"].files[i] for i in loaded["ericsson"].splits.test)
    needed = data.load("imagenet", "ericsson", tmp_path, 16, decode="as-needed")
    assert (loaded["ericsson"].images == needed.images[np.arange(33)]).all()
    assert needed.digest == loaded["ericsson"].digest
    whole = [data.load("imagenet", "ericsson", tmp_path, 18, decode=way, whole=True) for way in ("once", "as-needed")]
    assert whole[0].digest == whole[1].digest == needed.digest
    for i in range(len(needed.images)):
        assert (whole[0].images.read_image(i) == whole[1].images.read_image(i)).all()


def test_odd_files_are_whole(tmp_path, small, capsys):
    fill_synsets(tmp_path / "imagenet")
    code, out, err = told(capsys, "data", "check", "imagenet", "--data", tmp_path)
    assert (code, err) == (0, "")
    for remark in ("1 image of mode CMYK", "1 image of mode L", "1 image with an EXIF orientation, not turned upright"):
        assert remark in out
    (tmp_path / "imagenet/val/n15075141").rename(tmp_path / "imagenet/val/n15075142")
    with pytest.raises(InputError, match="synset n15075141: in train, but not in val; move it away"):
        data.load("imagenet", "ericsson", tmp_path, 16)


def test_prepare_unpacks_the_makers_archives_and_sorts_val_by_the_kit(tmp_path, small, monkeypatch, capsys):
    fill_synsets(tmp_path / "there/imagenet")
    root = tmp_path / "data"
    root.mkdir()
    md5 = pack_archives(tmp_path / "there/imagenet", root)
    archives = tuple(replace(a, digest=md5[a.file]) for a in small.archives)
    monkeypatch.setitem(FACTS, "imagenet", replace(small, archives=archives))
    code, _, err = told(capsys, "data", "prepare", "imagenet", "--data", root, "--size", "16")
    assert (code, err.count("\n")) == (1, 1)
    assert "ILSVRC2012_devkit_t12.tar.gz: is not the published archive" in err
    monkeypatch.setattr(imagenet, "DEVKIT", replace(imagenet.DEVKIT, digest=md5[imagenet.DEVKIT.file]))
    code, out, err = told(capsys, "data", "prepare", "imagenet", "--data", root, "--size", "16")
    assert (code, err) == (0, "")
    assert "imagenet: 33 images of 16 x 16, ready" in out
    same = data.load("imagenet", "ericsson", tmp_path / "there", 16)
    assert data.load("imagenet", "ericsson", root, 16).digest == same.digest


def test_without_archives_or_kit_one_line_says_what_to_do(tmp_path, small, capsys):
    code, _, err = told(capsys, "data", "prepare", "imagenet", "--data", tmp_path)
    assert code == 1
    assert "with ILSVRC2012_devkit_t12.tar.gz, at image-net.org" in err
    assert "put ILSVRC2012_img_train.tar into" in err
    fill_synsets(tmp_path / "imagenet")
    write(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(InputError, match=f"in no synset's folder; run: simclic data prepare imagenet --data {tmp_path}"):
        data.load("imagenet", "ericsson", tmp_path, 16)
    with pytest.raises(InputError, match=r"is written in ILSVRC2012_devkit_t12.tar.gz; .* at image-net.org"):
        fetch.fetch("imagenet", tmp_path, print)


def test_top_5_counts_a_class_among_the_five_highest():
    scores = np.array([[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4.0], [0, 0, 0, 0, 0, 1]])
    assert top_5(np.array([4, 5, 5]), scores) == pytest.approx(100 / 3)
    assert top_1(np.array([0, 5, 5]), scores) == pytest.approx(100 / 3)


def test_a_result_on_imagenet_has_both_errors_and_stands_in_its_column(tmp_path, small):
    from conftest import ROOT

    fill_synsets(tmp_path / "imagenet")
    protocol, runs = Linear(l2_count=2, tolerance=1e-2), tmp_path / "runs"
    run = Run(**tiny(dataset="imagenet", batch_size=8, epochs=1).differing)
    compute_results(run, [protocol], runs, tmp_path)
    result = RunFolder(runs, run).read_result(protocol)
    assert (result["top-5"], result["metric"]) == (0.0, "top-1")  # of three classes
    table = Table(paper="table2", caption="", runs=(run,), protocols=(protocol,))
    sheet = build_sheet(table, Results(runs), ROOT / "baselines")
    (ours,) = [group for _, groups in sheet.blocks for group in groups if group.title == "Run here"]
    assert ours.rows[0].cells[sheet.header.index("ImageNet")].value == result["error"]
    assert "top-5 error: ImageNet, linear evaluation, SimCLIC (noise): 0.00" in list_notes(table, Results(runs), {}, "")


def test_top_5_is_the_mean_over_the_seeds_of_one_cell(tmp_path):
    figure = Figure(name="x", caption="", x="epochs", runs=grid(dataset="imagenet", epochs=(100, 200), seed=(0, 1)))
    for n, job in enumerate(figure.jobs):
        measure(tmp_path, job.run, job.protocol, 30.0)
        path = RunFolder(tmp_path, job.run).result_path(job.protocol)
        write_json(path, read_json(path) | {"top-5": 10.0 * n})
    notes = [note for note in list_notes(figure, Results(tmp_path), {}, "") if note.startswith("top-5")]
    cell = "top-5 error: ImageNet, linear evaluation, SimCLIC (noise), epochs"
    assert notes == [f"{cell} 100: 5.00", f"{cell} 200: 25.00"]
