"""A method by its numbers: a file of ten lines that is right becomes a row, and one that is not is one line."""

import re

import pytest
from conftest import NUMBERS, ROOT

from simclic import InputError, Table, grid
from simclic.report import added_methods
from simclic.report.results import Results
from simclic.report.tables import Cell, build_sheet, format_rank


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("# source: Doe 2026, Table 3\n", ""), "source is missing; add a line '# source: ...'"),
        (("CIFAR10", "CIFAR-10"), "mine.csv:5: 'CIFAR-10' is not a column of Table 2"),
        (("protocol,", "stage,"), "mine.csv:5: the first column is not protocol"),
        (("5.98", "105.98"), "mine.csv:6: CIFAR10='105.98' is not an error in percent, 0 to 100"),
        (("5.98", "1_0"), "mine.csv:6: CIFAR10='1_0' is not an error in percent"),
        (("Flowers", "CIFAR10"), "mine.csv:5: a column occurs twice"),
        (("# split: test", "# split: test\n# split: val"), "a '# key: value' line occurs twice"),
        (("5.98", "nan"), "mine.csv:6: CIFAR10='nan' is not an error in percent"),
        (("finetune", "tuned"), "mine.csv:7: expected linear or finetune"),
        (("5.98,", "5.98"), "mine.csv:6: expected linear or finetune, each once, followed by 3 values"),
        (("5.98", "100.01"), "mine.csv:6: CIFAR10='100.01' is not an error in percent, 0 to 100"),
        (("5.98", "5\u066b98"), "mine.csv:6: CIFAR10='5\u066b98' is not an error in percent"),
        (("5.98", "\u0665.98"), "mine.csv:6: CIFAR10='\u0665.98' is not an error in percent"),
        (("5.98", "-5.98"), "mine.csv:6: CIFAR10='-5.98' is not an error in percent"),
        (("finetune,,2.00,3.00", "finetune,,,"), "mine.csv:7: holds no number; remove the row"),
        (("finetune,,2.00,3.00", "linear,,2.00,3.00"), "mine.csv:7: expected linear or finetune"),
        (("45.40,5.98,", "0.4540,0.0598,0.1"), "mine.csv:6: are these fractions? errors are in percent: 5.98, not 0.0598"),
        (("linear,45.40,5.98,\nfinetune,,2.00,3.00\n", ""), "mine.csv:5: no row follows"),
        (("# method: Mine", "# method:"), "method is missing; add a line '# method: ...'"),
    ],
)
def test_a_file_of_numbers_that_is_wrong_is_one_line(tmp_path, change, told):
    path = tmp_path / "mine.csv"
    path.write_text(NUMBERS.replace(*change))
    with pytest.raises(InputError, match=re.escape(told)) as e:
        added_methods.read_added_method(path, ("Aircraft", "CIFAR10", "Flowers"))
    assert "\n" not in str(e.value)


COLUMNS = ("Aircraft", "CIFAR10", "Flowers")


def test_what_may_be_there_is_fine(tmp_path):
    path = tmp_path / "mine.csv"
    text = NUMBERS.replace("5.98", "100").replace("2.00,3.00", "0.06, 0.9").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = added_methods.read_added_method(path, COLUMNS)
    assert found.name == "Mine"
    assert found.rows == {
        "linear": {"Aircraft": "45.40", "CIFAR10": "100", "Flowers": ""},
        "finetune": {"Aircraft": "", "CIFAR10": "0.06", "Flowers": "0.9"},
    }


def test_methods_come_in_the_order_of_their_files_and_each_name_once(tmp_path):
    for name in ("zeta", "alpha", "mine"):
        (tmp_path / f"{name}.csv").write_text(NUMBERS.replace("Mine", f"The {name}"))
    (tmp_path / ".mine.csv.swp").write_text("an editor's")
    assert [m.name for m in added_methods.read_added_methods(tmp_path, COLUMNS)] == ["The alpha", "The mine", "The zeta"]
    assert added_methods.read_added_methods(tmp_path / "nothing", COLUMNS) == []
    with pytest.raises(InputError, match=r"mine\.csv: the table has a row 'The mine' already; give this method another name"):
        added_methods.read_added_methods(tmp_path, COLUMNS, ["The mine"])
    (tmp_path / "zeta.csv").write_text(NUMBERS.replace("Mine", "The alpha"))
    with pytest.raises(InputError, match=r"zeta\.csv: the table has a row 'The alpha' already"):
        added_methods.read_added_methods(tmp_path, COLUMNS)


@pytest.mark.parametrize("name", ["mine.CSV", "mine.txt", "more.csv/"])
def test_what_is_no_file_of_a_method_is_not_passed_over(name, tmp_path):
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text(NUMBERS)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / name}: is not a .csv file")):
        added_methods.read_added_methods(tmp_path, COLUMNS)


@pytest.mark.parametrize("name", ["MoCo v2", "SimCLIC (noise)", "BYOL (padded as stored)"])
def test_a_row_of_the_paper_s_is_not_there_twice(name, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "table2.csv").symlink_to(ROOT / "baselines/table2.csv")
    (tmp_path / "methods/mine.csv").write_text(NUMBERS.replace("Mine", name))
    table = Table(paper="table2", caption="", runs=grid(perturbation="noise"))
    with pytest.raises(InputError, match=re.escape(f"the table has a row {name!r} already")):
        build_sheet(table, Results(tmp_path / "runs"), tmp_path)


def test_a_rank_is_that_of_what_is_printed():
    others = [Cell(f"{v:.2f}", v) for v in (5.92, 5.98, 5.98, 7.1)]
    ranks = {v: format_rank(Cell(f"{v:.2f}", v), others) for v in (5.9, 5.9249, 5.926, 5.9849, 5.986, 7.1, 8.0)}
    assert ranks == {
        5.9: "1 of 5", 5.9249: "1 of 5", 5.926: "2 of 5", 5.9849: "2 of 5", 5.986: "4 of 5", 7.1: "4 of 5", 8.0: "5 of 5",
    }  # fmt: skip
    assert format_rank(Cell(), others) == ""
    assert format_rank(Cell("5.90", 5.9), [Cell()]) == ""
