"""RunFolder: read and write all files of one Run. No other module spells the names of these files.

Each file has one writer. It is written under a temporary name, fsynced and renamed; JSON files contain a SHA-256 of their own
content. A broken file is reported; it is never read as a number and never overwritten.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Protocol, Run
from simclic.files import Broken, read_json, write_json
from simclic.provenance import collect_provenance
from simclic.store import claim
from simclic.store.result_file import SCHEMA, Scored, check_result, pack_predictions
from simclic.store.run_files import (
    CHECKPOINT,
    CLAIM,
    ENCODER,
    FEATURES,
    NEEDED,
    RUN,
    UNFINISHED,
    WEIGHTS,
    FileKind,
    RunFiles,
    StoredFile,
    read_once,
)  # fmt: skip
from simclic.weights import init_weights

if TYPE_CHECKING:
    import numpy as np

PARTIAL = 2  # schema of a partial result; changed with how its rows are computed, too


def run_folders(runs: Path) -> "list[RunFolder]":
    """Return the folder of every Run in `runs`, sorted by name. Nothing in the folders is read."""
    names = sorted(path.name for path in runs.glob("[!.]*") if path.is_dir() and path.name != "imported")
    return [RunFolder(runs, name) for name in names]


def runs_started_from(runs: Path, init: str, sha256: str) -> list[str]:
    """Return the names of the Runs that started from the file `init` while it had another SHA-256."""
    others = []
    for folder in run_folders(runs):
        with suppress(Broken):
            record = folder.encoder_record(verify=False)
            if record and record.get("init_sha256") != sha256 and folder.recorded_fields.get("init") == init:
                others.append(folder.name)
    return others


class RunFolder(RunFiles):
    """The folder of one Run in `runs`; it need not exist. run: the Run, or its name if only that is known."""

    def __init__(self, runs: Path, run: Run | str):
        super().__init__(runs, run if isinstance(run, str) else run.name)
        self.run = run if isinstance(run, Run) else None

    # run.json: every field of the Run, and the digest of its data

    def create_folder(self, data: str) -> "RunFolder":
        """Create the folder and its run.json if they are missing. data: the digest of the data set. Return self.

        Raise InputError if the existing run.json differs, or if the folder cannot be written.
        """
        assert self.run
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.check_run_json(data):
                write_json(self.path / RUN, {"schema": SCHEMA, "run": self.run.values, "data": data, **collect_provenance()})
        except OSError as e:
            raise InputError(f"{self.path}: cannot be written ({e.strerror}); choose another place with --runs DIR") from e
        return self

    def check_run_json(self, data: str = "") -> bool:
        """Return whether there is a run.json. A field that an old run.json does not have counts as the default.

        Raise InputError with each field that differs if it belongs to another Run or data. Raise Broken if the file that the
        Run started from has changed.
        """
        assert self.run
        path = self.path / RUN
        if (record := self.run_record()) is None:
            return False
        if not isinstance(record.get("run"), dict):
            raise Broken(f"{path}: has no field 'run'; move the folder away to run it again")
        differ = self.run.list_differences(record["run"])
        if data and record.get("data") != data:
            differ.append(f"data {record.get('data')!r} there, {data!r} here")
        if differ:
            way = "move the folder away or use another --runs DIR"
            raise InputError(f"{path}: another experiment under the same name: {'; '.join(differ)}; {way}")
        if init_weights.locate_init(self.run.init, self.runs):
            init_weights.check_init_unchanged(self.run.init, self.encoder_record() or {}, self.path)
        return True

    def run_record(self) -> dict[str, Any] | None:
        """Return the content of run.json, or None if there is none. Raise Broken if it is damaged."""
        return read_once(self.path / RUN)

    @property
    def recorded_fields(self) -> dict[str, Any]:
        """The fields of the Run in run.json; {} if there is no readable run.json."""
        with suppress(Broken):
            fields = (self.run_record() or {}).get("run")
            return fields if isinstance(fields, dict) else {}
        return {}

    @property
    def is_known(self) -> bool:
        """Whether run.json describes the Run that this version would give the folder's name."""
        try:
            return bool(self.recorded_fields) and Run.known(self.recorded_fields).name == self.name
        except InputError:
            return False

    # The encoder and the checkpoints of its training

    def encoder_record(self, verify: bool = True) -> dict[str, Any] | None:
        """Return the record of the encoder, or None if there is no encoder. Do not change it. Raise Broken if it is damaged."""
        return read_once(self.path / ENCODER, verify)

    def has_encoder(self, verify: bool = False) -> bool:
        """Return whether the encoder is there. verify: also check its record and weights."""
        if not verify:
            return (self.path / ENCODER).exists()
        with suppress(InputError, OSError, KeyError):
            return bool(self.read_weights())
        return False

    def write_encoder(self, payload: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write the weights, then their record, and delete the checkpoints. Return the record."""
        files.write_bytes(self.path / WEIGHTS, payload)
        done = {**record, "backbone_sha256": hashlib.sha256(payload).hexdigest()}
        write_json(self.path / ENCODER, {"schema": SCHEMA, **done, **collect_provenance()})
        for path in self.path.glob(f"{CHECKPOINT}*"):
            path.unlink()
        return done

    def read_weights(self) -> bytes:
        """Return the packed weights of the encoder. Raise InputError if they are missing or were changed since."""
        path, record = self.path / WEIGHTS, self.encoder_record() or {}
        if not path.is_file():
            raise InputError(f"{path}: is missing, as in every record of results; elsewhere, delete {self.path} to train again")
        payload = path.read_bytes()
        if hashlib.sha256(payload).hexdigest() != record["backbone_sha256"]:
            raise InputError(f"{path}: was changed after it was written (SHA-256 differs); delete {self.path} to train again")
        return payload

    def delete_checkpoint(self, protocol: Protocol, part: int = 0) -> None:
        """Delete the checkpoint of a finished result, or of a part of it, and the checkpoint before it."""
        checkpoint = self.checkpoint_path(protocol, part)
        for path in (checkpoint, checkpoint.with_suffix(".previous")):
            path.unlink(missing_ok=True)

    def delete_unfinished(self, protocol: Protocol | None = None, part: int = 0) -> None:
        """Delete half-written checkpoints or weights of a killed process. Call it under the claim."""
        names = [self.checkpoint_path(protocol, part).name, *([] if protocol else [WEIGHTS])]
        for path in (path for name in names for path in self.path.glob(f".{name}.*")):
            path.unlink(missing_ok=True)

    # Results

    def has_result(self, protocol: Protocol) -> bool:
        """Return whether the file of a result exists, without reading it."""
        return self.result_path(protocol).exists()

    def result_names(self) -> set[str]:
        """Return the names of the protocols that have a result, without reading any."""
        return {path.stem for path in self.result_paths()}

    def result_paths(self) -> list[Path]:
        """Return the paths of all results, of any version."""
        return sorted(path for stage in PROTOCOLS for path in self.path.glob(f"{stage}-*.json"))

    def read_result(self, protocol: Protocol, verify: bool = True) -> dict[str, Any] | None:
        """Return one result, or None if there is none yet. Raise InputError if the result or run.json is wrong.

        verify: also compare the SHA-256 of the file and of its predictions.
        """
        if not self.check_run_json():
            return None
        path, record = self.result_path(protocol), self.run_record() or {}
        if (result := read_json(path, verify)) is None:
            return None
        check_result(path, result, self.run, protocol, verify)
        if not protocol.on and result["data"] != record.get("data"):
            raise Broken(f"{path}: was measured on data {result['data']}, run.json beside it says {record.get('data')}")
        return result

    def read_any_result(self, path: Path) -> tuple[Run, Protocol, dict[str, Any]]:
        """Return the Run, protocol and result in one of `result_paths`. Raise InputError like `read_result`."""
        if (result := read_json(path)) is None:
            raise Broken(f"{path}: was moved or deleted while it was read")
        run, protocol = check_result(path, result)
        if not RunFolder(self.runs, run).check_run_json("" if protocol.on else result["data"]):
            raise Broken(f"{path}: there is no run.json in its folder")
        return run, protocol, result

    def write_result(self, protocol: Protocol, scored: Scored, **measured: Any) -> None:
        """Write one result: its per-sample predictions first, then its JSON file. Then delete the partial result.

        scored: the record of the result, with truth (N,) or (N, K) and scores (N, K) of the test images.
        """
        assert self.run
        path, payload = self.result_path(protocol), pack_predictions(scored)
        predictions = path.with_suffix(".npz")
        files.write_bytes(predictions, payload)
        job = {"schema": SCHEMA, "run": self.run.values, "stage": protocol.stage, "protocol": protocol.values}
        beside = {"predictions": predictions.name, "predictions_sha256": hashlib.sha256(payload).hexdigest()}
        write_json(path, {**job, **scored[0], **measured, **beside, **collect_provenance()})
        self.partial_path(protocol).unlink(missing_ok=True)

    def read_predictions(self, protocol: str) -> "tuple[np.ndarray, np.ndarray]":
        """Return (truth, scores) of the result under a protocol's name: (N,) or (N, K) int labels, (N, K) scores.

        Of a recorded result the scores are what `reduce_predictions` leaves: (N,) predicted classes, or (N, K) ranks.
        """
        import numpy as np

        with np.load(self.path / f"{protocol}.npz") as arrays:
            return arrays["truth"], arrays["scores"]

    def read_partial_result(self, protocol: Protocol, source: str = "", part: int = 0) -> dict[str, Any]:
        """Return the finished parts of a result: rows of its curve, seconds so far, steps at which it was resumed, members at
        a time. A damaged file counts as empty, so its parts are computed again.

        source: the data and weights that it must come from; "" for any. part: as `partial_path`.
        """
        nothing: dict[str, Any] = {"curve": [], "seconds": 0.0, "resumed": [], "members": 0}
        with suppress(Broken):
            partial = read_json(self.partial_path(protocol, part))
            if partial and partial.get("schema") == PARTIAL and source in ("", partial["of"]):
                return partial
        return nothing

    def write_partial_result(self, protocol: Protocol, source: str, finished: Mapping[str, Any], part: int = 0) -> None:
        """Write the finished parts of a result, as `read_partial_result` returns them."""
        write_json(self.partial_path(protocol, part), {"schema": PARTIAL, "of": source, **finished})

    # All files of the folder

    def progress_fingerprint(self, protocols: Iterable[Protocol]) -> list[str]:
        """Return marks that change when work progresses: results, rows of partial results, digests of checkpoints."""
        protocols, marks = list(protocols), [str(self.has_encoder())]
        for path in sorted(self.path.glob(f"{CHECKPOINT}*")):
            with suppress(OSError), open(path, "rb") as f:
                marks.append(f.read(32).hex())
        marks += [p.name for p in protocols if self.has_result(p)]
        return marks + [str(len(self.read_partial_result(p)["curve"])) for p in protocols]

    def list_files(self) -> Iterator[StoredFile]:
        """Yield every file and link in the folder with its kind, pretrain.json first, so that it is also deleted first.

        Call it while no process works here (`is_at_work`), best under `claim_work`. A recent temporary file may belong to a
        process that is writing it. Raise PermissionError if the folder may not be read.
        """
        if not self.path.is_dir():
            return
        os.listdir(self.path)  # rglob leaves out what it may not read
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_symlink() or not path.is_dir()]
        for path in sorted(paths, key=lambda path: path.name != ENCODER):
            name = path.relative_to(self.path).as_posix()
            yield StoredFile(path, self._classify_file(name))

    def _classify_file(self, name: str) -> FileKind:
        whole, _, ending = name.rpartition(".")
        if intended := files.intended_name(Path(name)):
            return (
                FileKind.LEFTOVER
                if self._classify_file(intended) is not FileKind.UNRECOGNISED and "/" not in name
                else FileKind.UNRECOGNISED
            )
        if ending == "damaged" and (whole == CHECKPOINT or UNFINISHED.fullmatch(whole)):
            return FileKind.DAMAGED
        if name in (CHECKPOINT, f"{CHECKPOINT}.previous"):
            return FileKind.LEFTOVER if self.has_encoder(verify=True) else FileKind.NEEDED
        if unfinished := UNFINISHED.fullmatch(name):
            return FileKind.LEFTOVER if self._has_whole_result(unfinished[1] or unfinished[2]) else FileKind.NEEDED
        if CLAIM.fullmatch(name):
            return FileKind.NEEDED if claim.is_claimed(self.path, name.removesuffix(".json")) else FileKind.LEFTOVER
        if FEATURES.fullmatch(name):
            return FileKind.RECOMPUTABLE if self.has_encoder() and (self.path / WEIGHTS).is_file() else FileKind.NEEDED
        return FileKind.NEEDED if NEEDED.fullmatch(name) else FileKind.UNRECOGNISED

    def _has_whole_result(self, name: str) -> bool:
        with suppress(InputError, OSError):
            return bool(self.read_any_result(self.path / f"{name}.json"))
        return False
