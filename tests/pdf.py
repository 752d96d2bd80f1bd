"""What pdflatex makes of a file, as text."""

import re
import subprocess
import unicodedata

WORST = 3  # points that a line may stick out: a millimetre


def pages(path):
    """The text of what pdflatex makes of a file; nothing in it sticks out."""
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", path.name]
    done = subprocess.run(command, cwd=path.parent, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    log = path.with_suffix(".log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Float too large" not in log
    assert [points for points in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log) if float(points) > WORST] == []
    shown = ["pdftotext", "-layout", path.with_suffix(".pdf").name, "-"]
    return subprocess.run(shown, cwd=path.parent, capture_output=True, text=True, check=True).stdout


def words(text):
    """The same in one line, without what a line ends with."""
    return " ".join(text.split())


def bare(text):
    """Letters without accents, which stand beside them in a PDF, and without blanks and the ends of lines."""
    apart = unicodedata.normalize("NFD", text).replace("ı", "i")
    return "".join(c for c in apart if not c.isspace() and unicodedata.category(c) not in ("Mn", "Sk", "Lm"))
