"""simclic record: keep the results of exhibits as a folder that is small enough to commit."""

import argparse
import os.path
import re
import shlex

from simclic.cli import add_exhibits_argument, add_runs_argument, expand_path
from simclic.errors import InputError
from simclic.experiment import load
from simclic.files import place_options
from simclic.store.record import RECORDS, write_record
from simclic.text import count_noun, format_bytes, quote_text

MORE = """A record holds what a report reads: results, training logs and the predicted classes in place of scores, with device,
versions, commit and data digest; no weights and no features. `simclic report EXHIBIT --runs reports/records/NAME` shows it, and
`simclic compare reports/records/NAME runs` says whether another run reproduces it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `simclic record`."""
    parser.set_defaults(verb=record)
    parser.epilog = MORE
    parser.add_argument("name", metavar="NAME", help="of the record: the folder that is written")
    add_exhibits_argument(parser)
    add_runs_argument(parser)
    text = "folder of records (%(default)s)"
    parser.add_argument("--records", type=expand_path, default=RECORDS, metavar="DIR", help=text)


def record(arguments: argparse.Namespace) -> int:
    """Write the record, or leave an equal one alone. Raise InputError if there are no results, one is broken, or the name is
    that of another record."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", arguments.name):
        raise InputError(f"NAME={quote_text(arguments.name)!r}: use small letters, digits, - and _, such as digits")
    from simclic.report.pages import summarise_provenance
    from simclic.report.results import Results

    suites, results = [load(path) for path in arguments.exhibits], Results(arguments.runs)
    jobs = list(dict.fromkeys(job for suite in suites for job in suite.jobs))
    frame = results.frame_of(jobs)
    if problems := [problem for problem in frame["problem"] if problem]:
        raise InputError("\n".join(problems))
    if frame.empty:
        exhibits = shlex.join(map(str, arguments.exhibits))
        run = shlex.join(["simclic", "run", *map(str, arguments.exhibits), *place_options(arguments.runs)])
        raise InputError(f"{arguments.runs}: holds no result of {exhibits}; run: {run}")
    folder = arguments.records / arguments.name
    about = {"exhibits": [os.path.relpath(path) for path in arguments.exhibits], **summarise_provenance(frame)}
    size = write_record(folder, arguments.runs, jobs, about)
    missing = f" of {len(jobs):,}" if len(frame) < len(jobs) else ""
    print(f"{folder}: {len(frame):,}{missing} results of {count_noun(frame['name'].nunique(), 'encoder')}, {format_bytes(size)}")
    return 0
