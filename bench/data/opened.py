"""From ``--data`` to what a run needs: a checked index, its split, and decoded pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.atomic import write_json
from bench.data import split as splits
from bench.data.index import ImageIndex
from bench.data.pixels import LONGEST_SIDE, PixelWriter, fits_budget, pixels_file
from bench.data.preflight import Report, enforce, preflight, whole_set_problems
from bench.data.problems import Problem
from bench.data.reading import Reading
from bench.data.sources import read_source


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedData:
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


def open_data(
    source: str,
    *,
    cache: Path,
    workers: int,
    skip_invalid: bool = False,
    val_fraction: float = 0.2,
    eval_list: str | None = None,
    frozen: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OpenedData:
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
    else:
        split = splits.make_split(report.reading, val_fraction=val_fraction, eval_list=eval_list)
    return OpenedData(index=report.reading.index, split=split, pixels=pixels, report=report)


def check(
    reading: Reading, *, cache: Path, workers: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Report, Path | None]:
    """The preflight, which fills the file of decoded pixels on its way; that file, if there is one.

    Images that were decoded before and have not been touched since are not decoded again.
    """
    path = pixels_file(reading.index, cache)
    verdict = path.with_suffix(".json")
    stored = fits_budget(reading.index, cache)
    if verdict.is_file() and (path.is_file() or not stored):
        return _remembered(reading, verdict), path if path.is_file() else None
    writer = PixelWriter(path, reading.index) if stored and len(reading.index) else None
    try:
        report = preflight(
            reading,
            workers=workers,
            progress=progress,
            max_side=LONGEST_SIDE,
            on_image=None if writer is None else writer.put,
        )
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            writer.discard()  # gigabytes, if it was interrupted
    _remember(reading, report, verdict)
    return report, path if writer is not None else None


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
