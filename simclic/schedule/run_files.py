"""What a Run's folder holds, and what of it may go."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from simclic import files
from simclic.errors import InputError
from simclic.experiment import Run
from simclic.schedule.items import is_folder, list_folder
from simclic.store import results as store
from simclic.store.claim import is_claimed

RESULT = r"(?:linear|finetune)-[0-9a-f]{10}"
OWN = (
    rf"(run|pretrain|failed-[a-z]+|owner(-{RESULT})?|(partial-)?{RESULT})\.json|{RESULT}\.npz|log\.jsonl|backbone\.safetensors"
    rf"|features-(float32|bf16)\.safetensors|checkpoint(-{RESULT})?(\.previous|\.damaged)?|tensorboard/events\.out\.tfevents\..+"
)


class RunFiles:
    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def at_work(self) -> bool:
        try:
            return any(is_claimed(self.folder, path.stem) for path in list_folder(self.folder) if self._is_claim(path))
        except PermissionError:
            return True

    def _is_claim(self, path: Path) -> bool:
        return bool(re.fullmatch(rf"owner(-{RESULT})?\.json", path.name))

    def _record(self, name: str) -> dict[str, Any]:
        try:
            return store.read_json(self.folder / name) or {}
        except store.Broken:
            return {}

    @property
    def fields(self) -> Any:
        return self._record("run.json").get("run")

    @property
    def is_known(self) -> bool:
        try:
            return Run.known(self.fields).name == self.folder.name
        except (InputError, AttributeError):
            return False

    def has(self, protocols: Iterable[str]) -> bool:
        return all((self.folder / f"{name}.json").exists() for name in ("pretrain", *protocols))

    def has_encoder(self, verify: bool = False) -> bool:
        made, path = self._record("pretrain.json"), self.folder / "backbone.safetensors"
        if not made or not path.is_file():
            return False
        return not verify or hashlib.sha256(path.read_bytes()).hexdigest() == made["backbone_sha256"]

    def logs(self) -> list[str]:
        return [str(self._record(path.name).get("log")) for path in self.folder.glob("failed-*.json")]

    def results(self) -> list[Path]:
        return [path for path in list_folder(self.folder) if re.fullmatch(RESULT + r"\.json", path.name)]

    def features(self) -> dict[str, Path]:
        paths = {p: self.folder / f"features-{p}.safetensors" for p in ("float32", "bf16")}
        return {p: path for p, path in paths.items() if path.exists() or path.is_symlink()}

    def damaged(self) -> list[Path]:
        return [path for path in self.own_files() if path.name.endswith(".damaged")]

    def leftovers(self) -> Iterator[Path]:
        for path in list_folder(self.folder):
            if is_folder(path):
                continue
            if name := files.intended_name(path):
                if re.fullmatch(OWN, name):
                    yield path
            elif self._is_claim(path):
                yield path
            elif match := re.fullmatch(rf"partial-({RESULT})\.json|checkpoint-({RESULT})(?:\.previous)?", path.name):
                if self._has_result(match[1] or match[2]):
                    yield path
            elif path.name in ("checkpoint", "checkpoint.previous") and self.has_encoder(verify=True):
                yield path

    def _has_result(self, name: str) -> bool:
        with suppress(InputError, OSError):
            return store.read_result(self.folder / f"{name}.json") is not None
        return False

    def own_files(self) -> list[Path]:
        own = [
            p
            for p in sorted(self.folder.rglob("*"))
            if not is_folder(p) and re.fullmatch(OWN, p.relative_to(self.folder).as_posix())
        ]
        return sorted(own, key=lambda path: path.name != "pretrain.json")
