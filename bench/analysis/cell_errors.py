"""Matches and error types of the finished cells of a run, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.analysis.bootstrap import read_matches, require_same_ground_truths
from bench.analysis.image_groups import validation_groups
from bench.analysis.run_records import CellKey, PlannedCell, Run
from bench.data.subsets import CONDITIONS, NETWORK_SIZES, SIZES
from bench.errors import UserError
from bench.evaluation.error_types import ErrorTypes, at_foreground, error_types
from bench.evaluation.matches import Matches
from bench.storage.reading import RERUN_CELL, Unreadable, load_json, reason_of
from bench.storage.records import read_ground_truth
from bench.storage.run_folder import DETECTIONS, ERROR_TYPES, GROUND_TRUTH, MATCHES


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """Masks of the errors of one size or condition: (D,) and (M,) bool over a cell's `Matches`.

    A background error has no ground truth: it counts under the size of its own box and under no condition.
    """

    detections: NDArray[np.bool_]
    truths: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellErrors:
    """matches: all sizes, every IoU threshold. types: None (and buckets empty) if the boxes were not kept.

    buckets: by size at the network input, or in the original image if that input is not known, and by condition.
    """

    matches: Matches
    types: ErrorTypes | None
    buckets: Mapping[str, Bucket]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunErrors:
    """cells: finished cells with matches, in plan order. unavailable: why a finished cell has no error types.

    groups: (N,) group of near-duplicates of each validation image, from 0; empty without cells.
    """

    cells: Mapping[CellKey, CellErrors]
    unavailable: Mapping[CellKey, str]
    groups: NDArray[np.int64]

    def of_variant(self, variant: str | None) -> dict[int, CellErrors]:
        """The cells of a variant by seed."""
        return {seed: cell for (name, seed), cell in self.cells.items() if name == variant}


def load_run_errors(run: Run) -> RunErrors:
    """Load the matches and error types of every finished cell.

    Error types come from ``error_types.npz``, or are computed from the boxes in ``detections.json`` and
    ``ground_truth.json``. Raises UserError if files cannot be read or do not belong together.
    """
    cells: dict[CellKey, CellErrors] = {}
    unavailable: dict[CellKey, str] = {}
    first: tuple[Path, Matches] | None = None
    for cell, _ in run.done():
        path = run.folder_of(cell.id) / MATCHES
        if not path.is_file():
            unavailable[cell.key] = f"no {MATCHES}"
            continue
        matches = read_matches(path)
        first = first or (path, matches)
        require_same_ground_truths(*first, path, matches)
        types = _types(run, cell, matches)
        if types is None:
            unavailable[cell.key] = f"neither {ERROR_TYPES} nor the boxes ({DETECTIONS}, {GROUND_TRUTH})"
        cells[cell.key] = errors_of_cell(matches, types)
    groups = np.zeros(0, dtype=np.int64) if first is None else validation_groups(run, first[1].image_ids)
    return RunErrors(cells=cells, unavailable=unavailable, groups=groups)


def errors_of_cell(matches: Matches, types: ErrorTypes | None) -> CellErrors:
    """Sort the errors into sizes and conditions; then drop the matches by size, which take most of the memory."""
    row = matches.areas.index("all")
    return CellErrors(
        matches=replace(
            matches,
            areas=("all",),
            matched=matches.matched[[row]],
            ignored=matches.ignored[[row]],
            truth_ignored=matches.truth_ignored[[row]],
        ),
        types=types,
        buckets={} if types is None else _buckets(matches, types),
    )


def _types(run: Run, cell: PlannedCell, matches: Matches) -> ErrorTypes | None:
    folder = run.folder_of(cell.id)
    path, detections, truths = folder / ERROR_TYPES, folder / DETECTIONS, run.folder / GROUND_TRUTH
    remedy = f"{RERUN_CELL}, or delete only the file: there is then no error analysis of the cell"
    try:
        if path.is_file():
            types = ErrorTypes.load(path, remedy=remedy)
        elif detections.is_file() and truths.is_file():
            path = detections
            boxes = _boxes(load_json(detections, remedy=remedy))
            types = error_types(matches, boxes[matches.detection], _boxes(read_ground_truth(truths)["annotations"]))
        else:
            return None
    except (Unreadable, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise Unreadable(path, reason_of(error), remedy) from error
    if (len(types.verdict), len(types.missed)) != (len(matches.label), len(matches.truth_label)):
        raise UserError(
            f"{path} describes {len(types.verdict)} detections and {len(types.missed)} ground truths, but the "
            f"{MATCHES} next to it {len(matches.label)} and {len(matches.truth_label)}: they come from two "
            "evaluations; delete the cell's folder and repeat the command to rerun the cell"
        )
    return types


def _boxes(entries: list[Mapping[str, list[float]]]) -> NDArray[np.float64]:
    return np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)


def _buckets(matches: Matches, types: ErrorTypes) -> dict[str, Bucket]:
    threshold = int(np.flatnonzero(np.isclose(matches.thresholds, at_foreground(matches).thresholds[0]))[0])
    has_truth = types.truth >= 0
    sizes = NETWORK_SIZES if NETWORK_SIZES[0] in matches.areas else SIZES
    buckets = {}
    for row, name in enumerate(matches.areas):
        if name not in (*sizes, *CONDITIONS):
            continue
        truths = ~matches.truth_ignored[row]
        # The evaluator ignores unmatched detections outside the size range.
        detections = ~has_truth & ~matches.ignored[row, threshold] & (name in sizes)
        detections[has_truth] = truths[types.truth[has_truth]]
        buckets[name] = Bucket(detections=detections, truths=truths)
    return buckets
