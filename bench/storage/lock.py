"""One run at a time per run folder, one process at a time per cell folder.

The kernel's lock (`flock`) decides; it ends with its process, so a killed process locks nobody out. The lock file names
the owner for error messages. On file systems without locks, the process id in the file decides instead.
"""

from __future__ import annotations

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

from bench.errors import UserError, not_writable
from bench.storage.atomic import HELD_ELSEWHERE
from bench.storage.forms import OwnerForm, mismatch
from bench.storage.own_files import (
    check_output,
    create,
    mark,
    refuse_foreign,
    remove_abandoned_in,
    remove_empty,
    unmark_empty,
)
from bench.storage.records import read_json
from bench.storage.run_folder import LOCK

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # where the platform lacks it, `refuse_foreign` and `_same_file` decide
MAX_PID = 2**31
SIGNING_SECONDS = 1.0  # longest time between taking the lock and writing the owner


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that holds a folder. since: local time, ISO 8601, to the second."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def lock_run_folder(run: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a run's folder. Creates and marks the folder as `output_folder` does.

    warn: called with a sentence if the previous owner died without releasing the lock, or if the file system
        has no locks.
    Raises UserError if the folder is not ours (`check_output`), if another process holds it, or if it is not writable.
    """
    check_output(run)
    created = create(run)
    path = run / LOCK
    try:
        descriptor = _acquire(path, warn)
        try:
            mark(run)
            remove_abandoned_in(run)
            yield
        finally:
            unmark_empty(run)
            path.unlink(missing_ok=True)  # while we hold the lock: afterwards it could be the next owner's file
            os.close(descriptor)
    finally:
        remove_empty(created)


def lock_cell_folder(folder: Path) -> None:
    """Lock a cell's folder until this process ends. Waits for an orphaned process of a killed run.

    Does nothing on a file system without locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # never closed: the lock ends with the process
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _acquire(path: Path, warn: Callable[[str], None]) -> int:
    """The descriptor of the lock file, locked and signed by this process."""
    while True:
        try:
            refuse_foreign(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o644)
        except FileNotFoundError:  # the previous owner has just removed the empty folder
            create(path.parent)
            continue
        except OSError as error:
            raise not_writable(path.parent, error) from error
        try:
            locked = _try_lock(descriptor)
            previous = _read_owner(path)
            if locked is None and previous is not None and _may_be_alive(previous):
                locked = False
            if locked is False:
                raise UserError(_in_use(path, previous or _wait_for_owner(path)))
            if not _same_file(path, descriptor):
                os.close(descriptor)  # the owner released and deleted it between our opening and locking it
                continue
            if locked is None:
                warn(f"{path.parent} is on a file system without locks: do not start two runs in it at once")
            if previous is not None:
                warn(
                    f"taking over {path.parent}: process {previous.pid} on {previous.host}, which held it since "
                    f"{previous.since}, ended without releasing it"
                )
            _write_owner(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _try_lock(descriptor: int) -> bool | None:
    """Whether we got the lock; None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD_ELSEWHERE else None
    return True


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))  # a link is never the file that it names
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int, path: Path) -> None:
    owner = Owner(
        pid=os.getpid(), host=socket.gethostname(), since=datetime.now().astimezone().isoformat(timespec="seconds")
    )
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
    except OSError as error:
        raise not_writable(path.parent, error) from error


def _read_owner(path: Path) -> Owner | None:
    content = read_json(path)
    if mismatch(content, OwnerForm) is not None or not 0 < content["pid"] < MAX_PID:
        return None
    return Owner(**{name: content[name] for name in OwnerForm.__required_keys__})


def _wait_for_owner(path: Path) -> Owner | None:
    """The owner, once it has written its name; None if it does not within `SIGNING_SECONDS`."""
    deadline = time.monotonic() + SIGNING_SECONDS
    while time.monotonic() < deadline:
        owner = _read_owner(path)
        if owner is not None:
            return owner
        time.sleep(0.05)
    return None


def _may_be_alive(owner: Owner) -> bool:
    """Whether the owner may still run. A process on another machine counts as alive."""
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
    name = "another run" if owner is None else f"another run ({owner})"
    elsewhere = owner is not None and owner.host != socket.gethostname()
    remedy = f", or delete {path} if that process no longer exists" if elsewhere else ""
    return (
        f"{path.parent} is in use by {name}. Wait until it ends and repeat the command{remedy}, "
        "or choose another folder: --out results/NAME"
    )
