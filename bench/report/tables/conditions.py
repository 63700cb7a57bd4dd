"""The table of AP and recall of truncated and occluded objects."""

from __future__ import annotations

from bench.analysis.run_records import Run
from bench.data.subsets import CONDITIONS
from bench.report.notes import subject
from bench.report.tables.entries import variant_table
from bench.report.tables.typeset import Table


def conditions_table(run: Run) -> Table:
    """AP and recall of truncated, untruncated, occluded and unoccluded objects, with the number of each.

    `frame`: variant, AP_truncated etc., AR_truncated etc. (fractions of 1), ground_truths_truncated etc.; empty if the
    dataset does not annotate the condition.
    """
    return variant_table(
        run,
        name="conditions",
        caption=f"AP and recall of truncated and occluded objects on {subject(run)}, in percent. AR100: recall with "
        "100 detections per image and class. n: ground truths; objects in the other condition, or whose condition is "
        "unknown, are ignored. An unmatched detection is a false positive in every condition, so the rarer condition "
        "has the lower AP at equal recall: compare AP between variants, and AR between conditions.",
        metrics=[f"{measure}_{name}" for measure in ("AP", "AR") for name in CONDITIONS],
        counts=[f"ground_truths_{name}" for name in CONDITIONS],
        notes=_not_annotated(run),
    )


def _not_annotated(run: Run) -> tuple[str, ...]:
    """One note per condition that the records include but the dataset does not annotate."""
    counts = [(record.get("accuracy") or {}).get("ground_truths") or {} for _, record in run.done()]
    return tuple(
        f"The dataset does not annotate {name} objects."
        for name in ("truncated", "occluded")
        if any(name in each for each in counts) and all(each.get(name) is None for each in counts)
    )
