"""The digest of a data set as it is now, as far as it is known without torch and without decoding images."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from simclic import data
from simclic.data import folder, manifest
from simclic.data.splits import divide
from simclic.errors import InputError
from simclic.experiment import Job
from simclic.files import read_json
from simclic.store.run_folder import RunFolder
from simclic.text import format_data_command

MAX_READ_BYTES = 64_000_000  # of new or changed images


def current_digest(name: str, split: str, root: Path) -> tuple[str, str]:
    """Return the digest that data.load would give, and ""; or "" and why it is not known, with the way out.

    Of a folder of images, new and changed images are read, up to MAX_READ_BYTES. The published data sets need torchvision to be
    listed, and with it torch: `simclic data check` does that.
    """
    check = f"not checked: run: {format_data_command('check', name, root)}"
    try:
        if problem := data.explain_missing(name, root):
            return "", problem
        if data.is_bundled(name):
            return data.load(name, split, root).digest, ""
        return _folder_digest(name, split, root, check) if folder.is_path(name) else ("", check)
    except InputError as e:
        return "", str(e)
    except OSError as e:
        return "", f"{e.filename}: cannot be read ({e.strerror})"


def list_changed_folders(jobs: Iterable[Job], runs: Path, root: Path) -> list[str]:
    """Return one line for each folder of images that is not what stored results of these jobs were measured or trained on."""
    measured: dict[tuple[str, str], set[str]] = {}
    for job in jobs:
        assert job.protocol  # a result
        stored = RunFolder(runs, job.run)
        with suppress(InputError):
            record, result = stored.run_record() or {}, read_json(stored.result_path(job.protocol), verify=False) or {}
            for name, digest in ((job.run.dataset, record.get("data")), (job.dataset, result.get("data"))):
                if digest and folder.is_path(name):
                    measured.setdefault((name, job.run.split), set()).add(digest)
    lines = []
    for (name, split), digests in measured.items():
        now, _ = current_digest(name, split, root)
        if now and digests != {now}:
            lines.append(
                f"{name}: has changed since results on it were computed, and they stay; for new ones use another --runs DIR"
            )
    return lines


def _folder_digest(name: str, split: str, root: Path, check: str) -> tuple[str, str]:
    from simclic.data import image_file

    known, listing = data.list_images(name, root)
    splits = divide(listing, split, known.rule, known.per_class)
    used = {listing.paths[i] for part in (splits.train, splits.val, splits.test) for i in part.tolist()}
    sums = manifest.known_sums(name, root, listing.base, used)
    new = sorted(used - set(sums))
    if sum((listing.base / path).stat().st_size for path in new) > MAX_READ_BYTES:
        return "", f"{check} ({len(new):,} of {len(used):,} images are new or changed since they were last read)"
    files = {path: image_file.read_image_file(listing.base / path, decode=False, upright=listing.upright) for path in new}
    if problem := next((file.problem for file in files.values() if file.problem), ""):
        raise InputError(problem)
    sums |= {path: file.sha256 for path, file in files.items()}
    return manifest.data_digest(listing, splits, sums), ""
