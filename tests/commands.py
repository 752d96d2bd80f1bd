"""The command line, in this process and in one of its own, and waiting for what it does."""

import io
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

from simclic.__main__ import main


def told(capsys, *words):
    """The exit code and what was printed on stdout and stderr."""
    code = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def simclic(*words, code=0):
    """What the command prints. In this process: torch is imported here, and takes seconds in one of its own."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        found = main([str(w) for w in words])
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() + err.getvalue()


def alone(*words, code=0):
    """What it prints in a process of its own, which ends."""
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


def put_command(patch, path, script):
    """Write a shell script that stands for the command of its name, before those that PATH has."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    patch.setenv("PATH", str(path.parent.absolute()), prepend=os.pathsep)
