"""A comparison as JSON data, and the decision of ``--fail-below``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.run_records import worth_of
from bench.compare.comparison import Comparison
from bench.errors import UserError
from bench.report.citations import Sentence
from bench.report.tables.formats import points

SCHEMA = 1


def comparison_content(
    comparison: Comparison, verdict: Sequence[Sentence], description: Mapping[str, Any], elsewhere: Mapping[str, int]
) -> dict[str, Any]:
    """The content of comparison.json: `description`, then everything that the tables show.

    detectors: name, numbers of detections (`elsewhere`: left out, on other images), accuracy as in a record
        (`bench.evaluation.coco.Evaluation`), probability_best, calibration_error. differences, errors, thresholds: rows
        of the frames of `Comparison`. verdict: sentences. Metrics are fractions of 1, missing values None.
    """
    analysis = comparison.analysis
    run, best = analysis.run, analysis.best.set_index("variant")["probability_best"]
    return {
        "schema": SCHEMA,
        **description,
        "images": analysis.samples.resampled.images,
        "independent_images": comparison.groups,
        "worth": worth_of(run),
        "detectors": [
            {
                "name": cell.variant,
                "detections": comparison.counts[cell.variant],
                "elsewhere": elsewhere[cell.variant],
                "images_with_detections": comparison.detected[cell.variant],
                "probability_best": _json(best.get(cell.variant)),
                "calibration_error": _json(comparison.calibration[cell.variant]),
                "accuracy": record["accuracy"],
            }
            for cell, record in run.done()
        ],
        "differences": _rows(comparison.differences),
        "errors": _rows(comparison.errors),
        "thresholds": _rows(comparison.thresholds),
        "verdict": [sentence.text for sentence in verdict],
    }


def clearly_below(comparison: Comparison, limit: float) -> list[str]:
    """Why the comparison fails: a line per detector that is clearly more than `limit` points below the first.

    That is so if the upper end of the 95% interval of its difference in AP lies below -limit. With several others the
    intervals hold for all of them together.
    Raises UserError if a difference has no interval: nothing can then be decided.
    """
    lines = []
    for name in comparison.names[1:]:
        row = comparison.of_ap(name)
        if math.isnan(row["high"]):
            reason = str(row["method"]).removeprefix("none: ")
            raise UserError(
                f"--fail-below {limit:g} cannot be decided for {name}: there is no interval ({reason}); evaluate on "
                "more images, or omit the option"
            )
        if 100 * row["high"] < -limit:
            limit_text = f"{limit:g} point{'' if limit == 1 else 's'}"
            lines.append(
                f"{name} is clearly more than {limit_text} below {comparison.reference}: AP "
                f"{points(row['difference'])} points, 95% interval {points(row['low'])} to {points(row['high'])}"
            )
    return lines


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _json(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _json(value: Any) -> Any:
    """None for a missing value, Python's own types for NumPy's."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value
