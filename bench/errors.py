"""Errors that are not bugs: mistakes in a request, and disks that cannot be written to.

The command line prints the text of a `UserError` without a traceback and exits with status 2. Any other exception is a
bug in this program and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE_ROOM = "Free some space and repeat the command: it resumes"
ELSEWHERE = "Change its permissions, or write elsewhere (--out and --cache)"
STORAGE = {
    errno.ENOSPC: ("its disk is full", MAKE_ROOM),
    errno.EDQUOT: ("its owner's disk quota is used up", MAKE_ROOM),
    errno.EROFS: ("its file system is read-only", ELSEWHERE),
    errno.EACCES: ("its permissions forbid it", ELSEWHERE),
    errno.EPERM: ("its permissions forbid it", ELSEWHERE),
    errno.EIO: ("its disk reports an error", "Check the disk, or write elsewhere (--out and --cache)"),
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # a disk, also behind the standard output
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)  # there is a file in place of a folder


def visible(text: str) -> str:
    """The text with all that a terminal would act on written out, such as ``\\x1b`` and ``\\u202e``; lines stay.

    Names of files and classes come from strangers: an escape sequence could rewrite the screen or the clipboard, and a
    bidirectional mark could make exe.jpg out of gpj.exe.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


class UserError(Exception):
    """A mistake in the request: its text says what was found, where, and what to do."""


class StorageError(UserError):
    """A file cannot be written: full disk, quota, permissions."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError in `STORAGE` into a StorageError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise unwritable(path, error) from error


def unwritable(path: Path | str, error: OSError) -> StorageError:
    """The error for a `path` that cannot be written. error: one of `STORAGE`."""
    reason, remedy = STORAGE[error.errno or 0]
    return StorageError(f"{path} cannot be written: {reason}. {remedy}")


def explained(error: UserError | OSError | MemoryError) -> str:
    """What an error that ended a command says to the user. Raises the error again if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        details = f" ({error})" if str(error) else ""
        return f"there is not enough memory{details}. Close other programs, or ask for less, such as a smaller --batch"
    if error.filename is None and error.errno not in FULL:
        raise error
    path = error.filename or "the standard output"  # a file of ours would be named; see `writing`
    if error.errno in NO_FOLDER:
        return str(no_folder(path, error))
    reason, remedy = STORAGE.get(error.errno or 0, (error.strerror or str(error), "Check the path, or give another"))
    return f"{path} cannot be used: {reason}. {remedy}"


def not_writable(folder: Path, error: OSError) -> UserError:
    """The error for a folder that cannot be created or written to."""
    return unwritable(folder, error) if error.errno in STORAGE else no_folder(folder, error)


def no_folder(path: Path | str, error: OSError) -> UserError:
    """The error for a `path` that is not a folder and cannot become one."""
    return UserError(f"{path} cannot be a folder ({error.strerror}). Write elsewhere (--out and --cache)")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a message, " (did you mean ...?)", with the most similar known word; empty without a similar one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
