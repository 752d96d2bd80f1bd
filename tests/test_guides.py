"""The guides speak of what is there: their commands parse, their links and paths lead somewhere, their exhibits load."""

import re
import shlex

import pytest
from conftest import ROOT

from simclic import load
from simclic.__main__ import parser

GUIDES = sorted(p for p in ROOT.glob("**/README.md") if not {".venv", "runs", "data", "out"} & set(p.relative_to(ROOT).parts))
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def commands(path):
    """Every simclic command in the code blocks of a guide."""
    for kind, block in BLOCK.findall(path.read_text()):
        if not kind:
            yield from re.findall(r"^simclic (.*?)(?:\s+# .*)?$", block, re.M)


def test_every_folder_has_its_guide():
    folders = {p.parent.relative_to(ROOT).as_posix() for p in GUIDES}
    assert {".", "slurm", "benchmarks", "benchmarks/speed", "baselines", "reports", "tests"} <= folders


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_parses(path):
    for command in commands(path):
        parser().parse_args(shlex.split(command))


def test_the_first_page_and_its_guides_show_every_verb():
    shown = {command.split()[0] for path in GUIDES for command in commands(path)}
    (verbs,) = [action for action in parser()._actions if getattr(action, "choices", None)]
    told = {name for name in verbs.choices if any(f"`simclic {name}" in p.read_text() for p in GUIDES)}
    assert set(verbs.choices) <= shown | told


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_and_every_path_leads_somewhere(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link
    for name in re.findall(r"\b(?:simclic|benchmarks|slurm|tests|reports|baselines)/[\w./-]+\.(?:py|toml|csv|mplstyle)\b", text):
        own = name in ("baselines/methods/mine.csv", "baselines/mark.csv", "benchmarks/mine.py", "benchmarks/birds.py")
        assert own or (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_exhibit_loads(path, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    for kind, block in BLOCK.findall(path.read_text()):
        if kind == "python" and re.search(r"^(TABLE|FIGURE|EXHIBITS)\b", block, re.M):
            (tmp_path / "mine.py").write_text(block)
            assert load("mine.py").jobs
