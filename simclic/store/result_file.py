"""The content of one result file, and its checks."""

import hashlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclic.errors import InputError
from simclic.experiment import PROTOCOLS, Linear, Protocol, Run
from simclic.files import Broken

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
REDUCED = "reduced_sha256"  # the field of a recorded result with the SHA-256 of its reduced predictions
CLASSES = "classes"  # the field of a recorded result with the number of classes, which reduced predictions do not say

Scored = tuple[dict[str, Any], "np.ndarray", "np.ndarray"]  # the record of a result; truth and scores of the test images

RESULT: dict[str, type | tuple[type, ...]] = {
    "schema": int, "run": dict, "stage": str, "protocol": dict, "error": (int, float), "metric": str, "chosen": dict,
    "curve": list, "sizes": dict, "data": str, "seconds": (int, float), "device": str, "threads": int, "versions": dict,
    "commit": str, "predictions": str, "predictions_sha256": str,
}  # fmt: skip


def check_result(
    path: Path, result: dict[str, Any], run: Run | None = None, protocol: Protocol | None = None, verify: bool = True
) -> tuple[Run, Protocol]:
    """Return the Run and protocol of a result file. Raise Broken if a field is missing or wrong.

    run, protocol: what the result must belong to. verify: also compare the SHA-256 of its predictions.
    """
    for key, kind in RESULT.items():
        if not isinstance(result.get(key), kind) or isinstance(result.get(key), bool):
            raise Broken(f"{path}: {key!r} is missing or has the wrong type")
    if result["schema"] != SCHEMA:
        raise Broken(f"{path}: has schema {result['schema']}; this version reads schema {SCHEMA}")
    if not (math.isfinite(result["error"]) and 0 <= result["error"] <= 100):
        raise Broken(f"{path}: error={result['error']!r} is not a percentage (0-100)")
    try:
        run = run or Run.known(result["run"])
        protocol = protocol or PROTOCOLS[result["stage"]].parse(result["protocol"])
    except (InputError, KeyError) as e:
        raise Broken(f"{path}: {e}") from e
    if run.list_differences(result["run"]) or path.parent.name != run.name:
        raise Broken(f"{path}: does not belong to the Run {path.parent.name}")
    if protocol.list_differences(result["protocol"]) or path.stem != protocol.name:
        raise Broken(f"{path}: was not measured under the protocol {path.stem}")
    if not isinstance(result["sizes"].get("test"), int):
        raise Broken(f"{path}: does not record its number of test images")
    predictions = path.with_suffix(".npz")
    is_whole = predictions.is_file()
    if is_whole and verify:
        stated = result.get(REDUCED, result["predictions_sha256"])
        is_whole = hashlib.sha256(predictions.read_bytes()).hexdigest() == stated
    if result["predictions"] != predictions.name or not is_whole:
        raise Broken(f"{path}: its predictions {result['predictions']} are missing or altered")
    return run, protocol


def is_superseded(protocol: Protocol, result: dict[str, Any]) -> bool:
    """Return whether a result is an as-published probe of version 0.1.0: today's scikit-learn stopped it, not the source's rule.

    It does not say `lbfgs`, the options of the solver.
    """
    return isinstance(protocol, Linear) and protocol.solver == "as-published" and "lbfgs" not in result


def trained_data(run_json: dict[str, Any] | None, run: Run, protocol: Protocol) -> str:
    """Return the digest of the data that the encoder of a result on another data set was pre-trained on; "" for others."""
    return str((run_json or {}).get("data", "")) if protocol.on and run.epochs else ""


def pack_predictions(scored: Scored) -> bytes:
    """Return truth and scores of a result as one .npz file."""
    _, truth, scores = scored
    return _pack_arrays(truth, scores.astype("float32"))


def reduce_predictions(truth: "np.ndarray", scores: "np.ndarray", metric: str) -> bytes:
    """Return truth and what the metric reads of the scores as one .npz file: the predicted classes (N,), or under mAP, which
    needs the order of the images, their ranks by each class (N, K); equal scores have one rank.
    """
    import numpy as np
    from scipy.stats import rankdata

    read = rankdata(scores, "dense", axis=0) if metric == "11-point mAP" else scores.argmax(axis=1)
    truth, read = (x.astype(np.promote_types(np.min_scalar_type(x.min()), np.min_scalar_type(x.max()))) for x in (truth, read))
    return _pack_arrays(truth, read)


def _pack_arrays(truth: "np.ndarray", scores: "np.ndarray") -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, truth=truth, scores=scores)
    return buffer.getvalue()
