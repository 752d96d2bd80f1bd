"""Is a data set whole? Every file read, every image decoded, every count compared with what its makers published. Offline."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.data import SPLITS, compare_with_published, folder, has_test, is_bundled, list_images, load, manifest, title
from simclic.data.dataset import Facts
from simclic.data.decoded import list_decoded, map_in_order
from simclic.data.image_file import join_missing, read_image_file
from simclic.data.listing import Listing
from simclic.data.splits import Splits, divide
from simclic.errors import InputError
from simclic.progress import Tell
from simclic.text import count_noun, format_data_command

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Checked:
    """What was found. problems: a line for each thing that makes the data set unusable or another one than published.

    remarks: what is worth knowing and harms nothing. sizes: images per split under the `ericsson` rule. classes: images of
    each class in each of these. digests: by split rule, what results on these data carry.
    """

    name: str
    title: str
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    images: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def check(name: str, root: Path, tell: Tell) -> Checked:
    """Return every problem of a data set, not only the first. Raise InputError for an unknown name.

    What decodes counts as whole: of a JPEG that was altered inside, or cut and properly closed again, nothing can be known but
    that its digest is another.
    """
    if is_bundled(name):
        return _check_bundled(name)
    checked = Checked(name, title(name))
    try:
        known, listing = list_images(name, root)
    except InputError as e:
        checked.problems += str(e).splitlines()
        return checked
    checked.images = len(listing.paths)
    rules = SPLITS if has_test(listing) else ("paper",)
    checked.problems += compare_with_published(name, known, listing, root, rules)
    checked.remarks += listing.remarks
    _count_images(checked, known, listing)
    _read_files(checked, name, root, known, listing, rules, tell)
    checked.remarks += _unused_files(known, listing, root)
    checked.problems += _altered_decoded_files(name, root)
    return checked


def _count_images(checked: Checked, known: Facts, listing: Listing) -> None:
    """Count the images per split, and of each class in each split. An image of several classes counts for each."""
    splits = divide(listing, "ericsson", known.rule, known.per_class)
    _count_classes(checked, listing.labels, splits, listing.classes)
    never = "encoders are not probed or fine-tuned on these data"
    errors = {"top-1": "the error there does not see it", "mean per class": "the mean there is over the other classes"}
    judged = errors.get(known.metric, never)
    for kind, count in checked.classes.items():
        for part, what in (("train", never), ("val", judged), ("test", judged)):
            if not count[part] and checked.sizes[part]:  # a part that is empty as a whole is one remark of its own
                checked.remarks.append(f"class {kind!r} has no {part} image: {what}")


def _count_classes(checked: Checked, labels: "np.ndarray", splits: Splits, classes: Sequence[str]) -> None:
    checked.sizes = splits.sizes
    for part in ("train", "val", "test"):
        y = labels[getattr(splits, part)]
        counts = Counter(y.tolist()) if y.ndim == 1 else dict(enumerate((y == 1).sum(axis=0).tolist()))
        for k, kind in enumerate(classes):
            checked.classes.setdefault(kind, {})[part] = counts.get(k, 0)


def _read_files(
    checked: Checked, name: str, root: Path, known: Facts, listing: Listing, rules: Sequence[str], tell: Tell
) -> None:
    """Read and decode every file on all cores; digests under the split rules, only if all are whole."""
    paths = listing.holders or listing.paths
    decode, sums, entries = not listing.holders, dict[str, str](), dict[str, tuple[manifest.Stamp, str]]()
    modes, problems, turned = Counter[str](), dict[Path, str](), 0
    for n, file in enumerate(
        map_in_order(lambda p: read_image_file(listing.base / p, decode, upright=listing.upright), paths), 1
    ):
        if file.problem:
            problems[listing.base / paths[n - 1]] = file.problem
        else:
            modes[file.mode] += 1
            turned += file.turned
            sums[paths[n - 1]], entries[paths[n - 1]] = file.sha256, (file.stamp, file.sha256)
        tell(n / len(paths), f"{checked.title}: {n:,} of {len(paths):,} files")
    checked.problems += join_missing(problems)
    manifest.store_sums(name, root, entries)
    checked.modes = {mode: count for mode, count in modes.items() if mode not in ("", "RGB")}
    for mode, count in sorted(checked.modes.items()):
        checked.remarks.append(f"{count_noun(count, 'image')} of mode {mode}, turned into RGB")
    if turned:
        what = "turned upright" if listing.upright else "not turned upright, as in the cited baselines"
        checked.remarks.append(f"{count_noun(turned, 'image')} with an EXIF orientation, {what}")
    if len(sums) == len(paths):
        for rule in rules:
            splits = divide(listing, rule, known.rule, known.per_class)
            checked.digests[rule] = manifest.data_digest(listing, splits, sums)
            if folder.is_path(name):
                problem, remark = folder.compare_copies(listing, splits, sums)
                checked.problems += [f"{problem} (split {rule})"] if problem else []
                checked.remarks += [remark] if remark and remark not in checked.remarks else []


def _unused_files(known: Facts, listing: Listing, root: Path) -> list[str]:
    """Return a remark for each file among the images that no listing names; it is not used."""
    others = listing.others
    if others is None:
        used, homes = set(listing.paths), [f"{known.home}/{file}/" for file in known.files]
        places = [root / home for home in homes if any(path.startswith(home) for path in listing.paths)]
        files = (p.relative_to(root).as_posix() for place in places for p in sorted(place.rglob("*")) if p.is_file())
        others = tuple(path for path in files if path not in used)
    return [f"{listing.base / path}: belongs to no image that is listed; not used" for path in others]


def _altered_decoded_files(name: str, root: Path) -> list[str]:
    """Return a problem for each decoded file whose SHA-256 differs from the one noted when it was written."""
    problems = []
    for path in list_decoded(name, root):
        noted = path.with_suffix(".sha256")
        with open(path, "rb") as f:
            actual = hashlib.file_digest(f, "sha256").hexdigest()
        if not noted.is_file() or noted.read_text().strip() != actual:
            prepare = format_data_command("prepare", name, root)
            problems.append(f"{path}: is not what was decoded (SHA-256 differs); delete it, then {prepare}")
    return problems


def _check_bundled(name: str) -> Checked:
    """Return the check of a bundled data set, whose images are only counted: its library answers for them."""
    loaded = {rule: load(name, rule, Path()) for rule in SPLITS}
    first = loaded["ericsson"]
    checked = Checked(name, first.facts.title, images=len(first.images), digests={r: d.digest for r, d in loaded.items()})
    _count_classes(checked, first.labels, first.splits, first.names or [str(k) for k in range(first.facts.classes)])
    return checked
