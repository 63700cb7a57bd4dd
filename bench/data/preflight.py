"""Every problem of a data set at once, before anything starts: each image is decoded completely.

A header check passes truncated files, which then stop a training in its third hour. The pass costs
one epoch of decoding and may fill the decode cache on the way (`on_image`).
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
from bench.data.problems import Problem, Severity
from bench.data.readers.reading import Reading, problem_of_image
from bench.errors import UserError
from bench.storage.atomic import write_json

SCHEMA = 1
IMAGES_A_TASK = 16  # so that scheduling costs nothing beside decoding
SHOWN = 20  # problems that an error names one by one
SHOWN_PAIRS = 3  # near-duplicates across the split that a warning names
SEVERITIES: tuple[Severity, ...] = ("fatal", "drop", "repair", "warning")

# What decode_image had to do, and what that means for the user.
CONVERSIONS = {
    "grey-image": ("a grey image", "grey is repeated in three channels; nothing to do"),
    "one-bit-image": ("a black-and-white image", "its two values become black and white; nothing to do"),
    "palette-image": ("an image of palette colours", "the colours are looked up; nothing to do"),
    "alpha-image": (
        "an image with transparency",
        "composited on white; flatten it if that is not its background",
    ),
    "cmyk-image": ("an image in printing colours (CMYK)", "converted without a profile; better saved as RGB"),
    "deep-grey-image": (
        "an image of 16 or more bits of grey",
        "its full range becomes 0 to 255; nothing to do",
    ),
    "colour-space-image": ("an image in another colour space", "converted to RGB; better saved as RGB"),
    "exif-orientation": (
        "a stored picture that EXIF turns",
        "turned upright, as it was annotated; nothing to do",
    ),
}

# Nothing can be left out to mend these, so --skip-invalid does not pass them.
OF_THE_WHOLE_SET = frozenset({"no-images", "no-training-images", "no-boxes"})


def _no_pairs() -> NDArray[np.int64]:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What checking a data set found.

    reading: what can be used, with all problems. images_checked: how many files were decoded.
    alike: (P, 2) rows of `reading.index` that are near-duplicates (duplicates.near_duplicates).
    leaking: (K, 2) rows of validation images and of a training image that each is alike
        (duplicates.across); empty until the sides are known (`warn_of_leaks`).
    """

    reading: Reading
    images_checked: int
    alike: NDArray[np.int64] = field(default_factory=_no_pairs)
    leaking: NDArray[np.int64] = field(default_factory=_no_pairs)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of each usable image's group of near-duplicates."""
        return groups_of(self.alike, len(self.reading.index))


