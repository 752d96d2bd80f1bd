"""simclic data list | check | prepare: what is on disk, whether it is whole, decode once."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.cli import add_data_arguments, print_line
from simclic.errors import InputError
from simclic.text import count_noun, format_bytes, format_data_command

if TYPE_CHECKING:
    from rich.console import Console

    from simclic.data import Facts
    from simclic.data.check import Checked


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simclic data`."""
    kinds = parser.add_subparsers(metavar="list | check | prepare", required=True)
    for name, verb, text in (
        ("list", list_, "the table of facts, and what is on disk"),
        ("check", check, "is a data set whole? reads and decodes every file; exit code 0 only if it is"),
        ("prepare", prepare, "download what can be downloaded, then decode once for all runs"),
    ):
        p = kinds.add_parser(name, help=text, description=text)
        p.set_defaults(verb=verb)
        if verb is not list_:
            p.add_argument("names", nargs="+", metavar="NAME", help="as in `simclic data list`, or a folder of your own images")
        add_data_arguments(p)
        if verb is prepare:
            p.add_argument("--size", type=int, default=224, help="pixels along each side (%(default)s; CIFAR stays as it is)")
            text = "read every file, but decode nothing into a file: for runs with --decode as-needed"
            p.add_argument("--no-decode", action="store_true", help=text)
            text = "whole images, their shorter side at 8/7 of SIZE (256 for 224), for runs with views_from='whole'"
            p.add_argument("--whole", action="store_true", help=text)
        else:
            p.add_argument("--json", action="store_true", help="for programs")


