"""The table of 13 systems by three numbers: stored, checkpoint measured again, trained here."""

from conftest import ROOT

from simclic import Run
from simclic.experiment import METHODS, baselines
from simclic.report.cell_keys import read_printed_cells
from simclic.report.three_numbers import list_three_numbers

PRINTED = read_printed_cells(ROOT / "baselines")


def rows(*runs):
    return [run.values | {"on": run.dataset} for run in runs]


def test_every_system_of_table_2_can_be_trained_here():
    assert set(baselines.METHODS) <= set(METHODS)
    assert {METHODS[name].title for name in baselines.METHODS} == set(baselines.METHODS.values())


def test_each_number_is_listed_where_it_is_there():
    runs = [Run(method="byol", dataset=d, seed=s) for d in ("digits", "pets") for s in (0, 1)]
    runs += [Run(init=init, dataset="pets", epochs=0, perturbation="none") for init in ("byol", "byol-as-stored", "swav")]
    systems = {row["system"]: row for row in list_three_numbers(rows(*runs, Run(), Run(method="simsiam")), PRINTED)}
    assert list(systems) == list(baselines.METHODS.values())
    assert systems["BYOL"] == {
        "system": "BYOL",
        "stored": "12 data sets",
        "encoder": "Pets",
        "trained": "Digits, Pets",
        "note": "",
    }
    assert systems["SwAV"] == {"system": "SwAV", "stored": "12 data sets", "encoder": "Pets", "trained": "–", "note": ""}
    assert systems["SeLa v2"]["note"].startswith("its code was never released")
    assert systems["InsDis"]["trained"] == systems["InsDis"]["encoder"] == "–"


def test_a_report_without_any_of_them_has_no_such_table():
    assert list_three_numbers(rows(Run(), Run(epochs=0, perturbation="none")), PRINTED) == []
