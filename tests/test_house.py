"""The rules of the house: floors, imports, stems, and that the project speaks of itself alone."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from simclic import load
from simclic.experiment.exhibit import PAPER_EXHIBITS

# A module imports only from rooms above its own in this list, which is also the order in which the package reads.
ROOMS = (
    "errors", "text", "files", "provenance", "slurm", "stop", "progress", "ranks",
    "experiment", "data", "methods", "weights", "store", "train", "evaluate", "schedule", "report", "cli", "__main__",
)  # fmt: skip
FLOORS = {room: i for i, room in enumerate(ROOMS)}

SOURCES = sorted(p for p in ROOT.glob("simclic/**/*.py") if p != ROOT / "simclic/__init__.py")


def module(path):
    """The room that a file belongs to."""
    return path.relative_to(ROOT / "simclic").parts[0].removesuffix(".py")


def imported(path):
    """Every module that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "simclic":
                yield from (f"simclic.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_floors_below(path):
    own = module(path)
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("benchmarks", "tests")
        if parts[0] == "simclic" and len(parts) > 1 and parts[1] != own:
            assert FLOORS[parts[1]] < FLOORS[own], f"{own} imports {parts[1]}"


def test_every_room_has_a_floor():
    assert {module(p) for p in SOURCES} == set(FLOORS)


def test_experiment_needs_the_standard_library_alone():
    names = {name.split(".")[0] for path in ROOT.glob("simclic/experiment/*.py") for name in imported(path)}
    assert names - {"simclic"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "what",
    [
        "simclic",
        "simclic.schedule.plan",
        "simclic.store.results",
        "simclic.data",
        "simclic.schedule.processes",
        "simclic.cli",
        "simclic.__main__",
        "simclic.report",
    ],
)
def test_importing_takes_no_torch(what):
    script = f"import sys, {what}; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_package_offers_what_it_says():
    script = "import simclic; [getattr(simclic, n) for n in simclic.__all__]; from simclic import SimCLIC"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_one_stem_names_one_exhibit():
    exhibits = {p.stem: load(p).exhibits[0] for p in ROOT.glob("benchmarks/*.py") if p.stem in PAPER_EXHIBITS}
    assert {name: (e.name, e.paper) for name, e in exhibits.items()} == {name: (name, name) for name in PAPER_EXHIBITS}
    assert {name for name in PAPER_EXHIBITS if name.startswith("table")} <= {p.stem for p in ROOT.glob("baselines/table*.csv")}


def tracked():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / f for f in files if f and (ROOT / f).is_file()]


def test_the_project_speaks_of_itself_alone():
    told = re.compile(r"pypi\.org|pythonhosted|file:///|/root/|/work/|/home/")
    for path in tracked():
        if path.suffix in (".png", ".npz") or path == ROOT / "tests/test_house.py":
            continue
        assert not told.search(path.read_text(errors="ignore")), path


# Files of a Run's folder by their names, in whole or as a beginning.
RUN_FILES = re.compile(
    r"(run|pretrain)\.json|log\.jsonl|backbone\.safetensors|(features|partial|failed|owner|checkpoint)-|owner|checkpoint"
)


def test_run_folder_alone_spells_the_names_of_its_files():
    for path in (p for p in SOURCES if p.name != "records.py"):  # a launch, too, has an owner
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
            if isinstance(text, str) and RUN_FILES.match(text.lstrip("./*")):
                assert path.parent.name == "store", f"{path}:{node.lineno}: {text!r}; ask simclic.store.run_folder.RunFolder"


def test_no_module_is_too_long_to_read():
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= 300, f"{path}: make it a folder"


def test_no_test_imports_from_another():
    for path in sorted(ROOT.glob("tests/test_*.py")):
        assert not [name for name in imported(path) if name.split(".")[-1].startswith("test_")], f"{path}: use conftest.py"
