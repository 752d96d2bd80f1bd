"""RunFolder: all that lies on disk of one Run. No other module spells the name of a file in it.

Each file has one writer, is written to a temporary name, fsynced and renamed; JSON carries a SHA-256 of its own content. A file
that is not whole is reported, never read as a number and never overwritten.
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
    """Return the folder of every Run under `runs`, by name, whether its content can be read or not."""
    names = sorted(path.name for path in runs.glob("[!.]*") if path.is_dir() and path.name != "imported")
    return [RunFolder(runs, name) for name in names]


def runs_started_from(runs: Path, init: str, sha256: str) -> list[str]:
    """Return the names of the Runs under `runs` that began at this starting point when it was a file of another SHA-256."""
    others = []
    for folder in run_folders(runs):
        with suppress(Broken):
            record = folder.encoder_record(verify=False)
            if record and record.get("init_sha256") != sha256 and folder.recorded_fields.get("init") == init:
                others.append(folder.name)
    return others


class RunFolder(RunFiles):
    """The folder of one Run under `runs`, which need not exist. run: the Run, or its name if no more is known."""

    def __init__(self, runs: Path, run: Run | str):
        super().__init__(runs, run if isinstance(run, str) else run.name)
        self.run = run if isinstance(run, Run) else None

    # run.json: every field of the Run, and the digest of its data

    def create_folder(self, data: str) -> "RunFolder":
        """Make the folder if need be, with its run.json. data: the digest of the data set. Returns itself.

        Raise InputError if a run.json is there that says otherwise, or if the folder cannot be written.
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
        """Return whether there is a run.json. A field that it does not have, since it was added later, has its default.

        Raise InputError if it is of another Run or data, naming each field, and Broken if the file that the Run started from has
        changed.
        """
        assert self.run
        path = self.path / RUN
        if (record := self.run_record()) is None:
            return False
        if not isinstance(record.get("run"), dict):
            raise Broken(f"{path}: has no 'run'; move the folder away to run it again")
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
        """Return what run.json holds, or None if there is none. Raise Broken if it is not whole."""
        return read_once(self.path / RUN)

    @property
    def recorded_fields(self) -> dict[str, Any]:
        """The fields of the Run as run.json has them; empty if there is none that can be read."""
        with suppress(Broken):
            fields = (self.run_record() or {}).get("run")
            return fields if isinstance(fields, dict) else {}
        return {}

    @property
    def is_known(self) -> bool:
        """Does it hold the Run after which it is called, as this version names it?"""
        try:
            return bool(self.recorded_fields) and Run.known(self.recorded_fields).name == self.name
        except InputError:
            return False

    # The encoder, and what a training writes before it is there

    def encoder_record(self, verify: bool = True) -> dict[str, Any] | None:
        """Return what is recorded of the encoder, or None if it is not there yet; not to be changed. Raise Broken."""
        return read_once(self.path / ENCODER, verify)

    def has_encoder(self, verify: bool = False) -> bool:
        """Return whether the encoder is there. verify: and its record and its weights are those that were written."""
        if not verify:
            return (self.path / ENCODER).exists()
        with suppress(InputError, OSError, KeyError):
            return bool(self.read_weights())
        return False

    def write_encoder(self, payload: bytes, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write the weights, then the record of them, and clear the checkpoints away. Returns what is recorded."""
        files.write_bytes(self.path / WEIGHTS, payload)
        done = {**record, "backbone_sha256": hashlib.sha256(payload).hexdigest()}
        write_json(self.path / ENCODER, {"schema": SCHEMA, **done, **collect_provenance()})
        for path in self.path.glob(f"{CHECKPOINT}*"):
            path.unlink()
        return done

    def read_weights(self) -> bytes:
        """Return the weights of the encoder, packed. Raise InputError if they are not what was written."""
        path, record = self.path / WEIGHTS, self.encoder_record() or {}
        payload = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(payload).hexdigest() != record["backbone_sha256"]:
            raise InputError(f"{path}: not the weights that were written (SHA-256 differs); delete {self.path} to train again")
        return payload

    def delete_checkpoint(self, protocol: Protocol) -> None:
        """Delete a checkpoint and the one before it, which nothing goes on from any more."""
        for path in (self.checkpoint_path(protocol), self.checkpoint_path(protocol).with_suffix(".previous")):
            path.unlink(missing_ok=True)

    def delete_unfinished(self, protocol: Protocol | None = None) -> None:
        """Delete what a process that was killed while it wrote left of a checkpoint or of the weights. Needs the claim."""
        names = [self.checkpoint_path(protocol).name, *([] if protocol else [WEIGHTS])]
        for path in (path for name in names for path in self.path.glob(f".{name}.*")):
            path.unlink(missing_ok=True)

    # Results

    def has_result(self, protocol: Protocol) -> bool:
        """Return whether a result is there, without reading it."""
        return self.result_path(protocol).exists()

    def result_names(self) -> set[str]:
        """Return the names of the protocols under which there is a result, without reading any."""
        return {path.stem for path in self.result_paths()}

    def result_paths(self) -> list[Path]:
        """Return the files of all results, whatever version wrote them."""
        return sorted(path for stage in PROTOCOLS for path in self.path.glob(f"{stage}-*.json"))

    def read_result(self, protocol: Protocol, verify: bool = True) -> dict[str, Any] | None:
        """Return one result, or None if there is none yet. Raise InputError if it or run.json is not what it should be.

        verify: compare the SHA-256 of the file and of its predictions, too.
        """
        if not self.check_run_json():
            return None
        path, record = self.result_path(protocol), self.run_record() or {}
        if (result := read_json(path, verify)) is None:
            return None
        check_result(path, result, self.run, protocol, verify)
        if result["data"] != record.get("data"):
            raise Broken(f"{path}: was measured on data {result['data']}, run.json beside it says {record.get('data')}")
        return result

    def read_any_result(self, path: Path) -> tuple[Run, Protocol, dict[str, Any]]:
        """Return the Run, protocol and result that one of `result_paths` holds. Raise InputError as `read_result`."""
        if (result := read_json(path)) is None:
            raise Broken(f"{path}: was moved or deleted meanwhile")
        run, protocol = check_result(path, result)
        if not RunFolder(self.runs, run).check_run_json(result["data"]):
            raise Broken(f"{path}: there is no run.json beside it")
        return run, protocol, result

    def write_result(self, protocol: Protocol, scored: Scored, **measured: Any) -> None:
        """Write one result: first its per-sample predictions, then the file that counts; then the partial result goes.

        scored: the record of the protocol, with truth (N,) or (N, K) and scores (N, K) of the images it was scored on.
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
        """Return (truth, scores) of a result by the name of its protocol: (N,) or (N, K) int labels, (N, K) scores."""
        import numpy as np

        with np.load(self.path / f"{protocol}.npz") as arrays:
            return arrays["truth"], arrays["scores"]

    def read_partial_result(self, protocol: Protocol, source: str = "") -> dict[str, Any]:
        """Return what processes finished of a result before they were stopped: rows of its curve, the seconds they took, the
        steps at which they themselves had gone on, members at a time.

        source: the data and weights it has to come from; nothing for all. What is not whole is computed again.
        """
        nothing: dict[str, Any] = {"curve": [], "seconds": 0.0, "resumed": [], "members": 0}
        with suppress(Broken):
            partial = read_json(self.partial_path(protocol))
            if partial and partial.get("schema") == PARTIAL and source in ("", partial["of"]):
                return partial
        return nothing

    def write_partial_result(self, protocol: Protocol, source: str, finished: Mapping[str, Any]) -> None:
        """Write what `partial_result` returns."""
        write_json(self.partial_path(protocol), {"schema": PARTIAL, "of": source, **finished})

    # What lies in the folder

    def progress_marks(self, protocols: Iterable[Protocol]) -> list[str]:
        """Return what changes whenever work gets on: results, rows of partial ones, the digests of checkpoints."""
        protocols, marks = list(protocols), [str(self.has_encoder())]
        for path in sorted(self.path.glob(f"{CHECKPOINT}*")):
            with suppress(OSError), open(path, "rb") as f:
                marks.append(f.read(32).hex())
        marks += [p.name for p in protocols if self.has_result(p)]
        return marks + [str(len(self.read_partial_result(p)["curve"])) for p in protocols]

    def list_files(self) -> Iterator[StoredFile]:
        """Yield every file and link in the folder with its kind; for whoever deletes: pretrain.json first, without which all else
        waits for the claim.

        To be asked while nobody is at work (`is_at_work`), best under `claim`. A leftover under a temporary name may be of a
        process that writes it right now if it is young. Raise PermissionError if the folder may not be read.
        """
        if not self.path.is_dir():
            return
        os.listdir(self.path)  # rglob leaves out what it may not read
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_symlink() or not path.is_dir()]
        for path in sorted(paths, key=lambda path: path.name != ENCODER):
            name = path.relative_to(self.path).as_posix()
            features = FEATURES.fullmatch(name)
            yield StoredFile(path, self._classify_file(name), features[1] if features else "")

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
