"""The table of VOC AP."""

from __future__ import annotations

from bench.analysis.run_records import Run
from bench.report.notes import subject
from bench.report.tables.columns import VOC_COLUMNS
from bench.report.tables.entries import variant_table
from bench.report.tables.typeset import Table


def voc_table(run: Run) -> Table:
    """VOC AP at IoU .5, mean over classes: `frame` has variant, voc_AP_11point and voc_AP_area (fractions of 1)."""
    return variant_table(
        run,
        name="voc",
        caption=f"AP as in the VOC devkit on {subject(run)}, in percent: IoU of at least .5 with inclusive pixel "
        "coordinates, difficult objects ignored, mean over classes. 11-point: as in VOC2007; area: as in VOC2010 and "
        "later.",
        metrics=VOC_COLUMNS,
    )
