"""report.html of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.compare.comparison import Comparison
from bench.report.citations import Sentence
from bench.report.notes import subject
from bench.report.page.page import render_page
from bench.report.tables.typeset import Table

# Plots by the table above them, or by the name of a section, with their alternative text.
PLOTS = {
    "differences": (
        ("differences", "Differences of AP, AP50, AP75 and AP by size with their intervals; values in the table."),
    ),
    "per_class": (("classes", "Differences of AP by class with their intervals; values in the table of classes."),),
    "errors": (
        ("error_differences", "Differences of the cost of each error type with their intervals; values in the table."),
        ("errors", "Cost of each error type in AP50 for every detector; values in the table of errors."),
        ("budget", "AP and the cost of each kind of error as one bar of 100 points per detector."),
    ),
    "thresholds": (("f1", "F1 over the score threshold of every detector; the best values are in the table."),),
    "curves": (
        ("calibration", "Precision over score of every detector."),
        ("precision_recall", "Precision over recall of every detector at an IoU of .5."),
        ("ap_against_iou", "AP of every detector at each IoU threshold."),
        ("confusion", "Predicted class over ground-truth class, for the first and the best other detector."),
    ),
}


def write_page(
    comparison: Comparison, verdict: Sequence[Sentence], tables: Sequence[Table], made_with: Sequence[tuple[str, str]]
) -> Path:
    """Write ``report.html`` into the folder of the comparison, from `tables` and the files in ``plots``.

    made_with: names and values that say what was compared on what.
    """
    run = comparison.analysis.run
    return render_page(
        run.folder,
        "comparison.html.j2",
        verdict,
        tables,
        PLOTS,
        subject=subject(run),
        title=f"Comparison of {len(comparison.names)} detectors on {run.plan['data']}",
        made_with=made_with,
    )