def list_(arguments: argparse.Namespace) -> int:
    """Print the table of facts, with what is on disk."""
    from simclic.data import FACTS, decoded, explain_missing
    from simclic.data.dataset import IMAGENET
    from simclic.data.splits import RULES

    root = arguments.data
    decoded_files = {name: decoded.list_decoded(name, root) for name in FACTS}
    absent = {name: explain_missing(name, root) for name in FACTS}
    if arguments.json:
        rows = {n: {**asdict(f), "missing": absent[n], "decoded": [str(p) for p in decoded_files[n]]} for n, f in FACTS.items()}
        print(json.dumps(rows, indent=1))
        return 0
    console, form = _console(), "{:11}{:>7}{:>11}{:>9}{:>8}  {:15}{:21}{}"
    print_line(console, form.format("name", "classes", "train", "val", "test", "metric", "split", "normalised"), "bold")
    for name, f in FACTS.items():
        by = "ImageNet" if (f.mean, f.std) == IMAGENET else "own"
        print_line(console, form.format(name, f.classes, *(f"{n:,}" for n in f.sizes), f.metric, f.rule, by))
    print_line(console, "\n" + "\n".join(f"{rule}: {text}" for rule, text in RULES.items()))
    print_line(console, f"\nexpected in {root}, and what is there:")
    for name, f in FACTS.items():
        there = "yes" if not absent[name] else "in part" if (root / f.home).exists() else "no"
        sizes = sorted({int(path.stem.rsplit("-", 2)[-2]) for path in decoded_files[name]})
        ready = f"; decoded at {', '.join(map(str, sizes))} pixels" if sizes else ""
        where = f"{f.home}: {', '.join(f.files)}" if f.home else "comes with an installed library"
        print_line(console, f"{name:11}{there:8}{where}{ready}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Print every problem of each data set. Return 1 if there is any."""
    from simclic.data import check as checking
    from simclic.progress import show_progress

    _check_names(arguments.names)
    console, results = _console(stderr=True), []
    for name in arguments.names:
        with show_progress(console) as tell:
            results.append(checking.check(name, arguments.data, tell))
        if not arguments.json:
            _print_checked(_console(), results[-1], arguments.data)
            sys.stdout.flush()
        for problem in results[-1].problems:
            print(f"error: {problem}", file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps({c.name: {**asdict(c), "whole": c.whole} for c in results}, indent=1))
    return int(not all(checked.whole for checked in results))


def prepare(arguments: argparse.Namespace) -> int:
    """Download, verify, unpack, decode; one data set's mistake does not stop the next."""
    from simclic.data import FACTS, check_has_whole, facts, is_bundled, load
    from simclic.data.fetch import fetch
    from simclic.data.splits import PUBLISHED
    from simclic.experiment import Run, whole_side
    from simclic.files import report_unreadable
    from simclic.progress import show_progress

    Run.checked("image_size", arguments.size)
    _check_names(arguments.names)
    for name in arguments.names if arguments.whole else ():
        check_has_whole(name)
    console, failed = _console(), False
    side = whole_side(arguments.size) if arguments.whole else arguments.size
    for name in arguments.names:
        try:
            if name in FACTS:
                fetch(name, arguments.data, lambda text: print_line(console, text))
            with report_unreadable():
                known = facts(name)
            if not is_bundled(name):
                print_line(console, f"{name}: {_describe_size(known, arguments)}")
            split = "paper" if known.rule == PUBLISHED and not known.sizes[2] else "ericsson"  # a folder of train and val alone
            with show_progress(console) as tell:
                decode = "as-needed" if arguments.no_decode else "once"
                dataset = load(name, split, arguments.data, side, tell=tell, decode=decode, whole=arguments.whole)
        except InputError as e:
            print("\n".join(f"error: {line}" for line in str(e).splitlines()), file=sys.stderr)
            failed = True
            continue
        n, _, height, width = dataset.images.shape
        ready = f"whole, {side} pixels along the shorter side, ready" if arguments.whole else f"of {width} x {height}, ready"
        what = "read, to be decoded as they are needed" if arguments.no_decode else ready
        print_line(console, f"{name}: {n:,} images {what}; data {dataset.digest}")
    return int(failed)


def _describe_size(known: "Facts", arguments: argparse.Namespace) -> str:
    """Return what the decoded images of a data set take, or would take, as squares and whole, and where."""
    from simclic.data import manifest
    from simclic.data.dataset import estimate_decoded_bytes
    from simclic.experiment import whole_side

    count, side, whole = sum(known.sizes), known.stored or arguments.size, whole_side(arguments.size)
    square = f"decoded at {side} pixels {{}}take {format_bytes(estimate_decoded_bytes(count, side))}"
    entire = f"whole, with a shorter side of {whole}, {{}}take about {format_bytes(estimate_decoded_bytes(count, whole, True))}"
    texts = [(square, not arguments.whole), (entire, arguments.whole)][: 1 if known.stored else 2]
    parts = (text.format("would " * (arguments.no_decode or not is_wanted)) for text, is_wanted in texts)
    return f"{count:,} images {'; '.join(parts)}; in {manifest.prepared_folder(arguments.data)}"


def _check_names(names: list[str]) -> None:
    """Raise InputError for an unknown name before any data set is read."""
    from simclic.data import facts, folder

    for name in names:
        if not folder.is_path(name):
            facts(name)


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def _print_checked(console: "Console", checked: "Checked", root: Path) -> None:
    """Print the result of a check in a few lines, and its problems as errors."""
    from simclic.data import FACTS

    sizes = ", ".join(f"{part} {n:,}" for part, n in checked.sizes.items() if part != "fit")
    content = f"{count_noun(checked.images, 'image')}; {sizes}" if checked.images else "not read"
    print_line(console, f"{checked.title}: {content}", "bold")
    for part in ("train", "val", "test") if checked.classes else ():
        counts = {kind: parts.get(part, 0) for kind, parts in checked.classes.items()}
        few, many = min(counts, key=lambda k: counts[k]), max(counts, key=lambda k: counts[k])
        print_line(console, f"  {part:5} {counts[few]:,} ({few}) to {counts[many]:,} ({many}) of each of {len(counts)} classes")
    more = [f"and {len(checked.remarks) - 10:,} remarks more: --json"] if len(checked.remarks) > 10 else []
    digests = [f"data {digest} under the split {rule}" for rule, digest in checked.digests.items()]
    for line in [*checked.remarks[:10], *more, *digests]:
        print_line(console, f"  {line}")
    if checked.whole:
        print_line(console, "  whole", "green")
        return
    home = root / Path(FACTS[checked.name].home).parts[0] if checked.name in FACTS and FACTS[checked.name].home else None
    prepare = format_data_command("prepare", checked.name, root)
    again = f"; to get it afresh, move {home} away and run: {prepare}" if home and home.exists() else ""
    print_line(console, f"  not whole, {count_noun(len(checked.problems), 'problem')}{again}", "red")
