"""Files: whole or not at all, checked on the way in, never a number if they are not what they should be."""

import json

import numpy as np
import pytest
from conftest import tiny
from stored import publish

from simclic import InputError, Linear, files
from simclic.files import Broken, read_json, write_json
from simclic.store import results as store
from simclic.store.run_folder import RunFolder


def test_a_result_comes_back_as_it_was_written(tmp_path, linear):
    path = publish(tmp_path, tiny(), linear)
    found = RunFolder(tmp_path, tiny()).read_result(linear)
    assert (found["error"], found["seed"], found["versions"]["python"][:2]) == (12.5, 0, "3.")
    truth, scores = RunFolder(tmp_path, tiny().name).read_predictions(linear.name)
    assert (scores.argmax(1) == truth).all()
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_results_is_one_tidy_frame(tmp_path, linear):
    assert store.results(tmp_path).empty
    publish(tmp_path, tiny(), linear)
    publish(tmp_path, tiny(perturbation="history"), linear, 20)
    frame = store.results(tmp_path)
    assert len(frame) == 2
    row = frame[frame.perturbation == "history"].iloc[0]
    assert (row.error, row.tau, row.label, row.stage, row.problem) == (20, 0.3, "SimCLIC (history)", "linear", "")


def corrupt(path, kind):
    values = json.loads(path.read_text())
    if kind == "flipped digit":
        path.write_text(path.read_text().replace("12.5", "11.5", 1))
    elif kind == "NaN":
        path.write_text(path.read_text().replace('"error": 12.5', '"error": NaN', 1))
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "empty":
        path.write_text("")
    elif kind == "not an object":
        path.write_text("[1, 2]")
    elif kind == "other run":
        values.pop("sha256")
        write_json(path, values | {"run": values["run"] | {"eps": 0.7}})
    elif kind == "schema":
        values.pop("sha256")
        write_json(path, values | {"schema": 99})
    elif kind == "out of range":
        values.pop("sha256")
        write_json(path, values | {"error": 101.0})
    elif kind == "missing field":
        del values["sha256"], values["chosen"]
        write_json(path, values)
    elif kind.startswith("predictions of "):
        values.pop("sha256")
        write_json(path, values | {"predictions": kind.removeprefix("predictions of ")})
    elif kind == "no size":
        values.pop("sha256")
        write_json(path, values | {"sizes": {"train": 2}})
    elif kind == "predictions gone":
        path.with_suffix(".npz").unlink()
    elif kind == "predictions altered":
        path.with_suffix(".npz").write_bytes(b"x")


KINDS = (
    "flipped digit", "NaN", "truncated", "empty", "not an object", "other run", "schema", "out of range", "no size",
    "missing field",
)  # fmt: skip


@pytest.mark.parametrize(
    "kind", [*KINDS, *(f"predictions {what}" for what in ("gone", "altered", "of ", "of a/b", "of ../x.npz", "of other.npz"))]
)
def test_a_corrupt_result_is_a_problem_and_never_a_number(tmp_path, linear, kind):
    path = publish(tmp_path, tiny(), linear)
    assert store.results(tmp_path).iloc[0].problem == ""
    corrupt(path, kind)
    row = store.results(tmp_path).iloc[0]
    assert np.isnan(row.error)
    assert str(path) in row.problem
    assert "\n" not in row.problem
    with pytest.raises(Broken):
        RunFolder(tmp_path, tiny()).read_result(linear)


def test_a_run_json_that_disagrees_is_refused_field_by_field(tmp_path):
    path = RunFolder(tmp_path, tiny()).create_folder("d1").path / "run.json"
    values = read_json(path)
    values["run"] |= {"weight_decay": 0.5}  # as if the default had been another when this was run
    write_json(path, values)
    with pytest.raises(InputError, match=r"another experiment under the same name: weight_decay 0.5 there, 0.001 here"):
        RunFolder(tmp_path, tiny()).create_folder("d1")
    other = RunFolder(tmp_path / "other", tiny()).create_folder("d1")
    with pytest.raises(InputError, match="data 'd1' there, 'd2' here"):
        other.create_folder("d2")


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; choose another place with --runs DIR"):
        RunFolder(tmp_path / "file", tiny()).create_folder("d1")
    with pytest.raises(InputError, match="choose another place with --out DIR"):
        files.check_writable(tmp_path / "file" / "out", "--out")


def test_writing_fails_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


def test_looking_without_verifying_still_sees_what_is_missing(tmp_path):
    path = publish(tmp_path, tiny(), Linear())
    assert RunFolder(tmp_path, tiny()).read_result(Linear(), verify=False)
    predictions = path.with_suffix(".npz")
    predictions.write_bytes(predictions.read_bytes()[:-1] + b"x")
    assert RunFolder(tmp_path, tiny()).read_result(Linear(), verify=False)
    with pytest.raises(Broken, match="are missing or altered"):
        RunFolder(tmp_path, tiny()).read_result(Linear())
    predictions.unlink()
    with pytest.raises(Broken, match="are missing or altered"):
        RunFolder(tmp_path, tiny()).read_result(Linear(), verify=False)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(Broken, match="is not a whole JSON file"):
        RunFolder(tmp_path, tiny()).read_result(Linear(), verify=False)
