"""Unpack a .zip of a data set into the cache, once, and nothing outside it.

An archive comes from strangers. It is refused as a whole if an entry would land outside the folder, is a link or a
device, or if its content is larger than what a data set can be. `zipfile` never writes more of an entry than the size
that was checked, and compares its checksum.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from bench.errors import STORAGE, UserError, writing

SUFFIX = ".zip"
UNPACKED = "unpacked"  # the folder of the cache
MAX_ENTRIES = 2_000_000
MAX_BYTES = 1 << 40
MAX_RATIO = 200  # of content to archive; annotations are compressed to a tenth, images hardly at all
SMALL = 64 << 20  # bytes of content that are harmless at any ratio
MAX_NAME = 100  # characters of the archive's name in that of the folder
JUNK = re.compile(r"(^|/)(__MACOSX|\.DS_Store|Thumbs\.db)(/|$)")
CHUNK = 1 << 20


def is_archive(path: Path) -> bool:
    """Whether the path is a file with the suffix of an archive."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def check_archive(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of the archive; unpack nothing.

    Raises UserError if the file is no archive, or holds what must not be unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a .zip file ({error}). Download or pack it again.") from error
    _check(path, entries)
    return entries


def unpacked(path: Path, cache: Path) -> Path:
    """The folder in `cache` with the content of the archive, unpacked now or before.

    Raises UserError as `check_archive` does, or if the archive is damaged or the disk is full.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:MAX_NAME]
    folder = cache / UNPACKED / f"{name}-{_digest(check_archive(path))}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    with writing(folder):
        partial.mkdir(parents=True)
        try:
            _unpack(path, partial)
            if not folder.is_dir():  # another process may have been faster
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or JUNK.search(entry.filename):
                    continue
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Download or pack it again.") from error
    except OSError as error:
        if error.errno in STORAGE:
            raise
        # Two entries of one name, a file in place of a folder, or a name that the file system does not take
        raise UserError(f"{path} cannot be unpacked ({error}). Pack the data set again.") from error


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raise UserError for entries that must not be unpacked."""
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{path} has {len(entries)} entries, more than {MAX_ENTRIES}. Unpack it yourself.")
    for entry in entries:
        reason = _fault(entry)
        if reason:
            raise UserError(f"{path} is not unpacked: its entry {entry.filename!r} {reason}. Pack the data set again.")
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > MAX_BYTES or (size > SMALL and size > MAX_RATIO * packed):
        raise UserError(
            f"{path} is not unpacked: its {packed:,} bytes would become {size:,}, which no data set of images does. "
            "If that is right, unpack it yourself."
        )


def _fault(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry, or nothing."""
    words = re.split(r"[/\\]", entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if ".." in words or words[0] == "" or re.match(r"[A-Za-z]:", entry.filename):
        return "would be written outside the folder"
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if entry.flag_bits & 1:
        return "is encrypted"
    return ""


def _digest(entries: list[zipfile.ZipInfo]) -> str:
    """Changes with the name, size or checksum of an entry."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.filename}\0{entry.file_size}\0{entry.CRC}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
