"""The verbs. `python -m simclic VERB --help` says what each one takes."""

import argparse
import errno
import signal
import sys

from simclic.cli import (  # fmt: skip
    calibrate,
    compare,
    data,
    doctor,
    exports,
    gc,
    imports,
    plan,
    print_errors,
    record,
    report_stopped,
    run,
    status,
    submit,
    watch,
    weights,
)
from simclic.errors import InputError
from simclic.files import DISK_FULL
from simclic.text import make_output_encodable, quote_text

VERBS = {
    "run": (run.add_run, "do what is missing on this machine, then report"),
    "report": (run.add_report, "tables and figures from whatever is done"),
    "plan": (plan.add, "the jobs: asked, shared, done, missing, and what the rest will cost"),
    "calibrate": (calibrate.add, "measure how long things take here or on a cluster, so that a plan can be priced"),
    "gc": (gc.add, "what can be deleted, why, and how much that frees; asks first"),
    "submit": (submit.add_submit, "the same through Slurm; returns at once"),
    "status": (status.add_status, "what is done, running, queued, waiting and failed, and why"),
    "doctor": (doctor.add_doctor, "what works here and on a cluster, and what does not"),
    "probe": (weights.add_probe, "the linear probe of any encoder, given as a file of weights"),
    "finetune": (weights.add_finetune, "the fine-tuning grid of any encoder, given as a file of weights"),
    "import": (imports.add, "a published method's official ResNet-50, to start from"),
    "export": (exports.add, "a trained backbone, under timm's and torchvision's key names"),
    "data": (data.add, "the data sets: list, check, prepare"),
    "compare": (compare.add, "which cells changed beyond noise between two folders of results, or two commits"),
    "record": (record.add, "keep results as a folder that is small enough to commit"),
    "watch": (watch.add, "the curves of a pre-training"),
}


def main(words: list[str] | None = None) -> int:
    """Run one verb. Return the exit code: 0 success, 1 something failed, 2 a mistake in the input, 130 Ctrl-C."""
    make_output_encodable()
    arguments = parser().parse_args(words)
    try:
        return int(arguments.verb(arguments))
    except InputError as e:
        print_errors(str(e).splitlines())
        return 2
    except (PermissionError, IsADirectoryError, NotADirectoryError) as e:
        print_errors([f"{e.filename}: cannot be read or written ({e.strerror})"])
        return 2
    except OSError as e:
        if e.errno == errno.ENAMETOOLONG:
            problem = f"{quote_text(e.filename)}: the file system takes no such name ({e.strerror}); choose a shorter one"
        elif e.errno in DISK_FULL:
            problem = f"{e.filename or 'the output'}: cannot be written ({e.strerror}); free some space, or choose another place"
        else:
            raise
        print_errors([problem])
        return 2
    except KeyboardInterrupt:
        return report_stopped(signal.SIGINT)
    except BrokenPipeError:
        return 1  # whoever read our output has gone


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. No flag changes a Run: flags say where things are, never what is measured."""
    top = argparse.ArgumentParser(prog="simclic", description="Reproduce, check and go beyond the SimCLIC paper.")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for name, (add, text) in VERBS.items():
        add(verbs.add_parser(name, help=text, description=text))
    return top


if __name__ == "__main__":
    sys.exit(main())
