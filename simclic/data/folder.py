"""A folder of one's own images as a data set: class/image below it, or train, val and test with class/image below those."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simclic.data.listing import Listing
from simclic.errors import InputError
from simclic.experiment.names import ALL_INSIDE, is_unlabelled
from simclic.text import count_noun

if TYPE_CHECKING:
    from simclic.data.splits import Splits

# What Pillow decodes; written out, so that another version of Pillow does not make another data set.
IMAGES = re.compile(
    r"[^.].*\.(jpe?g|jpe|jfif|a?png|bmp|dib|gif|p[bgpn]m|tiff?|webp|avif|jp[2cfx]|j2[ck]|tga|[dp]cx|dds|ico|cur|icns|sgi|rgba?|bw|ras"
    r"|psd|qoi|im|msp|x[bp]m)", re.IGNORECASE | re.DOTALL
)  # fmt: skip
PARTS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_WORDS = "|".join([*sum(PARTS.values(), ()), "eval", "evaluation", "holdout", "heldout", "fold", "split", "part", "subset"])
PART_LIKE = re.compile(f"(?<![a-z])({_WORDS})+(images?|data|sets?|s)?(?![a-z])")
MASKS = ("mask", "seg", "segmentation", "gt", "groundtruth", "trimap", "annotation", "label", "thumb", "thumbnail")
BYPRODUCTS = {"@eadir", "@tmp", "@recycle", "#recycle", "$recycle.bin", "__macosx", "lost+found"}  # of disks and archives
LAYOUT = (
    "a folder of images holds one folder per class, or train, test and perhaps val with one folder per class in each; PATH/** "
    "are all images in PATH, without labels"
)

Names = tuple[str, ...]  # of each folder on the way to a file or folder, and its own


def is_path(name: str) -> bool:
    """Return whether a data set is named by its path: it holds a slash or begins with a dot."""
    return "/" in name or os.sep in name or name.startswith(".")


def locate(name: str) -> Path:
    """Return the folder of a data set that is named by its path."""
    return Path(name.removesuffix(ALL_INSIDE)).expanduser()


def list_other_spellings(name: str) -> tuple[str, ...]:
    """Return the usual other ways to write the path of a data set; each would give the same Runs other names."""
    near, end = os.path.relpath(locate(name)), ALL_INSIDE if is_unlabelled(name) else ""
    places = [near, f"./{near}", os.path.abspath(near)]
    texts = [f"{place}{tail}" for tail in ([end] if end else ["", "/"]) for place in places]
    return tuple(text for text in texts if text != name and is_path(text))


def explain_absent(name: str) -> str:
    """Return what is wrong with the folder at first sight, in one line; "" if nothing is."""
    return "" if locate(name).is_dir() else f"{name}: no such folder; {LAYOUT}"


def list_folder_images(name: str) -> Listing:
    """Return every image in the folder. Raise InputError if its layout is not understood."""
    import numpy as np

    if problem := explain_absent(name):
        raise InputError(problem)
    base = locate(name)
    folders, files = _walk(base)
    if is_unlabelled(name):
        images = [names for names in files if _is_image(names)]
        if not images:
            raise InputError(f"{base}: no images in it, at any depth")
        paths, rest = (tuple("/".join(names) for names in some) for some in (images, sorted(set(files) - set(images))))
        labels = np.zeros((len(images), 0), dtype=np.int64)
        return Listing(base, paths, labels, ("",) * len(images), (), others=rest, upright=True)
    parts = _find_parts(base, folders, [names for names in files if _is_image(names)])
    depth = 2 if parts else 1  # of a class folder

    def part(names: Names) -> str:
        return parts.get(names[0], "")

    images = [names for names in files if len(names) > depth and _is_image(names)]
    images.sort(key=lambda names: (list(PARTS).index(part(names)) if parts else 0, names))
    others = tuple("/".join(names) for names in sorted(set(files) - set(images)))
    for place in sorted(parts, key=lambda place: list(PARTS).index(parts[place])) or [""]:
        if not any(names[0] == place or not place for names in images):
            loose = sum(_is_image(names) for names in files if names[0] == place or not place)
            problem = f"{count_noun(loose, 'image')} in it, but none in a class folder" if loose else "no images in it"
            raise InputError(f"{base / place}: {problem}; {LAYOUT}")
    _check_class_folders(base, [names for names in folders if len(names) == depth and (not parts or part(names))], images, others)
    stems = Counter(map(_without_suffix, images))
    _check_masks(base, images, stems, depth)

    kinds = [unicodedata.normalize("NFC", names[depth - 1]) for names in images]  # Linux and macOS spell "é" in two ways
    spelling = _spell_classes(base, images, parts, kinds, depth)
    classes = tuple(sorted(spelling.values()))
    if len(classes) < 2:
        deeper = {names[depth] for names in images if len(names) > depth + 1}
        way_out = f"name {base / classes[0]} instead" if not parts else f"move what is in {classes[0]!r} up"
        deep = f", in {len(deeper)} folders below it: one folder too deep; {way_out}" if len(deeper) > 1 else f"; {LAYOUT}"
        raise InputError(f"{name}: all images are of one class, {classes[0]!r}{deep}")
    index = {kind: classes.index(spelled) for kind, spelled in spelling.items()}
    return Listing(
        base, tuple("/".join(names) for names in images), np.array([index[kind] for kind in kinds], dtype=np.int64),
        tuple(map(part, images)), classes, others=others, remarks=_remarks(base, parts, images, stems, depth),
        upright=True,
    )  # fmt: skip


def _spell_classes(base: Path, images: list[Names], parts: dict[str, str], kinds: list[str], depth: int) -> dict[str, str]:
    """Return how the folder of each class in train is spelled. Raise InputError for a class that only val or test has."""
    spelling: dict[str, str] = {}
    for names, kind in zip(images, kinds, strict=True):
        if parts.get(names[0], "train") == "train":
            spelling.setdefault(kind, names[depth - 1])
        elif kind not in spelling:
            raise InputError(
                f"{base.joinpath(*names[:depth])}: this class has no folder in train; add one, or move this folder away"
            )
    return spelling


def explain_unused(listing: Listing) -> str:
    """Return one line about the files in a folder of images that are not used; empty if there are none."""
    if not listing.others:
        return ""
    count = "a file is" if len(listing.others) == 1 else f"{len(listing.others):,} files are"
    return f"{listing.base}: {count} not used ({_count_suffixes(listing.others)}), the first is {listing.others[0]}"


def compare_copies(listing: Listing, splits: "Splits", sums: dict[str, str]) -> tuple[str, str]:
    """Return what is wrong with images of equal bytes, and what is worth a remark: each one line, or empty.

    Copies in two of train, val and test are wrong: what is tested was trained on. sums: SHA-256 by path.
    """
    where = {i: part for part in PARTS for i in getattr(splits, part).tolist()}
    copies: dict[str, list[int]] = defaultdict(list)
    for i in where:
        copies[sums[listing.paths[i]]].append(i)
    groups = [group for group in copies.values() if len(group) > 1]
    across = [group for group in groups if len({where[i] for i in group}) > 1]

    def name(group: list[int]) -> str:
        kinds = (f", {listing.classes[listing.labels[i]]}" if listing.classes else "" for i in group)
        return " = ".join(f"{listing.paths[i]} ({where[i]}{kind})" for i, kind in zip(group[:3], kinds, strict=False))

    problem = f"{listing.base}: {count_noun(len(across), 'image')} in more than one of train, val and test, byte for byte: "
    remark = f"{listing.base}: {count_noun(len(groups), 'image')} more than once, byte for byte: "
    lines = [
        text + "; ".join(map(name, some[:3])) + ("; ..." if len(some) > 3 else "")
        for text, some in ((problem, across), (remark, groups))
    ]
    return f"{lines[0]}; remove the copies" if across else "", lines[1] if groups and not across else ""


def _walk(base: Path) -> tuple[list[Names], list[Names]]:
    """Return all folders and all files below a folder, sorted, links followed.

    A hidden folder or a by-product of a disk counts as a file: nobody looks into it. Raise OSError for a folder that cannot be
    read, and InputError for one that is reached twice, a link to nothing that may be a folder's, and a name that is not UTF-8.
    """
    seen: dict[str, str] = {}
    below: list[Names] = []
    files: list[Names] = []

    def stop(e: OSError) -> None:
        raise e

    for above, folders, names in os.walk(base, onerror=stop, followlinks=True):
        real = os.path.realpath(above)
        if real in seen:
            link, other = (above, seen[real]) if os.path.islink(above) else (seen[real], above)
            raise InputError(f"{link}: a link to a folder that is in the data set already, as {other}; remove it")
        seen[real] = above
        for name in (*folders, *names):
            if re.search("[\ud800-\udfff]", name):  # how Python holds bytes that are no UTF-8
                raise InputError(f"{os.path.join(above, name)!a}: a name that is not UTF-8; rename it")
            if not IMAGES.fullmatch(name) and not name.startswith(".") and not os.path.exists(link := os.path.join(above, name)):
                raise InputError(f"{link}: a link to what is not there, perhaps a folder of images; mend or remove it")
        inside = Path(above).relative_to(base).parts
        skipped = {name for name in folders if name.startswith(".") or name.lower() in BYPRODUCTS}
        folders[:] = sorted(set(folders) - skipped)
        below += [(*inside, name) for name in folders]
        files += [(*inside, name) for name in (*names, *skipped)]
    return sorted(below), sorted(files)


def _is_image(names: Names) -> bool:
    return bool(IMAGES.fullmatch(names[-1]))


def _without_suffix(names: Names) -> Names:
    """Return the names of an image without its suffix, the last in lower case."""
    return (*names[:-1], names[-1].rpartition(".")[0].lower())


def _part_of(folder: str) -> str:
    """Return "train", "val" or "test" if that is what a folder's name means, as in Training, val2017 or test_images."""
    word = re.sub(r"[\W\d_]+", "", folder.lower())
    word = re.sub("^(images?|imgs?|data)|(images?|imgs?|dataset|data|set|split)$", "", word)
    return next((part for part, words in PARTS.items() if word in words), "")


