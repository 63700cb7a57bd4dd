"""What the finished cells of a run found, read once: matches, and what kind of error each wrong detection is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.analysis.bootstrap import read_matches, same_truths
from bench.analysis.run_records import PlannedCell, Run, read_object
from bench.data.subsets import CONDITIONS, NETWORK_SIZES
from bench.errors import UserError
from bench.evaluation.error_types import ErrorTypes, at_foreground, error_types
from bench.evaluation.matches import Matches

Trained = tuple[str, int]  # variant, seed


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """The errors about ground truths of a size or a condition: (D,) and (M,) bool of a cell's `Matches`.

    A wrong detection about no ground truth (background) has the size that it claims, and no condition.
    """

    detections: NDArray[np.bool_]
    truths: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedCell:
    """matches: of all sizes, at every IoU threshold. types, buckets: None and empty where boxes were not kept."""

    matches: Matches
    types: ErrorTypes | None
    buckets: Mapping[str, Bucket]


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """cells: finished ones that have matches, in the order of the plan. lacking: by cell, why it has no types."""

    cells: Mapping[Trained, CountedCell]
    lacking: Mapping[Trained, str]

    def of(self, variant: str | None) -> dict[int, CountedCell]:
        """The cells of a variant by seed."""
        return {seed: cell for (name, seed), cell in self.cells.items() if name == variant}


def counted_cells(run: Run) -> Counted:
    """The matches of every finished cell, and their error types.

    The types are those in ``error_types.npz``, or else come from the boxes in ``detections.json`` and
    ``ground_truth.json``. Raises UserError for files that cannot be read or do not belong together.
    """
    cells: dict[Trained, CountedCell] = {}
    lacking: dict[Trained, str] = {}
    first: tuple[Path, Matches] | None = None
    for cell, _ in run.done():
        trained, path = (cell.variant, cell.seed), run.folder_of(cell.id) / "matches.npz"
        if not path.is_file():
            lacking[trained] = "no matches.npz"
            continue
        matches = read_matches(path)
        first = first or (path, matches)
        if not same_truths(first[1], matches):
            raise UserError(
                f"{path} and {first[0]} were counted on different ground truths, so their cells cannot be compared; "
                "start the run again in a folder of its own"
            )
        types = _types(run, cell, matches)
        if types is None:
            lacking[trained] = "neither error_types.npz nor the boxes (detections.json, ground_truth.json)"
        # Most of the matches is of sizes, and no longer needed.
        row = matches.areas.index("all")
        cells[trained] = CountedCell(
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
    return Counted(cells=cells, lacking=lacking)


def _types(run: Run, cell: PlannedCell, matches: Matches) -> ErrorTypes | None:
    folder = run.folder_of(cell.id)
    path, found, truths = folder / "error_types.npz", folder / "detections.json", run.folder / "ground_truth.json"
    try:
        if path.is_file():
            types = ErrorTypes.load(path)
        elif found.is_file() and truths.is_file():
            path = found
            boxes = _boxes(json.loads(found.read_text(encoding="utf-8")))
            types = error_types(matches, boxes[matches.detection], _boxes(read_object(truths)["annotations"]))
        else:
            return None
    except (OSError, ValueError, KeyError, IndexError, TypeError, BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); delete the folder of its cell and start the "
            "run again with the same command, or delete the file alone: there is then no decomposition of errors"
        ) from error
    if (len(types.verdict), len(types.missed)) != (len(matches.label), len(matches.truth_label)):
        raise UserError(
            f"{path} is about {len(types.verdict)} detections and {len(types.missed)} ground truths, and the "
            f"matches.npz beside it about {len(matches.label)} and {len(matches.truth_label)}: they are of two "
            "evaluations; delete the folder of the cell and start the run again with the same command"
        )
    return types


def _boxes(entries: list[Mapping[str, list[float]]]) -> NDArray[np.float64]:
    return np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)


def _buckets(matches: Matches, types: ErrorTypes) -> dict[str, Bucket]:
    place = int(np.flatnonzero(np.isclose(matches.thresholds, at_foreground(matches).thresholds[0]))[0])
    about = types.truth >= 0
    buckets = {}
    for row, name in enumerate(matches.areas):
        if name not in (*NETWORK_SIZES, *CONDITIONS):
            continue
        truths = ~matches.truth_ignored[row]
        # What matches nothing is ignored by the evaluator where it is outside of the range of sizes.
        detections = ~about & ~matches.ignored[row, place] & (name in NETWORK_SIZES)
        detections[about] = truths[types.truth[about]]
        buckets[name] = Bucket(detections=detections, truths=truths)
    return buckets
