"""The command line, in this process, and waiting for what it does."""

import io
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


def wait(happened, seconds=120):
    ends = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < ends
        time.sleep(0.1)
    return found