def _find_parts(base: Path, folders: list[Names], images: list[Names]) -> dict[str, str]:
    """Return which part each folder in the data set is; nothing if they are classes. Raise InputError where this is not clear."""
    top = [names[0] for names in folders if len(names) == 1]
    parts = {folder: part for folder in top if (part := _part_of(folder))}
    by_part = {part: folder for folder, part in parts.items()}
    for folder, part in parts.items():
        if folder != by_part[part]:
            raise InputError(f"{base}: {folder!r} and {by_part[part]!r} both are {part}; join them, or move one away")
    inner = {part: names for names in folders[::-1] if len(names) > 1 and (part := _part_of(names[-1]))}
    if len(inner) > 1:
        folders_text = " and ".join("/".join(names) for names in sorted(inner.values()))
        above = {names[:-1] for names in inner.values()}
        way_out = f"name {base.joinpath(*above.pop())} instead" if len(above) == 1 else LAYOUT
        raise InputError(f"{base}: {folders_text} seem to be parts, which lie above the classes; {way_out}")
    if parts:
        beside = [names for names in images if names[0] not in parts]
        if beside:
            what = f"{beside[0][0]!r} is not, and holds {count_noun(len(beside), 'image')}" if len(beside[0]) > 1 else ""
            what = what or f"{count_noun(len(beside), 'image')} beside it, the first {beside[0][0]!r}"
            first = next(iter(parts))
            raise InputError(
                f"{base}: {first!r} is {parts[first]}, but {what}; move that away, or rename {first!r} if it is a class"
            )
        if "train" not in by_part or len(by_part) < 2:
            raise InputError(f"{base}: has {' and '.join(parts)} only; {LAYOUT}")
        return parts
    like = [folder for folder in top if PART_LIKE.search(folder.lower())]
    flat = {names[0] for names in images if len(names) == 2}
    if like and (set(like) >= {names[0] for names in images if len(names) > 1} or not flat.issuperset(like)):
        raise InputError(f"{base}: {like[0]!r} seems to be a part, but which? Name the parts train, val and test; {LAYOUT}")
    return {}


