"""simclic import: the 13 methods' official files become backbones with equal features, and what is none of theirs is refused."""

import csv
import hashlib
import json
import os
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from conftest import ROOT
from layouts import photograph
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from simclic import InputError, Run, Table, data
from simclic.__main__ import main
from simclic.experiment import Suite
from simclic.experiment.baselines import METHODS
from simclic.methods import backbones
from simclic.schedule.plan import list_runnable_results, plan
from simclic.train import pretrain
from simclic.weights import load as weights
from simclic.weights import published
from simclic.weights.card import Card, read_card

SIZE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def narrow(request, monkeypatch):
    """What is imported is compared with a narrow ResNet-50, except where features are computed: the real one takes seconds."""
    if "model" not in request.fixturenames:
        monkeypatch.setattr(backbones, "build_backbone", lambda run: official.narrow())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of real photographs, as a data set."""
    root = tmp_path_factory.mktemp("place")
    for kind in ("wren", "stork"):
        (root / "birds" / kind).mkdir(parents=True)
        for i in range(5):
            photograph((kind, i), (80, 70)).save(root / "birds" / kind / f"{i}.png")
    return root


def features(model, made, mean, std):
    """What a reference network makes of images in [0, 1], by hand."""
    x = torch.from_numpy(made.images[:4].astype(np.float32)) / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        return model((x - mean) / std)


def backbone(runs, made, **fields):
    """What a Run's backbone makes of the same images, by the way that every Run goes."""
    run = Run(image_size=SIZE, perturbation="none", epochs=0, **fields)
    f = pretrain.pretrain(run, made, runs, torch.device("cpu"))
    with torch.no_grad():
        return f(pretrain.prepare_images(run, made, runs, torch.device("cpu"))(torch.arange(4)))


