"""One run at a time in a result folder; one process at a time in a cell's.

The kernel's lock decides (`flock`), so a killed owner keeps nobody out: its lock ends with it. The text in the
file only says whose it is. Where a file system has no locks, the owner's process id has to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from bench.errors import STORAGE, UserError, no_folder, unwritable

LOCK = "in-use.json"
HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})  # flock: another process has it
SECONDS_TO_SIGN = 1.0  # between taking the lock and writing whose it is


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a folder. since: local time, ISO 8601 to the second."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def owning(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a run's folder, made where it is missing; left as it was found where nothing is written into it.

    say: is told when the folder is taken over from a process that ended without giving it back, and where
        the file system has no locks.
    Raises UserError where another process holds the folder, naming it, and where it cannot be written to.
    """
    made = _make(run)
    path = run / LOCK
    try:
        descriptor = _take(path, say)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock ends, so that no other's file is deleted
            os.close(descriptor)
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def wait_for_folder(folder: Path) -> None:
    """Hold a cell's folder until this process ends, once an orphan of a killed run has left it.

    Without effect where the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # never closed: the lock is to end with the process
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _make(run: Path) -> list[Path]:
    """The folders that had to be made, deepest first."""
    missing = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(run, error) from error
    return missing


def _take(path: Path, say: Callable[[str], None]) -> int:
    """The descriptor of the locked file, signed with our name."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its last owner has just taken the empty folder away
            _make(path.parent)
            continue
        except OSError as error:
            raise _not_writable(path.parent, error) from error
        try:
            locked = _lock(descriptor)
            before = _signed(path)
            if locked is None and before is not None and _may_live(before):
                locked = False
            if locked is False:
                raise UserError(_in_use(path, before or _wait_for_signature(path)))
            if not _is(path, descriptor):
                os.close(descriptor)  # its owner gave it back, and deleted it, between our opening and locking
                continue
            if locked is None:
                say(f"{path.parent} is on a file system without locks: start only one run in it at a time")
            if before is not None:
                say(f"{path.parent} is taken over from {before}, which has ended without giving it back")
            _sign(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _lock(descriptor: int) -> bool | None:
    """Whether the lock was taken; None where there are none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, path: Path) -> None:
    owner = Owner(
        pid=os.getpid(), host=socket.gethostname(), since=datetime.now().astimezone().isoformat(timespec="seconds")
    )
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _signed(path: Path) -> Owner | None:
    """Whose name is in the file; None for nobody's that can be read."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _wait_for_signature(path: Path) -> Owner | None:
    deadline = time.monotonic() + SECONDS_TO_SIGN
    while time.monotonic() < deadline:
        owner = _signed(path)
        if owner is not None:
            return owner
        time.sleep(0.05)
    return None


def _may_live(owner: Owner) -> bool:
    """Whether the owner may still be there; of other machines that cannot be known."""
    if owner.host != socket.gethostname():
        return True
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return owner.pid != os.getpid()


def _in_use(path: Path, owner: Owner | None) -> str:
    whose = "another run" if owner is None else f"another run ({owner})"
    elsewhere = owner is not None and owner.host != socket.gethostname()
    remedy = f", or delete {path} if that process is gone" if elsewhere else ""
    return (
        f"{path.parent} is in use by {whose}. Wait until it has ended and give the same command again{remedy}, "
        "or give this run a folder of its own: --out results/NAME"
    )


def _not_writable(folder: Path, error: OSError) -> UserError:
    if error.errno in STORAGE:
        return unwritable(folder, error)
    return no_folder(folder, error)
