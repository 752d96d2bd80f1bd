"""What the programs of this folder share: the option --quick, a line about the machine, and timing on a device."""

import argparse
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from simclic.experiment import count_cores

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def make_parser(doc):
    """Return a parser with --quick. doc: the docstring of the program."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ends within a minute on two cores")
    return parser


def print_machine(*modules):
    """Print the device, the number of cores and the versions of Python and these modules."""
    name = torch.cuda.get_device_name() if GPU else platform.processor() or platform.machine()
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in modules)
    print(f"{name}, {count_cores()} cores; Python {platform.python_version()}, {versions}", flush=True)


def measure_seconds(work):
    """Return the seconds that work() takes, to its end on the device, and what it returns."""
    if GPU:
        torch.cuda.synchronize()
    started = time.perf_counter()
    value = work()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - started, value


def run_apart(function, *arguments):
    """Return what the function returns in a process that does nothing else, so that its peak memory can be read."""
    with ProcessPoolExecutor(1, get_context("spawn" if GPU else "fork")) as pool:
        return pool.submit(function, *arguments).result()
