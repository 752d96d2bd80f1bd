"""Ends every process that a test session leaves, however the session ended: by itself, by a signal, or killed.

As a program, `python reaper.py TOKEN`: its stdin ends when the session does, of which `kill -9` is one way. The session's
processes have the token in their environment, as SIMCLIC_TESTS or in the path of a test cluster: workers, trainings, Slurm.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path


def cluster_folder(token):
    """Where test clusters are: the path of a socket must be short."""
    return Path(f"/tmp/simclic-tests-{token}")


class Reaper:
    """The session's side, a plugin of pytest."""

    def __init__(self, config):
        token, self.config = uuid.uuid4().hex[:8], config
        self.process = subprocess.Popen([sys.executable, __file__, token], stdin=subprocess.PIPE, start_new_session=True)
        os.environ["SIMCLIC_TESTS"] = token
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one of them
                signal.signal(number, signal.default_int_handler)  # an interrupt, as Ctrl-C is
        if "MAKELEVEL" in os.environ and sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: make may be killed alone

    def pytest_keyboard_interrupt(self):
        if self.config.pluginmanager.has_plugin("dsession"):  # otherwise fixtures are torn down first, in this process
            self.end()

    def pytest_unconfigure(self):
        self.end()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def processes(token):
    """The ids of the session's processes. Its first one is none of them: it had no token when it started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if token.encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                yield int(folder.name)


def end_processes(token, seconds=30):
    """Kill until nothing is left: what is killed may just have started something."""
    ends = time.monotonic() + seconds
    while (left := [process for process in processes(token) if process != os.getpid()]) and time.monotonic() < ends:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_processes(sys.argv[1])
    shutil.rmtree(cluster_folder(sys.argv[1]), ignore_errors=True)
