"""Detections of the baseline and the best variant on example images: true positives, false positives and misses.

The matches are those of the evaluator, read from ``matches.npz``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.analysis.run_records import PlannedCell, Run, cells_frame
from bench.evaluation.matches import Matches
from bench.storage.forms import BoxForm, mismatch
from bench.storage.own_files import stored_thumbnails
from bench.storage.reading import RERUN_CELL, Unreadable, load_json, read_file
from bench.storage.records import read_ground_truth
from bench.storage.run_folder import DETECTIONS, GROUND_TRUTH, MATCHES

SCORE = 0.4  # score threshold, the same as in `run_all.py predict`
IOU = 0.5  # of a true positive
MAX_THUMBNAIL_BYTES = 1 << 20  # ours have 300 pixels a side


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A drawn box. kind: "hit", "alarm" (false positive) or "miss".

    box: x, y, width, height in pixels of the original image.
    """

    box: tuple[float, float, float, float]
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image with the marks of each variant. size: of the original image. picture: data URI."""

    image_id: int
    file_name: str
    size: tuple[int, int]
    picture: str
    variants: tuple[tuple[str, tuple[Mark, ...]], ...]


def examples(run: Run) -> list[Example]:
    """The example images of the run with the marks of two variants; empty without images or finished cells.

    The variants are the baseline and the best other one by AP, each with its first finished seed that has matches.
    Raises UserError if one of their files is damaged.
    """
    truth_file = run.folder / GROUND_TRUTH
    cells = _compared(run)
    # A thumbnail is named by the id of its image
    kept = [(int(path.stem), path) for path in stored_thumbnails(run.folder) if path.is_file()]
    if not kept or not truth_file.is_file() or not cells:
        return []
    truth = read_ground_truth(truth_file)
    images = {image["id"]: image for image in truth["images"]}
    kept = [(image_id, path) for image_id, path in kept if image_id in images]
    ids = [image_id for image_id, _ in kept]
    marks = {cell.variant: _marks(run.folder_of(cell.id), truth_file, truth, ids) for cell in cells}
    result = []
    for image_id, path in kept:
        image = images[image_id]
        encoded = base64.b64encode(read_file(path, limit=MAX_THUMBNAIL_BYTES, follow=False)).decode("ascii")
        result.append(
            Example(
                image_id=image["id"],
                file_name=str(image["file_name"]),
                size=(int(image["width"]), int(image["height"])),
                picture=f"data:image/jpeg;base64,{encoded}",
                variants=tuple((variant, tuple(by_image[image["id"]])) for variant, by_image in marks.items()),
            )
        )
    return result


def _compared(run: Run) -> list[PlannedCell]:
    """A finished cell of the baseline and one of the best other variant, if they exist."""
    first: dict[str, PlannedCell] = {}
    for cell, _ in run.done():
        folder = run.folder_of(cell.id)
        if (folder / MATCHES).is_file() and (folder / DETECTIONS).is_file():
            first.setdefault(cell.variant, cell)
    metrics = cells_frame(run)
    if not first or "accuracy.AP" not in metrics:
        return []
    means = metrics.groupby("variant")["accuracy.AP"].mean().dropna()
    others = means[[name for name in means.index if name in first and name != run.baseline]]
    names = [run.baseline] if run.baseline in first else []
    names += [str(others.idxmax())] if len(others) else []
    return [first[name] for name in names if name is not None]


def _marks(folder: Path, truth_file: Path, truth: dict[str, Any], ids: Iterable[int]) -> dict[int, list[Mark]]:
    """Marks of a cell by image id: misses, false positives, then true positives, which are drawn on top."""
    matches = Matches.load(folder / MATCHES)
    detections = load_json(folder / DETECTIONS, remedy=RERUN_CELL)
    row, level = matches.areas.index("all"), int(np.argmin(np.abs(matches.thresholds - IOU)))
    image_rows = {image_id: place for place, image_id in enumerate(matches.image_ids.tolist())}
    shown = (matches.score >= SCORE) & ~matches.ignored[row, level]
    matched = matches.matched[row, level]
    hit_truths = np.unique(matches.truth[level, shown & matched])
    missed = ~matches.truth_ignored[row]
    missed[hit_truths[hit_truths >= 0]] = False
    marks: dict[int, list[Mark]] = {}
    for image_id in ids:
        place = image_rows.get(image_id, -1)
        own = marks.setdefault(image_id, [])
        for which in np.flatnonzero(missed & (matches.truth_image == place)).tolist():
            name = matches.classes[int(matches.truth_label[which])]
            own.append(_mark(_box(truth["annotations"], which, truth_file), "miss", f"missed: {name}"))
        for kind, words, chosen in (
            ("alarm", "false positive", shown & ~matched),
            ("hit", "true positive", shown & matched),
        ):
            for which in np.flatnonzero(chosen & (matches.image == place)).tolist():
                name = matches.classes[int(matches.label[which])]
                text = f"{words}: {name}, score {matches.score[which]:.2f}"
                own.append(_mark(_box(detections, int(matches.detection[which]), folder / DETECTIONS), kind, text))
    return marks


def _box(entries: Sequence[dict[str, Any]], row: int, path: Path) -> list[float]:
    """x, y, width and height of an entry of the file `path`. Raises UserError if it has none."""
    if not isinstance(entries, list) or row >= len(entries):
        raise Unreadable(path, f"it has no box number {row + 1}", RERUN_CELL)
    if (fault := mismatch(entries[row], BoxForm, f"[{row}]")) or len(entries[row]["bbox"]) != 4:
        raise Unreadable(path, fault or f"[{row}].bbox has not 4 numbers", RERUN_CELL)
    box: list[float] = entries[row]["bbox"]
    return box


def _mark(box: Iterable[float], kind: str, text: str) -> Mark:
    x, y, width, height = (round(float(value), 1) for value in box)
    return Mark(box=(x, y, width, height), kind=kind, text=text)
