"""The command line, in this process and in one of its own, and waiting for what it does."""

import subprocess
import sys
import time

from simclic.__main__ import main


def told(capsys, *words):
    """The exit code and what was printed on stdout and stderr."""
    code = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def simclic(*words, code=0):
    command = [sys.executable, "-m", "simclic", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait(happened, seconds=120):
    ends = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < ends
        time.sleep(0.1)
    return found
