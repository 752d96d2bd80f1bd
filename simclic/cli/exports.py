"""simclic export RUN: a Run's backbone under timm's key names, which for a ResNet are torchvision's."""

import argparse
from pathlib import Path

from simclic.cli import add_runs_argument, expand_path, find_run_folder
from simclic.errors import InputError
from simclic.experiment import METHODS, Run


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic export`."""
    parser.set_defaults(verb=export_weights)
    parser.add_argument("run", metavar="RUN", help="the name of its folder, or the first letters of it")
    parser.add_argument("--out", type=expand_path, metavar="FILE", help="file to write (RUN.safetensors in the current folder)")
    add_runs_argument(parser)


def export_weights(arguments: argparse.Namespace) -> int:
    """Write the weights with a card, and print how to load them."""
    from simclic.store.run_folder import RunFolder

    path = find_run_folder(arguments.runs, arguments.run)
    folder = RunFolder(path.parent, path.name)
    values, done = folder.run_record(), folder.encoder_record()
    if values is None or done is None:
        raise InputError(f"{path}: has no trained backbone yet")
    run = Run.parse(values["run"])
    if run.backbone == "pixels":
        raise InputError(f"{run.name}: raw pixels have no weights to export")
    if METHODS[run.method].halves:
        raise InputError(
            f"{run.name}: is two encoders of half width, which timm cannot load; read it with simclic.train.pretrain"
        )
    out = arguments.out or Path(f"{run.name}.safetensors")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: must end in .safetensors")
    from safetensors.torch import save

    from simclic import data, files
    from simclic.train import pretrain
    from simclic.weights.card import Card

    f = pretrain.read_backbone(folder, run)
    mean, std = done.get("normal") or data.mean_and_std(run.dataset)
    weights_card = Card(
        run.label, run.name, done["backbone_sha256"], tuple(mean), tuple(std), done.get("padding", "symmetric"), 0.0,
        interpolation=done.get("interpolation", "bicubic"),
    )  # fmt: skip
    state = {name: tensor.contiguous() for name, tensor in f.state_dict().items()}
    try:
        files.write_bytes(out, save(state, weights_card.metadata))
    except OSError as e:
        raise InputError(f"{out}: cannot be written ({e.strerror}); choose another place with --out FILE") from e
    names = "torchvision and timm" if run.backbone in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152") else "timm"
    print(f"{out}: {len(state)} keys, as {names} name them; input: mean {mean}, deviation {std} of pixels in [0, 1]")
    print(f'model = timm.create_model("{run.backbone}", num_classes=0)')
    print(f'model.load_state_dict(safetensors.torch.load_file("{out}"))')
    if weights_card.interpolation != "bicubic":
        print(f"images were resized by {weights_card.interpolation} interpolation")
    if weights_card.padding != "symmetric":
        print(f'simclic.weights.card.pad(model, "{weights_card.padding}")  # it pads as TensorFlow does')
    return 0
