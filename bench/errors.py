"""The one error that a user's own mistake may raise, and the one that a disk may.

Everything that is wrong with a request (options, data, weights, a device that is not there) is a
`UserError`: the command line prints its text without a traceback and ends with exit status 2. So does a
disk that is full or may not be written to. Any other exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE_ROOM = "Make room and give the same command again: it goes on from what is there"
ELSEWHERE = "Change its permissions, or write elsewhere (--out and --cache)"
STORAGE = {
    errno.ENOSPC: ("its disk is full", MAKE_ROOM),
    errno.EDQUOT: ("its owner's disk quota is used up", MAKE_ROOM),
    errno.EROFS: ("its file system is read-only", ELSEWHERE),
    errno.EACCES: ("its permissions forbid it", ELSEWHERE),
    errno.EPERM: ("its permissions forbid it", ELSEWHERE),
    errno.EIO: ("its disk reports an error", "Check the disk, or write elsewhere (--out and --cache)"),
}
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)  # a file is where a folder should be


class UserError(Exception):
    """A mistake in the request: what was found, where, and what to do about it."""


class StorageError(UserError):
    """A file cannot be written: full disk, quota, permissions."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the kinds in `STORAGE` into a StorageError that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise unwritable(path, error) from error


def unwritable(path: Path | str, error: OSError) -> StorageError:
    """The sentence about a `path` that an error of the kinds in `STORAGE` has kept from being written."""
    reason, remedy = STORAGE[error.errno or 0]
    return StorageError(f"{path} cannot be written: {reason}. {remedy}")


def unusable(path: Path | str, error: OSError) -> UserError:
    """The same where it is not known whether it was to be read or written, or that it can be no folder."""
    if error.errno in NO_FOLDER:
        return no_folder(path, error)
    reason, remedy = STORAGE[error.errno or 0]
    return UserError(f"{path} cannot be used: {reason}. {remedy}")


def no_folder(path: Path | str, error: OSError) -> UserError:
    """The sentence about a `path` that is none and cannot become one."""
    return UserError(f"{path} cannot be a folder ({error.strerror}). Write elsewhere (--out and --cache)")


def nearest(word: str, known: Iterable[str]) -> str:
    """For a message: a hint at the known word that is most like this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
