"""Find all problems of a data set before a run starts; every image is decoded completely.

A header check would accept truncated files, which then stop training hours later. The preflight costs one epoch of
decoding and can fill the pixel cache on the way (`on_image`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from bench.data.decode import ImageError, decode_image
from bench.data.near_duplicates import across, groups_of
from bench.data.problems import KINDS, SEVERITIES, Problem, problem
from bench.data.readers.image_checks import problem_of_image
from bench.data.readers.reading import Reading
from bench.errors import UserError
from bench.storage.atomic import write_json

SCHEMA = 1
IMAGES_PER_TASK = 16  # makes scheduling negligible next to decoding
SHOWN = 20  # problems listed individually in an error
SHOWN_PAIRS = 3  # near-duplicates across the split named in the warning

# What was found in an image that `decode_image` converted.
CONVERSIONS = {
    "grey-image": "a grey image",
    "one-bit-image": "a black-and-white image",
    "palette-image": "a palette image",
    "alpha-image": "an image with transparency",
    "cmyk-image": "a CMYK image",
    "deep-grey-image": "a grey image of 16 or more bits",
    "colour-space-image": "an image in another colour space",
    "exif-orientation": "an image rotated by its EXIF orientation",
}

# Leaving items out cannot fix these, so --skip-invalid does not apply.
WHOLE_SET_KINDS = frozenset({"no-images", "no-training-images", "no-boxes"})


def _no_pairs() -> NDArray[np.int64]:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Result of the preflight.

    reading: the usable images, with all problems. images_checked: number of decoded files.
    duplicates: (P, 2) rows of `reading.index`, pairs of near-duplicates (near_duplicates.near_duplicates).
    leaking: (K, 2) rows of validation images, each with a training image that it duplicates
        (near_duplicates.across); empty until the split is known (`warn_of_leaks`).
    """

    reading: Reading
    images_checked: int
    duplicates: NDArray[np.int64] = field(default_factory=_no_pairs)
    leaking: NDArray[np.int64] = field(default_factory=_no_pairs)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) group of near-duplicates of each usable image."""
        return groups_of(self.duplicates, len(self.reading.index))


def preflight(
    reading: Reading,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    max_side: int | None = None,
    on_image: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> Report:
    """Decode every image once, in `workers` threads, and check the set as a whole.

    Images that cannot be decoded or differ in size from their annotation are left out of the result.

    progress: called with (images done, all images) in the calling thread.
    max_side: see decode_image; decodes large JPEG files several times faster.
    on_image: called in a worker thread for each good image, with its row in `reading.index` (not the result's) and
        its (H, W, 3) uint8 pixels.
    """
    index = reading.index

    def check(rows: list[int]) -> list[tuple[int, list[Problem]]]:
        problems = []
        for row in rows:
            width, height = index.sizes[row].tolist()
            try:
                image = decode_image(index.root / index.files[row], expected_size=(width, height), max_side=max_side)
            except ImageError as error:
                problems.append((row, [problem_of_image(error, index.files[row])]))
                continue
            if image.conversions:
                converted = [problem(kind, index.files[row], CONVERSIONS[kind]) for kind in image.conversions]
                problems.append((row, converted))
            if on_image is not None:
                on_image(row, image.pixels)
        return problems

    rows = list(range(len(index)))
    tasks = [rows[start : start + IMAGES_PER_TASK] for start in range(0, len(rows), IMAGES_PER_TASK)]
    problems_of: dict[int, list[Problem]] = {}
    done = 0
    results = Parallel(n_jobs=workers, backend="threading", return_as="generator")(
        delayed(check)(task) for task in tasks
    )
    for task, result in zip(tasks, results, strict=True):
        problems_of.update(result)
        done += len(task)
        if progress is not None:
            progress(done, len(index))

    kept = np.ones(len(index), dtype=np.bool_)
    for row, own in problems_of.items():
        kept[row] = all(each.severity == "repair" for each in own)
    problems = reading.problems + [each for row in sorted(problems_of) for each in problems_of[row]]
    cleaned = reading.keep(kept)
    cleaned = replace(cleaned, problems=problems + whole_set_problems(cleaned))
    return Report(reading=cleaned, images_checked=len(index))


def whole_set_problems(reading: Reading) -> list[Problem]:
    """Problems of the set as a whole, including its own split."""
    index = reading.index
    where = str(index.root)
    if not len(index):
        return [problem("no-images", where, "no usable image is left")]
    train = reading.lists.get("train", np.arange(len(index)))
    if not len(train):
        return [problem("no-training-images", where, "no usable image is left in the list train")]
    in_training = _boxes_by_class(reading, train)
    if not in_training.any():
        return [problem("no-boxes", where, "no training image has a box")]
    if "train" not in reading.lists or "val" not in reading.lists:
        return []
    in_validation = _boxes_by_class(reading, reading.lists["val"])
    return [
        problem(
            "class-without-training-boxes",
            f"class {index.classes[label]}",
            f"{in_validation[label]} boxes in val, none in train",
        )
        for label in np.flatnonzero((in_validation > 0) & (in_training == 0)).tolist()
    ]


def warn_of_leaks(report: Report, train: NDArray[np.int64], val: NDArray[np.int64]) -> Report:
    """The report with the near-duplicates across a split added, as `leaking` and as one warning.

    train, val: rows of `report.reading.index`. The split itself is not changed.
    """
    leaking = across(report.duplicates, train, val)
    if not len(leaking):
        return report
    files = report.reading.index.files
    pairs = "; ".join(f"{files[scored]} is like {files[trained]}" for scored, trained in leaking[:SHOWN_PAIRS].tolist())
    more = f"; and {len(leaking) - SHOWN_PAIRS} more" if len(leaking) > SHOWN_PAIRS else ""
    kind = "near-duplicates-across-split"
    severity, remedy = KINDS[kind]
    warning = Problem(
        severity=severity,
        kind=kind,
        where="train and val",
        what=f"{len(leaking)} of {len(val)} validation images ({len(leaking) / len(val):.1%}) are near-duplicates "
        f"of training images: {pairs}{more}",
        remedy=remedy,
    )
    reading = replace(report.reading, problems=[*report.reading.problems, warning])
    return replace(report, reading=reading, leaking=leaking)


def enforce(reading: Reading, *, skip_invalid: bool) -> None:
    """Raise UserError if there are fatal problems; with `skip_invalid`, only if leaving items out cannot fix them.

    The message lists the first SHOWN by file and id, then the count and remedy of each kind.
    """
    fatal = [each for each in reading.problems if each.severity == "fatal"]
    if skip_invalid:
        fatal = [each for each in fatal if each.kind in WHOLE_SET_KINDS]
    if not fatal:
        return
    lines = [f"The data in {reading.index.root} have {len(fatal)} fatal problem{'s' if len(fatal) > 1 else ''}:"]
    lines += [f"  {each.where}: {each.what} [{each.kind}]" for each in fatal[:SHOWN]]
    if len(fatal) > SHOWN:
        lines.append(f"  ... and {len(fatal) - SHOWN} more")
    lines.append("What to do:")
    remedies = {each.kind: each.remedy for each in reversed(fatal)}
    lines += [f"  {kind} ({count}): {remedies[kind]}" for kind, count in Counter(p.kind for p in fatal).items()]
    if not all(each.kind in WHOLE_SET_KINDS for each in fatal):
        lines.append("To leave these items out instead, add --skip-invalid.")
    raise UserError("\n".join(lines))


def summary(report: Report) -> list[str]:
    """Lines for the terminal: form and size of the set, then each kind of problem with count, example, remedy."""
    reading = report.reading
    index = reading.index
    lines = [
        *([f"recognised: {reading.recognised}"] if reading.recognised else []),
        f"{len(index)} of {report.images_checked} decoded images usable, {len(index.boxes)} boxes, "
        f"{len(index.classes)} classes",
        *(f"  {name}: {len(rows)} images" for name, rows in reading.lists.items()),
    ]
    groups = _duplicate_groups(report)
    if groups:
        number = f"{len(groups)} {'group' if len(groups) == 1 else 'groups'}"
        lines.append(f"{sum(map(len, groups))} images are near-duplicates, in {number}")
    for severity in SEVERITIES:
        of_severity = [each for each in reading.problems if each.severity == severity]
        first = {each.kind: each for each in reversed(of_severity)}
        for kind, count in Counter(each.kind for each in of_severity).most_common():
            example = first[kind]
            if severity == "warning":
                lines.append(f"{severity} {kind}: {example.what}. What to do: {example.remedy}")
                continue
            lines.append(f"{severity} {kind}: {count}, e.g. {example.where}: {example.what}; {example.remedy}")
    if not reading.problems:
        lines.append("no problems")
    return lines


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON: sizes, counts by severity and kind, all problems and near-duplicates."""
    reading = report.reading
    files = reading.index.files
    counts: dict[str, dict[str, int]] = {severity: {} for severity in SEVERITIES}
    for each in reading.problems:
        of_severity = counts[each.severity]
        of_severity[each.kind] = of_severity.get(each.kind, 0) + 1
    content = {
        "schema": SCHEMA,
        "root": str(reading.index.root),
        "recognised": reading.recognised,
        "classes": list(reading.index.classes),
        "images_checked": report.images_checked,
        "images_usable": len(reading.index),
        "boxes_usable": len(reading.index.boxes),
        "lists": {name: len(rows) for name, rows in reading.lists.items()},
        "counts": counts,
        "problems": [asdict(each) for each in reading.problems],
        "near_duplicates": [[files[row] for row in rows] for rows in _duplicate_groups(report)],
        "near_duplicates_across_split": [
            {"val": files[scored], "train": files[trained]} for scored, trained in report.leaking.tolist()
        ],
    }
    write_json(path, content)


def _duplicate_groups(report: Report) -> list[list[int]]:
    """The rows of each group of two or more near-duplicates."""
    groups = report.groups
    sizes = np.bincount(groups)
    rows = np.flatnonzero(sizes[groups] > 1)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    ends = np.cumsum(sizes[sizes > 1])[:-1]
    return [part.tolist() for part in np.split(rows, ends)] if len(rows) else []


def _boxes_by_class(reading: Reading, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    part = reading.index.take(rows)
    return np.bincount(part.labels[~part.crowd], minlength=len(part.classes))
