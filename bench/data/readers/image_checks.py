"""Check which images of a data set can be used, without decoding them."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import ImageError, header_size
from bench.data.paths import is_file
from bench.data.problems import Problem, printable, problem
from bench.data.readers.raw import LEFT_OUT, NOT_STATED, RawAnnotations


def check_images(raw: RawAnnotations, problems: list[Problem]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N,) usable images and (N, 2) their sizes; adds the problems of the others to `problems`."""
    good = np.asarray((raw.sizes != LEFT_OUT).all(axis=1), dtype=np.bool_)
    rows_of_file: dict[str, list[int]] = {}
    for row in np.flatnonzero(good).tolist():
        rows_of_file.setdefault(raw.files[row], []).append(row)
    for file, rows in rows_of_file.items():
        if len(rows) > 1:
            # Drop all of them: each has only some of the boxes, and the missing ones would train as background.
            good[rows] = False
            places = " and ".join(raw.image_where(row) for row in rows)
            problems.append(problem("duplicate-image", file, f"described {len(rows)} times: {places}"))
    for row in np.flatnonzero(good).tolist():
        if not _is_text(raw.files[row]):
            good[row] = False
            problems.append(problem("unreadable-name", raw.files[row], "it is not valid in the file system's encoding"))
    for row in _missing_files(raw, good):
        good[row] = False
        problems.append(problem("missing-image", raw.image_where(row), f"there is no file {raw.root / raw.files[row]}"))

    sizes = raw.sizes.copy()
    unsized = np.flatnonzero(good & (sizes <= NOT_STATED).any(axis=1))
    sizes[unsized] = header_sizes(raw.root, [raw.files[row] for row in unsized.tolist()], problems)
    good &= (sizes != LEFT_OUT).all(axis=1)
    problems += [
        problem(
            "size-from-header",
            raw.image_where(row),
            f"no size; the image is {sizes[row, 0]}x{sizes[row, 1]}",
        )
        for row in unsized.tolist()
        if good[row]
    ]
    return good, sizes


def header_sizes(root: Path, files: list[str], problems: list[Problem]) -> NDArray[np.int64]:
    """(N, 2) width and height from the image headers, after EXIF orientation, without decoding.

    LEFT_OUT for unreadable images, which are added to `problems`.
    """
    sizes = np.full((len(files), 2), LEFT_OUT, dtype=np.int64)
    for row, file in enumerate(files):
        try:
            sizes[row] = header_size(root / file)
        except ImageError as error:
            problems.append(problem_of_image(error, file))
    return sizes


def problem_of_image(error: ImageError, file: str) -> Problem:
    """The fatal problem of an image file that cannot be decoded."""
    return Problem(
        severity="fatal", kind=error.kind, where=printable(file), what=printable(error.what), remedy=error.remedy
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _missing_files(raw: RawAnnotations, good: NDArray[np.bool_]) -> list[int]:
    # List each folder once instead of checking each file: COCO has 118k files, perhaps on a network disk.
    listings: dict[str, set[str]] = {}
    missing = []
    for row in np.flatnonzero(good).tolist():
        folder, name = posixpath.split(raw.files[row])
        if folder not in listings:
            path = raw.root / folder
            try:
                listings[folder] = {entry.name for entry in os.scandir(path)}
            except (OSError, ValueError):  # missing folder, or an invalid name
                listings[folder] = set()
        # File systems that ignore case or Unicode normalisation open files listed under another spelling.
        if name not in listings[folder] and not is_file(raw.root / raw.files[row]):
            missing.append(row)
    return missing