def _check_class_folders(base: Path, folders: list[Names], images: list[Names], others: Iterable[str]) -> None:
    """Raise InputError for a class folder without images: left out, it would change the number of classes."""
    filled = {names[: len(folders[0])] for names in images}
    if empty := [names for names in folders if names not in filled]:
        place = "/".join(empty[0])
        inside = _count_suffixes([path for path in others if path.startswith(f"{place}/")])
        more = f" ({count_noun(len(empty) - 1, 'more folder')} like it)" if len(empty) > 1 else ""
        raise InputError(
            f"{base / place}: a class folder without images that can be read, {f'of {inside}' if inside else 'empty'}{more}; "
            "add or convert images, or move the folder away"
        )


def _count_suffixes(paths: Iterable[str]) -> str:
    counts = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in paths)
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common(5))


def _check_masks(base: Path, images: list[Names], stems: Container[Names], depth: int) -> None:
    """Raise InputError for masks and thumbnails of images among the images: they would count as images of the class."""

    def shows_another(names: Names) -> bool:
        if any(folder.lower().removesuffix("s") in MASKS for folder in names[depth:-1]):
            return True
        *above, stem = _without_suffix(names)
        core = stem.rstrip("0123456789 _.-")
        *_, word = re.split("[ _.-]", core)
        return word.removesuffix("s") in MASKS and (*above, core.removesuffix(word).rstrip(" _.-")) in stems

    if masks := [names for names in images if shows_another(names)]:
        what = f"{count_noun(len(masks), 'image')} that by name show a mask, an annotation or a thumbnail of another"
        raise InputError(f"{base.joinpath(*masks[0])}: the first of {what}; move them out of the class folders")


def _remarks(base: Path, parts: dict[str, str], images: list[Names], stems: Counter[Names], depth: int) -> tuple[str, ...]:
    """Return what is worth knowing about a layout, a line each."""
    lines = []
    if parts and "test" not in parts.values():
        lines.append(f"{base}: no test images; the error reported is that on val, on which settings are chosen")
    inner: dict[Names, set[str]] = defaultdict(set)
    for names in images:
        inner[names[:depth]].add(names[depth] if len(names) > depth + 1 else "")
    if nested := [names for names, inside in inner.items() if len(inside) > 1]:
        shown = ", ".join(sorted(inner[nested[0]] - {""})[:3])
        more = f", and so in {count_noun(len(nested) - 1, 'class folder')} more" if len(nested) > 1 else ""
        lines.append(f"{base.joinpath(*nested[0])}: folders inside a class folder are of that class ({shown}{more})")
    if twins := [stem for stem, count in stems.items() if count > 1]:
        what = f"{count_noun(len(twins), 'name')} with two suffixes, the first {'/'.join(twins[0])}"
        lines.append(f"{base}: {what}: copies or masks would count as images")
    return tuple(lines)