def imported(name, state, runs, tmp_path, capsys):
    """Import a method's official file with these weights; the file, and the path of what it became, whose card is checked."""
    file = official.write(name, tmp_path, state, whole=name in ("moco-v1", "infomin", "insdis"))
    assert main(["import", name, str(file), "--runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{METHODS[name]}: ")
    assert f'init="{name}"' in text
    path = runs / "imported" / f"{name}.safetensors"
    with safe_open(path, "pt") as kept:
        card = json.loads(kept.metadata()["simclic.card"])
    assert card["method"] == METHODS[name]
    assert (tuple(card["mean"]), tuple(card["std"])) == NORMAL.get(name, (MEAN, STD))
    assert card["padding"] == PADDING.get(name, "symmetric")
    assert card["top_1"] == published.FACTS[name][0]
    assert card["dropped"]
    return file, path


NORMAL = dict.fromkeys(("simclr-v1", "simclr-v2"), ((0, 0, 0), (1, 1, 1)))
NORMAL |= dict.fromkeys(("swav", "sela-v2", "deepcluster-v2"), (MEAN, (0.228, *STD[1:])))
PADDING = {"simclr-v1": "same-pool", "simclr-v2": "same-pool", "byol": "same"}


@pytest.mark.parametrize("name", METHODS)
def test_an_official_file_is_imported_tensor_by_tensor(name, tmp_path, capsys):
    state, runs = {k: v.contiguous() for k, v in official.light(list(METHODS).index(name)).items()}, tmp_path / "runs"
    file, path = imported(name, state, runs, tmp_path, capsys)
    stored = load_file(path)
    assert stored.keys() | {k for k in state if k.endswith("num_batches_tracked")} == state.keys()
    assert all(v.equal(state[k]) for k, v in stored.items() if not k.endswith("num_batches_tracked"))
    if name in PADDING:
        assert main(["import", name, str(file), "--runs", str(runs), "--as-stored"]) == 0
        assert read_card(runs / "imported" / f"{name}-as-stored.safetensors").padding == "symmetric"


@pytest.fixture
def model():
    """torchvision's ResNet-50 in its real width."""
    return official.trained()


# One of each padding and normalisation; of equal weights and cards features are equal.
@pytest.mark.parametrize("name", ["swav", "byol", "simclr-v2"])
def test_features_of_an_official_file_are_its_method_s(name, model, place, tmp_path, capsys):
    runs = tmp_path / "runs"
    file, _ = imported(name, model.state_dict(), runs, tmp_path, capsys)
    made = data.load(str(place / "birds"), "ericsson", place, SIZE)
    ours = backbone(runs, made, dataset=str(place / "birds"), init=name)
    statistics = NORMAL.get(name, (MEAN, STD))
    torchvisions = features(model, made, *statistics) if name in PADDING else None
    theirs = features(official.reference(name, model), made, *statistics)
    assert theirs.std() > 1e-2
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    if torchvisions is not None:  # padded as stored, its features are torchvision's
        assert main(["import", name, str(file), "--runs", str(runs), "--as-stored"]) == 0
        stored = backbone(runs, made, dataset=str(place / "birds"), init=f"{name}-as-stored")
        assert (stored - torchvisions).abs().max() < 1e-5 * torchvisions.abs().max()
        assert (ours - torchvisions).abs().max() > 1e-2 * torchvisions.abs().max()


def test_the_top_1_on_a_card_is_the_authors_or_what_the_paper_prints():
    with open(ROOT / "baselines/table2.csv", newline="") as file:
        printed = {row["method"]: float(row["ImageNet"]) for row in csv.DictReader(file) if row["ImageNet"]}
    readmes = {"simclr-v1": 69.1, "byol": 74.4}  # by their authors, for these very files
    for name, facts in published.FACTS.items():
        assert facts.top_1 == pytest.approx(readmes.get(name, 100 - printed[METHODS[name]]), abs=0.06), name


def refused(name, file, runs, capsys, *more):
    """What `simclic import` says: one line, and nothing is written."""
    assert main(["import", name, str(file), "--runs", str(runs), *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not list(runs.glob("imported/*.safetensors"))
    return captured.err


OTHER = {
    "insdis": "moco-v1", "moco-v1": "moco-v2", "pcl-v1": "pcl-v2", "pirl": "insdis", "pcl-v2": "pcl-v1", "moco-v2": "infomin",
    "sela-v2": "pirl", "infomin": "pirl", "deepcluster-v2": "swav", "swav": "deepcluster-v2",
}  # fmt: skip


def refused_content(name, content, tmp_path, capsys):
    """What is said of a file with this content."""
    torch.save(content, tmp_path / "file.pth.tar", _use_new_zipfile_serialization=False)
    return refused(name, tmp_path / "file.pth.tar", tmp_path / "runs", capsys)


@pytest.mark.parametrize("name", official.TORCH)
def test_another_method_s_file_is_refused(name, tmp_path, capsys):
    for other in (OTHER[name], "moco-v2" if name in ("swav", "sela-v2") else "swav"):
        assert METHODS[name] in refused_content(name, official.contents(other, official.light()), tmp_path, capsys)


@pytest.mark.parametrize("name", ["moco-v2", "pirl", "swav"])  # one of each family of files: moco's, PyContrast's, SwAV's
def test_a_cut_an_odd_and_a_hostile_file_are_refused(name, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "file.pth.tar"

    def told(content):
        return refused_content(name, content, tmp_path, capsys)

    state = official.light()
    del state["layer3.4.conv2.weight"]
    assert "layer3.4.conv2.weight is missing" in told(official.contents(name, state))
    assert "is left over" in told(official.contents(name, official.light() | {"layer5.weight": torch.ones(1)}))
    state = official.light() | {"layer1.0.conv1.weight": torch.ones(64, 64, 3, 3)}
    assert "layer1.0.conv1.weight is (64, 64, 3, 3), not (4, 64, 1, 1)" in told(official.contents(name, state))
    state = official.light() | {"bn1.running_var": torch.full((64,), float("nan"))}
    assert "bn1.running_var is not finite" in told(official.contents(name, state))
    state = official.light() | {"bn1.weight": torch.ones(64, dtype=torch.complex64)}
    assert re.search("bn1.weight is not a (dense )?tensor of", told(official.contents(name, state)))

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    told({**official.contents(name, official.light()), "epoch": Code()})
    assert not (tmp_path / "executed").exists()
    torch.save(official.contents(name, official.light()), file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-3000])
    assert "is not a file of weights" in refused(name, file, runs, capsys)


def test_simclr_s_variables_are_all_used_or_dropped(tmp_path, capsys, monkeypatch):
    runs = tmp_path / "runs"
    state = {k: v.contiguous() for k, v in official.light().items()}

    def told(name, change, of=None):
        found = official.variables(of or name, state)
        change(found)
        prefix = tmp_path / "model.ckpt-1"
        official.bundles.write(prefix, found, crc=official.fast)
        return refused(name, prefix, runs, capsys)

    more = {"base_model/conv2d_0/kernel": np.ones((7, 7, 3, 64), "f"), "base_model/conv2d_53/kernel": np.ones((1, 1, 2, 2), "f")}
    said = told("simclr-v1", lambda found: found.update(more))
    assert all(f"{name} is left over" in said for name in more)
    assert "layer4.2.conv3.weight is missing" in told("simclr-v2", lambda found: found.pop("base_model/conv2d_52/kernel"))
    assert "head_contrastive/nl_0" in told("simclr-v2", lambda found: None, of="simclr-v1")
    assert "head_contrastive/nl_0" in told("simclr-v1", lambda found: None, of="simclr-v2")
    (tmp_path / "model.ckpt-1.data-00000-of-00001").write_bytes(b"cut")
    refused("simclr-v1", tmp_path / "model.ckpt-1", runs, capsys)
    refused("simclr-v1", tmp_path / "nothing", runs, capsys)


def test_byol_s_parts_are_all_used_or_dropped(tmp_path, capsys):
    runs = tmp_path / "runs"
    state = {k: v.contiguous() for k, v in official.light().items()}

    def told(change):
        return refused("byol", official.bundles.byol(tmp_path / "byol.pkl", state, change), runs, capsys)

    def without(params, averages):
        params.pop("res_net50/~/block_group_2/~/block_3/~/conv_1")

    def more(params, averages):
        params["res_net50/~/block_group_4/~/block_0/~/conv_0"] = {"w": np.ones((1, 1, 2, 2), "f")}
        here = "res_net50/~/block_group_0/~/block_0/~/"
        params[f"{here}shortcut_conv_3"] = params[f"{here}shortcut_conv"]

    def twice(params, averages):
        params["res_net50/~/initial_batchnorm_1/~/mean_ema"] = averages["res_net50/~/initial_batchnorm/~/mean_ema"]

    assert "initial_batchnorm/~/mean_ema/average is there twice" in told(twice)
    assert "layer3.3.conv2.weight is missing" in told(without)
    said = told(more)
    assert "shortcut_conv_3/w is left over" in said
    assert "block_group_4/~/block_0/~/conv_0/w is left over" in said
    file = official.bundles.byol(tmp_path / "byol.pkl", state)
    file.write_bytes(file.read_bytes()[:-3000])
    refused("byol", file, runs, capsys)
    torch.save(official.contents("moco-v2", official.light()), file)
    refused("byol", file, runs, capsys)


def test_byol_s_stem_has_one_of_two_names(tmp_path):
    state = {k: v.contiguous() for k, v in official.light().items()}

    def rename(params, averages):
        for modules in (params, averages):
            for name in [name for name in modules if "initial_" in name]:
                modules[re.sub("initial_(conv|batchnorm)", r"initial_\1_1", name)] = modules.pop(name)

    file = official.bundles.byol(tmp_path / "byol.pkl", state, rename)
    assert b"initial_conv_1" in file.read_bytes()
    backbone, card = published.convert_checkpoint("byol", file, official.fresh())
    assert all(torch.equal(backbone[k], v) for k, v in state.items() if not k.endswith("num_batches_tracked"))
    assert "res_net50/~/initial_batchnorm_1/~/mean_ema/counter" in card.dropped


STATED = [
    (
        "moco-v2",
        {"epoch": 200},
        "says epoch 200, where MoCo v2's published file has 800; fetch facebookresearch/moco, moco_v2_800ep",
    ),
    ("moco-v2", {"epoch": torch.tensor(799)}, "epoch 799; MD5 "),  # counted from 0
    ("moco-v1", {"epoch": 800}, "says epoch 800, where MoCo v1's published file has 200"),
    ("pcl-v1", {"epoch": 100}, "says epoch 100, where PCL's published file has 200"),
    ("infomin", {"epoch": 200}, "says epoch 200, where InfoMin's published file has 800"),
    ("insdis", {"epoch": "many"}, "its epoch is not a whole number"),
    ("pirl", {"epoch": 200, "step": 7}, "epoch 200; step 7"),
    ("swav", {"epoch": 400}, "says epoch 400, where SwAV's published file has 800"),
    ("sela-v2", {"epoch": 800}, "says epoch 800, where SeLa v2's published file has 400"),
    ("deepcluster-v2", {}, "nothing"),
]


@pytest.mark.parametrize(("name", "more", "told"), STATED)
def test_what_a_file_says_of_its_training_is_told_kept_and_not_contradicted(name, more, told, tmp_path, capsys):
    content = official.contents(name, official.light())
    content = content | more if "state_dict" in content or "model" in content else {"state_dict": content} | more
    torch.save(content, tmp_path / "file.pth.tar")
    if told.startswith("says"):
        assert told in refused(name, tmp_path / "file.pth.tar", tmp_path / "runs", capsys)
        return
    assert main(["import", name, str(tmp_path / "file.pth.tar"), "--runs", str(tmp_path / "runs")]) == 0
    assert f"the file says of itself: {told}" in capsys.readouterr().out
    card = read_card(tmp_path / "runs" / "imported" / f"{name}.safetensors")
    assert "; ".join(card.stated or ["nothing"]).startswith(told)


def test_steps_of_another_schedule_are_refused(tmp_path, capsys):
    runs, state = tmp_path / "runs", {k: v.contiguous() for k, v in official.light().items()}
    official.bundles.write(
        tmp_path / "model.ckpt-1",
        official.variables("simclr-v2", state) | {"global_step": np.array(28151, "i8")},
        crc=official.fast,
    )
    told = refused("simclr-v2", tmp_path / "model.ckpt-1", runs, capsys)
    assert "says global_step 28,151, where SimCLR v2's published file has 250,228; fetch google-research/simclr" in told
    told = refused("byol", official.bundles.byol(tmp_path / "byol.pkl", state, step=93835), runs, capsys)  # of 300 epochs
    assert "says step 93,835, where BYOL's published file has 297,145 to 328,423; fetch deepmind-research/byol" in told


def simsiam(state):
    heads = official.filled("module.encoder.fc.", official.MLP) | official.filled("module.predictor.", official.MLP)
    return {"epoch": 100, "arch": "resnet50", "state_dict": {f"module.encoder.{k}": v for k, v in state.items()} | heads}


def moco_v3(state):
    places = {"module.base_encoder.": 0, "module.momentum_encoder.": 1}
    return {"state_dict": {f"{place}{k}": v + add for place, add in places.items() for k, v in state.items()}}


def dino(state):
    return {
        name: {f"{place}{k}": v for k, v in state.items()} for name, place in (("teacher", "backbone."), ("student", "module."))
    }


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (simsiam, "'state_dict.module.encoder'; another method's needs no import: name it with --weights or init, as FILE\n"),
        (
            moco_v3,
            "'state_dict.module.base_encoder' and 'state_dict.module.momentum_encoder'; another method's needs no import: ",
        ),
        (
            dino,
            "'teacher.backbone' and 'student.module'; another method's needs no import: ",
        ),
        (
            dict,
            "no prefix; another method's needs no import: name it with --weights or init, as FILE; of one converted from BYOL's",
        ),
    ],
)
def test_where_another_method_s_resnet50_lies_is_told(content, places, tmp_path, capsys):
    for name in ("moco-v2", "swav") if content is simsiam else ("byol",):
        told = refused_content(name, content(official.light()), tmp_path, capsys)
        assert f"; it holds a whole ResNet-50 under {places}" in told
    assert "MoCo v3's or DINO's, needs no import" in refused("simsiam", tmp_path / "file.pth.tar", tmp_path / "runs", capsys)


def test_text_from_a_file_is_quoted_and_cut(tmp_path, capsys):
    odd = "a\n\x1b[31m\u202e" + "x" * 200_000
    for name, value in (("moco-v2", torch.ones(1)), ("swav", "text")):
        content = official.contents(name, official.light())
        content.get("state_dict", content)[odd] = value
        told = refused_content(name, content, tmp_path, capsys)
        assert "a\\n\\x1b[31m\\u202exxx" in told
        assert len(told) < 600
    content = official.contents("moco-v2", official.light()) | {odd: 1}
    torch.save(content, tmp_path / "file.pth.tar")
    assert main(["import", "moco-v2", str(tmp_path / "file.pth.tar"), "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 600
    assert "a\\n\\x1b[31m\\u202exxx" in lines[0]
    state = {k: v.contiguous() for k, v in official.light().items()}
    official.bundles.write(
        tmp_path / "model.ckpt-1",
        official.variables("simclr-v1", state) | {f"{odd[:9]}/kernel": np.ones(1, "f")},
        crc=official.fast,
    )
    assert "a\\n\\x1b[31m\\u202e" in refused("simclr-v1", tmp_path / "model.ckpt-1", tmp_path / "other", capsys)


def test_a_resnet50_without_a_card_is_told_what_is_assumed(tmp_path, capsys):
    torch.save({"state_dict": official.light()}, tmp_path / "simclr.pth")  # as converters write it
    weights.load_init(str(tmp_path / "simclr.pth"), "resnet50", deepcopy(official.narrow()))
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "simclr.pth' has no card; the data set's normalisation and torchvision's padding are assumed. SimCLR's and BYOL's" in line
    )
    card = Card("BYOL", "there", "0", MEAN, STD, "symmetric", 74.4)
    save_file({k: v.contiguous() for k, v in official.light().items()}, tmp_path / "byol.safetensors", card.metadata)
    weights.load_init(str(tmp_path / "byol.safetensors"), "resnet50", deepcopy(official.narrow()))
    assert capsys.readouterr().err == ""


def test_a_head_may_lack_its_count_of_batches(tmp_path):
    state = official.contents("swav", official.light())
    del state["module.projection_head.1.num_batches_tracked"]
    torch.save(state, tmp_path / "file.pth")
    published.convert_checkpoint("swav", tmp_path / "file.pth", official.fresh())
    del state["module.projection_head.1.running_var"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(InputError, match=r"projection_head\.1\.running_var is missing"):
        published.convert_checkpoint("swav", tmp_path / "file.pth", official.fresh())


def test_a_file_whose_md5_is_another_method_s(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file.pth.tar"
    torch.save(official.contents("pcl-v2", official.light()), file)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    layout = published.LAYOUTS["moco-v2"]
    monkeypatch.setitem(published.LAYOUTS, "moco-v2", replace(layout, md5=(md5[:8],)))
    told = refused("pcl-v2", file, tmp_path / "runs", capsys)
    assert "is MoCo v2's file by its MD5, not PCL v2's; run: simclic import moco-v2 FILE" in told


def test_a_file_with_its_own_md5_or_that_of_another_schedule(tmp_path, monkeypatch, capsys):
    file, runs = tmp_path / "file.pth.tar", tmp_path / "runs"
    torch.save(official.contents("moco-v2", official.light()), file)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    layout = published.LAYOUTS["moco-v2"]
    assert (layout.md5, published.LAYOUTS["moco-v1"].md5) == ("a04e12f8", "b251726a")  # as MoCo's own page gives them
    assert [md5 for md5, _ in layout.others] == ["59fd9945"]
    with monkeypatch.context() as patch:
        patch.setitem(published.LAYOUTS, "moco-v2", replace(layout, others=((md5[:8], "of 200 epochs"),)))
        for name in ("moco-v2", "pcl-v2"):
            told = refused(name, file, runs, capsys)
            assert "is MoCo v2's file of 200 epochs; Table 2's is facebookresearch/moco, moco_v2_800ep_pretrain.pth.tar" in told
    assert main(["import", "moco-v2", str(file), "--runs", str(runs)]) == 0
    assert f"MD5 {md5}, not of the published file (a04e12f8...)" in capsys.readouterr().out
    monkeypatch.setitem(published.LAYOUTS, "moco-v2", replace(layout, md5=md5[:8]))
    assert main(["import", "moco-v2", str(file), "--runs", str(runs)]) == 0
    assert f"epoch 800; MD5 {md5}, of the published file\n" in capsys.readouterr().out


def test_what_else_a_file_holds_is_dropped_by_name(tmp_path, capsys):
    file, runs = tmp_path / "file.pth.tar", tmp_path / "runs"

    def dropped(name, content):
        torch.save(content, file)
        assert main(["import", name, str(file), "--runs", str(runs)]) == 0
        with safe_open(runs / "imported" / f"{name}.safetensors", "pt") as kept:
            return set(json.loads(kept.metadata()["simclic.card"])["dropped"])

    more = official.contents("moco-v2", official.light()) | {"scaler": {"scale": 1.0}}
    assert {"epoch", "arch", "scaler"} <= dropped("moco-v2", more)
    pirl = official.contents("pirl", official.light())
    pirl["model"]["module.jigsaw.weight"] = torch.ones(3)
    assert "module.jigsaw.weight" in dropped("pirl", pirl)
    plain = official.contents("swav", official.light())
    heads = dropped("swav", plain)
    assert "module.prototypes.weight" in heads
    assert dropped("swav", {"state_dict": plain, "epoch": 800, "optimizer": {}}) == heads | {"epoch", "optimizer"}
    several = {k: v for k, v in official.contents("deepcluster-v2", official.light()).items() if "projection" not in k}
    other = {k: torch.ones(9, 2048) if k.endswith("0.weight") else v for k, v in plain.items() if "projection" in k}
    assert "module.prototypes.prototypes0.weight" in dropped("sela-v2", {**several, **other})
    assert "projection_head.0.weight is (9, 2048), not (2048, 2048)" in swav_refuses({**plain, **other}, file, tmp_path, capsys)


def swav_refuses(content, file, place, capsys):
    torch.save(content, file)
    return refused("swav", file, place / "other", capsys)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("conv1.weight", torch.full((64, 3, 7, 7), 0.3), "is one number throughout"),
        ("bn1.running_var", torch.linspace(-1e-3, 1, 64), "is negative"),
        ("bn1.running_var", torch.ones(64), "was never trained"),
        ("bn1.running_mean", torch.zeros(64), "was never trained"),
        ("bn1.bias", torch.full((64,), float("inf")), "is not finite"),
        ("conv1.weight", torch.ones(64, 3, 7, 7, dtype=torch.int64), "is of torch.int64"),
    ],
)
def test_what_no_training_leaves_is_refused(key, value, told):
    wanted = official.fresh()
    published.check_trained_resnet50("swav", Path("x"), official.light(), wanted)
    with pytest.raises(InputError, match=rf"^x: is not SwAV's ResNet-50: {re.escape(key)} {told}$"):
        published.check_trained_resnet50("swav", Path("x"), official.light() | {key: value}, wanted)
    scales = {k: torch.full_like(v, float(k.endswith("weight"))) for k, v in wanted.items() if v.ndim == 1 and "running" not in k}
    published.check_trained_resnet50("swav", Path("x"), official.light() | dict(list(scales.items())[1:]), wanted)
    with pytest.raises(InputError, match=r"no norm's weight or bias was ever trained$"):
        published.check_trained_resnet50("swav", Path("x"), official.light() | scales, wanted)


def test_weights_that_were_never_trained_are_refused(tmp_path, capsys):
    torch.save(official.contents("moco-v2", official.fresh()), tmp_path / "file.pth.tar")
    told = refused("moco-v2", tmp_path / "file.pth.tar", tmp_path / "runs", capsys)
    assert "bn1.running_mean was never trained; bn1.running_var was never trained" in told
    wanted = {"conv1.weight": torch.ones(1, 1, 1, 1)}
    with pytest.raises(InputError, match=r"conv1\.weight was never trained"):
        published.check_trained_resnet50("swav", Path("x"), dict(wanted), wanted)


def test_a_pickle_of_numpy_s_cannot_reach_numpy(tmp_path, capsys):
    """What stands for numpy's scalars and dtypes in such files is inert: a dtype of objects would crash the interpreter."""

    class Scalar:
        def __reduce__(self):
            return np.float64(0).__reduce__()[0], (np.dtype("f8,O"),)

    found = official.contents("insdis", official.light(), whole=True)
    found["optimizer"]["param_groups"][0]["lr"] = Scalar()
    torch.save(found, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    assert main(["import", "insdis", str(tmp_path / "file.pth"), "--runs", str(tmp_path / "runs")]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_bad_words_are_one_line(place, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert "'moco' is not one of insdis, moco-v1," in refused("moco", "x", runs, capsys)
    assert "x: cannot be read (No such file or directory)" in refused("swav", "x", runs, capsys)
    assert "--as-stored with 'swav'" in refused("swav", "x", runs, capsys, "--as-stored")
    made = data.load(str(place / "birds"), "ericsson", place, SIZE)
    with pytest.raises(InputError, match="init='swav': is not imported yet; run: simclic import swav FILE --runs "):
        backbone(runs, made, dataset=str(place / "birds"), init="swav")
    run = Run(dataset="digits", init="byol-as-stored", perturbation="none", epochs=0)
    asked = plan([Suite("", "", (Table(paper="table2", caption="", runs=(run,)),), "x.py")], runs, place)
    told = f"init='byol-as-stored': is not imported yet; run: simclic import byol FILE --as-stored --runs {runs}"
    assert asked.absent == {"byol-as-stored": told}
    with pytest.raises(InputError, match="is not imported yet"):
        list_runnable_results(asked)
