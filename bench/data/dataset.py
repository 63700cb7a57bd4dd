"""From ``--data`` to what a run needs: a checked index, its split, and decoded pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from bench.data import split as splits
from bench.data.image_files import changed_image_files
from bench.data.index import ImageIndex
from bench.data.near_duplicates import SIDE, near_duplicates, thumbnail
from bench.data.pixels import LONGEST_SIDE, PixelWriter, fits_budget, open_pixels, pixels_file
from bench.data.preflight import Report, enforce, preflight, warn_of_leaks, whole_set_problems
from bench.data.problems import Problem
from bench.data.readers.reading import Reading
from bench.data.sources import read_source
from bench.errors import UserError
from bench.storage.atomic import replacing, write_json

IMAGE_FILES = "images.json"  # of a run, beside its split.json


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set that a run can start on.

    pixels: the file of decoded images, None where they do not fit the budget.
    report: what the preflight found.
    """

    index: ImageIndex
    split: splits.Split
    pixels: Path | None
    report: Report

    @property
    def train(self) -> ImageIndex:
        return self.index.take(self.split.train)

    @property
    def val(self) -> ImageIndex:
        return self.index.take(self.split.val)


def open_dataset(
    source: str,
    *,
    cache: Path,
    workers: int,
    skip_invalid: bool = False,
    val_fraction: float = 0.2,
    eval_list: str | None = None,
    frozen: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read, check and split the data of `source`; decode them once for all cells.

    frozen: a split.json of an earlier start of the same run; it is kept to.
    Raises UserError for fatal problems, all of them in one message, and where the data are not those
    that `frozen` was made from.
    """
    reading = read_source(source, cache=cache)
    report, pixels = check(reading, cache=cache, workers=workers, progress=progress)
    enforce(report.reading, skip_invalid=skip_invalid)
    if frozen is not None and frozen.is_file():
        split = splits.load(frozen, report.reading.index)
        _check_image_files(report.reading.index, frozen.with_name(IMAGE_FILES))
    else:
        split = splits.make_split(report.reading, val_fraction=val_fraction, eval_list=eval_list, groups=report.groups)
    report = warn_of_leaks(report, split.train, split.val)
    return Dataset(index=report.reading.index, split=split, pixels=pixels, report=report)


def _check_image_files(index: ImageIndex, path: Path) -> None:
    """Raise UserError where pictures were replaced by others of the same size."""
    changed = changed_image_files(index, path)
    if changed:
        raise UserError(
            f"{len(changed)} of {len(index)} images in {index.root} hold something else than when {path.parent} was "
            f"begun ({splits.some(changed)}). Restore them, or start a new run with another --out."
        )


def check(
    reading: Reading, *, cache: Path, workers: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Report, Path | None]:
    """The preflight, which fills the file of decoded pixels on its way; that file, if there is one.

    Images that were decoded before and have not been touched since are not decoded again. Beside the
    pixels are kept what decoding found and the thumbnails that near-duplicates are found by.
    """
    path = pixels_file(reading.index, cache)
    verdict, thumbnails_file = path.with_suffix(".json"), path.with_suffix(".thumbnails.npy")
    stored = fits_budget(reading.index, cache)
    if verdict.is_file() and (path.is_file() or not stored):
        report, pixels = _remembered(reading, verdict), path if path.is_file() else None
        if thumbnails_file.is_file():
            thumbnails = np.load(thumbnails_file)
        else:
            thumbnails = _thumbnails(reading, report.reading.index, pixels, workers=workers)
            _keep_thumbnails(thumbnails, thumbnails_file)
        return _with_alike(report, reading, thumbnails), pixels
    thumbnails = np.zeros((len(reading.index), SIDE, SIDE), dtype=np.uint8)
    writer = PixelWriter(path, reading.index) if stored and len(reading.index) else None

    def keep(row: int, image: NDArray[np.uint8]) -> None:
        thumbnails[row] = thumbnail(image)
        if writer is not None:
            writer.put(row, image)

    try:
        report = preflight(
            reading,
            workers=workers,
            progress=progress,
            max_side=LONGEST_SIDE,
            on_image=keep,
        )
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            writer.discard()  # gigabytes, if it was interrupted
    _keep_thumbnails(thumbnails, thumbnails_file)
    _remember(reading, report, verdict)
    return _with_alike(report, reading, thumbnails), path if writer is not None else None


def _with_alike(report: Report, reading: Reading, thumbnails: NDArray[np.uint8]) -> Report:
    """The report with the near-duplicates among its usable images; thumbnails: of all that were read."""
    usable = np.isin(np.array(reading.index.files), np.array(report.reading.index.files))
    return replace(report, alike=near_duplicates(thumbnails[usable]))


def _thumbnails(reading: Reading, usable: ImageIndex, pixels: Path | None, *, workers: int) -> NDArray[np.uint8]:
    """(N, 16, 16) thumbnails of images that were decoded by a version that kept none; 0 for unusable ones."""
    source, row_of = open_pixels(pixels, usable), {name: row for row, name in enumerate(reading.index.files)}
    made = Parallel(n_jobs=workers, backend="threading")(
        delayed(lambda row: thumbnail(source[row]))(row) for row in range(len(usable))
    )
    thumbnails = np.zeros((len(reading.index), SIDE, SIDE), dtype=np.uint8)
    for name, each in zip(usable.files, made, strict=True):
        thumbnails[row_of[name]] = each
    return thumbnails


def _keep_thumbnails(thumbnails: NDArray[np.uint8], path: Path) -> None:
    with replacing(path) as file:
        np.save(file, thumbnails)


def _remember(reading: Reading, report: Report, verdict: Path) -> None:
    """Keep what decoding found: which images can be used, and the problems of the others."""
    kept = set(report.reading.index.files)
    before, whole = len(reading.problems), len(whole_set_problems(report.reading))
    found = report.reading.problems[before : len(report.reading.problems) - whole]
    content = {
        "unusable": [name for name in reading.index.files if name not in kept],
        "problems": [asdict(problem) for problem in found],
    }
    write_json(verdict, content)


def _remembered(reading: Reading, verdict: Path) -> Report:
    content = json.loads(verdict.read_text(encoding="utf-8"))
    unusable = set(content["unusable"])
    usable: NDArray[np.bool_] = np.array([name not in unusable for name in reading.index.files], dtype=np.bool_)
    cleaned = reading.keep(usable)
    problems = [*reading.problems, *(Problem(**each) for each in content["problems"])]
    cleaned = replace(cleaned, problems=problems + whole_set_problems(cleaned))
    return Report(reading=cleaned, images_checked=len(reading.index))
