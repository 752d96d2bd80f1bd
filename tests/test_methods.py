"""A method by its numbers: a file of ten lines that is right becomes a row, and one that is not is one line."""

import re

import pytest
from conftest import NUMBERS, ROOT

from simclic import InputError, Table, grid
from simclic.report import added_methods
from simclic.report.results import Results
from simclic.report.sheet import Cell
from simclic.report.tables import build_sheet, format_rank


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
        (("finetune", "tuned"), "mine.csv:7: expected linear or finetune or knn"),
        (("5.98,", "5.98"), "mine.csv:6: expected linear or finetune or knn, each once, followed by 3 values"),
        (("5.98", "100.01"), "mine.csv:6: CIFAR10='100.01' is not an error in percent, 0 to 100"),
        (("5.98", "5\u066b98"), "mine.csv:6: CIFAR10='5\u066b98' is not an error in percent"),
        (("5.98", "\u0665.98"), "mine.csv:6: CIFAR10='\u0665.98' is not an error in percent"),
        (("5.98", "-5.98"), "mine.csv:6: CIFAR10='-5.98' is not an error in percent"),
        (("finetune,,2.00,3.00", "finetune,,,"), "mine.csv:7: holds no number; remove the row"),
        (("finetune,,2.00,3.00", "linear,,2.00,3.00"), "mine.csv:7: expected linear or finetune or knn"),
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


def as_excel(separator, decimal=".", end=""):
    """The file as a spreadsheet saves it: every line as wide as the widest, no zeros at the end of a number."""
    lines = NUMBERS.replace("45.40", "45.4").replace("2.00,3.00", "2,3").splitlines()
    cells = [line.split(",") if line[0] != "#" else [line] for line in lines]
    rows = [[value if value[:1] == "#" else value.replace(".", decimal) for value in row] for row in cells]
    quoted = [[f'"{value}"' if separator in value else value for value in row] for row in rows]
    return "\r\n".join(separator.join([*row, *[""] * (4 - len(row)), *[""] * len(end)]) for row in quoted)


@pytest.mark.parametrize(
    "content",
    [
        as_excel(",").encode("utf-8-sig"), as_excel(",").replace('"', "").encode(), as_excel(",", end="..").encode(),
        as_excel(",", ",").encode(), as_excel(";").encode(), as_excel(";", ",").encode("utf-8-sig"), as_excel("\t", ",").encode(),
        as_excel("\t").encode("utf-16"), b"\xfe\xff" + as_excel(";", ",").encode("utf-16-be"),
        as_excel(",").replace("\r\n", "\r").encode(), b"sep=;\r\n" + as_excel(";", ",").encode() + b"\r\n;;;\r\n",
        as_excel(",").replace("split: test", "split: Test").encode(),
        as_excel(";").replace("protocol;Air", '"protocol";"Air').replace("craft;", 'craft";').encode(),
        as_excel(",").replace("# method: Mine", "# method:,Mine").encode(),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_saves_is_the_same_method(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    method = added_methods.read_added_method(path, COLUMNS)
    assert (method.name, method.tested, method.to_measured("5.98", "CIFAR10").images) == ("Mine", True, 10_000)
    assert method.note == "Mine: Doe 2026, Table 3; pre-trained on ImageNet-1k; " + method.note.rpartition("; ")[2]
    assert method.rows == {
        "linear": {"Aircraft": "45.4", "CIFAR10": "5.98", "Flowers": ""},
        "finetune": {"Aircraft": "", "CIFAR10": "2", "Flowers": "3"},
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (NUMBERS.replace("Doe", "Müller").encode("cp1252"), "mine.csv: is not text in UTF-8; save it as CSV UTF-8"),
        (NUMBERS.encode("utf-16-le"), "mine.csv: is not text in UTF-8; save it as CSV UTF-8"),
        (b"PK\x03\x04\x14\x00", "mine.csv: is not text in UTF-8; save it as CSV UTF-8"),
        (NUMBERS.replace("5.98", "5,98").encode(), "mine.csv:6: expected linear or finetune or knn, each once, followed by 3 v"),
        (as_excel(";", ",").replace("5,98", "1.005,98").encode(), "mine.csv:6: CIFAR10='1.005,98' is not an error in percent"),
        (as_excel(";", ",").replace("5,98", "Mai 98").encode(), "mine.csv:6: CIFAR10='Mai 98' is not an error in percent"),
        (as_excel(";", ",").replace("45,4;5,98;", "0,454;0,0598;0,1").encode(), "mine.csv:6: are these fractions?"),
        (as_excel(";").replace("CIFAR10;", ";").encode(), "mine.csv:5: '' is not a column of Table 2"),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_spoiled_is_one_line(tmp_path, content, told):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(told)) as e:
        added_methods.read_added_method(path, COLUMNS)
    assert "\n" not in str(e.value)


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
