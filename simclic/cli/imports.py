"""simclic import NAME FILE: a published method's official ResNet-50 becomes a backbone that Runs may start from."""

import argparse
from dataclasses import replace
from functools import partial

from simclic.cli import add_runs_argument, expand_path
from simclic.errors import InputError
from simclic.experiment.baselines import AS_STORED, METHODS, imported_path
from simclic.text import quote_text


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic import`."""
    parser.set_defaults(verb=import_weights)
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(METHODS)}")
    parser.add_argument(
        "file", type=expand_path, metavar="FILE", help="as its authors publish it, or a TensorFlow checkpoint's prefix"
    )
    text = "pad as torchvision does, which made the stored rows of BYOL and SimCLR worse than the methods are"
    parser.add_argument("--as-stored", action="store_true", help=text)
    add_runs_argument(parser)


def import_weights(arguments: argparse.Namespace) -> int:
    """Convert, check and write the weights; print which keys were used and which left out."""
    name, file = arguments.name, arguments.file
    if name not in METHODS:
        way_out = "a file under torchvision's or timm's keys, or SimSiam's, MoCo v3's or DINO's, needs no import: --weights FILE"
        raise InputError(f"{name!r} is not one of {', '.join(METHODS)}; {way_out}")
    as_stored = f"{name}-as-stored"
    if arguments.as_stored and as_stored not in AS_STORED:
        raise InputError(f"--as-stored with {name!r}: its stored row was padded as the method pads; leave it out")
    from simclic import files
    from simclic.experiment import Run
    from simclic.methods.backbones import build_backbone
    from simclic.store.run_folder import runs_started_from
    from simclic.weights import load as weights
    from simclic.weights import published
    from simclic.weights.state_dict import format_first

    files.check_writable(imported_path(arguments.runs, name).parent, "--runs")
    wanted = build_backbone(Run(perturbation="none", epochs=0, image_size=224)).state_dict()
    backbone_state, card = published.convert_checkpoint(name, file, wanted)
    if arguments.as_stored:
        name, card = as_stored, replace(card, method=AS_STORED[as_stored], padding="symmetric")
    path = weights.write_imported(name, backbone_state, card, arguments.runs, partial(runs_started_from, arguments.runs, name))
    names = format_first([quote_text(key) for key in card.dropped], ", ")
    kind = "pixels in [0, 1] as they are" if not any(card.mean) else f"mean {card.mean}, deviation {card.std}"
    print(f"{card.method}: {len(backbone_state)} keys used, {len(card.dropped)} left out{f' ({names})' if names else ''}")
    print(f"input: {kind}; padding: {card.padding}; top-1 by its authors: {card.top_1:.1f} %, if this is {card.source}")
    print(f"the file says of itself: {'; '.join(card.stated) or 'nothing'}")
    print(f"SHA-256 of what was read: {card.sha256}")
    print(f'{path}\na Run starts from it with init="{name}"')
    return 0
