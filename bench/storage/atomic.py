"""Atomic writes: after a crash at any moment, a file is complete or as it was before."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.errors import writing

# Names of temporary files, which killed writers leave behind; a user has no such file
HELD_ELSEWHERE = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})  # flock: another process has the lock
SECONDS_WITHOUT_LOCKS = 86_400.0  # age of an abandoned file on a file system without locks
TEMPORARY = re.compile(r"\..+\.\d+\.ssd-ablation")


@contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a binary file for writing, which replaces `path` once it is complete on the disk.

    If writing fails, `path` stays as it was. Creates missing parent folders.
    previous: a path in the same folder to move the old file to; by default the old file is overwritten.
    Raises StorageError if the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.ssd-ablation")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(temporary)
        try:
            # Locked until it has its final name: before that, another process must not take it for a killed writer's
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if previous is not None:
                    with suppress(FileNotFoundError):
                        path.replace(previous)
                temporary.replace(path)
                _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, atomically. Halves of letters (surrogates) are written out, such as ``\\udcff``."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON atomically. Raises ValueError for NaN and infinity, which JSON does not have.

    indent: None for the compact form of large files.
    """
    separators = (",", ":") if indent is None else None
    # dumps, not dump: only dumps uses the fast encoder
    write_text(path, json.dumps(content, indent=indent, separators=separators, allow_nan=False))


def open_locked(path: Path) -> int:
    """A descriptor of a new temporary file, replacing one that a killed process left.

    It is locked as long as it is open, so that `remove_abandoned` of another process spares it. Without locks of the
    file system, its age must do.
    """
    while True:
        path.unlink(missing_ok=True)
        # O_EXCL: a link of this name is not followed
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if lock_temporary(path, descriptor):
            return descriptor
        os.close(descriptor)


def lock_temporary(path: Path, descriptor: int) -> bool:
    """Lock a temporary file or folder until `descriptor` is closed; False if another process has just removed it."""
    with suppress(OSError):  # no locks on this file system
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_abandoned(folder: Path, names: re.Pattern[str] = TEMPORARY) -> None:
    """Delete the temporary files and folders in `folder` whose writers were killed, so that nobody holds their locks.

    names: of temporary files; others are a user's.
    """
    for path in folder.glob("*"):  # hidden files too
        if not names.fullmatch(path.name) or path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        with suppress(OSError):  # another process has just removed it
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if not _is_abandoned(path, descriptor):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _is_abandoned(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_ELSEWHERE:
            return False
        return time.time() - path.stat().st_mtime > SECONDS_WITHOUT_LOCKS
    return True


def _sync_folder(folder: Path) -> None:
    """Flush the renaming to the disk. Some file systems cannot, and do not need it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
