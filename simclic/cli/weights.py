"""What `simclic probe` and `simclic finetune` share: an encoder given as a file of weights, and one result of it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from simclic.cli import places, stopped
from simclic.errors import InputError
from simclic.experiment import USUAL, How, Job, Protocol, Run
from simclic.experiment.baselines import IMPORTED
from simclic.experiment.run import is_file


def ask(parser: argparse.ArgumentParser) -> None:
    """The words that declare a Run which trains nothing, and where things go."""
    parser.add_argument(
        "--weights", required=True, metavar="FILE",
        help="safetensors, or PyTorch's, read with weights_only; under torchvision's or timm's keys; or a timm name with a tag",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="as in `simclic data list`, or a folder of your own images"
    )
    parser.add_argument("--backbone", default="resnet50", metavar="NAME", help="whose weights these are, in timm (%(default)s)")
    parser.add_argument("--size", type=int, default=224, metavar="N", help="pixels along each side (%(default)s)")
    parser.add_argument("--split", default="ericsson", metavar="RULE", help="ericsson or paper (%(default)s)")
    places(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where the picture goes (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def encoder(arguments: argparse.Namespace) -> Run:
    """The Run that the words declare. Raises InputError if there is no such file, or for a bad value."""
    weights = arguments.weights
    if Path(weights).expanduser().is_file():
        weights = weights if "/" in weights else f"./{weights}"  # a path, whatever it ends with
    elif Path(weights).is_dir():
        raise InputError(f"--weights {weights}: is a folder, not a file of weights")
    elif weights not in IMPORTED and (is_file(weights) or not Path(weights).suffix):
        raise InputError(f"--weights {weights}: no such file; name one, or weights of timm by name and tag")
    return Run(
        dataset=arguments.dataset, split=arguments.split, image_size=arguments.size, backbone=arguments.backbone, init=weights,
        perturbation="none", epochs=0,
    )  # fmt: skip


def told(arguments: argparse.Namespace, run: Run, protocol: Protocol, show: Any, how: How = USUAL) -> int:
    """Compute the result if it is not there, then show it: as JSON, or by `show` of console, title and result."""
    from rich.console import Console

    from simclic import data, files, report
    from simclic.schedule import processes as launch
    from simclic.schedule.work import WorkerOptions
    from simclic.store.run_folder import RunFolder

    if problem := data.missing(run.dataset, arguments.data):
        raise InputError(problem)
    files.writable(arguments.runs, "--runs")
    place = arguments.out / protocol.stage.replace("linear", "probe")
    files.writable(place, "--out")
    console: Console = Console(stderr=arguments.json)
    # What is there is not computed again, but weights and data are looked at: they may be others by now.
    outcome = launch.run_locally([Job(run, protocol)], WorkerOptions(arguments.runs, arguments.data, how), console)
    if outcome.signal:
        return stopped(outcome.signal)
    reasons = outcome.failures | outcome.elsewhere | outcome.crashes
    for why in reasons.values():
        print(f"error: {why}", file=sys.stderr)
    folder = RunFolder(arguments.runs, run)
    result = None if reasons else folder.read_result(protocol)
    if result is None:
        return 1
    path = folder.result_path(protocol)
    title = f"{data.title(run.dataset)}: {Path(run.init).name}, {protocol.title.lower()}"
    pictures = report.picture(result, title, place / f"{run.name}-{protocol.name}")
    if arguments.json:
        print(json.dumps({**result, "result": str(path), "pictures": [str(p) for p in pictures]}, indent=1))
        return 0
    show(console, title, result)
    for name, written in (("result", path), ("picture", pictures[1])):
        console.print(f"{name}: {written}", highlight=False, soft_wrap=True, markup=False)
    return 0
