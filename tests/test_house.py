"""The rules of the house: floors, imports, stems, and that the project speaks of itself alone."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

FLOORS = {
    "spec": 0,
    "files": 0.5, "progress": 0.5, "stop": 0.5, "slurm": 0.5, "start": 0.75, "provenance": 0.5, "claim": 0.75,
    "checkpoint": 1, "loops": 1, "method": 1, "data": 1, "metrics": 1, "store": 1, "weights": 1,
    "cost": 1.5,
    "pretrain": 2, "linear": 2, "finetune": 2, "plan": 2,
    "launch": 3, "report": 3,
    "verbs": 4,
    "__main__": 5,
}  # fmt: skip

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


def test_spec_needs_the_standard_library_alone():
    names = {name.split(".")[0] for path in ROOT.glob("simclic/spec/*.py") for name in imported(path)}
    assert names - {"simclic"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "what", ["simclic", "simclic.plan", "simclic.store", "simclic.data", "simclic.launch", "simclic.__main__", "simclic.report"]
)
def test_importing_takes_no_torch(what):
    script = f"import sys, {what}; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_package_offers_what_it_says():
    script = "import simclic; [getattr(simclic, n) for n in simclic.__all__]; from simclic import SimCLIC"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_one_stem_names_one_exhibit():
    stems = {p.stem for p in ROOT.glob("benchmarks/table*.py")}
    assert stems == {f"table{n}" for n in range(2, 7)}
    assert stems <= {p.stem for p in ROOT.glob("baselines/table*.csv")}


def tracked():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / f for f in files if f and (ROOT / f).is_file()]


def test_the_project_speaks_of_itself_alone():
    told = re.compile(r"pypi\.org|pythonhosted|file:///|/root/|/work/|/home/")
    for path in tracked():
        if path.suffix in (".png", ".npz") or path == ROOT / "tests/test_house.py":
            continue
        assert not told.search(path.read_text(errors="ignore")), path


def test_no_module_is_too_long_to_read():
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= 300, f"{path}: make it a folder"
