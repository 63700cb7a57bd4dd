"""Synthetic runs with consistent boxes, matches, error types and records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.data.index import ImageIndex
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import error_types
from bench.storage.atomic import write_json
from tests.evaluation_oracles import detections_of, index_of, jittered, random_index
from tests.report.made_run import matrix, write_run


def drawn_truths(seed: int = 3, *, images: int = 24, classes: int = 4, conditions: bool = True) -> ImageIndex:
    """Ground truths of all sizes, none of the last class, some annotated as truncated."""
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=images, classes=classes)
    truncated = rng.integers(0, 2, len(index.boxes)).astype(np.int8) if conditions else index.truncated
    return replace(index, truncated=truncated)


def overlapping_fixes() -> tuple[ImageIndex, Detections]:
    """Two objects of class 1 and two errors, of which fixing either gives the found object a precision of 1.

    By score: the first object with the wrong class; its badly placed box; the second object, found. Of 101 recall
    points AP50 is 25.5, which fixing the class lifts by 50 * 2 / 3 + 25.5 and removing the box by 25.5.
    """
    box, beside = (10.0, 10.0, 110.0, 110.0), (65.0, 10.0, 165.0, 110.0)
    found = detections_of((0, 0, 0.9, *box), (0, 1, 0.8, *beside), (1, 1, 0.7, *box))
    return index_of([[(1, *box)], [(1, *box)]]), found


def write_found(
    folder: Path,
    index: ImageIndex,
    *,
    axes: Sequence[str] = ("fpn",),
    seeds: Sequence[int] = (0,),
    found: Detections | None = None,
    boxes: bool = False,
    **rest: object,
) -> Path:
    """Write a run whose cells detected the ground truths of `index` with independent noise, or exactly `found`.

    boxes: write detections.json instead of error_types.npz, as older runs did.
    """
    write_run(folder, factors=matrix(axes), seeds=seeds, **rest)  # type: ignore[arg-type]
    write_json(folder / "ground_truth.json", ground_truth_coco(index))
    for path in sorted(folder.glob("cells/*/record.json")):
        record = json.loads(path.read_text())
        if record["status"] != "done":
            continue
        own = found or jittered(np.random.default_rng(int(path.parent.name, 16)), index)
        evaluation = evaluate(index, own)
        evaluation.matches.save(path.with_name("matches.npz"))
        if boxes:
            write_json(path.with_name("detections.json"), detections_coco(own, index))
        else:
            rows = evaluation.matches.detection
            types = error_types(evaluation.matches, xywh(own.boxes[rows]), xywh(index.boxes))
            types.save(path.with_name("error_types.npz"))
        path.write_text(json.dumps(record | {"accuracy": evaluation.accuracy}))
    return folder
