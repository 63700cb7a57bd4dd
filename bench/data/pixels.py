"""Decoded pixels, made once for all cells: a memory-mapped file, or decoding on demand.

Stored images are reduced so that their longer side is at most `LONGEST_SIDE`: the smallest crop of
the augmentation (0.3) of such a side still has the 300 pixels that the network sees. Whether an image
comes from the file or is decoded on demand, its pixels are the same.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import decode
from bench.data.index import ImageIndex
from bench.errors import writing
from bench.storage.atomic import replacing

LONGEST_SIDE = 1000
BUDGET_BYTES = 4 << 30
SECONDS_TO_LOCK = 60.0  # between making a temporary file and locking it; generous

Image = NDArray[np.uint8]


class PixelSource(Protocol):
    """Gives the pixels (H, W, 3) RGB of the image at a row of the index."""

    def __getitem__(self, row: int) -> Image: ...


class DecodedOnDemand:
    """Decodes the file at every request."""

    def __init__(self, index: ImageIndex) -> None:
        self.index = index

    def __getitem__(self, row: int) -> Image:
        width, height = self.index.sizes[row].tolist()
        path = self.index.root / self.index.files[row]
        return decode(path, expected_size=(width, height), max_side=LONGEST_SIDE)


class DecodedFile:
    """The memory-mapped file that `PixelWriter` wrote; processes share its pages."""

    def __init__(self, path: Path, index: ImageIndex) -> None:
        table = np.load(path.with_suffix(".npz"))
        place = {name: row for row, name in enumerate(table["files"].tolist())}
        rows = [place[name] for name in index.files]
        self.starts, self.shapes = table["starts"][rows], table["shapes"][rows]
        self.bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def __getitem__(self, row: int) -> Image:
        height, width = self.shapes[row].tolist()
        start = int(self.starts[row])
        return self.bytes[start : start + height * width * 3].reshape(height, width, 3)


def open_pixels(path: Path | None, index: ImageIndex) -> PixelSource:
    """The pixels of `index` from the file at `path`, or decoded on demand where there is none."""
    return DecodedOnDemand(index) if path is None else DecodedFile(path, index)


def pixels_file(index: ImageIndex, cache: Path) -> Path:
    """Where the decoded pixels of `index` belong: named by its files, their sizes and their times.

    Also by the sizes that the annotations state: whether a picture agrees with them was decided on decoding.
    """
    digest = hashlib.sha256(f"{index.root.resolve()}/{LONGEST_SIDE}".encode())
    digest.update(index.sizes.astype(np.int64).tobytes())
    for name in index.files:
        try:
            state = (index.root / name).stat()
        except OSError:
            continue  # the preflight says so
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return cache / f"pixels-{digest.hexdigest()[:16]}.bin"


def stored_sizes(index: ImageIndex) -> NDArray[np.int64]:
    """(N, 2) upper bound of stored height and width."""
    scale = np.minimum(1.0, LONGEST_SIDE / index.sizes.max(axis=1, keepdims=True))
    return np.ceil(index.sizes[:, ::-1] * scale).astype(np.int64)


def fits_budget(index: ImageIndex, folder: Path, budget: int = BUDGET_BYTES) -> bool:
    """Whether all pixels fit the budget and half of the free disk."""
    needed = int((stored_sizes(index).prod(axis=1) * 3).sum())
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    state = os.statvfs(existing)
    return needed <= min(budget, state.f_bavail * state.f_frsize // 2)


class PixelWriter:
    """Collects decoded images, in any order and from several threads, into a `DecodedFile`."""

    def __init__(self, path: Path, index: ImageIndex) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.temporary = path, path.with_suffix(f".{os.getpid()}.tmp")
        self.files = np.array(index.files)
        bound = stored_sizes(index).prod(axis=1) * 3
        self.starts = np.cumsum(bound) - bound
        self.shapes = np.zeros((len(index), 2), dtype=np.int64)
        size = max(1, int(bound.sum()))
        with writing(self.temporary):
            _remove_abandoned(path.parent)
            self.lock: int | None = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            with suppress(OSError):  # without locks only the cleaning is less careful
                fcntl.flock(self.lock, fcntl.LOCK_EX)
            _reserve(self.lock, size)
        # Each image has a place of its own, so threads do not meet.
        self.bytes = np.memmap(self.temporary, dtype=np.uint8, mode="r+", shape=(size,))

    def put(self, row: int, image: Image) -> None:
        self.shapes[row] = image.shape[:2]
        self.bytes[self.starts[row] : self.starts[row] + image.size] = image.reshape(-1)

    def discard(self) -> None:
        """Leave nothing behind of what was not finished."""
        self.temporary.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def close(self) -> Path:
        """Make the file visible under its name, whole; the table first, since the file vouches for it."""
        self.bytes.flush()
        del self.bytes
        table = self.path.with_suffix(".npz")
        with replacing(table) as file:
            np.savez(file, files=self.files, starts=self.starts, shapes=self.shapes)
        self.temporary.replace(self.path)
        self._unlock()
        return self.path


def _reserve(descriptor: int, size: int) -> None:
    """Room on the disk for `size` bytes: writing through a memory map to a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                os.close(descriptor)
                raise
    os.ftruncate(descriptor, size)


def _remove_abandoned(folder: Path) -> None:
    """Delete the gigabytes that killed writers have left: those whose lock has ended with their process."""
    for path in folder.glob("pixels-*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < SECONDS_TO_LOCK:
                continue
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
