"""What changed beyond noise between two folders or two commits: in both directions, after Holm, and never from a broken file."""

import json
import math
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny

from simclic import InputError, Linear, Run, files
from simclic.__main__ import main
from simclic.report.compare import compare_sides, correct_holm
from simclic.report.sides import read_sides
from simclic.store.run_folder import RunFolder

N = 400
PIXELS = Run(dataset="digits", backbone="pixels", image_size=8, perturbation="none", epochs=0)
VERSIONS = {"python": "3.12.1", "torch": "2.11.0"}


@pytest.fixture(autouse=True)
def wide(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    at(monkeypatch, "a" * 12)


def at(monkeypatch, commit, **versions):
    """What is written from now on was made at this commit, with these versions."""
    made_by = {"versions": VERSIONS | versions, "commit": commit}
    monkeypatch.setattr("simclic.store.run_folder.collect_provenance", lambda: made_by)


def write(runs, run=None, wrong=range(40), shift=0.0, **told):
    """A result of N images of which these are wrong. shift: of all scores, so that the bits differ and nothing else does."""
    run, told = run or tiny(), {"data": "d1", "metric": "top-1", "device": "cpu", "protocol": Linear()} | told
    scores = np.tile([1.0, 0.0], (N, 1)) + shift
    scores[list(wrong)] = scores[list(wrong), ::-1]
    error = told.pop("error", 100 * len(wrong) / N)
    record = {"error": error, "metric": told.pop("metric"), "chosen": {}, "curve": [], "sizes": {"test": N}, "seconds": 1.0}
    RunFolder(runs, run).create_folder(told["data"])
    RunFolder(runs, run).write_result(told.pop("protocol"), (record, np.zeros(N, int), scores), seed=run.seed, threads=1, **told)
    return runs / run.name


def found(a="a", b="b", runs="runs"):
    return compare_sides(*read_sides(str(a), str(b), files.Path(runs)))


def words(a="a", b="b"):
    return {word: count for word, count in found(a, b).counts.items() if count}


def told(capsys, *given):
    """The exit code, and what was printed on stdout and stderr."""
    code = main(["compare", *map(str, given)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_copy_is_identical_and_its_predictions_are_not_even_read(tmp_path, capsys, monkeypatch):
    for seed in range(3):
        write(tmp_path / "a", tiny(seed=seed))
    shutil.copytree("a", "b")
    monkeypatch.setattr(RunFolder, "read_predictions", None)
    assert words() == {"identical": 1}
    code, out, err = told(capsys, "a", "b")
    assert (code, err) == (0, "")
    assert "A: 3 results, a (commit aaaaaaaaaaaa, torch 2.11.0, cpu)" in out
    assert "equal in A and B: commit, versions, device, threads, ranks" in out
    assert "1 cell compared: 0 changed, 0 perhaps, 0 within noise, 1 identical" in out


def test_a_side_compared_with_itself_by_any_path(tmp_path, capsys):
    write(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    for b in ("a", "a/", "./a", tmp_path / "a", "link"):
        code, out, _ = told(capsys, "a", b)
        assert code == 0
        assert "A and B are the same results" in out
        assert "1 identical" in out


def test_a_few_answers_in_both_directions_are_noise(tmp_path, capsys):
    for seed in range(2):
        write(tmp_path / "a", tiny(seed=seed), range(40))
        write(tmp_path / "b", tiny(seed=seed), range(3, 44))
    assert words() == {"within noise": 1}
    assert told(capsys, "a", "b")[0] == 0
    assert "+0.25 ±" not in told(capsys, "a", "b")[1]
    assert "+0.25 ±" in told(capsys, "a", "b", "--all")[1]


def test_other_bits_of_the_same_answers_are_no_change(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", shift=1e-3)
    assert words() == {"within noise": 1}


@pytest.mark.parametrize(("before", "after", "points"), [(40, 80, 10), (80, 40, -10)])
def test_a_clear_change_is_told_in_either_direction(tmp_path, capsys, before, after, points):
    write(tmp_path / "a", wrong=range(before))
    write(tmp_path / "b", wrong=range(after))
    cell = found().cells[0]
    assert (cell.word, cell.difference.points) == ("changed", points)
    assert (cell.a, cell.b) == (before / 4, after / 4)
    code, out, _ = told(capsys, "a", "b")
    assert code == 1
    assert f"{points:+.2f} ± 1.50  < .001" in out
    assert "with one seed, variation between seeds is unknown" in out


def test_seeds_that_disagree_about_a_change_are_noise(tmp_path):
    for seed, after in enumerate((90, 20, 40)):
        write(tmp_path / "a", tiny(seed=seed))
        write(tmp_path / "b", tiny(seed=seed), range(after))
    assert words() == {"within noise": 1}
    shutil.rmtree(tmp_path / "b" / tiny(seed=1).name)
    shutil.rmtree(tmp_path / "b" / tiny(seed=2).name)
    assert words() == {"changed": 1}


def test_holms_correction():
    assert correct_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.6, 0.7]) == [1.0, 1.0]
    assert correct_holm([]) == []


def test_one_small_p_among_many_is_perhaps_and_alone_is_changed(tmp_path, capsys):
    eps = [0.2 + i / 100 for i in range(20)]
    for side, last in (("a", range(40)), ("b", range(45))):
        write(tmp_path / side, tiny(eps=0.5), last)  # five more are wrong: p = .025
        for e in eps:
            write(tmp_path / side, tiny(eps=e))
    assert words() == {"changed": 1, "identical": 20}  # what is identical needs no test
    for e in eps:
        write(tmp_path / "b", tiny(eps=e), shift=1e-3)
    comparison = found()
    assert (comparison.counts["changed"], comparison.counts["perhaps"], comparison.tested) == (0, 1, 21)
    assert comparison.cells[0].difference.p == pytest.approx(0.025, abs=1e-3)
    assert comparison.cells[0].adjusted == pytest.approx(21 * comparison.cells[0].difference.p)
    code, out, _ = told(capsys, "a", "b")
    assert code == 0
    assert "perhaps  Digits, SimCLIC (noise)" in out
    assert "Holm's correction over the 21 cells that were tested" in out


def test_the_largest_change_in_standard_errors_stands_first(tmp_path, capsys):
    for eps, after in ((0.2, 60), (0.3, 160), (0.4, 10)):
        write(tmp_path / "a", tiny(eps=eps))
        write(tmp_path / "b", tiny(eps=eps), range(after))
    assert [cell.run.eps for cell in found().cells] == [0.3, 0.4, 0.2]
    out = told(capsys, "a", "b")[1]
    assert out.index("eps 0.3") < out.index("eps 0.4") < out.index("eps 0.2")


def test_other_data_and_other_metrics_are_not_compared(tmp_path, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b", wrong=range(200), data="d2")
    for side, metric in (("a", "top-1"), ("b", "mean per class")):
        write(tmp_path / side, tiny(eps=0.3), metric=metric)
    assert words() == {"not compared": 2}
    code, out, _ = told(capsys, "a", "b")
    assert code == 1  # nothing could be compared: that is not "nothing changed"
    assert "SimCLIC (noise), image_size 16," in out
    assert "Linear evaluation: other data" in out
    assert "other metric: top-1, mean per class" in out


def test_one_seed_on_other_data_is_left_out_and_told(tmp_path, capsys):
    for seed in range(3):
        write(tmp_path / "a", tiny(seed=seed))
        write(tmp_path / "b", tiny(seed=seed), data="d2" if seed == 1 else "d1")
    cell = found().cells[0]
    assert (cell.word, cell.seeds, cell.left_out) == ("identical", (0, 2), {1: "other data"})
    assert "seed 1, other data" in told(capsys, "a", "b")[1]


def test_seeds_and_cells_that_one_side_has_alone(tmp_path, capsys):
    for seed in (0, 1):
        write(tmp_path / "a", tiny(seed=seed), range(40 + 100 * seed))
    for seed in (0, 2):
        write(tmp_path / "b", tiny(seed=seed), range(40 + 100 * seed))
    write(tmp_path / "a", tiny(eps=0.3))
    write(tmp_path / "b", protocol=Linear(l2_count=3))
    write(tmp_path / "a", tiny(eps=0.4, seed=1))
    write(tmp_path / "b", tiny(eps=0.4, seed=2))
    assert words() == {"identical": 1, "not compared": 1, "only in A": 1, "only in B": 1}
    cell = found().cells[0]
    assert (cell.seeds, cell.left_out, cell.a, cell.b) == ((0,), {1: "only in A", 2: "only in B"}, 10, 10)
    code, out, _ = told(capsys, "a", "b")
    assert code == 0
    assert "1 not compared, 1 only in A, 1 only in B" in out
    assert "no seed in common" in out
    assert "Linear evaluation: seed 1, only in A" in out
    assert "Linear evaluation: seed 2, only in B" in out


def test_raw_pixels_have_no_seed(tmp_path):
    write(tmp_path / "a", PIXELS)
    write(tmp_path / "b", PIXELS, range(80))
    cell = found().cells[0]
    assert (cell.word, cell.seeds) == ("changed", (None,))


def test_the_same_predictions_with_another_error_are_a_change_of_the_metric(tmp_path, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b", error=12.0)
    code, out, _ = told(capsys, "a", "b")
    assert code == 1
    assert "the errors differ by +2.00, their predictions by 0.00: the metric is computed differently" in out


@pytest.mark.parametrize("harm", ["half", "altered", "no predictions", "no run.json"])
def test_a_broken_file_is_named_and_never_a_number(tmp_path, capsys, harm):
    for side in ("a", "b"):
        write(tmp_path / side)
        folder = write(tmp_path / side, tiny(eps=0.3))
    path = folder / f"{Linear().name}.json"
    if harm == "half":
        path.write_text(path.read_text()[:-60])
    elif harm == "altered":
        path.write_text(path.read_text().replace("10.0", "10.5"))
    elif harm == "no predictions":
        path.with_suffix(".npz").unlink()
    else:
        (folder / "run.json").unlink()
    assert words() == {"identical": 1, "only in A": 1}
    code, out, _ = told(capsys, "a", "b")
    assert code == 1
    assert f"B: {path.relative_to(tmp_path)}: " in out
    assert "broken files: 1" in out
    assert f"A and B: {path.relative_to(tmp_path)}: " in told(capsys, "b", "b")[1]


def test_what_is_another_on_the_other_side_stands_at_the_top(tmp_path, capsys, monkeypatch):
    write(tmp_path / "a")
    at(monkeypatch, "b" * 12, torch="2.12.0")
    write(tmp_path / "b", device="NVIDIA H100")
    RunFolder(tmp_path / "b", tiny()).write_encoder(b"weights", {"ranks": [2, 2, 1]})
    out = told(capsys, "a", "b")[1]
    differs = "commit aaaaaaaaaaaa → bbbbbbbbbbbb; device cpu → NVIDIA H100; ranks 1 → 2 then 1; torch 2.11.0 → 2.12.0\n"
    assert f"differs between A and B: {differs}" in out
    assert out.index("differs between A and B") < out.index("compared")


def test_text_from_files_is_printed_as_it_is(tmp_path, capsys, monkeypatch):
    at(monkeypatch, "c" * 12, torch="[bold]2.11[/bold]\x1b[31m")
    run = replace(tiny(), init="./[red]<script>.pth")
    write(tmp_path / "a", run)
    write(tmp_path / "b", run, range(90))
    (write(tmp_path / "b", tiny(eps=0.3)) / f"{Linear().name}.json").write_text("[/red]")
    for line in ([], ["--all"]):
        _, out, _ = told(capsys, "a", "b", *line)
        assert "SimCLIC (noise) from [red]<script>" in out
        assert "init ./[red]<script>.pth" in out
        assert "torch [bold]2.11[/bold]\\x1b[31m" in out
        assert "\x1b" not in out


def test_json_says_all_of_it(tmp_path, capsys):
    write(tmp_path / "a", PIXELS)
    for side, wrong in (("a", 40), ("b", 80)):
        write(tmp_path / side, tiny(seed=1), range(wrong))
    write(tmp_path / "b", tiny(seed=2))
    write(tmp_path / "b", tiny(eps=0.3), data="d2")
    write(tmp_path / "a", tiny(eps=0.3))
    (write(tmp_path / "b", tiny(eps=0.4)) / f"{Linear().name}.json").write_text("")
    code, out, _ = told(capsys, "a", "b", "--json")
    answer = json.loads(out)
    assert code == 1
    assert answer["counts"] == {
        "changed": 1, "perhaps": 0, "within noise": 0, "identical": 0, "not compared": 1, "only in A": 1, "only in B": 0,
        "broken": 1,
    }  # fmt: skip
    cells = {cell["word"]: cell for cell in answer["cells"]}
    first = cells["changed"]
    assert (first["points"], first["a"], first["b"], first["seeds"]) == (10, 10, 20, [1])
    assert first["left_out"] == [{"seed": 2, "why": "only in B"}]
    assert first["p"] == first["p_holm"] < 0.001
    assert (cells["not compared"]["why"], cells["only in A"]["b"]) == ("other data", None)
    assert answer["a"] == {"name": "a", "results": 3, "provenance": answer["a"]["provenance"]}
    assert [row["side"] for row in answer["broken"]] == ["B"]


def test_all_lists_every_cell(tmp_path, capsys):
    for side in ("a", "b"):
        write(tmp_path / side, tiny(eps=0.3))
    write(tmp_path / "a", tiny(eps=0.4))
    assert "eps" not in told(capsys, "a", "b")[1]
    out = told(capsys, "a", "b", "--all")[1]
    assert "identical  Digits, SimCLIC (noise), eps 0.3" in out
    assert "only in A  Digits, SimCLIC (noise), eps 0.4" in out


def git(*given):
    who = ("-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    return subprocess.run(["git", *who, *given], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def commits(tmp_path, monkeypatch):
    """Two commits, the second tagged v2, in this folder's repository; what was measured at them lies at several depths."""
    git("init", "-q", "-b", "main")
    found = []
    for n, (place, wrong) in enumerate((("runs/archive/2025/runs", range(40)), ("runs/new", range(80)))):
        git("commit", "-q", "--allow-empty", "-m", f"{n}")
        found.append(git("rev-parse", "HEAD"))
        at(monkeypatch, found[-1][:12])
        write(tmp_path / place, wrong=wrong)
    git("tag", "-a", "v2", "-m", "2")
    at(monkeypatch, f"{found[-1][:12]}+")
    write(tmp_path / "runs/dirty", wrong=range(120))
    return found


def test_commits_by_whatever_git_resolves_and_as_recorded(commits, capsys):
    first, second = commits
    for a in ("main~1", first, first[:12], first[:7], "v2^", ":/0"):
        for b in ("main", "v2", second[:9]):
            cell = found(a, b).cells[0]
            assert (cell.word, cell.a, cell.b) == ("changed", 10, 20)
    for dirty in (f"{second[:12]}+", "main+", "v2+", f"{second}+", f"{second[:5]}+"):
        assert found(first, dirty).cells[0].b == 30
    code, out, _ = told(capsys, "main~1", "runs/new")
    assert code == 1
    assert f"A: 1 result, main~1 (commit {first[:12]}, torch 2.11.0, cpu)" in out
    assert found("main", second).cells[0].word == "identical"


def test_recorded_commits_need_no_repository(commits, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    first, second = (commit[:7].upper() for commit in commits)
    assert found(first, second, "../runs").cells[0].b == 20
    monkeypatch.setenv("PATH", "")
    assert found(first, f"{second}+", "../runs").cells[0].b == 30


def test_links_below_the_folder_of_runs_are_followed_once(commits, tmp_path):
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/again").symlink_to("new")
    shutil.move("runs/archive", "far")
    (tmp_path / "runs/linked").symlink_to(tmp_path / "far")
    comparison = found(*commits)
    assert [len(side.results) for side in (comparison.a, comparison.b)] == [1, 1]
    with pytest.raises(InputError, match=r"results below runs are of \w+\+? \(1\), \w+\+? \(1\), \w+\+? \(1\)$"):
        found("nowhere", "main")


def test_one_job_twice_at_one_commit(commits, tmp_path, capsys, monkeypatch):
    shutil.copytree("runs/new", "runs/copy")
    assert found(*commits).cells[0].b == 20  # a copy is no second measurement
    at(monkeypatch, commits[1][:12])
    write(tmp_path / "runs/other", wrong=range(81))
    code, _, err = told(capsys, "main~1", "main")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: main: was measured more than once, and not to the same bits, in runs/copy/")
    assert err.endswith("name the folder instead of the commit, or a narrower --runs DIR\n")
    assert found("main~1", "runs/other").cells[0].b == 81 / 4


def test_a_broken_file_counts_for_its_commit_or_if_that_is_not_known_for_each(commits, tmp_path, capsys):
    path = next((tmp_path / "runs/dirty").glob("*/linear-*.json"))
    path.write_text(path.read_text().replace("30.0", "31.0"))
    assert told(capsys, "main~1", "main~1")[0] == 0
    assert told(capsys, "main~1", "main")[1].endswith("broken files: 0\n")
    assert "broken files: 1" in told(capsys, "main", "main+")[1]
    path.write_text("{")
    code, out, _ = told(capsys, "main~1", "main~1")
    assert code == 1
    assert "(its commit is unknown)" in out


def test_every_mistake_is_one_line(commits, tmp_path, capsys):
    first, second = (commit[:12] for commit in commits)
    git("commit", "-q", "--allow-empty", "-m", "later")
    later = git("rev-parse", "HEAD")[:12]
    (tmp_path / "empty/run").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    single = next((tmp_path / "runs/new").iterdir())
    there = [f"{commit} (1)" for commit in (first, f"{second}+", second)]
    with_changes = "; use v2+ for what was measured with uncommitted changes\n"
    without = "; use main~2 for what was measured without uncommitted changes\n"
    for given, *expected in (
        (
            ("nowhere", "main"),
            "'nowhere' is neither a folder nor a commit that git knows here; results below runs are of ",
            *there,
        ),
        (("", "main"), "'' is neither a folder nor a commit"),
        (("file", "main"), "'file' is neither a folder nor a commit"),
        (("v2^{tree}", "main"), "is neither a folder nor a commit"),
        (("0" * 40, "main"), "is neither a folder nor a commit"),
        (("main~1", "x" * 5000), "is neither a folder nor a commit"),
        (("main", "v2"), f"main: nothing was measured at {later}; results below runs are of ", *there),
        (("main~2+", "v2"), f"main~2+: nothing was measured at {first}+; ", without),
        (("v2", "v2", "--runs", "runs/dirty"), f"v2: nothing was measured at {second}; ", f" are of {second}+ (1)", with_changes),
        (("v2", "runs/new", "--runs", "gone"), "; there are no results below gone\n"),
        (("v2", "runs/new", "--runs", "file"), "file: cannot be read (Not a directory)"),
        (
            ("empty", "runs/new"),
            "empty: holds no results, which are called RUN/linear-*.json or RUN/finetune-*.json or RUN/knn-*.json\n",
        ),
        (("runs/new", "runs/archive"), "runs/archive: holds no results", f"; there are in {tmp_path}/runs/archive/2025/runs\n"),
        ((single, "main"), f"; there are in {tmp_path}/runs/new\n"),
    ):
        code, out, err = told(capsys, *given)
        assert (code, out, err.count("\n")) == (2, "", 1), given
        assert err.startswith("error: ")
        for part in expected:
            assert part in err


def test_an_abbreviation_that_may_be_two_commits_is_a_mistake(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for commit in ("abcdef111111", "abcdef222222"):
        at(monkeypatch, commit)
        write(tmp_path / "runs" / commit)
    assert found("abcdef1", "abcdef2").cells[0].word == "identical"
    code, _, err = told(capsys, "abcdef", "abcdef2")
    assert (code, err) == (2, "error: abcdef: matches several commits: abcdef111111, abcdef222222; give more characters\n")


def test_an_image_or_two_say_nothing(tmp_path, monkeypatch):
    for side, shift in (("a", 0), ("b", 1)):
        monkeypatch.setattr(f"{__name__}.N", 1)
        write(tmp_path / side, wrong=(), shift=shift)
    cell = found().cells[0]
    assert (cell.word, cell.why) == ("not compared", "too few images to test")
    assert math.isnan(cell.adjusted)
