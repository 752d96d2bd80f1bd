"""A method of one's own: one file of about forty lines outside the package, trained, compared and submitted like the others."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from simclic import InputError, Run
from simclic.experiment import declared
from simclic.schedule import snapshot


def guide():
    """The method that the guide shows."""
    text = (ROOT / "benchmarks/README.md").read_text()
    return next(part.split("```")[0] for part in text.split("```python\n") if "@method(" in part and "import" in part)


def run_here(*words):
    """The code, the last line and the errors of a command in this folder, where `methods` is."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip().rpartition("\n")[2], done.stderr.strip()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with the guide's method in methods/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("methods").mkdir()
    path = Path("methods/barlow_twins.py")
    path.write_text(guide())
    return path


EXHIBIT = """
from simclic import Knn, Run, Table
run = Run(method="barlow-twins", off_diagonal=0.01, dataset="digits", image_size=8, backbone="test_resnet", projector_dim=16,
          epochs=1, batch_size=256, precision="float32")
TABLE = Table(name="mine", caption="Mine", runs=(run,), protocols=(Knn(k=5),))
"""
ASK = EXHIBIT + "import json; print(json.dumps([run.title, run.kind, run.encoder_passes, Run().off_diagonal, Run().name]))"


def test_the_guide_s_method_is_a_method_like_the_others(mine):
    """It is trained by the command line, in an exhibit of one's own, and has its row, with a knob of its own."""
    code, line, error = run_here("-c", ASK)
    assert (code, error) == (0, "")
    assert json.loads(line) == ["Barlow Twins", "barlow-twins", 2, None, Run().name]
    Path("mine.py").write_text(EXHIBIT)
    code, _, error = run_here("-m", "simclic", "run", "mine.py")
    assert code == 0, error
    assert "Barlow Twins" in Path("reports/out/mine.csv").read_text()


def test_a_submitted_copy_holds_it_and_reads_it_there(mine, tmp_path):
    """A job runs the method as it was when it was submitted, whatever becomes of the file."""
    code, folder, error = run_here(
        "-c",
        "from pathlib import Path; from simclic.schedule import snapshot; print(snapshot.copy_code(Path('copies').absolute()))",
    )
    assert (code, error) == (0, "")
    assert (Path(folder) / "own_methods/barlow_twins.py").read_text() == mine.read_text()
    mine.write_text("raise RuntimeError")
    ask = "from simclic.experiment import METHODS; print(METHODS['barlow-twins'].path)"
    code, line, error = run_here("-c", f"import sys; sys.path.insert(0, {folder!r}); {ask}")
    assert (code, error, Path(line)) == (0, "", Path(folder) / "own_methods/barlow_twins.py")
    snapshot.check_copy(Path(folder))
    (Path(folder) / "own_methods/barlow_twins.py").write_text("")
    with pytest.raises(InputError, match=r"own_methods/barlow_twins.py differs; submit again"):
        snapshot.check_copy(Path(folder))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "barlow_twins",
            ("passes=2", "passes=two"),
            "name 'two' is not defined; a declaration may contain only literals and knob()",
        ),
        ("barlow_twins", ("passes=2", "pases=2"), "unexpected keyword argument 'pases'"),
        ("barlow_twins", ("class BarlowTwins", "class Barlow Twins"), "barlow_twins.py:18: "),
        ("byol", ("", ""), "byol.py declares a method 'byol' already; name this file otherwise"),
        ("barlow_twins", ('"off_diagonal"', '"eps"'), "'eps' is declared twice; rename one of the two"),
    ],
)
def test_a_declaration_that_is_wrong_is_one_line(tmp_path, name, change, message):
    text = guide().replace(*change) if change[0] else guide()
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as e:
        declared.declared_knobs(declared.read_methods(declared.FOLDER, tmp_path))
    assert "\n" not in str(e.value)


def test_other_files_in_a_folder_of_that_name_are_left_alone(mine):
    shutil.copy(ROOT / "tests/conftest.py", "methods/notes.py")
    Path("methods/broken.py").write_text("def (")
    assert run_here("-c", ASK)[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("from torch import nn", "import nowhere"), "barlow_twins.py: ModuleNotFoundError: No module named 'nowhere'"),
        (('"base_lr"', '"bace_lr"'), "'bace_lr' is not a field of Run; declare it in knobs"),
        (("passes=2", "passes=two"), "name 'two' is not defined; a declaration may contain only literals and knob()"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(mine, change, message):
    mine.write_text(mine.read_text().replace(*change))
    Path("mine.py").write_text(EXHIBIT)
    code, _, error = run_here("-m", "simclic", "run", "mine.py")
    assert (code != 0, message in error, "Traceback" in error) == (True, True, False), error
