"""Where every stored number comes from: nothing printed is left out, and what is said of it agrees with facts and source."""

import pandas as pd
import pytest
from conftest import ROOT

from simclic import Linear
from simclic.data import FACTS, PAPER

KNOWN = {FACTS[name].title: name for name in PAPER}
MISPRINTED = {("finetune", "MoCo v1", "Cars"): "34.98", ("finetune", "BYOL", "Food"): "14.46"}


def stored(name):
    """A stored table as it is written, cell by cell."""
    return pd.read_csv(ROOT / f"baselines/{name}.csv", dtype=str, keep_default_na=False)


def chosen(**where):
    """The rows of the provenance with these values."""
    rows = stored("provenance")
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.to_dict("records")


def cited():
    rows = [row for row in chosen(table="2") if row["source"] == "Ericsson, Gouk, Hospedales, CVPR 2021"]
    assert len(rows) == 299
    return rows


def printed():
    """(table, protocol, row, column, cell) of every cell of Tables 1-6 that is not empty."""
    for number in range(1, 7):
        for values in stored(f"table{number}").to_dict("records"):
            protocol = values.pop("protocol", "")
            row = values.pop(next(iter(values)))
            yield from ((str(number), protocol, row, column, cell) for column, cell in values.items() if cell)


def test_every_printed_cell_has_one_row_in_the_tables_order():
    rows = stored("provenance")
    rows.loc[rows.table.isin(["4", "5", "6"]), "protocol"] = ""  # not printed there, inferred
    found = list(rows[["table", "protocol", "row", "column", "printed"]].itertuples(index=False, name=None))
    assert found == list(printed())
    assert len({row[:4] for row in found}) == len(found) == 456


def test_cited_errors_are_what_the_source_leaves_of_100_but_for_two_misprints():
    accuracy = stored("ericsson_table1").set_index(["mode", "model"])
    differ = {}
    for row in cited():
        theirs = f"{100 - float(accuracy.loc[(row['protocol'], row['row']), row['column']]):.2f}"
        if float(theirs) != float(row["printed"]):
            differ[row["protocol"], row["row"], row["column"]] = theirs
            assert f"misprinted: the source's value is {theirs}" in row["caveat"]
        else:
            assert "misprinted" not in row["caveat"]
    assert differ == MISPRINTED


def test_the_13_are_cited_and_simclics_rows_are_its_own():
    for row in chosen(table="2"):
        ours = row["row"].startswith("SimCLIC")
        assert (row["source"] == "SimCLIC, JSSI 11(2), 2023") == ours
        assert (row["pretrained_on"] == "the data set itself") == ours
        assert (row["split"] == "validation set, as the paper says") == ours
        assert (row["split"] == "test") == (not ours and row["column"] != "ImageNet")


def test_test_images_and_metric_are_the_facts():
    for row in chosen(table="2"):
        if row["column"] == "ImageNet":
            assert (row["metric"], row["test_images"]) == ("top-1", "50000")
            continue
        facts = FACTS[KNOWN[row["column"]]]
        assert row["metric"] == facts.metric
        if row["split"] != "test":
            assert row["test_images"] == "not stated"
        elif row["column"] == "Caltech101":
            # The source scores 28 of the background's 467 images less than all, and trains on 2,416 different images of 102
            # classes where 30 a class without replacement are 3,030 of 101: what it does not train on, it scores.
            assert int(row["test_images"]) == facts.sizes[2] + (467 - 28) + (30 * 101 - (2416 - 28)) == 6728
        else:
            assert int(row["test_images"]) == facts.sizes[2]
    assert {(row["metric"], row["test_images"]) for n in "456" for row in chosen(table=n)} == {("top-1", "not stated")}


def test_selected_l2_is_the_one_of_the_45_that_the_source_names():
    index = stored("ericsson_selected_l2").set_index("model")
    asked = [row for row in cited() if row["protocol"] == "linear" and row["column"] != "ImageNet"]
    assert len(asked) == 13 * 11
    for row in asked:
        expected = Linear().l2[int(index.loc[row["row"], KNOWN[row["column"]]])]
        assert float(row["selected_l2"]) == pytest.approx(expected, rel=1e-3)
    assert (stored("provenance").selected_l2 != "").sum() == len(asked)


def test_selected_l2_is_the_inverse_of_the_c_that_the_source_gives_as_its_example():
    (row,) = chosen(protocol="linear", row="DeepCluster v2", column="CIFAR10")
    assert 1 / float(row["selected_l2"]) == pytest.approx(0.316, rel=2e-3)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("column", "Caltech101", "drawn with replacement"),
        ("row", "BYOL", "degraded"),
        ("row", "SimCLR v1", "other padding"),
        ("row", "SimCLR v2", "other padding"),
        ("protocol", "linear", "not converged"),
    ],
)
def test_a_caveat_stands_at_all_cells_that_it_is_about_and_no_others(column, value, told):
    rows = [row for row in cited() if row["column"] != "ImageNet"]
    about = [row for row in rows if row[column] == value]
    assert about
    assert all(told in row["caveat"] for row in about)
    if told != "other padding":
        assert sum(told in row["caveat"] for row in rows) == len(about)


def test_misprinted_counts_of_table_1_name_the_real_ones():
    for name in ("pets", "sun397"):
        (row,) = chosen(table="1", row=FACTS[name].title, column="total_images")
        assert str(FACTS[name].images) in row["caveat"]


def test_table_2_leaves_nothing_unsaid():
    for row in chosen(table="2"):
        assert {name for name, value in row.items() if not value} <= {"protocol", "selected_l2", "caveat"}, row
