"""Download, verify, unpack: nothing is unpacked that was not verified, nothing lands outside its folder, nothing half done."""

import contextlib
import errno
import gzip
import lzma
import os
import shutil
import socket
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from simclic.data import explain_missing
from simclic.data.dataset import Archive
from simclic.data.facts import declaration, facts
from simclic.data.published import has_digest
from simclic.errors import InputError
from simclic.files import DISK_FULL

DISK = {*DISK_FULL, errno.EACCES, errno.EROFS, errno.EIO}  # not the network
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error)
SILENCE = 60.0  # seconds without a byte, after which an address counts as gone
Say = Callable[[str], None]


def fetch(name: str, root: Path, say: Say) -> None:
    """Download and unpack what of a data set is not there; an archive that lies in `root` already is used, and stays.

    Raises InputError with a line for each archive that cannot be had, is not the published one, or may not be unpacked.
    """
    problems = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        for folder in abandoned_downloads(root):
            shutil.rmtree(folder, ignore_errors=True)
        for archive in facts(name).archives:
            if (root / archive.gives).exists():
                continue
            try:
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as aside:
                    _install_archive(archive, root, Path(aside), say)
            except InputError as e:
                problems.append(str(e))
    except OSError as e:
        raise InputError(f"{e.filename or root}: {e.strerror or e}; choose another place with --data DIR") from e
    if not problems and (arrange := getattr(declaration(name), "arrange", None)):
        arrange(root)
    if not problems and explain_missing(name, root):  # a folder is there that was unpacked in part, not by us
        home = Path(facts(name).home)
        gone = [file for file in facts(name).files if not (root / home / file).exists()]
        away = root / home.parts[0]
        problems.append(f"{root / home}: {', '.join(gone)} missing; move {away} away and run this again")
    if problems:
        raise InputError("\n".join(problems))


def _install_archive(archive: Archive, root: Path, aside: Path, say: Say) -> None:
    """Download, verify and unpack one archive. aside: a folder for everything that is not complete yet."""
    file = root / archive.file
    named, way = str(file), "delete it and run this again"
    if not file.is_file():
        if not archive.url:
            raise InputError(
                f"{root / archive.gives}: not there; {archive.where}, put {archive.file} into {root} and run this again"
            )
        file = _download(archive, root, aside, say)
        named, way = archive.url, f"run this again, or{_where_else(archive)} put {archive.file} into {root}"
    say(f"{archive.file}: " + ("verifying" if archive.digest else "no digest is published; its images are counted later"))
    if archive.digest and not has_digest(file, archive.digest):
        raise InputError(f"{named}: is not the published archive ({archive.digest.replace(':', ' ')} is); {way}")
    if Path(archive.gives).name == archive.file:  # no archive, the file itself
        inside = aside / "out"
        inside.mkdir()
        shutil.copyfile(file, inside / archive.file)
    else:
        say(f"{archive.file}: unpacking")
        try:
            inside = _unpack_archive(archive, file, aside)
        except InputError as e:
            raise InputError(f"{str(e).replace(str(file), named)}; {way}") from e
    _move_into_place(inside, root / archive.into, root / archive.gives)


def _download(archive: Archive, root: Path, aside: Path, say: Say) -> Path:
    """Return the path of the archive, downloaded into the folder `aside`."""
    from torchvision.datasets.utils import download_url

    say(f"{archive.file}: downloading from {urlparse(archive.url).netloc}")
    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)  # torchvision would wait for ever
    try:
        download_url(archive.url, aside, archive.file)
    except (OSError, RuntimeError, ValueError, HTTPException) as e:
        if isinstance(e, OSError) and e.errno in DISK:
            raise
        why = " ".join(str(e).split()) or type(e).__name__
        way = f"{_where_else(archive)} put {archive.file} into {root} and run this again"
        raise InputError(f"{archive.url}: cannot be downloaded ({why});{way}") from e
    finally:
        socket.setdefaulttimeout(usual)
    return aside / archive.file


def _where_else(archive: Archive) -> str:
    return f" {archive.where}," if archive.where else ""


def _unpack_archive(archive: Archive, file: Path, aside: Path) -> Path:
    """Return the folder that holds what the archive gives."""
    inside = aside / "out"
    alone = Path(archive.gives).name if archive.flat else ""  # the folder that its members go into
    if alone:
        inside.mkdir()
    unpack(file, inside / alone)
    for tar in sorted((inside / alone).glob("*.tar")) if archive.inner == "*.tar" else ():
        unpack(tar, tar.with_suffix(""))
        tar.unlink()
    if archive.inner and (inside / archive.inner).is_file():
        unpack(inside / archive.inner, aside / "inner")
        inside = aside / "inner"
    if not (inside / Path(archive.gives).relative_to(archive.into)).exists():
        raise InputError(f"{file}: does not hold {archive.gives}; it is not the published archive")
    return inside


def unpack(file: Path, into: Path) -> None:
    """Unpack a tar or zip archive into a folder that is not there yet: regular files below it and nothing else.

    Raises InputError for a member outside the folder, for links and devices, and for a damaged archive.
    """

    def allow(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
        regular = member.isreg() or member.isdir()
        _check_member(file, into, member.name, "" if regular else "link" if member.issym() or member.islnk() else "device")
        return tarfile.data_filter(member, place)

    into.mkdir()
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    _check_member(file, into, info.filename, "link" if stat.S_ISLNK(info.external_attr >> 16) else "")
                    archive.extract(info, into)
        else:
            with tarfile.open(file) as tar:
                tar.extractall(into, filter=allow)
    except DAMAGED as e:
        why = str(e).splitlines()[0].rstrip(":") if str(e) else type(e).__name__
        raise InputError(f"{file}: is damaged ({why})") from e
    except IsADirectoryError as e:
        raise InputError(f"{file}: has two members named {Path(e.filename).name!r}; it is not the published archive") from e


def _check_member(file: Path, into: Path, name: str, kind: str) -> None:
    """Raise InputError for a member that may not be unpacked. kind: what it is if neither a file nor a folder."""
    path = PurePosixPath(name)
    if kind:
        raise InputError(f"{file}: member {name!r} is a {kind}; only files and folders are unpacked")
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"{file}: member {name!r} leads out of the folder; nothing was unpacked")
    if twice := next((p for p in (path, *path.parents) if (into / p).is_file()), None):
        raise InputError(f"{file}: has two members named {twice.name!r}; it is not the published archive")


def _move_into_place(source: Path, target: Path, last: Path) -> None:
    """Move what was unpacked to where it belongs, whole folders at once where nothing is there yet.

    last: the path by which all of it counts as being there is moved at the end, so that a killed process has to begin again.
    """
    target.mkdir(parents=True, exist_ok=True)
    for item in sorted(source.iterdir(), key=lambda p: (last.is_relative_to(target / p.name), p.name)):
        there = target / item.name
        if item.is_dir() and there.is_dir():
            _move_into_place(item, there, last)
        else:
            os.replace(item, there)


def abandoned_downloads(root: Path) -> list[Path]:
    """Return the folders of processes that were killed while they downloaded or unpacked: nothing was written there for a day."""
    abandoned = []
    for folder in sorted(root.glob(".fetch-*")):
        with contextlib.suppress(FileNotFoundError):
            newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest > 86_400 and folder.is_dir() and not folder.is_symlink():
                abandoned.append(folder)
    return abandoned
