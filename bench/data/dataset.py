"""From ``--data`` to what a run needs: a checked index, its split and decoded pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data import split as splits
from bench.data.image_files import changed_image_files
from bench.data.index import ImageIndex
from bench.data.near_duplicates import SIDE, near_duplicates, thumbnail
from bench.data.pixels import LONGEST_SIDE, PixelWriter, clean_cache, fits_budget, is_intact, pixels_file
from bench.data.preflight import Report, enforce, preflight, warn_of_leaks, whole_set_problems
from bench.data.problems import Problem
from bench.data.readers.reading import Reading
from bench.data.sources import read_source
from bench.errors import UserError
from bench.options import VAL_FRACTION
from bench.storage.atomic import replacing
from bench.storage.reading import ArrayForm, Unreadable, load_arrays
from bench.storage.run_folder import IMAGE_FILES

REPORT_FORM: ArrayForm = {"thumbnails": ("u", ("N", "side", "side")), "report": ("U", ())}  # of a cached report


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set that is ready for a run.

    pixels: the file of decoded images, None if they exceed the budget.
    report: the result of the preflight.
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
    val_fraction: float = VAL_FRACTION,
    eval_list: str | None = None,
    frozen: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read, check and split the data of `source`; decode the images once for all cells.

    frozen: split.json of an earlier start of the same run, used if it exists.
    Raises UserError for fatal problems, all in one message, and if the data have changed since `frozen` was written.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationImages:
    """The images of a data set that given detections are scored on.

    index: these images, with their boxes. groups: (N,) group of near-duplicates of each, from 0.
    data: all usable images. origin: how the images were chosen. report: the result of the preflight.
    """

    index: ImageIndex
    groups: NDArray[np.int64]
    data: ImageIndex
    origin: str
    report: Report


def open_evaluation_images(
    source: str,
    *,
    cache: Path,
    workers: int,
    skip_invalid: bool = False,
    val_fraction: float = VAL_FRACTION,
    eval_list: str | None = None,
    all_images: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationImages:
    """Read and check the data of `source`, and choose the images to evaluate on (`bench.data.split.evaluation_side`).

    Raises UserError for fatal problems, all in one message.
    """
    report, _ = check(read_source(source, cache=cache), cache=cache, workers=workers, progress=progress)
    enforce(report.reading, skip_invalid=skip_invalid)
    rows, groups, origin = splits.evaluation_side(
        report.reading, val_fraction=val_fraction, eval_list=eval_list, all_images=all_images, groups=report.groups
    )
    index = report.reading.index
    return EvaluationImages(index=index.take(rows), groups=groups, data=index, origin=origin, report=report)


def _check_image_files(index: ImageIndex, path: Path) -> None:
    """Raise UserError if image files have changed."""
    changed = changed_image_files(index, path)
    if changed:
        raise UserError(
            f"{len(changed)} of {len(index)} images in {index.root} have changed since the run {path.parent} was "
            f"started ({splits.some(changed)}). Restore them, or start a new run with another --out."
        )


def check(
    reading: Reading, *, cache: Path, workers: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Report, Path | None]:
    """Run the preflight and write the decoded pixels on the way; returns the report and the file of pixels, if any.

    Unchanged files that were decoded before are not decoded again: the cache also holds the problems found by decoding
    and the thumbnails for finding near-duplicates. A damaged cache counts as none.
    """
    clean_cache(cache)  # before the free space is measured
    path = pixels_file(reading.index, cache)
    report_file = path.with_suffix(".report.npz")
    stored = fits_budget(reading.index, cache)
    cached = _cached_report(reading, report_file)
    if cached is not None:
        report, thumbnails = cached
        pixels = path if is_intact(path, reading.index) else None
        if pixels is not None or not stored:
            return _with_near_duplicates(report, reading, thumbnails), pixels
    thumbnails = np.zeros((len(reading.index), SIDE, SIDE), dtype=np.uint8)
    writer = PixelWriter(path, reading.index) if stored and len(reading.index) else None

    def store(row: int, image: NDArray[np.uint8]) -> None:
        thumbnails[row] = thumbnail(image)
        if writer is not None:
            writer.put(row, image)

    try:
        report = preflight(
            reading,
            workers=workers,
            progress=progress,
            max_side=LONGEST_SIDE,
            on_image=store,
        )
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            writer.discard()  # an interrupted writer leaves gigabytes
    _cache_report(reading, report, thumbnails, report_file)
    return _with_near_duplicates(report, reading, thumbnails), path if writer is not None else None


def _with_near_duplicates(report: Report, reading: Reading, thumbnails: NDArray[np.uint8]) -> Report:
    """The report with the near-duplicates of its usable images. thumbnails: of all images of `reading`."""
    usable = np.isin(np.array(reading.index.files), np.array(report.reading.index.files))
    return replace(report, duplicates=near_duplicates(thumbnails[usable]))


def _cache_report(reading: Reading, report: Report, thumbnails: NDArray[np.uint8], path: Path) -> None:
    """Write what decoding added to `reading`: the unusable images, their problems, and the thumbnails."""
    usable = set(report.reading.index.files)
    before, whole = len(reading.problems), len(whole_set_problems(report.reading))
    of_images = report.reading.problems[before : len(report.reading.problems) - whole]
    content = {
        "unusable": [name for name in reading.index.files if name not in usable],
        "problems": [asdict(problem) for problem in of_images],
    }
    with replacing(path) as file:  # an archive, because it has checksums
        np.savez(file, thumbnails=thumbnails, report=np.array(json.dumps(content)))


def _cached_report(reading: Reading, path: Path) -> tuple[Report, NDArray[np.uint8]] | None:
    """The report and the thumbnails of all images of `reading`; None if the file is missing or damaged."""
    try:
        stored = load_arrays(path, REPORT_FORM)
        content, thumbnails = json.loads(str(stored["report"])), stored["thumbnails"]
        unusable = set(content["unusable"])
        found = [Problem(**each) for each in content["problems"]]
    except (Unreadable, ValueError, KeyError, TypeError):
        return None
    if thumbnails.shape != (len(reading.index), SIDE, SIDE):
        return None
    usable: NDArray[np.bool_] = np.array([name not in unusable for name in reading.index.files], dtype=np.bool_)
    cleaned = reading.keep(usable)
    problems = [*reading.problems, *found]
    cleaned = replace(cleaned, problems=problems + whole_set_problems(cleaned))
    return Report(reading=cleaned, images_checked=len(reading.index)), thumbnails
