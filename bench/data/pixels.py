"""Decoded pixels for all cells: a memory-mapped file written once, or decoding on demand.

Images are reduced to a longer side of at most `LONGEST_SIDE`: the smallest crop of the augmentation (0.3 of a side)
then still has the network's 300 pixels. Both sources give the same pixels: the file has a checksum of each image, which
is verified when the file is opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import decode
from bench.data.index import ImageIndex
from bench.device.hardware import available_cores
from bench.errors import UserError, writing
from bench.storage.atomic import TEMPORARY, open_locked, remove_abandoned, replacing
from bench.storage.reading import ArrayForm, Unreadable, load_arrays

LONGEST_SIDE = 1000
BUDGET_BYTES = 4 << 30
UNFINISHED = re.compile(r"pixels-[0-9a-f]{16}\.\d+\.tmp")  # names of files that are not yet complete
TABLE_FORM: ArrayForm = {  # where the pixels of each image are
    "files": ("U", ("N",)),
    "starts": ("i", ("N",)),
    "shapes": ("i", ("N", "2")),
    "checksums": ("u", ("N",)),
}

Image = NDArray[np.uint8]


class PixelSource(Protocol):
    """Gives the (H, W, 3) uint8 RGB pixels of the image at a row of an index."""

    def __getitem__(self, row: int) -> Image: ...


class DecodedOnDemand:
    """Decodes the image file at every access."""

    def __init__(self, index: ImageIndex) -> None:
        self.index = index

    def __getitem__(self, row: int) -> Image:
        width, height = self.index.sizes[row].tolist()
        path = self.index.root / self.index.files[row]
        return decode(path, expected_size=(width, height), max_side=LONGEST_SIDE)


class DamagedPixels(UserError):
    """A file of decoded pixels that is missing, cut or altered."""


class DecodedFile:
    """The memory-mapped file written by `PixelWriter`; processes share its pages.

    Raises DamagedPixels unless the file has all images of `index` and their pixels match their checksums.
    """

    def __init__(self, path: Path, index: ImageIndex) -> None:
        damaged = DamagedPixels(f"{path} is missing or damaged. Repeat the command: the images are decoded again")
        try:
            table = load_arrays(path.with_suffix(".npz"), TABLE_FORM)
            row_of = {name: row for row, name in enumerate(table["files"].tolist())}
            rows = [row_of[name] for name in index.files]
            self.starts, self.shapes, checksums = (table[name][rows] for name in ("starts", "shapes", "checksums"))
            self.bytes = np.memmap(path, dtype=np.uint8, mode="r")
        except (Unreadable, OSError, ValueError, KeyError) as error:
            raise damaged from error
        with ThreadPoolExecutor(available_cores()) as pool:
            found = list(pool.map(lambda row: _checksum(self._flat(row)), range(len(index))))
        if found != checksums.tolist():
            raise damaged

    def __getitem__(self, row: int) -> Image:
        height, width = self.shapes[row].tolist()
        return self._flat(row).reshape(height, width, 3)

    def _flat(self, row: int) -> NDArray[np.uint8]:
        start, size = int(self.starts[row]), 3 * int(self.shapes[row].prod())
        return self.bytes[start : start + size]


def open_pixels(path: Path | None, index: ImageIndex) -> PixelSource:
    """The pixels of `index` from the file at `path`; decoded on demand if it is None or the file is damaged."""
    if path is not None:
        with suppress(DamagedPixels):
            return DecodedFile(path, index)
    return DecodedOnDemand(index)


def _checksum(flat: NDArray[np.uint8]) -> int:
    """The sum of an image's bytes, as words of 64 bits, and of their number: finds altered, zeroed and missing bytes.

    It takes about 6% of the time of decoding, CRC-32 took 15%.
    """
    whole = flat.size // 8 * 8
    words = int(flat[:whole].view(np.uint64).sum(dtype=np.uint64))
    return (words + int(flat[whole:].sum()) + flat.size) % 2**64


def is_intact(path: Path, index: ImageIndex) -> bool:
    """Whether the file exists and has the pixels of all images of `index` as they were written."""
    try:
        DecodedFile(path, index)
    except DamagedPixels:
        return False
    return True


def pixels_file(index: ImageIndex, cache: Path) -> Path:
    """The path for the decoded pixels of `index`, named by a hash of its files with their sizes and times.

    The hash includes the annotated image sizes, because decoding checks them. Only the change time (ctime) also differs
    for a file that was replaced by another of the same size and then dated back.
    """
    digest = hashlib.sha256(f"{index.root.resolve()}/{LONGEST_SIDE}".encode())
    digest.update(index.sizes.astype(np.int64).tobytes())
    for name in index.files:
        try:
            state = (index.root / name).stat()
        except OSError:
            continue  # the preflight reports it
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n".encode())
    return cache / f"pixels-{digest.hexdigest()[:16]}.bin"


def stored_sizes(index: ImageIndex) -> NDArray[np.int64]:
    """(N, 2) upper bounds of the stored height and width."""
    scale = np.minimum(1.0, LONGEST_SIDE / index.sizes.max(axis=1, keepdims=True))
    return np.ceil(index.sizes[:, ::-1] * scale).astype(np.int64)


def fits_budget(index: ImageIndex, folder: Path, budget: int = BUDGET_BYTES) -> bool:
    """Whether all pixels fit in the budget and in half of the free disk space."""
    needed = int((stored_sizes(index).prod(axis=1) * 3).sum())
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    state = os.statvfs(existing)
    return needed <= min(budget, state.f_bavail * state.f_frsize // 2)


class PixelWriter:
    """Writes a `DecodedFile` from decoded images, in any order and from several threads."""

    def __init__(self, path: Path, index: ImageIndex) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.temporary = path, path.with_suffix(f".{os.getpid()}.tmp")
        self.files = np.array(index.files)
        bound = stored_sizes(index).prod(axis=1) * 3
        self.starts = np.cumsum(bound) - bound
        self.shapes = np.zeros((len(index), 2), dtype=np.int64)
        self.checksums = np.zeros(len(index), dtype=np.uint64)  # 0 for an image that was not written
        size = max(1, int(bound.sum()))
        with writing(self.temporary):
            self.lock: int | None = open_locked(self.temporary)
            _reserve(self.lock, size)
        # Each image has its own range of bytes, so threads need no lock.
        self.bytes = np.memmap(self.temporary, dtype=np.uint8, mode="r+", shape=(size,))

    def put(self, row: int, image: Image) -> None:
        self.shapes[row] = image.shape[:2]
        self.checksums[row] = _checksum(np.ascontiguousarray(image).reshape(-1))
        self.bytes[self.starts[row] : self.starts[row] + image.size] = image.reshape(-1)

    def discard(self) -> None:
        """Delete the unfinished file."""
        self.temporary.unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def close(self) -> Path:
        """Move the complete file to its final path. The table comes first: the file's existence implies it."""
        self.bytes.flush()
        del self.bytes
        table = self.path.with_suffix(".npz")
        with replacing(table) as file:
            np.savez(file, files=self.files, starts=self.starts, shapes=self.shapes, checksums=self.checksums)
        self.temporary.replace(self.path)
        self._unlock()
        return self.path


def _reserve(descriptor: int, size: int) -> None:
    """Reserve `size` bytes on disk: writing to a full disk through a memory map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                os.close(descriptor)
                raise
    os.ftruncate(descriptor, size)


def clean_cache(cache: Path) -> None:
    """Delete the unfinished files of killed processes, which have up to gigabytes."""
    for names in (UNFINISHED, TEMPORARY):
        remove_abandoned(cache, names)