def preflight(
    reading: Reading,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    max_side: int | None = None,
    on_image: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> Report:
    """Decode every image once, in `workers` threads, and check the set as a whole.

    progress: called with (images done, images in all), in the calling thread.
    max_side: see decode_image; makes large JPEG files several times faster.
    on_image: called in a worker thread with the row in `reading.index` (not of the result's) and the
        (H, W, 3) uint8 pixels, for each good image.
    Images that cannot be decoded or are of another size than annotated are left out of the result.
    """
    index = reading.index

    def check(rows: list[int]) -> list[tuple[int, list[Problem]]]:
        findings = []
        for row in rows:
            width, height = index.sizes[row].tolist()
            try:
                image = decode_image(index.root / index.files[row], expected_size=(width, height), max_side=max_side)
            except ImageError as error:
                findings.append((row, [problem_of_image(error, index.files[row])]))
                continue
            if image.conversions:
                findings.append((row, [_conversion(kind, index.files[row]) for kind in image.conversions]))
            if on_image is not None:
                on_image(row, image.pixels)
        return findings

    tasks = [list(range(len(index)))[start : start + IMAGES_A_TASK] for start in range(0, len(index), IMAGES_A_TASK)]
    found: dict[int, list[Problem]] = {}
    done = 0
    results = Parallel(n_jobs=workers, backend="threading", return_as="generator")(
        delayed(check)(task) for task in tasks
    )
    for task, findings in zip(tasks, results, strict=True):
        found.update(findings)
        done += len(task)
        if progress is not None:
            progress(done, len(index))

    kept = np.ones(len(index), dtype=np.bool_)
    for row, problems in found.items():
        kept[row] = all(each.severity == "repair" for each in problems)
    problems = reading.problems + [each for row in sorted(found) for each in found[row]]
    cleaned = reading.keep(kept)
    cleaned = replace(cleaned, problems=problems + whole_set_problems(cleaned))
    return Report(reading=cleaned, images_checked=len(index))


def whole_set_problems(reading: Reading) -> list[Problem]:
    """What is wrong with the set as a whole, its own split included."""
    index = reading.index
    where = str(index.root)
    if not len(index):
        return [_of_the_whole_set("no-images", where, "no usable image is left", "add images, or mend those above")]
    train = reading.lists.get("train", np.arange(len(index)))
    if not len(train):
        return [
            _of_the_whole_set(
                "no-training-images",
                where,
                "no usable image is left in the list train",
                "add images to it, or remove those that are also in val",
            )
        ]
    in_training = _boxes_by_class(reading, train)
    if not in_training.any():
        return [
            _of_the_whole_set(
                "no-boxes",
                where,
                "no training image has a box",
                "check that the annotations lie where the format expects them",
            )
        ]
    if "train" not in reading.lists or "val" not in reading.lists:
        return []
    in_validation = _boxes_by_class(reading, reading.lists["val"])
    return [
        Problem(
            severity="repair",
            kind="class-without-training-boxes",
            where=f"class {index.classes[label]}",
            what=f"{in_validation[label]} boxes in val, none in train",
            remedy="move some of its images to train; until then its AP is 0 and lowers the mean",
        )
        for label in np.flatnonzero((in_validation > 0) & (in_training == 0)).tolist()
    ]


def warn_of_leaks(report: Report, train: NDArray[np.int64], val: NDArray[np.int64]) -> Report:
    """The report with its near-duplicates across the sides of a split, as a list and as one warning.

    train, val: rows of `report.reading.index`. The split itself is left as it is.
    """
    leaking = across(report.alike, train, val)
    if not len(leaking):
        return report
    files = report.reading.index.files
    named = "; ".join(f"{files[scored]} is like {files[trained]}" for scored, trained in leaking[:SHOWN_PAIRS].tolist())
    more = f"; and {len(leaking) - SHOWN_PAIRS} more" if len(leaking) > SHOWN_PAIRS else ""
    warning = Problem(
        severity="warning",
        kind="near-duplicates-across-split",
        where="train and val",
        what=f"{len(leaking)} of {len(val)} validation images ({len(leaking) / len(val):.1%}) are near-duplicates "
        f"of training images: {named}{more}",
        remedy="AP measures memory on them: leave them out of one side (run_all.py preflight lists all), or give "
        "no lists: a split made here keeps together what is alike, unless that is nearly all there is",
    )
    reading = replace(report.reading, problems=[*report.reading.problems, warning])
    return replace(report, reading=reading, leaking=leaking)


def enforce(reading: Reading, *, skip_invalid: bool) -> None:
    """Raise UserError listing all fatal problems, unless their items may simply be left out.

    The first SHOWN are named by file and id, then there is a count for each kind with its remedy.
    """
    fatal = [each for each in reading.problems if each.severity == "fatal"]
    if skip_invalid:
        fatal = [each for each in fatal if each.kind in OF_THE_WHOLE_SET]
    if not fatal:
        return
    lines = [f"The data in {reading.index.root} have {len(fatal)} fatal problem{'s' if len(fatal) > 1 else ''}:"]
    lines += [f"  {each.where}: {each.what} [{each.kind}]" for each in fatal[:SHOWN]]
    if len(fatal) > SHOWN:
        lines.append(f"  ... and {len(fatal) - SHOWN} more")
    lines.append("What to do:")
    remedies = {each.kind: each.remedy for each in reversed(fatal)}
    lines += [f"  {kind} ({count}): {remedies[kind]}" for kind, count in Counter(p.kind for p in fatal).items()]
    if not all(each.kind in OF_THE_WHOLE_SET for each in fatal):
        lines.append("Or leave these items out with --skip-invalid.")
    raise UserError("\n".join(lines))


def summary(report: Report) -> list[str]:
    """Lines for the terminal: the size of the set, then each kind with count, an example and its remedy."""
    reading = report.reading
    index = reading.index
    lines = [
        f"{len(index)} of {report.images_checked} decoded images usable, {len(index.boxes)} boxes, "
        f"{len(index.classes)} classes",
        *(f"  {name}: {len(rows)} images" for name, rows in reading.lists.items()),
    ]
    together = _groups_of_several(report)
    if together:
        lines.append(f"{sum(map(len, together))} images are near-duplicates; groups of them: {len(together)}")
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
    """Write everything as JSON: sizes, counts by severity and kind, and all problems."""
    reading = report.reading
    files = reading.index.files
    counts: dict[str, dict[str, int]] = {severity: {} for severity in SEVERITIES}
    for each in reading.problems:
        of_severity = counts[each.severity]
        of_severity[each.kind] = of_severity.get(each.kind, 0) + 1
    content = {
        "schema": SCHEMA,
        "root": str(reading.index.root),
        "classes": list(reading.index.classes),
        "images_checked": report.images_checked,
        "images_usable": len(reading.index),
        "boxes_usable": len(reading.index.boxes),
        "lists": {name: len(rows) for name, rows in reading.lists.items()},
        "counts": counts,
        "problems": [asdict(each) for each in reading.problems],
        "near_duplicates": [[files[row] for row in rows] for rows in _groups_of_several(report)],
        "near_duplicates_across_split": [
            {"val": files[scored], "train": files[trained]} for scored, trained in report.leaking.tolist()
        ],
    }
    write_json(path, content)


def _groups_of_several(report: Report) -> list[list[int]]:
    """Rows of the images of each group of near-duplicates."""
    groups = report.groups
    sizes = np.bincount(groups)
    rows = np.flatnonzero(sizes[groups] > 1)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    ends = np.cumsum(sizes[sizes > 1])[:-1]
    return [part.tolist() for part in np.split(rows, ends)] if len(rows) else []


def _conversion(kind: str, file: str) -> Problem:
    what, remedy = CONVERSIONS[kind]
    return Problem(severity="repair", kind=kind, where=file, what=what, remedy=remedy)


def _of_the_whole_set(kind: str, where: str, what: str, remedy: str) -> Problem:
    return Problem(severity="fatal", kind=kind, where=where, what=what, remedy=remedy)


def _boxes_by_class(reading: Reading, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    part = reading.index.take(rows)
    return np.bincount(part.labels[~part.crowd], minlength=len(part.classes))
